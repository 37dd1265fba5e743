"""Writing that a kill cannot tear: into ROOT/tmp, synced, then renamed to where it is seen."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

FORMAT = "hf_synth hub 1\n"  # changes with what lies on disk


def take_folder(root: Path) -> int:
    """Make a folder ours alone (0700 when new), clear what a kill left, and give the lock to hold.

    Raises:
        BlockingIOError: another server has this folder.
        ValueError: another version of the Hub wrote it.
        OSError: it cannot be written.
    """
    for folder in (root, root / "repos", root / "tmp"):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for left in (root / "tmp").iterdir():  # uploads and deletions that a kill cut short
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        mark = root / "format"
        if not mark.is_file() and not any((root / "repos").iterdir()):
            write_whole(root / "tmp", mark, FORMAT.encode())
        if not mark.is_file() or mark.read_text(encoding="ascii", errors="replace") != FORMAT:
            raise ValueError("another version of the Hub wrote what is there")
    except (OSError, ValueError):
        os.close(lock)
        raise
    return lock


def leave_folder(lock: int) -> None:
    """Give a folder up; said aloud, since a forked child may still hold the same lock."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


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
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    sync_folder(folder.parent)
