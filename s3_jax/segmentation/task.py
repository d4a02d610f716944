"""Segmentation as a task: UperNet, pixel-wise cross-entropy, mean intersection over union."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx
from jax import Array

from s3_jax.config import ModelConfig
from s3_jax.cost import Cost
from s3_jax.data.splits import Splits, Subset, nothing
from s3_jax.errors import S3Error
from s3_jax.mapping import from_record
from s3_jax.models.families import Structure
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.models.subnet import Params, SubnetMask
from s3_jax.networks.standalone import About, Standalone
from s3_jax.segmentation.class_table import IGNORED, ClassTable, Colour
from s3_jax.segmentation.config import (
    HeadConfig,
    SegmentationAugmentConfig,
    SegmentationConfig,
    SegmentationDataConfig,
)
from s3_jax.segmentation.cost import upernet_cost
from s3_jax.segmentation.dataset import MaskData, open_data
from s3_jax.segmentation.examples import MaskedImages
from s3_jax.segmentation.metrics import counts_of, metrics_of_counts, summed
from s3_jax.segmentation.resizing import resized
from s3_jax.segmentation.standalone import SegmentationSpec, begin_with
from s3_jax.segmentation.upernet import UperNet, overlapped_upernet, slice_upernet
from s3_jax.space import Architecture, SearchSpace
from s3_jax.task import Line, Metrics, Task, Terms, check_finite


@dataclasses.dataclass(frozen=True, eq=False)
class Segmentation(Task):
    """The class of each pixel."""

    score_name: ClassVar[str] = "mIoU"
    error_name: ClassVar[str] = "100 - mIoU"

    model: ModelConfig
    head: HeadConfig
    images: MaskData
    data: SegmentationDataConfig
    augment: SegmentationAugmentConfig
    splits: Splits = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", self.images.splits)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their numbers."""
        return self.images.table.names

    def record(self) -> dict[str, Any]:
        """The data set, and the use of its splits."""
        return self.images.record()

    def bound(self) -> dict[str, Any]:
        """The names of the classes, and their colours where the class table has some."""
        colours = self.images.table.colours
        return {"class_names": list(self.class_names)} | ({"colours": list(map(list, colours))} if colours else {})

    def examples(self, subset: Subset, *, training: bool) -> MaskedImages:
        """The images of a subset with their class maps."""
        augment = self.augment if training else None
        return MaskedImages(subset, self.data, self.augment.crop, self.model.patch_size, augment=augment)

    def network(
        self, structure: Structure, rngs: nnx.Rngs, *, batch_axis: str | None = None, platform: str | None = None
    ) -> UperNet:
        """UperNet on a window transformer. Raises S3Error for a plain transformer, which has one map."""
        if isinstance(structure, IsotropicArchitecture):
            raise S3Error("UperNet needs maps of several sizes, which a plain transformer lacks: give an S3 or Swin")
        return UperNet(
            structure,
            model=self.model,
            num_classes=len(self.class_names),
            channels=self.head.channels,
            auxiliary_channels=self.head.auxiliary_channels,
            dropout=self.head.dropout,
            classifier_std=self.head.classifier_std,
            batch_axis=batch_axis,
            platform=platform,
            rngs=rngs,
        )

    def spec(self, architecture: Any, about: About) -> SegmentationSpec:
        """What the network of an architecture is by itself."""
        return SegmentationSpec(
            architecture,
            self.model.image_size,
            self.model.patch_size,
            self.class_names,
            self.data.mean,
            self.data.std,
            about,
            self.head.channels,
            self.head.auxiliary_channels,
            self.images.table.colours or (),
            self.data.test_scale,
            self.data.test_multiple,
            self.data.zero_is_ignored,
        )

    def begin_with(self, network: UperNet, start: Standalone, tell: Callable[[str], None]) -> None:
        """Give a network, in place, the backbone of a classifier or of a segmentation network, or all of the latter.

        Heads are kept where the classes are the same. Bias tables are resized. Output norms and the heads of a
        classifier's transfer begin at random. Raises S3Error where the start is a plain transformer.
        """
        begin_with(network, self.spec(start.spec.architecture, About()), start, tell)

    def sliced(self, params: Params, space: SearchSpace, architecture: Architecture) -> Params:
        """The weights of an architecture's network, cut out of those of a supernet."""
        return slice_upernet(params, space, architecture)

    def overlapped(self, source: Params, target: Params) -> Params:
        """The weights of a space's supernet with what they share with those of another space."""
        return overlapped_upernet(source, target)

    def terms(
        self, network: Any, batch: dict[str, Array], subnet: SubnetMask | None, key: Array, max_drop_path: float
    ) -> Terms:
        """Cross-entropy of image (B, H, W, 3) with "label" (B, H, W), of both heads.

        Divided by all pixels, those included that do not count, as mmsegmentation 0.11 does it.
        """
        label, weight = batch["label"], batch["weight"]
        logits = network.in_training(batch["image"], weight, subnet, max_drop_path=max_drop_path, key=key)
        decode, auxiliary = (pixel_cross_entropy(each, label, weight) for each in logits)
        count = weight.sum() * np.prod(label.shape[1:])
        return {"decode": (decode, count), "auxiliary": (self.head.auxiliary_weight * auxiliary, count)}

    def predict(self, network: Any, batch: dict[str, Array], subnet: SubnetMask | None) -> dict[str, Array]:
        """The likeliest "classes" (B, H, W) of the original's pixels, whether logits are "finite", and the "label"."""
        logits = network(batch["image"], subnet)
        classes = enlarged(logits, batch["rows"], batch["columns"]).argmax(-1).astype(jnp.uint8)
        return {"classes": classes, "finite": jnp.isfinite(logits).all((1, 2, 3)), "label": batch["label"]}

    def lines(self, subset: Subset, rows: Sequence[int], predicted: dict[str, np.ndarray]) -> list[Line]:
        """Number of each image, and its counts of pixels. Raises S3Error where logits are not finite."""
        check_finite(predicted["finite"])
        each = zip(rows, predicted["classes"], predicted["label"], strict=True)
        count = len(self.class_names)
        return [
            {"image": int(subset.indices[row]), "pixels": counts_of(classes, label, count)}
            for row, classes, label in each
        ]

    def score(self, lines: Sequence[Line]) -> Metrics:
        """Mean intersection over union, accuracies, and each class's intersection over union, in percent."""
        total = summed((line["pixels"] for line in lines), len(self.class_names))
        return metrics_of_counts(total, self.class_names)

    def error(self, metrics: Metrics) -> float:
        """What is missing to a mean intersection over union of 100 %."""
        return 100.0 - metrics["miou"]

    def in_words(self, metrics: Metrics) -> str:
        """Mean intersection over union and pixel accuracy."""
        return f"mIoU {metrics['miou']:.2f} %, pixel accuracy {metrics['pixel_accuracy']:.2f} %"

    def cost(self, architecture: Any) -> Cost:
        """Parameters of the whole network, and multiply-adds of an image of the crop's size; see `upernet_cost`."""
        return upernet_cost(
            architecture,
            (self.augment.crop, self.augment.crop),
            image_size=self.model.image_size,
            patch_size=self.model.patch_size,
            num_classes=len(self.class_names),
            channels=self.head.channels,
            auxiliary_channels=self.head.auxiliary_channels,
        )


