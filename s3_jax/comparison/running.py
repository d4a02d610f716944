"""Doing a comparison: everything is checked first, given weights are measured, then model after model is trained.

All is done by one process, as a study is: a training that was stopped is taken up where it was, one that is finished is
read, and so are measurements of the same weights on the same images.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import jax
from rich.console import Console

from s3_jax.classification.commands import about_classes
from s3_jax.classification.dataset import ImageData, open_data
from s3_jax.comparison.model import Opened
from s3_jax.comparison.plan import Given, Plan, folder_of
from s3_jax.comparison.table import Row, csv_table, given_row, screen_table, trained_row
from s3_jax.errors import Interrupted, S3Error
from s3_jax.finetune import check_same_start
from s3_jax.mapping import to_mapping
from s3_jax.paths import AnyPath
from s3_jax.progress import progress_bar, say
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import environment, read_record, write_json
from s3_jax.training.start import opened_workdir
from s3_jax.writing import as_json, write_whole

RECORD, TABLE = "compare.json", "compare.csv"
# A training by its seed and model.
Results = dict[str, dict[int, dict[str, Any]]]


def run_comparison(plan: Plan, workdir: AnyPath, *, console: Console, stop: StopRequest) -> list[Row]:
    """Do what is left of a comparison in `workdir`, and write `compare.json` and `compare.csv`. Returns the rows.

    A training that fails keeps no other from it. Raises S3Error before any training for what cannot be done, and in the
    end where a training has failed; Interrupted once a training has saved on request.
    """
    with _opened(workdir, plan):
        images = open_data(plan.config.data, seed=plan.config.seed)
        given = _checked(plan, images, workdir)
        rows = [_measured(plan, each, opened, images, workdir, console, stop) for each, opened in given]
        results, failed = _train(plan, workdir, console, stop)
        rows = [*_trained_rows(plan, results, images.num_classes), *rows]
        if jax.process_index() == 0:
            _write(plan, workdir, rows, failed, images)
        say(console, screen_table(rows, f"{images.name}, split {images.splits.test.split}"))
        say(console, f"The table is in {workdir / TABLE} and {workdir / RECORD}")
    if failed:
        told = "; ".join(f"{title}: {reason}" for title, reason in failed.items())
        raise S3Error(f"{len(failed)} of {len(plan.trainings)} trainings failed, the others are shown: {told}")
    return rows


@contextmanager
def _opened(workdir: AnyPath, plan: Plan) -> Iterator[None]:
    """A comparison's folder, held for it alone. Raises S3Error where it holds a run."""
    if (workdir / "config.json").exists():
        raise S3Error(f"{workdir} holds a run, not a comparison; give another --workdir")
    with opened_workdir(workdir, plan.config):
        yield


def _checked(plan: Plan, images: ImageData, workdir: AnyPath) -> list[tuple[Given, Opened]]:
    """The weights that are given, opened. Raises S3Error for whatever could not be trained or measured later."""
    for model in plan.trained:
        try:
            model.cost(plan.config, images.class_names)
        except S3Error as error:
            raise S3Error(f"--models, {model.name}: {error}") from error
    for seed, model in plan.trainings:
        folder = folder_of(workdir, seed, model)
        if (folder / "config.json").exists():
            with opened_workdir(folder, plan.settings(seed, model)):
                check_same_start(folder, model.start())
    given = [(each, each.model.open(each.weights)) for each in plan.given]
    for each, opened in given:
        try:
            about_classes(opened.class_names, images.class_names)
        except S3Error as error:
            raise S3Error(f"--evaluate, {each.model.name}: {error}") from error
    return given


def _measured(
    plan: Plan, given: Given, opened: Opened, images: ImageData, workdir: AnyPath, console: Console, stop: StopRequest
) -> Row:
    """Measure weights on the test split, unless that is done already, and keep what was found."""
    path = workdir / "evaluated" / given.file
    of = json.loads(as_json({"checksum": opened.checksum, "data": images.record(), **opened.preprocessing._asdict()}))
    record = read_record(path, dict) if path.exists() else {}
    if record.get("of") != of:
        if stop.asked():
            raise Interrupted("stopped before all weights were measured; the same command goes on")
        if note := about_classes(opened.class_names, images.class_names):
            say(console, f"{given.model.name}: {note}")
        subset = images.splits.test
        with progress_bar(console, f"images, {given.model.name}", len(subset)) as advance:
            found = opened.accuracy(subset, plan.config, images.class_names, advance)
        cost, size = opened.cost, opened.preprocessing.image_size
        record = {"of": of, "weights": given.source, "params": cost.params, "macs": cost.macs, "image_size": size}
        record |= found._asdict()
        if jax.process_index() == 0:
            write_json(path, record)
    return given_row(given.model.name, record, images.num_classes)


def _train(plan: Plan, workdir: AnyPath, console: Console, stop: StopRequest) -> tuple[Results, dict[str, str]]:
    """Do every training that is not done. Returns the results by model and seed, and why others could not be done."""
    results: Results = {}
    failed: dict[str, str] = {}
    for number, (seed, model) in enumerate(plan.trainings, 1):
        folder, title = folder_of(workdir, seed, model), f"{model.name}, seed {seed}"
        done = (folder / "result.json").exists()
        if not done:
            say(console, f"training {number} of {len(plan.trainings)}: {title}, in {folder}")
        try:
            screen = Console(quiet=True) if done else console
            result = model.train(plan.settings(seed, model), folder, console=screen, stop=stop)
            results.setdefault(model.name, {})[seed] = result
        except Interrupted:
            raise
        except S3Error as error:
            failed[title] = str(error)
            say(console, f"{title}: {error}")
        finally:
            jax.clear_caches()
            gc.collect()
    return results, failed


def _trained_rows(plan: Plan, results: Mapping[str, Mapping[int, Any]], num_classes: int) -> list[Row]:
    size = plan.config.model.image_size
    return [
        trained_row(model.name, size, results[model.name], num_classes)
        for model in plan.trained
        if model.name in results
    ]


def _write(plan: Plan, workdir: AnyPath, rows: Sequence[Row], failed: Mapping[str, str], images: ImageData) -> None:
    """The record comes last, so where it is, the table is."""
    write_whole(workdir / TABLE, csv_table(rows))
    record = {
        "data": images.record(),
        "settings": to_mapping(plan.config),
        "seeds": list(plan.seeds),
        "models": [row.to_json() for row in rows],
        "failed": dict(failed),
        "environment": environment(),
    }
    write_json(workdir / RECORD, record)
