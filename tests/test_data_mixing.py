"""Labels and mixing: what happens to targets and pixels of a batch."""

import dataclasses

import numpy as np
import pytest

from s3_jax.classification.config import AugmentConfig
from s3_jax.classification.mixing import Mix, draw_mix, mix_pairs, soft_label

BOTH = AugmentConfig(mixup=0.8, cutmix=1.0, mix_switch=0.5)


def batch(count: int, num_classes: int = 5, smoothing: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, 8, 8, 3)).astype(np.float32)
    return images, np.stack([soft_label(i % num_classes, num_classes, smoothing) for i in range(count)])


def test_label_smoothing_values() -> None:
    np.testing.assert_allclose(soft_label(2, 5, 0.1), [0.02, 0.02, 0.92, 0.02, 0.02], rtol=1e-6)
    assert soft_label(2, 5, 0.0).tolist() == [0, 0, 1, 0, 0]
    assert soft_label(2, 5, 0.1).dtype == np.float32
    assert abs(soft_label(0, 1000, 0.1).sum() - 1) < 1e-5


def test_mixup_makes_image_and_target_the_same_combination_with_the_neighbour() -> None:
    images, targets = batch(6)
    mixed, labels = images.copy(), targets.copy()
    mix_pairs(mixed, labels, Mix(0.7))
    for i in range(6):
        np.testing.assert_allclose(mixed[i], 0.7 * images[i] + 0.3 * images[i ^ 1], atol=1e-6)
        np.testing.assert_allclose(labels[i], 0.7 * targets[i] + 0.3 * targets[i ^ 1], atol=1e-6)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    assert mixed.dtype == labels.dtype == np.float32


def test_cutmix_pastes_the_box_and_nothing_else() -> None:
    images, targets = batch(4)
    mixed, labels = images.copy(), targets.copy()
    share = 1 - 3 * 4 / 64
    mix_pairs(mixed, labels, Mix(share, (2, 5, 1, 5)))
    inside = np.zeros((8, 8), bool)
    inside[2:5, 1:5] = True
    for i in range(4):
        assert (mixed[i][inside] == images[i ^ 1][inside]).all()
        assert (mixed[i][~inside] == images[i][~inside]).all()
        np.testing.assert_allclose(labels[i], share * targets[i] + (1 - share) * targets[i ^ 1], atol=1e-6)


def test_cutmix_share_is_the_area_that_is_left() -> None:
    config = dataclasses.replace(BOTH, mixup=0.0)
    shares = []
    for seed in range(500):
        mix = draw_mix(np.random.default_rng(seed), config, 32)
        assert mix is not None
        assert mix.box is not None
        top, bottom, left, right = mix.box
        assert 0 <= top <= bottom <= 32
        assert 0 <= left <= right <= 32
        assert mix.share == 1 - (bottom - top) * (right - left) / 1024
        shares.append(mix.share)
    assert min(shares) < 0.2
    assert max(shares) > 0.95


def test_mixup_or_cutmix_with_the_switch_probability() -> None:
    def kinds(config: AugmentConfig) -> list[str]:
        mixes = [draw_mix(np.random.default_rng(seed), config, 32) for seed in range(400)]
        return ["none" if mix is None else "mixup" if mix.box is None else "cutmix" for mix in mixes]

    assert abs(kinds(dataclasses.replace(BOTH, mix_switch=0.2)).count("cutmix") - 80) < 30
    assert set(kinds(dataclasses.replace(BOTH, cutmix=0.0))) == {"mixup"}
    assert set(kinds(dataclasses.replace(BOTH, mixup=0.0))) == {"cutmix"}
    assert set(kinds(dataclasses.replace(BOTH, mixup=0.0, cutmix=0.0))) == {"none"}


@pytest.mark.parametrize("alpha", [0.2, 0.8, 5.0])
def test_mixup_shares_follow_the_beta_distribution(alpha: float) -> None:
    config = dataclasses.replace(BOTH, mixup=alpha, cutmix=0.0)
    mixes = [draw_mix(np.random.default_rng(seed), config, 32) for seed in range(3000)]
    shares = np.array([mix.share for mix in mixes if mix is not None])
    assert abs(shares.mean() - 0.5) < 0.03
    assert abs(shares.var() - 1 / (4 * (2 * alpha + 1))) < 0.01


@pytest.mark.parametrize("mix", [Mix(0.6), Mix(0.75, (0, 4, 0, 4))])
def test_the_last_of_an_odd_batch_and_pairs_with_a_bad_image_stay_as_they_are(mix: Mix) -> None:
    images, targets = batch(7)
    images[2], targets[2] = 0, 0  # a bad image that was skipped
    mixed, labels = images.copy(), targets.copy()
    mix_pairs(mixed, labels, mix)
    for i in (2, 3, 6):
        assert (mixed[i] == images[i]).all()
        assert (labels[i] == targets[i]).all()
    for i in (0, 1, 4, 5):
        assert (mixed[i] != images[i]).any()
        assert (labels[i] != targets[i]).any()
