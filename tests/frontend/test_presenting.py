"""The three ways to present an architecture: a table, a drawn graph, equations."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Model, Sequential, layers
from graphc.frontend.drawing import Box, lay_out


def mlp():
    return Sequential([Input((3,)), layers.Dense(4, "relu"), layers.Dense(4, "relu"), layers.Dense(1, "sigmoid")])


def branched():
    x = Input((6,), name="pixels")
    shared = layers.Dense(6, "tanh", name="shared")
    skip = layers.Add(name="skip")([shared(shared(x)), x])
    return Model(x, [layers.Dense(2, "softmax", name="kind")(skip), layers.Dense(1, name="size")(skip * 0.5 + x)])


def nested():
    inner = Sequential([Input((3,)), layers.Dense(4, name="deep"), layers.Dropout(0.2, name="drop")], name="inner")
    x = Input((3,))
    return Model(x, layers.Dense(1, name="last")(inner(x)))


def table(model, **kwargs):
    lines: list[str] = []
    model.summary(print_fn=lines.append, **kwargs)
    return lines


# The table.


def test_the_table_counts_what_keras_counts():
    """3 x 4 + 4, 4 x 4 + 4, 4 x 1 + 1; Adam keeps two slots for each weight, the steps and the rate."""
    model = mlp()
    rows = table(model)
    assert [re.split(r" {2,}", row)[2] for row in rows[4:7]] == ["16", "20", "5"]
    assert rows[-4:-1] == ["Total params: 41 (164 B)", "Trainable params: 41 (164 B)", "Non-trainable params: 0 (0 B)"]
    model.compile("adam", "mse", backend="reference")
    model.train_on_batch(np.ones((2, 3)), np.ones((2, 1)))
    assert table(model)[-2].startswith("Optimizer params: 84 ")
    assert table(model)[-5].startswith("Total params: 125 ")


def test_layers_within_models_and_what_is_trained_can_be_shown():
    model = nested()
    model.get_layer("inner").trainable = False
    rows = table(model, expand_nested=True, show_trainable=True, line_length=90)
    cells = {row.split(" (")[0].strip(" └"): row.split()[-1] for row in rows[4:-5]}
    assert cells == {"input_layer": "-", "inner": "N", "deep": "N", "drop": "-", "last": "Y"}
    deep = next(row for row in rows if "deep" in row)
    assert deep.startswith("  └ deep (Dense)")
    assert "(None, 4)" in deep
    assert "Trainable params: 5 (20 B)" in rows
    assert "Non-trainable params: 16 (64 B)" in rows
    assert not any("deep" in row for row in table(nested()))


def test_a_part_of_the_layers_can_be_shown():
    rows = table(mlp(), layer_range=["dense_1", "dense_2"])
    assert [row.split(" ")[0] for row in rows[4:6]] == ["dense_1", "dense_2"]
    assert rows[6].startswith("=")
    with pytest.raises(gx.NameClashError, match="no layer 'dense_7'"):
        mlp().summary(layer_range=["dense", "dense_7"])


# The drawing.

SVG = "{http://www.w3.org/2000/svg}"


def boxes(picture):
    root = ET.fromstring(picture)
    found = [(float(r.get("x")), float(r.get("y")), float(r.get("width")), float(r.get("height")))
             for r in root.findall(f"{SVG}rect")[1:]]  # fmt: skip
    return root, found


def test_the_drawing_holds_each_call_and_no_two_boxes_touch(tmp_path):
    model = branched()
    picture = model.plot(tmp_path / "a" / "model.svg")
    assert (tmp_path / "a" / "model.svg").read_text() == picture
    root, found = boxes(picture)
    texts = [text.text for text in root.findall(f"{SVG}text")]
    assert texts.count("shared (Dense)") == 2  # it is called twice
    assert texts.count("42 parameters") == 1
    assert texts.count("shared weights") == 1
    assert "(None, 6)" in texts
    assert len(found) == 1 + len(model.call_order)
    for index, (x, y, w, h) in enumerate(found):
        assert x >= 0
        assert x + w <= float(root.get("width"))
        for x2, y2, w2, h2 in found[index + 1 :]:
            assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
    assert len(root.findall(f"{SVG}path")) == 8
    assert not any("parameters" in text.text for text in boxes(model.plot(show_params=False))[0].iter(f"{SVG}text"))


def test_lines_go_down_and_do_not_cross_where_they_need_not():
    """Two chains, their second boxes listed in the other order."""
    chain = [Box([name]) for name in "abcd"]
    layout = lay_out(chain, [(0, 3), (1, 2)])
    assert (chain[0].x < chain[1].x) == (chain[3].x < chain[2].x)
    long = [Box([name]) for name in "abc"]
    layout = lay_out(long, [(0, 1), (1, 2), (0, 2)])
    assert [len(path) for path in layout.paths] == [2, 2, 3]
    passing = layout.paths[2][1]
    assert abs(passing.x - long[1].x) >= long[1].width / 2
    for path in layout.paths:
        assert [box.y for box in path] == sorted(box.y for box in path)


def test_names_are_text_wherever_they_stand(tmp_path):
    evil = '<script>alert("&")<script>'
    x = Input((2,), name="x")
    layer = layers.Dense(1)
    layer.name = evil
    model = Model(x, layer(x), name="<title>$\\frac{")
    picture = model.plot()
    assert "<script" not in picture
    assert any(text.text.startswith(evil) for text in ET.fromstring(picture).iter(f"{SVG}text"))
    pytest.importorskip("matplotlib")
    model.plot(tmp_path / "model.png")
    assert (tmp_path / "model.png").read_bytes().startswith(b"\x89PNG")


def test_a_model_without_symbols_says_why_it_is_not_drawn():
    class Own(Model):
        def call(self, x):
            return x * 2.0

    for model in (Own(), Sequential([layers.Dense(1)])):
        for present in (model.plot, model.latex):
            with pytest.raises(gx.GraphError, match="declared by symbols"):
                present()


# The equations.


def balanced(text):
    """Braces, environments, \\left and \\right in pairs."""
    depth = 0
    for token in re.findall(r"\\.|[{}]", text):
        depth += {"{": 1, "}": -1}.get(token, 0)
        assert depth >= 0
    assert depth == 0
    assert text.count(r"\left") == text.count(r"\right")
    assert re.findall(r"\\begin\{(\w+\*?)\}", text) == re.findall(r"\\end\{(\w+\*?)\}", text)[::-1]


def equations(model):
    text = model.latex()
    balanced(text)
    assert text.startswith("\\begin{align*}\n")
    return [line.strip().removesuffix(r" \\") for line in text.splitlines()[1:-1]]


def test_equations_of_branches_shared_layers_and_operators():
    assert equations(branched())[:5] == [
        r"h_{1} &= \tanh\left(x W_{1} + b_{1}\right)",
        r"h_{2} &= \tanh\left(h_{1} W_{1} + b_{1}\right)",
        r"h_{3} &= h_{2} + x",
        r"\hat{y}_{1} &= \operatorname{softmax}\left(h_{3} W_{2} + b_{2}\right)",
        r"h_{4} &= \left(h_{3} \odot 0.5\right) + x",
    ]


def test_each_layer_has_an_equation_that_mathtext_reads():
    pytest.importorskip("matplotlib")
    from matplotlib.mathtext import MathTextParser

    class Odd_Name(layers.Layer):
        def call(self, x):
            return x

    class Own(layers.Layer):
        def to_latex(self, arguments, weights):
            return rf"\sqrt{{{arguments[0]}}}"

        def call(self, x):
            return gx.sqrt(x)

    x, y = Input((4, 2)), Input((4, 2))
    h = layers.Flatten()(layers.Concatenate()([x, y]))
    h = layers.Multiply()([layers.Average()([h, h * 2.0]), layers.Maximum()([h, gx.tanh(h) / 3.0])])
    h = layers.Subtract()([layers.Identity()(h), Own()(Odd_Name(name="50%_odd")(h))])
    h = layers.ReLU()(layers.Dense(3, lambda v: v * v)(layers.Dropout(0.25)(h)))
    inner = Sequential([Input((3,)), layers.Dense(2)], name="in_ner")
    model = Model([x, y], layers.Activation("sigmoid")(inner(h)))
    found = equations(model)
    for line in found:
        MathTextParser("agg").parse(f"${line.replace('&=', '=').replace('&', '')}$")
    assert r"h_{1} &= \left[x_{1},\, x_{2}\right]" in found
    assert any(r"\operatorname{50\%\_odd}" in line for line in found)
    assert any(r"\sqrt{" in line for line in found)
    assert any(r"\operatorname{dropout}_{0.25}" in line for line in found)
    assert any(r"\operatorname{in\_ner}" in line for line in found)


def test_a_document_is_whole():
    text = mlp().latex(document=True)
    balanced(text)
    assert text.startswith("\\documentclass{article}\n\\usepackage{amsmath,amssymb}")
    assert text.endswith("\\end{document}\n")


@pytest.mark.parametrize("name", ["}\\input{passwd}", "$&%_^~\\", "snow☃man\n"])
def test_names_cannot_leave_their_place_in_latex(name):
    x = Input((2,))

    class Mine(layers.Layer):
        def call(self, x):
            return x * 3.0

    layer = Mine()
    layer.name = name
    text = Model(x, layer(x)).latex()
    balanced(text)
    assert r"\input" not in text
    assert text.isascii()
    assert not re.search(r"(?<!\\)[$%~]", text)
