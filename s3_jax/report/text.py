"""How numbers, choices and architectures are written for a reader."""

# ruff: noqa: RUF001, RUF002 - typographic signs on purpose

from __future__ import annotations

import decimal
import math
from collections.abc import Sequence

from s3_jax.space import Architecture

ABSENT = "–"  # a value that is not there (yet)
TO = "–"  # between the ends of a range
MINUS = "−"  # as wide as the plus sign

# In the order of the paper's steps (Sec. 4.1), which is also the order of Fig. 2's rows: label and unit.
DIMENSION_LABELS = {
    "depth": ("Depth", "blocks"),
    "embed_dim": ("Embedding", "channels"),
    "mlp_ratio": ("MLP ratio", ""),
    "qkv_dim": ("Q-K-V", "channels"),
    "window": ("Window", "tokens"),
}

_SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(value: float | None) -> str:
    """A percentage with two decimals, without its sign."""
    return ABSENT if not _is_number(value) else f"{value:.2f}".replace("-", MINUS)


def slope(value: float | None, standard_error: float | None) -> tuple[str, str]:
    """A slope with its sign, and "± " its standard error ("" without one), in the decimals that the error supports.

    A slope that rounds to zero keeps its sign: the printed rule moves a space on any negative one.
    """
    if value is None or not _is_number(value):
        return ABSENT, ""
    known = standard_error is not None and _is_number(standard_error)
    scale = abs(standard_error if standard_error and known else value) or 1.0
    decimals = min(max(2, math.ceil(-math.log10(scale))), 6) if abs(value) < 99.995 else 0
    spread = f"± {standard_error:.{decimals}f}" if known else ""
    return f"{value:+.{decimals}f}".replace("-", MINUS), spread


def quantity(value: float | None) -> str:
    """Parameters or multiply-adds in three digits with the unit k, M, G or T: 28.3 M."""
    if value is None or not _is_number(value):
        return ABSENT
    scaled, units = float(value), ["", " k", " M", " G", " T"]
    while abs(scaled) >= 999.5 and len(units) > 1:
        scaled, units = scaled / 1000, units[1:]
    decimals = 0 if abs(scaled) >= 99.95 or len(units) == 5 else 1 if abs(scaled) >= 9.995 else 2
    return f"{scaled:,.{decimals}f}{units[0]}"


def size(value: int | None) -> str:
    """The size of a space: exact below a million, then as 1.2 × 10³³."""
    if value is None:
        return ABSENT
    if value < 1_000_000:
        return f"{value:,}"
    mantissa, exponent = f"{decimal.Decimal(value):.1e}".split("e+")
    return f"{mantissa} × 10{exponent.translate(_SUPERSCRIPT)}"


def choice(value: float) -> str:
    """A choice without needless zeros: 224, 3.5, 4."""
    return f"{value:.10g}"


def choices(values: Sequence[float]) -> str:
    """Choices in their order: 224, 256, 288."""
    return ", ".join(map(choice, values))


def dimension(name: str) -> str:
    """A dimension's label, its own name where it is none of the paper's."""
    return DIMENSION_LABELS.get(name, (name, ""))[0]


def depths(architecture: Architecture) -> str:
    """Blocks per stage: 2 2 6 2."""
    return " ".join(str(stage.depth) for stage in architecture.stages)


def widths(architecture: Architecture) -> str:
    """Embedding dimension per stage: 96 192 384 768."""
    return " ".join(str(stage.embed_dim) for stage in architecture.stages)


def steps(count: int | None) -> str:
    """How many steps choices move down, with its sign: +1, 0, −2."""
    return ABSENT if count is None else f"{count:+d}".replace("-", MINUS).replace("+0", "0")


def duration(seconds: float) -> str:
    """A time span in its two largest units: 2 h 05 min, 7 min 09 s, 12 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


def _is_number(value: float | None) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
