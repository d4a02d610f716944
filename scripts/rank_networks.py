"""How inherited weights rank networks beside training them from scratch: Kendall's tau, Spearman's rho, Fig. 5.

    python scripts/rank_networks.py --config=configs/digits.py --run=runs/digits --workdir=ranks/digits \
        --architectures=16 --seeds=2 [--space=A] [--config.retrain.train.epochs=50]

--run: the folder of a finished search with the same settings; only config.retrain.* may differ, which says how networks
are trained from scratch. All are trained on the search's training images and measured on those that it held out.
Trained ones are kept: the same command goes on after a stop, and more architectures or seeds add to it. WORKDIR has
ranking.json, and in report/ a CSV file, a scatter plot and a bar chart.
"""

from __future__ import annotations

import sys

from absl import app, flags

from s3_jax import main as command_line
from s3_jax.command_flags import parse_flags

_RUN = flags.DEFINE_string("run", None, "Folder of the finished search.")
_SPACE = flags.DEFINE_string("space", "", "Which of its spaces: A, B, C ...; the last, if not given.")
_ARCHITECTURES = flags.DEFINE_integer("architectures", 16, "How many networks are ranked.")
_SEEDS = flags.DEFINE_integer("seeds", 2, "How many times each is trained.")


def main(arguments: list[str]) -> int:
    """Do it, or what is left of it. Returns the exit code, as s3_jax.main does."""

    def work(config, workdir, console, stop) -> None:
        """The ranking; its libraries take seconds to load."""
        import jax

        from s3_jax.paths import user_path
        from s3_jax.progress import say
        from s3_jax.study.ranking import rank
        from s3_jax.study.ranking_report import correlations_table, write_ranking

        ranking = rank(
            config,
            user_path(_RUN.value),
            workdir,
            space=_SPACE.value,
            architectures=_ARCHITECTURES.value,
            seeds=_SEEDS.value,
            console=console,
            stop=stop,
        )
        say(console, correlations_table(ranking))
        if jax.process_index() == 0:
            say(console, f"Figures and table: {write_ranking(ranking, workdir)}")

    return command_line.carry_out(arguments, work)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir", "run"])
    sys.exit(app.run(main, flags_parser=parse_flags))
