"""The notebook, shortened, in a real Jupyter kernel; a kernel that is interrupted or killed while a run is at work."""

import base64
import json
import os
import re
import signal
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_client import BlockingKernelClient, KernelManager
from nbclient import NotebookClient
from test_configs import load

from s3_jax.config import config_of, default_config
from s3_jax.errors import S3Error
from s3_jax.notebook import read_config

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks" / "s3_in_minutes.ipynb"
README = (ROOT / "README.md").read_text()
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
# After so little training errors differ by tens of points: a smaller threshold would move every choice far away.
SHORT = """
WORKDIR, WORKERS, TAU = "runs/digits", 0, 20.0
STAGES, SPACES, EPOCHS, SAMPLES, GENERATIONS, RETRAIN_EPOCHS = 2, 2, 0.5, 12, 1, 0.5
"""
LIMIT = 600.0  # seconds that a kernel may take for a cell


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def named(notebook: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    return next(cell for cell in notebook.cells if cell.id == name)


def test_the_notebook_is_kept_without_outputs(notebook: nbformat.NotebookNode) -> None:
    nbformat.validate(notebook)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(codes) > 5
    assert [cell.id for cell in codes if cell.outputs or cell.execution_count is not None] == []


def test_its_settings_are_those_of_the_digits(notebook: nbformat.NotebookNode) -> None:
    scope = {"default_config": default_config}
    for name in ("parameters", "settings"):
        exec(named(notebook, name).source, scope)
    assert config_of(scope["config"].to_dict()) == load("digits")


def test_a_file_that_is_no_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("settings = 1")
    with pytest.raises(S3Error, match=r"other\.py is no configuration file: it has no function get_config"):
        read_config(tmp_path / "other.py")
    with pytest.raises(S3Error, match=r"there is no configuration file .*nowhere\.py"):
        read_config(tmp_path / "nowhere.py")
    assert config_of(read_config(ROOT / "configs" / "digits.py").to_dict()) == load("digits")


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> tuple[nbformat.NotebookNode, Path]:
    """The notebook after a run of a few updates, and the folder that it was run in."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    parameters = named(notebook, "parameters")
    assert parameters.metadata.tags == ["parameters"]
    assert {line.split(" = ")[0] for line in parameters.source.splitlines()} == {
        *("WORKDIR", "WORKERS", "TAU", "STAGES", "SPACES", "EPOCHS", "SAMPLES", "GENERATIONS", "RETRAIN_EPOCHS")
    }
    parameters.source = SHORT
    client = NotebookClient(notebook, timeout=LIMIT, resources={"metadata": {"path": str(folder)}})
    client.execute(env=ENVIRONMENT)
    return notebook, folder


def test_it_runs_whole_and_quietly(executed) -> None:
    notebook, folder = executed
    result = json.loads((folder / "runs" / "digits" / "result.json").read_text())
    assert [space["name"] for space in result["spaces"]] == ["A", "B"]
    assert (folder / "runs" / "digits" / "network" / "weights.safetensors").exists()
    streams = [out for cell in notebook.cells for out in cell.get("outputs", ()) if out.output_type == "stream"]
    assert [out.text for out in streams if out.name == "stderr"] == []


def test_a_phase_is_one_line_that_ends_at_its_total_and_the_result_is_a_table(executed) -> None:
    *told, table = named(executed[0], "run").outputs
    assert len(told) <= 40
    assert all("text/html" in out.data for out in (*told, table))
    bars = [out.data["text/plain"] for out in told if "\u2501" in out.data["text/plain"]]
    for phase, total in (("space_0 ", 9), ("space_0/samples", 12), ("space_1/search", 1), ("retrain/best_B", 11)):
        assert [f"{total}/{total}" in bar for bar in bars if bar.startswith(phase)] == [True], phase
    assert "Winner: space B" in table.data["text/plain"]


def test_its_pictures_are_the_reports(executed) -> None:
    notebook, folder = executed
    for name, picture in (("spaces", "space_choices"), ("quality", "error_distribution"), ("search", "search")):
        shown = named(notebook, name).outputs[-1].data["image/png"]
        assert base64.b64decode(shown) == (folder / "runs" / "digits" / "report" / f"{picture}.png").read_bytes()
    assert "image/png" in named(notebook, "predictions").outputs[-1].data
    assert len(list((folder / "runs" / "digits" / "pictures").rglob("*.png"))) == 16


class Kernel:
    """A Jupyter kernel in a folder, and what its cells answer."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder), env=ENVIRONMENT)
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=LIMIT)

    def start(self, code: str) -> str:
        # By default a kernel aborts the cells that reach it within a moment of one that failed, without running them.
        return self.client.execute(code, stop_on_error=False)

    def answer(self, request: str) -> dict:
        """The kernel's reply to a cell: its status, and the error's name and lines, if there was one."""
        while True:
            reply = self.client.get_shell_msg(timeout=LIMIT)
            if reply["parent_header"].get("msg_id") == request:
                return reply["content"]

    def run(self, code: str) -> dict:
        return self.answer(self.start(code))

    def start_until(self, code: str, path: Path) -> str:
        """Start a cell and wait until it has made this file."""
        request, deadline = self.start(code), time.monotonic() + LIMIT
        while not path.exists():
            assert not self.client.shell_channel.msg_ready(), f"it ended without {path}: {self.answer(request)}"
            assert time.monotonic() < deadline, f"{path} did not come"
            time.sleep(0.05)
        return request

    def kill(self) -> None:
        os.kill(self.manager.provisioner.pid, signal.SIGKILL)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernels(tmp_path):
    """Starts kernels in one folder."""
    started: list[Kernel] = []

    def start() -> Kernel:
        started.append(Kernel(tmp_path))
        return started[-1]

    yield start
    for kernel in started:
        kernel.close()


