"""Find and open a task's files in a folder, a .zip, a .tar or a .tar.gz, without extracting archives.

A member of an archive is read as a stream: nothing is written to disk, so that no member can write anywhere and no copy
of notes is made. Links, absolute names and names with ".." are skipped; a member that unpacks to far more than text can
is refused (zip bombs). Names are matched from the end of a path, nearest to the top, in a folder and in an archive.
Where files are missing, archives in the folder are searched too, then those in its subfolders and in other archives.
Two equally near matches are an error. A file "x.jsonl.gz" counts as "x.jsonl".
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
_LONGEST_HEADER = 1 << 20  # bytes of an extended header of a tar
_DEEPEST = 8  # levels of folders
_LONGEST = 20 << 30  # bytes of one member
_RATIO, _SMALL = 200, 100 << 20  # text packs 3 to 30 times: a larger member beyond this ratio is refused
_IN_MEMORY = 128 << 20  # a packed tar up to this size is unpacked once, into memory
_LONGEST_INNER = 512 << 20  # bytes of an archive in an archive, which is held in memory
_MOST_ARCHIVES = 200  # that are searched in one folder
_INNER = "//"  # in the name of a member: between an archive in the archive and its member
_NEAR = re.compile(r"[\w.-]{1,60}")  # a file's name that a message may show
_BROKEN = (
    OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, NotImplementedError,
    RuntimeError, ValueError, OverflowError,
)  # fmt: skip

Files = Mapping[str, Mapping[str, tuple["SourceFile", ...]]]  # split -> part -> its files


@dataclass(frozen=True)
class SourceFile:
    """One file of a source: on disk, or a member of an archive.

    Args:
        path: the file, or the archive it is in.
        member: its name in the archive; None for a file on disk. Of an archive in the archive, both names with "//"
            between them.
        inside: its path below the source, with "/" and without ".gz"; patterns are matched against it.
    """

    path: Path
    member: str | None = None
    inside: str = ""

    @property
    def name(self) -> str:
        """Its name in messages: the file's own name, in an archive with the archive's."""
        return self.path.name if self.member is None else f"{self.path.name}/{PurePosixPath(self.member).name}"

    @property
    def stem(self) -> str:
        """Its name without folder, ".gz" and suffix."""
        return self._unpacked.stem

    @property
    def suffix(self) -> str:
        """Its suffix in lower case, with the dot, without ".gz"."""
        return self._unpacked.suffix.lower()

    @property
    def packed(self) -> bool:
        """Whether it is a single file that is packed by gzip."""
        return _gzipped(self.member or self.path.name)

    @property
    def _unpacked(self) -> PurePosixPath:
        return PurePosixPath(_without_gz(self.member or self.path.as_posix()))

    def open(self) -> IO[bytes]:
        """Open it as a stream of bytes.

        Raises:
            RowError: it is missing, may not be read, or its archive is broken; also while it is read.
        """
        try:
            stream, size = _open_sized(self.path, self.member)
            if self.packed:
                stream = cast("IO[bytes]", io.BufferedReader(_Gunzipped(self.name, stream, size)))
        except _BROKEN as error:
            raise RowError(self.name, None, _why(error)) from None
        return io.BufferedReader(_Guarded(self.name, stream), 1 << 18)


def as_source(file: SourceFile | Path) -> SourceFile:
    """Return a path as a `SourceFile`."""
    return SourceFile(file, None, _without_gz(file.name)) if isinstance(file, Path) else file


def _gzipped(name: str) -> bool:
    return name.lower().endswith(".gz") and not name.lower().endswith(ARCHIVES)


def _without_gz(name: str) -> str:
    return name[:-3] if _gzipped(name) else name


def _why(error: BaseException) -> str:
    """Return a message on why a file cannot be read."""
    if isinstance(error, FileNotFoundError):
        return "is not there any more; was it moved while it was read?"
    if isinstance(error, PermissionError):
        return "may not be read by you; ask for the rights, or copy it to a folder of yours"
    if isinstance(error, RuntimeError) and not isinstance(error, NotImplementedError):
        return "is protected by a password; unpack it first"
    if isinstance(error, NotImplementedError):
        return "is packed in an unknown way; pack it again as a plain .zip or .tar.gz"
    if isinstance(error, gzip.BadGzipFile):
        return "is no gzip file although its name ends with .gz; is it the right file?"
    return "is cut off or broken; download it again"


class _Guarded(io.RawIOBase):
    """A stream whose errors name the file, and nothing of its content."""

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


class _Gunzipped(io.RawIOBase):
    """The content of a file that is packed by gzip; refused where it is far more than text can be."""

    def __init__(self, name: str, stream: IO[bytes], packed_size: int) -> None:
        self._name, self._packed, self._most = name, stream, max(_SMALL, _RATIO * packed_size)
        self._stream, self._read = gzip.GzipFile(fileobj=stream), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        with memoryview(buffer) as view:
            data = self._stream.read(len(view))
            self._read += len(data)
            if self._read > self._most:
                raise RowError(self._name, None, f"unpacks to more than {self._most >> 20:,} MB: not read")
            view[: len(data)] = data
            return len(data)

    def close(self) -> None:
        self._stream.close()
        self._packed.close()
        super().close()


# --- listing --------------------------------------------------------------------------------------------------------
def is_archive(path: Path) -> bool:
    """Return whether a file is an archive, by its name."""
    return path.name.lower().endswith(ARCHIVES)


def check_readable(path: Path) -> None:
    """Check that a path may be looked at.

    Raises:
        GoldError: it may not be read by this user.
    """
    try:
        if path.is_dir():
            with os.scandir(path):
                pass
    except PermissionError:
        raise GoldError(f"{path} {_why(PermissionError())}") from None
    except OSError:
        raise GoldError(f"{path} cannot be read; is its disk connected?") from None


def list_source(path: Path, unreadable: list[str] | None = None) -> list[SourceFile]:
    """List the files of a folder (without hidden ones), of an archive, or the one file.

    Args:
        unreadable: names of subfolders that may not be read are added to it.

    Raises:
        MissingGoldError: the path does not exist.
        RowError: the archive is broken or suspicious.
        GoldError: the folder may not be read, or holds too many files.
    """
    check_readable(path)
    if path.is_file():
        return _members(path) if is_archive(path) else [as_source(path)]
    if not path.is_dir():
        raise MissingGoldError(f"{path} is no folder or file")
    files: list[SourceFile] = []
    visited: set[str] = set()

    def note(error: OSError) -> None:
        if unreadable is not None:
            unreadable.append(os.path.relpath(error.filename or path, path))

    # data of a cluster is often linked into a folder
    for here, folders, names in os.walk(path, onerror=note, followlinks=True):
        below, real = Path(here).relative_to(path), os.path.realpath(here)
        skip = real in visited or len(below.parts) >= _DEEPEST
        visited.add(real)
        folders[:] = [] if skip else sorted(f for f in folders if not f.startswith("."))
        if skip:
            continue
        for name in sorted(names):
            if name[0] != "." and os.path.isfile(os.path.join(here, name)):  # no pipe, no device
                files.append(SourceFile(Path(here, name), None, _without_gz((below / name).as_posix())))
        if len(files) > _MOST_FILES:
            raise GoldError(f"{path} holds more than {_MOST_FILES:,} files; give the folder of the task's files alone")
    return _once(files)


def _once(files: list[SourceFile]) -> list[SourceFile]:
    """Leave out packed files that lie beside the same file unpacked."""
    plain = {file.inside for file in files if not file.packed}
    return [file for file in files if not file.packed or file.inside not in plain]


def _members(path: Path, inner: str | None = None) -> list[SourceFile]:
    """List the members of an archive, or of an archive in it."""
    name = path.name if inner is None else f"{path.name}/{PurePosixPath(inner).name}"
    try:
        names = _names(path, _stamp(path), inner)
    except _BROKEN as error:
        raise RowError(name, None, _why(error)) from None
    plain = [n for n in names if _is_plain(n)]
    if len(plain) > _MOST_FILES:
        raise RowError(name, None, f"holds more than {_MOST_FILES:,} files; pack the task's files alone")
    before = "" if inner is None else f"{inner}{_INNER}"
    return _once([SourceFile(path, f"{before}{n}", _without_gz(n)) for n in sorted(plain)])


def _is_plain(name: str) -> bool:
    """Return whether a member is read: its path has no drive, no root, no "..", nothing hidden or of macOS."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    odd = (
        name.startswith(("/", "\\"))
        or name.endswith("/")
        or _INNER in name
        or re.match(r"[A-Za-z]:", name)
        or "\x00" in name
    )
    return bool(parts) and not odd and not any(p == ".." or p == "__MACOSX" or p.startswith(".") for p in parts)


