"""Networks as they are opened: classifiers of any size or none, names from a file, and folders that hold anything."""

import json

import numpy as np
import pytest
from test_standalone import make
from test_weights_files import headless, official

from s3_jax.errors import S3Error
from s3_jax.networks import standalone, zoo
from s3_jax.networks.classes import is_numbered
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.convert import to_state_dict
from s3_jax.networks.files import write_safetensors
from s3_jax.networks.standalone import About
from s3_jax.writing import unsealed


@pytest.fixture
def tiny(monkeypatch):
    """A published model that is small."""
    spec = make().spec
    monkeypatch.setitem(zoo.MODELS, "tiny", spec)
    return spec


def weights_file(folder, num_classes, change=dict):
    """Weights of `tiny` with so many classes."""
    path = folder / "weights.safetensors"
    write_safetensors(path, change(to_state_dict(zoo.create("tiny", num_classes=num_classes))), {})
    return str(path)


@pytest.mark.parametrize("num_classes", [1, 10, 21_841])
@pytest.mark.parametrize("names", [dict, official])
def test_there_are_as_many_classes_as_the_weights_tell(tiny, tmp_path, num_classes, names):
    model = zoo.open_model("tiny", weights_file(tmp_path, num_classes, names))
    assert len(model.spec.class_names) == num_classes
    assert is_numbered(model.spec.class_names)
    assert model.network(np.zeros((1, 8, 8, 3), np.float32)).shape == (1, num_classes)


def test_weights_without_a_classifier_serve_to_begin_a_training_alone(tiny, tmp_path):
    file = weights_file(tmp_path, 10, headless)
    with pytest.raises(S3Error, match=r"has no classifier, so it cannot name classes: scripts/finetune.py trains one"):
        zoo.open_model("tiny", file)
    model = zoo.open_model("tiny", file, new_head=True)
    assert model.network.head.kernel.shape == (16, 1000)
    assert float(np.abs(model.network.head.kernel[...]).max()) > 0


def test_a_classifier_that_is_none_is_told(tiny, tmp_path):
    def broken(tensors):
        return tensors | {"head.fc.weight": np.float32(3), "head.fc.bias": np.zeros(7, np.float32)}

    with pytest.raises(S3Error, match=r"weights\.safetensors does not fit tiny: tensor head.fc.\w+ .* is \((7,)?\)"):
        zoo.pretrained("tiny", weights_file(tmp_path, 10, broken), num_classes=10)
    with pytest.raises(S3Error, match=r"has no classifier"):
        zoo.open_model("tiny", weights_file(tmp_path, 10, broken))


@pytest.mark.parametrize(
    ("content", "names"),
    [
        (b"\xef\xbb\xbfblue\r\nred\r\n\r\n", ("blue", "red")),
        (b"blue \nred", ("blue", "red")),
        ("blue\u2028x\nred\n".encode(), ("blue\u2028x", "red")),  # no end of a line for an editor
    ],
)
def test_names_of_classes_are_read_from_a_file(tiny, tmp_path, content, names):
    (tmp_path / "names.txt").write_bytes(content)
    model = zoo.open_model("tiny", weights_file(tmp_path, 2), str(tmp_path / "names.txt"))
    assert model.spec.class_names == names
    standalone.save(tmp_path / "network", model)
    assert zoo.open_model(str(tmp_path / "network"), "", str(tmp_path / "names.txt")).spec.class_names == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"blue\n", "names.txt has 1 names, the network has 2 classes"),
        (b"", "line 1 is empty"),
        (b"\nblue\n", "line 1 is empty"),
        (b"blue\n\nred\n", "line 2 is empty"),
        (b"gr\xfcn\nred\n", "names.txt is not UTF-8 text"),
        ("blue\nred\n".encode("utf-16"), "names.txt is not UTF-8 text"),
    ],
)
def test_files_of_names_that_do_not_fit_are_told(tiny, tmp_path, content, message):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(S3Error, match=message):
        zoo.open_model("tiny", weights_file(tmp_path, 2), str(tmp_path / "names.txt"))


def test_a_network_that_knows_its_classes_is_not_told_others(tiny, tmp_path):
    (tmp_path / "names.txt").write_text("red\nblue\n")
    model = zoo.open_model("tiny", weights_file(tmp_path, 2), str(tmp_path / "names.txt"))
    standalone.save(tmp_path / "network", model)
    (tmp_path / "names.txt").write_text("blue\nred\n")
    with pytest.raises(S3Error, match=r"other names than the network, which knows its classes \(red, ...\)"):
        zoo.open_model(str(tmp_path / "network"), "", str(tmp_path / "names.txt"))
    with pytest.raises(S3Error, match=r"which has its own weights; leave out --weights=w.pth"):
        zoo.open_model(str(tmp_path / "network"), "w.pth")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("network")
    standalone.save(path, make())
    return path


