"""Settings of a task's own: found by its name, checked as all others are, known to the command line and to a folder."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from s3_jax.classification.config import ClassificationConfig
from s3_jax.config import Config, config_class, config_of, default_config
from s3_jax.errors import S3Error
from s3_jax.mapping import to_mapping
from s3_jax.task import open_task
from s3_jax.training.records import write_json
from s3_jax.training.start import VERSION, opened_workdir

ROOT = Path(__file__).parent.parent
ROOM = """
import dataclasses

from s3_jax.config import Config as Shared, DataConfig
from s3_jax.errors import S3Error


@dataclasses.dataclass(frozen=True)
class MasksConfig:
    ignored: int = 255
    shift: int = 0


@dataclasses.dataclass(frozen=True)
class MaskedDataConfig(DataConfig):
    path_of_masks: str = ""


@dataclasses.dataclass(frozen=True)
class Config(Shared):
    data: MaskedDataConfig = MaskedDataConfig()
    masks: MasksConfig = MasksConfig()


def open_task(config):
    raise S3Error(f"masks without {config.masks.ignored} are all there is of this task")
"""
CONFIG = "from s3_jax.config import default_config\nget_config = lambda: default_config({task!r})\n"


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package with a task that has settings of its own."""
    (tmp_path / "masks_room.py").write_text(ROOM)
    (tmp_path / "masks_config.py").write_text(CONFIG.format(task="masks_room"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "masks_room", raising=False)
    return "masks_room"


def test_the_class_of_a_task_is_found(room: str) -> None:
    assert config_class("s3_jax.classification") is ClassificationConfig
    assert type(config_of({})) is ClassificationConfig
    own = config_class(room)
    assert issubclass(own, Config)
    assert own is not Config
    settings = default_config(room)
    assert (settings.task, settings.masks.ignored, settings.data.path_of_masks) == (room, 255, "")
    assert "augment" not in settings
    settings.masks.ignored = 0
    config = config_of(settings.to_dict())
    assert type(config) is own
    assert config_of(to_mapping(config)) == config


@pytest.mark.parametrize("other", [None, 3, ModuleType, "Config"])
def test_a_task_without_settings_of_its_own_has_those_of_all_tasks(other: object, monkeypatch) -> None:
    plain = ModuleType("plain_room")
    plain.open_task = lambda config: None  # type: ignore[attr-defined]
    if other is not None:  # it means something else by the name
        plain.Config = other  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "plain_room", plain)
    assert config_class("plain_room") is Config
    settings = default_config("plain_room")
    assert not {"augment"} & set(settings)
    assert not {"source", "name", "eval_crop"} & set(settings.data)
    assert config_of(settings.to_dict()) == Config(task="plain_room")


def test_a_misspelt_key_of_a_tasks_own_block_is_refused_with_the_right_ones(room: str) -> None:
    settings = default_config(room).to_dict()
    settings["masks"]["ignord"] = 0
    with pytest.raises(S3Error, match=r"^config.masks has no field 'ignord'; its fields are ignored, shift \(.*\)$"):
        config_of(settings)
    settings = default_config().to_dict()
    settings["augment"]["mixupp"] = 0.0
    with pytest.raises(S3Error, match=r"^config.augment has no field 'mixupp'; its fields are .* mixup, cutmix,"):
        config_of(settings)


def test_settings_of_another_task_are_refused_with_where_the_right_ones_come_from(room: str) -> None:
    settings = default_config().to_dict() | {"task": room}
    message = rf"^config has no field 'augment'; its fields are .*, masks \(.*, as default_config\('{room}'\) makes"
    with pytest.raises(S3Error, match=message):
        config_of(settings)
    with pytest.raises(S3Error, match=r"its settings are a .*\.ClassificationConfig, and these are a Config; make"):
        open_task(Config())


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("s3_jax.nothing", "No module named 's3_jax.nothing'; expected one like s3_jax.classification"),
        ("s3_jax.cost", "it has no function open_task, as s3_jax.classification has"),
        ("", "Empty module name; expected one like s3_jax.classification"),
        (3, "expected str, got int"),
    ],
)
def test_a_package_that_has_no_task_is_refused_in_one_line(task: object, message: str) -> None:
    settings = default_config().to_dict() | {"task": task}
    with pytest.raises(S3Error) as refusal:
        config_of(settings)
    assert str(refusal.value) == f"config.task = {task!r}: {message}"
    if isinstance(task, str):
        with pytest.raises(S3Error, match=message):
            default_config(task)
        with pytest.raises(S3Error, match=message):
            open_task(ClassificationConfig(task=task))


