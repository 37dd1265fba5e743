"""Open files, members of archives and members of archives in archives as streams that have limits.

Nothing is written to disk, so that no member can write anywhere and no copy of notes is made. A member that unpacks to
far more than text can is refused (zip bombs). Errors name the file, and nothing of its content.
"""

from __future__ import annotations

import functools
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, cast

from hf_synth.errors import RowError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
MOST_FILES = 200_000  # in one source
INNER = "//"  # in the name of a member: between an archive in the archive and its member
BROKEN = (
    OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, NotImplementedError,
    RuntimeError, ValueError, OverflowError,
)  # fmt: skip
_LONGEST_HEADER = 1 << 20  # bytes of an extended header of a tar
_LONGEST = 20 << 30  # bytes of one member
_RATIO, _SMALL = 200, 100 << 20  # text packs 3 to 30 times: a larger member beyond this ratio is refused
_IN_MEMORY = 128 << 20  # a packed tar up to this size is unpacked once, into memory
_LONGEST_INNER = 512 << 20  # bytes of an archive in an archive, which is held in memory


def is_archive(name: str) -> bool:
    """Return whether a file is an archive, by its name."""
    return name.lower().endswith(ARCHIVES)


def is_gzip(name: str) -> bool:
    """Return whether a file is a single one that is packed by gzip, by its name."""
    return name.lower().endswith(".gz") and not is_archive(name)


def open_stream(name: str, path: Path, member: str | None) -> IO[bytes]:
    """Open a file, or a member of an archive, as a stream; what is packed by gzip is unpacked.

    Args:
        name: in messages.
        member: None for a file on disk; of an archive in the archive, both names with `INNER` between them.

    Raises:
        RowError: it is missing, may not be read, or its archive is broken; also while it is read.
    """
    try:
        stream, size = _open_sized(path, member)
        if is_gzip(member or path.name):
            stream = cast("IO[bytes]", io.BufferedReader(_Gunzipped(name, stream, size)))
    except BROKEN as error:
        raise RowError(name, None, why_broken(error)) from None
    return io.BufferedReader(_Guarded(name, stream), 1 << 18)


def member_names(path: Path, inner: str | None) -> tuple[str, ...]:
    """Return the names of the members of an archive, or of an archive in it.

    Raises:
        RowError: it is broken or suspicious, or holds too many files.
    """
    name = path.name if inner is None else f"{path.name}/{PurePosixPath(inner).name}"
    try:
        return _names(path, _stamp(path), inner)
    except BROKEN as error:
        raise RowError(name, None, why_broken(error)) from None


# --- streams with limits ----------------------------------------------------------------------------------------------
def why_broken(error: BaseException) -> str:
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
            except BROKEN as error:
                raise RowError(self._name, None, why_broken(error)) from None
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
                if len(self._at) > MOST_FILES:
                    raise RowError(name, None, f"holds more than {MOST_FILES:,} files; pack the task's files alone")

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
    inner, _, name = member.rpartition(INNER)
    try:
        archive = _archive(path, _stamp(path), inner or None)
        return archive.open(name), archive.size(name)
    except KeyError:
        raise FileNotFoundError from None
