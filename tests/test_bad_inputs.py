"""Bad images, weights and folders of networks: each is refused in one paragraph, or does no harm. `-s` shows a table.

More of them: a larger ROUNDS.
"""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from bad_inputs import DAMAGES, OTHER, SAME, Tally, altered, cut, emptied, is_another_value, of_another_type, zeroed
from flax import nnx
from labelled_batches import eval_batches
from PIL import Image
from safetensors.numpy import save

from s3_jax.classification import inference
from s3_jax.classification.config import ClassificationDataConfig
from s3_jax.classification.dataset import open_data
from s3_jax.networks import standalone, zoo
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.convert import params_of, to_state_dict
from s3_jax.networks.files import read_state_dict
from s3_jax.networks.standalone import Standalone
from s3_jax.space import Architecture, Block, Stage
from s3_jax.writing import SEAL, unsealed

ROUNDS = 1  # how many inputs there are of each kind, as a multiple
TORCH_FILE = Path(__file__).parent / "torch_checkpoint.pth"
CLASSES = ("cat", "dog", "fox")
SIDE = 8
FORMATS = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "webp": "WEBP", "tiff": "TIFF", "ppm": "PPM"}


def encoded(kind: str, seed: int = 0) -> bytes:
    """A file of a picture of 24 x 20 pixels."""
    rng, out = np.random.default_rng(seed), io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(out, FORMATS[kind])
    return out.getvalue()


@pytest.fixture(scope="module")
def model() -> Standalone:
    architecture = Architecture((Stage(8, (Block(2, 1.0, 32),)), Stage(16, (Block(2, 2.0, 32),))))
    spec = ClassifierSpec(architecture, SIDE, 2, CLASSES, (0.5,) * 3, (0.5,) * 3, eval_crop=1.0)
    return Standalone(spec.build(rngs=nnx.Rngs(0)), spec)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("networks") / "whole"
    standalone.save(folder, model)
    return folder


def bad_images() -> list[tuple[str, str, bytes, bool]]:
    """Name, format, bytes, and whether the picture may be another: where bytes are altered, but not where some lack."""
    rng, cases = np.random.default_rng(0), []
    for kind in FORMATS:
        data = encoded(kind)
        for number in range(2 * ROUNDS):
            cases.append((f"{kind} cut {number}", kind, cut(data, rng), False))
            cases.append((f"{kind} altered {number}", kind, altered(data, rng), True))
            cases.append((f"{kind} header altered {number}", kind, altered(data, rng, 0, 32), True))
            cases.append((f"{kind} zeroed {number}", kind, zeroed(data, rng), True))
        cases.append((f"{kind} empty", kind, b"", False))
    return [*cases, ("text", "png", b"no image\n", False), ("one byte", "jpg", b"\xff", False)]


def test_single_images_are_refused_or_seen_as_they_are(model, tmp_path) -> None:
    tally = Tally("single images")
    for number, (name, kind, data, may_differ) in enumerate(bad_images()):
        path, right = tmp_path / f"{number}.{kind}", tmp_path / f"right.{kind}"
        path.write_bytes(data)
        right.write_bytes(encoded(kind))
        expected = inference.read_image(right, model.spec)

        def compare(pixels: np.ndarray, expected: np.ndarray = expected, may_differ: bool = may_differ) -> str:
            if np.array_equal(pixels, expected):
                return SAME
            fits = pixels.shape == expected.shape and np.isfinite(pixels).all()
            return OTHER if may_differ and fits else "a picture of which a part is missing is taken for whole"

        tally.judge(name, lambda path=path: inference.read_image(path, model.spec), compare, names=str(path))
    tally.check()


def test_the_suffix_of_an_image_does_not_matter(model, tmp_path) -> None:
    tally = Tally("images under another suffix")
    for kind in FORMATS:
        path, right = tmp_path / f"{kind}.{'png' if kind != 'png' else 'jpg'}", tmp_path / f"right.{kind}"
        path.write_bytes(encoded(kind))
        right.write_bytes(encoded(kind))
        expected = inference.read_image(right, model.spec)
        same = lambda pixels, expected=expected: SAME if np.array_equal(pixels, expected) else "other pixels"  # noqa: E731
        tally.judge(kind, lambda path=path: inference.read_image(path, model.spec), same)
    tally.check()