TINY = f"""
import signal
from s3_jax.notebook import read_config, run
config = read_config({str(ROOT / "tests" / "tiny_config.py")!r})
config.evolution.num_spaces = 1
"""


def readme_example() -> str:
    """The README's run of a whole configuration, of the tiny one instead and as it is."""
    example = next(code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "read_config" in code)
    for written, small in (
        ("configs/digits.py", str(ROOT / "tests" / "tiny_config.py")),
        ("12.0", "0.4\nconfig.evolution.num_spaces = 1"),
    ):
        assert written in example
        example = example.replace(written, small)
    return example


def test_interrupted_it_saves_and_killed_it_loses_nothing(tmp_path, kernels) -> None:
    kernel = kernels()
    assert kernel.run(TINY)["status"] == "ok"
    mistaken = kernel.run("config.data.num_workers = 1; config.data.source = 'nowhere'; run(config, 'stopped')")
    assert mistaken["traceback"][0].startswith("s3_jax: config.data.source = 'nowhere': expected one of")
    begun = kernel.start_until(
        "config.data.source = 'digits'; run(config, 'stopped')", tmp_path / "stopped" / "metrics.jsonl"
    )
    kernel.manager.interrupt_kernel()
    stopped = kernel.answer(begun)
    assert (stopped["status"], stopped["ename"], len(stopped["traceback"])) == ("error", "Interrupted", 1)
    assert "saved, the same command goes on" in stopped["traceback"][0]
    usable = kernel.run("config.data.num_workers = 0; assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL")
    assert usable["status"] == "ok"
    kernel.start_until("run(config, 'stopped')", tmp_path / "stopped" / "space_0" / "evaluated.jsonl")
    kernel.kill()
    other = kernels()
    assert other.run(f"{readme_example()}\nassert run(config, 'stopped') == result")["status"] == "ok"
    for name in ("result.json", "space_0/evaluated.jsonl", "space_0/et_error.json"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "runs" / "longer" / name).read_bytes()
