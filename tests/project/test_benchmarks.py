"""The benchmark's harness; its figures are no test."""

from __future__ import annotations

import hashlib

import pytest

from benchmarks import gpu_run
from benchmarks.__main__ import main
from benchmarks.cpu import spec
from benchmarks.measure import CPU, columns_on_disk
from benchmarks.report import duration, merge, report


def result(**runs: float) -> dict:
    """A measurement of mlp_train, one run a column."""
    measured = {
        column: {
            "workload": "mlp_train", "column": column, "round": 0, "median_s": seconds, "p10_s": seconds,
            "p90_s": 2 * seconds, "cold_s": 3.0, "rss_mb": 200.0, "check": [2.5, 2.25, 2.0],
            "lost_before": 0.0, "lost_after": 0.25,
        }
        for column, seconds in runs.items()
    }  # fmt: skip
    return {
        "date": "2026-01-01",
        "machine": {"cpu": "A CPU", "cores": 2, "python": "3.11", "system": "Linux"},
        "rounds": 1,
        "seconds": 5.0,
        "versions": {"graphc": "0"},
        "columns": list(runs),
        "absent": {"openvino": "not installed: No module named 'openvino'"},
        "ceilings": {"failed": "no time"},
        "runs": list(measured.values()),
    }


def test_workloads_and_peers_are_the_given_ones():
    lines = (CPU / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    peers = {path.name for path in CPU.glob("*_peer.py")} - {"graphc_peer.py"}
    assert sums.keys() == peers | {"spec.py", "worker.py"}
    assert {name: hashlib.sha256((CPU / name).read_bytes()).hexdigest() for name in sums} == sums


def test_peers_on_the_gpu_are_the_given_ones():
    lines = (gpu_run.GPU / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    assert sums.keys() == {"common.py", "ceilings.py", "peers_torch.py", "peers_jax.py"}
    assert {name: hashlib.sha256((gpu_run.GPU / name).read_bytes()).hexdigest() for name in sums} == sums
    peers = {script: (gpu_run.GPU / script).read_text() for script in gpu_run.SCRIPTS.values()}
    for names in gpu_run.WORKLOADS.values():
        for column, asked in names.items():
            assert all(f'"{name}"' in peers[gpu_run.SCRIPTS[column]] for name in asked)


def test_report_of_the_gpu():
    rows = [
        {"section": "ceiling", "name": "copy", "ok": True, "d2d_copy_gbs": 3029, "at_s": 1.0},
        {"section": "peer", "name": "mlp_train", "impl": "torch eager", "dtype": "tf32", "ok": True, "ms": 1.5},
        {"section": "peer", "name": "mlp_train", "impl": "graphc", "dtype": "tf32", "ok": True, "ms": 0.05, "steps_per_s": 2},
        {"section": "peer", "name": "gpt2", "impl": "graphc", "dtype": "-", "ok": False, "error": "out of memory"},
    ]  # fmt: skip
    text = gpu_run.report(rows)
    assert '- copy: {"d2d_copy_gbs": 3029}' in text
    assert "| mlp_train | tf32 | graphc | **0.05** | steps_per_s 2 |" in text
    assert "| mlp_train | tf32 | torch eager | 1.5 (30.00) |" in text
    assert "| gpt2 | - | graphc | - | out of memory |" in text


def test_the_gpu_benchmark_says_what_it_lacks(capsys):
    assert main(["gpu", "resnet", "--columns", "graphc", "--no-ceilings"]) in (0, 1)
    assert "| graphc |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["gpu", "mlp_train"])
    assert "mlp, elementwise" in capsys.readouterr().err


def test_columns_are_found_without_importing_their_packages():
    columns = columns_on_disk()
    assert columns["torch_compile"] == "torch_peer"
    assert {"torch", "jax", "tinygrad", "pytensor", "onnxruntime"} <= columns.keys()


def test_workloads_have_the_known_sizes():
    assert spec.param_bytes("mlp_tiny_train") == 4 * (4 * 16 + 16 + 16 * 3 + 3)
    forward = [2 * 128 * i * o for i, o in ((784, 512), (512, 256), (256, 10))]
    assert spec.flops("mlp_train") == 3 * sum(forward) - forward[0]


def test_report_compares_with_the_best_peer():
    text = report(result(graphc=1e-3, jax=2e-3, torch=3e-3))
    assert "| mlp_train | - | **1 ms (0.50)** | 2 ms (1.00) | 3 ms (1.50) |" in text
    assert "- openvino: not installed" in text
    assert "worst 25.0%" in text
    assert "Not measured: no time." in text


def test_report_of_merged_rounds():
    merged = merge([result(graphc=1e-3, jax=2e-3), result(graphc=2e-3, jax=2e-3), result(graphc=4e-3, jax=3e-3)])
    text = report(merged)
    assert "3 interleaved rounds" in text
    median, quietest = (text.split(f"Time of one step: {name}")[1] for name in ("median", "quietest"))
    assert "| mlp_train | - | **2 ms (1.00)** | **2 ms (1.00)** |" in median
    assert "| mlp_train | - | **1 ms (0.50)** | 2 ms (1.00) |" in quietest
    assert "| mlp_train | 3.00 (3.00) | 3.00 (3.00) |" in text


def test_report_shows_a_failed_column_and_its_reason():
    measured = result(jax=2e-3)
    measured["columns"].append("pytensor")
    measured["runs"].append({"workload": "mlp_train", "column": "pytensor", "round": 0, "failed": "longer than 1 s"})
    text = report(measured)
    assert "| **2 ms (1.00)** | failed |" in text
    assert "- pytensor, mlp_train: longer than 1 s" in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.2e-7, "0.22 us"), (18.34e-6, "18.3 us"), (999.6e-6, "1 ms"), (0.9996, "1.00 s")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("arguments", [["mlp"], ["--columns", "torch,keras"]])
def test_unknown_names_are_refused_with_the_known_ones(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["cpu", *arguments])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert ("mlp_tiny_train" in err) or ("torch_compile" in err)


def test_a_missing_package_leaves_its_column_out(capsys):
    """openvino is a peer that no extra of graphc installs."""
    status = main(["cpu", "resnet18_infer", "--columns", "openvino", "--rounds", "1", "--seconds", "0.1"])
    assert status == 0
    assert "- openvino: not installed: No module named" in capsys.readouterr().out
