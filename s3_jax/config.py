"""Every setting of a run as frozen dataclasses; a field's comment gives its unit and where its default comes from.

Configuration files return `default_config()` with some fields changed, as ml_collections expect, and `main` turns the
result into a `Config` at the door: a misspelt key is an error that lists the right ones. "The paper does not say" marks
the choices that the paper leaves open.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import ml_collections

from s3_jax.errors import S3Error
from s3_jax.evolution import EvolutionConfig
from s3_jax.search import SearchConfig
from s3_jax.space import DIMENSIONS, SearchSpace, StageSpace

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What every network of a run shares."""

    image_size: int = 224  # pixels, both sides
    patch_size: int = 4  # pixels; 1 to 4 for small images
    dtype: str = "float32"  # computation: float32 or bfloat16; parameters, softmax and norms stay float32
    kernel_std: float = 0.02  # of initial weights (Swin's; the paper does not say); 0: 1 / sqrt(fan-in)
    every_width: bool = False  # compile a supernet's blocks for every embed_dim: less work a step, longer compilation
    remat: bool = False  # recompute single networks' blocks in the backward pass: less memory, a third more work


@dataclasses.dataclass(frozen=True)
class SpaceConfig:
    """The initial space, per stage a tuple of choices (paper Sec. 4.1, "Space searching")."""

    depth: tuple[tuple[int, ...], ...] = ((2, 3, 4),) * 4  # blocks
    embed_dim: tuple[tuple[int, ...], ...] = ((224, 256, 288),) * 4  # channels
    window: tuple[tuple[int, ...], ...] = ((7, 14),) * 4  # tokens, one side
    mlp_ratio: tuple[tuple[float, ...], ...] = ((3.0, 3.5, 4.0),) * 4
    qkv_dim: tuple[tuple[int, ...], ...] = ((224, 256, 288),) * 4  # channels, multiples of 32

    def build(self) -> SearchSpace:
        """The space itself. Raises S3Error where stages differ in number or a choice cannot be built."""
        counts = {name: len(getattr(self, name)) for name in DIMENSIONS}
        if len(set(counts.values())) != 1:
            raise S3Error(f"config.space: every dimension needs one tuple of choices per stage, got {counts}")
        per_stage = zip(*(getattr(self, name) for name in DIMENSIONS), strict=True)
        return SearchSpace(tuple(StageSpace(*(tuple(choices) for choices in stage)) for stage in per_stage))


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the images are and which of them serve what."""

    source: str = "digits"  # digits | tfds | image_folder
    path: str = ""  # image_folder: the folder; tfds: a prepared folder, or data_dir for a set given by name
    name: str = ""  # tfds: the data set's name, if path is not itself a prepared folder
    train_split: str = "train"
    test_split: str = "test"  # used once, at the end
    holdout_fraction: float = 0.1  # of each class of train, kept for E-T Error and search; the paper does not say
    holdout_split: str = ""  # "" | a split that E-T Error and search use instead (the paper's own protocol: "test")
    num_workers: int = 0  # loader processes; the batches do not depend on it
    cache_in_memory: bool = False  # keep decoded images, 3 bytes a pixel, from their first use on (in every worker)
    on_bad_image: str = "error"  # error | skip: leave unreadable images out and count them
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of RGB in [0, 1]; ImageNet's
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    eval_crop: float = 0.9  # share of the resized image's side that evaluation's centre crop keeps (timm); 1: all of it


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """Training augmentation; the defaults are DeiT's, which the paper follows (Sec. 4.1, "Supernet training").

    But for one: DeiT repeats every image 3 times, and `repeats` is off here, since the paper does not say.
    """

    random_resized_crop: bool = True
    crop_scale: tuple[float, float] = (0.08, 1.0)  # share of the image's area
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width over height
    pad_crop: int = 0  # pixels of zero padding before a random crop, for small images; 0 is off
    horizontal_flip: float = 0.5  # probability
    color_jitter: float = 0.0  # strength; timm switches it off where RandAugment is on
    rand_augment_layers: int = 2  # operations per image (m9-mstd0.5-inc1); 0 is off
    rand_augment_magnitude: float = 9.0  # of 10
    rand_augment_magnitude_std: float = 0.5
    random_erasing: float = 0.25  # probability
    mixup: float = 0.8  # alpha of the Beta distribution; 0 is off
    cutmix: float = 1.0  # alpha of the Beta distribution; 0 is off
    mix_switch: float = 0.5  # probability of cutmix where both are on
    label_smoothing: float = 0.1
    # Views of an image that an epoch trains on, of a part of the images that is as many times smaller and new in every
    # epoch: repeated augmentation (Hoffer et al., 2020; DeiT's RASampler has 3). 1 is off; the paper does not say.
    repeats: int = 1


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training: of a supernet (paper Sec. 4.1), or of a single network."""

    epochs: float = 300.0
    batch_size: int = 1024  # images per update, over all devices and accumulation steps
    learning_rate: float = 1e-3  # at the peak
    min_learning_rate: float = 1e-5  # where the cosine ends
    warmup_epochs: float = 20.0
    weight_decay: float = 0.05
    decay_norms_and_biases: bool = False  # also norms, biases and bias tables; the paper does not say
    beta2: float = 0.999
    clip_norm: float = 0.0  # of the global gradient; 0 is off; the paper does not say
    accumulation_steps: int = 1  # parts of a batch that are computed one after the other
    ema_decay: float = 0.0  # of the averaged weights that evaluation uses; 0 is off; the paper does not say
    drop_path: float = 0.2  # stochastic depth at the last block, rising linearly from 0 at the first


