"""Generated sequences against brute force, NumPy, and what chance allows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import graphc as gx
from graphc.errors import AxisError, DTypeError, GraphError, ShapeError

BACKENDS = ("reference", "numba")
VOCABULARY, UNITS, END = 4, 5, 3


def weights(seed):
    random = np.random.default_rng(seed)
    return [
        random.normal(0, 1.5, s).astype(np.float32) for s in ((VOCABULARY, UNITS), (UNITS, UNITS), (UNITS, VOCABULARY))
    ]


def model(arrays):
    """A recurrent net of a few units, as a step and as a NumPy function of (token, state)."""
    embed, inner, out = (gx.constant(array) for array in arrays)

    def step(tokens, h):
        h = gx.tanh(gx.take(embed, tokens, axis=0) + h @ inner)
        return h @ out, h

    def plain(token, h):
        h = np.tanh(arrays[0][token] + h @ arrays[1])
        logits = (h @ arrays[2]).astype(np.float64)
        return logits - np.log(np.exp(logits).sum()), h

    return step, plain


def walk(plain, start, h, length, choose):
    """One row by itself: tokens up to its end, and their log probability."""
    tokens, total, token = [], 0.0, start
    for _ in range(length):
        log_probs, h = plain(token, h)
        token = choose(log_probs)
        tokens.append(token)
        total += log_probs[token]
        if token == END:
            break
    return tokens, total


def all_sequences(plain, start, h, length):
    """Every sequence that ends or is as long as allowed, with its log probability."""
    found = {}
    for tokens in itertools.product(range(VOCABULARY), repeat=length):
        cut = tokens[: tokens.index(END) + 1] if END in tokens else tokens
        if cut not in found:
            given = iter(cut)
            found[cut] = walk(plain, start, h, len(cut), lambda _, given=given: next(given))[1]
    return found


def penalty(length, alpha):
    return ((5 + length) / 6) ** alpha


def compiled(build, backend, **more):
    start = gx.placeholder("start", ("batch",), "int64")
    state = gx.placeholder("state", ("batch", UNITS))
    out = build(state, start)
    return gx.compile(out._asdict(), inputs=[start, state, *more.values()], backend=backend)


def states(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, UNITS)).astype(np.float32)


@pytest.mark.parametrize("end", [END, None])
@pytest.mark.parametrize("backend", BACKENDS)
def test_greedy_takes_the_likeliest_path(backend, end):
    step, plain = model(weights(1))
    program = compiled(lambda state, start: gx.generation.greedy(step, state, start, 6, end=end, pad=9), backend)
    start, h = np.array([0, 1, 2, 0, 1]), states(5)
    found = program(start=start, state=h)
    lengths = set()
    for row in range(5):
        tokens, total = walk(plain, start[row], h[row], 6, np.argmax) if end else unending(plain, start[row], h[row], 6)
        assert found["tokens"][row].tolist() == tokens + [9] * (6 - len(tokens))
        assert found["lengths"][row] == len(tokens)
        np.testing.assert_allclose(found["log_probs"][row], total, rtol=1e-4, atol=1e-5)
        lengths.add(len(tokens))
    assert (len(lengths) > 1) == (end is not None)


def unending(plain, token, h, length):
    tokens, total = [], 0.0
    for _ in range(length):
        log_probs, h = plain(token, h)
        token = int(np.argmax(log_probs))
        tokens.append(token)
        total += log_probs[token]
    return tokens, total


@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_beam_as_wide_as_all_sequences_finds_the_best(backend, alpha):
    length = 3
    width = VOCABULARY**length
    for seed in (2, 3):
        step, plain = model(weights(seed))
        program = compiled(
            lambda state, start, step=step: gx.generation.beam_search(
                step, state, start, length, width, end=END, length_penalty=alpha
            ),
            backend,
        )
        start, h = np.array([0, 2]), states(2, seed)
        found = program(start=start, state=h)
        for row in range(2):
            known = all_sequences(plain, start[row], h[row], length)
            ranked = sorted(known, key=lambda t: -known[t] / penalty(len(t), alpha))
            count = len(ranked)
            lengths = found["lengths"][row]
            assert [tuple(t[:n]) for t, n in zip(found["tokens"][row], lengths, strict=True)][:count] == ranked
            np.testing.assert_allclose(found["log_probs"][row, :count], [known[t] for t in ranked], rtol=1e-4)
            assert np.isneginf(found["log_probs"][row, count:]).all()
            scores = [known[t] / penalty(len(t), alpha) for t in ranked]
            np.testing.assert_allclose(found["scores"][row, :count], scores, rtol=1e-4)


def beam_by_hand(plain, start, h, length, width, alpha):
    beams = [((), 0.0, start, h, False)]
    for _ in range(length):
        grown = []
        for tokens, total, token, state, done in beams:
            if done:
                grown.append((tokens, total, token, state, True))
                continue
            log_probs, after = plain(token, state)
            grown += [(*(((*tokens, t), total + p, t, after)), t == END) for t, p in enumerate(log_probs)]
        beams = sorted(grown, key=lambda b: -b[1] / penalty(len(b[0]), alpha))[:width]
        if all(done for *_, done in beams):
            break
    return beams


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.8])
def test_a_narrow_beam_is_the_search_written_out(width, alpha):
    step, plain = model(weights(4))
    program = compiled(
        lambda state, start: gx.generation.beam_search(
            step, state, start, 5, width, end=END, pad=7, length_penalty=alpha
        ),
        "numba",
    )
    start, h = np.array([0, 1, 2, 0]), states(4, 5)
    found = program(start=start, state=h)
    for row in range(4):
        for beam, (tokens, total, *_) in enumerate(beam_by_hand(plain, start[row], h[row], 5, width, alpha)):
            assert found["tokens"][row, beam].tolist() == [*tokens, *[7] * (5 - len(tokens))]
            np.testing.assert_allclose(found["log_probs"][row, beam], total, rtol=1e-4)


def kept_by_numpy(logits, temperature, top_k, top_p):
    logits = logits / np.float32(temperature)
    order = np.argsort(-logits, kind="stable")
    kept = order if top_k is None else order[:top_k]
    if top_p is not None:
        p = np.exp(logits[kept] - logits.max())
        p = p / p.sum()
        kept = kept[np.concatenate([[0.0], np.cumsum(p)[:-1]]) < top_p]
    return np.where(np.isin(np.arange(len(logits)), kept), logits, -np.inf)


LIMITS = [
    (1.0, None, None),
    (0.5, 3, None),
    (2.0, None, 0.7),
    (0.7, 4, 0.6),
    (1.0, 1, None),
    (1.0, 50, 1.0),
    (1.0, None, 1e-6),
]


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), LIMITS)
def test_limits_keep_what_numpy_keeps(temperature, top_k, top_p):
    x = gx.placeholder("x", ("n", 9))
    kept = gx.generation.filter_logits(x, temperature, top_k, top_p)
    rows = np.random.default_rng(0).normal(0, 2, (20, 9)).astype(np.float32)
    rows[0] = 1  # of equal ones the first
    wanted = np.stack([kept_by_numpy(row, temperature, top_k, top_p) for row in rows])
    for backend in BACKENDS:
        found = gx.compile({"y": kept}, inputs=[x], backend=backend)(x=rows)["y"]
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_limits_may_be_inputs():
    x = gx.placeholder("x", (9,))
    limits = [gx.placeholder("t", ()), gx.placeholder("k", (), "int64"), gx.placeholder("p", ())]
    program = gx.compile({"y": gx.generation.filter_logits(x, *limits)}, inputs=[x, *limits], backend="numba")
    row = np.random.default_rng(1).normal(0, 2, 9).astype(np.float32)
    for t, k, p in ((1.0, 3, 0.9), (0.5, 9, 0.6)):
        found = program(x=row, t=np.float32(t), k=np.int64(k), p=np.float32(p))["y"]
        np.testing.assert_allclose(found, kept_by_numpy(row, t, k, p), rtol=1e-6)


@pytest.mark.parametrize(("top_k", "top_p"), [(None, None), (3, None), (None, 0.8)])
def test_samples_come_as_often_as_they_should(top_k, top_p):
    """Chi square over two steps of a chain: pairs of tokens, whose probabilities are known."""
    logits = np.random.default_rng(2).normal(0, 1, (VOCABULARY, VOCABULARY)).astype(np.float32)
    table = gx.constant(logits)
    start = gx.placeholder("start", ("batch",), "int64")
    out = gx.generation.sample(
        lambda token, _: (gx.take(table, token, axis=0), None), None, start, 2, top_k=top_k, top_p=top_p, seed=11
    )
    count = 20_000
    program = gx.compile({"tokens": out.tokens}, inputs=[start], backend="numba")
    tokens = program(start=np.full(count, 1))["tokens"]
    with np.errstate(divide="ignore"):
        rows = np.exp([kept_by_numpy(row, 1.0, top_k, top_p) for row in logits])
    rows = rows / rows.sum(1, keepdims=True)
    wanted = (rows[1][:, None] * rows).ravel() * count
    found = np.bincount(tokens[:, 0] * VOCABULARY + tokens[:, 1], minlength=VOCABULARY**2)
    assert (found[wanted == 0] == 0).all()
    some = wanted > 0
    chi2 = ((found[some] - wanted[some]) ** 2 / wanted[some]).sum()
    freedom = some.sum() - 1
    assert chi2 < freedom + 4 * np.sqrt(2 * freedom)  # about one in 10,000 draws is worse


def test_a_seed_writes_the_same_on_every_backend():
    step, plain = model(weights(1))
    seed = gx.placeholder("seed", (), "uint32")
    runs = {}
    for backend in BACKENDS:
        program = compiled(
            lambda state, start: gx.generation.sample(step, state, start, 12, end=END, temperature=1.5, seed=seed),
            backend,
            seed=seed,
        )
        runs[backend] = [program(start=np.arange(8) % 3, state=states(8), seed=np.uint32(s)) for s in (1, 1, 2)]
    for same, again, other in runs.values():
        np.testing.assert_array_equal(same["tokens"], again["tokens"])
        assert not np.array_equal(same["tokens"], other["tokens"])
    for one, two in zip(*runs.values(), strict=True):
        np.testing.assert_array_equal(one["tokens"], two["tokens"])
    found = runs["numba"][0]
    for row in range(8):  # log_probs are the model's, whatever it was drawn with
        given = iter(found["tokens"][row])
        length = int(found["lengths"][row])
        total = walk(plain, row % 3, states(8)[row], length, lambda _, given=given: next(given))[1]
        np.testing.assert_allclose(found["log_probs"][row], total, rtol=1e-4)


@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_prompts_of_several_lengths_are_read_as_each_alone(search):
    step, plain = model(weights(6))
    prompt = gx.placeholder("prompt", ("batch", "time"), "int64")
    lengths = gx.placeholder("lengths", ("batch",), "int64")
    state = gx.zeros((prompt.shape[0], UNITS))
    if search == "greedy":
        out = gx.generation.greedy(step, state, prompt, 4, end=END, lengths=lengths)
    else:
        out = gx.generation.beam_search(step, state, prompt, 4, 2, end=END, lengths=lengths)
    program = gx.compile({"tokens": out.tokens}, inputs=[prompt, lengths], backend="numba")
    rows = [[0, 1, 2, 1, 0], [2], [1, 0, 2]]
    padded = np.array([row + [0] * (5 - len(row)) for row in rows])
    found = program(prompt=padded, lengths=np.array([5, 1, 3]))["tokens"]
    for row, tokens in enumerate(rows):
        h = np.zeros(UNITS, np.float32)
        for token in tokens[:-1]:
            _, h = plain(token, h)
        if search == "greedy":
            wanted = [walk(plain, tokens[-1], h, 4, np.argmax)[0]]
        else:
            wanted = [t for t, *_ in beam_by_hand(plain, tokens[-1], h, 4, 2, 0.0)]
        got = found[row] if search == "beam" else found[row][None]
        assert got.tolist() == [[*w, *[0] * (4 - len(w))] for w in wanted]


def test_constants_belong_to_their_rows_in_every_beam():
    """What the step adds to the logits is each row's own, also where rows become beams."""
    step, plain = model(weights(7))
    bias = gx.placeholder("bias", ("batch", VOCABULARY))

    def biased(tokens, state, constants):
        logits, h = step(tokens, state["h"])
        return logits + constants[0], {"h": h, "none": None}

    program = compiled(
        lambda state, start: gx.generation.beam_search(
            biased, {"h": state, "none": None}, start, 4, 3, end=END, constants=[bias, None]
        ),
        "numba",
        bias=bias,
    )
    start, h = np.array([0, 1, 2]), states(3)
    rows = np.random.default_rng(0).normal(size=(3, VOCABULARY)).astype(np.float32)
    found = program(start=start, state=h, bias=rows)

    for row in range(3):

        def one(token, state, row=row):
            log_probs, state = plain(token, state)
            shifted = log_probs + rows[row]
            return shifted - np.log(np.exp(shifted).sum()), state

        wanted = [t for t, *_ in beam_by_hand(one, start[row], h[row], 4, 3, 0.0)]
        assert found["tokens"][row].tolist() == [[*w, *[0] * (4 - len(w))] for w in wanted]


