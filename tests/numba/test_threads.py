"""The pool of workers: their number, their end, and what forks and interrupts leave."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from graphc.backends.numba import backend, threads
from graphc.lower.plan import Place, Plan
from tests.counting import becomes_idle, workers
from tests.numba.test_executable import buffer, increase, item, launches, parameter, wide_plan

pytestmark = pytest.mark.skipif(threads.C_LIBRARY is None, reason="there is one thread on this platform")


@pytest.fixture(autouse=True)
def restored_threads():
    before = threads.get_threads()
    yield
    threads.set_threads(before)


def counting_bound(weights: np.ndarray):
    """A step of three parallel launches, each of which adds the input to the weights."""
    n = weights.size
    buffers = (buffer(0, (n,), Place.INPUT), buffer(1, (n,), Place.STATE))
    steps = launches(*[item(increase(), (0, 1), n)] * 3)
    return backend.compile(Plan(None, buffers, steps, 0, (parameter(weights),))).bind({})


def test_workers_beyond_the_number_of_threads_end():
    """Each job wakes all workers that sleep, so that idle ones would cost."""
    backend.compile(wide_plan())
    for count in (9, 3, 5, 1, 2):
        threads.set_threads(count)
        assert len(workers()) == count - 1


def test_a_pool_that_stops_and_starts_leaves_no_descriptors_and_no_bytes():
    compiled = backend.compile(wide_plan())
    ends = {threads._pool._get(word) for word in (threads.POOL_READ_END, threads.POOL_WRITE_END)}
    for _ in range(20):
        threads.set_threads(4)
        threads._pool.stop()
        threads.use(compiled.native["serve"])
    assert {threads._pool._get(word) for word in (threads.POOL_READ_END, threads.POOL_WRITE_END)} == ends
    threads.set_threads(1)
    read_end = threads._pool._get(threads.POOL_READ_END)
    assert os.get_blocking(read_end)
    os.set_blocking(read_end, False)
    try:
        with pytest.raises(BlockingIOError):
            os.read(read_end, 1)
    finally:
        os.set_blocking(read_end, True)


def test_two_threads_that_compile_first_make_one_pipe(monkeypatch):
    """Else workers would sleep at one pipe, and executors write to the other."""
    pool, made = threads._Pool(), []
    pipe = os.pipe

    def slow_pipe() -> tuple[int, int]:
        time.sleep(0.05)
        made.append(pipe())
        return made[-1]

    monkeypatch.setattr(os, "pipe", slow_pipe)
    serve = backend.compile(wide_plan()).native["serve"]
    users = [threading.Thread(target=pool.use, args=(serve,)) for _ in range(2)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    pool.stop()
    for end in made[0]:
        os.close(end)
    assert len(made) == 1


def test_without_a_thread_to_be_had_steps_run_all_the_same(monkeypatch):
    weights = np.zeros(200_000, np.float32)
    bound = counting_bound(weights)
    threads.set_threads(1)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    threads.set_threads(3)
    assert bound.run((np.ones_like(weights),), ()) is None
    np.testing.assert_array_equal(weights, 3)
    monkeypatch.undo()
    threads.set_threads(3)
    assert len(workers()) == 2


def test_a_change_that_is_interrupted_is_finished_all_the_same(monkeypatch):
    weights = np.zeros(200_000, np.float32)
    bound = counting_bound(weights)
    threads.set_threads(4)
    join = threading.Thread.join

    interrupts = []

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        if threading.current_thread() is threading.main_thread():
            interrupts.append(thread)
            raise KeyboardInterrupt
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    for count in (2, 5, 3):
        # a change that the one before, still under way, has already made is not waited for
        with contextlib.suppress(KeyboardInterrupt):
            threads.set_threads(count)
    monkeypatch.undo()
    assert interrupts
    threads.set_threads(4)
    assert len(workers()) == 3
    bound.run((np.ones_like(weights),), ())
    np.testing.assert_array_equal(weights, 3)


def test_the_number_of_threads_may_change_while_steps_run():
    weights = np.zeros(200_000, np.float32)
    bound = counting_bound(weights)
    ones, steps, done = np.ones_like(weights), [0, 0], threading.Event()

    def train(number: int) -> None:
        while not done.is_set():
            bound.run((ones,), ())
            steps[number] += 1

    trainers = [threading.Thread(target=train, args=(number,)) for number in range(2)]
    for trainer in trainers:
        trainer.start()
    for round in range(100):
        threads.set_threads(1 + round % 5)
        time.sleep(round % 3 * 1e-3)
    done.set()
    for trainer in trainers:
        trainer.join()
    np.testing.assert_array_equal(weights, 3 * sum(steps))
    assert len(bound._contexts) == 1  # those who wait for their turn hold no memory


def test_idle_workers_sleep():
    weights = np.zeros(200_000, np.float32)
    bound = counting_bound(weights)
    threads.set_threads(4)
    bound.run((weights.copy(),), ())
    assert becomes_idle()


CLOSED = """
import os, sys
sys.path.insert(0, {root!r})
import numpy as np
from tests.counting import becomes_idle
from tests.numba.test_threads import counting_bound, threads
weights = np.zeros(200_000, np.float32)
bound = counting_bound(weights)
threads.set_threads(3)
bound.run((np.ones_like(weights),), ())
assert becomes_idle()
ends = [threads._pool._get(word) for word in (threads.POOL_READ_END, threads.POOL_WRITE_END)]
os.write(ends[1], b"xx")  # workers wake, and sleep again where there is no pipe
for end in ends:
    os.close(end)
assert becomes_idle()
bound.run((np.ones_like(weights),), ())
assert (weights == 6).all()
"""

FORKS = """
import os, signal, sys, threading, warnings
sys.path.insert(0, {root!r})
import numpy as np
from tests.numba.test_threads import counting_bound, threads
warnings.simplefilter("ignore")  # newer interpreters warn of forks beside threads
weights = np.zeros(200_000, np.float32)
bound = counting_bound(weights)
threads.set_threads(2)
ones, done = np.ones_like(weights), threading.Event()
def train():
    while not done.is_set():
        bound.run((ones,), ())
trainer = threading.Thread(target=train)
trainer.start()
status = 0
for _ in range(20):
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # the end of a child that waits for ever
        whole = weights[0] % 3 == 0 and (weights == weights[0]).all()
        bound.run((ones,), ())
        os._exit(0 if whole else 1)
    status = status or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
done.set()
trainer.join()
sys.exit(status)
"""

DAEMONS = """
import sys, threading, time
sys.path.insert(0, {root!r})
import numpy as np
from tests.numba.test_threads import counting_bound, threads
bounds = [counting_bound(np.zeros(200_000, np.float32)) for _ in range(2)]
threads.set_threads(3)
def train(bound):
    ones = np.ones(200_000, np.float32)
    while True:
        bound.run((ones,), ())
for bound in bounds:
    threading.Thread(target=train, args=(bound,), daemon=True).start()
time.sleep(0.1)
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(CLOSED, id="a pipe that the program closes keeps no worker busy"),
        pytest.param(FORKS, id="a fork waits for steps of other threads"),
        pytest.param(DAEMONS, id="daemon threads in native code outlive the interpreter"),
    ],
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_process_ends_well(pytestconfig, code):
    code = code.format(root=str(pytestconfig.rootpath))
    ended = subprocess.run([sys.executable, "-c", code], timeout=300, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
