"""Vocabularies: tokens by number, with places for padding, for what is unknown, and for beginnings and ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from graphc.errors import AxisError, DTypeError, IndexRangeError, NameClashError
from graphc.frontend.arguments import numpy_type, shown
from graphc.frontend.checked import Count, Natural, checked
from graphc.frontend.config import user_line
from graphc.frontend.data.arrays import as_numpy
from graphc.ir.types import kind_of

PAD, UNK, START, END = range(4)
SPECIAL = ("<pad>", "<unk>", "<start>", "<end>")


class Vocabulary:
    """Tokens and their numbers. The first four are ``<pad>`` (0), ``<unk>`` (1), ``<start>`` (2) and ``<end>`` (3).

    A text cannot mean these four: a token that is spelled like one of them is unknown.

    Args:
        tokens: all others, in their order; they have the numbers from 4 on.

    Shapes: ids are whole numbers from 0 to ``len(vocabulary) - 1``.
    Raises: NameClashError: a token occurs twice, or is one of the four.
    Source: Sutskever et al. 2014, https://arxiv.org/abs/1409.3215, section 3.1.

    >>> words = Vocabulary(["the", "cat"])
    >>> words.ids(["the", "dog", "<end>"]), words.tokens([2, 5, 3])
    ([4, 1, 1], ['<start>', 'cat', '<end>'])
    """

    pad, unk, start, end = PAD, UNK, START, END

    @checked
    def __init__(self, tokens: Iterable[str]) -> None:
        listed = list(tokens)
        self._tokens = [*SPECIAL, *listed]
        self._ids = {token: number for number, token in enumerate(listed, len(SPECIAL))}
        if len(self._ids) < len(listed) or any(token in self._ids for token in SPECIAL):
            twice = next(token for token, count in Counter(self._tokens).items() if count > 1)
            raise NameClashError(
                f"the token {twice!r} is in the vocabulary already", at=user_line(), remedy="give each token once"
            )

    @classmethod
    def learn(cls, texts: Iterable[Iterable[str]], max_tokens: int | None = None, min_count: int = 1) -> Vocabulary:
        """The most frequent tokens of texts; of equally frequent ones the first in the order of their characters.

        Args:
            texts: each a sequence of tokens.
            max_tokens: at most so many, the four special ones included.
            min_count: leave out what occurs less often.
        """
        room = None if max_tokens is None else max_tokens - len(SPECIAL)
        if (room is not None and room < 0) or min_count < 1:
            raise AxisError(
                f"max_tokens is {max_tokens}, min_count {min_count}",
                at=user_line(),
                remedy=f"give max_tokens of at least {len(SPECIAL)} and min_count of at least 1",
            )
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        frequent = [token for token, count in counts.items() if count >= min_count and token not in SPECIAL]
        return cls(sorted(frequent, key=lambda token: (-counts[token], token))[:room])

    def __len__(self) -> int:
        return len(self._tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._tokens)

    def __getitem__(self, number: int) -> str:
        """The token of a number."""
        if not 0 <= number < len(self._tokens):
            raise IndexRangeError(
                f"the vocabulary has the ids 0 to {len(self._tokens) - 1}, not {number}",
                at=user_line(),
                remedy="give ids that this vocabulary made",
            )
        return self._tokens[number]

    def ids(self, tokens: Iterable[str]) -> list[int]:
        """The number of each token, that of ``<unk>`` for those that are not known."""
        known = self._ids
        return [known.get(token, UNK) for token in tokens]

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The token of each number."""
        return [self[int(number)] for number in ids]

    def __repr__(self) -> str:
        return f"<Vocabulary of {len(self)} tokens>"


