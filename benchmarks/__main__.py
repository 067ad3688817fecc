"""Command line of the benchmarks.

``python -m benchmarks cpu [workload ...]`` measures on the CPU and prints a report in markdown;
``python -m benchmarks gpu [workload ...]`` does so on an NVIDIA GPU; with ``--count`` it counts, and needs none;
``python -m benchmarks report FILE ...`` prints the report of runs that were saved with ``--out``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import gpu_count, gpu_run
from benchmarks.cpu import spec
from benchmarks.measure import Settings, columns_on_disk, measure
from benchmarks.report import merge, report


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status is 1 if graphc's own column failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    cpu = commands.add_parser("cpu", help="measure on the CPU, 2 threads")
    cpu.add_argument("workloads", nargs="*", metavar="workload", help="default: those that graphc has; or: all")
    cpu.add_argument("--columns", help="comma separated; default: all that are installed")
    cpu.add_argument("--rounds", type=int, default=3, help="fresh processes for each column and workload (3)")
    cpu.add_argument("--seconds", type=float, default=5.0, help="time of single steps in each process (5)")
    cpu.add_argument("--timeout", type=float, default=300.0, help="of one process, in seconds (300)")
    cpu.add_argument("--quiet", type=float, default=0.03, help="wait for less than this share of a core lost (0.03)")
    cpu.add_argument("--python", default=sys.executable, help="the interpreter that has the peers")
    cpu.add_argument("--out", type=Path, help="save everything measured as JSON")
    gpu = commands.add_parser("gpu", help="measure on a GPU, beside PyTorch and JAX")
    gpu.add_argument("workloads", nargs="*", metavar="workload", help="default: all")
    gpu.add_argument("--count", action="store_true", help="count what graphc's steps do, without a GPU or the peers")
    gpu.add_argument("--columns", default=",".join(gpu_run.SCRIPTS), help="comma separated; default: all")
    gpu.add_argument("--no-ceilings", action="store_true", help="do not measure what the machine can do at most")
    gpu.add_argument("--timeout", type=float, default=600.0, help="of one process, in seconds (600)")
    gpu.add_argument("--python", default=sys.executable, help="the interpreter that has the peers")
    gpu.add_argument("--out", type=Path, help="keep everything recorded in this folder")
    saved = commands.add_parser("report", help="print the report of saved runs")
    saved.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args(arguments)

    if options.command == "report":
        print(report(merge([json.loads(path.read_text(encoding="utf-8")) for path in options.files])))
        return 0

    if options.command == "gpu":
        return _gpu(parser, options)
    known = columns_on_disk()
    columns = options.columns.split(",") if options.columns else list(known)
    for name, choices in (*((c, list(known)) for c in columns), *((w, spec.WORKLOADS) for w in options.workloads)):
        if name not in choices and (name, choices) != ("all", spec.WORKLOADS):
            parser.error(f"{name!r} is not one of: {', '.join(choices)}")
    result = measure(
        Settings(
            workloads=tuple(options.workloads),
            columns=tuple(columns),
            rounds=options.rounds,
            seconds=options.seconds,
            timeout=options.timeout,
            quiet=options.quiet,
            python=options.python,
            out=options.out,
        )
    )
    print(report(result))
    return int(any(run["column"] == "graphc" and "failed" in run for run in result["runs"]))


def _gpu(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    columns = options.columns.split(",")
    known = [(column, list(gpu_run.SCRIPTS)) for column in columns]
    known += [(name, ["all", *gpu_run.WORKLOADS]) for name in options.workloads]
    for name, choices in known:
        if name not in choices:
            parser.error(f"{name!r} is not one of: {', '.join(choices)}")
    names = tuple(gpu_run.WORKLOADS) if "all" in options.workloads else tuple(options.workloads)
    if options.count:
        print(gpu_count.report(list(gpu_count.count(names or tuple(gpu_run.WORKLOADS)))))
        return 0
    rows = gpu_run.measure(
        gpu_run.Settings(
            workloads=names,
            columns=tuple(columns),
            ceilings=not options.no_ceilings,
            timeout=options.timeout,
            python=options.python,
            out=options.out,
        )
    )
    print(gpu_run.report(rows))
    own = [row for row in rows if str(row.get("impl", "")).startswith("graphc")]
    return int(any(not row["ok"] for row in own))


if __name__ == "__main__":
    sys.exit(main())