def in_folder(folder: Path, bad: Callable[[Path], None]) -> None:
    """Two splits of two classes of three pictures, one of which is made bad."""
    for split in ("train", "test"):
        for label, name in enumerate(CLASSES[:2]):
            (folder / split / name).mkdir(parents=True)
            for number in range(3):
                (folder / split / name / f"{number}.png").write_bytes(encoded("png", 10 * label + number))
    path = folder / "test" / CLASSES[1] / "1.png"
    path.unlink()
    bad(path)


def seen(folder: Path, on_bad_image: str) -> list[tuple[int, bytes]]:
    """Label and pixels of every image of the test split that counts."""
    config = ClassificationDataConfig(
        source="image_folder", path=str(folder), holdout_fraction=0.34, on_bad_image=on_bad_image, eval_crop=1.0
    )
    test = open_data(config, seed=0).splits.test
    found = []
    for batch in eval_batches(test, data=config, image_size=SIDE, batch_size=4):
        rows = zip(batch["label"], batch["image"], batch["weight"], strict=True)
        found += [(int(label), image.tobytes()) for label, image, weight in rows if weight]
    return found


def make_bad() -> dict[str, Callable[[Path], object]]:
    """Things in the place of an image, each made at a path."""
    rng = np.random.default_rng(1)
    made = {f"{damage.__name__} {i}": damage(encoded("png"), rng) for damage in DAMAGES for i in range(3 * ROUNDS)}
    things: dict[str, Callable[[Path], object]] = {
        name: lambda path, data=data: path.write_bytes(data) for name, data in made.items()
    }
    things["a folder"] = Path.mkdir
    things["a link to nothing"] = lambda path: path.symlink_to("nowhere")
    things["a link to itself"] = lambda path: path.symlink_to(path)
    return things


@pytest.mark.parametrize("on_bad_image", ["error", "skip"])
def test_a_bad_image_in_a_folder_is_named_or_left_out_and_the_others_stay(on_bad_image, tmp_path) -> None:
    tally = Tally(f"folders with a bad image, {on_bad_image}")
    in_folder(tmp_path / "whole", lambda path: path.write_bytes(encoded("png", 11)))
    expected = seen(tmp_path / "whole", "error")
    assert len(expected) == 6
    for number, (name, bad) in enumerate(make_bad().items()):
        in_folder(tmp_path / str(number), bad)

        def compare(found: list[tuple[int, bytes]]) -> str:
            others = [expected[i] for i in range(6) if i != 4]
            rest = [row for row in found if row not in others]
            if [row for row in found if row in others] != others or len(rest) > 1:
                return "other images are seen than those that are whole"
            return OTHER if rest and rest != [expected[4]] else SAME

        names = "1.png" if on_bad_image == "error" and "link" not in name else ""
        tally.judge(name, lambda number=number: seen(tmp_path / str(number), on_bad_image), compare, names=names)
    assert on_bad_image == "error" or not tally.refused, "an image that cannot be read is to be left out"
    tally.check()


def same_tensors(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], may_differ: bool) -> str:
    """SAME, or OTHER where the numbers may be others as long as they are finite, and of the same names and shapes."""
    if found.keys() != expected.keys() or any(found[name].shape != expected[name].shape for name in expected):
        return "other tensors are read than were written"
    if all(np.array_equal(found[name], expected[name]) for name in expected):
        return SAME
    finite = all(np.isfinite(np.asarray(tensor, np.float64)).all() for tensor in found.values())
    return OTHER if may_differ and finite else "other numbers are read than were written"


def weights_of(model: Standalone) -> dict[str, np.ndarray]:
    flat = jax.tree_util.tree_leaves_with_path(params_of(model.network))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}


