"""What every test shares: one store of compiled kernels, and golden texts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

GOLDEN = Path(__file__).parent / "golden"

# A kernel met for the first time is compiled within an example, which says nothing about the example.
settings.register_profile("graphc", deadline=None)
settings.load_profile("graphc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write tests/golden anew instead of comparing")
    parser.addoption("--ptx", action="store_true", help="execute PTX where tests/cupy would emulate kernels: slowly")


def pytest_configure(config: pytest.Config) -> None:
    """Let all tests, and the processes they start, share compiled kernels, apart from the user's own."""
    if "GRAPHC_CACHE_DIR" not in os.environ:
        os.environ["GRAPHC_CACHE_DIR"] = str(config.rootpath / ".pytest_cache" / "graphc")


@pytest.fixture(scope="session", autouse=True)
def no_plans_kept() -> Iterator[None]:
    """Compile every graph anew: tests change parts of the compiler, and what they made of a graph must not stay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphc.lower.store.FEWEST_NODES", sys.maxsize)
        yield


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``golden(name, text)``: text must equal ``tests/golden/<name>.txt``.

    ``pytest --update-golden`` writes the file instead; read the difference before committing it.
    """

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        if not path.exists():
            pytest.fail(f"{path} does not exist: run `pytest --update-golden` and read what it wrote")
        assert text == path.read_text(encoding="utf-8"), f"{path} differs; if that is meant: pytest --update-golden"

    return check
