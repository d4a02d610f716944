"""What a classifier is by itself: the published models, and the networks that a search of classifiers finds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from flax import nnx
from jax import Array

from s3_jax.cost import Cost
from s3_jax.errors import S3Error
from s3_jax.models.families import AnyNetwork, family_of
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.networks.convert import load_weights, to_state_dict
from s3_jax.networks.files import StateDict
from s3_jax.networks.standalone import Spec


@dataclasses.dataclass(frozen=True)
class ClassifierSpec(Spec):
    """Everything about a classifier but its weights."""

    TASK: ClassVar[str] = "s3_jax.classification"
    NAMES: ClassVar[str] = "timm's"
    SCORE: ClassVar[str] = "accuracy"

    eval_crop: float = 0.9  # share of the resized image's side that the centre crop keeps

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.eval_crop <= 1:
            raise S3Error(f"eval_crop = {self.eval_crop!r}: expected a share above 0 and at most 1")

    @property
    def cost(self) -> Cost:
        """Parameters, and MACs of one image."""
        sizes = {"image_size": self.image_size, "patch_size": self.patch_size, "num_classes": len(self.class_names)}
        return family_of(self.architecture).cost(self.architecture, **sizes)

    def build(self, *, dtype: str = "float32", rngs: nnx.Rngs | None = None) -> AnyNetwork:
        """The network with random weights (seed 0 where `rngs` is not given).

        Raises S3Error where patches do not tile the image.
        """
        settings: dict[str, Any] = {"image_size": self.image_size, "patch_size": self.patch_size}
        settings |= {"num_classes": len(self.class_names), "dtype": dtype, "rngs": rngs or nnx.Rngs(0)}
        return family_of(self.architecture).make(self.architecture, **settings)

    def state_dict(self, network: AnyNetwork) -> StateDict:
        """A network's weights under timm's names."""
        return to_state_dict(network)

    def set_weights(self, network: AnyNetwork, tensors: StateDict) -> None:
        """Give a network such weights, in place. Raises S3Error where they are not its own."""
        load_weights(network, tensors, resize=False, reset_head=False)

    @property
    def export_size(self) -> tuple[int, int]:
        """Those that it was trained on, which are square."""
        return self.image_size, self.image_size

    def as_function(self, network: AnyNetwork, size: tuple[int, int]) -> Callable[[Array], Array]:
        """Images (B, H, W, 3) to logits (B, classes).

        Raises S3Error for a plain transformer and another size than its own: it has a position for each patch.
        """
        if isinstance(self.architecture, IsotropicArchitecture) and size != self.export_size:
            raise S3Error(
                f"a plain transformer takes images of its own size alone, {self.image_size} x {self.image_size}"
            )
        definition, state = nnx.split(network)
        return lambda images: nnx.merge(definition, state)(images)

    def card_rows(self) -> list[tuple[str, str]]:
        """How images are seen, in words."""
        return [("image", f"{self.image_size} px, centre crop of {self.eval_crop:g} of the shorter side, bicubic")]