@checked
def one_hot(ids: Any, size: Count, dtype: Any = "float32") -> NDArray[Any]:
    """Rows of zeros with a 1 at each id: NumPy's form of :func:`graphc.one_hot`, which makes it within a program.

    Args:
        ids: whole numbers, in any shape.
        size: the length of the rows, such as ``len(vocabulary)``.
        dtype: of the result.

    Shapes: that of the ids, then size.
    Raises: IndexRangeError: an id is not from 0 to ``size - 1``.
    Source: Keras ``to_categorical``.

    >>> one_hot([2, 0], 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    places = as_numpy(ids, "the ids of one_hot")
    wrong = places[(places < 0) | (places >= size)]
    if places.dtype.kind not in "iu" or wrong.size:
        shown = wrong.flat[0] if wrong.size else f"of type {places.dtype}"
        raise IndexRangeError(
            f"one_hot: an id is {shown}, rows have {size} places",
            at=user_line(),
            remedy="give whole numbers from 0 to size - 1",
        )
    rows = np.zeros((places.size, size), numpy_type("one_hot", dtype))
    rows[np.arange(places.size), places.ravel()] = 1
    return rows.reshape((*places.shape, size))


@checked
def pad_sequences(
    sequences: Any,
    maxlen: Natural | None = None,
    dtype: Any = "int32",
    padding: str = "pre",
    truncating: str = "pre",
    value: float = 0.0,
) -> NDArray[Any]:
    """Sequences of several lengths as one array.

    Args:
        sequences: lists of numbers, or arrays with time as their first axis.
        maxlen: the length of the result; default that of the longest.
        dtype: of the result.
        padding: where short ones are filled: ``"pre"``, before their first element, or ``"post"``, behind their last.
        truncating: where long ones are cut: ``"pre"`` keeps their ends, ``"post"`` their beginnings.
        value: what is filled in.

    Shapes: (count, maxlen), then the axes of an element.
    Raises: AxisError: another word than ``"pre"`` and ``"post"``, elements of different shapes, or a ``maxlen`` below
        0; DTypeError: elements that are no numbers.
    Source: Keras ``pad_sequences``.

    >>> pad_sequences([[1, 2, 3], [4]], padding="post").tolist()
    [[1, 2, 3], [4, 0, 0]]
    >>> pad_sequences([[1, 2, 3], [4]], maxlen=2).tolist()
    [[2, 3], [0, 4]]
    """
    for name, where in (("padding", padding), ("truncating", truncating)):
        if where not in ("pre", "post"):
            raise AxisError(f"{name} is {where!r}", at=user_line(), remedy="give 'pre' or 'post'")
    if isinstance(sequences, str) or not isinstance(sequences, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise AxisError(
            f"sequences is {shown(sequences)}", at=user_line(), remedy="give lists of numbers: [[1, 2, 3], [4]]"
        )
    rows = [_numbers(sequence, place) for place, sequence in enumerate(cast("Iterable[Any]", sequences))]
    element = next((row.shape[1:] for row in rows if row.size), ())
    for place, row in enumerate(rows):
        if row.ndim == 0 or (row.size and row.shape[1:] != element):
            raise AxisError(
                f"sequence {place} has shape {row.shape}, elements of the others {element}",
                at=user_line(),
                remedy="give sequences whose elements have one shape",
            )
    longest = max((len(row) for row in rows), default=0) if maxlen is None else maxlen
    padded = np.full((len(rows), longest, *element), value, numpy_type("pad_sequences", dtype))
    for target, row in zip(padded, rows, strict=True):
        kept = min(len(row), longest)
        if kept:
            part = row[-kept:] if truncating == "pre" else row[:kept]
            target[slice(longest - kept, None) if padding == "pre" else slice(kept)] = part
    return padded


def _numbers(sequence: Any, place: int) -> NDArray[Any]:
    row = np.asarray(sequence)
    if kind_of(row.dtype) not in "biuf":
        raise DTypeError(
            f"sequence {place} holds {row.dtype}, not numbers",
            at=user_line(),
            remedy="make ids of texts first: WordTokenizer().fit(texts).encode(text)",
        )
    return row
