"""What the comparisons with Keras share: arguments for both libraries, random weights in both, and distances."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

import graphc as gx

STEPS = 20
ROWS = 7
"""Samples of a table: not a multiple of the batch size, so that one of two batches is smaller."""
BATCH = 4

ABSENT = {
    "autocast": "layers cast float inputs to their dtype, always",
    "lora_rank": "adapters of low rank are no part of the library",
    "lora_alpha": "adapters of low rank are no part of the library",
    "quantization_config": "weights are stored as they are trained",
    "use_cudnn": "kernels are chosen by the compiler",
}
"""Arguments that no layer here has, and why."""


@dataclass(frozen=True)
class Of:
    """An object of either library, made when it is known of which: ``Of("regularizers.L2", 0.1)``."""

    path: str
    args: tuple[Any, ...]
    said: tuple[tuple[str, Any], ...]


def of(path: str, *args: Any, **said: Any) -> Of:
    """Arguments that are objects, for both libraries alike."""
    return Of(path, args, tuple(said.items()))


@dataclass(frozen=True)
class The:
    """A function of either library."""

    path: str


def the(path: str) -> The:
    """The function of this name in both libraries."""
    return The(path)


def resolve(module: Any, value: Any) -> Any:
    """A value of one library; those within lists and dicts, too."""
    if isinstance(value, Of | The):
        found = module
        for name in value.path.split("."):
            found = getattr(found, name)
        if isinstance(value, The):
            return found
        return found(*(resolve(module, one) for one in value.args), **resolve(module, dict(value.said)))
    if isinstance(value, dict):
        return {key: resolve(module, one) for key, one in value.items()}
    return [resolve(module, one) for one in value] if isinstance(value, list) else value


def pour(theirs: Any, ours: Any, seed: int) -> None:
    """Random weights in both: from ours to theirs, then back, so that order and layout hold in both directions."""
    rng = np.random.default_rng(seed)
    shapes = [tuple(weight.shape) for weight in theirs.get_weights()]
    assert shapes == [weight.shape for weight in ours.get_weights()]
    ours.set_weights([rng.uniform(-0.7, 0.7, shape).astype(np.float32) for shape in shapes])
    theirs.set_weights(ours.get_weights())
    for found, wanted in zip(theirs.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_array_equal(np.asarray(found), wanted)
    ours.set_weights([np.zeros(shape, np.float32) for shape in shapes])
    ours.set_weights(theirs.get_weights())


def distance(found: Any, wanted: Any, before: Any = 0.0) -> float:
    """The largest difference of two arrays, in relation to the largest element of what is wanted, or was before."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    size = max(np.max(np.abs(wanted)), np.max(np.abs(before)))
    return float(np.max(np.abs(found.astype(np.float64) - wanted)) / (size or 1.0))


def flat(values: Any) -> list[np.ndarray]:
    """The arrays in lists and dicts, in order."""
    return [np.asarray(leaf) for leaf in keras.tree.flatten(values)]


def same_logs(found: Any, wanted: Any, rtol: float = 1e-5) -> None:
    """The same names with nearly the same values."""
    assert set(found) == set(wanted)
    for key in wanted:
        np.testing.assert_allclose(found[key], wanted[key], rtol=rtol, atol=1e-6, err_msg=key)


def parameter_counts(model: Any) -> dict[str, int]:
    """The sums below the table of ``summary``."""
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    found = re.findall(r"(\w[\w-]*) params: ([\d,]+)", "\n".join(lines))
    return {kind: int(count.replace(",", "")) for kind, count in found}


def arguments(cls: type) -> dict[str, Any]:
    """Names and defaults of what a constructor takes, what it hands on by ``**kwargs`` included."""
    found: dict[str, Any] = {}
    for base in cls.__mro__[:-1]:
        if "__init__" in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            for one in parameters:
                if one.name != "self" and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL):
                    found.setdefault(one.name, one.default)
            if not any(one.kind is one.VAR_KEYWORD for one in parameters):
                break
    return found


def positional(cls: type) -> list[str]:
    """The arguments of a constructor that may be given by position."""
    found = inspect.signature(cls.__init__).parameters.values()
    return [one.name for one in found if one.kind is one.POSITIONAL_OR_KEYWORD and one.name != "self"]


def same_default(found: Any, wanted: Any) -> bool:
    """Equal, where names of initializers may be spelt ``Zeros`` or ``zeros``."""
    if isinstance(found, str) and isinstance(wanted, str):
        return found.lower() == wanted.lower()
    return type(found) is type(wanted) and found == wanted


def layer_classes(module: Any) -> dict[str, type]:
    """The public layer classes of a library by name."""
    return {
        name: cls
        for name, cls in vars(module.layers).items()
        if isinstance(cls, type) and issubclass(cls, module.layers.Layer)
    }


def ported(value: Any) -> Any:
    """What Keras writes into a layer's configuration, as objects of ours."""
    if isinstance(value, dict) and "class_name" in value:
        module = value["module"].removeprefix("keras.")
        config = value["config"]
        if isinstance(config, str):
            return getattr(gx.activations, config)
        return getattr(getattr(gx, module), value["class_name"])(**ported(config))
    if isinstance(value, dict):
        return {key: ported(one) for key, one in value.items()}
    return value
