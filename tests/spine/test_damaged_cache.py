"""A damaged cache is no error: what it holds is made again, and where it cannot be written it is done without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphc as gx
from graphc.backends.numba import build


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    path.write_bytes(b"\x7fELF from elsewhere")


def _folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [_cut_off, _flip_a_bit, _empty, _foreign, _folder_in_its_place, _remove])
def test_damaged_entries_of_the_cache_are_made_again_without_a_word(
    damage: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    x = gx.placeholder("x", ("n",))
    outputs = {"y": gx.tanh(x) * 3.0 + 0.125}
    given = np.float32([0, 1, -2])
    expected = gx.compile(outputs, inputs=[x], backend="numba")(x=given)["y"]

    def compile_without_memory() -> gx.Program:
        monkeypatch.setattr(build, "_addresses", {k: v for k, v in build._addresses.items() if "tanh" not in k})
        return gx.compile(outputs, inputs=[x], backend="numba")

    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    compile_without_memory()
    (entry,) = (path for path in (tmp_path / "cache" / build.OBJECT).rglob("*") if path.is_file())
    damage(entry)
    np.testing.assert_array_equal(compile_without_memory()(x=given)["y"], expected)
    assert not recwarn.list


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = gx.placeholder("x", ("n",))
    (tmp_path / "taken").write_text("a file where the folder should be")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "taken" / "cache"))
    result = gx.compile({"y": gx.tanh(x) * 5.0 - 0.375}, inputs=[x], backend="numba")(x=np.float32([0]))["y"]
    np.testing.assert_array_equal(result, np.float32([-0.375]))
