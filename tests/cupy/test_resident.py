"""Training on data that lies on the device: the same steps, to the bit, with nothing copied for them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import graphc as gx
from graphc.backends.cupy import CupyBackend, executable
from graphc.frontend.data.batches import ArrayBatches
from graphc.frontend.data.resident import ResidentBatches
from tests.cupy.emulated_device import EmulatedDevice
from tests.spine.models import classifier_model

COUNT, WIDTH, CLASSES = 75, 12, 4


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draws = np.random.default_rng(4)
    x = draws.standard_normal((COUNT, WIDTH), np.float32)
    return x, draws.integers(0, CLASSES, COUNT), draws.uniform(0.5, 2, COUNT).astype(np.float32)


class Watch(gx.callbacks.Callback):
    """What the batches of each epoch were, and how often something had been copied to the device."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.kinds: set[type] = set()
        self.uploads: list[int] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.kinds.add(type(self.model.running.loop.batches))
        self.uploads.append(getattr(self.device, "uploads", 0))


def train(target: CupyBackend, **options: Any) -> tuple[Watch, list[np.ndarray]]:
    x, labels, weights = data()
    model = classifier_model([WIDTH, 16, CLASSES], 0.1, target)
    watch = Watch(target.device)
    weighed = {"sample_weight": weights} if options.pop("weighted", False) else {}
    history = model.fit(x, labels, 8, 3, callbacks=[watch], verbose=0, **weighed, **options).history
    return watch, [*map(np.array, history.values()), *model.get_weights()]


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"validation_split": 0.3}, {"weighted": True}])
def test_steps_are_the_same_to_the_bit_wherever_the_data_lies(gpu, monkeypatch, options):
    watch, found = train(gpu, **options)
    assert watch.kinds == {ResidentBatches}
    monkeypatch.setattr(executable, "PLACED_PART", 0)
    watch, wanted = train(gpu, **options)
    assert watch.kinds == {ArrayBatches}
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_epoch_copies_the_order_of_its_samples_and_nothing_else():
    watch, _ = train(CupyBackend(device=EmulatedDevice()))
    arrays = 2
    assert np.diff(watch.uploads).tolist() == [arrays, arrays]


def test_data_stays_where_it_is_if_it_takes_too_much_room_or_is_hardly_read():
    room = 1 << 20
    watch, _ = train(CupyBackend(device=EmulatedDevice(capacity=room)))
    assert watch.kinds == {ResidentBatches}
    x, labels, _ = data()
    for copies, options in ((100, {}), (1, {"steps_per_epoch": 2})):
        device = EmulatedDevice(capacity=room)
        model = classifier_model([WIDTH, 16, CLASSES], 0.1, CupyBackend(device=device))
        watch = Watch(device)
        many = np.repeat(x, copies, axis=0), np.repeat(labels, copies)
        model.fit(*many, 8 * copies, callbacks=[watch], verbose=0, **options)
        assert watch.kinds == {ArrayBatches}


def test_data_with_all_copies_of_it_takes_no_more_than_the_part_that_it_may():
    class Counting(EmulatedDevice):
        counted = 0

        def allocate(self, nbytes: int, what: str) -> Any:
            self.counted += nbytes if nbytes >= large else 0
            return super().allocate(nbytes, what)

        def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
            made = super().empty(shape, dtype)
            self.counted += made.nbytes if made.nbytes >= large else 0
            return made

    x, labels, _ = data()
    many = np.repeat(x, 40, axis=0), np.repeat(labels, 40)
    placed, large = sum(array.nbytes for array in many), many[1].nbytes
    device = Counting(capacity=8 * placed + (1 << 16))
    model = classifier_model([WIDTH, 16, CLASSES], 0.1, CupyBackend(device=device))
    watch = Watch(device)
    model.fit(*many, 40, 3, callbacks=[watch], verbose=0)
    assert watch.kinds == {ResidentBatches}
    rows = 2 * many[1].nbytes  # the order of the samples, for each of the arrays
    assert 3 * placed < device.counted <= executable.PLACED_COPIES * placed + rows + 1024