def test_a_folder_is_bound_to_a_tasks_own_settings(room: str, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    workdir.mkdir()

    def opened(**changes: object) -> None:
        settings = default_config(room)
        settings.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
        with opened_workdir(workdir, config_of(settings.to_dict())):
            pass

    record = {"version": VERSION} | to_mapping(config_of(default_config(room).to_dict()))
    del record["masks"]["shift"]  # of a version of the task that had no such setting
    write_json(workdir / "config.json", record)
    opened()
    opened(data__path="elsewhere", data__num_workers=2)
    with pytest.raises(S3Error, match=r"config.masks.shift: 0 there, 1 now"):
        opened(masks__shift=1)
    with pytest.raises(S3Error, match=r"config.data.path_of_masks: '' there, 'elsewhere' now"):
        opened(data__path_of_masks="elsewhere")
    with (
        pytest.raises(S3Error, match=r"config.task: 'masks_room' there, 's3_jax.classification' now\nGive those again"),
        opened_workdir(workdir, ClassificationConfig()),
    ):
        pass


def told(folder: Path, *given: str) -> str:
    """What the command line says of a mistake."""
    command = [sys.executable, "-m", "s3_jax.main", f"--workdir={folder / 'run'}", *given]
    paths = {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}
    done = subprocess.run(command, env={**os.environ, **paths}, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("given", ["--config=configs/digits.py", "--config configs/digits.py"])
def test_a_misspelt_flag_of_classification_is_refused_with_the_right_ones(given: str, tmp_path: Path) -> None:
    said = told(tmp_path, *given.split(), "--config.augment.mixupp=0.0")
    assert "s3_jax: config.augment has no field 'mixupp' (in --config.augment.mixupp=0.0); its fields are" in said
    assert "mixup," in said


def test_the_flags_of_a_task_are_those_of_its_configuration_file(room: str, tmp_path: Path) -> None:
    given = f"--config={tmp_path / 'masks_config.py'}"
    assert "masks without 7 are all there is" in told(tmp_path, given, "--config.masks.ignored=7")
    said = told(tmp_path, given, "--config.masks.ignord=7", "--config.augment.mixup=0.0")
    assert "config.masks has no field 'ignord' (in --config.masks.ignord=7); its fields are ignored, shift" in said
    assert "config has no field 'augment'" in said


def test_a_configuration_file_that_cannot_be_loaded_is_told_before_its_flags(tmp_path: Path) -> None:
    (tmp_path / "none.py").write_text(CONFIG.format(task="no_room"))
    said = told(tmp_path, f"--config={tmp_path / 'none.py'}", "--config.masks.ignored=7")
    assert "could not be loaded: config.task = 'no_room': No module named 'no_room'; expected" in said
    said = told(tmp_path, "--config=nowhere.py", "--config.masks.ignored=7")
    assert said == "s3_jax: there is no configuration file nowhere.py\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--config.data.mean=(1,1,1)", "--config.data.mean", "(2,2,2)"],
            "--config.data.mean is given twice, which would be one",
        ),
        (
            ["--config.backbone="],
            "config.backbone is a block of settings (in --config.backbone=); give its fields",
        ),
        (["--config.train.epochs=many"], "could not convert string to float: 'many' (--help lists flags)"),
        (["--workdirs=x"], "Unknown command line flag 'workdirs'"),
    ],
)
def test_flags_that_cannot_be_meant_get_one_line(flags: list[str], said: str, tmp_path: Path) -> None:
    lines = told(tmp_path, "--config=configs/digits.py", *flags).splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_a_number_given_twice_is_the_last_as_in_every_command(tmp_path: Path) -> None:
    said = told(tmp_path, "--config=configs/digits.py", "--config.train.epochs=1", "--config.train.epochs=-3")
    assert "config.train.epochs = -3.0: expected" in said
