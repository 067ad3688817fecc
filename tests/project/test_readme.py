"""README.md says what is true: its Python runs, its commands have the form that .ci/run reads, its links lead somewhere."""

from __future__ import annotations

import re

import pytest

from tests.project.checkout import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_the_tour_runs_as_one_program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = "\n".join(code for language, code in BLOCKS if language == "python")
    assert "import graphc as gx" in program
    path = tmp_path / "tour.py"
    path.write_text(program)
    exec(compile(program, str(path), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("end", ["python examples/quickstart.py", "pytest -n auto"])
def test_one_command_does_it_all(end):
    found = [
        line
        for language, code in BLOCKS
        if language == "sh"
        for line in code.splitlines()
        if re.fullmatch(rf"pip install -e \S+ && {re.escape(end)}", line)
    ]
    assert len(found) == 1


def test_links_to_files_lead_to_files():
    targets = [target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", TEXT) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
