"""Transformer models learn, come back from files, and run in onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc import models

TOKENS, LONGEST = 8, 4
START = 1
SPARSE = gx.losses.SparseCategoricalCrossentropy(from_logits=True)


def copies(rows, seed):
    """Sequences of 2 to LONGEST tokens, padded with 0, and the same with a start before them."""
    rng = np.random.default_rng(seed)
    source = rng.integers(START + 1, TOKENS, (rows, LONGEST))
    source[np.arange(LONGEST) >= rng.integers(2, LONGEST + 1, rows)[:, None]] = 0
    return source, np.concatenate([np.full((rows, 1), START), source], axis=1)


@pytest.fixture(scope="module")
def copier():
    """A Transformer that has learned to copy."""
    gx.set_seed(0)
    model = models.Transformer(TOKENS, num_layers=1, d_model=32, num_heads=2, d_ff=32, dropout=0.0)
    # softmax does not see the keys' bias: its gradient is rounding, which a small epsilon would make steps of
    model.compile(optimizer=gx.optimizers.Adam(1e-2, epsilon=1e-4), loss=SPARSE, backend="numba")
    source, target = copies(512, 0)
    history = model.fit([source, target[:, :-1]], target[:, 1:], batch_size=32, epochs=20, verbose=0).history["loss"]
    assert history[-1] < 0.2 * history[0]
    return model


def test_a_transformer_learns_to_copy(copier):
    """Teacher forcing on sequences that it has not seen; padding does not count."""
    source, target = copies(200, 1)
    found = copier.predict([source, target[:, :-1]], verbose=0).argmax(-1)
    counted = source != 0
    assert np.mean(found[counted] == source[counted]) > 0.95


def test_it_writes_a_copy_token_by_token(copier):
    """What it wrote itself stands in for the target."""
    source = np.full((20, LONGEST), 2)
    source[:] = np.random.default_rng(3).integers(START + 1, TOKENS, source.shape)
    written = np.full((20, 1), START)
    for _ in range(LONGEST):
        logits = copier.predict([source, written], verbose=0)
        written = np.concatenate([written, logits[:, -1:].argmax(-1)], axis=1)
    assert np.mean(written[:, 1:] == source) > 0.9


def test_it_comes_back_from_files_and_goes_on(copier, tmp_path):
    source, target = copies(64, 2)
    copier.save(tmp_path / "model")
    back = gx.load_model(tmp_path / "model")
    np.testing.assert_array_equal(
        back.predict([source, target[:, :-1]], verbose=0), copier.predict([source, target[:, :-1]], verbose=0)
    )
    assert back.get_config() == copier.get_config()
    assert [w.label for w in back.weights] == [w.label for w in copier.weights]


def test_it_runs_in_onnxruntime_training_and_all(copier, tmp_path):
    source, target = copies(6, 4)
    arrays = [source, target[:, :-1], target[:, 1:]]
    for kind, steps in (("predict", 1), ("train", 3)):
        program, path = copier.programs[kind], tmp_path / f"{kind}.onnx"
        copier.export(path, training=kind == "train")
        report = gx.onnx.verify(path, program, steps, dict(zip(program.input_names, arrays, strict=False)))
        assert report.ok, str(report)


def test_bert_fills_in_what_is_hidden(tmp_path):
    """Texts that count on: what a hidden token was shows in its neighbours, on either side."""
    gx.set_seed(0)
    rng = np.random.default_rng(0)
    text = (rng.integers(0, 6, (256, 1)) + np.arange(5)) % 6 + 2
    place = rng.integers(0, 5, 256)
    hidden = text.copy()
    hidden[np.arange(256), place] = 1
    model = models.Bert(8, num_layers=1, d_model=32, num_heads=4, d_ff=32, max_length=5, num_segments=0, dropout=0.0,
                        masked_lm=True)  # fmt: skip
    assert {key: str(symbol.type) for key, symbol in model.output.items()} == {
        "sequence": "f32[batch, time, 32]", "pooled": "f32[batch, 32]", "masked_lm": "f32[batch, time, 8]"
    }  # fmt: skip
    trained = gx.Model(model.inputs[0], model.output["masked_lm"])
    trained.compile(optimizer=gx.optimizers.Adam(2e-3), loss=SPARSE, backend="numba")
    weight = np.zeros((256, 5), np.float32)
    weight[np.arange(256), place] = 1
    trained.fit(hidden, text, sample_weight=weight, batch_size=32, epochs=40, verbose=0)
    found = model.predict(hidden, verbose=0)["masked_lm"].argmax(-1)
    assert np.mean(found[np.arange(256), place] == text[np.arange(256), place]) > 0.95
    model.save(tmp_path / "bert")
    back = gx.load_model(tmp_path / "bert").predict(hidden[:9], verbose=0)
    np.testing.assert_array_equal(back["pooled"], model.predict(hidden[:9], verbose=0)["pooled"])


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_gpt_predicts_what_follows(positions, tmp_path):
    gx.set_seed(0)
    text = (np.random.default_rng(0).integers(0, 5, (128, 1)) + 2 * np.arange(9)) % 5
    model = models.Gpt(5, num_layers=1, d_model=16, num_heads=2, max_length=8, positions=positions, dropout=0.0)
    model.compile(optimizer=gx.optimizers.Adam(1e-2), loss=SPARSE, backend="numba")
    losses = model.fit(text[:, :-1], text[:, 1:], batch_size=32, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.1
    later = text[:4, :-1].copy()
    later[:, 5:] = 0
    a, b = model.predict(text[:4, :-1], verbose=0), model.predict(later, verbose=0)
    np.testing.assert_array_equal(a[:, :5], b[:, :5])
    model.export(tmp_path / "gpt.onnx")
    given = {"tokens": text[:4, :-1]}
    assert gx.onnx.verify(tmp_path / "gpt.onnx", model.programs["predict"], inputs=given).ok


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_vit_tells_images_apart(pooling, tmp_path):
    """In which quarter is the bright patch? Without positions it could not tell."""
    gx.set_seed(0)
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((128, 4, 4, 1)).astype(np.float32) * 0.1, rng.integers(0, 4, 128)
    for image, label in zip(images, labels, strict=True):
        image[2 * (label // 2) : 2 * (label // 2) + 2, 2 * (label % 2) : 2 * (label % 2) + 2] += 1
    model = models.ViT(
        (4, 4, 1), 4, patch_size=2, num_layers=1, d_model=16, num_heads=2, d_ff=16, dropout=0.0, pooling=pooling
    )
    model.compile(optimizer=gx.optimizers.Adam(1e-2), loss=SPARSE, metrics=["accuracy"], backend="numba")
    model.fit(images, labels, batch_size=32, epochs=12, verbose=0)
    assert model.evaluate(images, labels, verbose=0, return_dict=True)["accuracy"] > 0.98
    model.export(tmp_path / "vit.onnx")
    assert gx.onnx.verify(tmp_path / "vit.onnx", model.programs["predict"], inputs={"images": images[:3]}).ok


def test_models_pass_on_dropout_in_training_only():
    """The same graph serves both; two steps draw other masks."""
    gx.set_seed(0)
    model = models.Gpt(5, num_layers=1, d_model=8, num_heads=2, max_length=4, dropout=0.5, attention_dropout=0.5)
    tokens = gx.placeholder("t", (2, 4), "int64")
    logits, rows = model(tokens), np.array([[0, 1, 2, 3], [3, 2, 1, 0]])
    train = gx.compile({"y": logits}, [tokens], updates=model.updates, training=True, backend="reference")
    infer = gx.compile({"y": logits}, [tokens], backend="reference")
    assert not np.array_equal(train(t=rows)["y"], train(t=rows)["y"])
    np.testing.assert_array_equal(infer(t=rows)["y"], infer(t=rows)["y"])
