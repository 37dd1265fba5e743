"""Atomic file writes (into ROOT/tmp, synced, then renamed), and locks between threads and between processes.

The command line may read or change a Hub while it is served.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hf_synth.hub.locks import take

FORMAT = "hf_synth hub 2\n"  # changes with the layout on disk
_OURS = ("lock", "locks", "tmp", "repos", "lost+found")  # may exist before the format file


def make_root(root: Path) -> None:
    """Create the folder of a Hub (0700), or check that an existing folder is one.

    Raises:
        ValueError: it holds something else, or was written by another version of the Hub.
        OSError: it cannot be written.
    """
    mark = root / "format"
    if root.is_dir() and not mark.is_file() and any(f.name not in _OURS or _holds_repos(f) for f in root.iterdir()):
        raise ValueError("this is not a Hub, or one of another version; choose an empty folder")
    for folder in (root, root / "repos", root / "locks", root / "tmp"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not mark.is_file():
        write_atomic(root / "tmp", mark, FORMAT.encode())
    if mark.read_text(encoding="ascii", errors="replace") != FORMAT:
        raise ValueError("another version of the Hub wrote the folder")


def _holds_repos(folder: Path) -> bool:
    return folder.name == "repos" and any(folder.iterdir())


def lock_root(root: Path) -> Callable[[], None]:
    """Lock a Hub's folder for one server, remove unfinished files, and return what unlocks it.

    Raises:
        BlockingIOError: another server has it.
        OSError: it cannot be written.
    """
    unlock = take(root / "lock", wait=False)
    try:
        with locked(root, "users"):  # users are written through tmp, too
            clear_drafts(root / "tmp", age=0)
    except OSError:
        unlock()
        raise
    return unlock


def read_secret(root: Path) -> bytes:
    """Return the Hub's secret (ROOT/secret), made once: uploads can go on after a restart."""
    file = root / "secret"
    if not file.is_file():
        write_atomic(root / "tmp", file, secrets.token_hex(32).encode())
    return bytes.fromhex(file.read_text(encoding="ascii"))


def clear_drafts(tmp: Path, age: float, *, dry_run: bool = False) -> tuple[int, int]:
    """Remove interrupted uploads and deletions to which nothing was written for `age` seconds.

    Returns:
        Their number and their bytes.
    """
    count = size = 0
    for left in tmp.iterdir():
        with contextlib.suppress(FileNotFoundError):  # finished meanwhile
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
    """Hold the locks of some names against other threads and processes.

    They are taken in sorted order, so that there is no deadlock.
    """
    with contextlib.ExitStack() as held:
        for name in sorted(set(names)):
            held.callback(take(root / "locks" / name))
        yield


def write_atomic(tmp: Path, path: Path, data: bytes) -> None:
    """Write a file (0600) atomically; its folder must exist.

    Raises:
        FileNotFoundError: its folder does not exist.
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
    """Sync the names in a folder to disk, as far as the system can."""
    if os.name == "nt":  # Windows opens no folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder inside an existing one, and sync it to disk."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    sync_folder(folder.parent)  # also if another process has just made it
