"""The checkout as the tests of the project see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"graphc": "graphc", "graphc.backends": "backends", "graphc.frontend": "frontend"}
"""Installed name of each top-level source folder."""


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module of graphc under the name it is imported by, without following the symlinks."""
    found: dict[str, Path] = {}
    for prefix, name in FOLDERS.items():
        folder = root / name
        for directory, subfolders, names in os.walk(folder):
            subfolders[:] = [name for name in subfolders if name != "__pycache__"]
            for file in names:
                if file.endswith(".py"):
                    path = Path(directory, file)
                    parts = [prefix, *path.relative_to(folder).with_suffix("").parts]
                    found[".".join(parts).removesuffix(".__init__")] = path
    return found


def copy_to(target: Path) -> Path:
    """What a build needs, without the leftovers of earlier builds."""
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("graphc", "backends", "frontend", "tests", "examples", "benchmarks", "docs"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=ignore)
    for name in (
        "pyproject.toml",
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "MANIFEST.in",
        ".pre-commit-config.yaml",
    ):
        shutil.copy(ROOT / name, target / name)
    return target


def clean_environment(**more: str) -> dict[str, str]:
    """The environment without what could make the checkout importable."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more


def run(command: Sequence[str | Path], cwd: Path, **env: str) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=clean_environment(**env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}"
    return done.stdout


def pip(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