@pytest.mark.parametrize("part", [0.5, 0], ids=["resident", "on the host"])
def test_what_made_a_step_fail_is_found_in_its_own_batch(gpu, monkeypatch, part):
    """Also where later steps had been started, whose batches lie where its batch lay."""
    monkeypatch.setattr(executable, "PLACED_PART", part)
    x, labels, _ = data()
    x[41, 3] = np.inf
    model = classifier_model([WIDTH, 16, CLASSES], 0.0, gpu)
    given: list[np.ndarray] = []

    class Look(gx.callbacks.Callback):
        checks_finite = True

        def on_non_finite(self, error: Any, program: Any, arrays: Any, batch: int) -> bool:
            given.extend([*arrays, np.array(batch)])
            self.model.stop_training = True
            return True

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(x, labels, 8, callbacks=[Look()], verbose=0)
    found_x, found_labels, batch = given
    assert isinstance(found_x, np.ndarray)
    assert np.isinf(found_x).sum() == 1
    order = model._permutation(0, COUNT)
    rows = order[8 * int(batch) : 8 * int(batch) + 8]
    np.testing.assert_array_equal(found_x, x[rows])
    np.testing.assert_array_equal(found_labels, labels[rows])


def test_arrays_are_worked_on_in_place_if_few_take_turns():
    device = EmulatedDevice()
    x = gx.placeholder("x", (64,))
    program = gx.compile({"y": x + 1}, [x], backend=CupyBackend(device=device))
    arrays = [device.empty((64,), np.dtype(np.float32)) for _ in range(20)]
    for number, array in enumerate(arrays):
        array.data[:] = number
    for taken, recordings in ((arrays, 1), (arrays[:3], 3), (arrays[:3], 0)):
        before = device.recordings
        for _ in range(3):
            for array in taken:
                np.testing.assert_array_equal(program(x=array)["y"].get(), array.data + 1)
        assert device.recordings - before == recordings


def stepping(target: Any) -> tuple[gx.Program, list[np.ndarray]]:
    """Training on batches of one label each time, with a large output, and 40 such batches."""
    gx.set_seed(2)
    x, rate, labels = (
        gx.placeholder("x", (6, WIDTH)),
        gx.placeholder("rate", ()),
        gx.placeholder("labels", (6,), "int64"),
    )
    w = gx.parameter("w", np.random.default_rng(1).standard_normal((WIDTH, CLASSES)).astype(np.float32))
    logits = x @ w
    loss = gx.mean(gx.sparse_softmax_cross_entropy(labels, logits))
    update = {w: w - rate * gx.grad(loss, [w])[0]}
    outputs = {"loss": loss, "many": gx.broadcast_to(loss, (2000,)) * 2}
    draws = np.random.default_rng(5)
    arrays = [draws.standard_normal((40, 6, WIDTH), np.float32), np.linspace(0.1, 0.5, 40, dtype=np.float32)]
    arrays.append(draws.integers(0, CLASSES, (40, 6)))
    return gx.compile(outputs, [x, rate, labels], update, backend=target, training=True), arrays


def test_many_steps_of_one_call_are_those_of_many_calls(gpu, device):
    program, arrays = stepping(gpu)
    wanted = [program.call([array[step] for array in arrays]) for step in range(40)]
    weights = program.parameters[0].value
    placed = []
    for array in arrays:
        placed.append(device.empty(array.shape, array.dtype))
        device.upload(device.address_of(placed[-1]), array)
    for given in (arrays, placed):
        again, _ = stepping(gpu)
        before = getattr(device, "uploads", 0)
        losses, many = again.steps(given)
        np.testing.assert_array_equal(losses, [row[0] for row in wanted])
        np.testing.assert_array_equal(many, [row[1] for row in wanted])
        np.testing.assert_array_equal(again.parameters[0].value, weights)
        if isinstance(device, EmulatedDevice):  # the arrays, and the first weights
            assert device.uploads - before == 1 + 3 * (given is arrays)
    host, _ = stepping("numba")
    np.testing.assert_allclose(host.steps(arrays)[0], losses, rtol=1e-4)
    np.testing.assert_allclose(host.parameters[0].value, weights, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("target", ["emulated", "numba"])
def test_a_step_among_many_that_fails_is_the_last(target):
    backend = "numba" if target == "numba" else CupyBackend(device=EmulatedDevice())
    program, arrays = stepping(backend)
    program.steps([array[:7] for array in arrays])
    before = program.parameters[0].value
    twin, _ = stepping(backend)
    arrays[2][7, 3] = 9
    with pytest.raises(gx.IndexRangeError, match="index 9"):
        twin.steps(arrays)
    np.testing.assert_array_equal(twin.parameters[0].value, before)
    twin.steps([array[8:10] for array in arrays])  # it goes on


def test_stacks_of_steps_have_to_be_equally_long():
    program, (x, rate, labels) = stepping("numba")
    for given in ([x, rate], [x, rate[:3], labels], [x[:0], rate[:0], labels[:0]], [x, 0.1, labels]):
        with pytest.raises(gx.ShapeError, match="takes 3 arrays of equally many steps"):
            program.steps(given)
