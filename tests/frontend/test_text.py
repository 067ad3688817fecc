"""Text as numbers: tokenizers, padding, buckets and word vectors against what they are defined by."""

from __future__ import annotations

import gzip
import json
import random
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import graphc as gx
from graphc import data, layers
from graphc.errors import AxisError, BackendError, FileError, GraphcError, GraphError, IndexRangeError, NameClashError
from graphc.frontend.data import text_bytepairs as bytepairs
from graphc.frontend.data.batches import IterableBatches

TEXTS = [
    "The cat sat on the mat; the cat didn't move.",
    "A naïve café owner's 2nd cat, don\u2019t ask!",
    "数字 и слова: 12 345, _under_score_  and\ttabs\n\nnew lines ",
    "",
]


def made(kind):
    if kind == "word":
        return data.WordTokenizer().fit(TEXTS)
    if kind == "character":
        return data.CharacterTokenizer().fit(TEXTS)
    return data.BytePairTokenizer(300).fit(TEXTS * 2)


# vocabularies


def test_a_vocabulary_counts_and_breaks_ties_by_spelling():
    words = data.Vocabulary.learn([["b", "a", "c"], ["c", "<end>", "d"]], max_tokens=7)
    assert list(words) == ["<pad>", "<unk>", "<start>", "<end>", "c", "a", "b"]
    assert words.ids(["c", "d", "<end>", "<pad>"]) == [4, 1, 1, 1]
    assert ("a" in words, "d" in words, "<pad>" in words, len(words)) == (True, False, False, 7)
    assert list(data.Vocabulary.learn([["b", "a", "a"]], min_count=2))[4:] == ["a"]
    for wrong in (-1, 7):
        with pytest.raises(IndexRangeError, match=f"not {wrong}"):
            words.tokens([wrong])
    for tokens in (["a", "a"], ["<end>"]):
        with pytest.raises(NameClashError, match=tokens[-1]):
            data.Vocabulary(tokens)
    with pytest.raises(AxisError, match="max_tokens is 3"):
        data.Vocabulary.learn([], max_tokens=3)


# tokenizers


def test_words_and_marks():
    words = made("word")
    assert words.split("The cat's 2nd mat, <end>") == ["the", "cat's", "2nd", "mat", ",", "<", "end", ">"]
    ids = words.encode("the CAT flew.", start=True, end=True)
    assert words.vocabulary.tokens(ids) == ["<start>", "the", "cat", "<unk>", ".", "<end>"]
    assert words.decode([*ids, 0, 0, 7]) == "the cat <unk> ."
    spaced = data.WordTokenizer(split=str.split, lower=False).fit(["A b. A"])
    assert list(spaced.vocabulary)[4:] == ["A", "b."]
    assert spaced.encode("<end> A") == [1, 4]


@pytest.mark.parametrize("kind", ["character", "byte pairs"])
def test_every_text_comes_back(kind):
    tokenizer = made(kind)
    for text in TEXTS:
        ids = tokenizer.encode(text, start=True, end=True)
        assert tokenizer.decode(ids) == text
        assert ids[0] == tokenizer.start
        assert ids[-1] == tokenizer.end
        assert all(3 < number < len(tokenizer) for number in ids[1:-1])


def test_byte_pairs_know_every_text():
    tokenizer = data.BytePairTokenizer(280).fit(["only plain words, words, words"] * 3)
    chance = random.Random(0)
    for _ in range(50):
        text = "".join(chr(chance.choice([*range(1, 0x250), *range(0x4E00, 0x4E40), *range(0x1F600, 0x1F640)]))
                       for _ in range(40))  # fmt: skip
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode([1]) == "\ufffd"
    with pytest.raises(AxisError, match="0 to"):
        tokenizer.decode([len(tokenizer)])


