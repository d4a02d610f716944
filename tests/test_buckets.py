"""Buckets, against a server of this machine's own: paths, records, checkpoints, data, networks, and what is refused."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bucket_server
import jax
import numpy as np
import pytest
import test_standalone
import test_training_checkpoints
from test_data_folders import write_images

from s3_jax.config import Config, RunConfig
from s3_jax.data.image_folder import open_image_folder
from s3_jax.data.sources import decode
from s3_jax.data.tfds_source import open_tfds
from s3_jax.errors import S3Error
from s3_jax.networks import standalone
from s3_jax.networks.convert import params_of
from s3_jax.paths import user_path
from s3_jax.training import bucket_lock, records
from s3_jax.training.lock import only_run
from s3_jax.training.records import JsonLines, Metrics, read_json_lines
from s3_jax.training.start import opened_workdir
from s3_jax.writing import write_whole

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def server() -> Iterator[bucket_server.Server]:
    with bucket_server.serving() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def folder(server, request):
    return user_path(f"gs://{bucket_server.BUCKET}/{request.node.name}")


def test_an_object_is_a_file(folder):
    path, content = folder / "a" / "b.png", bytes(range(256)) + b"\r\n\n\r end"
    assert not path.exists()
    assert not folder.exists()
    with pytest.raises(FileNotFoundError):
        path.read_bytes()
    write_whole(path, content)
    assert path.read_bytes() == content
    assert (path.exists(), path.is_file(), path.is_dir()) == (True, True, False)
    assert (folder.exists(), folder.is_file(), folder.is_dir()) == (True, False, True)
    assert [(entry.name, entry.is_dir()) for entry in folder.entries()] == [("a", True)]
    write_whole(path, "grün\r\n")
    assert path.read_text() == "grün\n"
    path.unlink()
    assert not path.exists()
    path.unlink(missing_ok=True)


def test_lines_are_sent_together_and_read_in_order(folder, server):
    path, before = folder / "lines.jsonl", len(server.requests)
    lines = JsonLines(path)
    for index in range(100):
        lines.append({"index": index})
    assert read_json_lines(path) == [{"index": 0}]
    lines.flush()
    lines.flush()
    assert sum(line.startswith("POST") for line in server.requests[before:]) == 2
    other = JsonLines(path)  # of a process that goes on
    other.append({"index": 100})
    other.flush()
    assert read_json_lines(path) == [{"index": index} for index in range(101)]


def test_lines_that_wait_are_sent_after_a_while(folder, monkeypatch):
    monkeypatch.setattr(records, "SECONDS_BETWEEN_WRITES", 0.0)
    lines = JsonLines(folder / "lines.jsonl")
    for index in range(3):
        lines.append({"index": index})
        assert len(read_json_lines(folder / "lines.jsonl")) == index + 1


def test_metrics_and_events_of_tensorboard_are_in_the_bucket(folder):
    metrics = Metrics(folder, RunConfig(), active=True)
    for step in range(4):
        metrics.write("space_0", step, {"loss": 1.0})
    metrics.flush()
    temporary = metrics._local_folder()
    (events,) = temporary.glob("events.*")
    assert (folder / events.name).read_bytes() == events.read_bytes() != b""
    metrics.forget_after("space_0", 1)
    metrics.write("space_0", 2, {"loss": 2.0})
    metrics.close()
    assert [(line["step"], line["loss"]) for line in read_json_lines(folder / "metrics.jsonl")] == [
        *((0, 1.0), (1, 1.0), (2, 2.0))
    ]
    assert not temporary.exists()


def test_checkpoints_are_restored_bit_for_bit(folder):
    test_training_checkpoints.save(folder, 1, 2, 3)
    restored, expected = test_training_checkpoints.restore(folder), test_training_checkpoints.state_at(3)
    assert restored is not None
    jax.tree.map(np.testing.assert_array_equal, restored, expected)
    assert sorted(entry.name for entry in folder.entries()) == ["step_2", "step_3"]
    with pytest.raises(S3Error, match="is of another space or architecture"):
        test_training_checkpoints.restore(folder, subject={"stages": []})


def test_a_checkpoint_that_is_refused_is_told(server):
    with pytest.raises(S3Error, match=r"gs://read-only/run.* cannot be reached: .*Forbidden.*Storage Object User"):
        test_training_checkpoints.save(user_path("gs://read-only/run"), 1)


@pytest.fixture
def quick_lock(monkeypatch):
    for name, seconds in (("RENEW_SECONDS", 0.1), ("STALE_SECONDS", 2.0), ("LOOK_SECONDS", 0.1)):
        monkeypatch.setattr(bucket_lock, name, seconds)


def test_a_second_run_is_refused_while_the_first_renews_its_lock(folder, quick_lock):
    with only_run(folder):
        with pytest.raises(S3Error, match=rf"is in use by process {os.getpid()} on "), only_run(folder):
            pass
        assert (folder / ".lock").exists()
    assert not (folder / ".lock").exists()


@pytest.mark.parametrize(("host", "waits"), [("another", True), (socket.gethostname(), False)])
def test_the_lock_of_a_killed_run_is_taken_over(folder, quick_lock, monkeypatch, host, waits):
    """At once where its process can be seen to be gone, elsewhere when it has not been renewed for long enough."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    record = {"process": gone.pid, "host": host, "machine": bucket_lock.uuid.getnode(), "token": "theirs"}
    write_whole(folder / ".lock", records.as_json(record))
    start = time.monotonic()
    with only_run(folder):
        assert (time.monotonic() - start > 2.0) == waits
        assert f'"process": {os.getpid()}' in (folder / ".lock").read_text()


