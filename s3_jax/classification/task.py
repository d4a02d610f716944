"""Classification as a task: networks with a classifier, soft labels, top-1 error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from s3_jax.classification.batches import LabelledImages
from s3_jax.classification.config import AugmentConfig, ClassificationConfig, ClassificationDataConfig
from s3_jax.classification.dataset import ImageData, open_data
from s3_jax.classification.pretrained import checksum, open_pretrained, with_pretrained
from s3_jax.config import ModelConfig
from s3_jax.cost import Cost
from s3_jax.data.splits import Splits, Subset, nothing
from s3_jax.errors import S3Error
from s3_jax.mapping import from_record
from s3_jax.models.families import AnyNetwork, Structure, family_of
from s3_jax.models.subnet import SubnetMask
from s3_jax.networks.classes import match
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.convert import load_weights, to_state_dict
from s3_jax.networks.standalone import About, Standalone
from s3_jax.task import Line, Metrics, Task, Terms, Variables, check_finite, variables_of

# Classes that a prediction lists, the likeliest first.
RANKED = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Classification(Task):
    """One class an image. `pretrained`: the network of config.train.init_from."""

    score_name: ClassVar[str] = "accuracy"
    error_name: ClassVar[str] = "top-1 error"

    model: ModelConfig
    images: ImageData
    data: ClassificationDataConfig
    augment: AugmentConfig
    pretrained: Standalone | None = None
    splits: Splits = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", self.images.splits)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their numbers."""
        return self.images.class_names

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def record(self) -> dict[str, Any]:
        """The data set, and the use of its splits."""
        return self.images.record()

    def bound(self) -> dict[str, Any]:
        """The names of the classes."""
        return {"class_names": list(self.class_names)}

    def start(self) -> dict[str, Any]:
        """The checksum of the network of config.train.init_from."""
        return {} if self.pretrained is None else {"init_from_sha256": checksum(self.pretrained)}

    def examples(self, subset: Subset, *, training: bool) -> LabelledImages:
        """The images of a subset with their classes."""
        settings: dict[str, Any] = {"augment": self.augment, "num_classes": self.num_classes} if training else {}
        return LabelledImages(subset, self.data, self.model.image_size, **settings)

    def network(
        self, structure: Structure, rngs: nnx.Rngs, *, batch_axis: str | None = None, platform: str | None = None
    ) -> AnyNetwork:
        """A transformer with a classifier."""
        return family_of(structure).make(
            structure,
            **dataclasses.asdict(self.model),  # its fields are settings of transformers
            num_classes=self.num_classes,
            batch_axis=batch_axis,
            platform=platform,
            rngs=rngs,
        )

    def initial(self, structure: Structure, key: Array, tell: Callable[[str], None]) -> Variables:
        """Random weights; in a supernet, over them those of config.train.init_from."""
        random = variables_of(self.network(structure, nnx.Rngs(params=key)))
        if self.pretrained is None:
            return random
        return with_pretrained(self.pretrained, self.class_names, self.model, self.data, structure, random, tell)

    def spec(self, architecture: Any, about: About) -> ClassifierSpec:
        """What the classifier of an architecture is by itself."""
        return ClassifierSpec(
            architecture,
            self.model.image_size,
            self.model.patch_size,
            self.class_names,
            self.data.mean,
            self.data.std,
            about,
            self.data.eval_crop,
        )

    def begin_with(self, network: AnyNetwork, start: Standalone, tell: Callable[[str], None]) -> None:
        """Give a network, in place, a classifier's weights, and its last layer where that serves these classes.

        Bias tables and position embeddings are resized. Raises S3Error where the start is no classifier.
        """
        if not isinstance(start.spec, ClassifierSpec):
            raise S3Error(f"a network of the task {start.spec.TASK} has no classifier to begin with; give a classifier")
        classes = kept_classifier(start.spec.class_names, self.class_names)
        tell(f"The classifier is {'new: the classes are others' if classes is None else 'kept'}.")
        tensors = to_state_dict(start.network)
        if classes is not None:
            tensors |= {name: tensor[classes] for name, tensor in tensors.items() if name.startswith("head.")}
        load_weights(network, tensors, resize=True, reset_head=classes is None)

    def terms(
        self, network: Any, batch: dict[str, Array], subnet: SubnetMask | None, key: Array, max_drop_path: float
    ) -> Terms:
        """Cross-entropy of image (B, H, W, 3) with soft labels "target" (B, classes), and the sum of the labels."""
        logits = network(batch["image"], subnet, max_drop_path=max_drop_path, key=key if max_drop_path > 0 else None)
        return {"cross_entropy": soft_cross_entropy(logits, batch["target"] * batch["weight"][:, None])}

    def predict(self, network: Any, batch: dict[str, Array], subnet: SubnetMask | None) -> dict[str, Array]:
        """The likeliest classes "ranked" (B, 5 or all), whether the logits are "finite" (B,), and the "label" (B,)."""
        logits = network(batch["image"], subnet)
        ranked = jax.lax.top_k(logits, min(RANKED, self.num_classes))[1]
        return {"ranked": ranked, "finite": jnp.isfinite(logits).all(-1), "label": batch["label"]}

    def lines(self, subset: Subset, rows: Sequence[int], predicted: dict[str, np.ndarray]) -> list[Line]:
        """Number, class and likeliest classes of each image. Raises S3Error where logits are not finite."""
        check_finite(predicted["finite"])
        each = zip(rows, predicted["label"].tolist(), predicted["ranked"].tolist(), strict=True)
        return [{"image": int(subset.indices[row]), "label": label, "ranked": ranked} for row, label, ranked in each]

    def score(self, lines: Sequence[Line]) -> Metrics:
        """Top-1 and top-5 accuracy and top-1 error, in percent."""
        labels = np.array([line["label"] for line in lines])
        hits = np.array([line["ranked"] for line in lines]) == labels[:, None]
        right, among_five = int(hits[:, 0].sum()), int(hits.sum())
        return {
            "top1": 100.0 * right / len(lines),
            "top5": 100.0 * among_five / len(lines),
            "error": 100.0 * (1.0 - right / len(lines)),
        }

    def error(self, metrics: Metrics) -> float:
        """Top-1 error in percent."""
        return metrics["error"]

    def in_words(self, metrics: Metrics) -> str:
        """Top-1 accuracy."""
        return self.score_in_words(metrics["top1"])

    def score_in_words(self, score: float) -> str:
        """Top-1 accuracy in percent."""
        return f"top-1 {score:.2f} %"

    def cost(self, architecture: Any) -> Cost:
        """Parameters and multiply-adds on one image, the classifier included."""
        sizes = {"image_size": self.model.image_size, "patch_size": self.model.patch_size}
        return family_of(architecture).cost(architecture, **sizes, num_classes=self.num_classes)


