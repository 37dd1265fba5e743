"""The closed list of files of an export that its checks saw, by which it is pushed: names, sizes and digests.

Links are not followed, and a file that is not on the list, is missing, or holds other bytes stops the push. What is
pushed is a private copy whose digests were compared while it was written, so that the folder may change meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hf_synth.errors import PublishError
from hf_synth.task.folders import WORK

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Sealed:
    """One file of an export as the checks saw it.

    Args:
        size: in bytes.
        blob: git's id of the content, which a Hub names a small file by.
        sha256: of the content, which a Hub names a large file by.
    """

    size: int
    blob: str
    sha256: str

    def is_at(self, size: int, oid: str) -> bool:
        """Return whether a file on a Hub is this one, by its size and either id."""
        return size == self.size and oid in (self.blob, self.sha256)


Seal = Mapping[str, Sealed]


def sealed(folder: Path) -> dict[str, Sealed]:
    """Read the files of an export, in the order of their names; our own work folder in it is left out.

    Raises:
        PublishError: something in it is a link or no file.
    """
    return {name: sealed_file(folder / name) for name in exported_files(folder)}


def exported_files(folder: Path) -> list[str]:
    """Return the sorted relative paths of an export's files, without our work folder.

    Raises:
        PublishError: something in it is a link or no file.
    """
    names: list[str] = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        if here == folder and WORK in folders:
            folders.remove(WORK)
        for name in [*folders, *files]:
            mode = (here / name).lstat().st_mode
            if not (stat.S_ISREG(mode) if name in files else stat.S_ISDIR(mode)):
                raise PublishError("the export holds a link, or something else that is no file: remove it")
        names += [(here / name).relative_to(folder).as_posix() for name in files]
    return sorted(names)


def copy_sealed(folder: Path, seal: Seal, to: Path) -> None:
    """Copy the files of an export, and compare them with the list that its checks made.

    Args:
        to: a private, empty folder.

    Raises:
        PublishError: a file is a link, differs, is missing, or is not on the list.
    """
    changed = set(exported_files(folder)) ^ set(seal)
    for name in sorted(set(seal) - changed):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        with (to / name).open("wb") as out:
            if sealed_file(folder / name, out) != seal[name]:
                changed.add(name)
    if changed:
        known = sorted(changed & set(seal))  # any other name may itself hold text of a note
        more = len(changed) - len(known)
        what = ", ".join([*known[:3], *([f"{more:,} files that were not checked"] if more else [])])
        raise PublishError(f"the export changed after it was checked ({what}): publish it again; nothing was sent")


def sealed_file(file: Path, copy: IO[bytes] | None = None) -> Sealed:
    """Digest a file, and optionally copy what was read.

    Raises:
        PublishError: it is a link, or cannot be read.
    """
    with _opened(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        blob, content, n = hashlib.sha1(b"blob %d\x00" % size, usedforsecurity=False), hashlib.sha256(), 0
        while chunk := stream.read(_CHUNK):
            blob.update(chunk)
            content.update(chunk)
            n += len(chunk)
            if copy is not None:
                copy.write(chunk)
    return Sealed(n, blob.hexdigest(), content.hexdigest())


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    try:
        if not hasattr(os, "O_NOFOLLOW") and file.is_symlink():  # Windows
            raise OSError
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    except OSError:
        raise PublishError("a file of the export became a link, or cannot be read; nothing was sent") from None
    with os.fdopen(handle, "rb") as stream:
        yield stream
