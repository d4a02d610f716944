"""Published architectures of the family, by name."""

from __future__ import annotations

from s3_jax.errors import S3Error
from s3_jax.space import Architecture, Block, Stage

# Embedding widths, depths and windows per stage: S3 as released, Swin (Liu et al. 2021, Sec. 3.3).
_SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "s3_t": ((96, 192, 384, 768), (2, 2, 6, 2), (7, 7, 14, 7)),
    "s3_s": ((96, 192, 384, 768), (2, 2, 18, 2), (14, 14, 14, 7)),
    "s3_b": ((96, 192, 384, 768), (2, 2, 30, 2), (7, 7, 14, 7)),
    "swin_t": ((96, 192, 384, 768), (2, 2, 6, 2), (7, 7, 7, 7)),
    "swin_s": ((96, 192, 384, 768), (2, 2, 18, 2), (7, 7, 7, 7)),
    "swin_b": ((128, 256, 512, 1024), (2, 2, 18, 2), (7, 7, 7, 7)),
}


def architecture(name: str) -> Architecture:
    """A published architecture. Raises S3Error for a name that is none, with those that are."""
    if name not in _SHAPES:
        raise S3Error(f"no published architecture is called {name!r}; there are {', '.join(_SHAPES)}")
    stages = zip(*_SHAPES[name], strict=True)
    return Architecture(tuple(Stage(width, (Block(window, 4.0, width),) * depth) for width, depth, window in stages))
