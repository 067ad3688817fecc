"""How long a process takes until its first step is done: ``python -m benchmarks.start [workload ...]``.

CPU time of all threads, less that of another step, with an empty cache and then with a full one, in ms. ``python`` is
the interpreter and NumPy, ``data`` the workload's weights and batches, ``import`` graphc, ``build`` the graph, its
gradients and compiling, ``first`` what the first step takes more than later ones: planning and touching memory.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

PARTS = ("python", "data", "import", "build", "first")
WORKLOADS = ("transformer_train", "lstm_train", "lenet_train", "cifar_resnet_train", "mobilenetv2")
ROUNDS = 5


def measure(name: str) -> dict[str, float]:
    """The parts in this process, which must have begun for this; in seconds."""
    import sys
    from pathlib import Path

    import numpy as np

    marks = [0.0, time.process_time()]
    if name == "mobilenetv2":
        image = np.zeros((1, 224, 224, 3), np.float32)
        marks.append(time.process_time())
        step = _mobilenet(marks, image)
    else:
        sys.path.insert(0, str(Path(__file__).parent / "cpu"))
        import spec

        data = spec.make(name)
        marks.append(time.process_time())
        import graphc_peer

        marks.append(time.process_time())
        step = graphc_peer.build("graphc", data, "")
    marks.append(time.process_time())
    step()
    marks.append(time.process_time())
    later: list[float] = []
    for _ in range(3):
        before = time.process_time()
        step()
        later.append(time.process_time() - before)
    marks[-1] -= min(later)
    return {part: end - begin for part, (begin, end) in zip(PARTS, itertools.pairwise(marks), strict=True)}


def _mobilenet(marks: list[float], image: object) -> Callable[[], object]:
    import graphc as gx

    network = gx.applications.MobileNetV2
    marks.append(time.process_time())
    model = network()
    return lambda: model.predict(image, verbose=0)


def main(names: list[str]) -> None:
    """Measure in fresh processes and print a table."""
    import json
    import os
    import subprocess
    import sys
    import tempfile

    print("| workload | cache | total | " + " | ".join(PARTS) + " |")
    print("|---|---|" + "---:|" * (1 + len(PARTS)))
    for name in names:
        with tempfile.TemporaryDirectory(prefix="graphc-start-") as folder:
            command = [sys.executable, "-m", "benchmarks.start", "--here", name]
            runs: list[dict[str, float]] = []
            for _ in range(1 + ROUNDS):
                environment = {**os.environ, "GRAPHC_CACHE_DIR": folder}
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                runs.append(json.loads(done.stdout))
        cold, *warm = runs
        ordered = sorted(warm, key=lambda run: sum(run.values()))
        for cache, run in (("empty", cold), ("full, least", ordered[0]), ("full, most", ordered[-1])):
            row = (sum(run.values()), *run.values())
            print(f"| {name} | {cache} | " + " | ".join(f"{1e3 * value:.0f}" for value in row) + " |", flush=True)


if __name__ == "__main__":
    import sys

    if sys.argv[1:2] == ["--here"]:
        import json

        print(json.dumps(measure(sys.argv[2])))
    else:
        main(sys.argv[1:] or list(WORKLOADS))
