"""The bests of a search's spaces, of a random search, and a Swin-like network, trained from scratch alike (Table 5).

    python scripts/compare_bests.py --config=configs/digits.py --run=runs/digits --workdir=bests/digits --seeds=3

--run: the folder of a finished search with the same settings; only config.retrain.* may differ, which says how networks
are trained. All are trained on train and holdout, and pass the test split once for every seed. Trained ones are kept:
the same command goes on after a stop, and more seeds add to it. WORKDIR has best.json, and in report/ a CSV file and a
figure.
"""

from __future__ import annotations

import sys

from absl import app, flags

from s3_jax import main as command_line
from s3_jax.command_flags import parse_flags

_RUN = flags.DEFINE_string("run", None, "Folder of the finished search.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "How many times each network is trained.")


def main(arguments: list[str]) -> int:
    """Do it, or what is left of it. Returns the exit code, as s3_jax.main does."""

    def work(config, workdir, console, stop) -> None:
        """The comparison; its libraries take seconds to load."""
        import jax

        from s3_jax.paths import user_path
        from s3_jax.progress import say
        from s3_jax.report.names import names_of
        from s3_jax.study.best import compare_bests
        from s3_jax.study.best_report import bests_table, write_bests
        from s3_jax.training.records import read_json

        search = user_path(_RUN.value)
        outcomes = compare_bests(config, search, workdir, seeds=_SEEDS.value, console=console, stop=stop)
        score = names_of(read_json(search / "result.json")).score
        say(console, bests_table(outcomes, score))
        if jax.process_index() == 0:
            say(console, f"Figure and table: {write_bests(outcomes, score, workdir)}")

    return command_line.carry_out(arguments, work)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir", "run"])
    sys.exit(app.run(main, flags_parser=parse_flags))
