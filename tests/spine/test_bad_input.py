"""Bad input of every kind: which error, on which line of the user, with which remedy, and no parameter changed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import graphc as gx
from tests.spine import mistakes_in_graphs, mistakes_in_values, mistakes_outside
from tests.spine.mistakes import Case, World, training

CASES = [*mistakes_in_graphs.CASES, *mistakes_in_values.CASES, *mistakes_outside.CASES]

STEPS: dict[str, dict[str, gx.Program]] = {}
PARAMETERS: dict[str, tuple[gx.Parameter, gx.Parameter]] = {}


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    name = request.param
    if name not in STEPS:
        table = gx.parameter("table", np.arange(9, dtype=np.float32).reshape(3, 3) / 8)
        bias = gx.parameter("bias", np.float32([0.5, -0.5, 0]))
        PARAMETERS[name] = table, bias
        STEPS[name] = {"train": training(table, bias, name)}
    table, bias = PARAMETERS[name]
    return World(name, table, bias, tmp_path, monkeypatch, STEPS[name])


@pytest.mark.parametrize("world", ["numba", "reference"], indirect=True)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.category}-{case.run.__name__}")
def test_bad_input_is_refused_on_the_users_line_with_a_remedy(case: Case, world: World) -> None:
    before = world.table.value.tobytes(), world.bias.value.tobytes()
    with pytest.raises(gx.GraphcError) as caught:
        case.run(world)
    text = str(caught.value)
    assert type(caught.value) is case.error, text
    for words in case.says:
        assert words in text, text
    first, *_, last = text.splitlines()
    assert len(first) < 200, "the first line says what is wrong"
    assert last.startswith("to do: "), text
    assert len(last) > 12
    if case.file is None:
        assert case.line in text, text
    else:
        assert str(world.path) in text, text
        assert case.file in text, text
    assert (world.table.value.tobytes(), world.bias.value.tobytes()) == before


def test_the_table_is_as_large_as_it_should_be() -> None:
    counts = Counter(case.category for case in CASES)
    assert sum(counts.values()) >= 40
    assert len(counts) == 8
    assert min(counts.values()) >= 5, counts
