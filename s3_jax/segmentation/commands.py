"""What predict.py and evaluate.py do with segmentation networks: pictures of classes, and metrics on a data set."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from s3_jax.commands import DataOptions, Flag, Measured, metric_rows
from s3_jax.data.pictures import encoded, name_of
from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, printable, user_path
from s3_jax.progress import progress_bar
from s3_jax.segmentation import pictures
from s3_jax.segmentation.config import SegmentationDataConfig
from s3_jax.writing import write_whole

if TYPE_CHECKING:
    import numpy as np

    from s3_jax.networks.standalone import Standalone
    from s3_jax.segmentation.standalone import SegmentationSpec


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """Where pictures go. Raises S3Error where that is not said."""

    out: Annotated[str, Flag("Folder for pictures.")] = ""

    def __post_init__(self) -> None:
        if not self.out:
            raise S3Error("a segmentation network answers with pictures: give a folder for them with --out")


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(DataOptions):
    """The images with masks that a network is measured on, and how. Raises S3Error for values that are none."""

    source: Annotated[str, Flag("mask_folder or scenes.")] = "mask_folder"
    images: Annotated[str, Flag("The folder of images below --path.")] = "images"
    masks: Annotated[str, Flag("The folder of masks below --path.")] = "annotations"
    class_table: Annotated[str, Flag("The file with a class in each line.")] = ""
    zero_is_ignored: Annotated[bool | None, Flag("0 in a mask does not count; if not given, as it was trained.")] = None
    ignored_value: Annotated[int, Flag("The value in a mask that does not count.", least=0)] = 255
    scales: Annotated[tuple[str, ...], Flag("Scales of which the probabilities' mean is taken.")] = ()
    flip: Annotated[bool, Flag("Mirrored images too; at scale 1 where no --scales are given.")] = False

    def __post_init__(self) -> None:
        self.data_config()
        self.factors()

    def data_config(self, zero_is_ignored: bool = False) -> SegmentationDataConfig:
        """The data set. zero_is_ignored: whether 0 does not count where the flag does not say."""
        return SegmentationDataConfig(
            source=self.source,
            path=self.path,
            images_folder=self.images,
            masks_folder=self.masks,
            classes=self.class_table,
            zero_is_ignored=zero_is_ignored if self.zero_is_ignored is None else self.zero_is_ignored,
            ignored_value=self.ignored_value,
            on_bad_image=self.on_bad_image,
        )

    def factors(self) -> list[float]:
        """The scales as numbers; none where an image is seen once, as it is."""
        return list(map(_scale, self.scales)) or [1.0] * self.flip


def _scale(text: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0.01 <= scale <= 100:
        raise S3Error(f"--scales has {text!r}; expected numbers from 0.01 to 100, as 0.5,1,1.5")
    return scale


def predict(model: Standalone, paths: Sequence[AnyPath], options: PredictOptions, *, as_json: bool) -> int:
    """Write the pictures of images, and print where they are. Returns the exit code, 2 where a file is no image.

    Raises S3Error where the network's answers are not finite, or a picture cannot be written.
    """
    from s3_jax.segmentation import inference

    out, code = user_path(options.out), 0
    for number, found in enumerate(inference.predict(model, paths)):
        if isinstance(found, str):
            print(f"predict: {found}", file=sys.stderr)
            code = 2
            continue
        path, pixels, classes = found
        overlay = _write_pictures(model.spec, pixels, classes, out / name_of(path, number, len(paths)))
        shares = pictures.shares_of(classes, model.spec.class_names)
        record = {"path": printable(path), "overlay": printable(overlay), "classes": shares}
        print(json.dumps(record) if as_json else _line(record))
    return code


def _write_pictures(spec: SegmentationSpec, pixels: np.ndarray, classes: np.ndarray, begin: AnyPath) -> AnyPath:
    """Two pictures of an image, whose paths begin alike; that of its classes over its pixels is returned."""
    colours = pictures.colours_of(spec.colours, len(spec.class_names))
    overlay, mask = (begin.with_name(f"{begin.name}_{kind}.png") for kind in ("overlay", "classes"))
    write_whole(overlay, encoded(pictures.overlay(pixels, classes, spec.class_names, colours)))
    write_whole(mask, encoded(pictures.as_mask(classes, colours)))
    return overlay


def _line(record: Mapping[str, Any]) -> str:
    """An image's five largest classes in percent, and its picture."""
    shares = list(record["classes"].items())[:5]
    largest = ", ".join(f"{printable(name)} {100 * share:.1f} %" for name, share in shares)
    return f"{record['path']}: {largest}; {record['overlay']}"


def evaluate(model: Standalone, options: EvaluateOptions) -> Measured:
    """mIoU, accuracies and each class's IoU. Raises S3Error for data that are missing, or of other classes."""
    from s3_jax.segmentation import inference
    from s3_jax.segmentation.dataset import open_split

    config = options.data_config(model.spec.zero_is_ignored)
    data = open_split(config, options.split)
    _check_classes(model.spec.class_names, data.table.names)
    subset = data.splits.test
    with progress_bar(Console(stderr=True), "images", len(subset)) as advance:
        if factors := options.factors():
            metrics, count = inference.evaluate_scaled(
                model, subset, config, scales=factors, flip=options.flip, progress=advance
            )
        else:
            metrics, count = inference.evaluate(model, subset, config, batch_size=options.batch, progress=advance)
    names = {"data": printable(data.name), "split": printable(options.split)}
    return Measured(names | {"images": count} | metrics, metric_rows(metrics))


def _check_classes(network: tuple[str, ...], data: tuple[str, ...]) -> None:
    if data == network:
        return
    if len(data) != len(network):
        raise S3Error(f"the network has {len(network):,} classes and the data {len(data):,}: {_listed_alike(network)}")
    place = next(place for place, known in enumerate(network) if data[place] != known)
    raise S3Error(
        f"class {place + 1:,} of {len(data):,} is {printable(network[place])!r} to the network and "
        f"{printable(data[place])!r} in the data: {_listed_alike(network)}"
    )


def _listed_alike(network: tuple[str, ...]) -> str:
    named = printable(", ".join(network[:10])) + (", ..." if len(network) > 10 else "")
    return f"--class_table is to list the network's classes in their order, {named}"
