"""timm's models in a comparison. PyTorch and timm are loaded where one is named, and are of no use to anything else."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from s3_jax.classification.batches import LabelledImages
from s3_jax.classification.config import ClassificationConfig
from s3_jax.classification.inference import Accuracy
from s3_jax.classification.task import of_classes
from s3_jax.comparison.model import Opened, Preprocessing
from s3_jax.comparison.published import ROWS, TIMM
from s3_jax.config import ModelConfig
from s3_jax.cost import Cost
from s3_jax.data.splits import Subset
from s3_jax.errors import S3Error, first_line, listed
from s3_jax.finetune import training
from s3_jax.networks.classes import match
from s3_jax.networks.convert import check_finite, without_prefixes
from s3_jax.networks.files import StateDict, read_state_dict
from s3_jax.networks.hub import fetch
from s3_jax.paths import AnyPath
from s3_jax.progress import Advance
from s3_jax.training.loop import StopRequest
from s3_jax.writing import checksum_of

if TYPE_CHECKING:
    from torch import nn


def check_installed() -> None:
    """Raises S3Error, telling what to install, where PyTorch and timm cannot be loaded."""
    try:
        import timm  # noqa: F401 - whether it can be loaded is asked
        import torch  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise S3Error(
            f"models of timm's need PyTorch and timm, which cannot be loaded ({error}): pip install -e .[parity], best "
            "in an environment of its own, as they take 6 GB; or leave these models out"
        ) from error


@dataclasses.dataclass(frozen=True)
class TimmModel:
    """A model by timm's name, after "timm:". Raises S3Error where timm is not installed, or has no such model."""

    name: str

    def __post_init__(self) -> None:
        check_installed()
        import timm

        if not timm.is_model(self._known_as):
            near = difflib.get_close_matches(self._known_as, timm.list_models(), n=5, cutoff=0.5)
            own = ", ".join(name for name in ROWS if name.startswith(TIMM))
            more = f"; near it are {', '.join(TIMM + name for name in near)}" if near else ""
            raise S3Error(f"timm {timm.__version__} has no model {self._known_as!r}. Of Table 1 there are {own}{more}")

    @property
    def _known_as(self) -> str:
        return self.name.removeprefix(TIMM)

    def settings(self, config: ClassificationConfig) -> ClassificationConfig:
        """The recipe as it is; model.patch_size, kernel_std and remat are of our networks alone."""
        return config

    def start(self) -> dict[str, Any]:
        """The name."""
        return {"from_scratch": True, "start": {"timm": self._known_as}}

    def cost(self, config: ClassificationConfig, class_names: Sequence[str]) -> Cost:
        """Parameters and multiply-adds under these settings. Raises S3Error where timm cannot make it so."""
        return cost_of(self.build(config, len(class_names)), self.name, config.model.image_size)

    def build(self, config: ClassificationConfig, num_classes: int) -> nn.Module:
        """The network with random weights of the settings' seed, as timm draws them. Raises S3Error as `cost` does."""
        import timm
        import torch

        known = timm.get_pretrained_cfg(self._known_as)
        how: dict[str, Any] = {"num_classes": num_classes}
        if known is not None and known.fixed_input_size:  # the others take images of any size, and no such argument
            how["img_size"] = config.model.image_size
        if config.train.drop_path:
            how["drop_path_rate"] = config.train.drop_path
        torch.manual_seed(config.seed)
        try:
            return timm.create_model(self._known_as, **how)
        except Exception as error:  # every model of timm's raises what it likes
            told = ", ".join(f"{name}={value}" for name, value in how.items())
            raise S3Error(f"{self.name} cannot be made with {told}: {first_line(error)}") from error

    def train(
        self, config: ClassificationConfig, workdir: AnyPath, *, console: Console, stop: StopRequest
    ) -> dict[str, Any]:
        """Train it from random weights, by PyTorch, in one process and on one device."""
        from s3_jax.comparison.timm_training import train_timm

        return training(self.start(), config, workdir, lambda run: train_timm(self, run), console=console, stop=stop)

    def open(self, weights: str) -> Opened:
        """The model with the weights of a file or the hub, which tell the number of classes."""
        import timm

        known = timm.get_pretrained_cfg(self._known_as)
        tensors = without_prefixes(read_state_dict(fetch(weights)))
        check_finite(tensors)
        try:
            network = timm.create_model(self._known_as, num_classes=_num_classes(tensors, known, weights))
        except Exception as error:
            raise S3Error(f"{self.name} cannot be made: {first_line(error)}") from error
        _load(network, tensors, f"{weights} does not fit {self.name}")
        size = max(known.input_size[1:])
        names = tuple(str(index) for index in range(_num_classes(tensors, known, weights)))
        preprocessing = Preprocessing(size, known.mean, known.std, known.crop_pct)

        def accuracy(
            subset: Subset, config: ClassificationConfig, class_names: Sequence[str], progress: Advance
        ) -> Accuracy:
            """Of the network as it is, on images of our own input."""
            from s3_jax.comparison.timm_training import device, metrics_of_timm

            data = preprocessing.data(config)
            classes = match(names, class_names)
            metrics, count = metrics_of_timm(
                network.to(device()),
                of_classes(ModelConfig(size), names, data),
                LabelledImages(subset, data, size, classes=classes),
                config,
                half=False,
                progress=progress,
            )
            return Accuracy(metrics["top1"], metrics["top5"], count)

        checksum = f"crc32 {checksum_of(sorted(tensors.items()))}"
        return Opened(checksum, cost_of(network, self.name, size), preprocessing, names, accuracy)


def cost_of(network: nn.Module, name: str, image_size: int) -> Cost:
    """Parameters, and multiply-adds of convolutions and products of matrices on one image, as `cost.cost` counts them.

    Raises S3Error where the network takes no images of that size.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    network.eval()
    counter = FlopCounterMode(display=False)
    try:
        # Attention as plain products: what is fused into one kernel is not counted on a CPU.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            network(torch.zeros(1, 3, image_size, image_size))
    except Exception as error:  # every model of timm's raises what it likes
        raise S3Error(f"{name} takes no images of {image_size} pixels: {first_line(error)}") from error
    params = sum(parameter.numel() for parameter in network.parameters())
    return Cost(params, counter.get_total_flops() // 2)


def _num_classes(tensors: StateDict, known: Any, weights: str) -> int:
    classifier = known.classifier if known is not None else ""
    name = f"{classifier if isinstance(classifier, str) else classifier[0]}.weight"
    if name not in tensors:
        raise S3Error(f"{weights} has no classifier, which timm would call {name}: it cannot name classes")
    return len(tensors[name])


def _load(network: nn.Module, tensors: Mapping[str, np.ndarray], problem: str) -> None:
    """Put weights into a network. Raises S3Error, beginning with `problem`, where names or shapes are others."""
    import torch

    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    for names, what in ((wanted.keys() - tensors.keys(), "lacks"), (tensors.keys() - wanted.keys(), "has a surplus")):
        if names:
            raise S3Error(f"{problem}: it {what} {listed(names)}")
    others = [name for name, shape in wanted.items() if tensors[name].shape != shape]
    if others:
        first = others[0]
        raise S3Error(f"{problem}: {first} has the shape {tensors[first].shape}, expected {wanted[first]}")
    plain = {
        name: tensor.astype(np.int64 if tensor.dtype.kind in "iu" else np.float32) for name, tensor in tensors.items()
    }
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in plain.items()})
