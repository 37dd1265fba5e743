"""Sources: a folder, a .zip or a .tar.gz as its owner hands it over, read by name and never extracted.

A member of an archive is a stream, not a file on disk: nothing is written, so that no member can write anywhere, and
notes stay where they were put. Links, absolute names and names with ".." are passed over; what unpacks to far more than
a text can is refused.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

from hf_synth.errors import GoldError, MissingGoldError, RowError, TaskError
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

WHOLE = "rows"  # the split of a source that has none ("all" is a reserved word of datasets)
ROWS = "rows"  # the part of a split that is read from one kind of file
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")

_MOST_FILES = 200_000  # in one source
_LONGEST_HEADER = 1 << 20  # bytes of what extends a header of a tar
_DEEPEST = 8  # folders below the one that was given
_LONGEST = 20 << 30  # bytes of one member
_RATIO, _SMALL = 200, 100 << 20  # text packs 3 to 30 times: beyond this ratio, and not small, it is no text
_IN_MEMORY = 128 << 20  # a packed tar up to this size is unpacked once, into memory

Files = Mapping[str, Mapping[str, tuple["SourceFile", ...]]]  # split -> part -> its files


@dataclass(frozen=True)
class SourceFile:
    """One file of a source: on disk, or a member of an archive.

    Args:
        path: the file, or the archive it is in.
        member: its name in the archive; None for a file on disk.
        inside: its place below the source, with "/", which patterns are matched against.
    """

    path: Path
    member: str | None = None
    inside: str = ""

    @property
    def name(self) -> str:
        """What messages call it: the file's own name, in an archive with the archive's."""
        return self.path.name if self.member is None else f"{self.path.name}/{PurePosixPath(self.member).name}"

    @property
    def stem(self) -> str:
        """Its name without folder and suffix."""
        return PurePosixPath(self.member or self.path.as_posix()).stem

    @property
    def suffix(self) -> str:
        """The end of its name from the last dot on, in lower case."""
        return PurePosixPath(self.member or self.path.as_posix()).suffix.lower()

    def open(self) -> IO[bytes]:
        """Open it as a stream of bytes.

        Raises:
            RowError: it is not there, may not be read, or its archive is broken; also while it is read.
        """
        try:
            stream = self.path.open("rb") if self.member is None else _open_member(self.path, self.member)
        except _BROKEN as error:
            raise RowError(self.name, None, _why(error)) from None
        return io.BufferedReader(_Guarded(self.name, stream), 1 << 18)


def as_source(file: SourceFile | Path) -> SourceFile:
    """Take a plain path for a file on disk."""
    return SourceFile(file, None, file.name) if isinstance(file, Path) else file


_BROKEN = (
    OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, NotImplementedError,
    RuntimeError, ValueError, OverflowError,
)  # fmt: skip


def _why(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "is not there any more; was it moved while it was read?"
    if isinstance(error, PermissionError):
        return "may not be read by you; ask for the rights, or copy it to a folder of yours"
    if isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError):
        return "is protected by a password; unpack it first"
    if isinstance(error, NotImplementedError):
        return "is packed in a way that is not understood; pack it again as a plain .zip or .tar.gz"
    return "is cut off or broken; download it again"


class _Guarded(io.RawIOBase):
    """A stream whose failures name the file, and nothing of what it holds."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self._name, self._stream = name, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with memoryview(buffer) as view:
            try:
                data = self._stream.read(len(view))
            except _BROKEN as error:
                raise RowError(self._name, None, _why(error)) from None
            view[: len(data)] = data
            return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


# --- listing --------------------------------------------------------------------------------------------------------


def is_archive(path: Path) -> bool:
    """Tell by its name whether a file is an archive that can be read."""
    return path.name.lower().endswith(ARCHIVES)