# --- archives -------------------------------------------------------------------------------------------------------
class _Zip:
    def __init__(self, name: str, source: Path | bytes) -> None:
        self._name = name
        self._zip = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        self._infos = {
            i.filename: i for i in self._zip.infolist() if not i.is_dir() and not stat.S_ISLNK(i.external_attr >> 16)
        }

    def names(self) -> list[str]:
        return list(self._infos)

    def size(self, member: str) -> int:
        return self._infos[member].file_size

    def open(self, member: str) -> IO[bytes]:
        info = self._infos[member]
        _check_size(self._name, info.file_size, info.compress_size)
        return self._zip.open(info)  # reads no more than `file_size`


class _Header(tarfile.TarInfo):
    """A header of a tar; bounds extended headers (long names, PAX), which `tarfile` reads into memory."""

    def _proc_member(self, tarfile_: tarfile.TarFile) -> Any:
        pax = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if self.type in (*pax, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK) and self.size > _LONGEST_HEADER:
            raise tarfile.ReadError("header too long")
        return super()._proc_member(tarfile_)  # type: ignore[misc]


class _Tar:
    """The offsets of a tar's members; a small packed tar is held in memory.

    gzip has no random access: to read a thousand members one by one would unpack the tar a thousand times. A large one
    is unpacked anew up to each member that is opened; a large source has few.
    """

    def __init__(self, name: str, source: Path | bytes) -> None:
        self._source, self._packed = source, name.lower().endswith("gz")
        self._data: bytes | None = None
        with self._stream() as stream:
            data = stream.read(_IN_MEMORY + 1) if self._packed else b""
        self._data = data if self._packed and len(data) <= _IN_MEMORY else None
        packed_size = len(source) if isinstance(source, bytes) else source.stat().st_size
        self._at: dict[str, tuple[int, int]] = {}
        with (
            self._stream() as stream,
            tarfile.open(fileobj=stream, mode="r|" if self._data is None else "r:", tarinfo=_Header) as tar,
        ):
            for info in tar:
                _check_size(name, info.offset_data + info.size, packed_size)
                if info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):  # no links, devices or sparse files
                    self._at[info.name] = info.offset_data, info.size
                if len(self._at) > _MOST_FILES:
                    raise RowError(name, None, f"holds more than {_MOST_FILES:,} files; pack the task's files alone")

    def _stream(self) -> IO[bytes]:
        if self._data is not None:
            return io.BytesIO(self._data)
        source = io.BytesIO(self._source) if isinstance(self._source, bytes) else self._source
        if self._packed:
            return cast("IO[bytes]", gzip.open(source, "rb"))  # closes a file that it opened itself
        return source.open("rb") if isinstance(source, Path) else source

    def names(self) -> list[str]:
        return list(self._at)

    def size(self, member: str) -> int:
        return self._at[member][1]

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


