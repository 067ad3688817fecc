"""The walkthroughs of CONTRIBUTING.md are true: what they write is accepted by the project's own tests, and is enough."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.project.checkout import ROOT, copy_to
from tests.project.documents import read_document

GUIDE = read_document("CONTRIBUTING.md")
FILES, EDITS = GUIDE.of("file"), GUIDE.of("edit")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout to which a walkthrough is applied."""
    return copy_to(tmp_path / "checkout")


def apply(folder: Path, *names: str) -> None:
    """Write files and make edits of the guide; a file must be new."""
    for name in names:
        path = folder / name
        if name in EDITS:
            path.write_text(edited(path.read_text(encoding="utf-8"), EDITS[name]), encoding="utf-8")
        else:
            assert not path.exists(), f"{name} exists by now: take another example"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(FILES[name], encoding="utf-8")


def edited(text: str, diff: str) -> str:
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        rows = hunk.splitlines(keepends=True)
        old = "".join(row[1:] for row in rows if row[0] in " -")
        new = "".join(row[1:] for row in rows if row[0] in " +")
        assert not rows or text.count(old) == 1, f"this stands there no more:\n{old}"
        text = text.replace(old, new) if rows else text
    return text


def passed(folder: Path, *arguments: str, path: Path | None = None) -> set[str]:
    """Run tests of a checkout that must all pass; which ones ran."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "--no-header", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*([path] if path else []), folder]))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return set(re.findall(r"^PASSED (\S+)", done.stdout, re.MULTILINE))


def lint(folder: Path, *names: str) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    for command in ("check", "format --check") if ruff else ():
        files = [name for name in names if name.endswith(".py")]
        done = subprocess.run(
            [ruff, *command.split(), "--no-cache", *files],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_every_block_of_the_guide_is_put_to_work():
    used = {
        "graphc/ops/smoothstep.py", "graphc/passes/tidying.py", "frontend/layers/highway.py",
        "tests/frontend/test_highway.py", "pyproject.toml", "graphc_interpreted.py",
    }  # fmt: skip
    assert set(FILES) == used
    assert set(EDITS) == {"graphc/passes/simplify.py", "frontend/layers/__init__.py"}


def test_an_operation_is_one_file(copy):
    """It registers, is offered as gx.smoothstep, and every table that runs over all operations accepts it."""
    apply(copy, "graphc/ops/smoothstep.py")
    lint(copy, "graphc/ops/smoothstep.py")
    tables = (
        "tests/ops",
        "tests/onnx/test_conformance.py",
        "tests/lower/test_lowering.py",
        "tests/project/test_doctests.py",
    )
    names = passed(copy, *tables, "-k", "smoothstep or every_public_function")
    for expected in (
        "tests/ops/test_complete.py::test_nothing_is_missing[smoothstep]",
        "tests/ops/test_complete.py::test_bad_operands_are_refused_with_the_op_the_line_and_a_remedy[smoothstep]",
        "tests/ops/test_conformance.py::test_values[smoothstep-reference]",
        "tests/ops/test_conformance.py::test_values[smoothstep-numba]",
        "tests/ops/test_conformance.py::test_composite_equals_its_parts[smoothstep]",
        "tests/ops/test_derivatives.py::test_both_modes_agree_with_differences_and_each_other[smoothstep]",
        "tests/ops/test_derivatives.py::test_derivatives_differentiate_again[smoothstep]",
        "tests/ops/test_functions.py::test_every_public_function_is_offered",
        "tests/onnx/test_conformance.py::test_cases_at_the_default_opset[smoothstep]",
        "tests/lower/test_lowering.py::test_every_case_of_every_op[smoothstep]",
        "tests/project/test_doctests.py::test_examples[graphc.ops.smoothstep]",
    ):
        assert expected in names


def test_a_rewrite_is_a_table_and_its_place(copy):
    apply(copy, "graphc/passes/tidying.py", "graphc/passes/simplify.py")
    lint(copy, "graphc/passes/tidying.py", "graphc/passes/simplify.py")
    chosen = "drop_sign_before_squaring or merge_concatenations or has_a_name or (fixpoint and 0)"
    names = passed(copy, "tests/rewrite/test_rules.py", "-k", chosen)
    for rule in ("drop_sign_before_squaring", "merge_concatenations"):
        for test in ("test_keeps_values[{}-0]", "test_keeps_special_values[{}]"):
            assert f"tests/rewrite/test_rules.py::{test.format(rule)}" in names
    assert "tests/rewrite/test_rules.py::test_every_rule_has_a_name_and_says_why" in names
    assert "tests/rewrite/test_rules.py::test_simplified_is_a_fixpoint[0]" in names


def test_a_layer_is_a_file_a_line_and_its_test(copy):
    apply(copy, "frontend/layers/highway.py", "frontend/layers/__init__.py", "tests/frontend/test_highway.py")
    lint(copy, "frontend/layers/highway.py", "frontend/layers/__init__.py", "tests/frontend/test_highway.py")
    names = passed(copy, "tests/frontend/test_highway.py", "tests/project/test_doctests.py", "-k", "highway")
    assert len(names) == 1 + FILES["tests/frontend/test_highway.py"].count("\ndef test_")


def test_a_backend_is_a_package(tmp_path):
    """It is listed, takes the operations' conformance table as it is, and a training step."""
    apply(tmp_path, "pyproject.toml", "graphc_interpreted.py")
    install(tmp_path)
    chosen = "interpreted and (softmax or dropout or take_along or matmul or mean or reshape or sigmoid or argmax)"
    names = passed(ROOT, "tests/ops/test_conformance.py", "-k", chosen, path=tmp_path)
    for op in ("softmax", "dropout", "take_along", "matmul", "mean", "reshape", "sigmoid", "argmax"):
        assert f"tests/ops/test_conformance.py::test_values[{op}-interpreted]" in names
    done = subprocess.run(
        [sys.executable, "-c", TRAIN],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [tmp_path, ROOT]))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert "the same as on the reference" in done.stdout


TRAIN = """
import numpy as np
import graphc as gx

assert "interpreted" in [backend.name for backend in gx.backends()]
rng = np.random.default_rng(0)
x, labels = gx.placeholder("x", ("batch", 3)), gx.placeholder("labels", ("batch",), "int64")
start = rng.standard_normal((3, 4)).astype(np.float32)
data, truth = rng.standard_normal((6, 3)).astype(np.float32), np.arange(6) % 4
results = []
for backend in ("interpreted", "reference"):
    w = gx.parameter("w", start)
    loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, x @ w))
    (dw,) = gx.grad(loss, [w])
    step = gx.compile({"loss": loss}, inputs=[x, labels], updates={w: w - 0.5 * dw}, backend=backend)
    losses = [float(step(x=data[:n], labels=truth[:n])["loss"]) for n in (6, 5, 6)]
    before = w.value
    try:
        step(x=data, labels=truth + 1)
    except gx.IndexRangeError as error:
        assert "index 4" in str(error), error
    else:
        raise AssertionError("the index is outside")
    assert (w.value == before).all()
    results.append((losses, w.value))
np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)
assert "kernel" in gx.compile({"y": x + 1}, inputs=[x], backend="interpreted").source()
print("the same as on the reference")
"""


def install(folder: Path) -> None:
    """What pip would write beside the module: the package's name and entry points."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in table.items())
        for group, table in project["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(points))
