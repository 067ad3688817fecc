"""Where batches come from: iterables, generators, data sets by number, the background; and models built from them."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import graphc as gx
from graphc import Sequential, layers
from graphc.frontend.data import batches as batches_module
from graphc.frontend.data.batches import ArrayBatches, IterableBatches
from graphc.frontend.data.prefetch import in_background, map_ahead

rng = np.random.default_rng(0)
X = rng.standard_normal((96, 4)).astype(np.float32)
Y = (X @ np.float32([[1], [2], [-1], [0.5]])).astype(np.float32)


class Parts(gx.data.PyDataset):
    """X and Y, 16 at a time."""

    def __init__(self, slow=False, **kwargs):
        super().__init__(**kwargs)
        self.slow = slow
        self.events: list[str] = []

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if self.slow and index % 2 == 0:
            time.sleep(0.002)
        return X[index * 16 : index * 16 + 16], Y[index * 16 : index * 16 + 16]

    def on_epoch_begin(self):
        self.events.append("begin")

    def on_epoch_end(self):
        self.events.append("end")


def unbuilt():
    gx.set_seed(1)
    model = Sequential([layers.Dense(3, "tanh"), layers.Dense(1)])
    model.compile(gx.optimizers.SGD(0.1), "mse", backend="reference")
    return model


def trained(*data, **kwargs):
    model = unbuilt()
    model.fit(*data, epochs=2, verbose=0, **kwargs)
    return model.get_weights()[0]


def generator():
    for index in range(6):
        yield X[index * 16 : index * 16 + 16], Y[index * 16 : index * 16 + 16]


def endless():
    while True:
        yield from generator()


class Again:
    """An iterable that may begin again."""

    def __iter__(self):
        return generator()


def test_a_model_without_shapes_takes_them_from_the_first_batch():
    """No batch is lost or met twice for that."""
    expected = trained(X, Y, batch_size=16, shuffle=False)
    np.testing.assert_array_equal(trained(endless(), steps_per_epoch=6), expected)
    np.testing.assert_array_equal(trained(Again()), expected)
    np.testing.assert_array_equal(trained(Parts(), shuffle=False), expected)
    model = unbuilt()
    outputs = model.predict((x for x, _ in generator()), verbose=0)
    np.testing.assert_array_equal(outputs, model.predict(X, batch_size=16, verbose=0))
    assert unbuilt().evaluate(generator(), verbose=0) == pytest.approx(unbuilt().evaluate(X, Y, verbose=0), rel=1e-5)
    with pytest.raises(gx.ShapeError, match="no batch to begin with"):
        unbuilt().fit(iter(()), verbose=0)


def test_targets_of_a_type_that_only_data_shows_come_from_the_first_batch():
    def absolute(y_true, y_pred):
        assert y_true.dtype is gx.DType.int64
        return gx.abs(gx.cast(y_true, "float32") - y_pred[:, 0])

    model = unbuilt()
    model.compile("sgd", absolute, backend="reference")
    model.fit(((x, np.arange(16)) for x, _ in generator()), verbose=0)


def test_a_data_set_is_taken_in_another_order_each_epoch_which_the_seed_decides():
    def first_rows(seed):
        gx.set_seed(seed)
        model = unbuilt()
        order = model._permutation
        source = IterableBatches(Parts(), list, None, order)
        return [[float(x[0, 0]) for x, _ in source.epoch(number)] for number in (0, 1)]

    one, two = first_rows(1)
    assert one != two
    assert sorted(one) == sorted(two) == sorted(X[::16, 0].tolist())
    dataset = Parts()
    assert not np.array_equal(trained(dataset), trained(dataset, shuffle=False))
    np.testing.assert_array_equal(trained(Parts()), trained(Parts()))
    assert dataset.events == ["begin", "end"] * 4


def test_workers_and_prefetching_change_no_results():
    expected = trained(Parts())
    np.testing.assert_array_equal(trained(Parts(slow=True, workers=3, max_queue_size=2)), expected)
    in_order = trained(Parts(), shuffle=False)
    np.testing.assert_array_equal(trained(gx.data.prefetch(Again())), in_order)
    np.testing.assert_array_equal(trained(gx.data.prefetch(endless(), depth=4), steps_per_epoch=6), in_order)


def test_large_batches_are_gathered_in_the_background_with_the_same_results(monkeypatch):
    expected = trained(X, Y, batch_size=20)
    threads: set[str] = set()
    real = batches_module.in_background

    def noted(items):
        def watched():
            for item in items:
                threads.add(threading.current_thread().name)
                yield item

        return real(watched())

    monkeypatch.setattr(batches_module, "AHEAD_BYTES", 1)
    monkeypatch.setattr(batches_module, "in_background", noted)
    np.testing.assert_array_equal(trained(X, Y, batch_size=20), expected)
    assert threads == {"graphc-prefetch"}


def test_errors_in_the_background_arrive_where_the_batch_would_have():
    def failing():
        yield 1
        yield 2
        raise OSError("the disk is gone")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        found.extend(in_background(failing()))
    items = in_background(failing())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(items)

    def square(index):
        if index == 3:
            raise ValueError("three")
        return index * index

    results = map_ahead(square, range(6), 2, 2)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_a_background_that_nobody_asks_any_more_ends():
    made: list[int] = []

    def counting():
        for number in range(1000):
            made.append(number)
            yield number

    others = set(threading.enumerate())
    items = in_background(counting(), depth=2)
    assert next(items) == 0
    (thread,) = (t for t in threading.enumerate() if t.name == "graphc-prefetch" and t not in others)
    items.close()
    thread.join(60)
    assert not thread.is_alive()
    assert len(made) < 10


@pytest.mark.parametrize("start", [0, 1, 4, 6])
@pytest.mark.parametrize("kind", ["arrays", "ahead", "generator", "iterable", "dataset", "indexed"])
def test_an_epoch_goes_on_where_it_was_left(kind, start, monkeypatch):
    """As a resumed training does: the source is new, and `start` batches are done."""
    if kind == "ahead":
        monkeypatch.setattr(batches_module, "AHEAD_BYTES", 1)

    class Indexed:
        __len__ = Parts.__len__
        slow = False
        __getitem__ = Parts.__getitem__

    def order(number, count):
        return np.random.default_rng(number).permutation(count)

    def new():
        if kind in ("arrays", "ahead"):
            return ArrayBatches([X, Y], 16, order)
        source = {"generator": generator, "iterable": Again, "dataset": Parts, "indexed": Indexed}[kind]()
        return IterableBatches(source, list, None, order)

    number = 0 if kind == "generator" else 3
    whole = [[array.copy() for array in batch] for batch in new().epoch(number)]
    assert len(whole) == 6
    later = new()
    later.seek(start)
    rest = [[array.copy() for array in batch] for batch in later.epoch(number, start)]
    assert len(rest) == 6 - start
    for a, b in zip(whole[start:], rest, strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def test_an_endless_source_goes_on_across_epochs_where_it_was_left():
    source = IterableBatches(endless(), list, 4)
    seen = [float(x[0, 0]) for number in range(3) for x, _ in source.epoch(number)]
    assert source.taken == 12
    later = IterableBatches(endless(), list, 4)
    later.first()
    later.seek(6)
    again = [float(x[0, 0]) for x, _ in later.epoch(1, 2)] + [float(x[0, 0]) for x, _ in later.epoch(2)]
    assert again == seen[6:]


def test_an_iterable_begins_again_when_its_batches_are_used_up_by_whole_epochs():
    source = IterableBatches(Again(), list, 6)
    assert [len(list(source.epoch(number))) for number in range(3)] == [6, 6, 6]
    once = IterableBatches(generator(), list, 6)
    assert [len(list(once.epoch(number))) for number in range(2)] == [6, 0]


def test_settings_of_a_data_set_are_checked():
    with pytest.raises(gx.AxisError, match="max_queue_size of Parts is 0"):
        Parts(max_queue_size=0)
    with pytest.raises(gx.AxisError, match="threads"):
        Parts(use_multiprocessing=True)
    for name in ("steps_per_epoch", "validation_freq"):
        with pytest.raises(gx.AxisError, match=name):
            unbuilt().fit(X, Y, verbose=0, **{name: -1})
