"""Writing that a kill cannot tear (into ROOT/tmp, synced, then renamed to where it is seen), and locks that hold
between threads and between processes: the command line may look into a Hub, or change it, while it is served.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

FORMAT = "hf_synth hub 2\n"  # changes with what lies on disk
_OURS = ("lock", "locks", "tmp", "repos", "lost+found")  # what may lie there before the format does


def make_root(root: Path) -> None:
    """Make the folder of a Hub ours alone (0700 when new), or see that what is there is one.

    Raises:
        ValueError: it holds something else, or another version of the Hub wrote it.
        OSError: it cannot be written.
    """
    mark = root / "format"
    if root.is_dir() and not mark.is_file() and any(f.name not in _OURS or _holds_repos(f) for f in root.iterdir()):
        raise ValueError("what is there is not a Hub, or one of another version; choose an empty folder")
    for folder in (root, root / "repos", root / "locks", root / "tmp"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not mark.is_file():
        write_whole(root / "tmp", mark, FORMAT.encode())
    if mark.read_text(encoding="ascii", errors="replace") != FORMAT:
        raise ValueError("another version of the Hub wrote what is there")


def _holds_repos(folder: Path) -> bool:
    return folder.name == "repos" and any(folder.iterdir())


def take_root(root: Path) -> int:
    """Clear what a kill left in a Hub's folder and give the lock to hold: one server has the folder.

    Raises:
        BlockingIOError: another server has it.
        OSError: it cannot be written.
    """
    lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with locked(root, "users"):  # whose changes pass through the same folder
            clear_drafts(root / "tmp", age=0)
    except OSError:
        os.close(lock)
        raise
    return lock


def kept_secret(root: Path) -> bytes:
    """Give the Hub's own secret (ROOT/secret); it stays the same, so that an upload can go on after a restart."""
    file = root / "secret"
    if not file.is_file():
        write_whole(root / "tmp", file, secrets.token_hex(32).encode())
    return bytes.fromhex(file.read_text(encoding="ascii"))


def leave_root(lock: int) -> None:
    """Give a folder up; said aloud, since a forked child may still hold the same lock."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def clear_drafts(tmp: Path, age: float, *, dry_run: bool = False) -> tuple[int, int]:
    """Remove uploads and deletions that were cut short, when nothing was written to them for `age` seconds.

    Returns:
        How many, and their bytes.
    """
    count = size = 0
    for left in tmp.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was finished meanwhile
            if time.time() - left.lstat().st_mtime < age:
                continue
            folder = left.is_dir() and not left.is_symlink()
            size += sum(f.lstat().st_size for f in (left.rglob("*") if folder else (left,)) if not f.is_dir())
            count += 1
            if not dry_run:
                shutil.rmtree(left) if folder else left.unlink()
    return count, size


@contextlib.contextmanager
def locked(root: Path, *names: str) -> Iterator[None]:
    """Hold the locks of some names, against other threads and other processes.

    Each is taken in one order, so that two who want the same two do not wait for each other.
    """
    with contextlib.ExitStack() as held:
        for name in sorted(set(names)):
            handle = os.open(root / "locks" / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
            held.callback(fcntl.flock, handle, fcntl.LOCK_UN)  # before closing: a forked child may hold it, too
        yield


def write_whole(tmp: Path, path: Path, data: bytes) -> None:
    """Write a file of mode 0600 that is seen as a whole or not at all; its folder must exist.

    Raises:
        FileNotFoundError: its folder is gone.
    """
    handle, name = tempfile.mkstemp(dir=tmp)
    draft = Path(name)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder inside one that exists, and let it last."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    sync_folder(folder.parent)  # also when another made it a moment ago: it must last before what goes into it