def list_source(path: Path) -> list[SourceFile]:
    """List the files of a folder (without hidden ones), of an archive, or the one file.

    Raises:
        MissingGoldError: there is nothing at that path.
        RowError: the archive is broken or suspicious.
        GoldError: the folder holds far too many files to be a source.
    """
    if path.is_file():
        return _members(path) if is_archive(path) else [as_source(path)]
    if not path.is_dir():
        raise MissingGoldError(f"{path} is no folder or file")
    found: list[SourceFile] = []
    seen: set[str] = set()
    for here, folders, names in os.walk(path, followlinks=True):  # data of a cluster is often linked into a folder
        below = Path(here).relative_to(path)
        again = os.path.realpath(here) in seen or len(below.parts) >= _DEEPEST
        seen.add(os.path.realpath(here))
        folders[:] = [] if again else sorted(f for f in folders if not f.startswith("."))
        if again:
            continue
        plain = [
            n for n in sorted(names) if n[0] != "." and os.path.isfile(os.path.join(here, n))
        ]  # no pipe, no device
        found += [SourceFile(Path(here, n), None, (below / n).as_posix()) for n in plain]
        if len(found) > _MOST_FILES:
            raise GoldError(f"{path} holds more than {_MOST_FILES:,} files; give the folder of the task's files alone")
    return found


def _members(path: Path) -> list[SourceFile]:
    try:
        names = _archive(path, _stamp(path)).names()
    except _BROKEN as error:
        raise RowError(path.name, None, _why(error)) from None
    plain = [n for n in names if _is_plain(n)]
    if len(plain) > _MOST_FILES:
        raise RowError(path.name, None, f"holds more than {_MOST_FILES:,} files; it is not read")
    return [SourceFile(path, n, n) for n in sorted(plain)]


def _is_plain(name: str) -> bool:
    """Tell whether a member's name stays inside: no drive, no root, no "..", nothing hidden (also not macOS's own)."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    odd = name.startswith(("/", "\\")) or name.endswith("/") or re.match(r"[A-Za-z]:", name) or "\x00" in name
    return bool(parts) and not odd and not any(p == ".." or p == "__MACOSX" or p.startswith(".") for p in parts)


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size


# --- archives -------------------------------------------------------------------------------------------------------


class _Zip:
    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._zip = zipfile.ZipFile(path)
        self._infos = {
            i.filename: i
            for i in self._zip.infolist()
            if not i.is_dir() and not stat.S_ISLNK(i.external_attr >> 16)  # a link in a zip is a file that says where
        }

    def names(self) -> list[str]:
        return list(self._infos)

    def open(self, member: str) -> IO[bytes]:
        info = self._infos[member]
        _check_size(self._name, info.file_size, info.compress_size)
        return self._zip.open(info)  # reads no more than the size it tells


class _Header(tarfile.TarInfo):
    """A header of a tar; `tarfile` reads what extends it (long names, PAX) as a whole, so that is bounded here."""

    def _proc_member(self, tarfile_: tarfile.TarFile) -> Any:
        extends = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
                   tarfile.GNUTYPE_LONGLINK)  # fmt: skip
        if self.type in extends and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError("header too long")
        return super()._proc_member(tarfile_)  # type: ignore[misc]


class _Tar:
    """Where each member lies in a tar, and the tar itself in memory while it is small.

    A packed tar cannot be entered in the middle: reading a thousand small members one by one would unpack it a thousand
    times. A large one is unpacked anew up to each member that is opened, of which a source has few.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._packed = path, path.name.lower().endswith("gz")
        self._data: bytes | None = None
        with self._stream() as stream:
            data = stream.read(_IN_MEMORY + 1) if self._packed else b""
        self._data = data if self._packed and len(data) <= _IN_MEMORY else None
        packed_size = path.stat().st_size
        self._at: dict[str, tuple[int, int]] = {}
        with (
            self._stream() as stream,
            tarfile.open(fileobj=stream, mode="r|" if self._data is None else "r:", tarinfo=_Header) as tar,
        ):
            for info in tar:
                _check_size(path.name, info.offset_data + info.size, packed_size)
                if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):  # no links, devices or sparse files
                    self._at[info.name] = info.offset_data, info.size
                if len(self._at) > _MOST_FILES:
                    raise RowError(path.name, None, f"holds more than {_MOST_FILES:,} files; it is not read")

    def _stream(self) -> IO[bytes]:
        if self._data is not None:
            return io.BytesIO(self._data)
        return cast("IO[bytes]", gzip.open(self._path, "rb")) if self._packed else self._path.open("rb")

    def names(self) -> list[str]:
        return list(self._at)

    def open(self, member: str) -> IO[bytes]:
        at, size = self._at[member]
        stream = self._stream()
        stream.seek(at)
        return io.BufferedReader(_Part(stream, size))


