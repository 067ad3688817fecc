"""Whole programs: the same tests through the emulator and, marked ``gpu``, on a GPU."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gx
from graphc.backends.cupy.printer import TYPES
from graphc.ir.op import registry
from graphc.lower.plan import GemmItem
from tests.cupy.emulated_device import EmulatedDevice
from tests.ops.table import COMPUTED, Together, cases
from tests.spine.models import classifier_model, classifier_step

rng = np.random.default_rng(0)


def f32(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


GROUPS = {COMPUTED[i]: tuple(COMPUTED[i : i + 16]) for i in range(0, len(COMPUTED), 16)}


@pytest.mark.parametrize("first", GROUPS)
def test_every_case_of_every_op(gpu, first):
    """The conformance table, several ops in one program so that a device compiles them at once."""
    table = Together()
    for name in GROUPS[first]:
        for case in cases(registry[name]):
            table.add(case, TYPES)
    table.judge(gx.compile(table.outputs, inputs=table.inputs, backend=gpu)(**table.feeds))


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_training_steps_are_those_of_the_reference(gpu, rate):
    sizes = [20, 64, 33, 5]
    steps = [classifier_step(sizes, rate, backend) for backend in ("reference", gpu)]
    for batch in (8, 8, 13):
        x, labels = f32(batch, 20), rng.integers(0, 5, batch)
        wanted, found = (step(x=x, labels=labels)["loss"] for step in steps)
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
    for a, b in zip(*(step.parameters for step in steps), strict=True):
        np.testing.assert_allclose(b.value, a.value, rtol=2e-4, atol=2e-6, err_msg=a.label)


def test_rows_of_a_sparse_table_train_as_on_the_cpu(gpu):
    tables = []
    for backend in (gpu, "numba"):
        gx.set_seed(2)
        model = gx.Sequential(
            [
                gx.Input((4,), dtype="int64"),
                gx.layers.Embedding(50, 20, sparse=True),
                gx.layers.Flatten(),
                gx.layers.Dense(3),
            ]
        )
        model.compile(gx.optimizers.Adam(0.01, global_clipnorm=0.5), "mse", backend=backend)
        draws = np.random.default_rng(1)
        for batch in (6, 6, 1):
            model.train_on_batch(draws.integers(0, 50, (batch, 4)), draws.standard_normal((batch, 3)).astype("f4"))
        tables.append([weight.value for weight in (*model.weights, *model.optimizer.variables({}).values())])
    for a, b in zip(*tables, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


def digits(backend: object, steps: int, batch: int, hidden: int) -> list[float]:
    gx.set_seed(3)
    images, labels = gx.data.load_digits()
    x = (images.reshape(len(images), 64) / 16).astype(np.float32)
    model = classifier_model([64, hidden, 10], 0.2, backend)
    slices = [slice(i * batch, (i + 1) * batch) for i in range(steps)]
    return [float(model.train_on_batch(x[part], labels[part])) for part in slices]


def test_digits_train_as_on_the_cpu(gpu, device):
    size = (20, 6, 20) if isinstance(device, EmulatedDevice) else (100, 16, 48)
    found, wanted = digits(gpu, *size), digits("numba", *size)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert found[-1] < found[0]


def test_fit_reads_results_late(gpu):
    """The history is that of the CPU; after a label that does not exist the state is that of the batch before."""
    x, labels = f32(150, 12), rng.integers(0, 4, 150)
    histories = []
    for backend in (gpu, "numba"):
        gx.set_seed(1)
        model = classifier_model([12, 16, 4], 0.1, backend)
        histories.append(model.fit(x, labels, batch_size=8, epochs=2, verbose=0).history)
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-4)
    gx.set_seed(1)
    model = classifier_model([12, 16, 4], 0.0, gpu)
    wrong = labels.copy()
    wrong[90] = 9
    with pytest.raises(gx.IndexRangeError, match="index 9"):
        model.fit(x, wrong, batch_size=8, verbose=0, shuffle=False)
    gx.set_seed(1)
    twin = classifier_model([12, 16, 4], 0.0, "numba")
    twin.fit(x[:88], labels[:88], batch_size=8, verbose=0, shuffle=False)  # the batches before the wrong one
    for found, wanted in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_random_bits_are_those_of_the_cpu(gpu):
    step = gx.placeholder("step", (), "uint32")
    seed = np.uint32(9)
    outputs = {"u": gx.uniform((5, 411), seed, step), "kept": gx.bernoulli((37,), 0.3, seed, step, stream=3)}
    results = [gx.compile(outputs, inputs=[step], backend=backend)(step=np.uint32(7)) for backend in (gpu, "numba")]
    for name in outputs:
        np.testing.assert_array_equal(results[0][name], results[1][name])


def test_a_step_gives_the_same_bits_each_time(gpu):
    def run() -> list[np.ndarray]:
        step = classifier_step([30, 40, 6], 0.1, gpu)
        local = np.random.default_rng(1)
        losses = [step(x=local.standard_normal((9, 30)).astype(np.float32), labels=np.arange(9) % 6) for _ in range(3)]
        return [*(loss["loss"] for loss in losses), *(p.value for p in step.parameters)]

    for a, b in zip(run(), run(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_failed_check_changes_nothing(gpu):
    step = classifier_step([4, 8, 3], backend=gpu)
    x, good, bad = f32(5, 4), np.array([0, 1, 2, 1, 0]), np.array([0, 1, 2, 7, 0])
    step(x=x, labels=good)
    before = [p.value for p in step.parameters]
    with pytest.raises(gx.IndexRangeError, match="index 7 is outside an axis of size 3"):
        step(x=x, labels=bad)
    for parameter, value in zip(step.parameters, before, strict=True):
        np.testing.assert_array_equal(parameter.value, value)
    step(x=x, labels=good)
    assert any((p.value != value).any() for p, value in zip(step.parameters, before, strict=True))


def test_steps_run_ahead_until_their_results_are_read(gpu):
    step, twin = classifier_step([4, 8, 3], backend=gpu), classifier_step([4, 8, 3], backend="numba")
    data = [(f32(5, 4), rng.integers(0, 3, 5)) for _ in range(70)]  # more than may wait
    started = [step.start([x, labels]) for x, labels in data]
    wanted = [twin(x=x, labels=labels)["loss"] for x, labels in data]
    np.testing.assert_allclose([float(results[0]) for results in started], wanted, rtol=1e-5)


def test_no_step_after_a_failed_one_counts(gpu):
    step = classifier_step([4, 8, 3], backend=gpu)
    x, good, bad = f32(5, 4), np.array([0, 1, 2, 1, 0]), np.array([0, 1, 2, -1, 0])
    first = step.start([x, good])
    float(first[0])
    before = [p.value for p in step.parameters]
    failed, later = step.start([x, bad]), step.start([f32(7, 4), np.zeros(7, np.int64)])
    with pytest.raises(gx.IndexRangeError, match="-1"):
        failed[0]
    with pytest.raises(gx.IndexRangeError, match="-1"):
        tuple(later)  # an index that is out of range does not look like the end of a sequence
    for parameter, value in zip(step.parameters, before, strict=True):
        np.testing.assert_array_equal(parameter.value, value)
    assert np.isfinite(step(x=x, labels=good)["loss"])


def test_parameters_are_shared_and_copied_only_when_they_changed(gpu, device):
    w = gx.parameter("w", f32(8))
    x = gx.placeholder("x", ("n", 8))
    step = gx.compile({}, inputs=[x], updates={w: w + gx.sum(x, axis=0)}, backend=gpu)
    read = gx.compile({"y": x * w}, inputs=[x], backend=gpu)
    host = gx.compile({"y": x * w}, inputs=[x], updates={w: w * 2}, backend="numba")
    value, data = w.value, f32(3, 8)
    step(x=data)
    value = value + data.sum(0)
    np.testing.assert_allclose(read(x=data)["y"], data * value, rtol=1e-5)
    np.testing.assert_allclose(w.value, value, rtol=1e-5)
    np.testing.assert_allclose(host(x=data)["y"], data * value, rtol=1e-5)
    np.testing.assert_allclose(read(x=data)["y"], data * value * 2, rtol=1e-5)
    w.value = np.ones(8)
    np.testing.assert_allclose(read(x=data)["y"], data, rtol=1e-6)
    if isinstance(device, EmulatedDevice):
        sent = device.uploads
        for _ in range(3):
            step(x=data)
            read(x=data)
        assert device.uploads - sent == 6  # the inputs alone


def test_arrays_of_the_device_go_in_and_come_out(gpu, device):
    x, y = gx.placeholder("x", ("n", 512)), gx.placeholder("y", ("n",))
    program = gx.compile({"z": x * 2 + 1, "s": gx.sum(y)}, inputs=[x, y], backend=gpu)
    for rows in (3, 700):
        data, other = f32(rows, 512), f32(rows)
        on_device = device.empty(data.shape, data.dtype), device.empty(other.shape, other.dtype)
        for array, host in zip(on_device, (data, other), strict=True):
            device.upload(device.address_of(array), host)
        device.synchronize()
        given = {"z": device.empty(data.shape, data.dtype), "s": device.empty((), data.dtype)}
        for out in (None, given, given, given):  # arrays that come back are worked on where they are
            found = program(x=on_device[0], y=on_device[1], out=out)
            assert device.is_array(found["z"])
            np.testing.assert_array_equal(found["z"].get(), data * 2 + 1)
            np.testing.assert_allclose(found["s"].get(), other.sum(), rtol=1e-3, atol=1e-4)
            device.clear(device.address_of(found["z"]), data.nbytes)
        mixed = program(x=on_device[0], y=other, out={"z": np.empty_like(data), "s": np.empty((), np.float32)})
        np.testing.assert_array_equal(mixed["z"], data * 2 + 1)
        for times in (1, 2, 3):  # an output in the place of an input
            program(x=on_device[0], y=on_device[1], out={"z": on_device[0], "s": given["s"]})
            np.testing.assert_allclose(on_device[0].get(), data * 2**times + 2**times - 1, rtol=1e-5, atol=1e-5)
    with pytest.raises(gx.DTypeError, match="float64"):
        program(x=device.empty((3, 512), np.dtype(np.float64)), y=f32(3))


def test_sizes_are_known_at_run_time_and_may_be_nothing(gpu):
    x = gx.placeholder("x", ("a", "b"))
    outputs = {"y": gx.softmax(x, axis=1), "s": gx.sum(x, axis=0), "t": gx.transpose(x), "m": x @ gx.transpose(x)}
    program = gx.compile(outputs, inputs=[x], backend=gpu)
    for shape in ((3, 5), (1, 1), (0, 4), (40, 300), (2, 0)):
        data = f32(*shape)
        found = program(x=data)
        np.testing.assert_allclose(found["s"], data.sum(0), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(found["t"], data.T)
        np.testing.assert_allclose(found["m"], data @ data.T, rtol=1e-3, atol=1e-3)
        if data.size:
            np.testing.assert_allclose(found["y"].sum(1), 1, rtol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_all_forms(gpu, dtype):
    a, b = gx.placeholder("a", ("m", "k"), dtype), gx.placeholder("b", ("k", "n"), dtype)
    c, d = gx.placeholder("c", ("batch", "m", "k"), dtype), gx.placeholder("d", ("batch", "k", "n"), dtype)
    t = gx.transpose
    outputs = {
        "plain": a @ b,
        "left": t(t(b) @ t(a)),
        "batched": c @ d,
        "one matrix": c @ b,
        "turned": gx.transpose(d, (0, 2, 1)) @ gx.transpose(c, (0, 2, 1)),
        "rows": a[1:] @ b,
    }
    program = gx.compile(outputs, inputs=[a, b, c, d], backend=gpu)
    for m, k, n, batch in ((3, 5, 7, 2), (17, 1, 9, 3), (4, 0, 3, 2), (33, 65, 31, 1)):
        shapes = {"a": (m, k), "b": (k, n), "c": (batch, m, k), "d": (batch, k, n)}
        feeds = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
        found = program(**feeds)
        left, right, many, others = feeds.values()
        wanted = {
            "plain": left @ right,
            "left": left @ right,
            "batched": many @ others,
            "one matrix": many @ right,
            "turned": (many @ others).transpose(0, 2, 1),
            "rows": left[1:] @ right,
        }
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def recurrent_step(backend: object, hidden: int) -> gx.Program:
    """Training of a gated recurrence over time, all in one graph: inputs ``x`` and ``t``."""
    local = np.random.default_rng(5)
    x, t = gx.placeholder("x", ("time", "batch", 6)), gx.placeholder("t", ("batch", hidden))
    shapes = {"w": (6, 2 * hidden), "u": (hidden, 2 * hidden), "b": (2 * hidden,)}
    w, u, b = (gx.parameter(n, (0.4 * local.standard_normal(s)).astype(np.float32)) for n, s in shapes.items())

    def cell(h: gx.Node, now: gx.Node) -> tuple[gx.Node, gx.Node]:
        z = now @ w + h @ u + b
        gate = gx.sigmoid(z[:, :hidden])
        h = gate * h + (1 - gate) * gx.tanh(z[:, hidden:])
        return h, h

    last, states = gx.scan(cell, gx.zeros_like(t), x)
    loss = gx.mean((last - t) ** 2) + 0.1 * gx.mean(states**2)
    updates = {p: p - 0.1 * g for p, g in zip((w, u, b), gx.grad(loss, [w, u, b]), strict=True)}
    return gx.compile({"loss": loss, "states": states}, [x, t], updates, backend=backend)


@pytest.mark.parametrize("hidden", [5, 32])
def test_loops_over_time_are_part_of_the_graph(gpu, hidden):
    """Odd sizes put the slices of a step where vectors may not begin."""
    found, wanted = recurrent_step(gpu, hidden), recurrent_step("numba", hidden)
    for time, batch in ((7, 3), (2, 8), (1, 1), (7, 3)):
        feeds = {"x": f32(time, batch, 6), "t": f32(batch, hidden)}
        a, b = found(**feeds), wanted(**feeds)
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=1e-4)
        np.testing.assert_allclose(a["states"], b["states"], rtol=1e-3, atol=1e-5)
    for p, q in zip(found.parameters, wanted.parameters, strict=True):
        np.testing.assert_allclose(p.value, q.value, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_products_of_halves_are_summed_in_float32(gpu, dtype):
    x, w = gx.placeholder("x", ("n", 96), dtype), gx.parameter("w", f32(96, 48), dtype)
    y = x @ w
    program = gx.compile({"y": y, "t": gx.transpose(y) @ x, "s": gx.sum(gx.cast(x, "float32"))}, [x], backend=gpu)
    assert {
        item.dtype.value
        for launch in program.executable.plan.launches
        for item in launch.items
        if isinstance(item, GemmItem)
    } == {dtype}
    twin = gx.compile({"y": y, "t": gx.transpose(y) @ x, "s": gx.sum(gx.cast(x, "float32"))}, [x], backend="reference")
    for n in (1, 33, 64):
        data = f32(n, 96).astype(x.dtype.numpy)
        found, wanted = program(x=data), twin(x=data)
        for name, scale in (("y", 10), ("t", 100), ("s", 1)):
            a, b = found[name].astype(np.float64), wanted[name].astype(np.float64)
            np.testing.assert_allclose(a, b, rtol=2e-2, atol=0.01 * scale)


def test_scattered_sums_add_up_in_order(gpu):
    table, x = gx.parameter("table", f32(300, 70)), gx.placeholder("x", ("n", "m"), "int64")
    rows = gx.take(table, x, axis=0)
    (gradient,) = gx.grad(gx.sum(rows * rows * gx.cast(x, "float32")[:, :, None]), [table])
    programs = [gx.compile({"g": gradient}, [x], backend=backend) for backend in (gpu, "numba")]
    assert "listed" in programs[0].source()
    for n, m, words in ((0, 4, 1), (1, 1, 300), (7, 90, 300), (33, 40, 300), (35, 40, 2)):
        data = rng.integers(0, words, (n, m))
        a, b = (program(x=data)["g"] for program in programs)
        np.testing.assert_allclose(a, b, rtol=2e-5)
    with pytest.raises(gx.IndexRangeError, match="index 300"):
        programs[0](x=np.array([[3, 300]]))


def test_pieces_of_columns_grow_where_enough_blocks_are_busy(gpu, monkeypatch):
    monkeypatch.setattr("graphc.loops.split.ENOUGH", 5)
    x = gx.placeholder("x", ("n", 70))
    program = gx.compile({"sum": gx.sum(x, axis=0), "max": gx.max(x, axis=0)}, [x], backend=gpu)
    for n in (1700, 2561, 4097):  # three pieces are not worth it; pieces of 641 and of 1025 rows
        data = f32(n, 70)
        found = program(x=data)
        np.testing.assert_allclose(found["sum"], data.sum(0, dtype=np.float64), rtol=1e-4, atol=1e-3)
        np.testing.assert_array_equal(found["max"], data.max(0))


def test_small_products(gpu):
    """Those with a narrow side, in all forms; large ones go to the library."""
    b, c = gx.placeholder("b", (40, 10)), gx.placeholder("c", (16, 70))
    a, d = gx.placeholder("a", ("m", 40)), gx.placeholder("d", ("m", 16))
    t = gx.transpose
    outputs = {"n": a @ b, "k": d @ c, "a turned": t(d) @ a, "both": t(b) @ t(a), "b turned": a @ t(t(b))}
    program = gx.compile(outputs, inputs=[a, b, c, d], backend=gpu)
    for m in (1, 9, 300):
        feeds = {"a": f32(m, 40), "b": f32(40, 10), "c": f32(16, 70), "d": f32(m, 16)}
        found = program(**feeds)
        p, q, r, s = feeds.values()
        wanted = {"n": p @ q, "k": s @ r, "a turned": s.T @ p, "both": q.T @ p.T, "b turned": p @ q}
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


def test_one_launch_updates_many_parameters(gpu):
    """More sets of arguments than one launch takes."""
    parameters = [gx.parameter(f"p{i}", f32(3 + i % 7)) for i in range(150)]
    before = [p.value for p in parameters]
    step = gx.compile({}, inputs=[], updates={p: p * 0.5 + 1 for p in parameters}, backend=gpu)
    step()
    for parameter, value in zip(parameters, before, strict=True):
        np.testing.assert_allclose(parameter.value, value * 0.5 + 1, rtol=1e-6)
    tables = [kernel for kernel, entry in step.executable.unit.entries if entry.table]
    assert len(tables) == 1
    assert sum(map(len, step.executable.unit.work)) < 6


def test_rows_of_all_lengths(gpu):
    """Normalization and softmax of rows in registers, in shared memory and beyond it."""
    for width in (1, 7, 31, 64, 100, 1024, 4100, 8192, 12000):
        x = gx.placeholder("x", ("n", width))
        centred = x - gx.mean(x, axis=1, keepdims=True)
        norm = centred * gx.rsqrt(gx.mean(centred * centred, axis=1, keepdims=True) + 1e-5)
        program = gx.compile({"norm": norm, "soft": gx.softmax(gx.tanh(x) * 3, axis=1)}, inputs=[x], backend=gpu)
        data = f32(3, width).astype(np.float64)
        found = program(x=data.astype(np.float32))
        middle = data - data.mean(1, keepdims=True)
        powers = np.exp(np.tanh(data) * 3)
        np.testing.assert_allclose(
            found["norm"], middle / np.sqrt((middle**2).mean(1, keepdims=True) + 1e-5), atol=2e-5
        )
        np.testing.assert_allclose(found["soft"], powers / powers.sum(1, keepdims=True), rtol=3e-5)


def test_long_reductions_are_cut_into_pieces(gpu):
    """Down columns and over everything, with what else their kernels do; short ones are not cut."""
    x, v = gx.placeholder("x", ("n", 40)), gx.placeholder("v", ("m",))
    outputs = {
        "sum": gx.sum(gx.relu(x), axis=0), "kept": gx.relu(x), "most": gx.max(x, axis=0), "mean": gx.mean(v * v),
    }  # fmt: skip
    program = gx.compile(outputs, [x, v], backend=gpu)
    assert program.source().count("_pieces_kernel") == 2  # the largest are found beside the sums
    for n, m in ((3, 5), (2500, 5000), (2048, 16385), (1537, 12289)):
        data, other = f32(n, 40), f32(m)
        found = program(x=data, v=other)
        np.testing.assert_allclose(found["sum"], np.maximum(data, 0).sum(0, np.float64), rtol=1e-5)
        np.testing.assert_array_equal(found["kept"], np.maximum(data, 0))
        np.testing.assert_array_equal(found["most"], data.max(0))
        np.testing.assert_allclose(found["mean"], (other.astype(np.float64) ** 2).mean(), rtol=1e-5)


def test_columns_of_all_shapes(gpu):
    x = gx.placeholder("x", ("n", "m"))
    y = gx.placeholder("y", ("n", 24))
    outputs = {
        "sum": gx.sum(x, axis=0), "most": gx.max(x, axis=0), "mean": gx.mean(y * 2, axis=0), "kept": gx.relu(y),
        "both": gx.sum(gx.relu(y), axis=0),
    }  # fmt: skip
    program = gx.compile(outputs, inputs=[x, y], backend=gpu)
    assert program.source().count("_parts[1024]") >= 4
    for rows, columns in ((1, 1), (5, 3), (31, 64), (33, 65), (200, 130)):
        data, other = f32(rows, columns), f32(rows, 24)
        found = program(x=data, y=other)
        np.testing.assert_allclose(found["sum"], data.sum(0), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(found["most"], data.max(0))
        np.testing.assert_allclose(found["mean"], other.mean(0) * 2, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found["kept"], np.maximum(other, 0))
        np.testing.assert_allclose(found["both"], np.maximum(other, 0).sum(0), rtol=1e-4, atol=1e-4)


def test_prepared_values_follow_changes_on_both_sides(gpu):
    """Each side prepares for itself, once for each change, wherever it was made."""
    x, w = gx.placeholder("x", ("n", 8)), gx.parameter("w", f32(8, 4))
    rows = f32(2, 8)
    here, there = (gx.compile({"y": x @ (w * gx.exp(w))}, [x], backend=b) for b in ("numba", gpu))
    step_here, step_there = (gx.compile({"s": gx.sum(x)}, [x], {w: w * 0.5}, backend=b) for b in ("numba", gpu))

    def write() -> None:
        w.array[3:] = 1

    def set_value() -> None:
        w.value = f32(8, 4)

    changes = [
        lambda: step_there(x=rows), lambda: [step_there.start([rows]), step_there.start([rows])], write,
        lambda: step_here(x=rows), set_value, lambda: (step_here(x=rows), step_there(x=rows)),
    ]  # fmt: skip
    for runs, change in enumerate([lambda: None, *changes], 1):
        change()
        for program in (here, there, here, there):
            found = program(x=rows)["y"]
            np.testing.assert_allclose(found, rows @ (w.value * np.exp(w.value)), rtol=1e-4, atol=1e-5)
            assert [values.runs for values in program.prepared] == [runs]
