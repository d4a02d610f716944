"""Questions as numbers of tokens: BERT's WordPiece, of a vocabulary that is read or made of the questions."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np

from s3_jax.errors import S3Error
from s3_jax.paths import AnyPath, printable, read_text
from s3_jax.vqa.questions import is_unicode

PAD, UNKNOWN, CLASSIFY, SEPARATE, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_CONTINUES = "##"  # begins a token within a word


@dataclasses.dataclass(frozen=True)
class Words:
    """A tokenizer: its vocabulary in the order of the numbers, and how many tokens a question has.

    Raises S3Error for a vocabulary without BERT's special tokens, or with a token twice. Loader processes get a copy.
    """

    vocabulary: tuple[str, ...]
    length: int

    def __post_init__(self) -> None:
        missing = [token for token in SPECIAL[:-1] if token not in self.vocabulary]
        if missing:
            raise S3Error(f"the vocabulary has no token {missing[0]}: expected one such as BERT's vocab.txt")
        if len(set(self.vocabulary)) < len(self.vocabulary):
            twice = Counter(self.vocabulary).most_common(1)[0][0]
            raise S3Error(f"the vocabulary has the token {twice!r} twice, so its number cannot be told")

    def __call__(self, question: str) -> np.ndarray:
        """A question's tokens, int32 (length,): [CLS], its own, [SEP] and [PAD]; a long one is cut.

        Raises S3Error for what is no Unicode text.
        """
        if not is_unicode(question):
            raise S3Error(f"the question {question!r} is not valid Unicode (half of a surrogate pair); mend its text")
        return np.array(self._tokenizer.encode(question).ids, np.int32)

    def count_unknown(self, questions: Iterable[str]) -> tuple[int, int]:
        """How many words of questions become [UNK], and how many there are, each as often as it occurs.

        Marks are no words: a vocabulary of another language may well have the question mark.
        """
        counts = {word: count for word, count in _counted(questions).items() if any(map(str.isalnum, word))}
        model = self._tokenizer.model
        unknown = (
            count for word, count in counts.items() if [token.value for token in model.tokenize(word)] == [UNKNOWN]
        )
        return sum(unknown), sum(counts.values())

    @property
    def padding(self) -> int:
        """The number of [PAD]."""
        return self.vocabulary.index(PAD)

    @functools.cached_property
    def _tokenizer(self) -> Any:
        tokenizers = _library()
        numbers = {token: number for number, token in enumerate(self.vocabulary)}
        made = tokenizers.Tokenizer(
            tokenizers.models.WordPiece(numbers, unk_token=UNKNOWN, max_input_chars_per_word=100)
        )
        made.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
        ends = ((token, numbers[token]) for token in (SEPARATE, CLASSIFY))
        made.post_processor = tokenizers.processors.BertProcessing(*ends)
        made.enable_truncation(self.length)
        made.enable_padding(length=self.length, pad_id=numbers[PAD], pad_token=PAD)
        return made


def vocabulary_of(questions: Iterable[str]) -> tuple[str, ...]:
    """The vocabulary of questions: special tokens; their words, the most frequent first; the letters, alone and within.

    Equally frequent words are in alphabetical order, so the vocabulary is a function of the questions; the trainer of
    `tokenizers` makes another one each time. Every word of these letters can be put together.
    """
    words = [word for _, word in sorted((-count, word) for word, count in _counted(questions).items())]
    letters = sorted(set("".join(words)))
    return tuple(dict.fromkeys((*SPECIAL, *words, *letters, *(_CONTINUES + letter for letter in letters))))


def _counted(questions: Iterable[str]) -> Counter[str]:
    """How often each word and mark occurs, as BERT tells them apart."""
    tokenizers = _library()
    normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    splitter = tokenizers.pre_tokenizers.BertPreTokenizer()
    return Counter(
        word for question in questions for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(question))
    )


def read_vocabulary(path: AnyPath) -> tuple[str, ...]:
    """The vocabulary of a file, a token a line, as BERT's vocab.txt. Raises S3Error where it is none."""
    found = tuple(read_text(path).rstrip("\n").split("\n"))
    try:
        return Words(found, 3).vocabulary
    except S3Error as error:
        raise S3Error(f"{printable(path)}: {error}") from error


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise S3Error(f"questions need an extra that is not installed ({error}): pip install -e .[vqa]") from error
    return tokenizers
