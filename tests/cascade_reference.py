"""Cascade Mask R-CNN in plain numpy, image by image and box by box, as mmdetection 2 computes it; to be compared with.

It works on tensors under mmdetection's names, in PyTorch's layouts (channels before places), in float64, and shares no
code with the package. Samples are not drawn: every box is learned from, which is what a large enough sample does too.
"""

import math
from typing import NamedTuple

import numpy as np

STRIDES = (4, 8, 16, 32, 64)
RATIOS = (0.5, 1.0, 2.0)
STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
WEIGHTS = (1, 0.5, 0.25)


class Image(NamedTuple):
    """One image: its backbone's maps (C, h, w), height and width, its objects' boxes (G, 4) and classes (G,)."""

    maps: list
    size: tuple
    boxes: np.ndarray
    labels: np.ndarray


class Cascade:
    """Weights, of `classes` classes, with anchors of `scale` strides."""

    def __init__(self, tensors: dict, classes: int, scale: float) -> None:
        self.tensors = {name: np.asarray(tensor, np.float64) for name, tensor in tensors.items()}
        self.classes, self.scale = classes, scale

    def both(self, name: str) -> tuple:
        """Weight and bias of a layer."""
        return self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]

    def pyramid(self, maps: list) -> list:
        """Five maps of four."""
        laterals = [conv2d(x, *self.both(f"neck.lateral_convs.{i}.conv")) for i, x in enumerate(maps)]
        for i in (2, 1, 0):
            laterals[i] = laterals[i] + nearest(laterals[i + 1], laterals[i].shape[1:])
        levels = [conv2d(x, *self.both(f"neck.fpn_convs.{i}.conv")) for i, x in enumerate(laterals)]
        return [*levels, levels[-1][:, ::2, ::2]]

    def rpn(self, levels: list) -> list:
        """Of each level: anchors (A, 4), objectness (A,), deltas (A, 4)."""
        answers = []
        for level, stride in zip(levels, STRIDES, strict=True):
            hidden = np.maximum(conv2d(level, *self.both("rpn_head.rpn_conv")), 0)
            objectness = conv2d(hidden, *self.both("rpn_head.rpn_cls")).transpose(1, 2, 0).reshape(-1)
            deltas = conv2d(hidden, *self.both("rpn_head.rpn_reg")).transpose(1, 2, 0).reshape(-1, 4)
            answers.append((anchors(level.shape[1:], stride, self.scale), objectness, deltas))
        return answers

    def proposals(self, answers: list, size: tuple, candidates: int, limit: int) -> np.ndarray:
        """(P, 4), the best first, from all levels."""
        kept = []
        for (boxes, scores, deltas), stride in zip(answers, STRIDES, strict=True):
            columns = -(-size[1] // stride)
            middle = (boxes[:, :2] + boxes[:, 2:]) / 2 / stride
            own = [i for i, (x, y) in enumerate(middle) if round(x) < columns and round(y) < -(-size[0] // stride)]
            best = sorted(own, key=lambda i: -scores[i])[:candidates]
            level = [(scores[i], clip(decode(boxes[i], deltas[i], (1, 1, 1, 1)), size)) for i in best]
            kept += nms(level, 0.7)
        return np.array([box for _, box in sorted(kept, key=lambda pair: -pair[0])[:limit]])

    def box_head(self, stage: int, x: np.ndarray, training: bool) -> tuple:
        """Logits (R, classes + 1) and deltas (R, classes, 4) of maps (R, C, 7, 7)."""
        head = f"roi_head.bbox_head.{stage}"
        for i in range(4):
            x = conv2d(x, self.tensors[f"{head}.shared_convs.{i}.conv.weight"])
            norm = f"{head}.shared_convs.{i}.bn"
            mean, variance = self.tensors[f"{norm}.running_mean"], self.tensors[f"{norm}.running_var"]
            if training:
                mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
            weight, bias = (each[:, None, None] for each in self.both(norm))
            normed = (x - mean[:, None, None]) / np.sqrt(variance[:, None, None] + 1e-5)
            x = np.maximum(normed * weight + bias, 0)
        weight, bias = self.both(f"{head}.shared_fcs.0")
        hidden = np.maximum(x.reshape(len(x), -1) @ weight.T + bias, 0)
        logits, deltas = (
            hidden @ weight.T + bias for weight, bias in map(self.both, (f"{head}.fc_cls", f"{head}.fc_reg"))
        )
        return logits, deltas.reshape(len(x), self.classes, 4)

    def mask_head(self, stage: int, x: np.ndarray) -> np.ndarray:
        """Logits (R, classes, 28, 28) of maps (R, C, 14, 14)."""
        head = f"roi_head.mask_head.{stage}"
        for i in range(4):
            x = np.maximum(conv2d(x, *self.both(f"{head}.convs.{i}.conv")), 0)
        x = np.maximum(doubled(x, *self.both(f"{head}.upsample")), 0)
        return conv2d(x, *self.both(f"{head}.conv_logits"))

    def detect(
        self, image: Image, *, candidates: int, proposals: int, least: float, room: int, threshold: float, limit: int
    ) -> tuple:
        """(score, box, class, mask (28, 28)) of what is found, the best first, and how many boxes found no room."""
        levels = self.pyramid(image.maps)
        boxes = self.proposals(self.rpn(levels), image.size, candidates, proposals)
        total = 0
        for stage in range(3):
            logits, deltas = self.box_head(stage, aligned(levels, boxes, 7), training=False)
            total = total + logits / 3
            if stage < 2:
                rows = zip(boxes, deltas, logits[:, :-1].argmax(1), strict=True)
                boxes = np.array([clip(decode(box, own[label], STDS[stage]), image.size) for box, own, label in rows])
        scores = np.exp(total) / np.exp(total).sum(1, keepdims=True)
        pairs = [
            (row, label) for row in range(len(boxes)) for label in range(self.classes) if scores[row, label] > least
        ]
        best = sorted(pairs, key=lambda pair: -scores[pair])[:room]
        found = []
        for label in range(self.classes):
            own = [
                (scores[i, n], clip(decode(boxes[i], deltas[i, n], STDS[2]), image.size)) for i, n in best if n == label
            ]
            found += [(score, box, label) for score, box in nms(own, threshold)]
        found = sorted(found, key=lambda each: -each[0])[:limit]
        maps = aligned(levels, np.array([box for _, box, _ in found]), 14)
        masks = sum(sigmoid(self.mask_head(stage, maps)) for stage in range(3)) / 3
        answers = [(score, box, label, masks[i, label]) for i, (score, box, label) in enumerate(found)]
        return answers, len(pairs) - len(best)

    def losses(self, images: list, targets, *, candidates: int, proposals: int) -> dict:
        """Losses of a batch by name, each with what it was divided by. targets: (image's number, box, object's number)
        to a mask (28, 28)."""
        levels = [self.pyramid(image.maps) for image in images]
        answers = [self.rpn(each) for each in levels]
        losses = dict(zip(("rpn_class", "rpn_box"), rpn_losses(images, answers), strict=True))
        boxes = [self.proposals(a, image.size, candidates, proposals) for a, image in zip(answers, images, strict=True)]
        for stage in range(3):
            stages, boxes = self.stage(stage, images, levels, boxes, targets)
            losses |= {
                f"{name}_{stage + 1}": (total * WEIGHTS[stage], count) for name, (total, count) in stages.items()
            }
        return losses

    def stage(self, stage: int, images: list, levels: list, boxes: list, targets) -> tuple:
        """The losses of a stage by name, and the images' boxes for the next."""
        threshold = (0.5, 0.6, 0.7)[stage]
        rows = []  # number of the image, box, object or None, whether it is an object's own
        for number, (image, own) in enumerate(zip(images, boxes, strict=True)):
            rows += [(number, truth, i, True) for i, truth in enumerate(image.boxes)]
            for box in own:
                overlaps = [iou(box, truth) for truth in image.boxes]
                best = int(np.argmax(overlaps)) if overlaps else 0
                rows.append((number, box, best if overlaps and overlaps[best] >= threshold else None, False))
        maps = np.concatenate([aligned(levels[number], box[None], 7) for number, box, *_ in rows])
        logits, deltas = self.box_head(stage, maps, training=True)
        entropy = distance = masks = positives = 0.0
        following: list = [[] for _ in images]
        for row, (number, box, target, is_object) in enumerate(rows):
            label = self.classes if target is None else int(images[number].labels[target])
            entropy += np.log(np.exp(logits[row]).sum()) - logits[row, label]
            if target is not None:
                goal = images[number].boxes[target]
                distance += 10 * (1 - giou(decode(box, deltas[row, label], STDS[stage]), goal))
                answer = self.mask_head(stage, aligned(levels[number], box[None], 14))[0, label]
                masks += entropies(answer, targets(number, box, target)).mean()
                positives += 1
            chosen = int(logits[row, :-1].argmax()) if target is None else label
            if not is_object:
                following[number].append(clip(decode(box, deltas[row, chosen], STDS[stage]), images[number].size))
        count = len(rows)
        losses = {"box_class": (entropy, count), "box_regression": (distance, count), "mask": (masks, positives)}
        return losses, [np.array(each) for each in following]


def rpn_losses(images: list, answers: list) -> tuple:
    """Of objectness and of deltas, each with the number of anchors."""
    entropy = distance = count = 0.0
    for image, levels in zip(images, answers, strict=True):
        boxes, scores, deltas = (np.concatenate(each) for each in zip(*levels, strict=True))
        height, width = image.size
        inside = [i for i, b in enumerate(boxes) if b[0] >= 0 and b[1] >= 0 and b[2] < width and b[3] < height]
        overlaps = np.array([[iou(boxes[i], truth) for truth in image.boxes] for i in inside]).reshape(len(inside), -1)
        for place, i in enumerate(inside):
            own, target = overlaps[place], None
            if own.max(initial=0) >= 0.7:
                target = int(own.argmax())
            for number, column in enumerate(overlaps.T):
                if column.max() >= 0.3 and own[number] == column.max():
                    target = number
            if target is None and own.max(initial=0) >= 0.3:
                continue  # neither object nor background
            count += 1
            entropy += entropies(scores[i], target is not None)
            if target is not None:
                off = np.abs(deltas[i] - encode(boxes[i], image.boxes[target]))
                distance += np.where(off < 1 / 9, 4.5 * off**2, off - 1 / 18).sum()
    return (entropy, count), (distance, count)


def conv2d(x, weight, bias=None):
    """(..., C, H, W) to (..., O, H, W), zeros around."""
    margin = weight.shape[-1] // 2
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(margin, margin)] * 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[-2:], axis=(-2, -1))
    out = np.einsum("...chwij,ocij->...ohw", windows, weight, optimize=True)
    return out if bias is None else out + bias[:, None, None]


def doubled(x, weight, bias):
    """The transposed convolution of stride 2: (R, C, H, W), (C, O, 2, 2) to (R, O, 2 H, 2 W)."""
    count, _, height, width = x.shape
    out = np.zeros((count, weight.shape[1], 2 * height, 2 * width))
    for i in (0, 1):
        for j in (0, 1):
            out[:, :, i::2, j::2] = np.einsum("rchw,co->rohw", x, weight[:, :, i, j])
    return out + bias[:, None, None]


def nearest(x, size):
    """(C, h, w) to (C, *size) as PyTorch's nearest interpolation."""
    rows, columns = ([i * small // large for i in range(large)] for small, large in zip(x.shape[1:], size, strict=True))
    return x[:, rows][:, :, columns]


def anchors(size, stride, scale):
    """(A, 4) of a map, row by row."""
    boxes = []
    for row in range(size[0]):
        for column in range(size[1]):
            for ratio in RATIOS:
                height = stride * scale * math.sqrt(ratio)
                width = stride * scale / math.sqrt(ratio)
                x, y = column * stride, row * stride
                boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    return np.array(boxes)


def aligned(levels, boxes, side):
    """RoIAlign of boxes (R, 4), each in the map of its level: (R, C, side, side)."""
    maps = []
    for box in boxes:
        scale = math.sqrt((box[2] - box[0]) * (box[3] - box[1]))
        level = min(max(math.floor(math.log2(scale / 56 + 1e-6)), 0), 3)
        maps.append(_aligned(levels[level], np.asarray(box) / STRIDES[level] - 0.5, side))
    return np.stack(maps)


def _aligned(x, box, side):
    sizes = (box[2] - box[0]) / side, (box[3] - box[1]) / side
    across, down = (math.ceil(size) for size in sizes)
    out = np.zeros((len(x), side, side))
    for p in range(side):
        for q in range(side):
            for i in range(down):
                for j in range(across):
                    at_y = box[1] + (p + (i + 0.5) / down) * sizes[1]
                    at_x = box[0] + (q + (j + 0.5) / across) * sizes[0]
                    out[:, p, q] += _bilinear(x, at_y, at_x) / (down * across)
    return out


def _bilinear(x, row, column):
    _, height, width = x.shape
    if not (-1 <= row <= height and -1 <= column <= width):
        return np.zeros(len(x))
    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    top, left = int(row), int(column)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, along = row - top, column - left
    upper = x[:, top, left] * (1 - along) + x[:, top, right] * along
    return upper * (1 - down) + (x[:, bottom, left] * (1 - along) + x[:, bottom, right] * along) * down


def encode(box, goal):
    """What leads from one box to the other."""
    (x, y, width, height), (to_x, to_y, to_width, to_height) = middle(box), middle(goal)
    return np.array([(to_x - x) / width, (to_y - y) / height, math.log(to_width / width), math.log(to_height / height)])


def decode(box, delta, stds):
    """The box after a step."""
    x, y, width, height = middle(box)
    dx, dy, dw, dh = np.asarray(delta) * stds
    most = math.log(1000 / 16)
    width_after, height_after = (side * math.exp(min(max(by, -most), most)) for side, by in ((width, dw), (height, dh)))
    x, y = x + dx * width, y + dy * height
    return np.array([x - width_after / 2, y - height_after / 2, x + width_after / 2, y + height_after / 2])


def middle(box):
    """Centre and sides."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]


def clip(box, size):
    """Within an image of height and width."""
    return np.clip(box, 0, [size[1], size[0], size[1], size[0]])


def iou(one, other):
    shared, union = _shared(one, other)
    return shared / max(union, 1e-6)


def giou(one, other):
    shared, union = _shared(one, other)
    hull = (max(one[2], other[2]) - min(one[0], other[0])) * (max(one[3], other[3]) - min(one[1], other[1]))
    return shared / union - (hull - union) / hull


def _shared(one, other):
    width = max(min(one[2], other[2]) - max(one[0], other[0]), 0)
    height = max(min(one[3], other[3]) - max(one[1], other[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height, sum(areas) - width * height


def nms(pairs, threshold):
    """Of (score, box), the best first, those that none before overlaps by more."""
    kept: list = []
    for score, box in pairs:
        if all(iou(box, other) <= threshold for _, other in kept):
            kept.append((score, box))
    return kept


def entropies(logits, targets):
    """Binary cross-entropy."""
    shares = sigmoid(logits)
    return -np.where(targets, np.log(shares), np.log(1 - shares))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
