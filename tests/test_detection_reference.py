"""Losses and detections are those of a plain numpy computation on mmdetection's tensors, which shares no code."""

import dataclasses
from functools import partial

import cascade_reference as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_cascade
from flax import nnx
from tiny_cascade import CLASSES, HEAD

from s3_jax.detection.convert import to_state_dict
from s3_jax.detection.mask_targets import mask_targets
from s3_jax.task import variables_of

# So many samples that every box is one, which makes nothing random.
ALL = dataclasses.replace(HEAD, rpn_samples=4096, box_samples=256, train_candidates=48, train_proposals=40)


@pytest.fixture(scope="module")
def network():
    return tiny_cascade.network(ALL)


@pytest.fixture(scope="module")
def peer(network) -> reference.Cascade:
    tensors = to_state_dict(tiny_cascade.with_transformer(network))
    heads = {name: each for name, each in tensors.items() if not name.startswith("backbone.")}
    return reference.Cascade(heads, CLASSES, ALL.anchor_scale)


@pytest.fixture(scope="module")
def batch(peer, maps) -> dict[str, np.ndarray]:
    """Objects lie near what is proposed, so that stages find some."""
    made = pictures()
    for i, own in enumerate(maps):
        found = peer.proposals(peer.rpn(peer.pyramid(own)), made["size"][i], ALL.train_candidates, ALL.train_proposals)
        large = found[((found[:, 2:] - found[:, :2]) > 10).all(1)]
        for row, box in enumerate(large[: i + 1]):
            made["boxes"][i, row] = box + np.array([1.3, -0.4, 0.6, -1.7])
            made["labels"][i, row] = (i + row) % CLASSES
            made["masks"][i, row] = made["masks"][0, 0]
    return made


@pytest.fixture(scope="module")
def images(batch, maps) -> list[reference.Image]:
    each = zip(maps, batch["size"], batch["boxes"].astype(np.float64), batch["labels"], strict=True)
    return [reference.Image(x, tuple(size), boxes[own >= 0], own[own >= 0]) for x, size, boxes, own in each]


@pytest.fixture(scope="module")
def maps(network) -> list[list[np.ndarray]]:
    """Of each image the backbone's maps, (C, h, w)."""
    made = pictures()
    own = [image * within(size, image) for image, size in zip(made["image"], made["size"], strict=True)]
    found = [np.asarray(x, np.float64) for x in network.backbone.features(np.stack(own))]
    return [[x[i].transpose(2, 0, 1) for x in found] for i in range(len(own))]


def pictures() -> dict[str, np.ndarray]:
    return tiny_cascade.batch(2)


def within(size, image):
    """Ones where an image is on its canvas."""
    rows, columns = np.indices(image.shape[:2])
    return ((rows < size[0]) & (columns < size[1]))[..., None]


def test_every_loss_is_that_of_the_plain_computation(network, batch, peer, images):
    """Sums and what they are divided by."""

    def targets(number, box, target):
        """By a function that has tests of its own."""
        crops, objects = (jnp.asarray(batch[name][number]) for name in ("masks", "boxes"))
        return np.asarray(mask_targets(crops, objects, jnp.asarray(box[None], jnp.float32), jnp.asarray([target])))[0]

    expected = peer.losses(images, targets, candidates=ALL.train_candidates, proposals=ALL.train_proposals)
    definition, *_ = nnx.split(network, nnx.Param, nnx.BatchStat)
    terms, _ = jax.jit(partial(tiny_cascade.losses, definition))(variables_of(network), batch, jax.random.key(0))
    assert terms.keys() == expected.keys()
    for name, (total, count) in expected.items():
        assert count > 0
        assert float(terms[name][1]) == count, name
        assert float(terms[name][0]) == pytest.approx(total, rel=1e-4), name
    assert expected["mask_1"][1] > sum(len(image.boxes) for image in images)  # proposals are positive too


@pytest.fixture(scope="module")
def detect(network):
    """(images, sizes) to what is found: one program."""
    definition, state = nnx.split(network)
    program = jax.jit(lambda x, size: nnx.merge(definition, state).detect(x, size))
    return lambda x, size: jax.tree.map(np.asarray, program(x, size))


def test_detections_are_those_of_the_plain_computation(detect, batch, peer, images):
    found = detect(batch["image"], batch["size"])
    limits = {"candidates": ALL.test_candidates, "proposals": ALL.test_proposals, "limit": ALL.detections}
    limits |= {"room": ALL.class_candidates}
    counts = []
    for i, image in enumerate(images):
        expected, left = peer.detect(image, least=ALL.score_threshold, threshold=ALL.test_nms, **limits)
        counts.append(len(expected))
        scores, boxes, labels, masks = (np.array(each) for each in zip(*expected, strict=True))
        np.testing.assert_allclose(found.scores[i, : len(expected)], scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes[i, : len(expected)], boxes, atol=1e-3)
        np.testing.assert_array_equal(found.labels[i, : len(expected)], labels)
        np.testing.assert_allclose(found.masks[i, : len(expected)], masks, atol=1e-5)
        assert not any(values[i, len(expected) :].any() for values in found[:2])
        assert (found.labels[i, len(expected) :] == -1).all()
        assert found.left_out[i] == left
    assert min(counts) > 1
    assert found.left_out.any()


def test_detections_lie_in_their_image_and_know_nothing_of_the_canvas_around_it(detect, batch):
    """Nor of other images."""
    size = batch["size"]
    own = np.stack([within(*each) for each in zip(size, batch["image"], strict=True)])
    other = np.where(own, batch["image"], np.float32(7))
    other[1] += 3
    found, changed = (detect(x, size) for x in (batch["image"], other))
    assert found.finite.all()
    for one, two in zip(found, changed, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
    assert (found.scores[1] != changed.scores[1]).any()
    assert (found.boxes >= 0).all()
    assert (found.boxes[..., 2:] <= size[:, None, ::-1]).all()
    assert (found.boxes[..., 2:] == size[:, None, ::-1]).any()  # some are clipped
