"""Every setting of a run as frozen dataclasses; a field's comment gives its unit and where its default comes from.

Here are those that all tasks share; a task has its own in its package, as a class `Config` that inherits from this one.
Configuration files return `default_config()` with some fields changed, as ml_collections expect, and `main` turns the
result into a `Config` at the door: a misspelt key is an error that lists the right ones. "The paper does not say" marks
the choices that the paper leaves open.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Annotated, Any

import ml_collections

from s3_jax.errors import S3Error
from s3_jax.evolution import EvolutionConfig
from s3_jax.limits import (
    BelowOne,
    Count,
    CountOrNone,
    Limit,
    NotNegative,
    SettingError,
    check_fields,
    each,
    number,
    one_of,
    require,
    whole,
)
from s3_jax.mapping import UnknownField, converted, from_mapping
from s3_jax.search import SearchConfig
from s3_jax.space import DIMENSIONS, Architecture, Block, SearchSpace, Stage, StageSpace

DTYPES = ("float32", "bfloat16")
_SHORT_DTYPES = {"fp32": "float32", "f32": "float32", "bf16": "bfloat16"}
ON_BAD_IMAGE = ("error", "skip")

# Of RGB in [0, 1].
_Means = Annotated[tuple[float, float, float], each(number(0, 1))]
_Deviations = Annotated[tuple[float, float, float], each(number(0, 1, above=True))]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What every network of a run shares."""

    image_size: Annotated[int, whole(1, 16_384)] = 224  # pixels, both sides
    patch_size: Count = 4  # pixels; 1 to 4 for small images
    dtype: Annotated[str, one_of(*DTYPES)] = "float32"  # computation; parameters, softmax and norms stay float32
    kernel_std: Annotated[float, number(0, 1)] = (
        0.02  # of initial weights (Swin's; the paper does not say); 0: 1 / sqrt(fan-in)
    )
    every_width: bool = False  # compile a supernet's blocks for every embed_dim: less work a step, longer compilation
    remat: bool = False  # recompute single networks' blocks in the backward pass: less memory, a third more work

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", _SHORT_DTYPES.get(self.dtype, self.dtype))
        check_fields(self, "model")


def _up_to(most: int) -> Limit:
    """Choices of every stage that are at most this; `SearchSpace` checks everything else about them."""
    expected = f"choices of at most {most:,}"
    return Limit(expected, lambda stages: not any(choice > most for stage in stages for choice in stage))


