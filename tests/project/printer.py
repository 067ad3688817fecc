"""Prints what the expressions of a document give, after its files were executed. A process of its own: see documents.py."""

from __future__ import annotations

import contextlib
import io
import json
import linecache
import re
import sys
from typing import Any

from graphc.backends.onnx.export import build_model
from graphc.ir.graph import make_graph
from graphc.ir.text import print_graph
from graphc.lower.plan import KernelItem, Launch
from graphc.program import Program
from tests.project.count import at_least

MODEL = "model.py"


def session(*lines: str) -> str:
    """Expressions, and what the interpreter says to them."""
    rows: list[str] = []
    for line in lines:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(line, "<session>", "single"), SPACE)
        rows += [f">>> {line}", said.getvalue().rstrip("\n")]
    return "\n".join(row for row in rows if row)


def message(call: str) -> str:
    """The error that a call raises, as Python prints it."""
    linecache.cache["call.py"] = (len(call), None, [call], "call.py")  # so that the message can show the line
    try:
        exec(compile(call, "call.py", "single"), SPACE)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError(f"{call} raises nothing")


def of_line(text: str, line: int) -> str:
    """The rows that belong to a line of the model."""
    return "\n".join(row for row in text.splitlines() if re.search(rf"\b{re.escape(MODEL)}:{line}\b", row))


def part(text: str, *starts: str) -> str:
    """The rows that begin so, each with the indented rows that follow it."""
    rows: list[str] = []
    inside = False
    for row in text.splitlines():
        inside = row.startswith(starts) or (inside and row.startswith(" "))
        if inside:
            rows.append(row)
    return "\n".join(rows)


def launches_of_line(program: Program, line: int) -> dict[int, Launch]:
    """The launches that compute something of a line, by number."""
    numbered = enumerate(program.plan.launches)
    return {n: launch for n, launch in numbered if any(node.loc and node.loc.line == line for node in launch.nodes)}


def launches(program: Program, text: str, line: int) -> str:
    """Of a stage's text, or of a report, the launches that compute something of a line."""
    return part(text, *(start for n in launches_of_line(program, line) for start in (f"launch {n}:", f"[{n}]")))


def kernels_of_line(program: Program, line: int) -> list[str]:
    """The names of the kernels of these launches."""
    items = [item for launch in launches_of_line(program, line).values() for item in launch.items]
    return [item.kernel.name for item in items if isinstance(item, KernelItem)]


def function(source: str, name: str) -> str:
    """The generated source of a kernel, without the path of its file."""
    parts = re.split(r"^# (?=[\w, ]+: )", source, flags=re.MULTILINE)
    (text,) = (text for text in parts if name in text.partition(":")[0].split(", "))
    return text.partition("\n")[2].rstrip()


def onnx_of_line(program: Program, line: int) -> str:
    """The ONNX operators whose doc string is a line of the model."""
    nodes = [node for node in build_model(program).model.graph.node if node.doc_string.startswith(f"{MODEL}:{line} ")]
    return "\n".join(f"{', '.join(n.output)} = {n.op_type}({', '.join(n.input)})   # {n.doc_string}" for n in nodes)


SPACE: dict[str, Any] = {
    "at_least": at_least, "function": function, "kernels_of_line": kernels_of_line, "launches": launches, "make_graph": make_graph,
    "message": message, "of_line": of_line, "onnx_of_line": onnx_of_line, "part": part, "print_graph": print_graph,
    "session": session,
}  # fmt: skip


def main() -> None:
    """Read names of files and expressions, write what each expression prints or is."""
    files, expressions = json.load(sys.stdin)
    for name in files:
        with open(name, encoding="utf-8") as file:
            exec(compile(file.read(), name, "exec"), SPACE)
    outputs: dict[str, str] = {}
    for expression in expressions:
        with contextlib.redirect_stdout(io.StringIO()) as said:
            value = eval(expression, SPACE)
        outputs[expression] = said.getvalue() if value is None else str(value)
    print("\0" + json.dumps(outputs))


main()
