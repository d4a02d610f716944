"""Which images of a data set are used for what, whatever a task knows of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from absl import logging

from s3_jax.data.randomness import HOLDOUT, generator
from s3_jax.data.sources import MemoryImages
from s3_jax.errors import S3Error


class Source(Protocol):
    """Images by number, with whatever a task knows of each: see `sources.ImageSource` for images with labels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Any:
        """An image and what is known of it. Raises BadImage."""

    def name(self, index: int) -> str:
        """Where the image lies, for messages."""

    @property
    def identities(self) -> np.ndarray:
        """int64 (N,): a number for each image that no other of the data set has, whichever splits it is in."""


class SplitNames(Protocol):
    """Settings that name the splits of a data set by their uses; "" for a holdout that is drawn from train."""

    @property
    def train_split(self) -> str:
        """Trained on."""

    @property
    def test_split(self) -> str:
        """Used once, at the end."""

    @property
    def holdout_split(self) -> str:
        """For E-T Error and search."""


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Some images of one split."""

    source: Any  # a Source; a task knows which
    indices: np.ndarray  # (N,) int64, sorted numbers of images in the source
    split: str

    def __len__(self) -> int:
        return len(self.indices)

    def shared_with(self, other: Subset) -> int:
        """Number of images that both have, for subsets of one data set."""
        ours, theirs = (subset.source.identities[subset.indices] for subset in (self, other))
        return len(np.intersect1d(ours, theirs))


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """What the images of a data set are used for; what is trained on is in none of holdout, judge and test.

    But for one: single networks are trained on the holdout too, which is then measured on no more.
    """

    train: Subset  # of supernets
    train_and_holdout: Subset  # the train split but for the judging images, of single networks
    holdout: Subset  # for E-T Error and search
    test: Subset  # passed once for each network, at the end
    judge: Subset | None = None  # for E-T Errors by which nothing is chosen; None where there are none

    def record(self) -> dict[str, Any]:
        """For each use the split, the images used and how many the split has.

        "overlap" tells how many test images E-T Error and search have seen, as in the paper's own protocol.
        """
        uses = {"train": self.train, "holdout": self.holdout, "test": self.test}
        if self.judge is not None:
            uses["judge"] = self.judge
        splits = {
            use: {"split": subset.split, "images": len(subset), "of": len(subset.source)}
            for use, subset in uses.items()
        }
        return {"splits": splits, "overlap": {"holdout_test": self.holdout.shared_with(self.test)}}


def nothing() -> Subset:
    """A subset without images, for those who ask a task for the shapes of its examples alone."""
    images = MemoryImages(np.zeros((0, 1, 1, 3), np.uint8), np.zeros(0, np.int64), "nothing")
    return Subset(images, np.arange(0), "none")


def whole(source: Any, split: str) -> Subset:
    """All images of a split."""
    return Subset(source, np.arange(len(source)), split)


def names_of_splits(config: SplitNames) -> tuple[str, ...]:
    """The splits that a configuration uses, each once. Raises S3Error where it lacks one to train or to test on."""
    if not config.train_split or not config.test_split:
        raise S3Error("data.train_split and data.test_split must both name a split")
    return tuple(dict.fromkeys(filter(None, (config.train_split, config.test_split, config.holdout_split))))


def check_all_apart(subsets: Mapping[str, Subset], config: SplitNames) -> None:
    """Raises S3Error where a split that measures has images of the train split. subsets: whole splits by name."""
    for field in ("test_split", "holdout_split"):
        check_apart(subsets[config.train_split], subsets.get(getattr(config, field)), field)


def check_apart(train: Subset, other: Subset | None, field: str) -> None:
    """Raises S3Error where an image that measures would be trained on."""
    shared = train.shared_with(other) if other else 0
    if other and shared:
        raise S3Error(
            f"data.{field} = {other.split!r} and data.train_split = {train.split!r} share {shared:,} images: what is "
            "measured on them would be learned by heart; choose splits, or slices of a split, that are apart"
        )


def hold_out(whole: Subset, fraction: float, seed: int) -> tuple[Subset, Subset]:
    """The split without a random share of its images, and that share; each has one image at least. Raises S3Error."""
    count = round(fraction * len(whole))
    if not 0 < count < len(whole):
        raise S3Error(
            f"data.holdout_fraction = {fraction} of {len(whole):,} training images holds out {count:,}: "
            "training needs some and so does the holdout; choose another fraction, or set data.holdout_split"
        )
    order = generator(seed, HOLDOUT).permutation(len(whole))
    held, kept = (np.sort(whole.indices[rows]) for rows in (order[:count], order[count:]))
    holdout = dataclasses.replace(whole, indices=held)
    return without(dataclasses.replace(whole, indices=kept), holdout), holdout


def without(train: Subset, held: Subset) -> Subset:
    """Training images that are not held out under another name, as a link to the same file is. Raises S3Error."""
    identities = train.source.identities
    apart = ~np.isin(identities[train.indices], identities[held.indices])
    if not apart.any():
        raise S3Error("every training image is held out under another name: the split has the same files many times")
    if twice := int((~apart).sum()):
        logging.warning("%s training images are held out under another name, and left out of training", f"{twice:,}")
    return dataclasses.replace(train, indices=train.indices[apart])
