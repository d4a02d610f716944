"""A run's folder: held by one process, bound to its settings and data, and readable by later versions."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from tiny_config import get_config

from s3_jax import measuring, pipeline
from s3_jax.config import Config, config_of
from s3_jax.errors import S3Error
from s3_jax.mapping import to_mapping
from s3_jax.pipeline import run_pipeline
from s3_jax.progress import progress_bar, say
from s3_jax.report.tables import result_table
from s3_jax.space import SearchSpace
from s3_jax.task import open_task
from s3_jax.training.lock import only_run
from s3_jax.training.loop import StopRequest
from s3_jax.training.records import read_json, write_json
from s3_jax.training.start import VERSION, opened_workdir, record_start, start_run

QUIET = Console(quiet=True)


def tiny(**evolution) -> Config:
    config = get_config()
    config.evolution.update(evolution)
    config.run.update(tensorboard=False)
    return config_of(config.to_dict())


def begin(workdir: Path, config: Config) -> None:
    with opened_workdir(workdir, config):
        record_start(start_run(config, open_task(config), workdir, QUIET, StopRequest()))


def rewrite(path: Path, change) -> None:
    record = read_json(path)
    change(record)
    write_json(path, record)


HOLD = """
import sys, time
from pathlib import Path
from s3_jax.task import open_task
from s3_jax.training.lock import only_run
with only_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_refused_while_the_first_lives_and_not_after_kill_9(tmp_path):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(S3Error, match=rf"is in use by process {first.pid} on .*another --workdir"),
            only_run(tmp_path),
        ):
            pass
        first.kill()
    assert (tmp_path / ".lock").exists()
    with only_run(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    assert not list(tmp_path.iterdir())


def test_samples_without_a_choice_are_refused_before_anything_is_trained_or_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(measuring, "fit", lambda *_: pytest.fail("trained before the samples were looked at"))
    with pytest.raises(S3Error, match=r"none of the 1 sampled architectures has .*evolution.num_samples"):
        run_pipeline(tiny(num_samples=1), tmp_path, console=QUIET, stop=StopRequest())
    assert not list(tmp_path.iterdir())
    begin(tmp_path, tiny(num_samples=8))  # the advice is taken in the same folder


def test_a_later_space_is_refused_with_advice_that_its_folder_allows(tmp_path):
    config = tiny(num_samples=2)
    run = start_run(config, open_task(config), tmp_path, QUIET, StopRequest())
    space = SearchSpace(tuple(dataclasses.replace(s, embed_dim=(8, 16, 24)) for s in run.config.space.build().stages))
    with pytest.raises(S3Error, match=r"none of the 2 sampled .* give others with another --workdir"):
        measuring.draw_samples(run, 1, space)


def test_settings_are_recorded_with_a_version_and_accepted_again(tmp_path):
    begin(tmp_path, tiny())
    assert read_json(tmp_path / "config.json") == {"version": VERSION} | to_mapping(tiny())
    begin(tmp_path, tiny())


def test_a_field_that_a_record_lacks_has_its_default(tmp_path):
    begin(tmp_path, tiny())
    rewrite(tmp_path / "config.json", lambda record: record["model"].pop("remat"))
    begin(tmp_path, tiny())
    rewrite(tmp_path / "config.json", lambda record: record["model"].pop("remat"))
    config = tiny()
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, remat=True))
    with pytest.raises(S3Error, match=r"config.model.remat: False there, True now"):
        begin(tmp_path, other)


def test_a_field_that_this_version_lacks_is_named_with_the_code_that_has_it(tmp_path):
    begin(tmp_path, tiny())
    rewrite(tmp_path / "config.json", lambda record: record["model"].update(sliced_largest=True))
    rewrite(tmp_path / "environment.json", lambda record: record.update(git_revision="0123456789abcdef"))
    message = r"another version of s3_jax \(.*revision 0123456789ab\): its settings have config.model.sliced_largest"
    with pytest.raises(S3Error, match=message + r".*extract_subnet"):
        begin(tmp_path, tiny())


@pytest.mark.parametrize("version", [None, *range(1, VERSION), VERSION + 1])
def test_an_unfinished_run_of_a_version_that_computed_otherwise_is_not_gone_on_with(tmp_path, version):
    begin(tmp_path, tiny())
    rewrite(
        tmp_path / "config.json", lambda record: record.update(version=version) if version else record.pop("version")
    )
    with pytest.raises(S3Error, match=r"started by another version of s3_jax .*another --workdir"):
        begin(tmp_path, tiny())


@pytest.mark.parametrize("content", ["", "{", "[]", "\0" * 40, '{"version": "x"}'])
def test_a_damaged_record_of_the_settings_is_named(tmp_path, content):
    begin(tmp_path, tiny())
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(S3Error, match=r"config.json .*put it back from a copy, or give another --workdir"):
        begin(tmp_path, tiny())


def test_a_folder_whose_settings_are_gone_is_not_taken(tmp_path):
    (tmp_path / "space_0/checkpoints").mkdir(parents=True)
    with pytest.raises(S3Error, match=r"its config.json is gone"):
        begin(tmp_path, tiny())