def test_a_loop_ends_with_its_last_row():
    """Every step of a generation that ends at once but one would ask for a row that does not exist."""
    table = gx.constant(np.float32([[0, 0, 0, 9]] * VOCABULARY))
    rows = gx.placeholder("rows", ("n",))
    start = gx.placeholder("start", ("batch",), "int64")

    def step(tokens, place):
        return gx.take(table, tokens, axis=0) + gx.take(rows, place, axis=0) * 0, place + 1

    out = gx.generation.greedy(step, gx.constant(0, "int64"), start, 1000, end=END)
    program = gx.compile({"tokens": out.tokens, "lengths": out.lengths}, inputs=[rows, start], backend="numba")
    assert program(rows=np.ones(1, np.float32), start=np.zeros(3, np.int64))["lengths"].tolist() == [1, 1, 1]


def two_axes(tokens, state):
    return gx.zeros((tokens.shape[0], 4)), state


@pytest.mark.parametrize(
    ("error", "says", "call"),
    [
        (AxisError, "length is 0", lambda s: gx.generation.greedy(two_axes, None, s, 0)),
        (AxisError, "width is 0", lambda s: gx.generation.beam_search(two_axes, None, s, 3, 0)),
        (AxisError, "end is token 4, the vocabulary has 4", lambda s: gx.generation.greedy(two_axes, None, s, 3, 4)),
        (AxisError, "temperature is 0", lambda s: gx.generation.sample(two_axes, None, s, 3, temperature=0)),
        (AxisError, "top_k is 0", lambda s: gx.generation.sample(two_axes, None, s, 3, top_k=0)),
        (AxisError, "top_p is 1.5", lambda s: gx.generation.sample(two_axes, None, s, 3, top_p=1.5)),
        (GraphError, "no pair", lambda s: gx.generation.greedy(lambda t, _: gx.zeros((4, 4)), None, s, 3)),
        (ShapeError, "logits are", lambda s: gx.generation.greedy(lambda t, _: (gx.zeros((4,)), None), None, s, 3)),
        (DTypeError, "logits are", lambda s: gx.generation.greedy(lambda t, _: (t, None), None, s, 3)),
        (DTypeError, "no tokens", lambda s: gx.generation.greedy(two_axes, None, gx.zeros((3,)), 3)),
        (ShapeError, "1 axes and there are lengths", lambda s: gx.generation.greedy(two_axes, None, s, 3, lengths=s)),
    ],
)
def test_mistakes_say_what_to_do(error, says, call):
    start = gx.placeholder("start", ("batch",), "int64")
    with pytest.raises(error, match=says) as caught:
        call(start)
    assert "test_generation.py" in str(caught.value)
    assert "to do: " in str(caught.value)


def decoder(backend="numba", **more):
    """An encoder that is one product, a step that reads constants, and prompts."""
    step, _ = model(weights(8))
    source = gx.placeholder("source", ("batch", 3))
    prompt = gx.placeholder("prompt", ("batch", "time"), "int64")
    kernel = gx.constant(np.random.default_rng(3).normal(size=(3, UNITS)).astype(np.float32))

    def shifted(tokens, state, constants):
        logits, h = step(tokens, state[0])
        return logits + gx.sum(constants["source"], axis=1, keepdims=True) * gx.arange(VOCABULARY, "float32"), [h, None]

    return gx.generation.Decoder(
        shifted, [source, prompt], [gx.tanh(source @ kernel), None], prompt, 7, END, 8, {"source": source},
        backend=backend, **more,
    )  # fmt: skip


ARRAYS = {
    "source": np.random.default_rng(4).normal(0, 0.3, (6, 3)).astype(np.float32),
    "prompt": np.random.default_rng(5).integers(0, END, (6, 2)),
}


@pytest.mark.parametrize("how", [{}, {"temperature": 1.3, "seed": 5}, {"top_k": 3, "top_p": 0.9, "seed": 2}])
def test_a_stream_gives_what_one_call_gives(how):
    writer = decoder()
    whole = writer.sample(ARRAYS, **how) if how else writer.greedy(ARRAYS)
    heard = []
    streamed = np.stack(list(writer.stream(ARRAYS, callback=heard.append, **how)), axis=1)
    assert len(heard) == streamed.shape[1] == whole.lengths.max()
    np.testing.assert_array_equal(streamed, whole.tokens[:, : streamed.shape[1]])
    assert (whole.tokens[:, streamed.shape[1] :] == 8).all()


