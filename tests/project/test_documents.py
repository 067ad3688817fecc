"""What the documents show is what the program says, and what they point to exists."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.project.checkout import ROOT, modules
from tests.project.documents import links, printed, read_document, with_outputs

DOCUMENTS = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
SHOWING = [name for name in DOCUMENTS if read_document(name).of("prints")]


@pytest.mark.parametrize("name", SHOWING)
def test_what_is_shown_is_what_is_printed(name, tmp_path, request):
    document = read_document(name)
    text = with_outputs(document, printed(document, tmp_path))
    if request.config.getoption("--update-golden"):
        document.path.write_text(text, encoding="utf-8")
        return
    assert document.text == text, f"{name} shows something else; if that is meant: pytest --update-golden"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_comment_has_its_block(name):
    """A block whose fence is broken would silently be checked no more."""
    document = read_document(name)
    comments = re.findall(r"^<!-- (file|edit|prints): (.+?) -->$", document.text, re.MULTILINE)
    assert comments == [(block.kind, block.what) for block in document.blocks]
    assert all(
        len(set(document.of(kind))) == sum(block.kind == kind for block in document.blocks)
        for kind in ("file", "prints")
    )


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files(name):
    document = read_document(name)
    assert [target for target in links(document) if not (document.path.parent / target).exists()] == []


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md", "docs/errors.md", "docs/interfaces.md"])
def test_files_and_modules_that_are_named_exist(name):
    document = read_document(name)
    new = {*document.of("file"), *document.of("edit")}
    prose = re.sub(r"^```.*?^```$", "", document.text, flags=re.MULTILINE | re.DOTALL)
    for word in re.findall(r"`([^`\n]+)`", prose):
        if re.fullmatch(r"(graphc|backends|frontend|tests|docs|benchmarks|examples|\.ci)/[\w./-]+", word):
            assert (ROOT / word).exists() or word in new, f"{name} names {word}, which does not exist"
        if re.fullmatch(r"graphc(\.\w+)+(\(.*\))?", word) and word != "graphc.backends":
            assert known(word.partition("(")[0]), f"{name} names {word}, which does not exist"


def known(name: str) -> bool:
    """Is it a module of graphc, or a name in one?"""
    value: object = importlib.import_module("graphc")
    parts = name.split(".")
    for number, part in enumerate(parts[1:], 2):
        if not hasattr(value, part):
            if ".".join(parts[:number]) not in modules():
                return False
            importlib.import_module(".".join(parts[:number]))
        value = getattr(value, part)
    return True