@dataclasses.dataclass(frozen=True)
class RetrainConfig:
    """Training of the best architectures on all of train; what is not here is as in TrainConfig."""

    all_spaces: bool = False  # the best of every space, not only of the last
    from_supernet: bool = True  # start from the inherited weights; otherwise from scratch (paper Fig. 5)
    train: TrainConfig = TrainConfig()


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How a run is executed and recorded; may be changed when a run is taken up again."""

    eval_batch_size: int = 1024  # images, over all devices
    checkpoint_every: int = 1000  # updates
    keep_checkpoints: int = 2
    log_every: int = 50  # updates
    num_devices: int = 0  # 0: all that there are
    shard_parameters: bool = False  # split parameters, optimizer state and averages over the devices while training
    tensorboard: bool = True
    wandb_project: str = ""  # "" is off; needs the extra s3_jax[wandb]


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run."""

    seed: int = 0
    model: ModelConfig = ModelConfig()
    space: SpaceConfig = SpaceConfig()
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    evolution: EvolutionConfig = EvolutionConfig()
    search: SearchConfig = SearchConfig()
    retrain: RetrainConfig = RetrainConfig()
    run: RunConfig = RunConfig()

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise S3Error(f"config.seed = {self.seed}; a seed is a whole number from 0 on")


def default_config() -> ml_collections.ConfigDict:
    """The defaults of `Config`, the paper's where it gives one, as a locked ConfigDict for a configuration file."""
    return ml_collections.ConfigDict(dataclasses.asdict(Config()), convert_dict=True)


def from_mapping(kind: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """A (nested) dataclass of `kind` from a mapping. Raises S3Error for a key or a type that does not fit."""
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise S3Error(f"{where} has no field {', '.join(map(repr, unknown))}; its fields are {', '.join(fields)}")
    types = typing.get_type_hints(kind)
    return kind(**{name: _convert(types[name], value, f"{where}.{name}") for name, value in values.items()})


def to_mapping(config: Config) -> dict[str, Any]:
    """The settings as nested dicts that JSON keeps unchanged."""
    return _listed(dataclasses.asdict(config))


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (tuple, list)) else value


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return from_mapping(typing.cast(type, kind), value, where)
    if typing.get_origin(kind) is tuple:
        return _convert_tuple(typing.get_args(kind), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise S3Error(f"{where} = {value!r}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _convert_tuple(kinds: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (tuple, list)):
        raise S3Error(f"{where} = {value!r}: expected a tuple")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise S3Error(f"{where} = {value!r}: expected {len(kinds)} values, got {len(value)}")
    return tuple(
        _convert(kind, item, f"{where}[{index}]") for index, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )
