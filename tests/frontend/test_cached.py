"""Generation that remembers keys and values writes what computing the whole text anew at each step writes."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.errors import AxisError, ShapeError
from graphc.frontend.models.writing import CachedDecoder
from graphc.loops.kernel import Access
from graphc.lower.plan import KernelItem

VOCABULARY, LENGTH, END = 23, 6, 7
OPTIONS = {
    "learned": {},
    "sinusoidal": {"positions": "sinusoidal", "normalize_first": False},
    "rotary": {"positions": "rotary", "num_key_value_heads": 2, "activation": "swiglu", "normalization": "rms"},
    "relative": {"positions": "relative"},
    "relative, one head of keys": {"positions": "relative", "num_key_value_heads": 1, "attention_dropout": 0.1},
    "no positions": {"positions": None, "tie_weights": False},
    "padding": {"mask_zero": True, "positions": "rotary"},
}
PROMPTS = [[3, 1, 4, 1, 5], [9, 2], [6], [5, 3, 5]]


def shaken(model, seed):
    """The model with weights large enough that tokens differ."""
    random = np.random.default_rng(seed)
    for weight in model.weights:
        weight.value = weight.value + random.normal(0, 0.3, weight.value.shape).astype(np.float32)
    return model


def gpt(name, seed=0):
    said = {"num_layers": 2, "d_model": 16, "num_heads": 4, "max_length": 16, "dropout": 0.1, **OPTIONS[name]}
    return shaken(gx.models.Gpt(VOCABULARY, **said), seed)


def log_probs_of(model, *leading):
    """``log_probs(text)`` of the token behind a text, by the whole model."""
    names = [gx.placeholder(f"x{i}", ("batch", f"n{i}"), "int64") for i in range(len(leading) + 1)]
    inputs = names[0] if len(names) == 1 else names
    out = gx.log_softmax(model(inputs)[:, -1], axis=-1)
    program = gx.compile({"y": out}, inputs=names, backend="reference")

    def log_probs(text):
        arrays = [np.array([row]) for row in (*leading, text)]
        return program(**{f"x{i}": array for i, array in enumerate(arrays)})["y"][0].astype(np.float64)

    return log_probs


def walk(log_probs, text, end=None):
    """One row greedily: its tokens and their log probability."""
    written, total = [], 0.0
    for _ in range(LENGTH):
        found = log_probs([*text, *written])
        written.append(int(found.argmax()))
        total += found.max()
        if written[-1] == end:
            break
    return written, total


def assert_walked(found, log_probs, prompts, end=None, pad=0):
    for row, prompt in enumerate(prompts):
        written, total = walk(log_probs, prompt, end)
        assert found.tokens[row].tolist() == written + [pad] * (LENGTH - len(written))
        assert found.lengths[row] == len(written)
        np.testing.assert_allclose(found.log_probs[row], total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", OPTIONS)
def test_each_row_is_what_it_would_be_alone(name):
    """Prompts of different lengths, padded on the right and on the left; and one of one length, without a mask."""
    model = gpt(name)
    alone = log_probs_of(model)
    assert_walked(model.generate(PROMPTS, LENGTH, backend="reference"), alone, PROMPTS)
    left = np.zeros((4, 6), int)
    for row, prompt in zip(left, PROMPTS, strict=True):
        row[6 - len(prompt) :] = prompt
    found = model.generate(np.where(left, left, 11), LENGTH, mask=left != 0, backend="reference")
    assert_walked(found, alone, PROMPTS)
    equal = [prompt[:2] for prompt in PROMPTS if len(prompt) > 1]
    assert_walked(model.generate(equal, LENGTH, backend="reference"), alone, equal)
    assert_walked(model.generate([[4]], LENGTH, backend="reference"), alone, [[4]])


@pytest.mark.parametrize("name", ["rotary"])
def test_natively_too_and_rows_end_by_themselves(name):
    model = gpt(name, 1)
    alone = log_probs_of(model)
    free = model.generate(PROMPTS, LENGTH, backend="numba")
    assert_walked(free, alone, PROMPTS)
    end = int(free.tokens[0, 2])
    found = model.generate(PROMPTS, LENGTH, end=end, pad=22, backend="numba")
    assert_walked(found, alone, PROMPTS, end, 22)
    assert found.lengths.min() < LENGTH


def test_a_step_has_the_logits_of_the_whole_text():
    for name in ("sinusoidal", "rotary", "relative"):
        model = gpt(name)
        text = gx.placeholder("text", ("batch", 7), "int64")
        cached = CachedDecoder(
            model.decoder,
            lambda tokens, positions, model=model: model.embedding(tokens, positions=positions),
            lambda x, model=model: model.embedding(x, reverse=True),
            4,
        )
        state, token = cached.begin(text[:, :4])
        found = []
        for place in range(4):
            logits, state = cached.step(token, state)
            found.append(logits)
            token = text[:, min(4 + place, 6)]
        whole = model(text)[:, 3:]
        program = gx.compile({"a": gx.stack(found, 1), "b": whole}, inputs=[text], backend="reference")
        both = program(text=np.random.default_rng(2).integers(1, VOCABULARY, (3, 7)))
        np.testing.assert_allclose(both["a"], both["b"], rtol=1e-5, atol=1e-5)


def beams(log_probs, prompt, width, end, alpha):
    """A beam search over whole texts: [(tokens, log probability)], the best first."""
    rank = lambda item: item[1] / ((5 + len(item[0])) / 6) ** alpha  # noqa: E731
    found = [((), 0.0)]
    for _ in range(LENGTH):
        grown = []
        for tokens, total in found:
            if tokens and tokens[-1] == end:
                grown.append((tokens, total))
                continue
            following = log_probs([*prompt, *tokens])
            grown += [((*tokens, word), total + gain) for word, gain in enumerate(following)]
        found = sorted(grown, key=rank, reverse=True)[:width]
    return found


@pytest.mark.parametrize("name", ["learned", "relative"])
def test_beams_take_their_keys_and_values_along(name):
    model = gpt(name, 3)
    alone = log_probs_of(model)
    end = int(model.generate(PROMPTS, LENGTH, backend="reference").tokens[1, 1])
    found = model.generate(PROMPTS, LENGTH, end=end, beams=3, length_penalty=0.6, backend="reference")
    for row, prompt in enumerate(PROMPTS):
        wanted = beams(alone, prompt, 3, end, 0.6)
        for beam, (tokens, total) in enumerate(wanted):
            assert found.tokens[row, beam].tolist() == [*tokens, *[0] * (LENGTH - len(tokens))]
            np.testing.assert_allclose(found.log_probs[row, beam], total, rtol=1e-5, atol=1e-5)


def test_drawn_tokens_are_those_of_the_same_seed():
    """As by a step that puts each token into a text of its own and computes all of it anew."""
    model = gpt("learned", 4)
    start = gx.placeholder("start", ("batch",), "int64")

    def step(token, state):
        text = gx.update_slice(state["text"], gx.expand_dims(token, 1), gx.max(state["at"]), axis=1)
        place = gx.broadcast_to(gx.reshape(state["at"], (-1, 1, 1)), (text.shape[0], 1, VOCABULARY))
        return gx.take_along(model(text), place, 1)[:, 0], {"text": text, "at": state["at"] + 1}

    first = {"text": gx.zeros((start.shape[0], LENGTH), "int64"), "at": gx.zeros((start.shape[0],), "int64")}
    drawn = gx.generation.sample(step, first, start, LENGTH, temperature=1.3, top_k=9, top_p=0.9, seed=5)
    program = gx.compile({"tokens": drawn.tokens}, inputs=[start], backend="reference")
    prompt = np.arange(8) + 1
    found = model.generate(prompt[:, None], LENGTH, temperature=1.3, top_k=9, top_p=0.9, seed=5, backend="reference")
    assert found.tokens.tolist() == program(start=prompt)["tokens"].tolist()
    other = model.generate(prompt[:, None], LENGTH, temperature=1.3, top_k=9, top_p=0.9, seed=6, backend="reference")
    assert found.tokens.tolist() != other.tokens.tolist()


def test_a_callback_gets_the_tokens_one_by_one():
    model = gpt("rotary", 5)
    end = int(model.generate(PROMPTS[:2], LENGTH, backend="reference").tokens[0, 1])
    for how in ({}, {"temperature": 0.8, "seed": 3}):
        heard = []
        said = {"end": end, "pad": 1, "backend": "reference", **how}
        found = model.generate(
            PROMPTS, LENGTH, callback=lambda tokens, heard=heard: heard.append(tokens.copy()), **said
        )
        whole = model.generate(PROMPTS, LENGTH, **said)
        for mine, theirs in zip(found, whole, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
        steps = np.stack(heard, axis=1)
        assert (steps == whole.tokens[:, : steps.shape[1]]).all()
        assert steps.shape[1] == whole.lengths.max()


TRANSFORMERS = {
    "base": {},
    "rotary, grouped": {"rotary": 100.0, "num_key_value_heads": 1, "normalize_first": True},
    "learned": {"positions": "learned", "max_length": 9, "tie_weights": False},
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_an_encoder_is_looked_at_by_every_step(name):
    said = {"num_layers": 2, "d_model": 8, "num_heads": 2, "d_ff": 12, **TRANSFORMERS[name]}
    model = shaken(gx.models.Transformer(VOCABULARY, **said), 6)
    sources = [[3, 1, 4, 1, 5], [9, 2, 6], [5]]
    padded = np.array([[*row, *[0] * (5 - len(row))] for row in sources])
    found = model.generate(padded, LENGTH, start=2, end=END, backend="reference")
    wide = model.generate(padded, LENGTH, start=2, end=END, beams=2, backend="reference")
    heard = model.generate(padded, LENGTH, start=2, end=END, backend="reference", callback=lambda tokens: None)
    np.testing.assert_array_equal(heard.tokens, found.tokens)
    for row, source in enumerate(sources):
        alone = log_probs_of(model, source)
        written, total = walk(alone, [2], END)
        assert found.tokens[row].tolist() == written + [0] * (LENGTH - len(written))
        np.testing.assert_allclose(found.log_probs[row], total, rtol=1e-5, atol=1e-5)
        for beam, (tokens, score) in enumerate(beams(alone, [2], 2, END, 0.0)):
            assert wide.tokens[row, beam].tolist() == [*tokens, *[0] * (LENGTH - len(tokens))]
            np.testing.assert_allclose(wide.log_probs[row, beam], score, rtol=1e-5, atol=1e-5)


def test_keys_and_values_are_written_in_place():
    """In a step nothing but updates writes to what is held: keys and values of two layers, and which tokens count."""
    model = gpt("rotary")
    writer = model.writer(LENGTH, backend="numba")
    writer.greedy({"prompt": np.array([[1, 2]])})
    plan = writer._programs["greedy"].plan
    loop = next(loop for loop in plan.loops if loop.count == LENGTH)
    items = [i for launch in plan.launches[loop.first : loop.end] for i in launch.items if isinstance(i, KernelItem)]
    updated: list[int] = []
    written: list[int] = []
    for item in items:
        pairs = zip(item.buffers, item.kernel.buffers, strict=True)
        places = [_root(plan, index) for index, buffer in pairs if buffer.access is not Access.READ]
        (written if item.written is None else updated).extend(places)
    assert len(set(updated)) == len(updated) == 2 * 2 + 1
    assert not set(updated) & set(written)


def _root(plan, index):
    part = plan.buffers[index].part
    return index if part is None else _root(plan, part.of)


def test_mistakes_are_named():
    model = gpt("learned")
    for error, words, call in (
        (ShapeError, "beyond the 16 positions", lambda: model.generate([[1, 2]], 16)),
        (ShapeError, "one row", lambda: model.generate([1, 2], 3)),
        (ShapeError, "without tokens", lambda: model.generate([[1], []], 3)),
        (ShapeError, r"the mask \[1, 1\]", lambda: model.generate([[1, 2]], 3, mask=[[True]])),
        (AxisError, "neither draws", lambda: model.generate([[1]], 3, beams=2, temperature=1.0)),
    ):
        with pytest.raises(error, match=words):
            call()