class _Part(io.RawIOBase):
    """The next `size` bytes of a stream; an end before that is an error."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left = stream, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with memoryview(buffer) as view:
            data = self._stream.read(min(len(view), self._left))
            if self._left and not data and len(view):
                raise EOFError
            self._left -= len(data)
            view[: len(data)] = data
            return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _check_size(name: str, size: int, packed: int) -> None:
    if size > _LONGEST or (size > _SMALL and size > _RATIO * max(packed, 1)):
        raise RowError(name, None, f"unpacks to {size >> 20:,} MB, {size // max(packed, 1)} times its size: not read")


@functools.lru_cache(maxsize=2)
def _archive(path: Path, stamp: tuple[int, int]) -> _Zip | _Tar:
    return _Zip(path) if path.name.lower().endswith(".zip") else _Tar(path)


def _open_member(path: Path, member: str) -> IO[bytes]:
    try:
        return _archive(path, _stamp(path)).open(member)
    except KeyError:
        raise FileNotFoundError from None


# --- finding the files of a task ------------------------------------------------------------------------------------


def find_files(task: Task, path: Path) -> Files:
    """Find the files of each split of a task in a folder or archive.

    Archives that lie in the folder itself are looked into when the folder lacks something. A single file that is no
    archive is one split, "rows", yet to be split.

    Returns:
        By split and part; optional splits that are not there are left out.

    Raises:
        MissingGoldError: required files are missing; all of them are named, with the folder and the source's page.
        GoldError: two files could be the one that is looked for.
        TaskError: the task names no files.
    """
    if not task.files:
        raise TaskError(f"task {task.full_name!r} names no files that could be found in a folder")
    if path.is_file() and not is_archive(path):
        if any("/" in key for key in task.files):
            raise MissingGoldError(
                f"task {task.full_name!r} is read from several files, {path.name} is one; give their folder"
            )
        return {WHOLE: {ROWS: (as_source(path),)}}
    listed = list_source(path)
    found, missing = _match(task, path, listed)
    if missing and path.is_dir():
        packed = [f for f in listed if f.member is None and "/" not in f.inside and is_archive(f.path)]
        inside = [SourceFile(m.path, m.member, f"{f.inside}/{m.inside}") for f in packed for m in _members(f.path)]
        if inside:
            found, missing = _match(task, path, listed + inside)
    if missing:
        where = f"; get them at {task.source_url}" if task.source_url else ""
        nested = sum(is_archive(Path(f.inside)) for f in listed if f.member is not None)
        hint = f" (it holds {nested} archives of its own: unpack them, or give one of them)" if nested else ""
        raise MissingGoldError(f"{path} lacks the files of task {task.full_name!r}: {', '.join(missing)}{where}{hint}")
    return found


def _match(task: Task, path: Path, listed: list[SourceFile]) -> tuple[Files, list[str]]:
    """Match the files of a task; give what was found, and what of it is missing."""
    by_name: dict[str, list[SourceFile]] = {}
    for file in listed:
        by_name.setdefault(PurePosixPath(file.inside).name.lower(), []).append(file)
    found: dict[str, dict[str, tuple[SourceFile, ...]]] = {}
    absent: dict[str, list[str]] = {}
    for key, names in task.files.items():
        split, _, part = key.partition("/")
        files = _nearest(path, key, names, by_name, listed)
        if files:
            found.setdefault(split, {})[part or ROWS] = files
        elif key not in task.optional_files:
            absent.setdefault(split, []).append(f"{key} ({' or '.join(names)})")
    _leave_copies(task, found, listed)
    for split in task.optional_files:
        if split in absent and not any(key not in task.optional_files for key in _keys_there(task, split, found)):
            del absent[split]
            found.pop(split, None)  # parts of it that may be missing anyway
    return found, [name for names in absent.values() for name in names]


def _keys_there(task: Task, split: str, found: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Give the keys of a split whose files are there."""
    parts = found.get(split, {})
    return [k for k in task.files if k.partition("/")[0] == split and (k.partition("/")[2] or ROWS) in parts]