def learn_slowly(pieces, size, min_count):
    """Byte pairs as their definition says: count all pairs anew for each merge."""
    tokens = [bytes((byte,)) for byte in bytepairs.BASE]
    words = {piece: [bytes((byte,)) for byte in piece.encode()] for piece in pieces}
    merges = []
    while len(tokens) < size:
        counts = Counter()
        for piece, word in words.items():
            for pair in pairwise(word):
                counts[pair] += pieces[piece]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], tokens.index(pair[0]), tokens.index(pair[1])))
        if counts[best] < min_count:
            break
        merges.append(best)
        if b"".join(best) not in tokens:
            tokens.append(b"".join(best))
        for word in words.values():
            place = 0
            while place < len(word) - 1:
                if (word[place], word[place + 1]) == best:
                    word[place : place + 2] = [word[place] + word[place + 1]]
                place += 1
    return merges, words


def corpus(seed):
    chance = random.Random(seed)
    words = ["".join(chance.choices("abcaé", k=chance.randint(1, 9))) for _ in range(40)]
    return [" ".join(chance.choices(words, k=60)) for _ in range(6)]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_merges_are_those_of_counting_anew(seed):
    pieces = bytepairs.count_pieces(corpus(seed))
    slow, words = learn_slowly(pieces, 330, 2)
    found = bytepairs.learn_merges(pieces, 330, 2)
    assert found == slow
    assert len(found) > 40
    ranks = {pair: rank for rank, pair in enumerate(found)}
    assert {piece: bytepairs.split_piece(piece.encode(), ranks) for piece in pieces} == words


@pytest.mark.parametrize("seed", [3, 4])
def test_the_library_learns_the_same(seed):
    library = pytest.importorskip("tokenizers")
    texts = [*corpus(seed), *TEXTS, "sum += x_1 ** 2  # it's 3.14"]
    plain = data.BytePairTokenizer(340).fit(texts)
    fast = data.BytePairTokenizer(340, trainer="tokenizers").fit(texts)
    assert fast.merges == plain.merges
    shown = {byte: bytepairs._shown(place) for place, byte in enumerate(bytepairs.BASE)}

    def write(token):
        return "".join(shown[byte] for byte in token)

    vocabulary = {write(token): number for number, token in enumerate(plain._tokens)}
    model = library.Tokenizer(library.models.BPE(vocabulary, [(write(a), write(b)) for a, b in plain.merges]))
    model.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in texts:
        theirs = [number for piece in bytepairs.pieces_of(text) for number in model.encode(piece).ids]
        assert [number - 4 for number in plain.encode(text)] == theirs


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(BackendError, match="not installed") as caught:
        data.BytePairTokenizer(trainer="tokenizers").fit(TEXTS)
    assert 'pip install "graphc[text]"' in str(caught.value)


@pytest.mark.parametrize("kind", ["word", "character", "byte pairs"])
def test_a_file_brings_a_tokenizer_back(kind, tmp_path):
    tokenizer = made(kind)
    path = tmp_path / "deep" / "tokenizer.json"
    tokenizer.save(path)
    again = data.load_tokenizer(path)
    assert type(again) is type(tokenizer)
    for text in [*TEXTS, "an unknown ☃ thing"]:
        assert again.encode(text) == tokenizer.encode(text)
    before = path.read_bytes()
    again.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["tokenizer.json"]


GOOD = {"format": "graphc tokenizer 1", "kind": "word", "tokens": ["a"],
        "rules": {"max_tokens": None, "min_count": 1, "lower": True}}  # fmt: skip
MERGING = {"format": "graphc tokenizer 1", "kind": "byte pairs",
           "rules": {"vocabulary_size": 300, "min_count": 2, "trainer": "plain"}}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{\n"format": "graphc tokenizer 1",\n"kind": \n}', "line 4"),
        ("[]", "format"),
        ('{"format": "another"}', "format"),
        ("\x00", "line 1"),
        (json.dumps({**GOOD, "kind": "rune"}), "rune"),
        (json.dumps({**GOOD, "tokens": ["a", "a"]}), "'a'"),
        (json.dumps({**GOOD, "tokens": ["a", 1]}), "tokens"),
        (json.dumps({**GOOD, "tokens": "abc"}), "tokens"),
        (json.dumps({**GOOD, "rules": {}}), "max_tokens"),
        (json.dumps({**MERGING, "merges": ["61 zz"]}), "hexadecimal"),
        (json.dumps({**MERGING, "merges": ["6161 61"]}), "do not exist"),
        (json.dumps({**MERGING, "merges": ["61"]}), "unpack"),
        (json.dumps({**MERGING, "rules": {"trainer": "other"}, "merges": []}), "trainer"),
    ],
)
def test_a_damaged_file_is_one_clear_error(text, says, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(FileError) as caught:
        data.load_tokenizer(path)
    assert says in str(caught.value)
    assert "to do: " in str(caught.value)
    assert caught.value.__cause__ is None


def test_files_that_are_not_there_or_cannot_be(tmp_path):
    with pytest.raises(FileError, match="no file"):
        data.load_tokenizer(tmp_path / "none.json")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be written"):
        made("word").save(tmp_path / "file" / "below.json")
    path = tmp_path / "bytes.json"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FileError, match="can be read"):
        data.load_tokenizer(path)


