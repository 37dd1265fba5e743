"""Private folders, atomic writes, and Datasets saved as parquet folders.

An exported folder is the tree of a Hub repository: `<split>.parquet` files and a README.md whose YAML names them, so
that `load_dataset(folder)` reads it without any code of ours. `hf_synth.json` beside them names the stage and the task.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from hf_synth.errors import OutputError, RowError
from hf_synth.task.arrow import row_blocks
from hf_synth.task.columns import MANIFEST, Access, access_of, strictest
from hf_synth.task.folder_kinds import no_rows_error
from hf_synth.task.replacing import place_of, replace_folder
from hf_synth.task.scripts import task_to_json
from hf_synth.task.task import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict, Features

REJECTED = "rejected"  # a status of rows, and the split of a folder that holds them
_RECORD = b"hf_synth"  # in the metadata of parquet files
_BATCH, _BATCH_BYTES = 10_000, 64 << 20  # rows of a group of parquet; bytes of texts that are read at once
_RATIO, _SMALL = 200, 100 << 20  # text packs 3 to 30 times: a parquet that unpacks beyond this ratio is refused
_NOTE = "When read: "  # begins a line of a dataset's description
_MOST_NAMES, _MOST_NOTES, _LONGEST_NOTE = 100_000, 100, 1_000  # names of a label's classes; notes, characters of one
# digests in a manifest: of files as written, of those a person edited, and of those that the rows were made from
FILES, APPROVED, FOLLOWS = "files", "approved_by_hand", "follows_from_edited"
WORK = ".hf_synth"  # subfolder of a user's folder for caches and the journal
_DISK = {
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "the disk quota is spent; free some space and run again",
    errno.EROFS: "the file system is read-only; choose another folder",
    **dict.fromkeys((errno.EACCES, errno.EPERM), "no permission to write there; choose another folder"),
}


def private_folder(path: Path) -> Path:
    """Create a folder that only its owner can read (0700), and missing folders above it; existing ones keep their mode.

    Raises:
        OutputError: it cannot be created.
    """
    with clear_disk_errors(path):
        for folder in reversed((path, *path.parents)):
            folder.mkdir(exist_ok=True, mode=0o700)
    return path


def work_folder(beside: Path) -> Path:
    """Return the work folder inside a user's folder (`.hf_synth`, 0700); create it if it is missing."""
    return private_folder((beside if beside.is_dir() else beside.parent) / WORK)


@contextlib.contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """Raise an `OutputError` of one sentence for a full disk, a read-only folder or missing rights."""
    try:
        yield
    except OSError as error:
        reason = _DISK.get(error.errno or 0, os.strerror(error.errno) if error.errno else "cannot be written")
        raise OutputError(f"{path}: {reason}") from None