def bad_safetensors(data: bytes) -> list[tuple[str, bytes, bool]]:
    """Name, bytes, and whether they may be read as other weights: never, since the file has a checksum."""
    rng = np.random.default_rng(2)
    header = 8 + int.from_bytes(data[:8], "little")
    cases = [(f"cut {i}", cut(data, rng), False) for i in range(4 * ROUNDS)]
    cases += [(f"cut in the header {i}", cut(data[:header], rng), False) for i in range(2 * ROUNDS)]
    cases += [(f"header's length altered {i}", altered(data, rng, 0, 8), False) for i in range(3 * ROUNDS)]
    cases += [(f"header altered {i}", altered(data, rng, 8, header), False) for i in range(8 * ROUNDS)]
    cases += [(f"numbers altered {i}", altered(data, rng, header), False) for i in range(4 * ROUNDS)]
    cases += [(f"zeroed {i}", zeroed(data, rng), False) for i in range(4 * ROUNDS)]
    return [*cases, ("empty", b"", False), ("more behind", data + b"more", False)]


def changed_tensors(tensors: dict[str, np.ndarray]) -> list[tuple[str, dict[str, np.ndarray], bool]]:
    """Name, tensors, and whether they may be read as they are."""
    rng, cases = np.random.default_rng(3), []
    for index in rng.permutation(len(tensors))[: 4 * ROUNDS]:
        name = list(tensors)[index]
        rest, tensor = {key: value for key, value in tensors.items() if key != name}, tensors[name]
        bad = np.array(tensor)
        for value in (np.nan, np.inf, -np.inf):
            bad.flat[int(rng.integers(bad.size))] = value
            cases.append((f"{name} with {value}", {**rest, name: bad.copy()}, False))
        cases.append((f"{name} missing", rest, False))
        cases.append((f"{name} renamed", {**rest, f"{name}s": tensor}, False))
        cases.append((f"{name} reshaped", {**rest, name: tensor.reshape(1, 1, *tensor.shape)}, False))
        cases.append((f"{name} one longer", {**rest, name: np.concatenate([tensor, tensor[:1]])}, False))
        cases.append((f"{name} beyond float32", {**rest, name: np.full(tensor.shape, 1e300)}, False))
        cases.append((f"{name} in bfloat16", {**rest, name: tensor.astype(ml_dtypes.bfloat16)}, True))
        cases.append((f"{name} whole numbers", {**rest, name: tensor.astype(np.int64)}, True))
    return [*cases, ("no tensors", {}, False), ("surplus", {**tensors, "more": np.zeros(3, np.float32)}, False)]


def test_weights_in_a_networks_folder_are_refused_or_whole(model, whole, tmp_path) -> None:
    expected, tensors = weights_of(model), to_state_dict(model.network)
    for kind, cases in (
        ("safetensors, bytes", bad_safetensors((whole / standalone.WEIGHTS).read_bytes())),
        ("safetensors, tensors", [(name, save(bad), may) for name, bad, may in changed_tensors(tensors)]),
    ):
        tally = Tally(kind)
        for name, data, may_differ in cases:
            shutil.copytree(whole, tmp_path / "network", dirs_exist_ok=True)
            (tmp_path / "network" / standalone.WEIGHTS).write_bytes(data)
            compare = lambda loaded, may=may_differ: same_tensors(weights_of(loaded), expected, may)  # noqa: E731
            tally.judge(name, lambda: zoo.load(tmp_path / "network"), compare)
        tally.check()


def test_files_of_pytorch_are_refused_or_whole(tmp_path) -> None:
    """A zip has a checksum of every file in it, so no altered number goes unseen."""
    rng, data, tally = np.random.default_rng(4), TORCH_FILE.read_bytes(), Tally("PyTorch files")
    expected = read_state_dict(TORCH_FILE)
    directory = data.index(b"PK\x01\x02")
    cases = [(f"{damage.__name__} {i}", damage(data, rng)) for damage in DAMAGES[:3] for i in range(8 * ROUNDS)]
    cases += [(f"directory altered {i}", altered(data, rng, directory)) for i in range(80 * ROUNDS)]
    pickled = data.index(b"data.pkl")
    cases += [(f"pickle altered {i}", altered(data, rng, pickled, pickled + 600)) for i in range(16 * ROUNDS)]
    for name, damaged in [*cases, ("empty", b""), ("a folder's name", data.replace(b"/data.pkl", b"/date.pkl"))]:
        (tmp_path / "weights.pth").write_bytes(damaged)
        compare = lambda found: same_tensors(found, expected, may_differ=False)  # noqa: E731
        tally.judge(name, lambda: read_state_dict(tmp_path / "weights.pth"), compare)
    tally.check()


