"""Starts the workers: each column and workload in a fresh process, columns interleaved."""

from __future__ import annotations

import ast
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cpu import spec

ROOT = Path(__file__).resolve().parents[1]
CPU = ROOT / "benchmarks" / "cpu"
THREADS = "2"


@dataclass(frozen=True)
class Settings:
    """What to measure and how long.

    Attributes:
        workloads: names from ``spec.WORKLOADS``, ``("all",)``, or empty for those that graphc has.
        columns: framework variants.
        rounds: fresh processes for each column and workload; the first starts with empty disk caches.
        seconds: how long single steps are timed in each process.
        timeout: of one process, in seconds.
        quiet: before a process, wait up to 20 s until a smaller share of a core is lost to other machines.
        python: the interpreter that has the peers.
        out: where everything measured is saved after each process.
    """

    workloads: tuple[str, ...]
    columns: tuple[str, ...]
    rounds: int
    seconds: float
    timeout: float
    quiet: float
    python: str
    out: Path | None


def columns_on_disk() -> dict[str, str]:
    """The name of each column and of the module that measures it, graphc first, without importing any of them."""
    found: dict[str, str] = {}
    for path in sorted(CPU.glob("*_peer.py")):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id="VARIANTS")], value=value):
                    found.update(dict.fromkeys(ast.literal_eval(value), path.stem))
                case _:
                    pass
    order = ["graphc", "torch", "torch_compile", "jax", "onnxruntime", "tinygrad", "pytensor"]
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def measure(settings: Settings) -> dict[str, Any]:
    """Measure and return everything measured; progress goes to stderr.

    A column whose package is missing is listed under ``absent`` with the reason, one that fails under ``runs``.
    """
    result: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "versions": {},
        "columns": [],
        "absent": {},
        "ceilings": {},
        "runs": [],
    }
    with tempfile.TemporaryDirectory(prefix="graphc-bench-") as work:
        environment = _environment(Path(work))
        offered = _offered(settings, environment, result)
        result["columns"] = [column for column in settings.columns if column in offered]
        if not offered:
            return result
        names = _workloads(settings.workloads, offered)
        _say(f"workloads: {', '.join(names)}; columns: {', '.join(result['columns'])}")
        result["ceilings"], reason = _call(
            [settings.python, "ceilings.py", *names], environment, timeout=settings.timeout
        )
        if reason:
            result["ceilings"] = {"failed": reason}
            _say(f"the floor was not measured: {reason}")
        for name in names:
            failed: set[str] = set()
            for round_ in range(settings.rounds):
                for column in result["columns"]:
                    if name not in offered[column] or column in failed:
                        continue
                    run = _one(settings, environment, column, name, Path(work))
                    result["runs"].append({"workload": name, "column": column, "round": round_, **run})
                    if "failed" in run:
                        failed.add(column)
                    _save(settings.out, result)
    return result


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = ""
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {"cpu": model, "cores": len(_cores()), "python": sys.version.split()[0], "system": os.uname().sysname}


def _one(settings: Settings, env: Mapping[str, str], column: str, name: str, work: Path) -> dict[str, Any]:
    before, start = _wait_for_quiet(settings.quiet), time.monotonic()
    peer = columns_on_disk()[column]
    command = [settings.python, "worker.py", "run", peer, column, name]
    command += ["--workdir", str(work), "--seconds", str(settings.seconds)]
    measured, reason = _call(command, env, settings.timeout, with_checkout=column == "graphc")
    took = f"[{time.monotonic() - start:.0f} s]"
    if reason:
        _say(f"{name} {column}: failed: {reason} {took}")
        return {"failed": reason}
    _say(f"{name} {column}: {measured['median_s'] * 1e6:.4g} us, cold {measured['cold_s']:.2f} s {took}")
    return {**measured, "lost_before": before, "lost_after": _lost()}


def _workloads(asked: Sequence[str], offered: Mapping[str, Sequence[str]]) -> list[str]:
    if "all" in asked or (not asked and "graphc" not in offered):
        return list(spec.WORKLOADS)
    wanted = asked or offered["graphc"]
    return [name for name in spec.WORKLOADS if name in wanted]


def _offered(settings: Settings, env: Mapping[str, str], result: dict[str, Any]) -> dict[str, list[str]]:
    """Column -> its workloads, of the peers that can be imported."""
    offered: dict[str, list[str]] = {}
    peers = columns_on_disk()
    for peer in dict.fromkeys(peers[column] for column in settings.columns):
        listed, reason = _call(
            [settings.python, "worker.py", "list", peer], env, settings.timeout, peer == "graphc_peer"
        )
        if reason:
            missing = reason.startswith("ModuleNotFoundError") and peer != "graphc_peer"
            for column in [column for column in settings.columns if peers[column] == peer]:
                result["absent"][column] = f"not installed: {reason.partition(': ')[2]}" if missing else reason
                _say(f"{column}: {result['absent'][column]}")
        else:
            offered.update(listed["columns"])
            result["versions"].update(listed["versions"])
    return offered


def _environment(work: Path) -> dict[str, str]:
    """2 threads, empty disk caches, and BLAS free to take the kernels of this CPU."""
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "PYTHONPATH")}
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        env[f"{library}_NUM_THREADS"] = THREADS
    env.update(
        GRAPHC_CACHE_DIR=str(work / "graphc"),
        TORCHINDUCTOR_CACHE_DIR=str(work / "inductor"),
        XDG_CACHE_HOME=str(work / "cache"),
        NUMBA_CACHE_DIR=str(work / "numba"),
        PYTENSOR_FLAGS=f"base_compiledir={work}/pytensor",
        PYTHONDONTWRITEBYTECODE="1",
        TMPDIR=str(work),
    )
    return env


def _call(
    command: Sequence[str], env: Mapping[str, str], timeout: float, with_checkout: bool = False
) -> tuple[dict[str, Any], str]:
    """The JSON object on the last line that a process prints, or the reason why there is none."""
    process = subprocess.Popen(
        command,
        cwd=CPU,
        env={**env, "PYTHONPATH": str(ROOT)} if with_checkout else dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException as error:  # whatever ends the wait, Ctrl-C too, must end the process and its children
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            return {}, f"longer than {timeout:g} s"
        raise
    lines = out.strip().splitlines()
    if process.returncode == 0 and lines:
        return json.loads(lines[-1]), ""
    reasons = [line for line in err.strip().splitlines() if line.strip()]
    return {}, reasons[-1][:300] if reasons else f"exit status {process.returncode}"


SPIN = """
import os, sys, time
if hasattr(os, "sched_setaffinity"): os.sched_setaffinity(0, {int(sys.argv[1])})
clock = time.perf_counter
start = last = clock()
lost = 0.0
while last < start + 0.4:
    now = clock()
    if now - last > 2e-4: lost += now - last
    last = now
print(lost / 0.4)
"""


def _lost() -> float:
    """Share of the time that one of two pinned spinning processes did not get its core.

    A host takes virtual cores away without reporting it as stolen time.
    """
    spinning = [
        subprocess.Popen([sys.executable, "-c", SPIN, str(core)], stdout=subprocess.PIPE) for core in _cores()[:2]
    ]
    return max(float(process.communicate()[0]) for process in spinning)


def _wait_for_quiet(limit: float, wait_s: float = 20.0) -> float:
    end = time.monotonic() + wait_s
    while (share := _lost()) > limit and time.monotonic() < end:
        time.sleep(1)
    return share


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _save(path: Path | None, result: dict[str, Any]) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1), encoding="utf-8")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