def test_a_decoder_compiles_a_way_once():
    """Other limits and seeds are other inputs; a beam of one is greedy."""
    writer = decoder()
    first = writer.sample(ARRAYS, seed=1)
    program = writer._programs["sample"]
    other = writer.sample(ARRAYS, temperature=3.0, top_k=3, seed=2)
    assert writer._programs == {"sample": program}
    assert not np.array_equal(first.tokens, other.tokens)
    greedy, beam = writer.greedy(ARRAYS), writer.beam_search(ARRAYS, 1)
    np.testing.assert_array_equal(beam.tokens[:, 0], greedy.tokens)
    np.testing.assert_allclose(beam.log_probs[:, 0], greedy.log_probs, rtol=1e-5)
    np.testing.assert_array_equal(writer.sample(ARRAYS, top_k=1).tokens, greedy.tokens)


def test_a_decoder_refuses_what_it_cannot_tell_apart():
    seed = gx.placeholder("seed", ("batch",), "int64")
    with pytest.raises(gx.NameClashError, match="'seed'"):
        gx.generation.Decoder(two_axes, [seed], None, seed, 3)
    with pytest.raises(AxisError, match="top_p"):
        decoder().sample(ARRAYS, top_p=0)


def test_masks_of_constants_travel_along():
    """Rows of padded sources are written as each row alone: greedily, by beams, and in a stream."""
    gx.set_seed(3)
    embed, cell = (
        gx.layers.Embedding(VOCABULARY, UNITS, mask_zero=True),
        gx.layers.BahdanauCell(gx.layers.GRUCell(UNITS)),
    )
    readout = gx.layers.Dense(VOCABULARY, kernel_initializer=gx.initializers.RandomNormal(0, 3.0))
    source = gx.placeholder("source", ("batch", "time"), "int64")

    def step(tokens, state, memory):
        output, state = cell(gx.take(embed.embeddings, tokens, axis=0), state, constants=memory)
        return readout(output * 5), state

    memory = embed(source)
    batch = source.shape[0]
    start, state = gx.full((batch,), 1, "int64"), [gx.zeros((batch, UNITS))]
    writer = gx.generation.Decoder(step, [source], state, start, 5, constants=memory, backend="numba")
    rows = [[1, 2, 3, 1], [2], [3, 1]]
    padded = {"source": np.array([row + [0] * (4 - len(row)) for row in rows])}
    greedy, beams = writer.greedy(padded), writer.beam_search(padded, 3)
    streamed = np.stack(list(writer.stream(padded)), axis=1)
    np.testing.assert_array_equal(streamed, greedy.tokens)
    for place, row in enumerate(rows):
        alone = {"source": np.array([row])}
        one, three = writer.greedy(alone), writer.beam_search(alone, 3)
        np.testing.assert_array_equal(one.tokens[0], greedy.tokens[place])
        np.testing.assert_allclose(one.log_probs[0], greedy.log_probs[place], rtol=1e-5)
        np.testing.assert_array_equal(three.tokens[0], beams.tokens[place])
        np.testing.assert_allclose(three.log_probs[0], beams.log_probs[place], rtol=1e-5)