def _stamp(path: Path) -> tuple[int, int]:
    """Return time and size of an archive; a changed archive is opened anew."""
    stats = path.stat()
    return stats.st_mtime_ns, stats.st_size


@functools.lru_cache(maxsize=2)
def _archive(path: Path, stamp: tuple[int, int], inner: str | None = None) -> _Zip | _Tar:
    """Open an archive, or an archive in it, which is read into memory."""
    source: Path | bytes = path
    name = path.name
    if inner is not None:
        outer, name = _archive(path, stamp), PurePosixPath(inner).name
        if outer.size(inner) > _LONGEST_INNER:
            most = f"{_LONGEST_INNER >> 20:,} MB"
            raise RowError(f"{path.name}/{name}", None, f"is an archive of more than {most} in an archive; unpack it")
        source = outer.open(inner).read()
    return _Zip(name, source) if name.lower().endswith(".zip") else _Tar(name, source)


@functools.lru_cache(maxsize=256)
def _names(path: Path, stamp: tuple[int, int], inner: str | None) -> tuple[str, ...]:
    return tuple(_archive(path, stamp, inner).names())


def _open_sized(path: Path, member: str | None) -> tuple[IO[bytes], int]:
    """Open a file or a member; return the stream and the number of its bytes."""
    if member is None:
        return path.open("rb"), path.stat().st_size
    inner, _, name = member.rpartition(_INNER)
    archive = _archive(path, _stamp(path), inner or None)
    try:
        return archive.open(name), archive.size(name)
    except KeyError:
        raise FileNotFoundError from None


