"""Published word vectors (word2vec, GloVe, fastText's text files) as first weights of an embedding."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from graphc.errors import AxisError, FileError
from graphc.frontend.checked import checked
from graphc.frontend.config import user_line
from graphc.frontend.data.text_vocabulary import PAD, SPECIAL

Vector = NDArray[np.float32]

MOST_NUMBERS = 1 << 16
"""A vector with more numbers is taken for a damaged header."""
BLOCK = 1 << 20
_HEADER = re.compile(rb"\s*(\d+)\s+(\d+)\s*")
_NUMBER = re.compile(rb"[-+]?\d*\.\d+(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, eq=False)
class WordVectors:
    """A table for an embedding, and how much of it a file knew.

    Attributes:
        table: a row for each token; ``layers.Embedding(*vectors.table.shape, weights=vectors.table)`` takes it.
        found: the tokens whose rows come from the file.
        missing: the other tokens, without the special ones; their rows are random, with the mean and spread of the
            rows that were found.
        words: how many words the file holds.
        repeated: how many of the tokens it holds more than once; the first one counts.
    """

    table: Vector
    found: tuple[str, ...]
    missing: tuple[str, ...]
    words: int
    repeated: int

    @property
    def coverage(self) -> float:
        """How much of the vocabulary was found, from 0 to 1."""
        total = len(self.found) + len(self.missing)
        return len(self.found) / total if total else 0.0

    def __str__(self) -> str:
        total = len(self.found) + len(self.missing)
        text = (
            f"{len(self.found):,} of {total:,} tokens ({self.coverage:.1%}) have vectors of {self.table.shape[1]} "
            f"numbers, out of {self.words:,} words"
        )
        if self.missing:
            text += f"; {len(self.missing):,} begin at random, such as {', '.join(map(repr, self.missing[:5]))}"
        return text + (f"; {self.repeated:,} occur more than once" if self.repeated else "")


@checked
def load_word_vectors(path: str | Path, vocabulary: Iterable[str], format: str = "auto", seed: int = 0) -> WordVectors:
    r"""The vectors of a vocabulary's tokens, from a file of word2vec or GloVe.

    Args:
        path: the file; ``.gz`` is unpacked while it is read.
        vocabulary: tokens in the order of their ids, such as ``tokenizer.vocabulary``.
        format: ``"text"``: a word and its numbers on each line (GloVe), perhaps behind a line with how many words and
            numbers there are (word2vec); ``"binary"``: word2vec's; ``"auto"``: binary if the name ends in ``.bin``.
        seed: decides the rows that are not found.

    Shapes: the table is (len(vocabulary), numbers of a vector), float32; the row of ``<pad>`` is zeros.
    Raises: FileError: there is no such file, or it is damaged; the error names the line, or the word of a binary file.
    Source: Mikolov et al. 2013, https://arxiv.org/abs/1301.3781; Pennington et al. 2014,
        https://nlp.stanford.edu/projects/glove/.

    >>> _ = Path("tiny.txt").write_text("cat 0.5 1 2\ndog 0.1 0 -1\n")
    >>> vectors = load_word_vectors("tiny.txt", ["<pad>", "dog", "cow"])
    >>> print(vectors)
    1 of 2 tokens (50.0%) have vectors of 3 numbers, out of 2 words; 1 begin at random, such as 'cow'
    >>> vectors.table[:2].tolist()
    [[0.0, 0.0, 0.0], [0.10000000149011612, 0.0, -1.0]]
    """
    if format not in ("auto", "text", "binary"):
        raise AxisError(f"format is {format!r}", at=user_line(), remedy="give 'auto', 'text' or 'binary'")
    target = Path(path)
    packed = target.suffix == ".gz"
    plain = target.with_suffix("") if packed else target
    tokens = list(vocabulary)
    wanted = {token.encode(): place for place, token in enumerate(tokens)}
    rows: dict[int, Vector] = {}
    words = repeated = 0
    try:
        with cast("BinaryIO", gzip.open(target) if packed else open(target, "rb")) as file:
            binary = format == "binary" or (format == "auto" and plain.suffix == ".bin")
            read = _read_binary(file, wanted) if binary else _read_text(file, wanted)
            size = next(read)
            for place, values in read:
                words += 1
                if place is None:
                    continue
                if place in rows:
                    repeated += 1
                else:
                    rows[place] = values
    except _Damaged as error:
        raise FileError(
            f"{target}: {error}", at=user_line(), remedy="take a copy that is whole, or say its format"
        ) from None
    except FileNotFoundError:
        raise FileError(f"there is no file {target}", at=user_line(), remedy="look at the path") from None
    except (OSError, EOFError) as error:
        raise FileError(
            f"{target} cannot be read: {error}", at=user_line(), remedy="take a copy that is whole"
        ) from None
    table = _fill(rows, len(tokens), size, seed)
    if tokens and tokens[PAD] == SPECIAL[PAD]:
        table[PAD] = 0
    known = [(token, place in rows) for place, token in enumerate(tokens) if token not in SPECIAL]
    found = tuple(token for token, is_found in known if is_found)
    return WordVectors(table, found, tuple(token for token, is_found in known if not is_found), words, repeated)


class _Damaged(Exception):
    """What is wrong with a file, and where."""


def _fill(rows: dict[int, Vector], count: int, size: int, seed: int) -> Vector:
    """The rows in one table, the others drawn like them. Each row's numbers depend on its place alone."""
    known = np.array(list(rows.values()), np.float32).reshape(-1, size)
    mean, spread = (known.mean(), known.std()) if len(rows) else (0.0, 0.05)
    table = np.random.default_rng(seed).normal(mean, spread, (count, size)).astype(np.float32)
    table[list(rows)] = known
    return table


