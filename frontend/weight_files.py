"""Weights from files, by name: what fits is loaded, and a report says what did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphc.errors import FileError
from graphc.frontend.config import user_line
from graphc.frontend.files import read_tensors
from graphc.ir.node import Parameter

Shapes = tuple[Any, Any]


@dataclass(frozen=True)
class LoadReport:
    """What ``load_weights`` did.

    Attributes:
        matched: the paths of the weights that were set.
        differing: weights left as they are because a weight of their layer has another shape in the file: by path the
            shape in the file and in the model.
        missing: weights of the model that the file lacks; they are left as they are.
        unused: names in the file that mean no weight of the model.
    """

    matched: tuple[str, ...]
    differing: Mapping[str, Shapes]
    missing: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        rows = [f"{len(self.matched)} weights loaded"]
        rows += [f"not loaded: {name}: {held} in the file, {own} here" for name, (held, own) in self.differing.items()]
        rows += [f"not in the file: {name}" for name in self.missing]
        rows += [f"only in the file: {name}" for name in self.unused]
        return "\n".join(rows)


def load_weights(path: Path, weights: Mapping[str, Parameter], by_name: bool, skip_mismatch: bool) -> LoadReport:
    """Set weights from a file; see ``Model.load_weights``."""
    arrays, _ = read_tensors(path)
    source = _by_name(arrays, weights) if by_name else {name: name for name in weights if name in arrays}
    shapes: dict[str, Shapes] = {name: (arrays[held].shape, weights[name].shape) for name, held in source.items()}
    wrong = [name for name, (held, own) in shapes.items() if held != own]
    missing = tuple(name for name in weights if name not in source)
    used = set(source.values())
    unused = tuple(sorted(name for name in arrays if name not in used))
    lacking = None
    if wrong and not skip_mismatch:
        held, own = shapes[wrong[0]]
        lacking = f"lacks {source[wrong[0]]!r} of shape {own}, it holds one of shape {held}"
    elif missing and not by_name:
        lacking = f"lacks {missing[0]!r} of shape {weights[missing[0]].shape}"
    elif unused and not by_name:
        lacking = f"holds further weights: {unused[0]!r}"
    if lacking is not None:
        raise FileError(
            f"{path} {lacking}: it is not of this model",
            at=user_line(),
            remedy="build the model that wrote it, or load what fits: load_weights(path, by_name=True, "
            "skip_mismatch=True)",
        )
    spoilt = {_layer(name) for name in wrong}  # a layer with half of its weights would be neither one nor the other
    matched = tuple(name for name in source if _layer(name) not in spoilt)
    for name in matched:
        weights[name].value = arrays[source[name]]
    differing = {name: shapes[name] for name in source if _layer(name) in spoilt}
    return LoadReport(matched, differing, missing, unused)


def _by_name(arrays: Mapping[str, Any], weights: Mapping[str, Parameter]) -> dict[str, str]:
    """For weights of the model their names in the file.

    Whole paths count first. Then a layer may stand within another one on one side only (``base/conv/kernel`` here,
    ``conv/kernel`` there), if that leaves one choice.
    """
    found = {name: name for name in weights if name in arrays}
    own, held = (_endings(name for name in names if name not in found) for names in (weights, arrays))
    for name in weights:
        if name in found:
            continue
        for ending in _endings_of(name):
            sources = held.get(ending, [])
            if len(sources) == 1 and len(own[ending]) == 1 and ending in (name, sources[0]):
                found[name] = sources[0]
                break
    taken = Counter(found.values())
    return {name: found[name] for name in weights if name in found and taken[found[name]] == 1}


def _endings(names: Any) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for name in names:
        for ending in _endings_of(name):
            table.setdefault(ending, []).append(name)
    return table


def _endings_of(name: str) -> list[str]:
    """The path itself, and without its outer layers, down to a layer and its weight."""
    parts = name.split("/")
    return ["/".join(parts[start:]) for start in range(max(len(parts) - 1, 1))]


def _layer(name: str) -> str:
    return name.rpartition("/")[0]