HOLD = """
import sys, time
from s3_jax.paths import user_path
from s3_jax.training import bucket_lock, lock
bucket_lock.RENEW_SECONDS = 0.1
with lock.only_run(user_path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_who_has_lost_the_lock_ends_and_leaves_it_to_the_other(folder):
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as first:
        assert first.stdout.readline() == "held\n"
        write_whole(folder / ".lock", '{"token": "theirs"}')
        try:
            _, said = first.communicate(timeout=60)
        finally:
            first.kill()
    assert first.returncode == 1
    assert f"another process has taken over {folder}" in said
    assert (folder / ".lock").read_text() == '{"token": "theirs"}'


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("gs://read-only/run", r"gs://read-only/run/\S+ cannot be reached: Forbidden: .*Storage Object User"),
        ("gs://not-there/run", r"there is no bucket gs://not-there: look at its spelling"),
    ],
)
def test_a_bucket_that_cannot_be_written_to_is_refused(server, address, message):
    with pytest.raises(S3Error, match=message), opened_workdir(user_path(address), Config()):
        pass


@pytest.mark.parametrize("there", [True, False])
def test_the_command_line_tells_it_in_one_paragraph(server, there):
    """A bucket without the right to write, and a server that does not answer: nothing listens at port 1."""
    nobody = {} if there else {"STORAGE_EMULATOR_HOST": "http://localhost:1"}
    command = [sys.executable, "-m", "s3_jax.main", f"--config={ROOT / 'tests' / 'tiny_config.py'}"]
    command.append("--workdir=gs://read-only/run")
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | nobody)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("s3_jax: gs://read-only/run/")


def test_without_gcsfs_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(S3Error, match=r"gs://bucket/run: buckets need .* pip install s3_jax\[gcs\]"):
        user_path("gs://bucket/run")


def test_images_in_a_bucket_are_those_on_a_disk(folder, tmp_path):
    names = ("train/cat/1.png", "train/cat/2021/0.png", "train/dog/0.png", "train/dog/notes.txt", "test/cat/0.png")
    write_images(tmp_path, *names, "test/dog/0.png")
    for path in filter(Path.is_file, tmp_path.rglob("*")):
        write_whole(folder / str(path.relative_to(tmp_path)), path.read_bytes())
    there, here = (open_image_folder(str(place), ("train", "test")) for place in (folder, tmp_path))
    assert there.class_names == here.class_names == ("cat", "dog")
    for split, images in here.splits.items():
        others = there.splits[split]
        assert others.labels.tolist() == images.labels.tolist()
        assert [others.name(i).removeprefix(str(folder)) for i in range(len(others))] == [
            images.name(i).removeprefix(str(tmp_path)) for i in range(len(images))
        ]
        assert [decode(others[i][0]).tobytes() for i in range(len(others))] == [
            decode(images[i][0]).tobytes() for i in range(len(images))
        ]
        assert len(set(others.identities)) == len(images)
    with pytest.raises(S3Error, match=r"no folder 'gs://\S+/val'.* has test, train"):
        open_image_folder(str(folder), ("val",))
    (folder / "test/dog/0.png").unlink()
    with pytest.raises(S3Error, match=r"test/dog/0.png cannot be read"):
        there.splits["test"][1]


def test_sets_of_tfds_are_refused(server):
    with pytest.raises(S3Error, match=r"array_record files are read from a disk; copy"):
        open_tfds("gs://bucket/cifar10/3.0.2", "", ("train",))


def test_a_network_has_its_folder_in_a_bucket(folder):
    model = test_standalone.make()
    standalone.save(folder, model)
    loaded = standalone.load(folder)
    assert loaded.spec == model.spec
    jax.tree.map(np.testing.assert_array_equal, params_of(loaded.network), params_of(model.network))
