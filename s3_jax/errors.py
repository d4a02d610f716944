"""The one exception of the package: a mistake of the user's, told in a message they can act on."""

from collections.abc import Iterable

_MAX_LISTED = 10  # names in a message


class S3Error(Exception):
    """What was wrong, where, and what would work; `main` and the scripts print it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows under a notebook's cell: the message alone."""
        return [f"s3_jax: {self}"]


class Interrupted(S3Error):
    """The run was asked to stop and has saved; the same command goes on."""


def first_line(error: Exception) -> str:
    """The first line of what an exception says, or its kind where it says nothing: for a message of one paragraph."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def listed(names: Iterable[str]) -> str:
    """Names for a message, sorted, the first few where there are many."""
    names = sorted(names)
    more = len(names) - _MAX_LISTED
    return (", ".join(names[:_MAX_LISTED]) or "none") + (f" and {more:,} more" if more > 0 else "")
