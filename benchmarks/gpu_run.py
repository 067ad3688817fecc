"""Runs the GPU benchmark: each column in a process of its own, one after another, and a table of what they recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import markdown

ROOT = Path(__file__).resolve().parents[1]
GPU = ROOT / "benchmarks" / "gpu"
SCRIPTS = {"graphc": "graphc_peer.py", "torch": "peers_torch.py", "jax": "peers_jax.py"}
WORKLOADS: dict[str, dict[str, tuple[str, ...]]] = {
    "mlp": {"graphc": ("mlp",), "torch": ("mlp",), "jax": ("mlp", "mlp_scan")},
    "elementwise": dict.fromkeys(SCRIPTS, ("elementwise",)),
    "transformer": dict.fromkeys(SCRIPTS, ("transformer_tf32", "transformer_bf16")),
    "gpt2": dict.fromkeys(SCRIPTS, ("gpt2",)),
    "resnet": dict.fromkeys(SCRIPTS, ("resnet_bf16", "resnet_tf32")),
    "lstm": dict.fromkeys(SCRIPTS, ("lstm_fp32", "lstm_tf32", "lstm_bf16")),
    "decode": dict.fromkeys(SCRIPTS, ("decode",)),
    "attention": {"graphc": ("attention",), "torch": (), "jax": ("attention",)},
}
"""What each column's script calls a workload; PyTorch's attention is among the ceilings."""
FIGURES = (
    "steps_per_s", "gbs", "tgt_tokens_per_s", "tokens_per_s", "images_per_s", "tflops", "model_tflops",
    "first_call_s", "compile_s", "peak_gib",
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        workloads: names from :data:`WORKLOADS`; empty for all.
        columns: of ``graphc``, ``torch``, ``jax``.
        ceilings: measure what the machine can do at most, too?
        timeout: of one process, in seconds.
        python: the interpreter that has the peers.
        out: where everything recorded is kept.
    """

    workloads: tuple[str, ...]
    columns: tuple[str, ...]
    ceilings: bool
    timeout: float
    python: str
    out: Path | None


def measure(settings: Settings) -> list[dict[str, Any]]:
    """Everything recorded; progress goes to stderr."""
    with tempfile.TemporaryDirectory(prefix="graphc-bench-") as work:
        folder = settings.out or Path(work)
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OUT": str(folder), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        environment["GRAPHC_CACHE_DIR"] = str(Path(work) / "cache")  # first calls compile
        environment["JAX_PLATFORMS"] = "cuda"  # fails without a GPU, where JAX would go on with the CPU
        failures: list[dict[str, Any]] = []
        for column, command in _commands(settings):
            reason = _run([settings.python, *command], environment, settings.timeout)
            if reason:
                failures.append({"section": "peer", "name": column, "ok": False, "impl": column, "error": reason})
        recorded = folder / "results.jsonl"
        lines = recorded.read_text(encoding="utf-8").splitlines() if recorded.exists() else []
        return [*map(json.loads, lines), *failures]


def _commands(settings: Settings) -> list[tuple[str, list[str]]]:
    names = settings.workloads or WORKLOADS
    commands: list[tuple[str, list[str]]] = [("ceilings", ["ceilings.py"])] if settings.ceilings else []
    for column in settings.columns:
        asked = [each for name in names for each in WORKLOADS[name][column]]
        if asked:
            commands.append((column, [SCRIPTS[column], *asked]))
    return commands


def _run(command: Sequence[str], environment: Mapping[str, str], timeout: float) -> str:
    """Why a process failed; empty if it did not."""
    try:
        result = subprocess.run(
            command, cwd=GPU, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return f"longer than {timeout:g} s"
    print(result.stdout, file=sys.stderr, end="")
    if result.returncode == 0:
        return ""
    lines = [line for line in result.stderr.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else f"exit status {result.returncode}"


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was recorded, as markdown: ceilings, then a row for each measurement, the fastest of a workload in bold."""
    lines = ["# GPU benchmark"]
    for row in rows:
        if row["section"] != "peer":
            figures = {k: v for k, v in row.items() if k not in ("section", "name", "ok", "at_s")}
            lines.append(f"- {row['name']}: {json.dumps(figures)[:400]}")
    peers = [row for row in rows if row["section"] == "peer"]
    measured = [row for row in peers if row["ok"]]
    best = {_key(row): min(r["ms"] for r in measured if _key(r) == _key(row)) for row in measured}
    table: list[list[str]] = []
    for row in sorted(peers, key=lambda r: (*_key(r), not r["ok"], r.get("ms", 0.0))):
        if row["ok"]:
            time = f"{row['ms']:.4g}"
            time = f"**{time}**" if row["ms"] == best[_key(row)] else f"{time} ({row['ms'] / best[_key(row)]:.2f})"
            figures = ", ".join(f"{name} {row[name]}" for name in FIGURES if row.get(name) is not None)
            table.append([row["name"], row["dtype"], row["impl"], time, figures])
        else:
            table.append([row["name"], str(row.get("dtype", "-")), row["impl"], "-", str(row["error"])[:160]])
    head = ["workload", "type", "column", "ms a step (times the best)", "figures"]
    return "\n".join([*lines, "", markdown(head, table) if table else "Nothing was measured."])


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["name"]), str(row.get("dtype", "-"))
