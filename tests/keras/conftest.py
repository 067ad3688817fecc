"""Keras 3 on JAX as a judge. It is slow to import, so that these tests run only when asked for: ``pytest -m keras``."""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Nothing here is imported unless the tests are selected by their mark."""
    if config.getoption("markexpr") != "keras" or importlib.util.find_spec("keras") is None:
        return True
    os.environ["KERAS_BACKEND"] = "jax"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import keras  # noqa: F401
    return None