def kept_classifier(start: tuple[str, ...], data: tuple[str, ...]) -> np.ndarray | None:
    """The network's class for each of the data's, where a classifier for the one serves the other; None where not.

    They have the same names, in whatever order, or the network knows its as many classes by number alone: so the
    published models keep theirs on ImageNet.
    """
    try:
        return match(start, data) if len(start) == len(data) else None
    except S3Error:
        return None


def of_classes(
    model: ModelConfig, class_names: Sequence[str], data: ClassificationDataConfig | None = None
) -> Classification:
    """The task of these classes without images of its own: to make programs, or to measure on images of others."""
    images = ImageData("", "", tuple(class_names), Splits(nothing(), nothing(), nothing(), nothing()))
    return Classification(model, images, data or ClassificationDataConfig(), AugmentConfig())


def recorded_task(settings: Mapping[str, Any], dataset: Mapping[str, Any]) -> Classification:
    """The task of a run's records, without its images: what its networks are depends on these settings alone.

    settings: of `config.json`, whatever version wrote it; dataset: of `environment.json`. Raises S3Error or KeyError
    for records that are none.
    """
    names = dataset.get("class_names") or [str(number) for number in range(int(dataset["num_classes"]))]
    model = from_record(ModelConfig, settings.get("model", {}), "config.model")
    of_images = ("mean", "std", "eval_crop")
    data = from_record(ClassificationDataConfig, settings.get("data", {}), "config.data", *of_images)
    return of_classes(model, names, data)


def open_task(config: ClassificationConfig) -> Classification:
    """Classification of a configuration's images. Raises S3Error where they, or what to begin with, do not fit."""
    images = open_data(config.data, seed=config.seed)
    return Classification(config.model, images, config.data, config.augment, open_pretrained(config))


def soft_cross_entropy(logits: Array, target: Array) -> tuple[Array, Array]:
    """Cross-entropy of (B, classes) logits to soft labels (B, classes), summed over images, and the labels' sum."""
    return -(target * jax.nn.log_softmax(logits)).sum(), target.sum()
