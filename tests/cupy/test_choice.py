"""Which of several ways is taken: measured on a device whose times are made up, kept, read, pinned."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

import pytest

from graphc import cache
from graphc.backends.cupy.choice import CHAINED, MOST_SECONDS, Choices, Family, Problem, Way
from graphc.backends.cupy.device import Clear, Work
from graphc.errors import BackendError
from graphc.ir.types import DType
from tests.cupy.emulated_device import EmulatedDevice

PROBLEM = Problem("a task of 8 x 3", ((DType.float32, 24), (DType.bfloat16, 100_000)))


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def family(name: str, times: dict[str, int], version: str = "1", on_find: Callable[[], None] = lambda: None) -> Family:
    """A family of ways that take so many bytes to clear, and with that as many seconds."""

    def made(short: str) -> Way:
        def work(operands: Sequence[int], scratch: int) -> list[Work]:
            if times[short] < 0:
                raise BackendError(f"{short} does not work", remedy="take another")
            return [Clear(scratch, times[short])]

        return Way(f"{name} {short}", work, lambda: max(times[short], 0))

    def find() -> Iterable[Way]:
        for short in times:
            on_find()
            yield made(short)

    def named(full: str) -> Way | None:
        short = full.removeprefix(f"{name} ")
        return made(short) if short in times else None

    return Family(name, version, find, named)


def broken(name: str) -> Family:
    def find() -> Iterable[Way]:
        raise BackendError(f"{name} is not there", remedy="install it")

    return Family(name, "", find, lambda full: None)


def device(**changes) -> EmulatedDevice:
    """One that takes a millisecond for each byte that is cleared."""
    return EmulatedDevice(seconds=lambda graph: sum(task.work.nbytes for task in graph.tasks) / 1e3, **changes)


def choose(device: EmulatedDevice, *families: Family, problem: Problem = PROBLEM):
    way, choice = device.choices.choose(device, None, problem, families)
    assert way.name == choice.name
    return choice


def test_the_fastest_is_taken_and_the_times_are_told():
    own, library = family("own", {"wide": 40, "narrow": 20}), family("library", {"a": 90, "b": 10})
    choice = choose(device(), own, library)
    assert (choice.name, choice.how) == ("library b", "measured")
    assert choice.seconds == pytest.approx(
        {"own wide": 0.040, "own narrow": 0.020, "library a": 0.090, "library b": 0.010}
    )
    assert str(choice) == (
        "a task of 8 x 3: library b (measured: library b 10 ms, own narrow 20 ms, own wide 40 ms, library a 90 ms)"
    )


def test_work_is_done_several_times_in_a_row_on_operands_of_its_own():
    places: list[tuple[int, ...]] = []

    def work(operands: Sequence[int], scratch: int) -> list[Work]:
        places.append((*operands, scratch))
        return [Clear(scratch, 8), Clear(operands[0], 4)]

    seen = []
    fake = device()
    fake.seconds = lambda graph: seen.append(graph) or 1.0
    way = Way("own it", work, lambda: 8)
    choice = choose(fake, Family("own", "1", lambda: [way], lambda name: way))
    assert choice.seconds == {"own it": 1.0 / CHAINED}
    (graph,) = {id(graph): graph for graph in seen}.values()
    assert len(graph.tasks) == 2 * CHAINED
    assert [task.after for task in graph.tasks] == [(), *((k,) for k in range(2 * CHAINED - 1))]
    assert len(set(places[0])) == 3  # two operands and scratch memory


def test_a_choice_is_kept_for_the_next_process():
    asked: list[str] = []
    own = family("own", {"a": 30, "b": 20}, on_find=lambda: asked.append("own"))
    assert choose(device(), own).how == "measured"
    asked.clear()
    slow = device()  # in which everything would come out differently
    slow.seconds = lambda graph: 1.0 / sum(task.work.nbytes for task in graph.tasks)
    choice = choose(slow, own)
    assert (choice.name, choice.how, asked) == ("own b", "kept", [])
    assert choice.seconds == pytest.approx({"own a": 0.030, "own b": 0.020})
    assert "own b (kept: own b 20 ms" in str(choice)


CHANGES = {
    "the device": lambda own: ((own,), device(name="another"), PROBLEM),
    "versions": lambda own: ((own,), device(versions="another driver"), PROBLEM),
    "the problem": lambda own: ((own,), device(), Problem("a task of 9 x 3", PROBLEM.operands)),
    "a family's version": lambda own: ((family("own", {"a": 30, "b": 20}, "2"),), device(), PROBLEM),
    "the families": lambda own: ((own, broken("library")), device(), PROBLEM),
}


@pytest.mark.parametrize("what", CHANGES)
def test_it_is_measured_again_if_something_else(what):
    own = family("own", {"a": 30, "b": 20})
    assert choose(device(), own).how == "measured"
    assert choose(device(), own).how == "kept"
    families, other, problem = CHANGES[what](own)
    assert choose(other, *families, problem=problem).how == "measured"


DAMAGES = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "changed": lambda path: path.write_bytes(path.read_bytes().replace(b"own b", b"own a")),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_measured_anew(damage, tmp_path):
    own = family("own", {"a": 30, "b": 20})
    choose(device(), own)
    (path,) = (path for path in (tmp_path / "choice").rglob("*") if path.is_file())
    DAMAGES[damage](path)
    assert [choose(device(), own).how for _ in range(2)] == ["measured", "kept"]


@pytest.mark.parametrize("entry", ["7", "[]", '["own b", 3, {}]', '["own b", {"own b": "x"}, {}]', '["own c", {}, {}]'])
def test_so_is_one_that_says_something_else(entry, monkeypatch):
    own = family("own", {"a": 30, "b": 20})
    monkeypatch.setattr(cache, "get", lambda key, kind: entry.encode())
    assert (choose(device(), own).name, choose(device(), own).how) == ("own b", "measured")


def test_what_fails_is_left_out_with_the_reason():
    choice = choose(device(), family("own", {"a": -1, "b": 20, "c": 30}), broken("library"))
    assert (choice.name, choice.how) == ("own b", "measured")
    assert choice.left_out == {
        "own a": "a does not work; take another",
        "library": "library is not there; install it",
    }
    kept = choose(device(), family("own", {"a": -1, "b": 20, "c": 30}), broken("library"))
    assert (kept.how, kept.left_out) == ("kept", choice.left_out)


@pytest.mark.parametrize("how", [device, EmulatedDevice])
def test_where_nothing_works_all_reasons_are_told(how):
    with pytest.raises(BackendError, match="no way to compute a task of 8 x 3") as caught:
        choose(how(), *([family("own", {"a": -1})] if how is device else []), broken("library"))
    assert "library: library is not there" in str(caught.value)
    assert ("own a: a does not work" in str(caught.value)) == (how is device)


def test_without_a_clock_the_first_is_taken_and_nothing_is_kept():
    asked: list[str] = []
    own = family("own", {"a": 30, "b": 20}, on_find=lambda: asked.append("own"))
    fake = EmulatedDevice()
    choice = choose(fake, own)
    assert (choice.name, choice.how, str(choice)) == ("own a", "fixed", "a task of 8 x 3: own a (fixed)")
    assert asked == ["own"]  # what comes second is not even compiled
    assert not fake.recordings
    assert choose(device(), own).how == "measured"


def test_where_memory_is_full_the_first_is_taken():
    choice = choose(device(capacity=1000), family("own", {"a": 30, "b": 20}))
    assert (choice.name, choice.how) == ("own a", "fixed")
    assert "memory is full" in choice.left_out["measuring"]


def test_a_family_is_tried_no_longer_than_so_long_and_each_has_one_trial():
    clock = Clock()
    fake = device(choices=Choices(clock))

    def pass_time() -> None:
        clock.now += 0.6 * MOST_SECONDS

    own = family("own", {"a": 30, "b": 20, "c": 1}, on_find=pass_time)
    slow = family("library", {"x": 10, "y": 1}, on_find=lambda: (pass_time(), pass_time()))
    choice = choose(fake, own, slow)
    assert set(choice.seconds) == {"own a", "own b", "library x"}
    assert choice.name == "library x"


def test_only_those_near_the_fastest_are_timed_often():
    launches: dict[int, int] = {}
    fake = device()

    def seconds(graph) -> float:
        nbytes = graph.tasks[0].work.nbytes
        launches[nbytes] = fake.launches
        return nbytes / 1e3

    fake.seconds = seconds
    choose(fake, family("own", {"a": 100, "b": 110, "c": 500}))
    assert launches == {500: 9, 100: 9 + 5, 110: 9 + 5 + 5}


def test_what_is_kept_is_plain_text(tmp_path):
    choose(device(), family("own", {"a": 30, "b": 20}))
    (path,) = (path for path in (tmp_path / "choice").rglob("*") if path.is_file())
    assert json.loads(path.read_bytes().split(b"\n", 1)[1][32:])[0] == "own b"
