"""The package that a user installs: nothing missing, nothing twice, nothing outside graphc."""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.project.checkout import ROOT, copy_to, modules, pip, pyproject, run

DISTRIBUTIONS = {
    "scipy_openblas64": "scipy-openblas64",
    "cupy": "cupy-cuda13x",
    "cuda": "cuda-bindings",
    "google": "protobuf",
}
"""Where the name of an import is not the name of what is installed for it."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A copy of the checkout, an sdist of it, and the wheel built from that sdist."""
    source, out = copy_to(tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source], cwd=out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return source, sdist, wheel


def test_every_package_on_disk_is_listed():
    on_disk = {name for name, path in modules().items() if path.name == "__init__.py"}
    assert set(pyproject()["tool"]["setuptools"]["packages"]) == on_disk


def test_every_module_stands_in_a_package():
    packages = {path.parent for path in modules().values() if path.name == "__init__.py"}
    assert [str(path) for path in modules().values() if path.parent not in packages] == []


def test_symlinks_show_an_uninstalled_checkout_the_installed_names():
    for name in ("backends", "frontend"):
        link = ROOT / "graphc" / name
        assert link.is_symlink()
        assert link.readlink() == Path("..", name)


def third_party_imports() -> dict[str, set[str]]:
    """Distribution name -> the modules of graphc that import it."""
    found: dict[str, set[str]] = {}
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top != "graphc" and top not in sys.stdlib_module_names:
                    found.setdefault(DISTRIBUTIONS.get(top, top), set()).add(module)
    return found


def test_every_import_is_a_declared_dependency():
    project = pyproject()["project"]
    optional = [line for extra in ("onnx", "gpu", "plot") for line in project["optional-dependencies"][extra]]
    declared = {re.match(r"[\w.-]+", line).group() for line in [*project["dependencies"], *optional]}
    imports = third_party_imports()
    assert "numpy" in imports
    assert {name: imports[name] for name in imports.keys() - declared} == {}


def test_wheel_holds_each_module_once_and_only_graphc(built):
    source, _, wheel = built
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name, times in Counter(names).items() if times > 1} == set()
    packaged = {name for name in names if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in packaged} == {"graphc"}
    expected = {
        name.replace(".", "/") + ("/__init__.py" if path.name == "__init__.py" else ".py")
        for name, path in modules(source).items()
    }
    assert {name for name in packaged if name.endswith(".py")} == expected
    assert {"graphc/py.typed", "graphc/frontend/data/digits.csv.gz", "graphc/frontend/data/digits.txt"} <= packaged
    headers = {f"graphc/backends/cupy/{path.name}" for path in (source / "backends" / "cupy").glob("*.cuh")}
    assert headers <= packaged


def test_sdist_holds_the_checkout(built):
    source, sdist, _ = built
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(path.relative_to(source)) for path in modules(source).values()}
    assert sources <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "tests/conftest.py"} <= names
    assert not {name for name in names if name.startswith(("graphc/backends/", "graphc/frontend/"))}


def test_wheel_works_in_a_clean_environment(built, tmp_path):
    _, _, wheel = built
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    run(pip("--python", python, "install", "--no-deps", "--no-index", wheel), cwd=tmp_path)
    # graphc's dependencies are those of the environment that runs the tests; only graphc itself comes from the wheel.
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    out = run([python, ROOT / "tests" / "project" / "wheel_smoke.py"], cwd=tmp_path)
    assert str(home) in out
    assert "installed as it should be" in out
