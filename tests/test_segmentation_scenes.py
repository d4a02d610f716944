"""Digit scenes: what each is a function of, whose handwriting it shows, and that classes are where digits are."""

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from s3_jax.data.sources import open_digits
from s3_jax.errors import S3Error
from s3_jax.segmentation.scenes import CLASS_NAMES, DigitScenes, open_scenes

SPLITS = ("train", "holdout", "test")
# Of the pictures and class maps of the first eight training scenes of 48 pixels.
GOLDEN = "a311ba53110bb6444730311b991b15815ceffa319da61719b7adfdee71c9c5b4"
PRINT_DIGEST = "import test_segmentation_scenes as t; print(t.digest(t.open_scenes(('train',)).splits['train']))"


@pytest.fixture(scope="module")
def splits() -> dict[str, DigitScenes]:
    return dict(open_scenes(SPLITS).splits)


def pixels_of(scenes: DigitScenes, index: int) -> np.ndarray:
    return np.asarray(scenes[index][0])


def digest(scenes: DigitScenes) -> str:
    parts = (part for index in range(8) for part in (scenes[index][0].tobytes(), scenes[index][1].tobytes()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_scenes_have_the_announced_shapes_classes_and_names(splits: dict[str, DigitScenes]) -> None:
    opened = open_scenes(("train", "test"), size=32, train_count=7)
    assert opened.table.names == CLASS_NAMES == ("background", *"0123456789")
    assert list(opened.splits) == ["train", "test"]
    assert [len(split) for split in opened.splits.values()] == [7, 500]
    assert [len(split) for split in splits.values()] == [3000, 500, 500]
    image, classes = opened.splits["train"][3]
    assert image.mode == "RGB"
    assert image.size == (32, 32)
    assert opened.splits["train"].size(3) == classes.shape == (32, 32)
    assert classes.dtype == np.uint8
    assert splits["test"].name(3) == "scene 3 of digit scenes/test"


def test_a_loop_over_scenes_ends_with_the_last() -> None:
    scenes = open_scenes(("holdout",), size=16, holdout_count=5).splits["holdout"]
    assert len(list(scenes)) == 5
    with pytest.raises(IndexError):
        scenes[-1]


def test_a_scene_is_a_function_of_seed_and_number_alone(splits: dict[str, DigitScenes]) -> None:
    train = splits["train"]
    other_count = open_scenes(("train",), train_count=50).splits["train"]
    for index in (40, 3, 40, 0):  # whatever was asked for before
        assert (pixels_of(train, index) == pixels_of(other_count, index)).all()
        assert (train[index][1] == other_count[index][1]).all()
    other_seed = open_scenes(("train",), seed=1).splits["train"]
    for other, number in ((other_seed, 3), (splits["test"], 3), (splits["holdout"], 3), (train, 4)):
        assert (pixels_of(train, 3) != pixels_of(other, number)).mean() > 0.9


def test_scenes_are_the_same_in_every_process_and_version(splits: dict[str, DigitScenes]) -> None:
    command = [sys.executable, "-c", PRINT_DIGEST]
    there = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert there.stdout.strip() == digest(splits["train"]) == GOLDEN


def test_no_two_splits_share_handwriting_and_together_they_are_all_digits(splits: dict[str, DigitScenes]) -> None:
    written = {name: set(map(bytes, scenes.digits)) for name, scenes in splits.items()}
    assert sum(len(digits) for digits in written.values()) == len(set.union(*written.values())) == 1797
    project = open_digits(("train", "test")).splits
    for names, split in ((("train", "holdout"), "train"), (("test",), "test")):
        source = project[split]
        digits = {np.asarray(source[row][0])[..., 0].tobytes() for row in range(len(source))}
        assert set.union(*(written[name] for name in names)) == digits


def test_every_split_has_its_digits_right_and_a_fair_share_of_each_class(splits: dict[str, DigitScenes]) -> None:
    source = open_digits(("train",)).splits["train"]
    labels = {np.asarray(source[row][0])[..., 0].tobytes(): source[row][1] for row in range(len(source))}
    for name, expected in (("train", 0.8), ("holdout", 0.2)):
        scenes = splits[name]
        assert [labels[bytes(digit)] for digit in scenes.digits] == scenes.digit_labels.tolist()
        assert np.allclose(np.bincount(scenes.digit_labels) / np.bincount(source.labels), expected, atol=0.01)
    # What a training shows does not depend on whether somebody looks at the holdout as well.
    assert (open_scenes(("train",)).splits["train"].digits == splits["train"].digits).all()


def test_identities_differ_between_scenes_and_splits(splits: dict[str, DigitScenes]) -> None:
    identities = np.concatenate([scenes.identities for scenes in splits.values()])
    assert identities.dtype == np.int64
    assert len(np.unique(identities)) == 4000


def test_the_class_map_is_that_of_the_instances_which_share_no_pixel(splits: dict[str, DigitScenes]) -> None:
    counts = []
    for scenes in splits.values():
        for index in range(60):
            expected = np.zeros((48, 48), np.uint8)
            instances = scenes.instances(index)
            for number, mask in instances:
                assert 1 <= number <= 10
                assert mask.dtype == bool
                assert mask.any()
                assert not expected[mask].any()
                expected[mask] = number
            assert (scenes[index][1] == expected).all()
            counts.append(len(instances))
    assert min(counts) == 1
    assert max(counts) == 4
    assert np.bincount(counts)[1:].min() > 0.1 * len(counts)


def test_digits_are_12_to_24_pixels_high_in_a_picture_of_48(splits: dict[str, DigitScenes]) -> None:
    heights = np.array(
        [np.ptp(np.nonzero(mask)[0]) + 1 for index in range(200) for _, mask in splits["train"].instances(index)]
    )
    assert heights.max() <= 24
    assert np.quantile(heights, 0.02) >= 10  # a few are written flat
    assert heights.std() > 2


def test_a_mask_is_the_enlarged_handwriting_of_its_class(splits: dict[str, DigitScenes]) -> None:
    """Of 16 cells of an instance's box, how much is covered: nearest to a digit's own class far above chance."""
    scenes = splits["train"]
    templates = np.stack([covered(digit >= 128) for digit in scenes.digits])
    hits = []
    for index in range(60):
        for number, mask in scenes.instances(index):
            nearest = np.abs(templates - covered(mask)).sum((1, 2)).argmin()
            hits.append(scenes.digit_labels[nearest] == number - 1)
    assert np.mean(hits) > 0.75


def covered(mask: np.ndarray) -> np.ndarray:
    """The box of what is True, enlarged to 16 x 16 by repetition and averaged to (4, 4)."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    places = [np.arange(16) * length // 16 for length in box.shape]
    return box[np.ix_(*places)].reshape(4, 4, 4, 4).mean((1, 3))


def test_strokes_stand_out_from_what_is_beside_them(splits: dict[str, DigitScenes]) -> None:
    contrasts = []
    for index in range(100):
        grey = np.asarray(splits["train"][index][0].convert("L")).astype(float)
        classes = splits["train"][index][1]
        for _, mask in splits["train"].instances(index):
            rows, columns = np.nonzero(mask)
            box = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
            ground = classes[box] == 0
            if ground.sum() > 10:
                contrasts.append(abs(grey[mask].mean() - grey[box][ground].mean()))
    assert np.quantile(contrasts, 0.02) > 15
    assert np.std(contrasts) > 15


def test_the_background_is_textured(splits: dict[str, DigitScenes]) -> None:
    spreads = [pixels_of(splits["train"], index)[splits["train"][index][1] == 0].std(0).mean() for index in range(100)]
    assert min(spreads) > 5
    assert max(spreads) > 20


def test_shuffled_classes_change_names_alone_and_have_nothing_to_do_with_the_true_ones(
    splits: dict[str, DigitScenes],
) -> None:
    true, shuffled = splits["train"], dataclasses.replace(splits["train"], shuffled_classes=True)
    pairs = []
    for index in range(400):
        there, here = true.instances(index), shuffled.instances(index)
        assert len(there) == len(here)
        assert all((a == b).all() for (_, a), (_, b) in zip(there, here, strict=True))
        pairs += [(a, b) for (a, _), (b, _) in zip(there, here, strict=True)]
    assert (pixels_of(true, 5) == pixels_of(shuffled, 5)).all()
    assert ((true[5][1] > 0) == (shuffled[5][1] > 0)).all()
    first, second = np.array(pairs).T
    assert np.bincount(second, minlength=11)[1:].min() > 0.06 * len(pairs)
    assert 0.05 < (first == second).mean() < 0.15
    again = dataclasses.replace(splits["train"], shuffled_classes=True)
    assert all((shuffled[index][1] == again[index][1]).all() for index in range(20))


def test_shuffled_pictures_leave_no_scene_its_own_and_use_every_picture_once() -> None:
    true = open_scenes(("train",), train_count=30).splits["train"]
    shuffled = dataclasses.replace(true, shuffled_pictures=True)
    originals = [true[index][0].tobytes() for index in range(30)]
    moved = [shuffled[index][0].tobytes() for index in range(30)]
    assert sorted(originals) == sorted(moved)
    assert not any(a == b for a, b in zip(originals, moved, strict=True))
    assert all((true[index][1] == shuffled[index][1]).all() for index in range(30))


def test_what_cannot_be_is_refused_with_what_can() -> None:
    with pytest.raises(S3Error, match=r"no split 'val'; their splits are 'train', 'holdout' and 'test'"):
        open_scenes(("train", "val"))
    with pytest.raises(S3Error, match=r"15 pixels a side are too small; give them 16 or more"):
        open_scenes(("train",), size=15)
    assert open_scenes(("train",), size=16).splits["train"][0][0].size == (16, 16)
