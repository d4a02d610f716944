"""What predict.py and evaluate.py do with detectors: pictures of objects, and average precision on a data set."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console

from s3_jax.commands import DataOptions, Flag, Measured, check_results
from s3_jax.data.pictures import encoded, name_of
from s3_jax.detection.config import DetectionDataConfig
from s3_jax.errors import S3Error, listed
from s3_jax.paths import AnyPath, printable, user_path
from s3_jax.progress import progress_bar
from s3_jax.writing import write_whole

if TYPE_CHECKING:
    from s3_jax.data.splits import Subset
    from s3_jax.detection.inference import Found
    from s3_jax.detection.objects import Categories, Line
    from s3_jax.detection.standalone import DetectionSpec
    from s3_jax.networks.standalone import Standalone
    from s3_jax.task import Metrics


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """Where pictures go, and what is in them. Raises S3Error for values that are none."""

    out: Annotated[str, Flag("Folder for pictures.")] = ""
    least_score: Annotated[float, Flag("Of what is drawn and told, 0 to 1.", least=0.0)] = 0.5

    def __post_init__(self) -> None:
        if not self.out:
            raise S3Error("a detector answers with pictures: give a folder for them with --out")
        if not 0 <= self.least_score <= 1:
            raise S3Error(f"--least_score={self.least_score}: expected a number from 0 to 1")


@dataclasses.dataclass(frozen=True)
class EvaluateOptions(DataOptions):
    """The images with objects that a detector is measured on. Raises S3Error for values that are none."""

    source: Annotated[str, Flag("coco or scenes.")] = "coco"
    annotations: Annotated[str, Flag("The file of annotations below --path; {split} is the split's name.")] = (
        "annotations/instances_{split}.json"
    )
    images: Annotated[str, Flag("The folder of images below --path; {split} is the split's name.")] = "{split}"
    batch: Annotated[int, Flag("Images at a time.", least=1)] = 2
    results: Annotated[str, Flag("A file to write what is found to, in COCO's form.")] = ""

    def __post_init__(self) -> None:
        self.data_config()

    def data_config(self) -> DetectionDataConfig:
        """The data set."""
        return DetectionDataConfig(
            source=self.source,
            path=self.path,
            annotations_file=self.annotations,
            images_folder=self.images,
            on_bad_image=self.on_bad_image,
        )


def predict(model: Standalone, paths: Sequence[AnyPath], options: PredictOptions, *, as_json: bool) -> int:
    """Write the pictures of images, and print where they are, with what is found.

    Returns the exit code, 2 where a file is no image. Raises S3Error where the network's answers are not finite, or a
    picture cannot be written.
    """
    from s3_jax.detection import inference

    out, code = user_path(options.out), 0
    for number, found in enumerate(inference.predict(model, paths)):
        if isinstance(found, str):
            print(f"predict: {found}", file=sys.stderr)
            code = 2
            continue
        name = name_of(found.path, number, len(paths))
        kept = _at_least(found, options.least_score)
        overlay = _write_picture(model.spec, kept, out / f"{name}_objects.png")
        record = _record(model.spec, kept, number) | {"overlay": printable(overlay)}
        print(json.dumps(record) if as_json else _line(record, model.spec))
    return code


def _at_least(found: Found, score: float) -> Found:
    kept = [number for number, each in enumerate(found.scores) if each >= score]
    objects = {name: getattr(found, name)[kept] for name in ("boxes", "scores", "labels")}
    return found._replace(**objects, masks=[found.masks[number] for number in kept])


def _write_picture(spec: DetectionSpec, found: Found, path: AnyPath) -> AnyPath:
    from s3_jax.detection import pictures

    objects = (found.pixels, found.boxes, found.labels, found.masks)
    picture = pictures.drawn(*objects, spec.class_names, found.scores.tolist())
    write_whole(path, encoded(picture))
    return path


def _record(spec: DetectionSpec, found: Found, number: int) -> Line:
    """An image, of the id `number`, and what is found in it, as COCO's images and results have them."""
    from s3_jax.detection.objects import Categories
    from s3_jax.detection.results import results_of

    height, width = found.pixels.shape[:2]
    image = {"id": number, "file_name": printable(found.path), "height": height, "width": width}
    categories = Categories(spec.category_ids, spec.class_names)
    results = results_of(image, found.boxes, found.scores, found.labels, found.masks, categories)
    return {"image": image, "results": results}


