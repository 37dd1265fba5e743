"""What a release changes in its repository: files, rows by label, sections of the card, visibility, tag.

It is compared with what the repository holds before anything is sent. A repository may have been written by anybody:
names of its files, labels and sections are shown only where the release has them too.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import RowError
from hf_synth.publishing.card_checks import split_card
from hf_synth.publishing.sealed import Seal
from hf_synth.task.folders import map_parquet, plain_features
from hf_synth.task.task import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Features

CARD = "README.md"
_ROWS = re.compile(r"(?:corrected|raw|augmented)/train-00000-of-00001\.parquet")
_MOST_BYTES = 256 << 20  # of a file of rows that is downloaded for the comparison
_CARD_BYTES = 1 << 20
_SHOWN = 8  # names in one line
_BATCH = 10_000


@dataclass(frozen=True)
class Present:
    """What a repository holds at the head of its main branch.

    Args:
        private, gated: its settings.
        files: size and id of each file by its path.
        tags: their names.
        head: the commit; "" before the first one.
        folder: where the card and the rows were downloaded to.
    """

    private: bool
    gated: str | bool
    files: Mapping[str, tuple[int, str]]
    tags: Sequence[str]
    head: str
    folder: Path


@dataclass(frozen=True)
class Changes:
    """What a release changes in its repository.

    Args:
        new: whether there is no repository yet.
        files: change ("added", "changed", "removed"), size before and size after of each file that differs, by path.
        rows_added, rows_removed: rows of the default config by label; a row with another label is both. Empty for a
            model.
        rows_unknown: why rows were not compared; "" where they were.
        sections: sections of the card that differ; "header" is its YAML header.
        visibility: as it is and as it will be, e.g. ("private", "public").
        gated: as it is and as it will be.
        tag: of the release.
        tags: how many there are already.
        head: the commit that it was compared with; "" where there is none.
        others: files of somebody else that stay in the repository.
    """

    new: bool
    files: Mapping[str, tuple[str, int, int]]
    rows_added: Mapping[str, int] = field(default_factory=dict)
    rows_removed: Mapping[str, int] = field(default_factory=dict)
    rows_unknown: str = ""
    sections: tuple[str, ...] = ()
    visibility: tuple[str, str] = ("", "")
    gated: tuple[str, str] = ("", "")
    tag: str = ""
    tags: int = 0
    head: str = ""
    others: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = ["what changes in the repository" + (", which is new:" if self.new else ":")]
        counts = Counter(change for change, _, _ in self.files.values())
        lines.append(f"  files: {', '.join(f'{n:,} {what}' for what, n in sorted(counts.items())) or 'none'}")
        for name, (change, before, after) in list(self.files.items())[:_SHOWN]:
            sizes = {"added": size_of(after), "removed": size_of(before)}
            lines.append(f"    {change} {name} ({sizes.get(change, f'{size_of(before)} -> {size_of(after)}')})")
        if len(self.files) > _SHOWN:
            lines.append(f"    and {len(self.files) - _SHOWN:,} more")
        if self.others:
            whose = "file of somebody else stays" if self.others == 1 else "files of somebody else stay"
            it = "it" if self.others == 1 else "them"
            lines.append(f"    {self.others:,} {whose} (`--squash` removes {it})")
        for what, rows in (("added", self.rows_added), ("removed", self.rows_removed)):
            if rows:
                by_label = ", ".join(f"{label} {n:,}" for label, n in list(rows.items())[:_SHOWN])
                more = f", {len(rows) - _SHOWN:,} more labels" if len(rows) > _SHOWN else ""
                lines.append(f"  rows {what}: {sum(rows.values()):,} ({by_label}{more})")
        if self.rows_unknown:
            lines.append(f"  rows: {self.rows_unknown}")
        if self.sections and not self.new:
            lines.append(f"  card: {', '.join(self.sections)}")
        for name, (was, will) in (("visibility", self.visibility), ("gate", self.gated)):
            if was != will:
                lines.append(f"  {name}: {was} -> {will.upper() if will == 'public' else will}")
        lines.append(f"  tag: {self.tag}" + (f" ({self.tags:,} earlier ones stay)" if self.tags else ""))
        return "\n".join(lines)


def is_compared(name: str, size: int) -> bool:
    """Return whether a file of a repository is downloaded for the comparison: its card, and rows of a usual size."""
    return (name == CARD and size <= _CARD_BYTES) or (_ROWS.fullmatch(name) is not None and size <= _MOST_BYTES)


def changes_of(
    task: Task, present: Present | None, folder: Path, seal: Seal, stale: Sequence[str], wanted: Mapping[str, Any]
) -> Changes:
    """Compare an export with what its repository holds.

    Args:
        present: None where there is no repository.
        folder: the export.
        seal: its files.
        stale: files of the repository that the release removes.
        wanted: `private`, `gated` and `tag` of the release.
    """
    before = present.files if present else {}
    files: dict[str, tuple[str, int, int]] = {}
    for name, file in seal.items():
        if name not in before:
            files[name] = ("added", 0, file.size)
        elif not file.is_at(*before[name]):
            files[name] = ("changed", before[name][0], file.size)
    for number, name in enumerate(stale, 1):
        files[name if is_known(name) else f"a file of another kind ({number})"] = ("removed", before[name][0], 0)
    added, removed, unknown = _rows(task, present, folder, files)
    return Changes(
        present is None, files, added, removed, unknown, _sections(present, folder),
        ("none" if present is None else _seen(present.private), _seen(wanted["private"])),
        ("none" if present is None else _gate(present.gated), _gate(wanted["gated"])),
        wanted["tag"], len(present.tags) if present else 0, present.head if present else "",
        sum(name not in seal and name not in stale and name != ".gitattributes" for name in before),
    )  # fmt: skip


def is_known(name: str) -> bool:
    """Return whether a name is one that our exports have had: its own text could be a note."""
    return _ROWS.fullmatch(name) is not None or re.fullmatch(r"[\w.-]{1,40}\.safetensors", name) is not None


def _seen(private: bool) -> str:
    return "private" if private else "public"


def _gate(gated: str | bool) -> str:
    return str(gated) if gated else "none"


def size_of(n: int) -> str:
    """Return a number of bytes in words: "812 B", "1.4 MB"."""
    for unit, top in (("B", 1_000), ("kB", 10**6), ("MB", 10**9)):
        if n < top:
            return f"{n:,} B" if unit == "B" else f"{n * 1_000 / top:.1f} {unit}"
    return f"{n / 10**9:.1f} GB"


# --- rows -----------------------------------------------------------------------------------------------------------
def _rows(
    task: Task, present: Present | None, folder: Path, files: Mapping[str, tuple[str, int, int]]
) -> tuple[dict[str, int], dict[str, int], str]:
    """Return how many rows of the default config are added and removed, by label, or why that is not known."""
    new = _default_rows(folder)
    if new is None:
        return {}, {}, ""
    old = _default_rows(present.folder) if present else None
    if old is None and present is not None and any(map(_ROWS.fullmatch, present.files)):
        return {}, {}, "not compared: the repository's rows are too many, or its card names none"
    path = new.relative_to(folder).as_posix()
    if present and old and old.relative_to(present.folder).as_posix() == path and path not in files:
        return {}, {}, ""  # the same file
    try:
        before = _counted(task, _batches(old, foreign=True)) if old else Counter()
    except (RowError, KeyError, ValueError, TypeError):
        return {}, {}, "not compared: the repository's rows are of another form"
    after = _counted(task, _batches(new, foreign=False))
    return _by_label(after - before), _by_label(before - after), ""


def _by_label(rows: Counter[tuple[bytes, str]]) -> dict[str, int]:
    labels: Counter[str] = Counter()
    for (_, label), n in rows.items():
        labels[label] += n
    return dict(sorted(labels.items()))


def _default_rows(folder: Path) -> Path | None:
    """Return the file of the default config by the card of a folder; None where that is not clear."""
    card = folder / CARD
    try:
        header = split_card(card.read_text(encoding="utf-8", errors="replace"))[0] if card.is_file() else {}
    except Exception:  # a stranger's header may hold anything, and PyYAML raises many errors
        return None
    configs = header.get("configs")
    named = [c for c in configs if isinstance(c, dict) and c.get("default")] if isinstance(configs, list) else []
    name = named[0].get("config_name") if named else None
    file = folder / f"{name}/train-00000-of-00001.parquet" if isinstance(name, str) else None
    known = file is not None and _ROWS.fullmatch(file.relative_to(folder).as_posix())
    return file if known and file is not None and file.is_file() else None


def _counted(task: Task, batches: Iterable[tuple[pa.RecordBatch | pa.Table, Features]]) -> Counter[tuple[bytes, str]]:
    """Count rows by a digest of their texts, and their label.

    Raises:
        KeyError: they lack a column.
    """
    counts: Counter[tuple[bytes, str]] = Counter()
    for batch, features in batches:
        feature = features[task.label_column]
        names = getattr(getattr(feature, "feature", feature), "names", None)
        columns = [batch.column(c).to_pylist() for c in (*task.text_columns, task.label_column)]
        for *texts, label in zip(*columns, strict=True):
            key = hashlib.sha256(repr(texts).encode("utf-8", "backslashreplace")).digest()[:16]
            counts[key, _label(task, label, names)] += 1
    return counts


def _batches(file: Path, *, foreign: bool) -> Iterator[tuple[pa.RecordBatch | pa.Table, Features]]:
    """Yield the rows of a parquet file with their features.

    Args:
        foreign: of the repository, where anybody may have made it: it is checked, and read with a cache next to it.

    Raises:
        RowError: it is no parquet, or unpacks to far more than text does.
    """
    import pyarrow.parquet as pq

    if foreign:
        rows = map_parquet(file, file.parent)
        yield from ((batch, rows.features) for batch in rows.with_format("arrow").iter(_BATCH))
        return
    with pq.ParquetFile(file) as table:
        features = plain_features(table.schema_arrow)
        yield from ((batch, features) for batch in table.iter_batches(_BATCH))


def _label(task: Task, label: Any, names: Sequence[str] | None) -> str:
    """Return the name of a row's label; one that the task does not have is not shown."""
    if task.kind == "text2text":
        return "rows"
    values = label if isinstance(label, list) else [] if label is None else [label]
    shown = [names[v] if names and isinstance(v, int) and 0 <= v < len(names) else str(v) for v in values]
    return " + ".join(n if n in task.labels else "another label" for n in shown) or "no label"


# --- card -----------------------------------------------------------------------------------------------------------
def _sections(present: Present | None, folder: Path) -> tuple[str, ...]:
    """Return the sections of the card that differ, by the names that the new one has."""
    new = _parts(folder / CARD)
    old = _parts(present.folder / CARD) if present else {}
    changed = [name for name, text in new.items() if old.get(name) != text]
    gone = len(set(old) - set(new))
    return (*changed, *([f"{gone:,} sections removed"] if gone else []))


def _parts(card: Path) -> dict[str, str]:
    if not card.is_file():
        return {}
    text = card.read_text(encoding="utf-8", errors="replace")
    header = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)  # as text: aliases of YAML may expand to gigabytes
    parts, name = {"header": header[1] if header else ""}, "beginning"
    for line in text[header.end() if header else 0 :].splitlines():
        if line.startswith("## "):
            name = line[3:].strip()
        parts[name] = f"{parts.get(name, '')}{line}\n"
    return parts
