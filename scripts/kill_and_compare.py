"""Kill runs at random instants, let the same command end them, and compare with a run that was left alone, bit for bit.

    python scripts/kill_and_compare.py --config=configs/digits.py --folder=runs/killed --kills=10 [--config.field=value]

Prints when each process was killed and exits with 1 where anything differs. The folder must be new. With
--workdirs=gs://bucket/new the runs that are killed are there, and the one left alone on the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, user_path
from s3_jax.training.checkpoints import EMA, PARAMS, REST, STATS

# An instant is drawn from this share of the time that a whole run takes: a run is killed more than once on its way.
EARLIEST, LATEST = 0.05, 0.35
ITEMS = (PARAMS, STATS, EMA, REST)


def command(settings: list[str], workdir: AnyPath) -> list[str]:
    """The command that starts a run, or takes it up again."""
    return [sys.executable, "-m", "s3_jax.main", f"--workdir={workdir}", *settings]


def run_until_killed(settings: list[str], workdir: AnyPath, said: Path, seconds: float | None) -> int:
    """Run for `seconds` and kill -9 (None: run to the end). Returns the exit code, -9 where it was killed.

    What it says is added to the file `said`.
    """
    with said.open("a") as log:
        process = subprocess.Popen(command(settings, workdir), stdout=log, stderr=log)
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def kill_until_done(
    settings: list[str], workdir: AnyPath, said: Path, rng: random.Random, whole: float, kills: int
) -> int:
    """End a run that is killed at up to `kills` random instants. Returns how often it was killed."""
    killed = 0
    while True:
        seconds = rng.uniform(EARLIEST, LATEST) * whole if killed < kills else None
        code = run_until_killed(settings, workdir, said, seconds)
        if code == 0:
            return killed
        if code != -signal.SIGKILL:
            raise SystemExit(f"{workdir} ended with exit code {code}; see {said}")
        killed += 1
        print(f"{workdir.name}: killed after {seconds:.1f} s", flush=True)


def differences(actual: AnyPath, expected: Path) -> list[str]:
    """The files and weights in which two runs differ; empty where result, records and weights are equal bit for bit."""
    names = ["result.json"]
    for pattern in ("**/space.json", "**/et_error.json", "**/search/*.json", "**/architecture.json"):
        names += [str(path.relative_to(expected)) for path in expected.glob(pattern)]
    different = [name for name in names if (actual / name).read_bytes() != (expected / name).read_bytes()]
    for path in expected.glob("**/evaluated.jsonl"):
        name = str(path.relative_to(expected))
        lines = (actual / name).read_text().splitlines()
        once = {json.dumps(json.loads(line)["architecture"]) for line in lines}
        if sorted(lines) != sorted(path.read_text().splitlines()) or len(once) != len(lines):
            different.append(name)
    phases = [str(path.parent.relative_to(expected)) for path in sorted(expected.glob("**/checkpoints"))]
    ours, theirs = weights(actual, phases), weights(expected, phases)
    return different + [name for name in sorted({*ours, *theirs}) if not _equal(ours.get(name), theirs.get(name))]


def weights(workdir: AnyPath, phases: list[str]) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint of these trainings of a run."""
    found = {}
    for phase in phases:
        folder = epath.Path(str(workdir.absolute())) / phase / "checkpoints"
        with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(step_prefix="step")) as manager:
            step = manager.latest_step()
            items = [item.name for item in (folder / f"step_{step}").iterdir() if item.name in ITEMS]
            args = ocp.args.Composite(**{name: ocp.args.StandardRestore() for name in items})
            state = manager.restore(step, args=args)
        for path, leaf in jax.tree_util.tree_leaves_with_path(dict(state.items())):
            found[f"{phase}/checkpoints {jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return found


def _equal(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    return first is not None and second is not None and first.dtype == second.dtype and np.array_equal(first, second)


def _workdirs(text: str) -> AnyPath:
    try:
        return user_path(text)
    except S3Error as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def main() -> int:
    """Run, kill, compare. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/digits.py"))
    parser.add_argument("--folder", type=Path, default=Path("runs/killed"), help="new folder for the runs")
    parser.add_argument("--workdirs", type=_workdirs, help="where the killed runs are to be, instead of the folder")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the instants")
    parser.add_argument("--expected", type=Path, help="a finished run that was left alone, instead of a new one")
    options, flags = parser.parse_known_args()
    settings = [f"--config={options.config}", *flags]
    options.folder.mkdir(parents=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(options.folder.absolute() / "compiled"))
    expected = options.expected or options.folder / "left_alone"
    rng, killed, runs, different = random.Random(options.seed), 0, 0, []
    if options.expected is None:
        kill_until_done(settings, expected, options.folder / "left_alone.log", rng, 0.0, 0)
    whole = (expected / "result.json").stat().st_mtime - (expected / "config.json").stat().st_mtime
    while killed < options.kills and not different:
        workdir = (options.workdirs or options.folder) / f"killed_{runs}"
        said = options.folder / f"{workdir.name}.log"
        start = time.monotonic()
        kills = kill_until_done(settings, workdir, said, rng, whole, options.kills - killed)
        if not kills:  # it ended before its instant: its programs were compiled before, or the machine is quicker now
            whole = min(whole, time.monotonic() - start)
        killed += kills
        different = differences(workdir, expected)
        runs += 1
        print(f"{workdir.name}: {'differs' if different else 'equal'}", flush=True)
    print("\n".join(different) or f"{killed} kills in {runs} runs; all results and weights equal, bit for bit")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