def _line(record: Mapping[str, Any], spec: DetectionSpec) -> str:
    """How often each class is found, the most frequent first, and the picture."""
    ids = [result["category_id"] for result in record["results"]]
    names = dict(zip(spec.category_ids, spec.class_names, strict=True))
    counts = sorted({each: ids.count(each) for each in ids}.items(), key=lambda pair: -pair[1])
    found = ", ".join(f"{count} {printable(names[each])}" for each, count in counts) or "nothing"
    return f"{record['image']['file_name']}: {found}; {record['overlay']}"


def evaluate(model: Standalone, options: EvaluateOptions) -> Measured:
    """AP of boxes and masks, by size and by class, and a file of what is found where one is asked for.

    With that file of images without any object the results alone. Raises S3Error for data that are missing, or of other
    classes, and without that file for images that have no object.
    """
    from s3_jax.detection.dataset import check_counted, open_split
    from s3_jax.detection.evaluation import any_counted, metrics_of_lines

    check_results(options.results)
    data = open_split(options.data_config(), options.split)
    _check_categories(model.spec, data.categories)
    if not options.results:
        check_counted(data.splits.test)
    lines = _found_in(model, data.splits.test, options)
    names = {"data": printable(data.name), "split": printable(options.split), "images": len(lines)}
    if options.results and not any_counted(lines):
        where = f"what is found is in {printable(options.results)}"
        return Measured(names, f"no image has an object that counts, so there is no AP; {where}")
    metrics = metrics_of_lines(lines, data.categories)
    return Measured(names | metrics, _rows(metrics, data.categories))


def _found_in(model: Standalone, subset: Subset, options: EvaluateOptions) -> list[Line]:
    """The images' records, the results of which are written where a file is asked for."""
    from s3_jax.detection import inference
    from s3_jax.detection.results import all_results

    with progress_bar(Console(stderr=True), "images", len(subset)) as advance:
        lines = inference.lines_of_split(
            model, subset, options.data_config(), batch_size=options.batch, progress=advance
        )
    if options.results:
        write_whole(user_path(options.results), json.dumps(all_results(lines)))
    return lines


def _check_categories(spec: DetectionSpec, data: Categories) -> None:
    network = set(zip(spec.category_ids, spec.class_names, strict=True))
    if set(zip(data.ids, data.names, strict=True)) != network:
        known, given = (
            listed(f"{number} {name}" for number, name in zip(*each, strict=True))
            for each in ((spec.category_ids, spec.class_names), (data.ids, data.names))
        )
        raise S3Error(f"the network's categories are {known}, and the data's {given}: give those of the network")


def _rows(metrics: Metrics, categories: Categories) -> str:
    """A table: a line for each metric and each class, with the precision of boxes and of masks."""
    names = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", *(f"ap/{name}" for name in categories.names)]
    there = [name for name in names if f"box/{name}" in metrics]
    shown = {name: printable(name.removeprefix("ap/")) for name in there}
    width = max(map(len, shown.values()))
    rows = [f"{'':{width}}    box %   mask %"]
    return "\n".join(
        [*rows, *(f"{shown[name]:{width}}  {metrics[f'box/{name}']:7.2f}  {_of_mask(metrics, name)}" for name in there)]
    )


def _of_mask(metrics: Metrics, name: str) -> str:
    return f"{metrics[f'mask/{name}']:7.2f}" if f"mask/{name}" in metrics else ""
