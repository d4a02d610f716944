"""Detection as a task: Cascade Mask R-CNN, its losses, and COCO's average precision of boxes and masks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from absl import logging
from flax import nnx
from jax import Array

from s3_jax.config import ModelConfig
from s3_jax.cost import Cost
from s3_jax.data.canvases import check_canvases
from s3_jax.data.splits import Splits, Subset, nothing
from s3_jax.detection.augment import whole_view
from s3_jax.detection.cascade import CascadeMaskRCNN, slice_cascade
from s3_jax.detection.config import DetectionAugmentConfig, DetectionConfig, DetectionDataConfig, HeadConfig
from s3_jax.detection.cost import cascade_cost
from s3_jax.detection.dataset import ObjectData, check_counted, open_data
from s3_jax.detection.evaluation import metrics_of_lines
from s3_jax.detection.examples import ObjectsOnCanvases, largest_scale
from s3_jax.detection.mask_targets import pasted
from s3_jax.detection.objects import Categories
from s3_jax.detection.results import line_of, results_of
from s3_jax.detection.standalone import DetectionSpec, begin_with
from s3_jax.errors import S3Error
from s3_jax.mapping import from_record
from s3_jax.models.families import Structure
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.models.subnet import Params, SubnetMask
from s3_jax.networks.standalone import About, Standalone
from s3_jax.space import Architecture, SearchSpace
from s3_jax.task import Line, Metrics, Task, Terms, check_finite

_FOR_HOLDOUT = "hold out more of them with data.holdout_fraction, take another seed, or set data.holdout_split"
FOUND = ("boxes", "scores", "labels", "masks")


@dataclasses.dataclass(frozen=True, eq=False)
class Detection(Task):
    """Boxes, classes and masks of objects."""

    score_name: ClassVar[str] = "box AP"
    error_name: ClassVar[str] = "100 - box AP"

    model: ModelConfig
    head: HeadConfig
    images: ObjectData
    data: DetectionDataConfig
    augment: DetectionAugmentConfig
    splits: Splits = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", self.images.splits)

    @property
    def categories(self) -> Categories:
        """The classes, in the order of their labels."""
        return self.images.categories

    def record(self) -> dict[str, Any]:
        """The data set, and the use of its splits."""
        return self.images.record()

    def bound(self) -> dict[str, Any]:
        """The names of the classes, and the numbers that files know them by."""
        return {"class_names": list(self.categories.names), "category_ids": list(self.categories.ids)}

    def examples(self, subset: Subset, *, training: bool) -> ObjectsOnCanvases:
        """The images of a subset, with their objects where they are trained on."""
        return ObjectsOnCanvases(subset, self.data, augment=self.augment if training else None)

    def network(
        self, structure: Structure, rngs: nnx.Rngs, *, batch_axis: str | None = None, platform: str | None = None
    ) -> CascadeMaskRCNN:
        """Cascade Mask R-CNN on a window transformer.

        Raises S3Error for a plain transformer, which has one map, and for canvases that its maps do not tile.
        """
        if isinstance(structure, IsotropicArchitecture):
            raise S3Error("a feature pyramid needs maps of several sizes, which a plain transformer lacks: give an S3")
        stride = self.model.patch_size * 2 ** (len(structure.stages) - 1)
        check_canvases(self.data.canvases, (self.data.test_scale,), stride)
        return CascadeMaskRCNN(
            structure,
            model=self.model,
            num_classes=len(self.categories.names),
            head=self.head,
            batch_axis=batch_axis,
            platform=platform,
            rngs=rngs,
        )

    def spec(self, architecture: Any, about: About) -> DetectionSpec:
        """What the network of an architecture is by itself."""
        return DetectionSpec(
            architecture,
            self.model.image_size,
            self.model.patch_size,
            self.categories.names,
            self.data.mean,
            self.data.std,
            about,
            self.categories.ids,
            self.head,
            self.data.test_scale,
            self.data.canvases,
        )

    def begin_with(self, network: CascadeMaskRCNN, start: Standalone, tell: Callable[[str], None]) -> None:
        """Give a network, in place, the backbone of a classifier or of a detector, and what else of the latter fits.

        Bias tables are resized; output norms are a detector's. Raises S3Error where the start is a plain transformer.
        """
        begin_with(network, self.spec(start.spec.architecture, About()), start, tell)

    def sliced(self, params: Params, space: SearchSpace, architecture: Architecture) -> Params:
        """The weights of an architecture's network, cut out of those of a supernet."""
        return slice_cascade(params, space, architecture)

    def terms(
        self, network: Any, batch: dict[str, Array], subnet: SubnetMask | None, key: Array, max_drop_path: float
    ) -> Terms:
        """The losses of proposals, and of each stage's classes, boxes and masks; see `CascadeMaskRCNN.losses`."""
        return network.losses(batch, subnet, key, max_drop_path)

    def predict(self, network: Any, batch: dict[str, Array], subnet: SubnetMask | None) -> dict[str, Array]:
        """What is found on a batch's canvases, as `Detections` have it."""
        return network.detect(batch["image"], batch["size"], subnet)._asdict()

    def lines(self, subset: Subset, rows: Sequence[int], predicted: dict[str, np.ndarray]) -> list[Line]:
        """Of each image what was found in it and what is there, in the original's pixels; see `results`."""
        check_finite(predicted["finite"])
        _warn_of_overflow(predicted["left_out"])
        found = zip(*(predicted[name] for name in FOUND), strict=True)
        return [self._line(subset, row, *each) for row, each in zip(rows, found, strict=True)]

    def _line(self, subset: Subset, row: int, *found: np.ndarray) -> Line:
        source, index = subset.source, int(subset.indices[row])
        image = source.image_record(index)
        results = results_in_original(source.size(index), self.data, *found)
        return line_of(image, results_of(image, *results, self.categories), source.truth(index))

    def score(self, lines: Sequence[Line]) -> Metrics:
        """Average precision of boxes and masks in percent, by size and by class; see `metrics_of_lines`."""
        return metrics_of_lines(lines, self.categories)

    def error(self, metrics: Metrics) -> float:
        """What is missing to an average precision of boxes of 100 %."""
        return 100.0 - metrics["box/ap"]

    def in_words(self, metrics: Metrics) -> str:
        """Average precision of boxes and of masks."""
        return f"box AP {metrics['box/ap']:.2f} %, mask AP {metrics['mask/ap']:.2f} %"

    def cost(self, architecture: Any) -> Cost:
        """Parameters of the whole network, and multiply-adds of an image on the first canvas; see `cascade_cost`."""
        return cascade_cost(
            architecture,
            self.data.canvases[0],
            image_size=self.model.image_size,
            patch_size=self.model.patch_size,
            num_classes=len(self.categories.names),
            head=self.head,
        )