# --- finding the files of a task ------------------------------------------------------------------------------------
def find_files(task: Task, path: Path) -> Files:
    """Find the files of each split of a task in a folder or archive.

    Where files are missing, archives in the folder are searched, then those in its subfolders, then archives in
    archives. A single file that is no archive becomes the one split "rows".

    Returns:
        By split and part; missing optional splits are left out.

    Raises:
        MissingGoldError: required files are missing; all of them are named, with the folder, the source's page, and
            what was found near them.
        GoldError: two files match equally well, or the folder may not be read.
        TaskError: the task names no files.
    """
    if not task.files:
        raise TaskError(f"task {task.full_name!r} names no files (`Task.files`), so none can be found in a folder")
    check_readable(path)
    if path.is_file() and not is_archive(path):
        if any("/" in key for key in task.files):
            raise MissingGoldError(
                f"task {task.full_name!r} is read from several files, {path.name} is one; give their folder"
            )
        return {WHOLE: {ROWS: (as_source(path),)}}
    hints: list[str] = []
    listed = list_source(path, hints)
    hints = [f"its folder {name} may not be read by you" for name in hints]
    files, missing = _match(task, path, listed)
    searched = 0
    for archives in _archives_by_depth(listed):
        if not missing:
            break
        for archive in archives[: _MOST_ARCHIVES - searched]:
            searched += 1
            try:
                members = _members(archive.path, archive.member)
            except RowError as error:
                if archive.member is None and "/" not in archive.inside:
                    raise
                hints.append(str(error))
                continue
            listed += [SourceFile(m.path, m.member, f"{archive.inside}/{m.inside}") for m in members]
        files, missing = _match(task, path, listed)
    if missing:
        source = f"; get them at {task.source_url}" if task.source_url else ""
        near = _near(task, listed)
        if near:
            hints.append(f"near them lie {', '.join(near)}, which have another name or form")
        hint = f" ({'; '.join(hints[:4])})" if hints else ""
        raise MissingGoldError(f"{path} lacks the files of task {task.full_name!r}: {', '.join(missing)}{source}{hint}")
    return files


def _archives_by_depth(listed: list[SourceFile]) -> Iterator[list[SourceFile]]:
    """Yield the archives of a listing, those on disk nearest to the top first, then those in archives.

    What is added to the listing in the meantime is looked at too; archives in archives in archives are not.
    """
    on_disk = [f for f in listed if f.member is None and is_archive(f.path)]
    for depth in sorted({f.inside.count("/") for f in on_disk}):
        yield [f for f in on_disk if f.inside.count("/") == depth]
    yield [f for f in listed if f.member is not None and _INNER not in f.member and is_archive(Path(f.member))]


def _near(task: Task, listed: list[SourceFile]) -> list[str]:
    """Return names of files that may hold the task's data in another form: those named alike, then any tables."""
    wanted = {
        re.sub(r"[\W_]+|v\d+$", "", PurePosixPath(name).name.lower().split(".")[0])
        for names in task.files.values()
        for name in names
        if "*" not in name
    } - {""}
    alike: dict[str, None] = {}
    for file in listed:
        name = PurePosixPath(file.inside).name
        stem = re.sub(r"[\W_]+|v\d+$", "", name.lower().split(".")[0])
        close = any(stem in w or w in stem for w in wanted) if len(stem) > 2 else False
        if close and _NEAR.fullmatch(name):
            alike[name] = None
    return list(alike)[:3]


def _match(task: Task, path: Path, listed: list[SourceFile]) -> tuple[Files, list[str]]:
    """Match the files of a task by name; return them, and the keys of required files that are missing."""
    by_name: dict[str, list[SourceFile]] = {}
    for file in listed:
        by_name.setdefault(PurePosixPath(file.inside).name.lower(), []).append(file)
    matches: dict[str, dict[str, tuple[SourceFile, ...]]] = {}
    missing: dict[str, list[str]] = {}
    for key, alternatives in task.files.items():
        split, part = _split_part(key)
        names = [name for name in alternatives if not name.startswith("!")]
        files = _nearest(path, key, names, by_name, listed)
        unwanted = [name[1:] for name in alternatives if name.startswith("!")]
        files = tuple(f for f in files if not any(_lies_in(f, pattern) for pattern in unwanted))
        if files:
            matches.setdefault(split, {})[part] = files
        elif key not in task.optional_files:
            missing.setdefault(split, []).append(f"{key} ({' or '.join(names)})")
    if WHOLE in matches and set(map(_split_of, task.files)) != {WHOLE}:  # a source with splits, or whole
        if set(matches) != {WHOLE}:
            del matches[WHOLE]
        else:
            return matches, []
    _drop_copies(task, matches, listed)
    required = [_split_part(key) for key in task.files if key not in task.optional_files]
    for split in task.optional_files:
        if split in missing and not any(s == split and part in matches.get(s, {}) for s, part in required):
            del missing[split]
            matches.pop(split, None)  # its optional parts
    return matches, [name for names in missing.values() for name in names]


