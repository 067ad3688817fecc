"""Values of parameters alone: which are prepared, and that no call ever reads an old one."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import shutil
import signal
import threading
import warnings
import weakref
from collections.abc import Callable

import numpy as np
import pytest

import graphc as gx
from graphc import cache
from graphc.ir.node import Node, Parameter
from graphc.lower import store
from graphc.lower.prepared import ALWAYS, SMALL
from graphc.program import Program

X = gx.placeholder("x", ("n", 6))
x = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)


def parameter(*shape: int, name: str = "w", seed: int = 1, dtype: str = "float32") -> Parameter:
    values = np.random.default_rng(seed).uniform(0.5, 1.5, shape)
    return gx.parameter(name, values, dtype=dtype)


def prepared_of(program: Program) -> list[str]:
    return sorted(node.op.name for values in program.prepared for node in values.held)


def runs_of(program: Program) -> int:
    return sum(values.runs for values in program.prepared)


W, V, B, LARGE = parameter(6, 4), parameter(6, 4, seed=2), parameter(6, seed=3), parameter(SMALL + 1, seed=4)
LONG = gx.placeholder("long", ("n", SMALL + 1))
TOKENS = gx.placeholder("tokens", ("n",), "int64")
IMAGE, KERNEL = gx.placeholder("image", ("n", 5, 5, 4)), parameter(2, 2, 2, 6, seed=5)

CHOICES: dict[str, tuple[Callable[[], Node], list[str]]] = {
    "a parameter itself": (lambda: X @ W, []),
    "a transpose that a product reads as it lies": (lambda: X @ gx.transpose(gx.transpose(W)), []),
    "a slice of rows": (lambda: X[:, :3] @ W[:3], []),
    "an operand that would be computed before each product": (lambda: X @ (W * V), ["multiply"]),
    "what it is made of is not prepared beside it": (lambda: X @ (gx.exp(W) * gx.sum(V)), ["multiply"]),
    "a product": (lambda: X @ (W @ gx.transpose(V)), ["matmul"]),
    "a factor of each column": (lambda: X * (B * gx.rsqrt(B + 1e-3)), ["multiply"]),
    "one number": (lambda: X * (gx.sum(B[0]) * 2.0), []),
    "one number of many": (lambda: X * gx.sum(W), ["sum"]),
    "cheap work on many elements, read once": (lambda: LONG * (LARGE + 1.0), []),
    "dear work on many elements": (lambda: LONG * gx.exp(LARGE), ["exp"]),
    "rows of a table that is computed": (lambda: gx.take(gx.broadcast_to(gx.exp(LARGE), (SMALL + 1,)), TOKENS), []),
    "the parts of a repetition that is larger than they are": (
        lambda: gx.sum(LONG) * gx.sum(gx.exp(LARGE)[:, None] * gx.exp(B) * gx.cast(TOKENS[0], "float32")),
        ["exp", "exp"],
    ),
    "a view that products copy": (
        lambda: X @ gx.reshape(gx.transpose(gx.reshape(W, (3, 2, 2, 2)), (0, 3, 2, 1)), (6, 4)), ["reshape"],
    ),
    "kernels of groups": (lambda: gx.conv(IMAGE, KERNEL, groups=2), ["transpose"]),
    "an output of parameters alone": (lambda: gx.sum(W * W), ["sum"]),
    "an output of a few operations": (lambda: W * V, []),
    "what may fail itself is not, what it reads is": (lambda: X @ gx.check_finite(W * V, "w"), ["multiply"]),
    "random bits": (lambda: X @ (W * gx.random.uniform((6, 4), seed=1, stream=2)), []),
    "sizes that a call decides": (lambda: X + gx.exp(B) * gx.size_of(X.shape[0], "float32"), ["exp"]),
    "constants": (lambda: X @ (gx.exp(gx.iota((6, 4), axis=0, dtype="float32") * 1e-2)), []),
}  # fmt: skip


@pytest.mark.parametrize("name", CHOICES)
def test_what_is_prepared(name):
    build, wanted = CHOICES[name]
    y = build()
    inputs = [X, LONG, TOKENS, IMAGE]
    program = gx.compile({"y": y}, inputs, backend="numba")
    assert prepared_of(program) == wanted
    feeds = {
        "x": x, "long": np.full((3, SMALL + 1), 2, np.float32), "tokens": np.array([0, 5, SMALL]),
        "image": np.random.default_rng(2).standard_normal((3, 5, 5, 4)).astype(np.float32),
    }  # fmt: skip
    judge = gx.compile({"y": y}, inputs, backend="reference")
    assert judge.prepared == ()
    for _ in range(2):
        np.testing.assert_allclose(program(**feeds)["y"], judge(**feeds)["y"], rtol=2e-5, atol=1e-5)
    assert runs_of(program) == len(program.prepared)


def test_a_repetition_is_not_prepared_whole():
    """It would take many times the memory of what it is made of."""
    y, rows, columns = gx.placeholder("y", (ALWAYS, 9)), parameter(ALWAYS, 1), parameter(1, 9, seed=2)
    program = gx.compile({"z": y * (gx.exp(rows) * gx.exp(columns))}, [y], backend="numba")
    (values,) = program.prepared
    assert sorted(node.type.size for node in values.held) == [9, ALWAYS]


def test_a_program_without_inputs_prepares_nothing():
    """It is called because parameters have changed."""
    assert gx.compile({"y": W @ gx.transpose(V)}, [], backend="numba").prepared == ()


# changes


class Subject:
    """A program with prepared values, and what it must return."""

    def __init__(self, backend: object = "numba") -> None:
        self.w, self.s = parameter(6, 4), parameter(4, name="s", seed=2)
        self.program = gx.compile({"y": X @ (self.w * gx.exp(self.s))}, [X], backend=backend)
        self.backend = backend

    def check(self) -> None:
        wanted = x @ (self.w.value * np.exp(self.s.value))
        np.testing.assert_allclose(self.program(x=x)["y"], wanted, rtol=1e-5)

    def step(self, factor: float = 0.5, fails: bool = False) -> Program:
        """A program that changes both parameters."""
        updates = {self.w: self.w * (gx.sum(X) * 0 + factor), self.s: self.s + 0.25}
        if fails:
            updates[self.w] = gx.check_finite(updates[self.w], "w")
        return gx.compile({"loss": gx.sum(X)}, [X], updates, backend=self.backend)


def set_value(subject: Subject) -> None:
    subject.w.value = subject.w.value + 1


def write_array(subject: Subject) -> None:
    subject.s.array[1:] -= 0.5


def train(subject: Subject) -> None:
    subject.step()(x=x)


def train_by_start(subject: Subject) -> None:
    step = subject.step()
    [results[0] for results in (step.start([x]), step.start([x]))]


def train_into_arrays(subject: Subject) -> None:
    subject.step()(x=x, out={"loss": np.empty((), np.float32)})


def train_without_preparing_it(subject: Subject) -> None:
    subject.step(2.0).call([x])


CHANGES = [set_value, write_array, train, train_by_start, train_into_arrays, train_without_preparing_it]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change):
    subject = Subject()
    for _ in range(3):
        subject.check()
    assert runs_of(subject.program) == 1
    change(subject)
    for runs in (2, 2):
        subject.check()
        assert runs_of(subject.program) == runs


def test_nothing_is_prepared_anew_for_who_only_reads():
    subject, other = Subject(), parameter(6, 4)
    step = gx.compile({"y": X @ (subject.w + other)}, [X], {other: other * 0.5}, backend="numba")
    for _ in range(3):
        subject.check()
        subject.w.value, subject.s.value, subject.w.shape  # noqa: B018
        step(x=x)
        gx.compile({"y": X @ subject.w}, [X], backend="reference")(x=x)
    assert runs_of(subject.program) == 1


def test_an_array_may_be_written_as_long_as_someone_holds_it():
    subject = Subject()
    held = subject.w.array
    subject.check()
    held[:] = 2
    subject.check()
    part = held[2:, :1].T
    del held
    subject.check()
    part[:] = 7
    subject.check()
    view = memoryview(part)
    del part
    subject.check()
    np.asarray(view)[:] = 8
    subject.check()
    del view
    subject.check()
    runs = runs_of(subject.program)
    subject.check()
    assert runs_of(subject.program) == runs


def test_a_value_that_was_not_drawn_yet():
    drawn = []

    def draw() -> np.ndarray:
        drawn.append(np.arange(24, dtype=np.float32))
        return drawn[-1].reshape(6, 4)  # shows the memory of what it was made of

    w = Parameter("late", draw, type=W.type)
    program = gx.compile({"y": X @ (w * 2.0)}, [X], backend="numba")
    assert not drawn
    np.testing.assert_allclose(program(x=x)["y"], x @ (w.value * 2), rtol=1e-5)
    part = w.array[1:]
    program(x=x)
    part[:] = 9
    np.testing.assert_allclose(program(x=x)["y"], x @ (w.value * 2), rtol=1e-5)
    assert len(drawn) == 1


def test_a_step_that_fails_changes_nothing():
    subject = Subject()
    subject.check()
    step = subject.step(fails=True)
    before = subject.w.value
    with pytest.raises(gx.NonFiniteError):
        step(x=np.full_like(x, np.inf))
    np.testing.assert_array_equal(subject.w.value, before)
    subject.check()
    step(x=x)
    subject.check()


def test_a_program_prepares_nothing_of_what_it_updates():
    """Transfer learning: what is frozen is prepared for the step as well."""
    frozen, head = parameter(6, 4), parameter(4, 2, name="head", seed=3)
    loss = gx.mean(gx.square((X @ (frozen * gx.exp(frozen))) @ (head * 2.0)))
    (gradient,) = gx.grad(loss, [head])
    step, judge = (
        gx.compile({"loss": loss}, [X], {head: head - 0.1 * gradient}, backend=b) for b in ("numba", "reference")
    )
    assert prepared_of(step) == ["multiply"]
    for factor in (1.0, 1.0, 0.5):
        frozen.value = frozen.value * factor
        start = head.value
        wanted, after = judge(x=x)["loss"], head.value
        head.value = start
        np.testing.assert_allclose(step(x=x)["loss"], wanted, rtol=1e-5)
        np.testing.assert_allclose(head.value, after, rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_changes_and_calls(seed):
    """Several programs that share parameters and prepared values, against the reference."""
    rng = np.random.default_rng(seed)
    a, b, c = parameter(6, 6), parameter(6, name="b", seed=2), parameter(6, name="c", seed=3)
    factor = b * gx.rsqrt(c + 2.0)
    outputs = [X @ (a * factor), gx.tanh(X) * factor + gx.sum(a, axis=0), X @ (gx.exp(a) @ a) + (X @ (a * factor))]
    programs = [gx.compile({"y": y}, [X], backend="numba") for y in outputs]
    judges = [gx.compile({"y": y}, [X], backend="reference") for y in outputs]
    shrink = [gx.compile({}, [X], {p: p * (0.5 + 0 * gx.sum(X))}, backend="numba") for p in (a, b, c)]
    grow = gx.compile({"y": X @ (a * gx.exp(b))}, [X], {c: gx.abs(c) * 1.5 + 0.1}, backend="numba")
    assert all(program.prepared for program in (*programs, grow))
    held: list[np.ndarray] = []

    def set_one() -> None:
        p = (a, b, c)[rng.integers(3)]
        p.value = rng.uniform(0.1, 1, p.shape)

    def hold() -> None:
        held.append((a, b, c)[rng.integers(3)].array[1:])

    def write_held() -> None:
        for part in held:
            part[...] = rng.uniform(0.1, 1, part.shape)

    moves = [set_one, hold, write_held, held.clear, *(lambda s=s: s(x=x) for s in shrink), lambda: grow(x=x)]
    for _ in range(60):
        if rng.random() < 0.5:
            moves[rng.integers(len(moves))]()
        which = rng.integers(len(programs))
        found, wanted = programs[which](x=x)["y"], judges[which](x=x)["y"]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


# copies


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda node: pickle.loads(pickle.dumps(node))])
def test_a_copy_has_the_value_and_programs_of_its_own(copied):
    w = parameter(6, 4)
    program = gx.compile({"y": X @ gx.exp(w)}, [X], backend="numba")
    before = program(x=x)["y"]
    other = copied(w)
    held = other.array
    held[...] = 0.0
    np.testing.assert_array_equal(program(x=x)["y"], before)
    assert runs_of(program) == 1  # nobody told it of anything
    zeros = gx.compile({"y": X @ gx.exp(other)}, [X], backend="numba")
    np.testing.assert_allclose(zeros(x=x)["y"], x @ np.ones((6, 4)), rtol=1e-5)
    held[...] = 1.0
    np.testing.assert_allclose(zeros(x=x)["y"], x @ np.full((6, 4), np.e), rtol=1e-5)


# sharing


def test_programs_share_values_that_live_as_long_as_they_do():
    w, v = parameter(6, 4), parameter(6, 4, seed=2)
    shared = w * v
    first = gx.compile({"y": X @ shared}, [X], backend="numba")
    second = gx.compile({"y": gx.relu(X @ shared), "z": X @ gx.exp(v)}, [X], backend="numba")
    assert [list(values.held) for values in first.prepared] == [[shared]]
    assert first.prepared[0] is second.prepared[0]
    assert len(second.prepared) == 2
    first(x=x), second(x=x)
    assert runs_of(first) == 1
    living = [weakref.ref(values) for values in second.prepared]
    del first
    gc.collect()
    assert all(reference() is not None for reference in living)
    second(x=x)
    del second
    gc.collect()
    assert all(reference() is None for reference in living)
    v.value = v.value  # tells nobody
    w.add_dependent(type("Other", (), {"expire": lambda self: None})())
    assert len(w.dependents) == 1


def test_values_of_plans_from_the_disk(tmp_path, monkeypatch, request):
    """They follow changes like others, are shared with what was compiled here, and say what they are when asked."""
    monkeypatch.setattr(store, "FEWEST_NODES", 1)
    monkeypatch.setattr(store, "KIND", f"plan-{tmp_path.parent.name}-{tmp_path.name}")
    folder = cache.folder()
    assert folder is not None
    request.addfinalizer(lambda: shutil.rmtree(folder / f"plan-{tmp_path.parent.name}-{tmp_path.name}"))
    w, s = parameter(6, 4), parameter(4, name="s", seed=2)

    def made() -> Program:
        return gx.compile({"y": X @ (w * gx.exp(s)), "z": X * gx.sum(w)}, [X], backend="numba")

    def check(program: Program) -> None:
        found = program(x=x)
        np.testing.assert_allclose(found["y"], x @ (w.value * np.exp(s.value)), rtol=1e-5)
        np.testing.assert_allclose(found["z"], x * w.value.sum(), rtol=1e-5)

    first = made()
    check(first)
    warm = made()
    check(warm)
    assert "_lowered" not in vars(warm)
    assert warm._prepared == first._prepared
    assert runs_of(first) == 1
    texts = [first.text("prepared"), first.explain(), first.source(), first.memory()]
    del first
    gc.collect()
    w.value = w.value * 2
    check(warm)
    del warm
    gc.collect()
    alone = made()
    for _ in range(2):
        check(alone)
        w.value = w.value * 2
        check(alone)
        s.array[:] = 0.5
        check(alone)
    assert "_lowered" not in vars(alone)
    assert [values.runs for values in alone._prepared] == [5]
    assert texts[2:] == [alone.source(), alone.memory()]
    assert texts[:2] == [alone.text("prepared"), alone.explain()]
    assert alone.prepared == alone._prepared


def test_texts_say_what_is_prepared():
    program = Subject().program
    assert "multiply" in program.text("prepared")
    assert "exp" not in program.text("plan")
    assert "prepared when parameters have changed" in program.explain()
    assert "exp" in program.source()
    assert program.memory().prepared_bytes >= 6 * 4 * 4
    assert program.memory().parameter_bytes == (6 * 4 + 4) * 4
    assert {p.label for p in program.parameters} == {"w", "s"}
    plain = gx.compile({"y": X @ W}, [X], backend="numba")
    assert plain.text("prepared") == "nothing is prepared\n"
    assert plain.memory().prepared_bytes == 0


# threads and processes


def test_several_threads_read_no_value_that_is_half_done():
    """The parameter is one number everywhere, and so is the result: whatever a call reads is from one preparation."""
    w = gx.parameter("w", np.ones((600, 600), np.float32))
    y = gx.placeholder("y", (1, 600))
    program = gx.compile({"z": y @ (gx.exp(w) * 2.0)}, [y], backend="numba")
    row, wrong = np.ones((1, 600), np.float32), []
    for value in (1.0, 2.0, 3.0):
        w.value = np.full((600, 600), value)
        start = threading.Barrier(4)

        def call(value: float = value, start: threading.Barrier = start) -> None:
            start.wait()
            found = program(y=row)["z"]
            if not np.allclose(found, 1200 * np.exp(value), rtol=1e-4):
                wrong.append(found)

        threads = [threading.Thread(target=call) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert not wrong
    assert runs_of(program) == 3


def test_training_in_one_thread_and_predictions_in_another_end_alike():
    subject = Subject()
    step, done, wrong = subject.step(1.01), threading.Event(), []

    def predict() -> None:
        while not done.is_set():
            if not np.isfinite(subject.program(x=x)["y"]).all():
                wrong.append(1)

    threads = [threading.Thread(target=predict) for _ in range(2)]
    [thread.start() for thread in threads]
    for _ in range(50):
        step(x=x)
    done.set()
    [thread.join() for thread in threads]
    assert not wrong
    subject.check()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_child_prepares_for_itself():
    """Whatever a thread was about when the process forked, the child finds the lock open and computes afresh."""
    subject = Subject()
    subject.check()
    (values,) = subject.program.prepared
    values._lock.acquire()
    result: list[int] = []

    def fork() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer interpreters warn of forks beside threads
            child = os.fork()
        if child == 0:
            signal.alarm(60)  # a child that waits for ever is ended, and the test fails
            try:
                subject.w.value = subject.w.value * 2
                values.renew()
                os._exit(0 if values.made is values.wanted else 2)
            except BaseException:
                os._exit(1)
        result.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    thread = threading.Thread(target=fork)  # one that does not hold the lock
    thread.start()
    thread.join()
    values._lock.release()
    assert result == [0]
    subject.check()