# Values that a field of architecture.json cannot have.
BAD_FIELDS = {
    "image_size": (0, -8, 7, "8", None, 8.5, [8], float("nan")),
    "patch_size": (0, -2, 3, "2", None, 2.5),
    "class_names": (None, 3, [], ["cat"], ["cat"] * 4),
    "mean": (None, [], [0.5, 0.5], ["x"] * 3, [float("nan")] * 3, "abc"),
    "std": ([0.0, 0.0, 0.0], [-0.5] * 3, [float("inf")] * 3, [0.5] * 4),
    "eval_crop": (0, -1.0, "1", None, float("nan"), []),
    "about": (None, "x", 3, {"unknown": ""}),
    "architecture": (None, {}, [], "s3_t", {"stages": []}, {"stages": [{}]}, {"isotropic": {}}),
}


def bad_records(record: dict) -> list[tuple[str, bytes]]:
    """Name and bytes of records that are none, or are of no network; fields are changed as a user would, on purpose."""
    rng, data = np.random.default_rng(5), json.dumps(record, indent=1).encode()
    record = unsealed(record)
    cases = [(f"{damage.__name__} {i}", damage(data, rng)) for damage in DAMAGES[:3] for i in range(6 * ROUNDS)]
    cases += [
        (f"without {gone}", json.dumps({k: v for k, v in record.items() if k != gone}).encode()) for gone in record
    ]
    for name, values in BAD_FIELDS.items():
        cases += [(f"{name} = {value!r}"[:60], json.dumps({**record, name: value}).encode()) for value in values]
    for _ in range(20 * ROUNDS):
        where, changed = of_another_type(record["architecture"], rng)
        cases.append((f"architecture.{where}", json.dumps({**record, "architecture": changed}).encode()))
    return [*cases, ("empty", emptied(data, rng)), ("a list", b"[]"), ("a number", b"3"), ("nothing", b"null")]


def test_records_of_networks_are_refused_or_whole(model, whole, tmp_path) -> None:
    expected, tally = weights_of(model), Tally("architecture.json")
    written = (whole / standalone.RECORD).read_bytes()
    without_checksum = json.dumps(unsealed(json.loads(written))).encode()
    for name, data in bad_records(json.loads(written)):
        shutil.copytree(whole, tmp_path / "network", dirs_exist_ok=True)
        (tmp_path / "network" / standalone.RECORD).write_bytes(data)

        def compare(loaded: Standalone, data: bytes = data) -> str:
            if loaded.spec == model.spec:
                return same_tensors(weights_of(loaded), expected, may_differ=False)
            changed_on_purpose = SEAL not in json.loads(data) and is_another_value(data, without_checksum)
            return OTHER if changed_on_purpose else "taken for the record of a network"

        tally.judge(name, lambda: zoo.load(tmp_path / "network"), compare)
        assert (tmp_path / "network" / standalone.RECORD).read_bytes() == data
    tally.check()


def test_folders_of_networks_that_lack_something_are_refused(whole, tmp_path) -> None:
    tally = Tally("folders of networks")
    for index, name in enumerate((standalone.RECORD, standalone.WEIGHTS)):
        for number, put in enumerate((lambda path: None, Path.mkdir, lambda path: path.symlink_to("nowhere"))):
            folder = tmp_path / f"{index}{number}"
            shutil.copytree(whole, folder)
            (folder / name).unlink()
            put(folder / name)
            tally.judge(f"{name} {number}", lambda f=folder: zoo.load(f), lambda _: "taken for a network", names=name)
    for name in ("nowhere", "file"):
        (tmp_path / "file").write_text("")
        tally.judge(name, lambda n=name: zoo.load(tmp_path / n), lambda _: "taken for a network", names=name)
    tally.check()