def results_in_original(
    size: tuple[int, int],
    data: DetectionDataConfig,
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    masks: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """What was found on a canvas, (K, 4), (K,), (K,) and (K, m, m), in an original of a size (height, width).

    Boxes are cut at its edges; masks are bool (height, width). Places in which nothing was found (label -1) are gone.
    """
    there = np.flatnonzero(labels >= 0)
    moved = whole_view(*size, data.test_scale).back(boxes[there].astype(np.float64))
    moved = np.clip(moved, 0, [size[1], size[0], size[1], size[0]])
    shares = masks[there].astype(np.float32)
    bitmaps = [pasted(share, box, size) for share, box in zip(shares, moved, strict=True)]
    return moved, scores[there], labels[there], bitmaps


def _warn_of_overflow(left_out: np.ndarray) -> None:
    if (left_out > 0).any():
        logging.log_first_n(
            logging.WARNING,
            "%d boxes of an image scored above head.score_threshold and were not looked at, since "
            "head.class_candidates admits only the best (said once)",
            1,
            int(left_out.max()),
        )


def of_categories(config: DetectionConfig, categories: Categories) -> Detection:
    """The task of these classes without images of its own: to make programs, or to measure on images of others."""
    images = ObjectData("", "", categories, Splits(nothing(), nothing(), nothing(), nothing()))
    return Detection(config.model, config.head, images, config.data, config.augment)


def recorded_task(settings: Mapping[str, Any], dataset: Mapping[str, Any]) -> Detection:
    """The task of a run's records, without its images: what its networks are depends on these settings alone.

    settings: of `config.json`, whatever version wrote it; dataset: of `environment.json`. Raises S3Error or KeyError
    for records that are none.
    """
    of_images = ("mean", "std", "test_scale", "canvases")
    config = DetectionConfig(
        model=from_record(ModelConfig, settings.get("model", {}), "config.model"),
        head=from_record(HeadConfig, settings.get("head", {}), "config.head"),
        data=from_record(DetectionDataConfig, settings.get("data", {}), "config.data", *of_images),
    )
    return of_categories(config, Categories(tuple(dataset["category_ids"]), tuple(dataset["class_names"])))


def open_task(config: DetectionConfig) -> Detection:
    """Detection in a configuration's images.

    Raises S3Error where they do not fit, no canvas holds their views, or a holdout that is measured on has no object.
    """
    check_canvases(config.data.canvases, (largest_scale(config.augment),), 1)
    if config.train.init_from:
        raise S3Error(
            "config.train.init_from: supernets of detection begin at random; leave it out, or train one network, that "
            "of config.backbone.model"
        )
    images = open_data(config.data, config.seed)
    if config.run.evaluate_every or not config.backbone.is_given:  # else nothing is measured on a drawn holdout
        check_counted(images.splits.holdout, _FOR_HOLDOUT)
    return Detection(config.model, config.head, images, config.data, config.augment)
