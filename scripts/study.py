"""The whole method for several seeds and arms, and what the runs together say of the paper's claims.

    python scripts/study.py --config=configs/digits.py --workdir=studies/digits --seeds=5 \
        --arms=measured,random,grow,prune,still [--config.field=value]

Arms are how a space's choices move: by the slopes (measured), or as one of the controls; see s3_jax/arms.py. Every run
has a folder of its own, as studies/digits/seed_0/measured. The same command goes on with a study that was stopped, and
with more --seeds adds runs to it. In the end WORKDIR has study.json, and report/ with CSV tables and a page.
"""

from __future__ import annotations

import sys

from absl import app, flags

from s3_jax import main as command_line
from s3_jax.command_flags import parse_flags

_SEEDS = flags.DEFINE_string("seeds", "5", "How many seeds, from config.seed on.")
_ARMS = flags.DEFINE_string("arms", "measured,random,grow,prune,still", "How the choices move, with commas between.")


def main(arguments: list[str]) -> int:
    """Do the study, or what is left of it. Returns the exit code, as s3_jax.main does."""

    def work(config, workdir, console, stop) -> None:
        """The study; its libraries take seconds to load."""
        from s3_jax.study.plan import plan_of
        from s3_jax.study.running import run_study

        run_study(plan_of(config, _SEEDS.value, _ARMS.value), workdir, console=console, stop=stop)

    return command_line.carry_out(arguments, work)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    sys.exit(app.run(main, flags_parser=parse_flags))
