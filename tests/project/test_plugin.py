"""Backends in packages of their own, found through the entry-point group ``graphc.backends``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.checkout import ROOT, pip, run

USE_IT = """
import numpy as np
import graphc as gx
import graphc_tracing

assert "tracing" in {backend.name for backend in gx.backends()}
x = gx.placeholder("x", ("batch", 3), "float32")
w = gx.parameter("w", np.ones(3, np.float32))
loss = gx.mean((x @ w) ** 2)
(dw,) = gx.grad(loss, [w])
step = gx.compile({"loss": loss}, inputs=[x], updates={w: w - 0.5 * dw}, backend="tracing")
assert float(step(x=np.ones((2, 3), np.float32))["loss"]) == 9
assert w.value.tolist() == [-2, -2, -2]
once = dict(graphc_tracing.backend.counts)
assert "matmul" in {name.lower() for name in once}, once
step(x=np.ones((5, 3), np.float32))
assert graphc_tracing.backend.counts == {name: 2 * count for name, count in once.items()}
assert type(gx.compile({"loss": loss}, inputs=[x])).__name__ == "Program"
assert sum(graphc_tracing.backend.counts.values()) == 2 * sum(once.values())
print("the plug-in ran")
"""

MEET_IT = """
import numpy as np
import graphc as gx

x = gx.placeholder("x", (3,), "float32")
assert gx.compile({"y": x + 1}, inputs=[x], backend="reference")(x=np.zeros(3, np.float32))["y"].tolist() == [1, 1, 1]
try:
    gx.compile({"y": x + 1}, inputs=[x], backend="broken")
except gx.BackendError as error:
    print(error)
"""


def python(program: str, *paths: Path) -> str:
    """Run a program that sees graphc and the plug-ins at ``paths``."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the plug-in package was installed into."""
    source, target = tmp_path_factory.mktemp("plugin") / "source", tmp_path_factory.mktemp("plugin_target")
    shutil.copytree(ROOT / "tests" / "project" / "plugin", source, ignore=shutil.ignore_patterns("__pycache__"))
    run(pip("install", "--no-deps", "--no-index", "--no-build-isolation", "--target", target, source), cwd=source)
    return target


def test_a_backend_of_another_package_is_listed_and_compiles(installed):
    assert "the plug-in ran" in python(USE_IT, installed)


def test_doctor_shows_it(installed):
    program = "import runpy, sys; sys.argv = ['graphc', 'doctor']; runpy.run_module('graphc', run_name='__main__')"
    assert "tracing" in python(program, installed)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_module", "no_such_module"),
        ("raise RuntimeError('half installed')", "half installed"),
        ("backend = object()", "graphc.backend.Backend"),
        ("", "backend"),
    ],
    ids=["missing module", "raises", "not a backend", "no such attribute"],
)
def test_a_broken_plug_in_is_named_and_disturbs_no_other(tmp_path, source, reason):
    (tmp_path / "broken_plugin.py").write_text(source)
    info = tmp_path / "broken_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[graphc.backends]\nbroken = broken_plugin:backend\n")
    message = python(MEET_IT, tmp_path)
    assert "'broken'" in message
    assert reason in message
    assert "to do:" in message
