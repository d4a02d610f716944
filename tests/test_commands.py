"""The commands for single networks, as users start them: names of any kind, files that are none, homes, mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_standalone import make

from s3_jax.networks import standalone
from s3_jax.networks.standalone import Standalone

ROOT = Path(__file__).parent.parent
NAMES = ["cat", "lamp [/on]", "[bold]", ":smile:", "blue", "red", "gr\u00fcn", "a", "b", "c"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A home folder with a network, names for its classes, and images that are named as nobody would."""
    folder = tmp_path_factory.mktemp("home")
    standalone.save(folder / "network", make())
    (folder / "names.txt").write_bytes("\ufeff{}\r\n\r\n".format("\r\n".join(NAMES)).encode())
    (folder / "images").mkdir()
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    for name in ("cat[old].png", ":cat:.png", "[x].png", os.fsdecode(b"gr\xfcn.png")):
        with open(folder / "images" / name, "wb") as file:
            image.save(file, "PNG")
    (folder / "images" / "empty.png").write_bytes(b"")
    (folder / "images" / "._hidden.jpg").write_bytes(b"")
    return folder


def command(home: Path, script: str, *flags: str, **environment: str) -> subprocess.CompletedProcess:
    program = [sys.executable, str(ROOT / "scripts" / script), *flags]
    variables = {**os.environ, "HOME": str(home), "COLUMNS": "300", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(program, env=variables, cwd=home, capture_output=True, text=True, timeout=600)


def test_names_are_printed_as_they_are(home):
    """Nothing in them is markup, nor a smiley, nor the end of the command."""
    flags = ("--model=~/network", "--class_names=~/names.txt", "--top=10", "~/images")
    done = command(home, "predict.py", *flags)
    assert done.returncode == 2
    for name in ("cat[old].png", ":cat:.png", "[x].png", "gr\\xfcn.png", *NAMES):
        assert name in done.stdout
    assert "\ufeff" not in done.stdout
    assert "hidden" not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == f"predict: {home}/images/empty.png: not an image: the file is empty"


def test_lines_of_json_are_json_whatever_the_names_and_the_terminal(home):
    flags = ("--model=~/network", "--class_names=~/names.txt", "--json", "--top=99", "~/images")
    done = command(home, "predict.py", *flags, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    records = [json.loads(line, parse_constant=pytest.fail) for line in done.stdout.splitlines()]
    paths = [os.path.basename(record["path"]) for record in records]
    assert paths == [":cat:.png", "[x].png", "cat[old].png", "gr\\xfcn.png"]
    assert all({found["name"] for found in record["classes"]} == set(NAMES) for record in records)


def test_evaluation_matches_the_folders_by_name_and_says_what_it_takes_for_what(home):
    rng = np.random.default_rng(0)
    for name in NAMES[4:]:
        (home / "set" / "val" / name).mkdir(parents=True)
        for number in range(3):
            image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            image.save(home / "set" / "val" / name / f"{number}.png")
    flags = ("--model=~/network", "--path=~/set", "--json")
    done = command(home, "evaluate.py", *flags, "--class_names=~/names.txt")
    assert done.returncode == 0, done.stderr
    assert "the data has 6 of the network's 10 classes" in done.stderr
    assert json.loads(done.stdout)["images"] == 18
    done = command(home, "evaluate.py", *flags)
    assert done.returncode == 2
    assert "Only in the data: a, b, blue, c, gr\\xfcn, red. Only in the network: 0, 1, " in done.stderr.replace(
        "ü", "\\xfc"
    )
    assert "name them with --class_names" in done.stderr


@pytest.mark.parametrize("script", ["convert_weights.py", "predict.py", "evaluate.py", "finetune.py"])
def test_weights_that_are_not_finite_are_refused_by_every_command(home, tmp_path, script):
    model = make()
    standalone.save(tmp_path / "network", model)
    weights = tmp_path / "network" / "weights.safetensors"
    tensors = dict(model.spec.state_dict(model.network))
    tensors["norm.weight"] = np.full(16, np.nan, np.float32)
    standalone.write_safetensors(weights, tensors, {})
    flags = {
        "convert_weights.py": ["--out=~/out.safetensors"],
        "predict.py": ["~/images"],
        "evaluate.py": ["--source=digits", "--split=test"],
        "finetune.py": [f"--config={ROOT / 'configs' / 'digits.py'}", "--workdir=~/out"],
    }[script]
    done = command(home, script, f"--model={tmp_path / 'network'}", *flags)
    assert done.returncode == 2
    assert done.stdout == ""
    expected = f"{script[:-3]}: {weights}: tensor norm.weight: 16 of 16 values are NaN or infinite in float32"
    assert done.stderr.splitlines()[-1].startswith(expected)
    assert not list(home.glob("out*"))


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("convert_weights.py", ["--model=~/network", "--out=~/images"], "images is a folder; give the name of a file"),
        ("export.py", ["--model=~/network", "--out=~/out", "--formats="], "--formats has none; choose of safetensors"),
        ("export.py", ["--model=~/network", "--out=~/names.txt"], "cannot write"),
        (
            "export.py",
            ["--model=~/network", "--out=s3://bucket/a"],
            "s3://bucket/a is no path, and not the address of a",
        ),
        ("predict.py", ["--model=~/network", "--weights=w.pth", "~/images"], "leave out --weights=w.pth"),
        (
            "extract_subnet.py",
            ["--workdir=~/network", "--out=~/out", "--architecture=~/none.json"],
            "there is no file HOME/none.json",
        ),
    ],
)
def test_mistakes_get_one_message(home, script, flags, message):
    done = command(home, script, *flags)
    assert done.returncode == 2, done.stdout + done.stderr
    assert message.replace("HOME", str(home)) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "out").exists()
    assert not (home / "~").exists()


def test_what_is_written_goes_to_the_home_folder(home):
    done = command(home, "convert_weights.py", "--model=~/network", "--out=~/made/a.safetensors")
    assert done.returncode == 0, done.stderr
    assert (home / "made" / "a.safetensors").exists()
    assert not (home / "~").exists()
    assert isinstance(standalone.load(home / "network"), Standalone)
