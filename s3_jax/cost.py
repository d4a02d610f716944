"""Exact parameter and multiply-add counts of an architecture, and budgets on them."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits that an architecture must stay strictly below; 0 is no limit."""

    max_params: float = 0.0  # parameters
    max_macs: float = 0.0  # multiply-adds of one image at model.image_size
