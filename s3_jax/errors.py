"""The one exception of the package: a mistake of the user's, told in a message they can act on."""


class S3Error(Exception):
    """What was wrong, where, and what would work; `main` and the scripts print it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows under a notebook's cell: the message alone."""
        return [f"s3_jax: {self}"]


class Interrupted(S3Error):
    """The run was asked to stop and has saved; the same command goes on."""
