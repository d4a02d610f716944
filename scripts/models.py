"""Print the published models, with their parameters and the multiply-adds of one image.

python scripts/models.py [--num_classes=1000]
"""

from __future__ import annotations

from absl import app, flags
from rich.console import Console
from rich.table import Table

from s3_jax.command_flags import parse_flags
from s3_jax.networks import zoo

_CLASSES = flags.DEFINE_integer("num_classes", 1000, "Of the classifier.", lower_bound=1)


def table() -> Table:
    """A row for each published model."""
    rows = Table("model", "image", "parameters, M", "MACs, G", title=f"Published models, {_CLASSES.value} classes")
    for column in rows.columns[1:]:
        column.justify = "right"
    for name in zoo.names():
        counted = zoo.cost_of(name, num_classes=_CLASSES.value)
        size = zoo.spec(name).image_size
        rows.add_row(name, f"{size} px", f"{counted.params / 1e6:.3f}", f"{counted.macs / 1e9:.2f}")
    return rows


def main(arguments: list[str]) -> None:
    """Print the table."""
    del arguments
    Console().print(table())


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
