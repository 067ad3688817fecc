"""The same bits whatever the threads, twice in a row, and after a break; programs shared by threads; Ctrl-C; forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc import Input, Sequential, layers
from graphc.backends.numba import get_threads, set_threads
from tests.spine.models import batch, classifier_step

SIZES = 64, 96, 48, 10
"""Large enough for several threads to share a launch."""


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Put the number of threads back."""
    before = get_threads()
    yield
    set_threads(before)


def trained(steps: int, size: int, program: gx.Program | None = None, start: int = 0) -> list[bytes]:
    """The bits of all losses and parameters of a run of the same classifier, from its start unless one is given."""
    step = classifier_step(SIZES, rate=0.2) if program is None else program
    losses = [step(**batch(size, SIZES[0], SIZES[-1], seed=n))["loss"].tobytes() for n in range(start, start + steps)]
    return losses + [parameter.value.tobytes() for parameter in step.parameters]


@pytest.mark.parametrize("size", [1, 7, 256])
def test_training_gives_the_same_bits_on_any_number_of_threads_and_twice_in_a_row(size: int) -> None:
    runs: list[list[bytes]] = []
    for count in (1, 2, 2, 3):
        set_threads(count)
        runs.append(trained(5, size))
    assert all(run == runs[0] for run in runs)


def test_a_launch_of_that_training_is_shared_by_threads() -> None:
    """Otherwise the test above would prove nothing."""
    from graphc.backends.numba.executable import PARALLEL_COST
    from graphc.lower.plan import KernelItem, size_of

    plan = classifier_step(SIZES, rate=0.2).plan
    items = [item for launch in plan.launches for item in launch.items if isinstance(item, KernelItem)]
    costs = [size_of(item.cost, {"batch": 256}) * size_of(item.extent, {"batch": 256}) for item in items]
    assert max(costs) > PARALLEL_COST


