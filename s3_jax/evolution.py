"""The rule that evolves a search space (Eq. 7, 8)."""

from __future__ import annotations

import dataclasses

from s3_jax.cost import Budget


@dataclasses.dataclass(frozen=True)
class EvolutionConfig:
    """How spaces are measured and evolved (Eq. 5, 7, 8; Algorithm 1)."""

    num_spaces: int = 3  # spaces A, B, C: num_spaces - 1 evolutions
    num_samples: int = 1000  # N sampled architectures
    top_k: int = 50  # architectures in the top-tier error Q_t
    budget: Budget = Budget()  # g(a) < c in Eq. 5; the paper gives no value
    num_bootstrap: int = 200  # resamplings for a slope's standard error
    slope_unit: str = "index"  # x in Eq. 7: index | step | raw; the paper does not say
    rounding: str = "floor"  # in Eq. 8: floor, as printed | toward_zero
    tau: float = 0.4  # error percentage points per unit of x
    step_depth: int = 1  # gamma
    step_embed_dim: int = 64
    step_window: int = 7
    step_mlp_ratio: float = 0.5
    step_qkv_dim: int = 64
    max_space_size: float = 1e60  # M in Eq. 2, architectures; the paper does not say
    init_from_previous: bool = False  # start a space's supernet from the overlapping weights of the one before