@dataclasses.dataclass(frozen=True)
class SpaceConfig:
    """The initial space, per stage a tuple of choices (paper Sec. 4.1, "Space searching")."""

    depth: Annotated[tuple[tuple[int, ...], ...], _up_to(1_000)] = ((2, 3, 4),) * 4  # blocks
    embed_dim: Annotated[tuple[tuple[int, ...], ...], _up_to(100_000)] = ((224, 256, 288),) * 4  # channels
    window: Annotated[tuple[tuple[int, ...], ...], _up_to(10_000)] = ((7, 14),) * 4  # tokens, one side
    mlp_ratio: Annotated[tuple[tuple[float, ...], ...], _up_to(1000)] = ((3.0, 3.5, 4.0),) * 4
    qkv_dim: Annotated[tuple[tuple[int, ...], ...], _up_to(100_000)] = (
        (224, 256, 288),
    ) * 4  # channels, multiples of 32

    def __post_init__(self) -> None:
        check_fields(self, "space")
        self.build()

    def build(self) -> SearchSpace:
        """The space itself. Raises S3Error where stages differ in number or a choice cannot be built."""
        counts = {name: len(getattr(self, name)) for name in DIMENSIONS}
        if len(set(counts.values())) != 1:
            raise S3Error(f"config.space: every dimension needs one tuple of choices per stage, got {counts}")
        per_stage = zip(*(getattr(self, name) for name in DIMENSIONS), strict=True)
        return SearchSpace(tuple(StageSpace(*(tuple(choices) for choices in stage)) for stage in per_stage))


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """The one network that a run trains on its task; where none is given, the run searches a space.

    A model, or else an architecture by its stages, each of which has one number for all of its blocks.
    """

    model: str = ""  # a published model's name, or the folder of a network
    weights: str = ""  # of a published model: a file, or hf-hub:owner/name
    from_scratch: bool = False  # begin with random weights all the same, to compare with
    depth: Annotated[tuple[int, ...], each(whole(1, 1_000))] = ()  # blocks
    embed_dim: Annotated[tuple[int, ...], each(whole(1, 100_000))] = ()  # channels
    window: Annotated[tuple[int, ...], each(whole(1, 10_000))] = ()  # tokens, one side
    mlp_ratio: Annotated[tuple[float, ...], each(number(0, 1_000, above=True))] = ()
    qkv_dim: Annotated[tuple[int, ...], each(whole(1, 100_000))] = ()  # channels, multiples of 32

    def __post_init__(self) -> None:
        check_fields(self, "backbone")
        lengths = {name: len(getattr(self, name)) for name in DIMENSIONS}
        if len(set(lengths.values())) != 1:
            raise SettingError("backbone", f"every dimension needs one value for each stage, got {lengths}")
        if self.model and self.depth:
            raise SettingError("backbone", f"model = {self.model!r} has its own depth: leave out one of them")
        if self.weights and not self.model:
            raise SettingError("backbone", f"weights = {self.weights!r}: expected the name of their model as model too")

    @property
    def is_given(self) -> bool:
        """Whether the run trains this network instead of searching."""
        return bool(self.model or self.depth)

    def architecture(self) -> Architecture:
        """The architecture of the stages that are given. Raises S3Error where it cannot be."""
        stages = zip(*(getattr(self, name) for name in DIMENSIONS), strict=True)
        return Architecture(
            tuple(
                Stage(embed_dim, (Block(window, mlp_ratio, qkv_dim),) * depth)
                for depth, embed_dim, window, mlp_ratio, qkv_dim in stages
            )
        )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the data are and which of them serve what, as far as all tasks have it."""

    path: str = ""  # where the data lie; what is expected there, the task says
    train_split: str = "train"
    test_split: str = "test"  # used once, at the end
    # Of train, kept out of training for E-T Error and search; the paper does not say.
    holdout_fraction: Annotated[float, number(0, 1, above=True, below=True)] = 0.1
    holdout_split: str = ""  # "" | a split that E-T Error and search use instead (the paper's own protocol: "test")
    # Of train, kept out of all training, slopes and search, for E-T Errors by which nothing is chosen; 0: none.
    judge_fraction: Annotated[float, number(0, 1, below=True)] = 0.0
    num_workers: Annotated[int, whole(0, 1024)] = 0  # loader processes; the batches do not depend on it
    cache_in_memory: bool = False  # keep decoded images, 3 bytes a pixel, from their first use on (in every worker)
    on_bad_image: Annotated[str, one_of(*ON_BAD_IMAGE)] = "error"  # skip: leave unreadable images out and count them
    mean: _Means = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; ImageNet's
    std: _Deviations = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        check_fields(self, "data")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training: of a supernet (paper Sec. 4.1), or of a single network."""

    epochs: Annotated[float, number(0, 1e6, above=True)] = 300.0
    batch_size: Count = 1024  # images per update, over all devices and accumulation steps
    learning_rate: NotNegative = 1e-3  # at the peak
    min_learning_rate: NotNegative = 1e-5  # where it ends
    # How the rate falls: along a cosine from the end of the warm-up on; or along a line from the first update on, of
    # which the warm-up has a growing share (mmsegmentation's "poly" of power 1); or in steps, to a tenth at the end of
    # each epoch of `drop_epochs`, and no lower than the minimum.
    schedule: Annotated[str, one_of("cosine", "linear", "steps")] = "cosine"
    drop_epochs: Annotated[tuple[float, ...], each(number(0, 1e6, above=True))] = ()
    warmup_epochs: Annotated[float, number(0, 1e6)] = 20.0
    weight_decay: NotNegative = 0.05
    decay_norms_and_biases: bool = False  # also norms, biases and bias tables; the paper does not say
    beta2: BelowOne = 0.999
    clip_norm: NotNegative = 0.0  # of the global gradient; 0 is off; the paper does not say
    accumulation_steps: Count = 1  # parts of a batch that are computed one after the other
    ema_decay: BelowOne = 0.0  # of the averaged weights that evaluation uses; 0 is off; the paper does not say
    drop_path: BelowOne = 0.2  # stochastic depth at the last block, rising linearly from 0 at the first
    # Whose weights every supernet begins with, where the two overlap: the folder of a network, or a published model's
    # name. "": random ones. The weights' values are part of a run; those of another network are another run.
    init_from: str = ""
    init_weights: str = ""  # of a published model: a file, or hf-hub:owner/name

    def __post_init__(self) -> None:
        check_fields(self, "train")
        if self.init_weights and not self.init_from:
            name = f"init_weights = {self.init_weights!r}"
            raise SettingError("train", f"{name}: expected the name of their published model as init_from too")
        if bool(self.drop_epochs) != (self.schedule == "steps"):
            name = f"schedule = {self.schedule!r} and drop_epochs = {self.drop_epochs!r}"
            raise SettingError("train", f"{name}: expected drop_epochs with schedule = 'steps', and with no other")
        falls = Limit(f"at most learning_rate = {self.learning_rate:g}", lambda rate: rate <= self.learning_rate)
        require("train", "min_learning_rate", self.min_learning_rate, falls)