@pytest.mark.parametrize(
    ("error", "call"),
    [
        (GraphError, lambda: data.WordTokenizer().encode("a")),
        (GraphError, lambda: data.WordTokenizer(split=str.split).fit(["a"]).save("never.json")),
        (AxisError, lambda: data.WordTokenizer().fit("one text")),
        (AxisError, lambda: data.BytePairTokenizer(259)),
        (AxisError, lambda: data.BytePairTokenizer(trainer="fast")),
    ],
)
def test_mistakes_with_tokenizers(error, call):
    with pytest.raises(error) as caught:
        call()
    assert "test_text.py" in str(caught.value)


# padding


def pad_by_definition(sequences, maxlen, padding, truncating, value):
    longest = max(map(len, sequences)) if maxlen is None else maxlen
    rows = []
    for row in sequences:
        row = list(row)[-longest:] if truncating == "pre" else list(row)[:longest]
        fill = [value] * (longest - len(row))
        rows.append(fill + row if padding == "pre" else row + fill)
    return rows


@pytest.mark.parametrize("padding", ["pre", "post"])
@pytest.mark.parametrize("truncating", ["pre", "post"])
@pytest.mark.parametrize("maxlen", [None, 1, 3, 9])
def test_padding(padding, truncating, maxlen):
    rows = [[1, 2, 3, 4], [], [5], [6, 7]]
    found = data.pad_sequences(rows, maxlen, "float32", padding, truncating, value=-1)
    assert found.dtype == np.float32
    assert found.tolist() == pad_by_definition(rows, maxlen, padding, truncating, -1)


def test_padding_of_vectors_and_mistakes():
    found = data.pad_sequences([np.ones((2, 3)), np.ones((1, 3))], dtype="float32")
    assert found.shape == (2, 2, 3)
    assert found.sum(-1).tolist() == [[3, 3], [0, 3]]
    assert data.pad_sequences([[], []]).shape == (2, 0)
    for wrong in ({"padding": "left"}, {"truncating": "both"}):
        with pytest.raises(AxisError, match=next(iter(wrong.values()))):
            data.pad_sequences([[1]], **wrong)
    for rows in ([np.ones((2, 3)), np.ones((1, 2))], [1, 2]):
        with pytest.raises(AxisError, match="shape"):
            data.pad_sequences(rows)


def test_one_hot():
    ids = np.random.default_rng(0).integers(0, 5, (3, 4))
    np.testing.assert_array_equal(data.one_hot(ids, 5), np.eye(5)[ids])
    for wrong in ([5], [-1], [0.5]):
        with pytest.raises(IndexRangeError):
            data.one_hot(wrong, 5)


# buckets


def samples(count, seed=0, longest=30):
    chance = np.random.default_rng(seed)
    rows = [chance.integers(1, 9, chance.integers(1, longest)).tolist() for _ in range(count)]
    return rows, np.arange(count)