def _nearest(
    path: Path, key: str, names: Sequence[str], by_name: Mapping[str, list[SourceFile]], listed: list[SourceFile]
) -> tuple[SourceFile, ...]:
    """Find the files of a key by the alternative that lies nearest to the top; by all of those with "**/" together.

    Raises:
        GoldError: two alternatives are equally near.
    """
    fits = {name: files for name in names if (files := _find(path, name, by_name, listed))}
    if not fits:
        return ()
    if names[0].startswith("**/"):
        return tuple(dict.fromkeys(file for files in fits.values() for file in files))
    depth = {name: len(PurePosixPath(files[0].inside).parts) - name.count("/") for name, files in fits.items()}
    first = min(fits, key=depth.__getitem__)
    if any(fits[name] != fits[first] for name in fits if depth[name] == depth[first]):
        shown = " and ".join(files[0].inside for name, files in fits.items() if depth[name] == depth[first])
        raise GoldError(f"{path} holds several files for {key} ({shown}); leave the right one there")
    return fits[first]


def _leave_copies(task: Task, found: dict[str, dict[str, tuple[SourceFile, ...]]], listed: list[SourceFile]) -> None:
    """Leave out optional files of a folder that holds another copy of what was taken from elsewhere."""
    by_folder: dict[PurePosixPath, set[str]] = {}
    for file in listed:
        inside = PurePosixPath(file.inside)
        by_folder.setdefault(inside.parent, set()).add(inside.name.lower())
    places = {(split, part): PurePosixPath(files[0].inside).parent for split, parts in found.items()
              for part, files in parts.items()}  # fmt: skip
    names = {
        _place_of(key): {name.lower() for name in alternatives if "/" not in name and "*" not in name}
        for key, alternatives in task.files.items()
    }
    optional = [_place_of(key) for key in task.files if {key, key.partition("/")[0]} & set(task.optional_files)]
    for split, part in [place for place in optional if place in places]:
        here = places[split, part]
        if any(there != here and names[other] & by_folder[here] for other, there in places.items()):
            del found[split][part]
            if not found[split]:
                del found[split]


def _place_of(key: str) -> tuple[str, str]:
    """Give split and part of a key of `Task.files`."""
    split, _, part = key.partition("/")
    return split, part or ROWS


def _find(
    path: Path, name: str, by_name: Mapping[str, list[SourceFile]], listed: list[SourceFile]
) -> tuple[SourceFile, ...]:
    """Find the file of a name, or the files of a name with stars, nearest to the top; with "**/", those of all folders.

    Raises:
        GoldError: there are several, equally near.
    """
    if name.startswith("**/"):
        return tuple(f for f in listed if _ends_with(f.inside, [name[3:].lower()]))
    wanted = name.lower().split("/")
    stars = "*" in name
    fit = [f for f in (listed if stars else by_name.get(wanted[-1], [])) if _ends_with(f.inside, wanted)]
    if not fit:
        return ()
    parents = {PurePosixPath(f.inside).parent for f in fit}
    top = min(len(p.parts) for p in parents)
    nearest = sorted(p for p in parents if len(p.parts) == top)
    if len(nearest) > 1 or (not stars and sum(PurePosixPath(f.inside).parent == nearest[0] for f in fit) > 1):
        shown = " and ".join(str(p / name.rsplit("/", 1)[-1]) for p in nearest[:2])
        raise GoldError(f"{path} holds {name} more than once ({shown}); give the folder that holds the right one")
    return tuple(f for f in fit if PurePosixPath(f.inside).parent == nearest[0])


def _ends_with(inside: str, wanted: list[str]) -> bool:
    parts = inside.lower().split("/")[-len(wanted) :]
    return len(parts) == len(wanted) and all(fnmatchcase(p, w) for p, w in zip(parts, wanted, strict=True))


def all_files(files: Files) -> Iterator[SourceFile]:
    """Give every file of every split."""
    for parts in files.values():
        for many in parts.values():
            yield from many


def digest_files(*parts: SourceFile | Path | str) -> str:
    """Digest the content of files and of strings (hex sha256): the name of a cache that must never be stale.

    An archive is digested as a whole, once.
    """
    total = hashlib.sha256()
    done: set[Path] = set()
    for part in parts:
        if isinstance(part, str):
            total.update(part.encode())
            continue
        path = part if isinstance(part, Path) else part.path
        total.update(f"{part.name if isinstance(part, Path) else part.inside}\x00".encode())
        if path not in done:
            done.add(path)
            try:
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise RowError(path.name, None, _why(error)) from None
    return total.hexdigest()
