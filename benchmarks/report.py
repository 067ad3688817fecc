"""What was measured, as markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.cpu import spec

OURS = "graphc"
Run = Mapping[str, Any]


def merge(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several measurements as one, the later ones as further rounds."""
    first, *later = results
    merged = dict(first)
    for result in later:
        merged["runs"] = [*merged["runs"], *result["runs"]]
        merged["columns"] = list(dict.fromkeys([*merged["columns"], *result["columns"]]))
        merged["versions"] = {**result["versions"], **merged["versions"]}
        merged["rounds"] = merged["rounds"] + result["rounds"]
    return merged


def report(result: Mapping[str, Any]) -> str:
    """The whole report."""
    table = _Table(result)
    machine, sections = result["machine"], []
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
    sections.append(
        f"# CPU benchmark, {result['date']}\n\n"
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}; "
        f"{result['rounds']} interleaved rounds of {result['seconds']:g} s, 2 threads; {versions}"
    )
    if not table.workloads:
        sections.append("Nothing was measured.")
    else:
        sections += [
            "## Time of one step: median of the rounds\n\nIn brackets: times the best peer's; bold: the fastest.\n\n"
            + table.steps(table.median),
            "## Time of one step: quietest round\n\nOn a shared machine noise only ever adds time.\n\n"
            + table.steps(table.quietest),
            "## Start, s: build, compile and first step with empty disk caches (with warm ones)\n\n"
            + table.cells(table.start),
            "## Peak memory of the process, MB\n\n" + table.cells(lambda w, c: f"{table.median(w, c, 'rss_mb'):.0f}"),
            "## Spread of single steps: p10 .. p90\n\n" + table.cells(table.spread),
            _floor(result["ceilings"]),
            "## Agreement\n\nFirst losses, or mean |output| and first outputs. Workloads with dropout "
            f"({', '.join(sorted(spec.RANDOM))}) agree only roughly.\n\n" + table.cells(table.check),
        ]
    sections.append(_noise_and_failures(result))
    return "\n\n".join(sections)


def duration(seconds: float) -> str:
    """A time in the unit that suits it.

    >>> duration(18.34e-6), duration(0.00152), duration(2.5)
    ('18.3 us', '1.52 ms', '2.50 s')
    """
    for unit, scale in (("us", 1e6), ("ms", 1e3)):
        if seconds * scale < 999.5:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds:.2f} s"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


class _Table:
    """Runs by workload and column."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        self.columns: list[str] = result["columns"]
        self.floors: Mapping[str, Mapping[str, float]] = result["ceilings"].get("floors", {})
        self.runs: dict[tuple[str, str], list[Run]] = {}
        for run in result["runs"]:
            self.runs.setdefault((run["workload"], run["column"]), []).append(run)
        self.workloads = [name for name in spec.WORKLOADS if any(name == workload for workload, _ in self.runs)]

    def good(self, workload: str, column: str) -> list[Run]:
        return [run for run in self.runs.get((workload, column), []) if "failed" not in run]

    def median(self, workload: str, column: str, key: str = "median_s") -> float:
        return statistics.median(run[key] for run in self.good(workload, column))

    def quietest(self, workload: str, column: str) -> float:
        return min(run["median_s"] for run in self.good(workload, column))

    def start(self, workload: str, column: str) -> str:
        cold, *warm = [run["cold_s"] for run in self.good(workload, column)]
        return f"{cold:.2f} ({statistics.median(warm):.2f})" if warm else f"{cold:.2f}"

    def spread(self, workload: str, column: str) -> str:
        return " .. ".join(duration(self.median(workload, column, key)) for key in ("p10_s", "p90_s"))

    def check(self, workload: str, column: str) -> str:
        return ", ".join(f"{value:.5g}" for value in self.good(workload, column)[0]["check"][:3])

    def cells(self, cell: Callable[[str, str], str]) -> str:
        rows = [[name, *(self._cell(name, column, cell) for column in self.columns)] for name in self.workloads]
        return markdown(["workload", *self.columns], rows)

    def steps(self, time_of: Callable[[str, str], float]) -> str:
        rows: list[list[str]] = []
        for name in self.workloads:
            times = {column: time_of(name, column) for column in self.columns if self.good(name, column)}
            best_peer = min((time for column, time in times.items() if column != OURS), default=None)

            def cell(_: str, column: str, times: dict[str, float] = times, best_peer: float | None = best_peer) -> str:
                time = times[column]
                text = duration(time) + (f" ({time / best_peer:.2f})" if best_peer else "")
                return f"**{text}**" if time == min(times.values()) else text

            least = duration(self.floors[name]["floor_s"]) if name in self.floors else "-"
            rows.append([name, least, *(self._cell(name, column, cell) for column in self.columns)])
        return markdown(["workload", "physical floor", *self.columns], rows)

    def _cell(self, workload: str, column: str, cell: Callable[[str, str], str]) -> str:
        if (workload, column) not in self.runs:
            return "-"
        return cell(workload, column) if self.good(workload, column) else "failed"


def _floor(ceilings: Mapping[str, Any]) -> str:
    head = "## The floor, measured in the same run\n\n"
    if "floors" not in ceilings:
        return f"{head}Not measured: {ceilings.get('failed', 'no ceilings')}."
    sgemm = "; ".join(
        f"n = {n}: " + ", ".join(f"{library} {rate:g}" for library, rate in rates.items())
        for n, rates in ceilings["sgemm_gflops"].items()
    )
    fma = ceilings["fma_gflops"]
    facts = (
        f"- multiply-adds in registers, both cores: {f'{fma:g} GFLOP/s' if fma else 'not measured (no C compiler)'}\n"
        f"- float32 matrix products, GFLOP/s: {sgemm}\n"
        f"- reading and writing main memory: {ceilings['memory_update_gb_per_s']:g} GB/s\n"
        f"- one call out of Python: {duration(ceilings['call_s'])}\n\n"
        "No step that multiplies as the workload is defined (Winograd's convolutions multiply less) can be faster than "
        "its matrix products at the best rate measured here, nor than its least traffic "
        "(training: each parameter and both moments of Adam read and written once; inference: each weight read "
        "once) at the rate of an array of that size, plus one call.\n\n"
    )
    rows = [
        [
            name,
            f"{floor['flops'] / 1e6:.4g}",
            duration(floor["matmul_s"]),
            f"{floor['least_bytes'] / 1e6:.4g}",
            f"{floor['update_gb_per_s']:g}",
            duration(floor["memory_s"]),
            duration(floor["floor_s"]),
        ]
        for name, floor in ceilings["floors"].items()
    ]
    return head + facts + markdown(["workload", "MFLOP", "products", "MB", "GB/s", "traffic", "floor"], rows)


def _noise_and_failures(result: Mapping[str, Any]) -> str:
    lines = [f"- {column}: {reason}" for column, reason in result["absent"].items()]
    lines += [f"- {run['column']}, {run['workload']}: {run['failed']}" for run in result["runs"] if "failed" in run]
    text = "## Columns left out, and failures\n\n" + ("\n".join(lines) or "None.")
    lost = [max(run["lost_before"], run["lost_after"]) for run in result["runs"] if "lost_before" in run]
    if lost:
        text += (
            f"\n\nCore time lost to other work on the machine around a process: median {statistics.median(lost):.1%}, "
            f"worst {max(lost):.1%}."
        )
    return text