def image_folder(root: Path, classes: tuple[bytes, ...], count: int) -> None:
    for split in (b"train", b"test"):
        for shade, name in enumerate(classes):
            folder = os.path.join(os.fsencode(root), split, name)
            os.makedirs(folder, exist_ok=True)
            for index in range(count):
                Image.new("RGB", (8, 8), (40 * shade, index, 0)).save(
                    os.fsdecode(os.path.join(folder, b"%d.png" % index))
                )


def folder_config(path: str) -> Config:
    config = tiny()
    data = dataclasses.replace(config.data, source="image_folder", path=path, holdout_fraction=0.5)
    return dataclasses.replace(config, data=data)


def test_a_class_that_is_not_utf8_is_escaped_wherever_it_is_written(tmp_path):
    root = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"bl\xe4tter")))
    image_folder(root, (b"gr\xfcn", b"red"), 4)
    config = folder_config(str(root))
    begin(tmp_path / "run", config)
    begin(tmp_path / "run", config)  # and compares as the same
    about = json.loads((tmp_path / "run/environment.json").read_text())["dataset"]
    assert (about["name"], about["class_names"]) == ("bl\\xe4tter", ["gr\\xfcn", "red"])
    recorded = json.loads((tmp_path / "run/config.json").read_text())["data"]["path"]
    assert recorded.endswith("bl\\xe4tter")
    screen = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")
    say(Console(file=screen), f"Report: {root}")
    say(Console(file=screen), result_table({"spaces": [{"name": "A"}], "winner": None}))
    screen.flush()
    assert "bl\\xe4tter" in screen.buffer.getvalue().decode()


def test_a_workdir_that_is_not_utf8_is_refused_before_it_is_made(tmp_path):
    with pytest.raises(S3Error, match=r"gr\\xfcn: the folder's name is not UTF-8"):
        begin(tmp_path / os.fsdecode(b"gr\xfcn"), tiny())
    assert not list(tmp_path.iterdir())


def test_other_images_are_not_taken_for_those_that_the_run_began_with(tmp_path):
    image_folder(tmp_path / "images", (b"green", b"red"), 4)
    config = folder_config(str(tmp_path / "images"))
    begin(tmp_path / "run", config)
    (tmp_path / "images/train/red/3.png").unlink()
    with pytest.raises(S3Error, match=r"of train: 8 there, 7 now.*another --workdir"):
        begin(tmp_path / "run", config)


def test_a_home_folder_is_found_and_recorded_as_given(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    image_folder(tmp_path / "images", (b"green", b"red"), 4)
    begin(tmp_path / "run", folder_config("~/images"))
    assert json.loads((tmp_path / "run/config.json").read_text())["data"]["path"] == "~/images"


def test_what_to_do_about_bad_images_may_change(tmp_path):
    config = tiny()
    begin(tmp_path, config)
    begin(tmp_path, dataclasses.replace(config, data=dataclasses.replace(config.data, on_bad_image="skip")))


@pytest.mark.parametrize("terminal", [False, True])
def test_what_users_name_is_printed_as_it_is(terminal):
    hostile = "x[/b] [red]lamp [/on] :smile: " + "long " * 40
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=300, color_system=None)
    say(console, hostile)
    with progress_bar(console, "x[/b]", 2) as advance:
        advance(2, "loss [/b]")
    assert hostile + "\n" in screen.getvalue()
    assert "x[/b]" in screen.getvalue().replace(hostile, "")
    assert "loss [/b]" in screen.getvalue()


def test_batches_that_cannot_be_made_are_refused_before_the_folder_is_bound(tmp_path):
    """Also those of the retraining, which comes last."""
    config = tiny()
    for change in ({"train": dataclasses.replace(config.train, batch_size=8)}, {"retrain": _retrained_in(config, 8)}):
        changed = dataclasses.replace(config, augment=dataclasses.replace(config.augment, repeats=5), **change)
        with pytest.raises(S3Error, match=r"augment\.repeats = 5: .* a batch of 8"):
            begin(tmp_path / "run", changed)
    assert not (tmp_path / "run" / "config.json").exists()


def _retrained_in(config, batch_size):
    return dataclasses.replace(config.retrain, train=dataclasses.replace(config.retrain.train, batch_size=batch_size))


def test_a_version_that_is_text_is_read_and_an_old_one_is_told_before_its_settings(tmp_path):
    begin(tmp_path, tiny())
    rewrite(tmp_path / "config.json", lambda record: record.update(version=str(VERSION)))
    begin(tmp_path, tiny())
    rewrite(tmp_path / "config.json", lambda record: (record.pop("version"), record["data"].update(eval_crop=0.9)))
    with pytest.raises(S3Error, match="started by another version"):
        begin(tmp_path, tiny())


def test_a_lock_that_cannot_be_opened_is_told(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(S3Error, match=r"lock file that cannot be opened .*remove it"), only_run(tmp_path):
        pass


def test_a_finished_result_with_an_altered_name_is_refused(tmp_path):
    block = {"window": 2, "mlp_ratio": 1.0, "qkv_dim": 32}
    found = {"architecture": {"stages": [{"embed_dim": 8, "blocks": [block]}]}, "params": 1, "macs": 1, "error": 5.0}
    result = {"spaces": [{"best": found}], "winner": found}
    assert pipeline._checked_result(result) == result
    altered = json.loads(json.dumps(result).replace('"window"', '"tindow"'))
    with pytest.raises(S3Error, match="not an architecture record"):
        pipeline._checked_result(altered)
