"""IDX files: every element type, plain and compressed; what is said of files that are cut off or foreign."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

import graphc as gx

CODES = {"u1": 8, "i1": 9, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx(array, code=None):
    known = {np.dtype(kind).str: number for kind, number in CODES.items()}
    header = bytes([0, 0, known[array.dtype.str] if code is None else code, array.ndim])
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3, 4)])
@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_come_back(tmp_path, kind, shape, compressed):
    array = (np.arange(int(np.prod(shape, dtype=int))) * 3 - 7).astype(kind).reshape(shape)
    data = idx(array)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(data) if compressed else data)
    found = gx.data.load_idx(path)
    assert found.dtype == np.dtype(kind).newbyteorder("=")
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array)


WHOLE = idx(np.arange(24, dtype="u1").reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (WHOLE[:-1], r"is damaged: an array of shape \(2, 3, 4\) takes 24 bytes, 23 are there"),
        (WHOLE + b"x", "25 are there"),
        (WHOLE[:9], "ends within its header, after 9 of 16 bytes"),
        (b"", "no IDX file: it begins with nothing"),
        (b"PK\3\4 a zip", "no IDX file: it begins with 50 4b 03 04"),
        (bytes([0, 0, 7, 1, 0, 0, 0, 0]), "no IDX file: it begins with 00 00 07 01"),
        (bytes([0, 0, 14, 2]) + b"\xff" * 8, r"takes 1475739525\d+ bytes, 0 are there"),
        (bytes([0, 0, 8, 200]) + bytes(800), "no IDX file: it begins with 00 00 08 c8"),
        (gzip.compress(WHOLE, mtime=0)[:-9], "cut off or broken"),
        (gzip.compress(WHOLE, mtime=0)[:5] + b"garbage", "cut off or broken"),
    ],
)
def test_files_that_are_damaged_or_foreign(tmp_path, data, says):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(gx.FileError, match=says) as caught:
        gx.data.load_idx(path)
    assert "to do: " in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(gx.FileError, match="there is no file"):
        gx.data.load_idx(tmp_path / "none")
    with pytest.raises(gx.FileError, match="cannot be read"):
        gx.data.load_idx(tmp_path)
    with pytest.raises(
        gx.FileError, match=r"(?s)is not there: no train-images-idx3-ubyte.*apt-get install dataset-fash"
    ):
        gx.data.load_fashion_mnist(tmp_path)


def write_set(folder, labels=None, images=(28, 28), ends=".gz"):
    for part, count in (("train", 60_000), ("t10k", 10_000)):
        numbers = (np.arange(count) % 10).astype("u1") if labels is None else labels(count)
        pixels = np.zeros((count, *images), "u1")
        pixels[:, 0, 0] = np.arange(count) % 251
        pack = (lambda data: gzip.compress(data, 1)) if ends else bytes
        (folder / f"{part}-images-idx3-ubyte{ends}").write_bytes(pack(idx(pixels)))
        (folder / f"{part}-labels-idx1-ubyte{ends}").write_bytes(pack(idx(numbers)))


@pytest.mark.parametrize("ends", ["", ".gz"])
def test_the_set_in_its_folder_and_where_the_package_was_unpacked(tmp_path, ends):
    inside = tmp_path / "usr" / "share" / "datasets" / "fashion-mnist"
    inside.mkdir(parents=True)
    write_set(inside, ends=ends)
    for folder in (tmp_path, inside):
        (x, y), (x_test, y_test) = gx.data.load_fashion_mnist(folder)
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((60_000, 28, 28), np.uint8, (60_000,), np.int64)
        assert (x_test.shape, y_test[:11].tolist()) == ((10_000, 28, 28), [*range(10), 0])
        assert x[:3, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"labels": lambda count: np.full(count, 11, "u1")}, "there is a class 11"),
        (
            {"labels": lambda count: np.zeros(count - 1, "u1")},
            r"holds uint8\[59999\], Fashion-MNIST has uint8\[60000\]",
        ),
        ({"images": (8, 8)}, r"holds uint8\[60000, 8, 8\], Fashion-MNIST has uint8\[60000, 28, 28\]"),
    ],
)
def test_another_set_is_refused(tmp_path, said, says):
    write_set(tmp_path, **said, ends="")
    with pytest.raises(gx.FileError, match=says):
        gx.data.load_fashion_mnist(tmp_path)