def write_private(path: Path, text: str) -> Path:
    """Write a text file atomically, readable by its owner alone (0600).

    Raises:
        OutputError: it cannot be written.
    """
    private_folder(path.parent)
    draft = None
    try:
        with clear_disk_errors(path):
            handle, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 0600
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(text)
            os.replace(draft, path)
            draft = None
    finally:
        if draft is not None:
            Path(draft).unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def locked_file(path: Path, file: IO[Any]) -> Iterator[None]:
    """Hold an open file against other threads and processes; it is unlocked when it is closed, at the latest."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
        return
    import filelock

    # a file of its own: on Windows a lock forbids others to read
    with filelock.FileLock(path.with_name(f"{path.name}.taken"), mode=0o600):
        yield


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write a file atomically: yield a new file that nobody else may read (0600), then rename it to `path`."""
    with clear_disk_errors(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        draft = Path(name)
        try:
            yield draft
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Write a folder atomically: yield a temporary folder, then rename it to `path`.

    An earlier output (a folder with a manifest) is replaced; anything else that is not empty is left alone. A link
    stays, and the folder that it leads to is replaced.

    Raises:
        OutputError: `path` exists and is no earlier output, or its disk is full or read-only.
    """
    path = place_of(Path(path))
    _check_free(path, overwrite)
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))  # mode 0700
    try:
        with clear_disk_errors(path):
            yield draft
            replace_folder(draft, path, WORK)  # the journal and the cache of an earlier output are kept
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check_free(path: Path, overwrite: bool = True) -> None:
    full = path.is_dir() and any(file.name != WORK for file in path.iterdir())  # blocks of a stage come before it
    if path.is_file() or (full and not (overwrite and (path / MANIFEST).is_file())):
        raise OutputError(f"{path} exists and is not an earlier output; choose another folder")
    if path.is_mount():  # it cannot be replaced
        raise OutputError(f"{path} is where a volume is mounted; choose a folder in it")


def check_output(path: Path, what: str = "whole") -> None:
    """Check that an output can be written there, before the work for it is done; nothing is left behind.

    Args:
        what: "whole" for a folder that `new_folder` writes, "within" for one that is written into, or "file".

    Raises:
        OutputError: it cannot, or something else is there.
    """
    path = place_of(path)
    if what == "whole":
        _check_free(path)
    elif path.is_dir() if what == "file" else path.is_file():
        raise OutputError(f"{path} is a {'folder; name a file' if what == 'file' else 'file; name a folder'}")
    place = path if what == "within" else path.parent
    with clear_disk_errors(path):
        while not place.exists() and place != place.parent:
            place = place.parent
        tempfile.TemporaryDirectory(prefix=".hf_synth-", dir=place).cleanup()


def write_stage(
    task: Task, dataset: Dataset | DatasetDict, path: Path, *, stage: str, report: str = "", **facts: Any
) -> Path:
    """Write the rows of a stage to a folder that `load_dataset(path)` accepts, with a README and a manifest.

    Args:
        dataset: a Dataset becomes split "train"; its rejected rows a split of their own, so that code which trains on
            the folder's split "train" never sees them. `gold.adoption.read_dataset` returns both together.
        stage: the verb that made the rows.
        report: Markdown for report.md.
        facts: more entries of the manifest.

    Raises:
        OutputError: the folder cannot be written.
    """
    from datasets import Dataset

    splits = _splits(dataset) if isinstance(dataset, Dataset) else dict(dataset)
    access = strictest(task.access, *(access_of(rows) for rows in splits.values()))
    manifest: dict[str, Any] = {"stage": stage, "task": task.full_name, "task_version": task.version, "access": access}
    if task.script is None:
        manifest["definition"] = task_to_json(task)
    manifest |= facts
    manifest["rows"] = {split: len(rows) for split, rows in splits.items()}
    notes = notes_of(splits)
    if notes:
        manifest["notes"] = notes
    with new_folder(path) as draft:
        for split, rows in splits.items():
            write_parquet(task, rows, draft / f"{split}.parquet", access)
        manifest[FILES] = {f"{split}.parquet": file_digest(draft / f"{split}.parquet") for split in splits}
        files = "".join(f"  - split: {split}\n    path: {split}.parquet\n" for split in splits)
        # `load_dataset` finds a folder in its cache by its path and this text, not by its files: the digest is in it
        content = hashlib.sha256(json.dumps(manifest[FILES], sort_keys=True).encode()).hexdigest()[:16]
        (draft / "README.md").write_text(
            f"---\nconfigs:\n- config_name: default\n  description: content {content}\n  data_files:\n{files}---\n"
            f"Task {task.full_name}, stage {stage!r}, written by hf_synth. Access: {access}.\n"
            + (f"\nWhen the source was read:\n\n{''.join(f'- {note}{chr(10)}' for note in notes)}" if notes else ""),
            encoding="utf-8",
        )
        if report:
            (draft / "report.md").write_text(report + "\n", encoding="utf-8")
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return path


def notes_of(rows: Dataset | Mapping[str, Dataset]) -> list[str]:
    """Return what was left out when gold was read, and what else was said of its files, a sentence each.

    These are lines of `DatasetInfo.description`, so that they stay with the cache of a Dataset and with what is made of
    it, and of the manifest of a folder.
    """
    parts = list(rows.values()) if isinstance(rows, Mapping) else [rows]
    lines = dict.fromkeys(line for part in parts for line in (part.info.description or "").split("\n"))
    return [line.removeprefix(_NOTE) for line in lines if line.startswith(_NOTE)]


def with_notes(description: str, notes: Sequence[str]) -> str:
    """Return the description of a dataset with notes, each once."""
    return "\n".join(dict.fromkeys([*description.split("\n"), *(_NOTE + note for note in notes)]))


def _splits(rows: Dataset) -> dict[str, Dataset]:
    """Return the rows as split "train", and the rejected ones among them as a split of their own."""
    status = rows["label_status"][:] if "label_status" in rows.column_names else []
    rejected = [i for i, value in enumerate(status) if value == REJECTED]
    if not rejected:
        return {"train": rows}
    good = [i for i, value in enumerate(status) if value != REJECTED]
    split = {REJECTED: rows.select(rejected)}
    return {"train": rows.select(good), **split} if good else split  # `load_dataset` reads no file without rows


def file_digest(file: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def edited_files(path: Path) -> list[str]:
    """Return the files of a stage that are not as they were written: a person changed, replaced or removed them.

    A folder of a version that kept no digests has none.
    """
    digests = (read_manifest(path) or {}).get(FILES) or {}
    return [
        name for name, digest in digests.items() if not (path / name).is_file() or file_digest(path / name) != digest
    ]


def edited_digests(path: Path) -> dict[str, str]:
    """Return the digests of the edited files of a stage as they are now; none for what is no stage's folder."""
    names = edited_files(path) if path.is_dir() else []
    return {name: file_digest(path / name) for name in names if (path / name).is_file()}


def approve_edits(path: Path) -> dict[str, str]:
    """Record in the manifest of an edited stage that its rows were taken as approved; return the files' digests."""
    digests = edited_digests(path)
    manifest = {**(read_manifest(path) or {}), APPROVED: digests}
    write_private(path / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return digests


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Read the manifest of a folder; None where it has none."""
    file = path / MANIFEST
    if not file.is_file():
        return None
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise RowError(str(file), None, "is broken; write the folder again") from None
    return facts if isinstance(facts, dict) else None


def write_parquet(task: Task, rows: Dataset, file: Path, access: Access) -> None:
    """Write rows as parquet that records access and task in its metadata, so that it stays with the file."""
    import pyarrow.parquet as pq

    note = json.dumps({"access": access, "task": task.full_name}).encode()
    schema = rows.features.arrow_schema
    with pq.ParquetWriter(file, schema.with_metadata({**schema.metadata, _RECORD: note})) as out:
        for batch in row_blocks(rows, _BATCH):
            out.write_table(batch.cast(schema))


def recorded_access(path: Path) -> Access | None:
    """Return the strictest access that a file or folder records; None where nothing is recorded.

    It is recorded in the manifest of a folder and in the metadata of parquet files. Of a file also the manifests of the
    two folders above it count, of a folder the one above: an export has a folder for each of its configs. Of a link the
    folders count in which it lies, and those to which it leads.

    Raises:
        RowError: a manifest or a parquet file is broken.
    """
    places = dict.fromkeys([path.absolute(), path.resolve()])
    folders = [f for p in places for f in ([p, *p.parents[:1]] if path.is_dir() else p.parents[:2])]
    manifests = [facts for folder in folders if (facts := read_manifest(folder)) is not None]
    accesses = [facts["access"] for facts in manifests if "access" in facts]
    files = [path] if path.is_file() else [*path.glob("*.parquet"), *path.glob("*/*.parquet")]
    tables = [file for file in files if file.suffix.lower() == ".parquet"]
    accesses += [found for file in tables if (found := parquet_access(file, file.name)) is not None]
    return strictest(*(a if isinstance(a, str) else None for a in accesses)) if accesses else None


def parquet_access(file: Path | IO[bytes], name: str) -> Access | None:
    """Return the access that a parquet file records of its rows; None if it records nothing.

    Args:
        name: of the file, for the error.

    Raises:
        RowError: it is not parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        note = (pq.read_schema(file).metadata or {}).get(_RECORD)
    except (pa.ArrowException, OSError):
        raise RowError(name, None, "cannot be read as parquet") from None
    if note is None:
        return None
    try:
        access = json.loads(note).get("access")
    except (ValueError, AttributeError):
        access = None
    return strictest(access if isinstance(access, str) else None)


def with_recorded_access(rows: Dataset, recorded: Access | None) -> Dataset:
    """Return rows that are at least as strict as what their files record.

    Rows without a column `access` count as credentialed. Where the files record that they are not open, the column is
    added, so that nothing can state another access for them.
    """
    if recorded in (None, "open"):
        return rows
    present = "access" in rows.column_names
    if present and strictest(found := access_of(rows), recorded) == found:
        return rows
    column = [recorded if present else strictest()] * len(rows)
    return (rows.remove_columns("access") if present else rows).add_column("access", column)


def read_export(path: Path) -> DatasetDict:
    """Read an exported folder, memory-mapped from a cache inside it; rows are as strict as what its files record.

    Raises:
        MissingGoldError: it holds no parquet file.
    """
    from datasets import DatasetDict

    files = {f.stem: f for f in sorted(path.glob("*.parquet"))}
    if not files:
        raise no_rows_error(path)
    recorded = recorded_access(path)
    splits = DatasetDict(
        {split: with_recorded_access(map_parquet(file, path), recorded) for split, file in files.items()}
    )
    notes = (read_manifest(path) or {}).get("notes")
    notes = [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    for rows in splits.values() if notes else ():
        plain = [" ".join(note[:_LONGEST_NOTE].split()) for note in notes[:_MOST_NOTES]]
        rows.info.description = with_notes(rows.info.description or "", plain)
    return splits


def map_parquet(file: Path, beside: Path) -> Dataset:
    """Read a parquet file, memory-mapped from a cache in a folder; in memory where that folder cannot be written.

    Columns are plain values and labels, whatever features the file names: an image of a foreign file would be fetched.

    Raises:
        RowError: it is no parquet, or repeats its texts so often that it unpacks to far more than text does.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError
    from pyarrow.dataset import ParquetFragmentScanOptions

    cache = cache_folder(beside)
    try:
        _check_unpacked(file)
        with pq.ParquetFile(file) as opened:
            features = plain_features(opened.schema_arrow)
            if cache is None or not opened.metadata.num_rows:
                return Dataset(opened.read().replace_schema_metadata(features.arrow_schema.metadata))
        scan = ParquetFragmentScanOptions(pre_buffer=False)  # it would keep the whole file in memory
        return Dataset.from_parquet(str(file), features=features, cache_dir=str(cache), fragment_scan_options=scan)
    except (pa.ArrowException, DatasetGenerationError, OSError, ValueError, TypeError):
        raise RowError(file.name, None, "cannot be read as parquet") from None
    finally:
        pa.default_memory_pool().release_unused()  # Arrow would keep the pages that it has unpacked


def plain_features(schema: pa.Schema, told: Mapping[str, Any] | None = None) -> Features:
    """Return features for the columns of an Arrow schema: labels with the names that are told, and plain values.

    No other feature is used. An image or a sound would be fetched from the address that a row holds, and a label may
    name a file of this machine in the place of its names.

    Args:
        told: features as JSON, by column; those in the metadata of the schema when None.
    """
    from datasets import ClassLabel, Features, List

    features = Features.from_arrow_schema(schema.remove_metadata())
    try:
        told = told or json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        label_names = {name: names for name, feature in dict(told or {}).items() if (names := _label_names(feature))}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return features
    for name, feature in features.items():
        inner = feature.feature if isinstance(feature, List) else feature
        if name in label_names and getattr(inner, "dtype", None) == "int64":
            label = ClassLabel(names=label_names[name])
            features[name] = List(label) if isinstance(feature, List) else label
    return features


def _label_names(told: Any) -> list[str] | None:
    """Return the names of a label, or of a list of labels, as metadata tells its feature; None for another one."""
    inner = told["feature"] if told.get("_type") in ("List", "Sequence") else told
    names = inner.get("names") if inner.get("_type") == "ClassLabel" else None
    if not isinstance(names, list) or not 0 < len(names) <= _MOST_NAMES or not all(isinstance(n, str) for n in names):
        return None
    return names if len(set(names)) == len(names) else None


def _check_unpacked(file: Path) -> None:
    """Check that texts of a parquet file are not repeated by a dictionary beyond all memory."""
    import pyarrow.parquet as pq

    most = max(_SMALL, _RATIO * file.stat().st_size)
    with pq.ParquetFile(file) as opened:
        columns = map(opened.schema.column, range(len(opened.schema)))
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        groups = map(opened.metadata.row_group, range(opened.num_row_groups))
        mean = sum(group.total_byte_size for group in groups) // max(1, opened.metadata.num_rows)
    size, rows = 0, max(1, min(10_000, _BATCH_BYTES // max(1, mean)))
    with pq.ParquetFile(file, read_dictionary=texts) as opened:  # a text stays once in memory, as in the file
        each = range(opened.num_row_groups if texts else 0)  # a reader of all groups would keep what each has unpacked
        for batch in (b for i in each for b in opened.iter_batches(rows, row_groups=[i], columns=texts)):
            size += sum(map(unpacked_size, batch.columns))
            if size > most:
                raise RowError(
                    file.name, None, f"unpacks to more than {most >> 20:,} MB by texts that it repeats: not read"
                )


def unpacked_size(column: Any) -> int:
    """Return the bytes of an Arrow column with its dictionaries written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        return pc.sum(pc.binary_length(column.dictionary).take(column.indices)).as_py() or 0
    if pa.types.is_struct(column.type) or pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        parts = column.flatten()
        return sum(map(unpacked_size, parts)) if isinstance(parts, list) else unpacked_size(parts)
    return int(column.nbytes)


def cache_folder(beside: Path) -> Path | None:
    """Return the cache inside a user's folder, created if missing; None where that folder cannot be written.

    Notes are cached nowhere else: without this folder they are held in memory.
    """
    try:
        folder = private_folder(work_folder(beside) / "cache")
    except OutputError:
        return None
    return folder if os.access(folder, os.W_OK) else None
