"""Doing a study: run after run in one process, each taken up where it was stopped, then what they say together.

All runs are done by one process, so that kill -9 leaves none behind and a stop on request reaches the one at work. The
programs of each are let go when it ends, so memory does not grow with the number of runs; those that the next one needs
again are read from the cache of compiled programs (`training.devices.keep_compiled_programs`).
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from rich.console import Console

from s3_jax.errors import Interrupted, S3Error
from s3_jax.paths import AnyPath
from s3_jax.pipeline import run_pipeline
from s3_jax.progress import say
from s3_jax.remaining import Phase, Spent, in_words
from s3_jax.report.facts import flat
from s3_jax.report.write import write_report
from s3_jax.study.plan import MEASURED, Plan, PlannedRun
from s3_jax.study.records import is_finished
from s3_jax.study.write import RECORD, is_written, write_study
from s3_jax.training.clock import measured_times
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import read_record, write_json
from s3_jax.training.start import CHANGEABLE, opened_workdir

PLAN = "plan.json"


def run_study(plan: Plan, workdir: AnyPath, *, console: Console, stop: StopRequest) -> None:
    """Do what is left of a study in `workdir`, and write `study.json`, its tables and its page.

    A run that cannot be done does not keep the others from it. Raises S3Error in the end where one could not, for
    another study's folder, and where a file is damaged; Interrupted once a run has saved on request.
    """
    with _opened(workdir, plan):
        if is_written(plan, workdir):
            say(console, f"This study is finished: there is nothing to do. Its result is in {workdir / RECORD}")
            return
        if jax.process_index() == 0:
            write_json(workdir / PLAN, plan.to_json())
        failed = _do(plan, workdir, console, stop)
        if jax.process_index() == 0:
            say(console, f"Report: {write_study(plan, workdir, failed)}")
    if failed:
        told = "; ".join(f"{title}: {reason}" for title, reason in failed.items())
        raise S3Error(f"{len(failed)} of {len(plan.runs)} runs could not be done, the others are shown: {told}")


def _do(plan: Plan, workdir: AnyPath, console: Console, stop: StopRequest) -> dict[str, str]:
    """Do every run that is not done. Returns why the others could not be, by their titles."""
    failed: dict[str, str] = {}
    for number, run in enumerate(plan.runs):
        folder = run.folder(workdir)
        if is_finished(folder) and (folder / "report" / "index.html").exists():
            continue
        if PlannedRun(run.seed, MEASURED).title in failed:  # the seed has nothing to be compared with
            failed[run.title] = f"left out, as the arm {MEASURED} of this seed could not be done"
            continue
        say(console, f"run {number + 1} of {len(plan.runs)}: {run.title}, in {folder}")
        try:
            settings, words = plan.settings(run, workdir), _Words(plan, workdir, number)
            run_pipeline(settings, folder, console=console, stop=stop, words=words)
            if jax.process_index() == 0:
                write_report(folder)
        except Interrupted:
            raise
        except S3Error as error:
            if not _begun(workdir):  # settings that fit no run: nothing is bound to them yet
                raise
            failed[run.title] = str(error)
            say(console, f"{run.title}: {error}")
        finally:
            jax.clear_caches()
            gc.collect()
    return failed


class _Words:
    """The line about a whole study while one of its runs is at work: the phases of all runs are one plan.

    What the other runs' clocks have kept tells how long kinds of work take, and all runs have the same phases.
    """

    def __init__(self, plan: Plan, workdir: AnyPath, number: int) -> None:
        self._runs, self._number = plan.runs, number
        self._others: dict[str, Spent] = {}
        for run in plan.runs[:number] + plan.runs[number + 1 :]:
            kept = measured_times(run.folder(workdir) / "timings.json")
            self._others |= {f"{run.name}/{phase}": spent for phase, spent in kept.items()}

    def __call__(self, plan: Sequence[Phase], current: int, done: int, spent: Mapping[str, Spent]) -> str:
        own = {f"{self._runs[self._number].name}/{phase}": each for phase, each in spent.items()}
        place = self._number * len(plan) + current
        return in_words(self._plan(plan), place, done, self._others | own)

    def _plan(self, plan: Sequence[Phase]) -> list[Phase]:
        total = len(self._runs)
        return [
            dataclasses.replace(
                phase, name=f"{run.name}/{phase.name}", title=f"run {place} of {total} ({run.title}), {phase.title}"
            )
            for place, run in enumerate(self._runs, 1)
            for phase in plan
        ]


@contextmanager
def _opened(workdir: AnyPath, plan: Plan) -> Iterator[None]:
    """A study's folder, held for this study alone. Raises S3Error where it is another's, or holds a run."""
    if (workdir / "config.json").exists():
        raise S3Error(f"{workdir} holds a run, not a study; give another --workdir")
    with opened_workdir(workdir, plan.config):
        if (workdir / PLAN).exists() and _begun(workdir):
            _check_same(read_record(workdir / PLAN, _checked), plan, workdir)
        elif _begun(workdir):
            raise S3Error(f"{workdir} holds runs of a study, but its {PLAN} is gone; give another --workdir")
        yield


def _begun(workdir: AnyPath) -> bool:
    """Whether a run of a study has been started, so that the folder is bound to its plan."""
    return any(workdir.glob("seed_*/*/config.json"))


def _checked(record: Any) -> dict[str, Any]:
    return {"seeds": list(record["seeds"]), "arms": list(record["arms"]), "settings": dict(record["settings"])}


def _check_same(there: Mapping[str, Any], plan: Plan, workdir: AnyPath) -> None:
    """More seeds may be given than there are, and what says not what is computed."""
    here = plan.to_json()
    defaults = dataclasses.replace(plan, config=type(plan.config)()).to_json()
    default, old, new = (dict(flat(record["settings"], "config.")) for record in (defaults, there, here))
    old = {name: default[name] for name in default if name not in old} | old  # a version before had fewer settings
    names = [name for name in sorted(old | new) if not f"{name.removeprefix('config.')}.".startswith(CHANGEABLE)]
    rows = [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]
    if there["arms"] != here["arms"]:
        rows.insert(0, ("--arms", ",".join(there["arms"]), ",".join(here["arms"])))
    if there["seeds"] != here["seeds"][: len(there["seeds"])]:
        rows.append(("--seeds", len(there["seeds"]), len(here["seeds"])))
    if rows:
        told = "\n".join(f"  {name}: {before!r} there, {now!r} now" for name, before, now in rows)
        raise S3Error(
            f"{workdir} holds a study that was started otherwise:\n{told}\n"
            "Give those again to go on with it (more seeds may be added), or another --workdir to start a new study"
        )
