"""Evolutionary search of the best architecture of a space under a budget, as ask and tell."""

from __future__ import annotations

import dataclasses

from s3_jax.cost import Budget


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Evolutionary search in a space (SPOS and AutoFormer settings)."""

    population: int = 50
    generations: int = 20
    top: int = 10  # parents
    mutations: int = 25
    crossovers: int = 25
    mutation_probability: float = 0.2
    stage_mutation_probability: float = 0.4  # of depth and embed_dim
    max_attempts: int = 10_000  # draws before a budget is declared unreachable
    budget: Budget = Budget()
