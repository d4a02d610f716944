"""The design's import directions, read from the source: data flows down the package, imports only point up it."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "s3_jax"

# Of tasks, none of which imports another.
ROOMS = ("classification", "segmentation", "detection", "vqa")
# From the top of the design's list down. A part imports itself and parts above it, nothing below.
ORDER = (
    *("errors", "buckets", "paths", "command_flags", "writing", "limits", "mapping", "space", "cost"),
    *("et_error", "equal_cost", "slopes", "arms", "evolution", "search", "config"),
    *(
        "models",
        "data",
        "task",
        "remaining",
        "progress",
        "training",
        "networks",
        "commands",
        "classification",
        "segmentation",
        "detection",
        "vqa",
        "profiling",
    ),
    *(
        "measured_run",
        "measuring",
        "pipeline",
        "finetune",
        "report",
        "study",
        "comparison",
        "analysis",
        "notebook",
        "main",
    ),
)
# Parts that may import less than all that is above them.
NARROW = {
    "errors": set(),
    "buckets": {"errors"},
    "command_flags": {"errors", "paths", "buckets"},
    "paths": {"errors", "buckets"},
    "writing": {"errors", "buckets", "paths"},
    "limits": {"errors"},
    "mapping": {"errors", "limits"},
    "space": {"errors"},
    "cost": {"errors", "limits", "space"},
    "et_error": {"errors", "space", "cost"},
    "equal_cost": {"errors"},
    "slopes": {"errors", "space", "et_error"},
    "arms": {"errors", "space"},
    "evolution": {"errors", "limits", "space", "cost", "et_error", "slopes", "arms"},
    "search": {"errors", "limits", "space", "cost"},
    "models": {"errors", "space", "cost"},
    "data": {"errors", "buckets", "paths"},
    "task": {"errors", "space", "cost", "config", "models", "data"},
    "remaining": set(),
    "progress": {"paths"},
    "commands": {"errors", "buckets", "paths", "command_flags", "config", "networks"},
    "report": {"errors", "writing", "paths", "limits", "space", "cost", "et_error", "evolution"},
}
PURE = (
    *("errors", "limits", "space", "cost", "et_error", "equal_cost", "slopes", "arms"),
    *("evolution", "search", "remaining"),
)
WITHOUT_IO = (*PURE, "config", "models")
IO_MODULES = {
    *("os", "io", "pathlib", "shutil", "subprocess", "socket", "tempfile", "urllib", "logging", "pickle"),
    *("absl", "orbax", "tensorflow_datasets", "tensorboardX", "wandb"),
}
IO_CALLS = {"open", "print", "input"}


def imported(source: str) -> Iterator[str]:
    """Every module that source imports, at any depth of it and by name, `from a import b` giving both a and a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: relative import; write the module's whole name"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _name(node.func) in ("import_module", "__import__"):
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


def called(source: str) -> set[str]:
    """The last names of all functions and methods that source calls."""
    return {_name(node.func) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)}


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def own_parts(source: str) -> set[str]:
    """The parts of the package that source imports, as `models` for s3_jax.models.subnet."""
    return {name.split(".")[1] for name in imported(source) if name.startswith("s3_jax.")} & set(ORDER)


def foreign(source: str) -> set[str]:
    return {name.split(".")[0] for name in imported(source)} - {"s3_jax", "__future__"}


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def allowed(part: str) -> set[str]:
    others = set(ROOMS) if part in ROOMS else set()
    return NARROW.get(part, set(ORDER[: ORDER.index(part)]) - others) | {part}


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
SOURCES = sorted(path for folder in ("s3_jax", "configs", "scripts", "tests") for path in (ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_pure_parts_exist() -> None:
    assert set(PURE) <= {part_of(path) for path in MODULES}


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_imports_point_up_the_design(path: Path) -> None:
    part = part_of(path)
    assert part in ORDER, f"{part} has no place in the design; give it one in ORDER"
    forbidden = own_parts(path.read_text()) - allowed(part)
    assert not forbidden, f"{part} may import only {sorted(allowed(part))}"


@pytest.mark.parametrize("part", PURE)
def test_the_pure_method_needs_numpy_and_the_standard_library_only(part: str) -> None:
    assert foreign((PACKAGE / f"{part}.py").read_text()) <= {"numpy", *sys.stdlib_module_names}


@pytest.mark.parametrize("path", [path for path in MODULES if part_of(path) in WITHOUT_IO], ids=relative)
def test_the_method_and_the_models_do_no_io(path: Path) -> None:
    source = path.read_text()
    assert not foreign(source) & IO_MODULES
    assert not called(source) & IO_CALLS


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_tensorflow_is_never_imported(path: Path) -> None:
    assert "tensorflow" not in foreign(path.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "import tensorflow as tf",
        "import tensorflow.io.gfile",
        "from tensorflow import io",
        "def late():\n    from tensorflow.python import framework",
        "if TYPE_CHECKING:\n    import tensorflow",
        "tf = importlib.import_module('tensorflow')",
        "tf = __import__('tensorflow.io')",
    ],
)
def test_an_import_is_found_wherever_it_hides(source: str) -> None:
    assert "tensorflow" in foreign(source)


def test_imports_of_our_own_are_found_in_every_form() -> None:
    assert own_parts("import s3_jax.models.subnet") == {"models"}
    assert own_parts("from s3_jax import training, cost") == {"training", "cost"}
    assert own_parts("from s3_jax.report.text import table") == {"report"}
    assert own_parts("import numpy\nfrom jax import numpy") == set()
    assert called("with open(path) as file: print(file.read())") == {"open", "print", "read"}
    assert called("Path('x').open()") == {"Path", "open"}
    with pytest.raises(AssertionError, match="relative import"):
        list(imported("from .models import subnet"))


def test_the_rules_say_what_the_design_says() -> None:
    assert not {"models", "training", "data"} & allowed("report")
    assert not {"report", "main"} & allowed("pipeline")
    assert not {"networks", *ROOMS} & allowed("training")
    assert not {"classification"} & allowed("segmentation")
    assert "classification" not in allowed("data") | allowed("config")
    assert allowed("training") >= {"models", "data", "config"}
    assert all(ORDER.index(above) <= ORDER.index(part) for part in ORDER for above in allowed(part))


# What classification has and other tasks need not have.
OF_CLASSIFICATION = ("class", "classes", "class_names", "num_classes", "label", "labels", "logits", "top1", "accuracy")


@pytest.mark.parametrize("path", sorted((PACKAGE / "training").glob("*.py")), ids=relative)
def test_training_knows_no_tasks_words(path: Path) -> None:
    """But for the keyword of Python."""
    words = {
        word.lower()
        for word in re.findall(r"[A-Za-z_]\w*", re.sub(r"^ *class (?=[A-Z_])", "", path.read_text(), flags=re.M))
    }
    parts = words | {part for word in words for part in word.split("_")}
    assert not parts & set(OF_CLASSIFICATION)


def test_the_command_line_says_something_before_it_loads_what_takes_seconds() -> None:
    """Also where the settings of its task are known."""
    settings = "command_flags.settings_of_file('configs/digits.py').augment"
    names = "{name.split('.')[0] for name in sys.modules}"
    program = f"import sys; from s3_jax import command_flags, main; {settings}; print(*{names})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"jax", "flax", "grain", "orbax", "matplotlib", "sklearn", "cv2"} & set(loaded.stdout.split())
