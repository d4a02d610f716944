"""What the rule of evolution would do with a run's samples under another tau, rounding, number of samples or top_k.

    python scripts/sensitivity.py --workdir=runs/digits [--space=A]

For every setting: how many dimensions move and by how many steps, and, with several trainings of the space
(config.evolution.trainings), how far one training's decisions are another's, and one half's the other half's. Nothing
is trained or evaluated. The table is also written to WORKDIR/report/sensitivity_SPACE.csv. With four trainings or more
a second table tells how far slopes repeat: correlations, and differences over their standard errors.
"""

from __future__ import annotations

import sys

from absl import app, flags
from rich.console import Console

from s3_jax.command_flags import parse_flags
from s3_jax.errors import S3Error
from s3_jax.paths import print_any_name, user_path
from s3_jax.progress import say
from s3_jax.study.repeated import repeated, repeated_table
from s3_jax.study.sensitivity import sensitivity, sensitivity_csv, sensitivity_table
from s3_jax.writing import write_whole

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_SPACE = flags.DEFINE_string("space", "A", "Which of its spaces: A, B, C ...")


def main(arguments: list[str]) -> int:
    """Print the table and write it. Returns the exit code."""
    del arguments
    print_any_name()
    try:
        workdir = user_path(_WORKDIR.value)
        rows = sensitivity(workdir, _SPACE.value)
        again = repeated(workdir, _SPACE.value)
        write_whole(workdir / "report" / f"sensitivity_{_SPACE.value}.csv", sensitivity_csv(rows))
    except S3Error as error:
        print(f"sensitivity: {error}", file=sys.stderr)
        return 2
    say(Console(), sensitivity_table(rows, _SPACE.value))
    if again:
        say(Console(), repeated_table(again, _SPACE.value))
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
