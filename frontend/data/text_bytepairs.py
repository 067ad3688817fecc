"""Byte pairs: which pairs of tokens to merge, learned from a corpus, and texts split by them."""

from __future__ import annotations

import heapq
import importlib
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graphc.errors import AxisError, BackendError
from graphc.frontend.config import user_line

Pair = tuple[int, int]

PIECES = re.compile(r" ?[^\W\d_]+| ?\d+| ?(?:[^\w\s]|_)+|\s+(?!\S)|\s+")
"""What merges stay within: a word, number or punctuation with the space before it; other white space."""


def _printable() -> list[int]:
    """The bytes that are printed as themselves: letters, digits and signs of Latin-1."""
    return [*range(33, 127), *range(161, 173), *range(174, 256)]


BASE = tuple(_printable()) + tuple(byte for byte in range(256) if byte not in set(_printable()))
"""The 256 tokens that merges begin with, in the order of published byte-level vocabularies."""


def pieces_of(text: str) -> list[str]:
    """A text cut into pieces, whose concatenation it is.

    >>> pieces_of("It's  1 cat.")
    ['It', "'", 's', ' ', ' 1', ' cat', '.']
    """
    return PIECES.findall(text)


def count_pieces(texts: Iterable[str]) -> Counter[str]:
    """How often each piece occurs."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(pieces_of(text))
    return counts


def learn_merges(pieces: Mapping[str, int], size: int, min_count: int = 2) -> list[tuple[bytes, bytes]]:
    """Merge the most frequent pair of neighbours again and again, until there are ``size`` tokens.

    Of equally frequent pairs the one with the smaller numbers comes first. Counts are kept up to date where a merge
    changes them, so that the time grows with the pieces that contain the pair, not with all.

    Source: Sennrich, Haddow and Birch 2016, https://arxiv.org/abs/1508.07909, algorithm 1; over bytes as in Radford et
        al. 2019, Language models are unsupervised multitask learners, section 2.2.

    >>> learn_merges({"abab": 3, "ab": 1}, 258)
    [(b'a', b'b'), (b'ab', b'ab')]
    """
    number = {byte: place for place, byte in enumerate(BASE)}
    words = [[number[byte] for byte in piece.encode(errors="replace")] for piece in pieces]
    counts = list(pieces.values())
    pairs: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in itertools.pairwise(word):
            pairs[pair] += counts[index]
            places[pair].add(index)
    queue = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(queue)
    tokens = [bytes((byte,)) for byte in BASE]
    known = {token: place for place, token in enumerate(tokens)}
    merges: list[tuple[bytes, bytes]] = []
    while queue and len(tokens) < size:
        negative, pair = heapq.heappop(queue)
        count = pairs[pair]
        if count != -negative:  # it has changed since it was noted
            if count > 0:
                heapq.heappush(queue, (-count, pair))
            continue
        if count < min_count:
            break
        left, right = tokens[pair[0]], tokens[pair[1]]
        merged = known.setdefault(left + right, len(tokens))
        if merged == len(tokens):
            tokens.append(left + right)
        merges.append((left, right))
        changed: set[Pair] = set()
        for index in places.pop(pair):
            changed |= _merge_word(words[index], pair, merged, counts[index], index, pairs, places)
        for other in changed:
            heapq.heappush(queue, (-pairs[other], other))
        pairs[pair] = 0
    return merges


def _merge_word(
    word: list[int],
    pair: Pair,
    merged: int,
    count: int,
    index: int,
    pairs: Counter[Pair],
    places: defaultdict[Pair, set[int]],
) -> set[Pair]:
    """Merge a pair within a word; the pairs that came to be."""
    before = list(itertools.pairwise(word))
    place = 0
    while place < len(word) - 1:
        if (word[place], word[place + 1]) == pair:
            word[place : place + 2] = [merged]
        place += 1
    after = list(itertools.pairwise(word))
    for old in before:
        pairs[old] -= count
    for new in after:
        pairs[new] += count
        places[new].add(index)
    return {new for new in after if merged in new}


def learn_by_library(pieces: Mapping[str, int], size: int, min_count: int = 2) -> list[tuple[bytes, bytes]]:
    """The same merges from the ``tokenizers`` library, which learns large corpora faster.

    Raises:
        BackendError: it is not installed.
    """
    try:
        library: Any = importlib.import_module("tokenizers")
    except ImportError:
        raise BackendError(
            'trainer="tokenizers" needs the library tokenizers, which is not installed',
            at=user_line(),
            remedy='pip install "graphc[text]", or leave trainer out',
        ) from None
    model = library.Tokenizer(library.models.BPE())
    model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=min_count,
        show_progress=False,
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
    )
    repeated = (piece for piece, count in pieces.items() for _ in range(count))
    model.train_from_iterator(repeated, trainer)
    table: Sequence[Any] = json.loads(model.to_str())["model"]["merges"]
    split = [tuple(merge.split(" ")) if isinstance(merge, str) else merge for merge in table]
    back = {_shown(place): bytes((byte,)) for place, byte in enumerate(BASE)}
    return [(b"".join(map(back.__getitem__, a)), b"".join(map(back.__getitem__, b))) for a, b in split]


def _shown(place: int) -> str:
    """The character by which the library writes the byte ``BASE[place]``."""
    ordinary = len(_printable())
    return chr(BASE[place] if place < ordinary else 256 + place - ordinary)


def split_piece(piece: bytes, ranks: Mapping[tuple[bytes, bytes], int]) -> list[bytes]:
    """A piece as tokens: of all neighbours that merge, those learned first are merged first.

    >>> split_piece(b"ababc", {(b"a", b"b"): 0, (b"ab", b"ab"): 1})
    [b'abab', b'c']
    """
    parts = [piece[place : place + 1] for place in range(len(piece))]
    never = len(ranks)
    while len(parts) > 1:
        rank, place = min((ranks.get(pair, never), i) for i, pair in enumerate(itertools.pairwise(parts)))
        if rank == never:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def check_size(size: int, least: int) -> None:
    """Refuse a vocabulary that has no room for what it must hold."""
    if size < least:
        raise AxisError(
            f"a vocabulary of {size} tokens does not hold the {least} that every text needs",
            at=user_line(),
            remedy=f"give at least {least}",
        )