@pytest.mark.parametrize("boundaries", [None, [5, 10, 20]])
def test_buckets_hold_every_sample_once_among_similar_ones(boundaries):
    rows, y = samples(103)
    batches = data.BucketBatches(rows, y, batch_size=8, boundaries=boundaries, seed=1)
    seen = []
    padding = total = 0
    for index in range(len(batches)):
        x, labels = batches[index]
        assert x.shape[0] == len(labels) <= 8
        lengths = [len(rows[label]) for label in labels]
        assert x.shape[1] == max(lengths)
        assert x.tolist() == data.pad_sequences([rows[label] for label in labels], padding="post").tolist()
        if boundaries:
            assert len({int(np.searchsorted(boundaries, n)) for n in lengths}) == 1
        seen += labels.tolist()
        padding += int((x == 0).sum())
        total += x.size
    assert sorted(seen) == y.tolist()
    assert batches.padding_share == pytest.approx(padding / total)
    assert batches.padding_share < (0.2 if boundaries else 0.07)
    again = data.BucketBatches(rows, y, batch_size=8, boundaries=boundaries, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(batches.cuts, again.cuts, strict=True))
    other = data.BucketBatches(rows, y, batch_size=8, boundaries=boundaries, seed=2)
    assert not all(np.array_equal(a, b) for a, b in zip(batches.cuts, other.cuts, strict=True))


def test_buckets_of_pairs():
    """Two inputs and targets, all sequences, by the longest input; lengths in multiples."""
    source, _ = samples(20, 1)
    target, _ = samples(20, 2)
    shifted = [[2, *row] for row in target]
    batches = data.BucketBatches({"s": source, "t": shifted}, [[*row, 3] for row in target], 4, multiple=8)
    for index in range(len(batches)):
        x, y = batches[index]
        assert list(x) == ["s", "t"]
        assert x["t"].shape == y.shape
        assert x["s"].shape[1] % 8 == y.shape[1] % 8 == 0
        np.testing.assert_array_equal(x["t"][:, 1:][y[:, :-1] != 3], y[:, :-1][y[:, :-1] != 3])
    as_tuple = data.BucketBatches((source, shifted), batch_size=4)
    (parts,) = as_tuple[0]
    assert isinstance(parts, list)
    assert [part.shape[0] for part in parts] == [4, 4]


def test_training_in_buckets_goes_on_where_it_stopped():
    """The batches of an epoch after a stop are those that would have come."""
    rows, y = samples(50)
    batches = data.BucketBatches(rows, y.astype(np.float32), batch_size=8, workers=2)

    def run(epoch, start):
        order = lambda number, count: np.random.default_rng(number).permutation(count)  # noqa: E731
        source = IterableBatches(batches, lambda item: [np.asarray(part) for part in item], order=order)
        source.seek(start)
        return [[part.copy() for part in batch] for batch in source.epoch(epoch, start)]

    whole, rest, other = run(0, 0), run(0, 4), run(1, 0)
    assert len(whole) == 7
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(whole[4:], rest, strict=True))
    assert any(a[0].shape != b[0].shape for a, b in zip(whole, other, strict=True))


def test_a_model_trains_on_buckets():
    """How often a token occurs, learned from padded ids: the mask leaves the padding out."""
    chance = np.random.default_rng(0)
    rows = [chance.integers(1, 5, chance.integers(1, 12)).tolist() for _ in range(256)]
    y = np.array([[row.count(2)] for row in rows], np.float32)
    gx.set_seed(0)
    x = gx.Input((None,), dtype="int64")
    counted = layers.Lambda(lambda v: gx.sum(v, axis=1))(layers.Embedding(5, 1)(x))
    model = gx.Model(x, counted)
    model.compile(gx.optimizers.Adam(0.1), "mse")
    batches = data.BucketBatches(rows, y, batch_size=32, value=0)
    history = model.fit(batches, epochs=20, verbose=0)
    assert history.history["loss"][-1] < 0.02
    table = model.get_weights()[0].ravel()
    np.testing.assert_allclose(table, [0, 0, 1, 0, 0], atol=0.1)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"boundaries": [3, 3]}, {"boundaries": [0, 2]}, {"multiple": 0}])
def test_mistakes_with_buckets(wrong):
    with pytest.raises(AxisError):
        data.BucketBatches([[1]], **wrong)
    for x, y in (([[1], [2]], [1]), ([], None)):
        with pytest.raises(GraphcError, match="samples"):
            data.BucketBatches(x, y)


# word vectors

WORDS = ["cat", "naïve", "dog", ". .", "cat"]
NUMBERS = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
VOCABULARY = data.Vocabulary(["dog", "cat", "cow", "naïve"])