@dataclasses.dataclass(frozen=True)
class RetrainConfig:
    """Training of the best architectures on all of train; what is not here is as in TrainConfig."""

    all_spaces: bool = False  # the best of every space, not only of the last
    # Start from the inherited weights; otherwise from scratch (paper Fig. 5), or, where config.train.init_from is
    # given, from its weights, where the two overlap.
    from_supernet: bool = True
    train: TrainConfig = TrainConfig()

    def __post_init__(self) -> None:
        if self.train.init_from:
            problem = (
                f"train.init_from = {self.train.init_from!r}: expected none, as config.train.init_from serves here too"
            )
            raise SettingError("retrain", problem)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How a run is executed and recorded; may be changed when a run is taken up again."""

    eval_batch_size: Count = 1024  # images, over all devices
    checkpoint_every: Count = 1000  # updates
    keep_checkpoints: Count = 2
    log_every: Count = 50  # updates
    # Updates between evaluations of what is trained on the holdout, for the log alone; 0 is off. None where the holdout
    # is itself trained on, as by retraining without data.holdout_split.
    evaluate_every: CountOrNone = 0
    num_devices: CountOrNone = 0  # 0: all that there are
    shard_parameters: bool = False  # split parameters, optimizer state and averages over the devices while training
    tensorboard: bool = True
    wandb_project: str = ""  # "" is off; needs the extra s3_jax[wandb]

    def __post_init__(self) -> None:
        check_fields(self, "run")


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run that do not depend on its task. A task adds blocks, and fields to `data`, by inheritance.

    Every field has a default, so that `default_config` can tell what there is to change.
    """

    seed: Annotated[int, whole(0, 2**32 - 1)] = 0  # JAX keeps no more bits of it
    task: str = "s3_jax.classification"  # the package that has the task, by its `open_task`; one of yours will do
    model: ModelConfig = ModelConfig()
    backbone: BackboneConfig = BackboneConfig()
    space: SpaceConfig = SpaceConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
    evolution: EvolutionConfig = EvolutionConfig()
    search: SearchConfig = SearchConfig()
    retrain: RetrainConfig = RetrainConfig()
    run: RunConfig = RunConfig()

    def __post_init__(self) -> None:
        check_fields(self, "config")


def room_of(task: str) -> ModuleType:
    """The package that has a task. Raises S3Error where there is none of that name, or it has no `open_task`."""
    try:
        room = importlib.import_module(task)
    except (ImportError, TypeError, ValueError) as error:
        raise S3Error(f"config.task = {task!r}: {error}; expected one like {Config.task}") from error
    if not hasattr(room, "open_task"):
        raise S3Error(f"config.task = {task!r}: it has no function open_task, as {Config.task} has")
    return room


def config_class(task: str) -> type[Config]:
    """The class of a task's settings: `Config` of its package, or, where it has none, that of all tasks.

    Raises S3Error as `room_of` does.
    """
    kind = getattr(room_of(task), "Config", Config)
    return kind if isinstance(kind, type) and issubclass(kind, Config) else Config


def default_config(task: str = Config.task) -> ml_collections.ConfigDict:
    """The defaults of a task, the paper's where it gives one, as a locked ConfigDict for a configuration file.

    Raises S3Error where there is no such task.
    """
    return ml_collections.ConfigDict(dataclasses.asdict(config_class(task)(task=task)), convert_dict=True)


def config_of(settings: Mapping[str, Any]) -> Config:
    """The whole settings of a run, of the class that the task they name has.

    Raises S3Error where there is no such task, and for a key, type or value that does not fit.
    """
    task = converted(str, settings.get("task", Config.task), "config.task")
    try:
        return from_mapping(config_class(task), settings)
    except UnknownField as error:  # perhaps of another task, whose configuration file was given with --config.task
        raise S3Error(f"{error} (those of the task {task}, as default_config({task!r}) makes them)") from error
