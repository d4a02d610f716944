"""Images with questions as examples: each image on a canvas, the questions as tokens, the answers as soft scores."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from s3_jax.data.canvases import canvas_of, on_canvas
from s3_jax.data.rescaling import Scale, Size, normalized, rescaled_size, resized_to
from s3_jax.data.sources import decode
from s3_jax.data.splits import Subset
from s3_jax.data.stream import Example, Examples
from s3_jax.vqa.answers import soft_scores
from s3_jax.vqa.config import VqaAugmentConfig, VqaDataConfig
from s3_jax.vqa.questions import Question
from s3_jax.vqa.words import Words


class AskedExamples(Examples):
    """The examples of a subset: for training where `augment` is given, else for evaluation.

    "image": float32 (H, W, 3), normalised, at the top left of its canvas, and 0 beyond. "size": int32 (2,), height and
    width of what is there. "words": int32 (Q, L), the tokens of Q = `data.questions_per_image` questions. "asked":
    float32 (Q,), 1 for questions and 0 for padding. For training also "scores": float32 (Q, A), of the A answers.
    """

    def __init__(
        self,
        subset: Subset,
        data: VqaDataConfig,
        words: Words,
        answers: Sequence[str],
        *,
        augment: VqaAugmentConfig | None = None,
    ) -> None:
        self.subset, self.data, self.words, self.augment = subset, data, words, augment
        self.places = {answer: number for number, answer in enumerate(answers)}
        self.scale: Scale = (augment.long_side, augment.short_sides[1]) if augment else data.test_scale

    def group(self, row: int) -> Size:
        """The canvas of an image: that on which the largest view of it fits. Raises BadImage, and S3Error for none."""
        if len(self.data.canvases) == 1:  # so no image has to be looked at
            return self.data.canvases[0]
        height, width = self.subset.source.size(int(self.subset.indices[row]))
        return canvas_of(rescaled_size(height, width, self.scale), self.data.canvases)

    def blank(self, group: Hashable = None) -> Example:
        """An example of zeros on a canvas, or on the first of all where that is None."""
        canvas = self.data.canvases[0] if group is None else group
        return {"image": np.zeros((*canvas, 3), np.float32), "size": np.zeros(2, np.int32)} | self._asked(())  # type: ignore[misc]

    def example(self, row: int, rng: np.random.Generator | None) -> Example:
        """An image on its canvas with questions about it. Raises BadImage."""
        image, questions = self.subset.source[int(self.subset.indices[row])]
        pixels = np.asarray(decode(image))
        height, width = rescaled_size(pixels.shape[0], pixels.shape[1], self._scale(rng))
        seen = normalized(resized_to(pixels, (height, width)), self.data.mean, self.data.std)
        shown = on_canvas(seen, self.group(row))
        return {"image": shown, "size": np.array((height, width), np.int32)} | self._asked(questions)

    def _scale(self, rng: np.random.Generator | None) -> Scale:
        if rng is None or self.augment is None:
            return self.scale
        short, most = self.augment.short_sides
        return self.augment.long_side, int(rng.integers(short, most + 1))

    def _asked(self, questions: Sequence[Question]) -> Example:
        count, length = self.data.questions_per_image, self.words.length
        words, asked = np.full((count, length), self.words.padding, np.int32), np.zeros(count, np.float32)
        scores = np.zeros((count, len(self.places)), np.float32)
        for place, question in enumerate(questions):
            words[place], asked[place] = self.words(question.text), 1.0
            scores[place] = soft_scores(question.answers, self.places)
        return {"words": words, "asked": asked} | ({} if self.augment is None else {"scores": scores})
