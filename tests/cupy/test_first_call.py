"""What a first call finds on disk: plans, and machine code part by part."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc import cache
from graphc.backends.cupy import CupyBackend, cubins
from graphc.backends.cupy.module import KERNELS_OF_A_PART, Part, make_unit
from graphc.backends.cupy.nvrtc import Cubin
from graphc.backends.cupy.products import FUNCTIONS
from graphc.errors import BackendError, IndexRangeError
from graphc.lower import store
from tests.cupy.emulated_device import EmulatedDevice
from tests.cupy.test_attention import transformer_step
from tests.cupy.test_programs import recurrent_step
from tests.spine.models import batch, classifier_step

SIZES = 12, 16, 4


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Path]]]:
    """Keep all plans and cubins, in places of the test's own: ``kept()`` lists the plans."""
    name = f"{tmp_path.parent.name}-{tmp_path.name}"
    monkeypatch.setattr(store, "FEWEST_NODES", 0)
    monkeypatch.setattr(store, "KIND", f"plan-{name}")
    monkeypatch.setattr(cubins, "KIND", f"cubin-{name}")
    root = cache.folder()
    assert root is not None
    yield lambda: sorted(path for path in (root / store.KIND).rglob("*") if path.is_file())
    for kind in (store.KIND, cubins.KIND):
        shutil.rmtree(root / kind, ignore_errors=True)


# plans


def classifier(target: Any) -> tuple[gx.Program, dict[str, Any]]:
    return classifier_step(SIZES, rate=0.2, backend=target), batch(7, SIZES[0], SIZES[-1])


def recurrent(target: Any) -> tuple[gx.Program, dict[str, Any]]:
    program = recurrent_step(target, 5)
    rng = np.random.default_rng(0)
    return program, {"x": rng.standard_normal((7, 3, 6), np.float32), "t": rng.standard_normal((3, 5), np.float32)}


def attending(target: Any) -> tuple[gx.Program, dict[str, Any]]:
    return transformer_step(target, precision="mixed_bfloat16")


def ending(target: Any) -> tuple[gx.Program, dict[str, Any]]:
    x = gx.placeholder("x", ("n",))
    halved, steps = gx.while_loop(lambda v: gx.max(v) > 1, lambda v: v / 2, x, most=9)
    outputs = {"halved": halved, "steps": steps, "after": halved * 3.0 + gx.sum(x)}
    return gx.compile(outputs, [x], backend=target), {"x": np.float32([3, 9, 1])}


def predicting(target: Any) -> tuple[gx.Program, dict[str, Any]]:
    rng = np.random.default_rng(3)
    w = gx.parameter("w", rng.standard_normal((16, 16), np.float32))
    x = gx.placeholder("x", ("n", 16))
    program = gx.compile({"y": gx.relu(x @ gx.square(w))}, [x], backend=target, precision="mixed_bfloat16")
    return program, {"x": rng.standard_normal((3, 16), np.float32)}


@pytest.mark.parametrize("make", [classifier, recurrent, attending, ending, predicting])
def test_a_program_from_a_kept_plan_gives_the_same_bits(make, kept):
    """Neither simplified nor lowered again, and what it says of itself is the same."""
    results: list[list[np.ndarray]] = []
    programs: list[gx.Program] = []
    for turn in range(2):
        program, feeds = make(CupyBackend(device=EmulatedDevice()))
        found = [value for _ in range(2) for value in program(**feeds).values()]
        results.append([*found, *(parameter.value for parameter in program.parameters)])
        programs.append(program)
        assert len(kept()) == 1
        assert ("_lowered" in vars(program)) is False
        assert (program._kept.plan is program._lower().plan) is (turn == 0)
    for cold, warm in zip(*results, strict=True):
        np.testing.assert_array_equal(cold, warm)
    cold, warm = programs
    assert warm.source() == cold.source()
    assert warm.text("plan") == cold.text("plan")


def test_checks_of_a_kept_plan_fail_with_their_line(kept):
    for _ in range(2):
        program, feeds = classifier(CupyBackend(device=EmulatedDevice()))
        before = [parameter.value for parameter in program.parameters]
        feeds["labels"] = np.where(np.arange(7) == 3, SIZES[-1], feeds["labels"])
        with pytest.raises(IndexRangeError, match=f"index {SIZES[-1]} is outside") as caught:
            program(**feeds)
        assert "models.py" in str(caught.value)
        for parameter, value in zip(program.parameters, before, strict=True):
            np.testing.assert_array_equal(parameter.value, value)
    assert len(kept()) == 1


def test_a_plan_is_that_of_a_backend_with_its_options():
    keys = {target.plan_key() for target in (CupyBackend(), CupyBackend(device=EmulatedDevice()))}
    assert len(keys) == 1  # plans are the same for all devices
    assert CupyBackend(tf32=True).plan_key() not in keys


# machine code


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that are compiled, each to bytes that name it."""
    found: list[str] = []

    def compile_it(source: str, arch: str) -> Cubin:
        if "refused" in source:
            raise BackendError("NVRTC refuses the source")
        found.append(source)
        return Cubin(arch, f"{arch} {source}".encode(), {})

    monkeypatch.setattr(cubins, "compile_cubin", compile_it)
    return found


def test_each_part_is_compiled_once(kept, compiled):
    parts = [Part(text, (text,)) for text in ("a", "bb", "ccc")]
    assert cubins.cubins(parts, "sm_80") == [b"sm_80 a", b"sm_80 bb", b"sm_80 ccc"]
    assert sorted(compiled) == ["a", "bb", "ccc"]
    again = [parts[2], Part("d", ("d",)), parts[0]]
    assert cubins.cubins(again, "sm_80") == [b"sm_80 ccc", b"sm_80 d", b"sm_80 a"]
    assert compiled[3:] == ["d"]
    assert cubins.cubins(parts[:1], "sm_90") == [b"sm_90 a"]
    with pytest.raises(BackendError, match="refuses"):
        cubins.cubins([Part("e", ()), Part("refused", ())], "sm_80")


def test_programs_that_attend_alike_share_their_kernels(kept, compiled):
    """Whatever else they compute; and parts name each function once."""
    q = gx.placeholder("q", (2, "n", 16))
    graphs = [gx.scaled_dot_product_attention(q * 2, q, q), gx.tanh(gx.scaled_dot_product_attention(q, q, q + 1))]
    target = CupyBackend(device=EmulatedDevice())
    units = [gx.compile({"y": y}, [q], backend=target).executable.unit for y in graphs]
    for unit in units:
        assert unit.attention
        cubins.cubins(unit.parts, "sm_90")
    assert sum("attention_forward" in source for source in compiled) == 1
    assert len(compiled) == 3


def test_parts_hold_few_kernels_and_each_of_them_once():
    unit = make_unit(recurrent_step("numba", 64).plan)
    names = [name for part in unit.parts for name in part.functions]
    assert len(unit.entries) > KERNELS_OF_A_PART
    assert len(names) == len(set(names)) == len(unit.entries) + 1 + len(FUNCTIONS) * unit.small_products
    assert max(len(part.functions) for part in unit.parts) <= KERNELS_OF_A_PART + 1
    for part in unit.parts:
        assert all(f"{name}(" in part.source for name in part.functions)
