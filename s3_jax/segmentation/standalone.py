"""What a segmentation network is by itself: its heads, its classes with their colours, and how images are tested."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from flax import nnx
from jax import Array

from s3_jax.config import ModelConfig
from s3_jax.cost import Cost
from s3_jax.errors import S3Error
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.networks.convert import begin_backbone, load_weights, to_state_dict
from s3_jax.networks.files import StateDict
from s3_jax.networks.standalone import Spec, Standalone
from s3_jax.segmentation import convert
from s3_jax.segmentation.augment import evaluation_size
from s3_jax.segmentation.class_table import Colour
from s3_jax.segmentation.cost import upernet_cost
from s3_jax.segmentation.resizing import Size, interpolated
from s3_jax.segmentation.upernet import UperNet


@dataclasses.dataclass(frozen=True)
class SegmentationSpec(Spec):
    """Everything about a segmentation network but its weights."""

    TASK: ClassVar[str] = "s3_jax.segmentation"
    NAMES: ClassVar[str] = "mmsegmentation's"
    ADDED: ClassVar[tuple[str, ...]] = ("zero_is_ignored",)

    channels: int = 512  # of the decode head
    auxiliary_channels: int = 256
    colours: tuple[Colour, ...] = ()  # of the classes in pictures; none: those of `data.pictures.default_colours`
    test_scale: tuple[int, int] = (2048, 512)  # longer and shorter side that images are resized to fit into
    test_multiple: int = 1  # to multiples of which both sides are brought up
    zero_is_ignored: bool = False  # in the masks that it was trained on 0 did not count, and 1 was the first class

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "colours", tuple(tuple(colour) for colour in self.colours))
        if isinstance(self.architecture, IsotropicArchitecture):
            raise S3Error("a plain transformer has no maps of several sizes, which UperNet needs")
        counts = (self.channels, self.auxiliary_channels, self.test_multiple, *self.test_scale)
        if len(self.test_scale) != 2 or not all(isinstance(count, int) and count > 0 for count in counts):
            raise S3Error("channels, auxiliary_channels, test_scale and test_multiple: expected whole numbers above 0")
        if self.colours and len(self.colours) != len(self.class_names):
            raise S3Error(f"{len(self.colours)} colours of {len(self.class_names)} classes; expected one for each")

    @property
    def cost(self) -> Cost:
        """Parameters with the auxiliary head, and MACs of one image of `test_scale`; see `upernet_cost`."""
        long, short = max(self.test_scale), min(self.test_scale)
        sizes = {"image_size": self.image_size, "patch_size": self.patch_size, "num_classes": len(self.class_names)}
        heads = {"channels": self.channels, "auxiliary_channels": self.auxiliary_channels}
        return upernet_cost(self.architecture, (short, long), **sizes, **heads)  # type: ignore[arg-type]

    def build(self, *, dtype: str = "float32", rngs: nnx.Rngs | None = None) -> UperNet:
        """The network with random weights (seed 0 where `rngs` is not given).

        Raises S3Error where patches do not tile `image_size`.
        """
        return UperNet(
            self.architecture,  # type: ignore[arg-type]
            model=ModelConfig(self.image_size, self.patch_size, dtype),
            num_classes=len(self.class_names),
            channels=self.channels,
            auxiliary_channels=self.auxiliary_channels,
            rngs=rngs or nnx.Rngs(0),
        )

    def state_dict(self, network: UperNet) -> StateDict:
        """A network's weights under mmsegmentation's names."""
        return convert.to_state_dict(network)

    def set_weights(self, network: UperNet, tensors: StateDict) -> None:
        """Give a network such weights, in place. Raises S3Error where they are not its own."""
        convert.load_weights(network, tensors)

    @property
    def export_size(self) -> Size:
        """That of an image which fills `test_scale`, lying, its sides brought up to multiples of `test_multiple`."""
        long, short = max(self.test_scale), min(self.test_scale)
        return evaluation_size(short, long, self.test_scale, self.test_multiple)

    def as_function(self, network: UperNet, size: Size) -> Callable[[Array], Array]:
        """Images (B, H, W, 3) to logits of their pixels (B, H, W, classes)."""
        definition, state = nnx.split(network)

        def logits(images: Array) -> Array:
            """What evaluation makes of an image that it sees at its own size."""
            own = nnx.merge(definition, state)
            own.by_products = False  # without gradients the libraries' own convolutions take less time
            return interpolated(own(images), size)

        return logits

    def card_rows(self) -> list[tuple[str, str]]:
        """How images are seen, in words."""
        long, short = max(self.test_scale), min(self.test_scale)
        multiple = f", sides brought up to multiples of {self.test_multiple}" if self.test_multiple > 1 else ""
        return [
            ("task", f"segmentation by UperNet, heads of {self.channels} and {self.auxiliary_channels} channels"),
            ("image", f"as large as fits into {long} x {short} px, bilinear{multiple}; multiply-adds are at that size"),
        ]


def begin_with(network: UperNet, spec: SegmentationSpec, start: Standalone, tell: Callable[[str], None]) -> None:
    """Give a network of a specification, in place, the weights of another that fit; see `Segmentation.begin_with`."""
    if isinstance(start.spec.architecture, IsotropicArchitecture):
        raise S3Error("a plain transformer has no maps of several sizes, which UperNet needs: give an S3 or a Swin")
    if not isinstance(start.spec, SegmentationSpec):
        begin_backbone(network.backbone, start.network)
        tell("the weights of another task's network in the backbone; the heads are random")
        return
    load_weights(network.backbone, to_state_dict(start.network.backbone), resize=True, reset_head=False)
    sizes = [(each.class_names, each.channels, each.auxiliary_channels) for each in (spec, start.spec)]
    if sizes[0] == sizes[1]:
        nnx.update(network, nnx.state(start.network, nnx.Not(_in_backbone)))
    tell(f"the backbone of a segmentation network; the heads are {'kept' if sizes[0] == sizes[1] else 'random'}")


def _in_backbone(path: tuple[Any, ...], value: Any) -> bool:
    return bool(path) and path[0] == "backbone"
