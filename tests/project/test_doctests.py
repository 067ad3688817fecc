"""Every ``>>>`` example in the sources runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib

import pytest

from tests.project.checkout import modules

WITH_EXAMPLES = sorted(name for name, path in modules().items() if ">>> " in path.read_text(encoding="utf-8"))
NEED_CUPY = ("graphc.backends.cupy.cuda",)
"""Modules that speak to a GPU: their examples run where CuPy is installed."""


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name, tmp_path, monkeypatch):
    if name in NEED_CUPY:
        pytest.importorskip("cupy", reason="CuPy is not installed")
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0
