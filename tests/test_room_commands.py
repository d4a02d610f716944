"""predict.py and evaluate.py for every task: each has its own part in them, and flags of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from test_segmentation_commands import segmenter, write_masks
from test_standalone import make

from s3_jax import commands
from s3_jax.config import room_of
from s3_jax.errors import S3Error
from s3_jax.networks import standalone

ROOT = Path(__file__).parent.parent
ROOMS = sorted(path.parent.name for path in (ROOT / "s3_jax").glob("*/commands.py"))
OWN_ROOM = """
from s3_jax.networks.classifier import ClassifierSpec

open_task = None


class Spec(ClassifierSpec):
    TASK = "own_room"


def spec_class():
    return Spec
"""
OWN_COMMANDS = """
import dataclasses
from typing import Annotated

from s3_jax.commands import DataOptions, Flag, Measured


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(DataOptions):
    threshold: Annotated[float, Flag("Of what counts.", least=0.0)] = 0.5
    parts: Annotated[tuple[str, ...], Flag("Which.")] = ("all",)
    plain: int = 3


def evaluate(model, options):
    told = {"blocks": len(model.spec.architecture.stages), "split": options.split, "batch": options.batch}
    return Measured(told | {"own": [options.threshold, repr(options.parts), options.plain]}, "in words")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A classifier, a segmentation network, its record alone, a network of a task from elsewhere, and a set."""
    folder = tmp_path_factory.mktemp("home")
    standalone.save(folder / "classifier", make())
    standalone.save(folder / "segmenter", segmenter())
    save_as(folder / "own", "own_room")
    (folder / "own_room").mkdir()
    (folder / "own_room" / "__init__.py").write_text(OWN_ROOM)
    (folder / "own_room" / "commands.py").write_text(OWN_COMMANDS)
    (folder / "bare").mkdir()
    (folder / "bare" / standalone.RECORD).write_bytes((folder / "segmenter" / standalone.RECORD).read_bytes())
    write_masks(folder / "set")
    return folder


def save_as(folder: Path, task: str) -> None:
    """A classifier whose record says that it is of another task."""
    standalone.save(folder, make())
    path = folder / standalone.RECORD
    record = {name: value for name, value in json.loads(path.read_text()).items() if name != "crc32"}
    path.write_text(json.dumps(record | {"task": task}))


def command(home: Path, script: str, *flags: str) -> subprocess.CompletedProcess:
    program = [sys.executable, str(ROOT / "scripts" / script), *flags]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(home))), "COLUMNS": "300"}
    return subprocess.run(program, env=variables, cwd=home, capture_output=True, text=True, timeout=600)


def help_of(home: Path, script: str, *flags: str) -> dict[str, str]:
    """What --help says of each flag, by its name."""
    done = command(home, script, *flags, "--help")
    described = done.stdout.split("\nflags:\n")[1].split("\n  --")[1:]
    parted = (text.partition(": ") for text in described)
    return {name.removeprefix("[no]"): " ".join(text.split()) for name, _, text in parted}


def test_every_task_of_the_package_has_its_part() -> None:
    assert set(ROOMS) >= {"classification", "segmentation"}
    for room in ROOMS:
        task = f"s3_jax.{room}"
        assert task == room_of(task).spec_class().TASK
        for name in ("predict", "evaluate"):
            part = commands.part_of(task, name)
            assert part.function.__module__ == f"{task}.commands"
            for option in commands._options(part.options).values():
                assert option.flag.help


def test_a_task_from_elsewhere_is_measured_with_flags_of_its_own(home: Path) -> None:
    """No script and no file of the package knows of it."""
    done = command(home, "evaluate.py", "--model=own", "--threshold=0.25", "--parts=a,b", "--split=test", "--json")
    assert done.returncode == 0, done.stderr
    told = {"model": "own", "blocks": 2, "split": "test", "batch": 64, "own": [0.25, "('a', 'b')", 3]}
    assert json.loads(done.stdout) == told
    done = command(home, "evaluate.py", "--model=own", "--threshold=-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "flag --threshold=-1: -1.0 is not" in done.stderr


def message(home: Path, script: str, *flags: str) -> str:
    """The one line that a refused command says."""
    done = command(home, script, *flags)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr.strip()


@pytest.mark.parametrize(
    ("script", "flags", "refused"),
    [
        (
            "evaluate.py",
            ["--model=classifier", "--scales=0.5,1", "--noflip"],
            "which has no --flip, --scales; its own ",
        ),
        (
            "evaluate.py",
            ["--model=s3_t", "--weights=w.pth", "--class_table", "a"],
            "no --class_table; its own flags are",
        ),
        (
            "evaluate.py",
            ["--model", "segmenter", "--name=ade20k"],
            "task s3_jax.segmentation, which has no --name; its",
        ),
        (
            "evaluate.py",
            ["--model=own", "--source=digits"],
            "of task own_room, which has no --source; its own flags are",
        ),
        (
            "predict.py",
            ["--model=classifier", "--out", "pictures", "set"],
            "has no --out; its own flags are --top, --ba",
        ),
        ("predict.py", ["set", "--out=pictures", "--top=3", "--model=segmenter"], "no --top; its own flags are --out"),
        (
            "evaluate.py",
            ["--model=bare", "--source=tfds"],
            "data.source = 'tfds': expected one of scenes, mask_fol",
        ),
        (
            "evaluate.py",
            ["--model=segmenter", "--scales=1,x"],
            "--scales has 'x'; expected numbers from 0.01 to 100, as",
        ),
        ("predict.py", ["--model=segmenter", "set"], "answers with pictures: give a folder for them with --out"),
    ],
)
def test_a_flag_or_value_that_the_models_task_does_not_have_is_refused(home, script, flags, refused) -> None:
    said = message(home, script, *flags)
    assert said.startswith(f"{script[:-3]}: ")
    assert refused in said
    assert not (home / "pictures").exists()


def test_a_refusal_names_all_flags_of_the_task(home: Path) -> None:
    said = message(home, "evaluate.py", "--model=classifier", "--zero_is_ignored")
    assert said.endswith("its own flags are --path, --split, --batch, --skip_bad_images, --source, --name")


def test_a_task_that_has_no_part_says_what_to_write(home: Path, tmp_path: Path) -> None:
    said = message(home, "predict.py", "--model=own", "set")
    assert said == (
        "predict: predict.py does nothing for task own_room: write predict and PredictOptions in own_room.commands"
    )
    save_as(tmp_path / "network", "plain_room")
    (tmp_path / "plain_room.py").write_text(OWN_ROOM.replace("own_room", "plain_room"))
    said = message(tmp_path, "evaluate.py", "--model=network")
    assert said == (
        "evaluate: the package plain_room has no module plain_room.commands: write predict, PredictOptions, evaluate "
        "and EvaluateOptions in it, as s3_jax.classification.commands has them"
    )


def test_what_a_module_of_commands_fails_to_import_is_not_hidden(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "broken_room").mkdir()
    (tmp_path / "broken_room" / "__init__.py").write_text("open_task = None")
    (tmp_path / "broken_room" / "commands.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        commands.part_of("broken_room", "predict")
    monkeypatch.setitem(sys.modules, "plain_room", room := ModuleType("plain_room"))
    with pytest.raises(S3Error, match=r"config.task = 'plain_room': it has no function open_task"):
        commands.part_of("plain_room", "predict")
    room.open_task = None  # type: ignore[attr-defined]
    with pytest.raises(S3Error, match=r"has no module plain_room\.commands"):
        commands.part_of("plain_room", "predict")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model=classifier", "--bogus"], "Unknown command line flag 'bogus'"),
        (["--model=classifier", "--batch=0"], "flag --batch=0: 0 is not a positive integer"),
        (["--scales=1"], "Flag --model must have a value other than None"),
        (["--scales=1", "--model"], "Missing value for flag --model"),
        (["--model=damaged"], "damaged/architecture.json: its content is not what was written"),
        (["--model=nobodys", "--scales=1"], "nobodys/architecture.json: config.task = 'no_room': No module named"),
        (["--model=s3_t", "--scales=1"], "s3_t is a published model: give its weights"),
        (
            ["--model=classifier", "--source=bogus"],
            "data.source = 'bogus': expected one of digits, tfds, image_folder",
        ),
    ],
)
def test_other_mistakes_are_told_in_one_paragraph(home: Path, flags: list[str], said: str) -> None:
    if not (home / "damaged").exists():
        save_as(home / "nobodys", "no_room")
        standalone.save(home / "damaged", make())
        record = home / "damaged" / standalone.RECORD
        record.write_text(record.read_text().replace('"image_size": 8', '"image_size": 9'))
    done = command(home, "evaluate.py", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_flags_of_a_file_count(home: Path) -> None:
    (home / "given").write_text("--model=segmenter\n--name=x\n")
    assert "s3_jax.segmentation, which has no --name" in message(home, "evaluate.py", "--flagfile=given")


def test_help_shows_the_flags_of_all_tasks_or_those_of_the_models(home: Path) -> None:
    shown = help_of(home, "evaluate.py")
    for room in ROOMS:
        assert set(commands._options(commands.part_of(f"s3_jax.{room}", "evaluate").options)) <= set(shown)
    assert shown["split"].startswith("Which images.")
    assert shown["scales"].startswith("Segmentation: Scales of which")
    assert shown["source"] == (
        "Classification: digits, tfds or image_folder. (default: 'image_folder') "
        "Detection: coco or scenes. (default: 'coco') "
        "Segmentation: mask_folder or scenes. (default: 'mask_folder') "
        "Vqa: vqa_json or easy_vqa. (default: 'vqa_json')"
    )
    assert {"model", "weights", "class_names", "json"} < set(shown)
    of_one = help_of(home, "evaluate.py", "--model=segmenter")
    assert of_one["source"] == "mask_folder or scenes. (default: 'mask_folder')"
    assert "name" not in of_one
    of_own = help_of(home, "evaluate.py", "--model=own")
    assert of_own["threshold"].startswith("Of what counts. (default: '0.5')")
    assert not {"source", "scales"} & set(of_own)


@pytest.mark.parametrize("script", ["predict", "evaluate"])
def test_flags_are_checked_before_what_takes_seconds_is_loaded(home: Path, script: str) -> None:
    """Also where the model's task is known, and its options are."""
    arguments = [script, "--model=segmenter", *(["--out=pictures", "set"] if script == "predict" else ["--flip"])]
    program = (
        f"import sys; sys.argv = {arguments}; import {script}; from s3_jax import commands\n"
        f"commands.parse('{script}', sys.argv)\n"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "scripts")))}
    done = subprocess.run([sys.executable, "-c", program], env=variables, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "s3_jax" in loaded
    assert not {"jax", "flax", "grain", "orbax", "matplotlib", "sklearn", "cv2"} & loaded


def test_both_commands_from_end_to_end_for_a_segmentation_network(home: Path) -> None:
    done = command(home, "evaluate.py", "--model=segmenter", "--path=set", "--json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout))[:5] == ["model", "data", "split", "images", "miou"]
    done = command(home, "predict.py", "--model=segmenter", "set/images/val/1.png", "--out=made")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (home / "made").iterdir()} == {"1_overlay.png", "1_classes.png"}
