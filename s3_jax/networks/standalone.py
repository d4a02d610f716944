"""A network by itself, with all that it takes to use it: in memory, and as a folder.

folder/  architecture.json   the architecture, sizes, classes, preprocessing, and where the weights are from
         weights.safetensors, for classifiers under timm's names
         README.md           the model card
"""

from __future__ import annotations

import dataclasses
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeGuard

import jax.numpy as jnp
from flax import nnx

from s3_jax.config import room_of
from s3_jax.cost import Cost
from s3_jax.errors import S3Error
from s3_jax.mapping import from_mapping
from s3_jax.models.families import AnyArchitecture, architecture_from_json, family_of
from s3_jax.networks.convert import check_finite
from s3_jax.networks.files import StateDict, read_state_dict, write_safetensors
from s3_jax.networks.record import RECORD, VERSION, read_record, task_of
from s3_jax.paths import AnyPath, printable
from s3_jax.writing import sealed, write_whole

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

WEIGHTS, CARD = "weights.safetensors", "README.md"


@dataclasses.dataclass(frozen=True)
class About:
    """Where weights are from, in words, for the model card; "" where it is not known."""

    data: str = ""  # what the network was trained on
    recipe: str = ""
    accuracy: str = ""  # or another score, with the split that it was measured on
    licence: str = ""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not isinstance(value, str):
                raise S3Error(f"about.{name} = {value!r}: expected words")


class Input(NamedTuple):
    """An array that a network takes."""

    shape: tuple[int, ...]  # of one example
    dtype: Any