STAGES = make().spec.architecture.to_json()["stages"]
NO_RECORD = object()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": "8"}, "image_size = '8': expected a number of pixels"),
        ({"image_size": True}, "image_size = True: expected a number of pixels"),
        ({"image_size": 9}, "cannot be cut into patches of 2"),
        ({"image_size": 8.5}, r"image_size = 8\.5: expected a number of pixels"),
        ({"patch_size": 0}, "patch_size = 0: expected a number of pixels"),
        ({"class_names": "abcdefghij"}, "class_names = 'abcdefghij': expected a tuple"),
        ({"class_names": []}, r"class_names = \(\): expected a tuple of at least one"),
        ({"class_names": [1, 2]}, r"class_names = \(1, 2\): expected a tuple"),
        ({"class_names": ["a", "b"]}, r"weights.safetensors: tensor head.fc.\w+ of the state dict is \(10"),
        ({"mean": [0.5, 0.5]}, r"mean = \(0\.5, 0\.5\): expected three numbers"),
        ({"mean": [0.5, 0.5, float("nan")]}, r"mean = .*nan.*: expected three numbers"),
        ({"mean": 0.5}, "not the record of a stand-alone network"),
        ({"std": [0.5, 0.5, 0]}, r"std = .*: expected three positive numbers"),
        ({"std": ["a", "b", "c"]}, "not the record of a stand-alone network"),
        ({"eval_crop": 0}, "eval_crop = 0: expected a share above 0 and at most 1"),
        ({"eval_crop": 1.5}, r"eval_crop = 1\.5: expected"),
        ({"eval_crop": "1"}, "not the record of a stand-alone network"),
        ({"about": {"data": 3}}, "about.data = 3: expected words"),
        ({"about": {"colour": "red"}}, "not the record of a stand-alone network"),
        ({"about": 3}, "not the record of a stand-alone network"),
        ({"colour": "red"}, "of this version: it has an unknown colour"),
        ({"mean": NO_RECORD}, "of this version: it has no mean"),
        ({"architecture": 3}, "not the record of a stand-alone network"),
        ({"architecture": "isotropic"}, "not a record of a plain transformer"),
        ({"architecture": {"stages": STAGES[:1]}}, "weights.safetensors: the state dict has"),
        ({"architecture": {"stages": []}}, "at least one stage"),
        ({"architecture": {"stages": [STAGES[0] | {"embed_dim": "8"}]}}, "architecture.json: "),
        (
            {"architecture": {"stages": [STAGES[0] | {"embed_dim": 10**15}]}},
            "(architecture.json|weights.safetensors): ",
        ),
        ({"architecture": {"isotropic": {"embed_dim": 8, "depth": 2, "heads": 3}}}, "cannot be divided among 3 heads"),
    ],
)
def test_a_record_that_is_none_is_told_with_its_file(folder, tmp_path, change, message):
    record = unsealed(json.loads((folder / "architecture.json").read_text())) | change
    record = {name: value for name, value in record.items() if value is not NO_RECORD}
    (tmp_path / "architecture.json").write_text(json.dumps(record))
    (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    with pytest.raises(S3Error, match=message) as told:
        zoo.load(tmp_path)
    assert str(tmp_path) in str(told.value)


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b'"isotropic"', b"", b"{", b"[" * 100_000, b"\xff\xfe{}"])
def test_a_record_that_is_no_object_is_told(tmp_path, content):
    (tmp_path / "architecture.json").write_bytes(content)
    with pytest.raises(S3Error, match=r"architecture\.json"):
        zoo.load(tmp_path)


def test_a_record_with_a_byte_order_mark_is_read_and_its_provenance_may_be_missing(folder, tmp_path):
    record = unsealed(json.loads((folder / "architecture.json").read_text()))
    del record["about"]
    (tmp_path / "architecture.json").write_text("\ufeff" + json.dumps(record), encoding="utf-8")
    (tmp_path / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes())
    assert zoo.load(tmp_path).spec.about == About()


def test_names_that_are_not_utf8_are_kept_and_written_escaped(tmp_path):
    names = (*"abcdefghi", "gr\udcfcn")
    spec = make().spec
    spec = ClassifierSpec(spec.architecture, 8, 2, names, about=About(data="set gr\udcfcn"))
    standalone.save_card(tmp_path, spec)
    assert "set gr\\xfcn" in (tmp_path / "README.md").read_text()
    assert (
        ClassifierSpec.from_json(unsealed(json.loads((tmp_path / "architecture.json").read_text()))).class_names
        == names
    )


def test_a_published_architecture_is_told_from_a_file_that_is_not_there():
    for text in ("nowhere/best.json", "best.json", "nowhere/best"):
        with pytest.raises(S3Error, match=f"there is no file {text}$"):
            zoo.read_architecture(text)
    with pytest.raises(S3Error, match="no published model is called 's3_x'"):
        zoo.read_architecture("s3_x")