def _nearest(
    path: Path, key: str, names: Sequence[str], by_name: Mapping[str, list[SourceFile]], listed: list[SourceFile]
) -> tuple[SourceFile, ...]:
    """Find the files of a key: by the alternative name nearest to the top; by all names with "**/" together.

    Raises:
        GoldError: two alternatives are equally near.
    """
    matches = {name: files for name in names if (files := _find(path, name, by_name, listed))}
    if not matches:
        return ()
    if names[0].startswith("**/"):
        return tuple(dict.fromkeys(file for files in matches.values() for file in files))
    depth = {name: len(PurePosixPath(files[0].inside).parts) - name.count("/") for name, files in matches.items()}
    first = min(matches, key=depth.__getitem__)
    equal = [files for name, files in matches.items() if depth[name] == depth[first]]
    if any(files != matches[first] for files in equal):
        listing = " and ".join(files[0].inside for files in equal)
        raise GoldError(f"{path} holds several files for {key} ({listing}); keep the right one alone")
    return matches[first]


def _drop_copies(task: Task, matches: dict[str, dict[str, tuple[SourceFile, ...]]], listed: list[SourceFile]) -> None:
    """Drop optional files of a folder that holds another copy of files matched elsewhere."""
    by_folder: dict[PurePosixPath, set[str]] = {}
    for file in listed:
        inside = PurePosixPath(file.inside)
        by_folder.setdefault(inside.parent, set()).add(inside.name.lower())
    folders = {
        (split, part): PurePosixPath(files[0].inside).parent
        for split, parts in matches.items()
        for part, files in parts.items()
    }
    names = {
        _split_part(key): {name.lower() for name in alternatives if "/" not in name and "*" not in name}
        for key, alternatives in task.files.items()
    }
    optional = [_split_part(key) for key in task.files if {key, key.partition("/")[0]} & set(task.optional_files)]
    for split, part in [place for place in optional if place in folders]:
        own = folders[split, part]
        if any(folder != own and names[other] & by_folder[own] for other, folder in folders.items()):
            del matches[split][part]
            if not matches[split]:
                del matches[split]


def _lies_in(file: SourceFile, pattern: str) -> bool:
    """Return whether a folder or archive that a file lies in has a name of this pattern."""
    return any(fnmatchcase(part.lower(), pattern) for part in PurePosixPath(file.inside).parts[:-1])


def _split_of(key: str) -> str:
    return key.partition("/")[0]


def _split_part(key: str) -> tuple[str, str]:
    """Return split and part of a key of `Task.files`."""
    split, _, part = key.partition("/")
    return split, part or ROWS


def _find(
    path: Path, name: str, by_name: Mapping[str, list[SourceFile]], listed: list[SourceFile]
) -> tuple[SourceFile, ...]:
    """Find the file of a name, or the files of a name with stars, nearest to the top; with "**/", those of all folders.

    Raises:
        GoldError: several are equally near.
    """
    if name.startswith("**/"):
        return tuple(f for f in listed if _ends_with(f.inside, [name[3:].lower()]))
    wanted = name.lower().split("/")
    stars = "*" in name
    candidates = [f for f in (listed if stars else by_name.get(wanted[-1], [])) if _ends_with(f.inside, wanted)]
    if not candidates:
        return ()
    parents = [PurePosixPath(f.inside).parent for f in candidates]
    top = min(len(p.parts) for p in parents)
    nearest = sorted({p for p in parents if len(p.parts) == top})
    if len(nearest) > 1 or (not stars and parents.count(nearest[0]) > 1):
        listing = " and ".join(str(p / name.rsplit("/", 1)[-1]) for p in nearest[:2])
        raise GoldError(f"{path} holds {name} more than once ({listing}); give the folder that holds the right one")
    return tuple(f for f, parent in zip(candidates, parents, strict=True) if parent == nearest[0])


def _ends_with(inside: str, wanted: list[str]) -> bool:
    parts = inside.lower().split("/")[-len(wanted) :]
    return len(parts) == len(wanted) and all(fnmatchcase(p, w) for p, w in zip(parts, wanted, strict=True))


def all_files(files: Files) -> Iterator[SourceFile]:
    """Yield every file of every split."""
    for parts in files.values():
        for many in parts.values():
            yield from many


def digest_files(*parts: SourceFile | Path | str) -> str:
    """Digest the content of files and of strings (hex sha256); an archive is digested as a whole, once."""
    total = hashlib.sha256()
    digested: set[Path] = set()
    for part in parts:
        if isinstance(part, str):
            total.update(part.encode())
            continue
        path = part if isinstance(part, Path) else part.path
        total.update(f"{part.name if isinstance(part, Path) else part.inside}\x00".encode())
        if path not in digested:
            digested.add(path)
            try:
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise RowError(path.name, None, _why(error)) from None
    return total.hexdigest()
