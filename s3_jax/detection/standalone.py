"""What a detector is by itself: its heads, its classes with their numbers in files, and how images are tested."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx, traverse_util
from jax import Array

from s3_jax.config import ModelConfig
from s3_jax.cost import Cost
from s3_jax.data.canvases import check_canvases
from s3_jax.data.rescaling import Size
from s3_jax.detection import convert
from s3_jax.detection.cascade import CascadeMaskRCNN
from s3_jax.detection.config import HeadConfig
from s3_jax.detection.cost import cascade_cost
from s3_jax.errors import S3Error
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.networks.convert import begin_backbone, beside_backbone, load_weights, to_state_dict
from s3_jax.networks.files import StateDict
from s3_jax.networks.standalone import Spec, Standalone

Found = tuple[Array, Array, Array, Array]


@dataclasses.dataclass(frozen=True)
class DetectionSpec(Spec):
    """Everything about a detector but its weights."""

    TASK: ClassVar[str] = "s3_jax.detection"
    NAMES: ClassVar[str] = "mmdetection's"
    NO_ONNX: ClassVar[str] = (
        "a detector cannot be converted to ONNX: jax2onnx 0.17 has no right rule for jnp.where under jax.vmap, which "
        "RoIAlign of many boxes needs"
    )
    ANSWER: ClassVar[str] = (
        "found = model.network.detect(images, sizes)  # (B, H, W, 3), normalised with model.spec.mean and .std, at the "
        "top left of a canvas; (B, 2): height and width of each there"
    )

    category_ids: tuple[int, ...] = tuple(range(1, 1001))  # what files call the classes, in their order
    head: HeadConfig = dataclasses.field(default_factory=HeadConfig)
    test_scale: tuple[int, int] = (1333, 800)  # longer and shorter side that images are resized to fit into
    canvases: tuple[tuple[int, int], ...] = ((800, 1344), (1344, 800))  # height and width of each, in pixels

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "canvases", tuple(tuple(canvas) for canvas in self.canvases))
        if isinstance(self.architecture, IsotropicArchitecture):
            raise S3Error("a plain transformer has no maps of several sizes, which a feature pyramid needs")
        ids = self.category_ids
        if len(ids) != len(self.class_names) or len(set(ids)) != len(ids) or not all(map(_is_whole, ids)):
            raise S3Error(
                f"category_ids = {ids!r}: expected a whole number for each of the {len(self.class_names)} "
                "classes, no two of them the same"
            )
        sizes = (self.test_scale, *self.canvases)
        if not self.canvases or not all(len(size) == 2 and all(map(_is_side, size)) for size in sizes):
            raise S3Error("test_scale and canvases: expected pairs of whole numbers above 0, and one canvas at least")
        check_canvases(self.canvases, (self.test_scale,), self.patch_size * 2 ** (len(self.architecture.stages) - 1))

    @property
    def cost(self) -> Cost:
        """Parameters, and MACs of one image on the first canvas; see `cascade_cost`."""
        return cascade_cost(
            self.architecture,  # type: ignore[arg-type]
            self.canvases[0],
            image_size=self.image_size,
            patch_size=self.patch_size,
            num_classes=len(self.class_names),
            head=self.head,
        )

    def build(self, *, dtype: str = "float32", rngs: nnx.Rngs | None = None) -> CascadeMaskRCNN:
        """The network with random weights (seed 0 where `rngs` is not given).

        Raises S3Error where patches do not tile `image_size`.
        """
        return CascadeMaskRCNN(
            self.architecture,  # type: ignore[arg-type]
            model=ModelConfig(self.image_size, self.patch_size, dtype),
            num_classes=len(self.class_names),
            head=self.head,
            rngs=rngs or nnx.Rngs(0),
        )

    def state_dict(self, network: CascadeMaskRCNN) -> StateDict:
        """A network's weights under mmdetection's names."""
        return convert.to_state_dict(network)

    def set_weights(self, network: CascadeMaskRCNN, tensors: StateDict) -> None:
        """Give a network such weights, in place. Raises S3Error where they are not its own."""
        convert.load_weights(network, tensors)

    @property
    def export_size(self) -> Size:
        """That of the first canvas."""
        return self.canvases[0]

    def as_function(self, network: CascadeMaskRCNN, size: Size) -> Callable[[Array], Found]:
        """Images (B, H, W, 3) that fill a canvas of a size to boxes (B, K, 4), scores (B, K), labels (B, K) and masks
        (B, K, 28, 28), as `Detections` have them.

        Raises S3Error where the network's maps do not tile such a canvas.
        """
        stride = self.patch_size * 2 ** (len(self.architecture.stages) - 1)  # type: ignore[union-attr]
        check_canvases((size,), (), stride)
        definition, state = nnx.split(network)

        def found(images: Array) -> Found:
            """What evaluation makes of images that are as large as their canvas."""
            own = nnx.merge(definition, state)
            own.by_products = False  # without gradients the libraries' own convolutions take less time
            sizes = jnp.broadcast_to(jnp.array(size, jnp.int32), (images.shape[0], 2))
            detections = own.detect(images, sizes)
            return detections.boxes, detections.scores, detections.labels, detections.masks

        return found

    def card_rows(self) -> list[tuple[str, str]]:
        """How images are seen, in words."""
        long, short = max(self.test_scale), min(self.test_scale)
        canvases = ", ".join(f"{height} x {width}" for height, width in self.canvases)
        return [
            ("task", f"detection by Cascade Mask R-CNN, heads of {self.head.channels} channels"),
            ("image", f"as large as fits into {long} x {short} px, bilinear, at the top left of a canvas"),
            ("canvases, height x width", f"{canvases}; multiply-adds are those of the first"),
        ]


def begin_with(network: CascadeMaskRCNN, spec: DetectionSpec, start: Standalone, tell: Callable[[str], None]) -> None:
    """Give a network of a specification, in place, the weights of another that fit; see `Detection.begin_with`."""
    if isinstance(start.spec.architecture, IsotropicArchitecture):
        raise S3Error("a plain transformer has no maps of several sizes, which a feature pyramid needs: give an S3")
    if not isinstance(start.spec, DetectionSpec):
        begin_backbone(network.backbone, start.network)
        tell("the weights of another task's network in the backbone; the heads are random")
        return
    load_weights(network.backbone, to_state_dict(start.network.backbone), resize=True, reset_head=False)
    kept_heads = _fitting(network, start.network, same_classes=spec.class_names == start.spec.class_names)
    nnx.update(network, traverse_util.unflatten_dict(kept_heads))
    own = len(beside_backbone(network)) - len(kept_heads)
    tell(f"a detector's backbone and {len(kept_heads)} tensors of its heads; {own or 'none'} of the heads are random")


def _fitting(network: CascadeMaskRCNN, start: CascadeMaskRCNN, *, same_classes: bool) -> dict[tuple[Any, ...], Array]:
    """What of the heads of another network has its place here; layers of other classes have none."""
    ours, theirs = beside_backbone(network), beside_backbone(start)
    return {
        path: leaf
        for path, leaf in theirs.items()
        if path in ours and ours[path].shape == leaf.shape and (same_classes or not _is_of_classes(path))
    }


def _is_of_classes(path: tuple[Any, ...]) -> bool:
    """Whether a parameter is one of the layers that have an output for each class."""
    return not {"classifier", "regressor"}.isdisjoint(path)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_side(value: object) -> bool:
    return _is_whole(value) and value > 0  # type: ignore[operator]