def as_text(header):
    lines = [f"{word} {' '.join(map(repr, map(float, row)))}" for word, row in zip(WORDS, NUMBERS, strict=True)]
    if header:
        lines = [line for line in lines if not line.startswith(". .")]
    return "\n".join(([f"{len(lines)} 6"] if header else []) + lines).encode() + b"\n"


def as_binary(separator):
    rows = b"".join(
        word.encode() + b" " + row.astype("<f4").tobytes() + separator
        for word, row in zip(WORDS, NUMBERS, strict=True)
        if word != ". ."
    )
    return b"4 6\n" + rows


FILES = {
    "glove.txt": as_text(False),
    "word2vec.txt": as_text(True),
    "word2vec.bin": as_binary(b"\n"),
    "tight.bin": as_binary(b""),
    "packed.txt.gz": gzip.compress(as_text(False)),
    "packed.bin.gz": gzip.compress(as_binary(b"\n")),
}


@pytest.mark.parametrize("name", FILES)
def test_vectors_come_from_every_form(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    vectors = data.load_word_vectors(path, VOCABULARY)
    assert (vectors.found, vectors.missing) == (("dog", "cat", "naïve"), ("cow",))
    assert vectors.words == (5 if "glove" in name or "txt.gz" in name else 4)
    assert vectors.repeated == 1
    assert vectors.coverage == 0.75
    assert vectors.table.shape == (8, 6)
    assert vectors.table.dtype == np.float32
    np.testing.assert_array_equal(vectors.table[[4, 5, 7]], NUMBERS[[2, 0, 1]])
    assert not vectors.table[0].any()
    assert vectors.table[6].any()
    again = data.load_word_vectors(path, VOCABULARY)
    np.testing.assert_array_equal(vectors.table, again.table)
    assert "3 of 4 tokens (75.0%)" in str(vectors)
    layer = layers.Embedding(*vectors.table.shape, weights=vectors.table)
    ids = gx.placeholder("ids", ("n",), "int64")
    found = gx.compile({"v": layer(ids)}, inputs=[ids], backend="reference")(ids=np.array([5, 4]))["v"]
    np.testing.assert_array_equal(found, NUMBERS[[0, 2]])


BROKEN = {
    "short.txt": (b"a 1 2 3\nb 1 2\n", "line 2"),
    "long.txt": (b"a 1 2 3\nb 0.1 0.2 0.3 0.4\n", "line 2"),
    "long2.txt": (b"2 3\na 1 2 3\nb 1 2 3 4\n", "line 3"),
    "words.txt": (b"a 1 2 3\ncat 1 x 3\n", "line 2"),
    "nan.txt": (b"a 1 2 3\ncat 1 nan 3\n", "line 2"),
    "big.txt": (b"a 1 2 3\ncat 1 1e39 3\n", "line 2"),
    "hole.txt": (b"a 1 2 3\n\ncat 1 2 3\n", "line 2"),
    "fewer.txt": (b"3 3\na 1 2 3\nb 1 2 3\n", "3 words"),
    "more.txt": (b"1 3\na 1 2 3\nb 1 2 3\n", "1 words"),
    "empty.txt": (b"", "empty"),
    "single.txt": (b"word\n", "line 1"),
    "wide.txt": (b"1 99999999999\n", "line 1"),
    "cut.bin": (as_binary(b"\n")[:-7], "word 4"),
    "promise.bin": (b"9" + as_binary(b"\n"), "word 5"),
    "none.bin": (b"hello\n", "line 1"),
    "wide.bin": (b"1 99999999999\nword", "line 1"),
    "infinite.bin": (b"1 2\ncat " + np.float32([np.inf, 0]).tobytes(), "word 1"),
    "cut.txt.gz": (gzip.compress(as_text(False))[:-9], "cannot be read"),
    "none.txt.gz": (b"plain", "cannot be read"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_of_vectors_names_the_place(name, tmp_path):
    content, says = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        data.load_word_vectors(path, VOCABULARY)
    assert says in str(caught.value)
    assert name in str(caught.value)
    assert "to do: " in str(caught.value)


def test_vectors_that_are_not_there():
    with pytest.raises(FileError, match="no file"):
        data.load_word_vectors(Path("none.txt"), VOCABULARY)
    with pytest.raises(AxisError, match="format"):
        data.load_word_vectors("none.txt", VOCABULARY, format="glove")
