"""Plain vision transformers (ViT, DeiT) as values: what they are, and what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from s3_jax.cost import Cost
from s3_jax.errors import S3Error

MLP_RATIO = 4


@dataclasses.dataclass(frozen=True)
class IsotropicArchitecture:
    """One width, a number of blocks and of heads; the MLP has four times the width (ViT, Table 1; DeiT, Table 1).

    Raises S3Error where the heads do not divide the width.
    """

    embed_dim: int
    depth: int
    heads: int

    def __post_init__(self) -> None:
        if min(self.embed_dim, self.depth, self.heads) < 1 or self.embed_dim % self.heads:
            raise S3Error(
                f"a width of {self.embed_dim} cannot be divided among {self.heads} heads ({self.depth} blocks)"
            )

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain numbers."""
        return {"isotropic": dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> IsotropicArchitecture:
        """The architecture of a record that `to_json` made. Raises S3Error where the record is not one."""
        try:
            return cls(**{name: int(value) for name, value in record["isotropic"].items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise S3Error(
                f"not a record of a plain transformer: {error!r}; expected isotropic with embed_dim, depth and heads"
            ) from error


def isotropic_cost(
    architecture: IsotropicArchitecture, *, image_size: int, patch_size: int, num_classes: int, in_channels: int = 3
) -> Cost:
    """Exact cost on one image (image_size, image_size, in_channels); sizes in pixels. Counted as `cost.cost` does.

    Raises S3Error where the patches do not tile the image.
    """
    if image_size % patch_size:
        raise S3Error(f"images of {image_size} pixels cannot be cut into patches of {patch_size}")
    width, patches = architecture.embed_dim, (image_size // patch_size) ** 2
    tokens, inputs, hidden = 1 + patches, patch_size**2 * in_channels, MLP_RATIO * width
    products = 4 * width * width + 2 * width * hidden  # weights of a block's linear layers
    block = Cost(
        products + 3 * width + width + hidden + width + 4 * width,  # their biases, two norms
        tokens * products + 2 * tokens * tokens * width,
    )
    embedding = inputs * width + width + width + tokens * width  # patches, the class token, positions
    head = width * num_classes
    return Cost(
        embedding + architecture.depth * block.params + 2 * width + head + num_classes,
        patches * inputs * width + architecture.depth * block.macs + head,
    )
