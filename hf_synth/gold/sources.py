"""Find and open a task's files in a folder, a .zip, a .tar or a .tar.gz, without extracting archives.

Links in archives, absolute names and names with ".." are skipped. Names are matched from the end of a path, nearest to
the top, in a folder and in an archive. Where files are missing, archives in the folder are searched too, then those in
its subfolders and in other archives. Two equally near matches are an error. A file "x.jsonl.gz" counts as "x.jsonl".
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import IO

from hf_synth.errors import GoldError, MissingGoldError, RowError, TaskError
from hf_synth.gold.archives import INNER, MOST_FILES, is_archive, is_gzip, member_names, open_stream, why_broken
from hf_synth.task.task import Task

WHOLE = "rows"  # the split of a source that has none ("all" is a reserved word of datasets)
ROWS = "rows"  # the part of a split that is read from one kind of file
_DEEPEST = 8  # levels of folders
_MOST_ARCHIVES = 200  # that are searched in one folder
_NEAR = re.compile(r"[\w.-]{1,60}")  # a file's name that a message may show

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
        """The name for messages: the file's own name; for a file in an archive, the archive's name before it."""
        return self.path.name if self.member is None else f"{self.path.name}/{PurePosixPath(self.member).name}"

    @property
    def stem(self) -> str:
        """The name without folder, ".gz" and suffix."""
        return self._unpacked.stem

    @property
    def suffix(self) -> str:
        """The suffix in lower case, with the dot, without ".gz"."""
        return self._unpacked.suffix.lower()

    @property
    def packed(self) -> bool:
        """Whether the file is a single file packed by gzip."""
        return is_gzip(self.member or self.path.name)

    @property
    def _unpacked(self) -> PurePosixPath:
        return PurePosixPath(_without_gz(self.member or self.path.as_posix()))

    def open(self) -> IO[bytes]:
        """Open it as a stream of bytes.

        Raises:
            RowError: it is missing, may not be read, or its archive is broken; also while it is read.
        """
        return open_stream(self.name, self.path, self.member)


def as_source(file: SourceFile | Path) -> SourceFile:
    """Return a path as a `SourceFile`."""
    return SourceFile(file, None, _without_gz(file.name)) if isinstance(file, Path) else file


def _without_gz(name: str) -> str:
    return name[:-3] if is_gzip(name) else name


# --- listing --------------------------------------------------------------------------------------------------------
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
        raise GoldError(f"{path} {why_broken(PermissionError())}") from None
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
        return _members(path) if is_archive(path.name) else [as_source(path)]
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
        if len(files) > MOST_FILES:
            raise GoldError(f"{path} holds more than {MOST_FILES:,} files; give the folder of the task's files alone")
    return _drop_packed_copies(files)


def _drop_packed_copies(files: list[SourceFile]) -> list[SourceFile]:
    """Leave out packed files that lie beside the same file unpacked."""
    plain = {file.inside for file in files if not file.packed}
    return [file for file in files if not file.packed or file.inside not in plain]


def _members(path: Path, inner: str | None = None) -> list[SourceFile]:
    """List the members of an archive, or of an archive in it."""
    plain = [n for n in member_names(path, inner) if _is_plain(n)]
    if len(plain) > MOST_FILES:
        raise RowError(path.name, None, f"holds more than {MOST_FILES:,} files; pack the task's files alone")
    before = "" if inner is None else f"{inner}{INNER}"
    return _drop_packed_copies([SourceFile(path, f"{before}{n}", _without_gz(n)) for n in sorted(plain)])


def _is_plain(name: str) -> bool:
    """Return whether a member is read: its path has no drive, no root, no "..", nothing hidden or of macOS."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    odd = (
        name.startswith(("/", "\\"))
        or name.endswith("/")
        or INNER in name
        or re.match(r"[A-Za-z]:", name)
        or "\x00" in name
    )
    return bool(parts) and not odd and not any(p == ".." or p == "__MACOSX" or p.startswith(".") for p in parts)


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
    if path.is_file() and not is_archive(path.name):
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
        deeper = sum(f.member is not None and INNER in f.member and is_archive(f.member) for f in listed)
        if deeper:
            hints.append(f"{deeper} archives in an archive's archive are not searched: unpack them")
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
    on_disk = [f for f in listed if f.member is None and is_archive(f.path.name)]
    for depth in sorted({f.inside.count("/") for f in on_disk}):
        yield [f for f in on_disk if f.inside.count("/") == depth]
    yield [f for f in listed if f.member is not None and INNER not in f.member and is_archive(f.member)]


def _near(task: Task, listed: list[SourceFile]) -> list[str]:
    """Return names of at most three files that may hold the task's data in another form, since they are named alike."""

    def plain(name: str) -> str:
        return re.sub(r"[\W_]+|v\d+$", "", PurePosixPath(name).name.lower().split(".")[0])

    wanted = {plain(name) for names in task.files.values() for name in names if "*" not in name} - {""}
    tables = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xml")
    alike: dict[str, None] = {}
    for file in listed:
        name = PurePosixPath(file.inside).name
        stem, table = plain(name), file.suffix in tables
        close = len(stem) > 2 and any(stem in w or w in stem for w in wanted)
        close |= table and (task.name.replace("_", "") in stem or bool(re.search("train|dev|valid|test", stem)))
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
                raise RowError(path.name, None, why_broken(error)) from None
    return total.hexdigest()
