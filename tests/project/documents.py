"""Documents whose blocks are what the program really says, or are files that the tests put to work.

A comment above a fenced block says what the block is::

    <!-- file: model.py -->             the text of a file
    <!-- edit: graphc/passes/x.py -->   lines of an existing file, as a diff: `-` goes, `+` comes, the rest stays
    <!-- prints: h.loc -->              what a Python expression prints, after the document's files were executed

``pytest --update-golden`` writes what is printed into the document; read the difference before committing it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.project.checkout import ROOT

_BLOCK = re.compile(r"^<!-- (file|edit|prints): (.+?) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block under a comment: its kind, what the comment names, its text and where the text stands."""

    kind: str
    what: str
    text: str
    span: tuple[int, int]


@dataclass(frozen=True)
class Document:
    """A Markdown file of the checkout."""

    path: Path
    text: str
    blocks: tuple[Block, ...]

    def of(self, kind: str) -> dict[str, str]:
        """Texts of the blocks of one kind, by what they name."""
        return {block.what: block.text for block in self.blocks if block.kind == kind}


def read_document(name: str) -> Document:
    path = ROOT / name
    text = path.read_text(encoding="utf-8")
    found = (Block(m[1], m[2], m[3], m.span(3)) for m in _BLOCK.finditer(text))
    return Document(path, text, tuple(found))


def with_outputs(document: Document, outputs: dict[str, str]) -> str:
    """The document's text with what each expression prints in its place."""
    text = document.text
    for block in reversed(document.blocks):
        if block.kind == "prints":
            start, end = block.span
            text = text[:start] + outputs[block.what] + text[end:]
    return text


PRINTER = ROOT / "tests" / "project" / "printer.py"


def printed(document: Document, folder: Path) -> dict[str, str]:
    """What the document's expressions print, in a fresh process, so that no other test's nodes are met."""
    files = document.of("file")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(PRINTER)],
        input=json.dumps([list(files), list(document.of("prints"))]),
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    outputs: dict[str, str] = json.loads(done.stdout.rpartition("\0")[2])
    return {expression: text.rstrip("\n") + "\n" for expression, text in outputs.items()}


def links(document: Document) -> list[str]:
    """Targets of the links to files, relative to the document."""
    return [target for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.text) if "://" not in target]
