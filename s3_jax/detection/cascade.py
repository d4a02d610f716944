"""Cascade Mask R-CNN (Cai and Vasconcelos, 2018; He et al., 2017) on the maps of a window transformer, as the paper's
Table 2 has it.

A network of an architecture or the supernet of a space: the pyramid takes the maps at the space's largest widths, in
which a subnet's channels beyond its own are zero. All shapes are static: see `assign`, `nms` and `proposals`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from s3_jax.config import ModelConfig
from s3_jax.detection import nms
from s3_jax.detection.anchors import STRIDES, Anchors, anchors_of
from s3_jax.detection.boxes import LEVELS, STAGE_STDS, clipped, decoded
from s3_jax.detection.config import HeadConfig
from s3_jax.detection.heads import (
    BOX_SIDE,
    MASK_SIDE,
    BoxHead,
    BoxOutput,
    MaskHead,
    Normalisation,
    Pyramid,
    Rpn,
    RpnOutput,
    box_head,
    mask_head,
    pyramid,
    rpn,
)
from s3_jax.detection.losses import (
    Rois,
    Sum,
    Truth,
    box_losses,
    mask_loss,
    positives_of,
    rois_of,
    rpn_losses,
)
from s3_jax.detection.proposals import Proposals, likeliest, proposals_of, refined
from s3_jax.detection.roi_align import roi_align_on
from s3_jax.errors import S3Error
from s3_jax.models.subnet import Params, SubnetMask, slice_weights
from s3_jax.models.transformer import S3Transformer
from s3_jax.space import Architecture, SearchSpace
from s3_jax.task import Terms

STAGE_WEIGHTS = (1.0, 0.5, 0.25)  # of the losses of the cascade's stages
STAGES = len(STAGE_WEIGHTS)


class Detections(NamedTuple):
    """What is found in each image, best first, K rows.

    boxes (B, K, 4): left, top, right, bottom in pixels of the canvas, within the image. scores (B, K), 0 to 1, and
    labels (B, K): 0 and -1 where nothing is. masks (B, K, 28, 28): of the box, how likely each place is of the object.
    left_out (B,): boxes over the least score that were not looked at, being more than `class_candidates`. finite (B,):
    whether all scores are.
    """

    boxes: Array
    scores: Array
    labels: Array
    masks: Array
    left_out: Array
    finite: Array


class CascadeMaskRCNN(nnx.Module):
    """A network that finds the objects of an image, their classes and their masks.

    batch_axis, platform: as for `S3Transformer`. Windows are those of `model.image_size`, whatever the size of the
    images. Raises S3Error for a backbone whose maps do not have the strides 4, 8, 16 and 32.
    """

    def __init__(
        self,
        structure: Architecture | SearchSpace,
        *,
        model: ModelConfig,
        num_classes: int,
        head: HeadConfig,
        batch_axis: str | None = None,
        platform: str | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        if len(structure.stages) != LEVELS or model.patch_size != STRIDES[0]:
            raise S3Error(
                f"Cascade Mask R-CNN needs maps of strides 4, 8, 16 and 32: give a backbone of {LEVELS} stages, and "
                f"config.model.patch_size = {STRIDES[0]}"
            )
        self.backbone = S3Transformer(
            structure,
            **dataclasses.asdict(model),  # its fields are settings of transformers
            num_classes=0,
            output_norms=True,
            batch_axis=batch_axis,
            platform=platform,
            rngs=rngs,
        )
        dims = [stage.embed_dim for stage in self.backbone.architecture.stages]
        self.pyramid = Pyramid(dims, head.channels, rngs)
        self.rpn = Rpn(head, rngs)
        self.box_heads = nnx.List([BoxHead(head, num_classes, rngs) for _ in range(STAGES)])
        self.mask_heads = nnx.List([MaskHead(head, num_classes, rngs) for _ in range(STAGES)])
        self.head, self.num_classes, self.batch_axis = head, num_classes, batch_axis
        platform = platform or jax.default_backend()
        self.by_products = platform == "cpu"
        self.roi_align = roi_align_on(platform)

    def losses(self, batch: dict[str, Array], subnet: SubnetMask | None, key: Array, max_drop_path: float) -> Terms:
        """The losses of all heads in training, which updates running statistics in place.

        batch: "image" (B, H, W, 3), "size" (B, 2) height and width of each on the canvas, "boxes" (B, M, 4), "labels"
        (B, M), -1 for padding, "masks" (B, M, 112, 112) and "weight" (B,): images of weight 0 count nowhere.
        """
        depth_key, sample_key = jax.random.split(key)
        depth = {"max_drop_path": max_drop_path, "key": depth_key if max_drop_path > 0 else None}
        maps, output = self._proposed(batch["image"], batch["size"], subnet, **depth)
        truth = _truth_of(batch)
        keys = self._keys_of_images(sample_key, len(batch["image"]))
        anchors = self._anchors(batch["image"])
        losses = jax.vmap(partial(rpn_losses, anchors=anchors, samples=self.head.rpn_samples))
        rpn_class, rpn_box = losses(keys[:, 0], output, truth)
        terms = {"rpn_class": _summed(rpn_class), "rpn_box": _summed(rpn_box)}
        proposals = self._proposals(output, truth.size, anchors, training=True)
        for stage in range(STAGES):
            found, proposals = self._stage(stage, keys[:, 1 + stage], maps, proposals, truth)
            terms |= found
        return terms

    def detect(self, image: Array, size: Array, subnet: SubnetMask | None = None) -> Detections:
        """The objects of images (B, H, W, 3), at most `head.detections` of each; size (B, 2) as for `losses`."""
        maps, output = self._proposed(image, size, subnet)
        proposals = self._proposals(output, size, self._anchors(image), training=False)
        every, scores = self._scored(maps, proposals.boxes, size)
        found = jax.vmap(self._best)(every, scores, proposals.valid)
        masks = jnp.where(found.valid[..., None, None], self._masks(maps, found.boxes, found.labels), 0)
        labels = jnp.where(found.valid, found.labels, -1)
        finite = jnp.isfinite(scores).all((1, 2))
        return Detections(found.boxes, found.scores, labels, masks, found.overflow, finite)

    def _best(self, boxes: Array, scores: Array, valid: Array) -> nms.Best:
        """What is left of an image's boxes (P, classes, 4) by their scores (P, classes)."""
        return nms.detections(
            boxes,
            scores,
            valid,
            least_score=self.head.score_threshold,
            threshold=self.head.test_nms,
            candidates=self.head.class_candidates,
            limit=self.head.detections,
        )

    def _proposed(
        self, image: Array, size: Array, subnet: SubnetMask | None, **depth: Array | float | None
    ) -> tuple[list[Array], RpnOutput]:
        """The pyramid's maps, and what is said of the anchors."""
        # mmdetection pads after it normalises, so that padding is 0 whatever a caller has there.
        inside = _within(image.shape[1], size[:, 0])[:, :, None] & _within(image.shape[2], size[:, 1])[:, None]
        image = jnp.where(inside[..., None], image, 0)
        features = self.backbone.features(image, subnet, **depth)  # type: ignore[arg-type]
        maps = pyramid(self.pyramid, features, by_products=self.by_products)
        return maps, rpn(self.rpn, maps, by_products=self.by_products)

    def _anchors(self, image: Array) -> Anchors:
        return anchors_of((image.shape[1], image.shape[2]), self.head.anchor_scale)

    def _proposals(self, output: RpnOutput, size: Array, anchors: Anchors, *, training: bool) -> Proposals:
        head = self.head
        candidates = head.train_candidates if training else head.test_candidates
        limit = head.train_proposals if training else head.test_proposals
        return jax.vmap(partial(proposals_of, anchors=anchors, candidates=candidates, limit=limit))(output, size)

    def _stage(
        self, stage: int, keys: Array, maps: Sequence[Array], proposals: Proposals, truth: Truth
    ) -> tuple[Terms, Proposals]:
        """The losses of a stage, and the proposals of the next."""
        drawn = partial(rois_of, stage=stage, samples=self.head.box_samples, num_classes=self.num_classes)
        rois = jax.vmap(drawn)(keys, proposals, truth)
        output = self._box_output(stage, maps, rois.boxes, rois.valid)
        classes, boxes = jax.vmap(partial(box_losses, stage=stage))(output, rois)
        masks = self._mask_loss(stage, maps, rois, truth)
        losses = {"box_class": classes, "box_regression": boxes, "mask": masks}
        terms = {f"{name}_{stage + 1}": _summed(loss, STAGE_WEIGHTS[stage]) for name, loss in losses.items()}
        labels = jnp.where(rois.positive, rois.label, likeliest(output))
        following = refined(rois.boxes, labels, output, truth.size, stage)
        return terms, Proposals(following, rois.valid & ~rois.is_object)

    def _mask_loss(self, stage: int, maps: Sequence[Array], rois: Rois, truth: Truth) -> Sum:
        positives = jax.vmap(positives_of)(rois)
        labels = jnp.where(positives.positive, positives.label, 0)
        return jax.vmap(mask_loss)(self._mask_logits(stage, maps, positives.boxes, labels), positives, truth)

    def _scored(self, maps: Sequence[Array], boxes: Array, size: Array) -> tuple[Array, Array]:
        """Boxes (B, P, classes, 4) of the last stage, and the mean stage's scores (B, P, classes), of proposals."""
        logits = []
        for stage in range(STAGES):
            output = self._box_output(stage, maps, boxes)
            logits.append(output.logits)
            if stage < STAGES - 1:
                boxes = refined(boxes, likeliest(output), output, size, stage)
        every = clipped(decoded(boxes[:, :, None], output.deltas, STAGE_STDS[-1]), size[:, None, None])
        return every, jax.nn.softmax(sum(logits[1:], logits[0]) / STAGES)[..., :-1]

    def _masks(self, maps: Sequence[Array], boxes: Array, labels: Array) -> Array:
        """The mean of the heads' probabilities, (B, K, 28, 28)."""
        each = [jax.nn.sigmoid(self._mask_logits(stage, maps, boxes, labels)) for stage in range(STAGES)]
        return sum(each[1:], each[0]) / STAGES

    def _box_output(self, stage: int, maps: Sequence[Array], boxes: Array, valid: Array | None = None) -> BoxOutput:
        """Of RoIs (B, R, 4); in training with the rows that are valid (B, R)."""
        x = self._aligned(maps, boxes, BOX_SIDE)
        norm = None if valid is None else Normalisation(valid.reshape(-1).astype(jnp.float32), self.batch_axis)
        output = box_head(self.box_heads[stage], x, norm, by_products=self.by_products)
        return jax.tree.map(lambda values: values.reshape(*boxes.shape[:2], *values.shape[1:]), output)

    def _mask_logits(self, stage: int, maps: Sequence[Array], boxes: Array, labels: Array) -> Array:
        x = self._aligned(maps, boxes, MASK_SIDE)
        logits = mask_head(self.mask_heads[stage], x, labels.reshape(-1), by_products=self.by_products)
        return logits.reshape(*boxes.shape[:2], *logits.shape[1:])

    def _aligned(self, maps: Sequence[Array], boxes: Array, side: int) -> Array:
        """Maps of RoIs (B, R, 4) of all images: (B * R, side, side, C)."""
        x = jax.vmap(lambda maps, boxes: self.roi_align(maps, boxes, side))(list(maps[:LEVELS]), boxes)
        return x.reshape(-1, *x.shape[2:])

    def _keys_of_images(self, key: Array, count: int) -> Array:
        """For each image of this device's part a key for the anchors and one for each stage, (B, 1 + STAGES).

        They depend on the image's number in the whole batch, so that many devices draw what one would.
        """
        first = jax.lax.axis_index(self.batch_axis) * count if self.batch_axis else 0
        split = partial(jax.random.split, num=1 + STAGES)
        return jax.vmap(lambda number: split(jax.random.fold_in(key, number)))(first + jnp.arange(count))


def slice_cascade(params: Params, space: SearchSpace, architecture: Architecture) -> Params:
    """Weights of an architecture's network, cut out of a supernet's: as `slice_weights`, and the pyramid's inputs."""
    laterals = {
        index: layer | {"kernel": layer["kernel"][:, :, : architecture.stages[index].embed_dim]}
        for index, layer in params["pyramid"]["laterals"].items()
    }
    backbone = slice_weights(params["backbone"], space, architecture)
    return params | {"backbone": backbone, "pyramid": params["pyramid"] | {"laterals": laterals}}


def _truth_of(batch: dict[str, Array]) -> Truth:
    return Truth(batch["boxes"], batch["labels"], batch["masks"], batch["size"], batch["weight"] > 0)


def _summed(loss: Sum, weight: float = 1.0) -> tuple[Array, Array]:
    """Over images: the total, times the weight, and the count."""
    return weight * loss.total.sum(), loss.over.sum().astype(jnp.float32)


def _within(length: int, own: Array) -> Array:
    """Which pixels of an axis of the canvas belong to each image: (B, length)."""
    return jnp.arange(length) < own[:, None]
