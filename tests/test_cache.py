from __future__ import annotations

import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from graphc import cache
from graphc.backends.numba import build
from tests.loops.builders import F32
from tests.numba.native import elementwise, run_native

KEY, OTHER = cache.digest("one"), cache.digest("two")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


def entries(store: Path) -> list[Path]:
    return [path for path in store.rglob("*") if path.is_file()]


def test_what_was_put_is_found(store):
    assert cache.get(KEY, "object") is None
    cache.put(KEY, "object", b"machine code")
    assert cache.get(KEY, "object") == b"machine code"
    assert cache.get(KEY, "other kind") is None
    assert cache.get(OTHER, "object") is None
    cache.put(KEY, "object", b"")
    assert cache.get(KEY, "object") == b""
    assert cache.folder() == store


def test_size_and_clear(store):
    assert cache.size() == 0
    cache.put(KEY, "object", b"x" * 1000)
    assert 1000 < cache.size() < 1200
    cache.clear()
    assert cache.size() == 0
    assert cache.get(KEY, "object") is None


def test_a_copy_is_made_once_and_again_when_the_file_changes(store, tmp_path):
    source = tmp_path / "library.so"
    source.write_bytes(b"one")
    copy = cache.copy_of(source)
    assert copy.parent == store / "files"
    assert (copy.suffix, copy.read_bytes()) == (".so", b"one")
    made = copy.stat().st_ino
    assert cache.copy_of(source) == copy
    assert copy.stat().st_ino == made
    source.write_bytes(b"another")
    other = cache.copy_of(source)
    assert (other.read_bytes(), copy.read_bytes()) == (b"another", b"one")
    with pytest.raises(OSError, match="absent"):
        cache.copy_of(tmp_path / "absent.so")


def test_a_damaged_copy_is_made_anew(store, tmp_path):
    source = tmp_path / "library.so"
    source.write_bytes(b"machine code")
    copy = cache.copy_of(source)
    for damage in (b"machine", b"MACHINE code"):
        copy.write_bytes(damage)
        os.utime(copy, ns=(1, 1))  # also on a file system with coarse times
        assert cache.copy_of(source).read_bytes() == b"machine code"
    copy.unlink()
    assert cache.copy_of(source).read_bytes() == b"machine code"
    cache.put(cache.digest(str(source), *cache._stamp(source)), "copy", b"../../elsewhere\n1\n1")
    assert cache.copy_of(source) == copy


def test_where_nothing_can_be_written_there_is_no_copy(store, tmp_path, monkeypatch):
    source = tmp_path / "library.so"
    source.write_bytes(b"machine code")
    monkeypatch.setattr(cache, "folder", lambda: None)
    assert cache.copy_of(source) is None


def test_parts_of_a_key_do_not_run_together():
    assert len({cache.digest("ab", "c"), cache.digest("a", "bc"), cache.digest("abc"), cache.digest(b"abc", "")}) == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: data + b"x",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"\x7fELF" + data[4:],
        lambda data: b"nothing of ours",
    ],
    ids=["empty", "cut", "header", "longer", "flipped", "magic", "foreign"],
)
def test_damaged_entries_are_absent_and_replaced(store, damage):
    cache.put(KEY, "object", b"machine code")
    (path,) = entries(store)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(KEY, "object") is None
    cache.put(KEY, "object", b"machine code")
    assert cache.get(KEY, "object") == b"machine code"


def test_an_entry_under_anothers_name_is_foreign(store):
    cache.put(KEY, "object", b"mine")
    cache.put(OTHER, "object", b"another")
    mine, another = (next(path for path in entries(store) if path.name == key) for key in (KEY, OTHER))
    mine.write_bytes(another.read_bytes())
    assert cache.get(KEY, "object") is None
    assert cache.get(OTHER, "object") == b"another"