def _read_text(file: BinaryIO, wanted: dict[bytes, int]) -> Iterator[Any]:
    """The size of vectors, then for each word its place in the vocabulary, or None, and its vector."""
    first = file.readline()
    header = _HEADER.fullmatch(first)
    promised = int(header[1]) if header else None
    size = int(header[2]) if header else len(first.split()) - 1
    if not 0 < size <= MOST_NUMBERS:
        raise _Damaged(f"line 1 tells of vectors of {size} numbers" if first else "the file is empty")
    yield size
    count = 0
    lines = enumerate(file, 2) if header else enumerate(_chain(first, file), 1)
    number = 1
    for number, line in lines:
        parts = line.rstrip().rsplit(b" ", size)
        if not line.strip() and promised is not None and count == promised:
            continue  # an empty line behind the last word
        _check_line(parts, size, number, header is not None)
        count += 1
        place = wanted.get(parts[0])
        yield place, None if place is None else _numbers(parts[1:], number)
    if promised is not None and count != promised:
        raise _Damaged(f"line 1 promises {promised:,} words, there are {count:,} up to line {number}")


def _chain(first: bytes, file: BinaryIO) -> Iterator[bytes]:
    yield first
    yield from file


def _check_line(parts: list[bytes], size: int, number: int, single: bool) -> None:
    """Words of GloVe may hold spaces, but none ends in a number with a point: then there are too many."""
    if len(parts) <= size or not parts[0]:
        found = max(len(parts) - 1, 0)
        raise _Damaged(f"line {number} has {found} numbers behind its word, the lines before it {size}")
    if b" " in parts[0] and (single or _NUMBER.fullmatch(parts[0].rpartition(b" ")[2])):
        found = size + parts[0].count(b" ")
        raise _Damaged(f"line {number} has {found} values behind its word, the lines before it {size}")


def _numbers(parts: list[bytes], number: int) -> Vector:
    try:
        with np.errstate(over="ignore"):
            values = np.array([float(part) for part in parts], np.float64).astype(np.float32)
    except ValueError as error:
        raise _Damaged(f"line {number}: {error}") from None
    if not np.isfinite(values).all():
        raise _Damaged(f"line {number} holds numbers that are not finite in single precision")
    return values


def _read_binary(file: BinaryIO, wanted: dict[bytes, int]) -> Iterator[Any]:
    """As :func:`_read_text`, from word2vec's binary form: a header line, then words and numbers of 4 bytes."""
    header = _HEADER.fullmatch(file.readline(100))
    count, size = (int(header[1]), int(header[2])) if header else (0, 0)
    if header is None or not 0 < size <= MOST_NUMBERS:
        raise _Damaged("line 1 is no header with how many words and numbers there are")
    yield size
    held, at = b"", 0
    for number in range(1, count + 1):
        while (space := held.find(b" ", at)) < 0 or len(held) < space + 1 + 4 * size:
            more = file.read(BLOCK)
            if not more or (space < 0 and len(held) - at > BLOCK):
                raise _Damaged(f"line 1 promises {count:,} words, the file ends within word {number:,}")
            held, at = held[at:] + more, 0
        place = wanted.get(held[at:space].lstrip(b"\n"))
        at = space + 1 + 4 * size
        values = None
        if place is not None:
            values = np.frombuffer(held, "<f4", size, space + 1).copy()
            if not np.isfinite(values).all():
                raise _Damaged(f"word {number:,} has numbers that are not finite")
        yield place, values