def pixel_cross_entropy(logits: Array, label: Array, weight: Array) -> Array:
    """Cross-entropy of logits (B, h, w, C), enlarged, with classes (B, H, W), summed over pixels that count, times
    weight (B,)."""
    logits = resized(logits, (label.shape[1], label.shape[2]))
    # Comparing instead of gathering: the gradient of a gather is a scatter, which is slow and long to compile.
    is_label = jnp.arange(logits.shape[-1], dtype=label.dtype) == label[..., None]
    picked = jnp.where(is_label, logits, 0).sum(-1)
    losses = (jax.nn.logsumexp(logits, axis=-1) - picked) * (label != IGNORED)
    return (losses.sum((1, 2)) * weight).sum()


def enlarged(logits: Array, rows: Array, columns: Array) -> Array:
    """Logits (B, h, w, C) resized by matrices (B, H, h) and (B, W, w): (B, H, W, C)."""
    return jnp.einsum("bwW,bhWc->bhwc", columns, jnp.einsum("bhH,bHWc->bhWc", rows, logits))


def of_classes(config: SegmentationConfig, class_names: Sequence[str], colours: Sequence[Colour] = ()) -> Segmentation:
    """The task of these classes without images of its own: to make programs, or to measure on images of others."""
    table = ClassTable(tuple(class_names), tuple(colours) or None)
    images = MaskData("", "", table, Splits(nothing(), nothing(), nothing(), nothing()))
    return Segmentation(config.model, config.head, images, config.data, config.augment)


def recorded_task(settings: Mapping[str, Any], dataset: Mapping[str, Any]) -> Segmentation:
    """The task of a run's records, without its images: what its networks are depends on these settings alone.

    settings: of `config.json`, whatever version wrote it; dataset: of `environment.json`. Raises S3Error or KeyError
    for records that are none.
    """
    of_images = ("mean", "std", "test_scale", "test_multiple", "zero_is_ignored")
    config = SegmentationConfig(
        model=from_record(ModelConfig, settings.get("model", {}), "config.model"),
        head=from_record(HeadConfig, settings.get("head", {}), "config.head"),
        data=from_record(SegmentationDataConfig, settings.get("data", {}), "config.data", *of_images),
    )
    return of_classes(config, dataset["class_names"], dataset.get("colours", ()))


def open_task(config: SegmentationConfig) -> Segmentation:
    """Segmentation of a configuration's images. Raises S3Error where they do not fit."""
    if config.train.init_from:
        raise S3Error(
            "config.train.init_from: supernets of segmentation begin at random; leave it out, or train one network, "
            "that of config.backbone.model"
        )
    if config.train.batch_size == 1 or config.retrain.train.batch_size == 1:
        logging.warning(
            "in batches of one image, batch normalisation of the pyramid's 1 x 1 map sees one value, which leaves its "
            "bias alone; batches of two images or more train better"
        )
    return Segmentation(config.model, config.head, open_data(config.data, config.seed), config.data, config.augment)