@dataclasses.dataclass(frozen=True)
class Spec(ABC):
    """Everything about a network but its weights, as far as the networks of all tasks have it.

    A task's networks have a class that inherits from this one, named by `spec_class` of the task's package. Raises
    S3Error for values that are none, by their names.
    """

    TASK: ClassVar[str]  # as config.task names it
    NAMES: ClassVar[str]  # whose names weights have in a folder, for the model card
    SCORE: ClassVar[str] = "score"  # what the model card calls `about.accuracy`
    ADDED: ClassVar[tuple[str, ...]] = ()  # fields that older records lack, and mean by it what is their default
    NO_ONNX: ClassVar[str] = ""  # why networks cannot be converted to ONNX; "" where they can
    # How the model card shows that a network is asked.
    ANSWER: ClassVar[str] = "logits = model.network(images)  # (B, H, W, 3), normalised with model.spec.mean and .std"

    architecture: AnyArchitecture
    image_size: int = 224  # pixels; windows are those of this size
    patch_size: int = 4  # pixels
    class_names: tuple[str, ...] = tuple(str(index) for index in range(1000))
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    about: About = About()

    def __post_init__(self) -> None:
        self._make_settings()
        for name in ("image_size", "patch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise S3Error(f"{name} = {value!r}: expected a number of pixels")
        names = self.class_names
        if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
            raise S3Error(f"class_names = {names!r}: expected a tuple of at least one name")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3 or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
                positive = "positive numbers" if name == "std" else "numbers"
                raise S3Error(f"{name} = {values!r}: expected three {positive}, of red, green and blue")

    def _make_settings(self) -> None:
        """Blocks of settings that are mappings, as those of a record are, become values of their classes."""
        for field in dataclasses.fields(self):
            kind, value = field.default_factory, getattr(self, field.name)
            if not dataclasses.is_dataclass(kind) or isinstance(value, kind):
                continue
            if not isinstance(value, Mapping):
                raise S3Error(f"{field.name} = {value!r}: expected its settings by their names")
            object.__setattr__(self, field.name, from_mapping(kind, value, field.name))

    @property
    @abstractmethod
    def cost(self) -> Cost:
        """Parameters, and MACs of one image."""

    @abstractmethod
    def build(self, *, dtype: str = "float32", rngs: nnx.Rngs | None = None) -> Any:
        """The network with random weights (seed 0 where `rngs` is not given). Raises S3Error where it cannot be."""

    @abstractmethod
    def state_dict(self, network: Any) -> StateDict:
        """A network's weights under the names that its folder has them by."""

    @abstractmethod
    def set_weights(self, network: Any, tensors: StateDict) -> None:
        """Give a network such weights, in place. Raises S3Error where they are not its own."""

    @property
    @abstractmethod
    def export_size(self) -> tuple[int, int]:
        """Height and width in pixels of the images that an export takes, where no others are asked for."""

    def export_inputs(self, size: tuple[int, int]) -> tuple[Input, ...]:
        """Shape and type of what `as_function` takes, of one example; size: height and width of images."""
        return (Input((*size, 3), jnp.float32),)

    @abstractmethod
    def as_function(self, network: Any, size: tuple[int, int]) -> Callable[..., Any]:
        """What an export computes: of images float32 (B, H, W, 3), normalised, the logits, float32, or several arrays.

        A task whose networks take more than images names that in `export_inputs`. size: H and W. Raises S3Error where
        the network takes no such images.
        """

    @abstractmethod
    def card_rows(self) -> list[tuple[str, str]]:
        """What the model card says of images and accuracy, in words."""

    def to_json(self) -> dict[str, Any]:
        """The record in `architecture.json`."""
        record = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        record |= {name: dataclasses.asdict(each) for name, each in record.items() if _is_settings(each)}
        record |= {"architecture": self.architecture.to_json()}
        return json.loads(json.dumps({"version": VERSION, "task": self.TASK} | record))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """The value of a record that `to_json` made. Raises S3Error where the record is not one."""
        fields = {field.name for field in dataclasses.fields(cls)}
        needed = fields - {"about", *cls.ADDED}
        record = {name: value for name, value in record.items() if name not in ("version", "task")}
        for names, what in ((needed - record.keys(), "has no"), (record.keys() - fields, "has an unknown")):
            if names:
                raise S3Error(f"not the record of a stand-alone network of this version: it {what} {min(names)}")
        try:
            found, about = record["architecture"], About(**record.get("about", {}))
            kept: dict[str, Any] = {
                n: tuple(value) if isinstance(value, list) else value for n, value in record.items()
            }
            return cls(**kept | {"architecture": architecture_from_json(found), "about": about})
        except (TypeError, ValueError) as error:
            raise S3Error(f"not the record of a stand-alone network: {error!r}") from error


def _is_settings(value: Any) -> TypeGuard[DataclassInstance]:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def spec_of(record: Any) -> Spec:
    """The specification of a record that `Spec.to_json` made, of the class of its task. Raises S3Error."""
    task = task_of(record)
    find = getattr(room_of(task), "spec_class", None)
    if find is None:
        raise S3Error(f"the package of task {task} has no networks by themselves: it has no function spec_class")
    return find().from_json(record)


@dataclasses.dataclass(frozen=True)
class Standalone:
    """A network with its specification."""

    network: Any
    spec: Any  # a Spec; whoever needs more than all have knows of which task it is


def save(folder: AnyPath, model: Standalone) -> None:
    """Write a network's folder, the record at the end: a folder without is none.

    Raises S3Error where it cannot, and for weights that are not finite.
    """
    tensors = model.spec.state_dict(model.network)
    check_finite(tensors)
    try:
        (folder / RECORD).unlink(missing_ok=True)  # an older one would not tell of these weights
    except OSError as error:
        raise S3Error(f"cannot write to {folder}: {error.strerror or error}; choose another folder") from error
    write_safetensors(folder / WEIGHTS, tensors, {"format": "pt"})
    save_card(folder, model.spec)


def save_card(folder: AnyPath, spec: Spec) -> None:
    """Write all of a network's folder but its weights. Raises S3Error where it cannot be written."""
    write_whole(folder / CARD, card(spec))
    write_whole(folder / RECORD, json.dumps(sealed(spec.to_json()), indent=1) + "\n")


def _advice(folder: AnyPath) -> str:
    """What to do about the folder of a run, or whatever else is no network's."""
    if (folder / "network" / RECORD).is_file():
        return f", but of a run; its network is {folder / 'network'}"
    if (folder / "space_0").is_dir():
        return ", but of a search; extract_subnet.py takes networks out of it"
    return "; extract_subnet.py, finetune.py and runs of one network write such"


def load(folder: AnyPath, *, dtype: str = "float32") -> Standalone:
    """The network of a folder that `save` wrote. Raises S3Error where it is none, or incomplete."""
    path = folder / RECORD
    if not path.is_file():
        raise S3Error(f"{folder} holds no {RECORD}: it is not the folder of a network{_advice(folder)}")
    try:
        spec = spec_of(read_record(folder))
        network = nnx.eval_shape(lambda: spec.build(dtype=dtype))
    except (ArithmeticError, MemoryError, S3Error, TypeError, ValueError) as error:
        raise S3Error(f"{path}: {error}") from error
    tensors = read_state_dict(folder / WEIGHTS)
    try:
        spec.set_weights(network, tensors)
    except S3Error as error:
        raise S3Error(f"{folder / WEIGHTS}: {error}") from error
    return Standalone(network, spec)


def card(spec: Spec) -> str:
    """The model card, in markdown."""
    counted = spec.cost
    rows = [
        ("architecture", family_of(spec.architecture).describe(spec.architecture)),
        *spec.card_rows(),
        ("classes", f"{len(spec.class_names):,}"),
        ("parameters", f"{counted.params:,}"),
        ("multiply-adds of one image", f"{counted.macs / 1e6:,.4g} M"),
        ("trained on", spec.about.data or "not recorded"),
        ("recipe", spec.about.recipe or "not recorded"),
        (spec.SCORE, spec.about.accuracy or "not measured"),
        ("licence of the weights", spec.about.licence or "that of their source; not recorded"),
    ]
    table = "\n".join(f"| {name} | {printable(value)} |" for name, value in rows)
    return (
        f"# A vision transformer of s3_jax\n\n| | |\n| --- | --- |\n{table}\n\n"
        '```python\nfrom s3_jax.networks import zoo\n\nmodel = zoo.load("THIS FOLDER")\n'
        f"{spec.ANSWER}\n```\n\n"
        f"`{WEIGHTS}` has {spec.NAMES} names and shapes; `{RECORD}` tells every block, and the preprocessing.\n"
    )
