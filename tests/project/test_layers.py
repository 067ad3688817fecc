"""Who may import whom, and what an import may load."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.checkout import ROOT, modules, pyproject

LINT = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command(['--no-cache']))"


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


def test_the_layers_hold():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources as they are installed, to break."""
    root = tmp_path_factory.mktemp("broken")
    ignore = shutil.ignore_patterns("__pycache__", "backends", "frontend")
    shutil.copytree(ROOT / "graphc", root / "graphc", ignore=ignore)
    for name in ("backends", "frontend"):
        shutil.copytree(ROOT / name, root / "graphc" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


@pytest.mark.parametrize(
    ("module", "imports"),
    [
        ("graphc.ir.broken", "graphc.ops"),
        ("graphc.ops.broken", "graphc.rewrite"),
        ("graphc.passes.broken", "graphc.autodiff"),
        ("graphc.lower.broken", "graphc.program"),
        ("graphc.lower.broken", "graphc.backends.reference"),
        ("graphc.backends.onnx.broken", "graphc.backends.numba"),
        ("graphc.backends.reference.broken", "graphc.driver"),
        ("graphc.frontend.layers.broken", "graphc.lower"),
    ],
)
def test_an_import_against_the_layers_is_found(copy, module, imports):
    path = copy.joinpath(*module.split(".")).with_suffix(".py")
    path.write_text(f"import {imports}\n")
    try:
        done = lint(copy)
    finally:
        path.unlink()
    assert done.returncode != 0
    assert module in done.stdout


def test_every_package_belongs_to_a_layer():
    """A new package of graphc's own must be given its place in pyproject.toml."""
    layers = " ".join(pyproject()["tool"]["importlinter"]["contracts"][0]["layers"])
    placed = set(re.findall(r"[\w.]+", layers))
    missing = {".".join(name.split(".")[:2]) for name in modules() if "." in name} - placed
    # Backends stand beside the layers, each alone; the package itself and its command line stand above all.
    assert missing == {"graphc.backends", "graphc.__main__"}


LOADED = """
import sys, sysconfig
purelib = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
def third_party():
    tops = {name.partition(".")[0] for name in sys.modules}
    origins = {name: getattr(sys.modules.get(name), "__file__", None) or "" for name in tops}
    return {name for name, origin in origins.items() if any(origin.startswith(folder) for folder in purelib)}
before = third_party()
"""


def third_party_of(program: str) -> set[str]:
    """The packages from site-packages that a program loads in a process of its own."""
    end = "\nprint('loaded', *sorted(third_party() - before - {'graphc'}))\n"
    done = subprocess.run(
        [sys.executable, "-c", LOADED + program + end],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    last = done.stdout.splitlines()[-1].split()
    assert last[0] == "loaded"
    return set(last[1:])


def test_importing_graphc_loads_nothing_but_itself():
    program = "import graphc\nassert [name for name in sys.modules if name.startswith('graphc')] == ['graphc']"
    assert third_party_of(program) == set()


def test_an_attribute_that_does_not_exist_loads_nothing():
    program = "import graphc\nassert not hasattr(graphc, '__wrapped__')\nassert 'graphc.ops' not in sys.modules"
    assert third_party_of(program) == set()


def test_public_names_need_numpy_alone():
    program = "import graphc\nfor name in graphc.__all__:\n    if name != 'onnx': getattr(graphc, name)"
    assert third_party_of(program) == {"numpy"}


STEP = """
import numpy as np
import graphc as gx
x, labels = gx.placeholder("x", ("batch", 3)), gx.placeholder("labels", ("batch",), "int64")
w = gx.parameter("w", np.zeros((3, 4), np.float32))
loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, gx.relu(x @ w)))
(dw,) = gx.grad(loss, [w])
step = gx.compile({"loss": loss}, inputs=[x, labels], updates={w: w - 0.1 * dw}, backend=BACKEND)
for batch in (2, 5):
    step(x=np.ones((batch, 3), np.float32), labels=np.zeros(batch, np.int64))
print(step.text("fused"), step.source(), step.memory(), step.explain(), gx.explain_gradient(loss, w))
"""


def test_compiling_and_running_on_the_reference_needs_numpy_alone():
    assert third_party_of(f"BACKEND = 'reference'\n{STEP}") == {"numpy"}


def test_compiling_and_running_from_a_warm_cache_needs_neither_numba_nor_networkx():
    """The first process compiles what the cache lacks; it may import Numba, and nothing else that is heavy."""
    program = f"BACKEND = 'numba'\n{STEP}"
    assert third_party_of(program) & {"networkx", "onnx", "onnxruntime", "cupy", "safetensors"} == set()
    assert third_party_of(program) <= {"numpy", "llvmlite", "scipy_openblas64"}
