"""Which class of a network is which class of a data set: told by their names, not by how many there are."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from s3_jax.errors import S3Error, listed


def match(network: Sequence[str], data: Sequence[str]) -> np.ndarray:
    """The network's class for each class of a data set, (len(data),) int64; the data may have some of its classes.

    Classes are equal whose names are, in Unicode's composed form. Where the network's names are but "0", "1", ... and
    none of the data's is one of these, as many classes are taken in their order, ImageNet's for the published models.
    Raises S3Error where a class of the data is none of the network's, or could be two, with the names of both.
    """
    known, asked = _composed(network), _composed(data)
    if known == asked:
        return np.arange(len(known))
    place = {name: index for index, name in enumerate(known)}
    if set(asked) <= set(known):
        _refuse_twice(known, asked)
        return np.array([place[name] for name in asked], np.int64)
    if is_numbered(known) and len(known) == len(asked) and not set(known) & set(asked):
        return np.arange(len(known))
    named = (
        "; the network knows its classes by number alone: name them with --class_names" if is_numbered(known) else ""
    )
    raise S3Error(
        f"the classes of the data are not the network's. Only in the data: {listed(set(asked) - set(known))}. Only in "
        f"the network: {listed(set(known) - set(asked))}{named}"
    )


def is_numbered(names: Sequence[str]) -> bool:
    """Whether names are but "0", "1", ...: nobody has named these classes."""
    return tuple(names) == tuple(map(str, range(len(names))))


def _composed(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", name) for name in names)


def _refuse_twice(known: Sequence[str], asked: Sequence[str]) -> None:
    for names, where in ((known, "network"), (asked, "data")):
        twice = [name for name, count in Counter(names).items() if count > 1 and name in asked]
        if twice:
            raise S3Error(f"two classes of the {where} are called {twice[0]!r}: which is which cannot be told")
