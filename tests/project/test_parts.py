"""Every public class of the frontend: what it says, the way to a file and back, and a test that names it."""

from __future__ import annotations

import ast
import inspect
from functools import cache

import pytest

from graphc import activations, layers, metrics, optimizers
from graphc.frontend import schedules
from graphc.frontend.config import Configurable, deserialize, serialize
from tests.project.checkout import ROOT
from tests.project.count import KINDS, classes, configurable

ALL = [(kind, name) for kind in KINDS for name in classes(kind)]
SAVED = [(kind, name) for kind in KINDS for name in configurable(kind)]
BASES = {"CallbackList", "Constraint", "Initializer", "LearningRateSchedule", "Regularizer"}
"""What users derive from, or never see: tests meet them in what is derived."""

ARGUMENTS = {
    "units": 4, "filters": 2, "kernel_size": 2, "rate": 0.5, "stddev": 0.5, "activation": "relu", "n": 2,
    "target_shape": (2, 3), "dims": (2, 1), "output_size": 2, "input_dim": 5, "output_dim": 4, "num_heads": 2,
    "num_query_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "key_dim": 4, "height": 4, "width": 4,
    "sequence_length": 6, "vocabulary_size": 9, "embedding_dim": 4, "intermediate_dim": 8, "hidden_dim": 8,
    "patch_size": 2, "num_layers": 2, "max_length": 6, "embed_dim": 4, "depth": 2, "dim": 4, "length": 5,
    "num_classes": 3, "target_class_ids": [0, 1], "recall": 0.5, "precision": 0.5, "specificity": 0.5,
    "sensitivity": 0.5, "learning_rate": 0.1, "initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.9,
    "first_decay_steps": 5, "warmup_steps": 3, "boundaries": [2, 5], "values": [0.1, 0.05, 0.01],
    "cell": layers.GRUCell(4), "schedule": 0.1, "schedules": [schedules.ExponentialDecay(0.1, 10, 0.9), 0.05, 0.01],
    "peak_learning_rate": 0.1, "max_learning_rate": 0.1, "d_model": 8, "step_size": 5, "total_steps": 20, "gamma": 0.5,
    "factor": 0.2, "height_factor": 0.2, "width_factor": 0.2, "scale": 0.5,
}  # fmt: skip
"""Arguments that are asked for, by name."""
OF_THEIR_OWN = {
    "RNN": lambda cls: cls(layers.LSTMCell(4)),
    "StackedRNNCells": lambda cls: cls([layers.GRUCell(4), layers.LSTMCell(3)]),
    "Bidirectional": lambda cls: cls(layers.GRU(3)),
    "TimeDistributed": lambda cls: cls(layers.Dense(3)),
    "Lambda": lambda cls: cls(activations.relu),
    "Grouped": lambda cls: cls(optimizers.Adam(0.1), {"base": 0.1, "head": optimizers.SGD(0.2)}),
    "LossScaleOptimizer": lambda cls: cls(optimizers.Adam(0.1), 8.0),
    "LossFunctionWrapper": lambda cls: None,
    "MeanMetricWrapper": lambda cls: cls(metrics.binary_accuracy),
}


@cache
def named_in_tests():
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        if path.name == "test_parts.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def make(kind, name) -> Configurable | None:
    cls = configurable(kind)[name]
    if name in OF_THEIR_OWN:
        return OF_THEIR_OWN[name](cls)
    asked = [
        p for p in inspect.signature(cls).parameters.values() if p.default is p.empty and p.kind < p.VAR_POSITIONAL
    ]
    return cls(**{parameter.name: ARGUMENTS[parameter.name] for parameter in asked})


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_it_says_what_it_is_and_a_test_names_it(kind, name):
    text = inspect.cleandoc(classes(kind)[name].__dict__.get("__doc__") or "")
    assert text.partition("\n")[0].endswith((".", ":")), text
    assert name in BASES or name in named_in_tests()


@pytest.mark.parametrize(("kind", "name"), SAVED)
def test_it_comes_back_from_its_configuration(kind, name):
    made = make(kind, name)
    if made is None:
        return
    again = deserialize(serialize(made))
    assert type(again) is type(made)
    assert repr(again) == repr(made)
    assert serialize(again) == serialize(made)
