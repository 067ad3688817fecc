"""Tokenizers: texts as lists of numbers and back, by words, by characters, and by byte pairs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from graphc.errors import AxisError, DTypeError, FileError, GraphcError, GraphError
from graphc.frontend.arguments import shown
from graphc.frontend.checked import Count, Natural, checked, hold_annotations
from graphc.frontend.config import user_line
from graphc.frontend.data import text_bytepairs as bytepairs
from graphc.frontend.data.text_vocabulary import END, PAD, SPECIAL, START, UNK, Vocabulary
from graphc.frontend.files import replace_file

FORMAT = "graphc tokenizer 1"
WORDS = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


class Tokenizer:
    """Base of the tokenizers: the numbers of texts, and the files that keep what was learned.

    Attributes:
        pad, unk, start, end: the ids of ``<pad>``, ``<unk>``, ``<start>`` and ``<end>``.
    """

    kind: ClassVar[str]
    pad, unk, start, end = PAD, UNK, START, END

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        hold_annotations(cls)

    def fit(self, texts: Iterable[str]) -> Self:
        """Learn the vocabulary from texts; what was learned before is forgotten."""
        raise NotImplementedError(f"{type(self).__name__} does not define fit")

    def encode(self, text: str, start: bool = False, end: bool = False) -> list[int]:
        """The ids of a text.

        Args:
            text: any text.
            start, end: whether ``<start>`` stands before and ``<end>`` behind it.
        """
        return [*[START] * start, *self._encode(text), *[END] * end]

    def encode_all(self, texts: Iterable[str], start: bool = False, end: bool = False) -> list[list[int]]:
        """The ids of each text; :func:`pad_sequences` makes one array of them.

        Args:
            texts: any texts.
            start, end: as for :meth:`encode`.
        """
        return [self.encode(text, start, end) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, up to the first ``<end>``; ``<pad>`` and ``<start>`` are left out."""
        kept: list[int] = []
        for number in map(int, ids):
            if number == END:
                break
            if number not in (PAD, START):
                kept.append(number)
        return self._decode(kept)

    def __len__(self) -> int:
        """How many ids there are."""
        raise NotImplementedError(f"{type(self).__name__} does not define __len__")

    def _encode(self, text: str) -> list[int]:
        raise NotImplementedError(f"{type(self).__name__} does not define _encode")

    def _decode(self, ids: Sequence[int]) -> str:
        raise NotImplementedError(f"{type(self).__name__} does not define _decode")

    # files

    def save(self, path: str | Path) -> None:
        """Write what was learned as JSON, all at once.

        Args:
            path: the file; :func:`load_tokenizer` reads it.
        """
        data = {"format": FORMAT, "kind": self.kind, **self._content()}
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            replace_file(target, json.dumps(data, ensure_ascii=False, indent=0).encode())
        except OSError as error:
            raise FileError(
                f"{target} cannot be written: {error.strerror or error}",
                at=user_line(),
                remedy="choose a place that can be written",
            ) from error

    def _content(self) -> dict[str, Any]:
        raise NotImplementedError(f"{type(self).__name__} does not define _content")

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The tokenizer of what a file holds."""
        raise NotImplementedError(f"{cls.__name__} cannot be read from a file")


class _Listed(Tokenizer):
    """What tokenizers with a plain vocabulary share."""

    def __init__(self, max_tokens: Count | None, min_count: Natural, lower: bool) -> None:
        self.max_tokens = max_tokens
        self.min_count = min_count
        self.lower = lower
        self._vocabulary: Vocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """What was learned.

        Raises:
            GraphError: nothing yet.
        """
        if self._vocabulary is None:
            raise GraphError(
                f"{type(self).__name__} has no vocabulary yet", at=user_line(), remedy="call fit(texts), or load a file"
            )
        return self._vocabulary

    def fit(self, texts: Iterable[str]) -> Self:
        """Learn the most frequent tokens of texts."""
        self._vocabulary = Vocabulary.learn(map(self.split, _texts(texts)), self.max_tokens, self.min_count)
        return self

    def split(self, text: str) -> list[str]:
        """A text as tokens, known or not."""
        raise NotImplementedError(f"{type(self).__name__} does not define split")

    def __len__(self) -> int:
        return len(self.vocabulary)

    def _encode(self, text: str) -> list[int]:
        return self.vocabulary.ids(self.split(text))

    def _content(self) -> dict[str, Any]:
        rules = {"max_tokens": self.max_tokens, "min_count": self.min_count, "lower": self.lower}
        return {"rules": rules, "tokens": list(self.vocabulary)[len(SPECIAL) :]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        rules = data["rules"]
        made = cls(max_tokens=rules["max_tokens"], min_count=rules["min_count"], lower=rules["lower"])
        tokens = data["tokens"]
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in cast("list[Any]", tokens)):
            raise TypeError("tokens is no list of texts")
        made._vocabulary = Vocabulary(cast("list[str]", tokens))
        return made


class WordTokenizer(_Listed):
    """Words and punctuation marks as tokens, in lower case unless said otherwise.

    Decoding puts a space between tokens: ``"a cat."`` comes back as ``"a cat ."``.

    Args:
        max_tokens: at most so many ids, the four special ones included: the most frequent words.
        min_count: words that occur less often are unknown.
        lower: whether capitals count as small letters.
        split: a function from a text to its tokens, instead; a file does not keep it.

    Shapes: ``encode`` gives a list of ids.
    Raises: GraphError: there is no vocabulary yet.
    Source: Keras ``TextVectorization``.

    >>> words = WordTokenizer().fit(["The cat sat.", "The dog didn't."])
    >>> words.encode("The cow didn't sit.", start=True, end=True)
    [2, 5, 1, 7, 1, 4, 3]
    >>> words.decode([2, 5, 1, 7, 4, 3, 0])
    "the <unk> didn't ."
    """

    kind = "word"

    def __init__(
        self,
        max_tokens: Count | None = None,
        min_count: Natural = 1,
        lower: bool = True,
        split: Callable[[str], Iterable[str]] | None = None,
    ) -> None:
        super().__init__(max_tokens, min_count, lower)
        self._split = split

    def split(self, text: str) -> list[str]:
        """A text as words and punctuation marks."""
        plain = text.lower() if self.lower else text
        return WORDS.findall(plain) if self._split is None else list(self._split(plain))

    def _decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.vocabulary.tokens(ids))

    def _content(self) -> dict[str, Any]:
        if self._split is not None:
            raise GraphError(
                "a file cannot keep the function split=",
                at=user_line(),
                remedy="save list(tokenizer.vocabulary) yourself",
            )
        return super()._content()


class CharacterTokenizer(_Listed):
    """Each character, or code point of Unicode, as a token.

    Args:
        max_tokens: at most so many ids, the four special ones included: the most frequent characters.
        min_count: characters that occur less often are unknown.
        lower: whether capitals count as small letters.

    Shapes: ``encode`` gives a list of ids, one for each character.
    Raises: GraphError: there is no vocabulary yet.
    Source: Karpathy 2015, The unreasonable effectiveness of recurrent neural networks.

    >>> letters = CharacterTokenizer().fit(["banana"])
    >>> letters.encode("nab"), letters.decode(letters.encode("banana", end=True))
    ([5, 4, 6], 'banana')
    """

    kind = "character"

    def __init__(self, max_tokens: Count | None = None, min_count: Natural = 1, lower: bool = False) -> None:
        super().__init__(max_tokens, min_count, lower)

    def split(self, text: str) -> list[str]:
        """A text as characters."""
        return list(text.lower() if self.lower else text)

    def _decode(self, ids: Sequence[int]) -> str:
        return "".join(self.vocabulary.tokens(ids))


class BytePairTokenizer(Tokenizer):
    """Frequent strings of bytes as tokens: no text is unknown, and every text comes back as it was.

    Pieces (a word with the space before it, a number, punctuation) begin as bytes; pairs of neighbours are merged in
    the order in which they were learned, the most frequent first.

    Args:
        vocabulary_size: at most so many ids: four special ones, 256 bytes, and one for each merge.
        min_count: a pair that occurs less often is not merged.
        trainer: ``"plain"`` learns in Python; ``"tokenizers"`` learns the same in the library of that name
            (``pip install "graphc[text]"``), for large corpora.

    Shapes: ``encode`` gives a list of ids.
    Raises: AxisError: fewer than 260 ids, another trainer; BackendError: the library is not installed.
    Source: Sennrich, Haddow and Birch 2016, https://arxiv.org/abs/1508.07909; over bytes as in Radford et al. 2019,
        Language models are unsupervised multitask learners, section 2.2.

    >>> pairs = BytePairTokenizer(270).fit(["low lower lowest"] * 3)
    >>> [pairs.decode([number]) for number in pairs.encode("slow lower")]
    ['s', 'low', ' lower']
    """

    kind = "byte pairs"

    def __init__(self, vocabulary_size: Count = 8000, min_count: Natural = 2, trainer: str = "plain") -> None:
        bytepairs.check_size(vocabulary_size, len(SPECIAL) + len(bytepairs.BASE))
        if trainer not in ("plain", "tokenizers"):
            raise AxisError(f"trainer is {trainer!r}", at=user_line(), remedy="give 'plain' or 'tokenizers'")
        self.vocabulary_size = vocabulary_size
        self.min_count = min_count
        self.trainer = trainer
        self._set_merges([])

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """What is merged, in the order in which it was learned."""
        return list(self._ranks)

    def _set_merges(self, merges: Iterable[tuple[bytes, bytes]]) -> None:
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._tokens = [bytes((byte,)) for byte in bytepairs.BASE]
        self._ids = {token: number for number, token in enumerate(self._tokens, len(SPECIAL))}
        for left, right in self._ranks:
            if left not in self._ids or right not in self._ids:
                raise ValueError(f"a merge of {left!r} and {right!r}, which do not exist before it")
            if left + right not in self._ids:
                self._ids[left + right] = len(SPECIAL) + len(self._tokens)
                self._tokens.append(left + right)
        self._pieces: dict[str, list[int]] = {}

    def fit(self, texts: Iterable[str]) -> Self:
        """Learn the merges from texts."""
        learn = bytepairs.learn_merges if self.trainer == "plain" else bytepairs.learn_by_library
        counts = bytepairs.count_pieces(_texts(texts))
        self._set_merges(learn(counts, self.vocabulary_size - len(SPECIAL), self.min_count))
        return self

    def __len__(self) -> int:
        return len(SPECIAL) + len(self._tokens)

    def _encode(self, text: str) -> list[int]:
        found: list[int] = []
        for piece in bytepairs.pieces_of(text):
            ids = self._pieces.get(piece)
            if ids is None:
                ids = [self._ids[part] for part in bytepairs.split_piece(piece.encode(errors="replace"), self._ranks)]
                if len(self._pieces) < 100_000:  # pieces come again, all of a large corpus would fill the memory
                    self._pieces[piece] = ids
            found += ids
        return found

    def _decode(self, ids: Sequence[int]) -> str:
        tokens = self._tokens
        if any(not 0 <= number - len(SPECIAL) < len(tokens) and number != UNK for number in ids):
            raise AxisError(
                f"there are the ids 0 to {len(self) - 1}, not {max(ids)}",
                at=user_line(),
                remedy="give ids that this tokenizer made",
            )
        parts = [b"\xef\xbf\xbd" if number == UNK else tokens[number - len(SPECIAL)] for number in ids]
        return b"".join(parts).decode(errors="replace")  # half a character, where ids were cut

    def _content(self) -> dict[str, Any]:
        rules = {"vocabulary_size": self.vocabulary_size, "min_count": self.min_count, "trainer": self.trainer}
        return {"rules": rules, "merges": [f"{left.hex()} {right.hex()}" for left, right in self._ranks]}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        made = cls(**data["rules"])
        merges = [merge.split(" ") for merge in data["merges"]]
        made._set_merges([(bytes.fromhex(left), bytes.fromhex(right)) for left, right in merges])
        return made


@checked
def load_tokenizer(path: str | Path) -> Any:
    """A tokenizer from the file that its ``save`` wrote.

    Args:
        path: the file.

    Shapes: ``encode`` gives a list of ids.
    Raises: FileError: there is no such file, or it is damaged; the error names the line where it can.
    Source: RFC 8259, the JSON format.

    >>> CharacterTokenizer().fit(["ab"]).save("letters.json")
    >>> load_tokenizer("letters.json").encode("ba")
    [5, 4]
    """
    kinds: dict[str, type[Tokenizer]] = {
        cls.kind: cls for cls in (WordTokenizer, CharacterTokenizer, BytePairTokenizer)
    }
    try:
        data: Any = json.loads(Path(path).read_bytes().decode())
        if not isinstance(data, dict) or cast("dict[str, Any]", data).get("format") != FORMAT:
            raise ValueError(f"it does not say format: {FORMAT!r}")
        return kinds[data["kind"]].from_json(cast("dict[str, Any]", data))
    except FileNotFoundError:
        raise FileError(f"there is no file {path}", at=user_line(), remedy="look at the path") from None
    except json.JSONDecodeError as error:
        raise _damaged(path, f"line {error.lineno}: {error.msg}") from None
    except GraphcError as error:
        raise _damaged(path, error.message) from None
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__} {error}") from None


def _damaged(path: str | Path, why: str) -> FileError:
    return FileError(
        f"{path} is no tokenizer that can be read: {why}",
        at=user_line(),
        remedy="take a copy that is whole, or fit the tokenizer again",
    )


def _texts(texts: Iterable[str]) -> Iterable[str]:
    if isinstance(texts, str):
        raise AxisError("fit takes several texts, not one", at=user_line(), remedy="give a list of texts")
    return map(_text, texts)


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise DTypeError(f"fit takes texts, not {shown(text)}", at=user_line(), remedy="give a list of texts")
    return text


__all__ = ["BytePairTokenizer", "CharacterTokenizer", "Tokenizer", "WordTokenizer", "load_tokenizer"]