def digits() -> tuple[Any, Any]:
    """Data for a small classifier."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((200, 32)).astype(np.float32)
    return x, np.argmax(x[:, :4], axis=1)


def model() -> Sequential:
    """A classifier with all that is random: weights, dropout, shuffling."""
    gx.set_seed(11)
    made = Sequential([Input((32,)), layers.Dense(96, activation="relu"), layers.Dropout(0.3), layers.Dense(4)])
    loss = gx.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(gx.optimizers.Adam(1e-2), loss, metrics=["accuracy"], backend="numba")
    return made


def test_a_model_saved_and_loaded_in_the_middle_of_training_ends_with_the_same_bits_on_other_threads(
    tmp_path: Path,
) -> None:
    x, y = digits()
    set_threads(1)
    whole = model()
    history = whole.fit(x, y, batch_size=64, epochs=4, verbose=0).history

    set_threads(2)
    first = model()
    begun = first.fit(x, y, batch_size=64, epochs=2, verbose=0).history
    first.save(tmp_path / "model")
    gx.set_seed(999)
    again = gx.load_model(tmp_path / "model")
    ended = again.fit(x, y, batch_size=64, epochs=4, initial_epoch=2, verbose=0).history

    assert {name: begun[name] + ended[name] for name in history} == history
    for ours, theirs in zip(whole.get_weights(), again.get_weights(), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert whole.predict(x, verbose=0).tobytes() == again.predict(x, verbose=0).tobytes()


# several threads of the user


def together(*jobs: Callable[[], object]) -> None:
    """Run jobs at once; the first exception of any is raised."""
    failures: list[BaseException] = []

    def guarded(job: Callable[[], object]) -> None:
        try:
            job()
        except BaseException as error:  # of any kind: the thread must not swallow it
            failures.append(error)

    workers = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failures:
        raise failures[0]


def test_threads_that_share_an_inference_program_get_their_own_results() -> None:
    x, w = gx.placeholder("x", ("n", 64)), gx.parameter("w", np.eye(64, dtype=np.float32) * 2)
    program = gx.compile({"y": gx.tanh(x @ w) + 1.0}, inputs=[x], backend="numba")

    def use(number: int) -> None:
        for turn in range(60):
            rows = 1 + (turn * (number + 3)) % 90
            given = np.full((rows, 64), (number + 1) / 8 + turn / 256, np.float32)
            result = program(x=given)["y"]
            np.testing.assert_allclose(result, np.tanh(2 * given) + 1, rtol=1e-5)

    together(*[lambda number=number: use(number) for number in range(4)])


def test_updates_of_threads_that_share_a_training_program_are_all_done_and_none_is_torn() -> None:
    x = gx.placeholder("x", ("n",))
    total, count = gx.parameter("total", np.zeros(3000)), gx.parameter("count", np.int64(0))
    change = gx.sum(gx.cast(x, "float64"))
    step = gx.compile(
        {"mean": gx.mean(total)}, inputs=[x], updates={total: total + change, count: count + 1}, backend="numba"
    )

    def use(number: int) -> None:
        for turn in range(150):
            step(x=np.full(1 + turn % 3, number, np.float32))

    together(*[lambda number=number: use(number) for number in range(1, 5)])
    assert count.value == 600
    each = sum(1 + turn % 3 for turn in range(150))
    np.testing.assert_array_equal(total.value, np.full(3000, each * (1 + 2 + 3 + 4)))


def test_a_check_that_fails_in_one_thread_says_nothing_in_another() -> None:
    table, i = gx.parameter("table", np.arange(10, dtype=np.float32)), gx.placeholder("i", ("n",), "int64")
    rows = gx.placeholder("rows", ("m",))
    program = gx.compile({"y": gx.take(table, i), "z": gx.take(rows, i)}, inputs=[i, rows], backend="numba")

    def good() -> None:
        for turn in range(200):
            out = program(i=np.arange(turn % 9), rows=np.ones(9, np.float32))
            np.testing.assert_array_equal(out["y"], np.arange(turn % 9))

    def bad() -> None:
        for turn in range(200):
            size = 1 + turn % 7
            with pytest.raises(gx.IndexRangeError, match=f"index {size} is outside an axis of size {size}"):
                program(i=np.array([size]), rows=np.ones(size, np.float32))

    together(good, bad, good)


# interruptions


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the platform has no timers that signal")
def test_ctrl_c_between_steps_leaves_whole_steps_behind_and_a_usable_program() -> None:
    step = classifier_step(SIZES, rate=0.2)
    count = next(parameter for parameter in step.parameters if parameter.name == "count")
    done = 0

    def run(most: int) -> None:
        nonlocal done
        while done < most:
            step(**batch(64, SIZES[0], SIZES[-1], seed=done))
            done += 1

    run(1)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            run(100_000)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    steps = int(count.value)
    assert done <= steps <= done + 1
    assert [p.value.tobytes() for p in step.parameters] == trained(steps, 64)[steps:]
    assert np.isfinite(step(**batch(64, SIZES[0], SIZES[-1]))["loss"])


FORK = """
import os
import threading
import numpy as np
from tests.spine.models import batch, classifier_step

step, feeds = classifier_step((64, 96, 48, 10)), batch(256, 64, 10)
step(**feeds)
stop = threading.Event()
def busy():
    while not stop.is_set():
        step(**feeds)
worker = threading.Thread(target=busy)
worker.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        before = step.parameters[0].value
        losses = [float(step(**feeds)["loss"]) for _ in range(3)]
        os._exit(0 if losses[0] > losses[2] and not np.array_equal(before, step.parameters[0].value) else 3)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
stop.set()
worker.join()
step(**feeds)
print("forked")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform has no fork")
def test_a_child_forked_while_another_thread_trains_can_train(pytestconfig: pytest.Config) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        cwd=pytestconfig.rootpath,
        env={**os.environ, "PYTHONPATH": str(pytestconfig.rootpath)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout == "forked\n", done.stderr