def test_the_folder_is_the_users_alone(store):
    cache.put(KEY, "object", b"x")
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in entries(store))


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="no owners on this platform")
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o755])
def test_a_folder_open_to_others_is_not_used(store, mode):
    store.mkdir()
    store.chmod(mode)
    cache.put(KEY, "object", b"x")
    assert cache.get(KEY, "object") == b"x"
    folder = cache.folder()
    assert folder is not None
    assert folder != store
    assert not entries(store)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_not_used(store):
    store.mkdir(mode=0o700)
    os.chown(store, 12345, 12345)
    cache.put(KEY, "object", b"x")
    assert cache.folder() != store
    assert not entries(store)


def test_a_link_to_a_folder_is_not_used(store, tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    store.symlink_to(tmp_path / "real")
    assert cache.folder() != store


def test_a_file_in_the_folders_place(store):
    store.write_text("not a folder")
    cache.put(KEY, "object", b"x")
    assert cache.get(KEY, "object") == b"x"


def test_nothing_can_be_written(store, monkeypatch):
    assert cache.folder() == store

    def refuse(*args, **keys):
        raise PermissionError("read-only file system")

    monkeypatch.setattr(cache.tempfile, "mkstemp", refuse)
    cache.put(KEY, "object", b"x")
    assert cache.get(KEY, "object") is None
    assert cache.put_source(KEY, "x = 1\n").startswith("<graphc")
    assert compiled(2.0) == 8.0


def test_no_place_at_all(store, monkeypatch):
    store.write_text("not a folder")

    def refuse(*args, **keys):
        raise PermissionError("no temporary folder")

    monkeypatch.setattr(cache.tempfile, "mkdtemp", refuse)
    assert cache.folder() is None
    cache.put(KEY, "object", b"x")
    assert cache.get(KEY, "object") is None
    assert cache.size() == 0
    cache.clear()
    assert cache.put_source(KEY, "x = 1\n").startswith("<graphc")


def test_where_the_folder_is(monkeypatch, tmp_path):
    monkeypatch.delenv("GRAPHC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "graphc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folder() == tmp_path / "home" / ".cache" / "graphc"


def test_sources_are_plain_files(store):
    path = cache.put_source("abc", "x = 1\n")
    assert Path(path).read_text() == "x = 1\n"
    Path(path).write_text("changed by someone")
    assert cache.put_source("abc", "x = 1\n") == path
    assert Path(path).read_text() == "x = 1\n"


def compiled(factor: float) -> float:
    """Compile ``factor * 4`` anew, or load it from the cache."""
    kernel = elementwise("mul", F32, 2)
    build._addresses.clear()
    x, y = np.full(1, 4, np.float32), np.zeros(1, np.float32)
    run_native(kernel, [x, np.full(1, factor, np.float32), y], (1,))
    return float(y[0])


def test_damaged_object_code_is_compiled_again(store):
    assert compiled(2.0) == 8.0
    (path,) = (path for path in entries(store) if path.parent.parent.name == build.OBJECT)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1] + b"\0", b"garbage"):
        path.write_bytes(damaged)
        assert compiled(3.0) == 12.0
        assert path.read_bytes() == whole


@pytest.mark.parametrize("what", ["cpu_name", "cpu_features", "version"])
def test_code_for_another_machine_or_compiler_is_not_used(store, monkeypatch, what):
    assert compiled(2.0) == 8.0
    monkeypatch.setattr(build, what, lambda *args: "another")
    build.target.cache_clear()
    try:
        assert compiled(2.0) == 8.0
        assert len([path for path in entries(store) if path.parent.parent.name == build.OBJECT]) == 2
    finally:
        build.target.cache_clear()


def _hammer(seed: int) -> None:
    for turn in range(200):
        key = cache.digest(str(turn % 5))
        data = cache.get(key, "object")
        assert data is None or data == key.encode() * 1000
        cache.put(key, "object", key.encode() * 1000)


def test_processes_may_share_the_folder(store):
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_hammer, range(3))
    assert len(entries(store)) == 5  # no temporary files are left


def test_the_doctor_reports_the_folder(store, pytestconfig):
    cache.put(KEY, "object", b"x" * 5000)
    result = subprocess.run(
        [sys.executable, "-m", "graphc", "doctor"],
        cwd=pytestconfig.rootpath, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert str(store) in result.stdout
    assert "5.0 kB" in result.stdout
