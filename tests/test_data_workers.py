"""Loader workers end with the main process, however that ends, and leave signals to it."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

_LOAD = """
import multiprocessing, os, signal, sys
from s3_jax.classification.batches import LabelledImages
from s3_jax.classification.config import AugmentConfig, ClassificationDataConfig
from s3_jax.classification.dataset import open_data
from s3_jax.data.stream import train_batches

def main():
    config = ClassificationDataConfig(num_workers=2)
    data = open_data(config, seed=0)
    examples = LabelledImages(data.splits.train, config, 8, augment=AugmentConfig(), num_classes=10)
    batches = train_batches(examples, batch_size=8, seed=0, num_workers=2)
    for _ in range(2):  # one from each worker, so that both are there
        next(batches)
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
    sys.stdin.readline()
    for _ in range(10):
        next(batches)
    print("went on", flush=True)
    sys.stdin.readline()

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def loading(tmp_path):
    """A process with two loader workers, in a process group of its own; its first line of output is their pids."""
    script = tmp_path / "load.py"
    script.write_text(_LOAD)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(script)], start_new_session=True, **pipes) as process:
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_within(seconds: float, pids: list[int]) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(running, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(running, pids))


def test_workers_do_not_outlive_a_killed_main_process(loading: subprocess.Popen) -> None:
    workers = [int(pid) for pid in loading.stdout.readline().split()]
    assert len(workers) == 2
    assert all(map(running, workers))
    loading.send_signal(signal.SIGKILL)
    loading.wait()
    assert end_within(10, workers)


def test_a_signal_to_the_group_leaves_the_workers_working_and_an_exit_without_close_ends_them(
    loading: subprocess.Popen,
) -> None:
    workers = [int(pid) for pid in loading.stdout.readline().split()]
    os.killpg(loading.pid, signal.SIGTERM)  # as a scheduler does; the main process wants to save first
    loading.stdin.write("\n")
    loading.stdin.flush()
    assert loading.stdout.readline() == "went on\n"
    loading.stdin.close()
    assert loading.wait(timeout=30) == 0
    assert end_within(1, workers)
