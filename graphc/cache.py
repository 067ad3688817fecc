"""A store of compiled code and plans on disk, addressed by content.

An entry is found by a key that says everything its bytes depend on; :func:`digest` makes one. Each entry carries a
checksum, so that a damaged, cut off or foreign file counts as absent. Writing is atomic: processes may share the
folder. The folder is ``GRAPHC_CACHE_DIR``, else ``XDG_CACHE_HOME/graphc``, else ``~/.cache/graphc``; it must belong
to the user alone, since what lies there is executed, and otherwise a temporary folder takes its place.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

MAGIC = b"graphc-cache-1\n"
CHECKSUM_BYTES = 32


def digest(*parts: str | bytes) -> str:
    """A key: the SHA-256 of the parts and their lengths.

    >>> digest("a", "bc") == digest("ab", "c")
    False
    """
    state = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def get(key: str, kind: str) -> bytes | None:
    """The bytes stored under a key, or None: absent, unreadable or damaged."""
    path = _path(key, kind)
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError:
        return None
    head = len(MAGIC) + CHECKSUM_BYTES
    payload = data[head:]
    if not data.startswith(MAGIC) or data[len(MAGIC) : head] != _checksum(key, kind, payload):
        return None
    return payload


def put(key: str, kind: str, data: bytes) -> None:
    """Store bytes under a key. Where the folder cannot be written nothing happens."""
    path = _path(key, kind)
    if path is not None:
        _write(path, MAGIC + _checksum(key, kind, data) + data)


def put_source(key: str, text: str) -> str:
    """Store generated source as a plain file; its path, or a name in angle brackets where nothing can be written."""
    root = folder()
    if root is None:
        return f"<graphc {key[:16]}>"
    path = root / "source" / f"{key}.py"
    data = text.encode()
    return str(path) if _holds(path, data) or _write(path, data) else f"<graphc {key[:16]}>"


def copy_of(source: Path) -> Path | None:
    """A copy of a file that is never changed, named by its content; None where nothing can be written.

    That a copy is whole is checked by its content once; later by the size and the times of both files.

    Raises:
        OSError: the source cannot be read.
    """
    root = folder()
    if root is None:
        return None
    key = digest(str(source.resolve()), *_stamp(source))
    known = (get(key, "copy") or b"").decode().split("\n")
    path = root / "files" / known[0]
    if known[0] and known[1:] == _stamp(path):
        return path
    data = source.read_bytes()
    path = root / "files" / f"{hashlib.sha256(data).hexdigest()}{source.suffix}"
    if not _holds(path, data) and not _write(path, data):
        return None
    put(key, "copy", "\n".join([path.name, *_stamp(path)]).encode())
    return path


def folder() -> Path | None:
    """The folder in use, created if need be; None if there is no place to write at all."""
    return _usable(wanted())


def wanted() -> Path | None:
    """The folder that the environment names, whether it can be used or not."""
    chosen = os.environ.get("GRAPHC_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "graphc"
    try:
        return Path.home() / ".cache" / "graphc"
    except RuntimeError:  # no home
        return None


def size() -> int:
    """The bytes of all entries."""
    return sum(path.stat().st_size for path in _files())


def clear() -> None:
    """Remove all entries."""
    for path in _files():
        path.unlink(missing_ok=True)


def trim(kind: str, most_bytes: int) -> None:
    """Remove the oldest entries of a kind until those that are left take no more bytes than this."""
    root = folder()
    found: list[tuple[int, int, Path]] = []
    for path in () if root is None else (root / kind).rglob("*"):
        with suppress(OSError):  # removed by another process
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                found.append((status.st_mtime_ns, status.st_size, path))
    excess = sum(size for _, size, _ in found) - most_bytes
    for _, size, path in sorted(found):
        if excess <= 0:
            break
        with suppress(OSError):
            path.unlink()
        excess -= size


def _stamp(path: Path) -> list[str]:
    """The size of a file and when it was last written; nothing if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [str(status.st_size), str(status.st_mtime_ns)]


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:  # not there yet
        return False


def _checksum(key: str, kind: str, payload: bytes) -> bytes:
    """Bound to the key, so that an entry under another's name is foreign."""
    return bytes.fromhex(digest(key, kind, payload))


def _path(key: str, kind: str) -> Path | None:
    root = folder()
    return None if root is None else root / kind / key[:2] / key


def _files() -> Iterator[Path]:
    root = folder()
    if root is not None:
        yield from (path for path in root.rglob("*") if path.is_file())


def _write(path: Path, data: bytes) -> bool:
    temporary = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:  # a full disk, a read-only folder: the cache is an optimization
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        return False
    return True


@cache
def _usable(wanted: Path | None) -> Path | None:
    if wanted is not None:
        try:
            wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_private(wanted):
                return wanted
        except OSError:  # no permission, or a file of that name
            pass
    try:
        temporary = Path(tempfile.mkdtemp(prefix="graphc-"))
    except OSError:
        return None
    atexit.register(_remove, temporary, os.getpid())
    return temporary


def _is_private(path: Path) -> bool:
    """A folder, not a link to one, of this user, that nobody else may read or write."""
    if not hasattr(os, "getuid"):
        return True
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077


def _remove(path: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child leaves it to its parent
        shutil.rmtree(path, ignore_errors=True)
