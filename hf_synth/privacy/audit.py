"""Privacy audit of synthetic rows: copies of gold, identifiers, label leaks, refusals, repetition.

Four questions, each answered in time linear in the text, some thousand rows at a time:

- *Does it contain gold?* Synthetic rows are compared with an index of the windows of words and letters of gold
  (`overlap`), and with the order of its rarer words (`skip_grams`); short ones as a whole (`short_texts`) and all
  together (`pieces`). What three or more groups of gold (patients, notes) share is boilerplate and does not count.
- *Is it nearer to gold than it should be?* On a sample, compared with gold that the generator never saw (`closeness`).
- *Does it name a person?* Patterns (`identifiers`) find what has a form; a finder of the user's own may find more.
  Patterns do not find names or places: a clean audit is not de-identification.
- *Does it repeat itself, refuse, or name its own label?* Counted, not refused.

`Findings` hold counts and row numbers, never text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.privacy.canaries import Canaries, note_columns
from hf_synth.privacy.closeness import auc, closest, count_groups, sample_rows
from hf_synth.privacy.findings import COPIED, FLAGS, Findings, refusing
from hf_synth.privacy.folding import Row, Units
from hf_synth.privacy.identifiers import DATES_AND_AGES, IDENTIFIERS, identifiers_in
from hf_synth.privacy.overlap import Index, Reach
from hf_synth.privacy.pieces import Pieces
from hf_synth.privacy.repetition import Repeats
from hf_synth.privacy.short_texts import FEWEST, LONGEST, Words
from hf_synth.reports.progress import shown, stage
from hf_synth.task.columns import UNLABELLED, access_of, strictest
from hf_synth.task.labels import check_columns, column_of
from hf_synth.task.patterns import bounded_pattern
from hf_synth.task.task import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

_REFUSAL = re.compile(
    r"(?i)\bas an? (?:ai\b|artificial intelligence|(?:large )?language model)|\bi(?:['’]m| am) an ai\b"
    r"|\A\W*(?:i(?:['’]m| am) (?:very |so )?sorry|sorry,|i apologi[sz]e)"
    r"|\bi (?:cannot|can['’]t|can not|am (?:unable|not able) to|won['’]t|must decline to) "
    r"(?:assist|help you|comply|fulfil|create|generate|provide (?:that|this|you|any|real|synthetic|medical))"
)
# The pattern is tried only on texts that contain one of these.
_REFUSAL_HINTS = (
    "as an ai", "as a ai", "as an art", "as a lang", "as a large", "an ai", "sorry", "apolog", "i cannot", "i can't",
    "i can’t", "i can not", "i am unable", "i am not able", "i won't", "i won’t", "i must decline",
)  # fmt: skip
_COUNTS = b"hf_synth_counts"  # in the metadata of a block
_BATCH = 1_000  # rows of a dataset in memory as text at once
_SAMPLE = 1_000  # rows of each side whose closest row of gold is searched
_MOST_KINDS = 40
_KIND = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SOFT_KINDS = frozenset(DATES_AND_AGES)

FindIdentifiers = Callable[[str], Iterable[str]]


def audit(
    task: Task,
    synthetic: Dataset,
    *,
    gold: Dataset | None,
    held_out: Dataset | None = None,
    find_identifiers: FindIdentifiers | None = None,
    canaries: Canaries | None = None,
    seed: int = 0,
    access: str = "open",
    progress: bool = False,
) -> Findings:
    """Compare synthetic rows with gold and search them for identifiers, leaked labels, refusals and repetition.

    Dates, ages over 89 and ZIP codes refuse a row only where task, rows or gold are not open: invented notes are full
    of them.

    Args:
        synthetic: rows with the task's columns; rows without text (rejected ones) are skipped. With `seed_ids`, rows
            that copy the exemplars of their own prompt are found too.
        gold: every gold row the generator or a corrector may have seen; None when there is none to compare with.
        held_out: gold that neither saw. It is the control for overlap that comes of a shared subject. Its texts must
            not leave either, so synthetic rows are compared with it too.
        find_identifiers: your own finder, from a text to the kinds of identifiers in it ("person", "hospital").
        canaries: phrases planted in gold (`canaries.plant`).
        seed: of the samples.
        access: an access to join with that of task, rows and gold.
        progress: show how many rows are compared.

    Raises:
        ColumnError: a dataset lacks columns of the task, or `find_identifiers` returns something other than kinds.
        HfSynthError: `find_identifiers` failed.

    Example:
        >>> findings = audit(task, rows, gold=gold["train"])
        >>> findings.verdict
        'ok'
    """
    with shown(progress):
        return _audit(task, synthetic, gold, held_out, find_identifiers, canaries, seed, access)


def audit_of_blocks(
    task: Task,
    synthetic: Dataset,
    scanned: Iterable[pa.Table],
    *,
    gold: Dataset | None,
    held_out: Dataset | None = None,
    find_identifiers: FindIdentifiers | None = None,
    canaries: Canaries | None = None,
    seed: int = 0,
    access: str = "open",
) -> Findings:
    """Audit rows as `audit` does, from what a `Scanner` found in each block of them.

    Args:
        scanned: of each block, in the order of the rows.

    Raises:
        ColumnError: as for `audit`; or the blocks are not of these rows.
    """
    return _audit(task, synthetic, gold, held_out, find_identifiers, canaries, seed, access, scanned)


def _audit(
    task: Task,
    synthetic: Dataset,
    gold: Dataset | None,
    held_out: Dataset | None,
    find_identifiers: FindIdentifiers | None,
    canaries: Canaries | None,
    seed: int,
    access: str,
    scanned: Iterable[pa.Table] | None = None,
) -> Findings:
    check_columns(task, synthetic, what="the synthetic dataset")
    parts = [p for p in (gold, held_out) if p is not None]
    for part in parts:
        check_columns(task, part, what="the gold")
    worst = strictest(access, task.access, access_of(synthetic), *(access_of(p) for p in parts))
    with stage(f"reading {sum(map(len, parts)):,} rows of gold"):
        index = index_gold(task, *parts) if parts else None
    scan = _Scan(task, len(synthetic), index, find_identifiers, canaries)
    if scanned is None:
        scan.read(_batches(task, synthetic))
    else:
        scan.absorb(scanned)
    figures: dict[str, int | float] = {"rows": scan.rows, "gold_rows": sum(map(len, parts))}
    if "source" in synthetic.column_names:
        scan.raise_on("gold_row", (i for i, s in enumerate(synthetic["source"]) if s in ("gold", UNLABELLED)))
    figures |= scan.overlap_figures((g, row) for p, part in enumerate(parts) for g, row in _by_group(task, part, p))
    if scan.index is not None and "seed_ids" in synthetic.column_names:
        figures["exemplar_echoes"] = scan.raise_on("exemplar_echo", _echoes(scan, synthetic, parts))
    scan.index = None  # the largest part of the memory; closeness makes an index of its own
    distances: Mapping[str, Sequence[float]] = {}
    if gold is not None:
        with stage("measuring how near the rows are to gold"):
            closeness, distances = _compare_closeness(task, synthetic, gold, held_out, seed)
        figures |= closeness
    figures |= scan.other_figures()

    refuse = refusing(worst)
    row_flags = tuple(tuple(f for f in FLAGS if f in raised) if raised else () for raised in scan.flags)
    refused = {i: hits for i, flags in enumerate(row_flags) if (hits := tuple(f for f in flags if f in refuse))}
    n = max(1, scan.rows)
    figures["copied_rows"] = sum(any(f in COPIED for f in flags) for flags in row_flags)
    figures["copied_share"] = round(figures["copied_rows"] / n, 4)
    figures["refused_rows"] = len(refused)
    figures["refused_share"] = round(len(refused) / n, 4)
    reach = scan.reach()
    return Findings(
        MappingProxyType(figures),
        row_flags,
        MappingProxyType(refused),
        compared=bool(parts),
        access=worst,
        run_words=reach.runs.astype(np.int32),
        containment=np.maximum(reach.share, reach.letter_share).astype(np.float32),
        closeness=MappingProxyType(dict(distances)),
    )


def index_gold(task: Task, *gold: Dataset) -> Index:
    """Index the texts of gold by group (column `group`; a row without a group is a group of its own)."""
    return Index.of(item for p, part in enumerate(gold) for item in _by_group(task, part, p))


@dataclass(frozen=True)
class Scanner:
    """The part of an audit that looks at each row by itself, as a function of a block.

    Args:
        task: of the rows.
        index: of all gold; None without gold.
        find_identifiers, canaries: as for `audit`.
    """

    task: Task
    index: Index | None = None
    find_identifiers: FindIdentifiers | None = None
    canaries: Canaries | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """Return what is found in the rows of a block: flags, overlap and hashes, and no text."""
        from datasets import Dataset

        scan = _Scan(self.task, len(table), self.index, self.find_identifiers, self.canaries)
        scan.read(_batches(self.task, Dataset(table)))
        return scan.to_table()


def _batches(task: Task, dataset: Dataset) -> Iterator[list[Row]]:
    """Yield the texts of each row in batches; for text2text the target counts as text."""
    columns = note_columns(task)
    for table in dataset.select_columns(columns).with_format("arrow").iter(batch_size=_BATCH):
        texts = (table[c].to_pylist() for c in columns)
        yield [tuple(t if isinstance(t, str) else str(t or "") for t in row) for row in zip(*texts, strict=True)]


def _rows(task: Task, dataset: Dataset) -> Iterator[Row]:
    return (row for rows in _batches(task, dataset) for row in rows)


def _by_group(task: Task, part: Dataset, p: int) -> Iterator[tuple[str, Row]]:
    """Yield the group and the texts of each row of part p of the gold."""
    return zip(_groups(part, p), _rows(task, part), strict=True)


def _groups(part: Dataset, p: int) -> Iterator[str]:
    """Name the group of each row of part p of the gold."""
    return (f"row {p} {i}" if g is None else f"group {g}" for i, g in enumerate(column_of(part, "group")))


class _Scan:
    """One pass over synthetic rows in batches: flags of each row, and its overlap with gold as arrays."""

    def __init__(
        self, task: Task, n: int, index: Index | None, finder: FindIdentifiers | None, canaries: Canaries | None
    ) -> None:
        self.index, self.rows = index, 0
        self.flags: list[set[str] | None] = [None] * n
        self._task, self._finder, self._canaries = task, finder, canaries
        self._leaks = [bounded_pattern(p) for p in task.leaks]
        self._repeats = Repeats()
        self._pieces = Pieces()
        self._too_short = 0  # rows
        self._measured = 0
        self._reaches: list[Reach] = []
        self._kinds: Counter[str] = Counter()
        self._more_kinds: Counter[str] = Counter()
        self._canary_numbers: set[int] = set()
        self._next_row = 0

    def raise_on(self, flag: str, rows: Iterable[int]) -> int:
        """Raise a flag on rows and return their number."""
        count = 0
        for i in rows:
            count += 1
            raised = self.flags[i]
            if raised is None:
                raised = self.flags[i] = set()
            raised.add(flag)
        return count

    def read(self, batches: Iterable[list[Row]]) -> None:
        """Scan all rows: patterns in this thread, hashes in a second one, since numpy releases the interpreter lock."""
        rows_compared = stage(total=len(self.flags), unit="rows compared with gold" if self.index else "rows read")
        with ThreadPoolExecutor(1) as pool, rows_compared as bar:
            future: Future[None] | None = None
            for rows in batches:
                if future is not None:
                    future.result()
                future = pool.submit(self._measure, rows)
                self._search(rows)
                bar.advance(len(rows))
            if future is not None:
                future.result()

    def to_table(self) -> pa.Table:
        """Return what was found in all rows, a line a row; what is counted over them is in the metadata."""
        import pyarrow as pa

        counts = {
            "rows": self.rows,
            "too_short": self._too_short,
            "kinds": dict(self._kinds),
            "more_kinds": dict(self._more_kinds),
            "canaries": sorted(self._canary_numbers),
        }
        flags = pa.array([sorted(raised or ()) for raised in self.flags], pa.list_(pa.string()))
        columns = {"flags": flags, **self._repeats.columns(), **self._pieces.columns(len(self.flags))}
        columns |= {f"reach_{name}": pa.array(values) for name, values in self.reach()._asdict().items()}
        return pa.table(columns).replace_schema_metadata({_COUNTS: json.dumps(counts).encode()})

    def absorb(self, blocks: Iterable[pa.Table]) -> None:
        """Take over what other scans found in the rows of this one, block by block."""
        begin = 0
        for block in blocks:
            counts = json.loads(block.schema.metadata[_COUNTS])
            self.rows += counts["rows"]
            self._too_short += counts["too_short"]
            self._kinds.update(counts["kinds"])
            self._more_kinds.update(counts["more_kinds"])
            self._canary_numbers.update(counts["canaries"])
            if begin + len(block) <= len(self.flags):
                for i, raised in enumerate(block["flags"].to_pylist(), begin):
                    self.flags[i] = set(raised) or None
            self._repeats.take_over(block)
            self._pieces.take_over(block, begin)
            if self.index is not None:
                if any(f"reach_{name}" not in block.column_names for name in Reach._fields):
                    raise ColumnError("a block is of another version of hf_synth; audit again in an empty folder")
                self._reaches.append(Reach(*(np.asarray(block[f"reach_{name}"]) for name in Reach._fields)))
            begin += len(block)
        self._measured = begin
        if begin != len(self.flags):
            raise ColumnError(f"the blocks are of {begin:,} rows, the dataset has {len(self.flags):,}")

    def _measure(self, rows: list[Row]) -> None:
        if self.index is not None:
            self._reaches.append(self.index.reach(rows))
        units = Units.of([" ".join(row) for row in rows])
        self._repeats.add(units)
        words = units.lengths()
        self._too_short += sum(any(rows[i]) for i in np.flatnonzero(words < FEWEST).tolist())
        short = np.flatnonzero(words <= LONGEST * len(rows[0])).tolist()
        if short and self.index is not None:
            texts = [(i, text) for i in short for text in rows[i] if text]
            owner = np.array([i for i, _ in texts], np.int64) + self._measured
            self._pieces.add(Words.of([text for _, text in texts]), owner)
        self._measured += len(rows)

    def _search(self, rows: list[Row]) -> None:
        for i, row in enumerate(rows, self._next_row):
            if any(row):
                self.rows += 1
                for flag in self._pattern_flags(i, row):
                    self.raise_on(flag, [i])
        self._next_row += len(rows)

    def _pattern_flags(self, i: int, row: Row) -> Iterator[str]:
        """Yield the flags that follow from one row alone."""
        kinds = {kind for text in row for kind in identifiers_in(text)}
        more_kinds = self._find_kinds(i, row) if self._finder else set()
        self._kinds.update(kinds)
        self._more_kinds.update(more_kinds - kinds)
        if kinds & _SOFT_KINDS:
            yield "date_or_age"
        if kinds - _SOFT_KINDS or more_kinds:
            yield "identifier"
        if any(p.search(text) for p in self._leaks for text in row[: len(self._task.text_columns)]):
            yield "label_leak"
        if any(_is_refusal(text) for text in row):
            yield "refusal"
        if self._canaries and (numbers := self._canaries.found_in(row)):
            self._canary_numbers |= numbers
            yield "canary"

    def _find_kinds(self, i: int, row: Row) -> set[str]:
        """Return the kinds of the user's finder; the message of its errors may contain text and is not shown."""
        assert self._finder is not None
        try:
            results = [kind for text in row if text for kind in self._finder(text)]
        except Exception as error:
            raise HfSynthError(f"find_identifiers failed at row {i} ({type(error).__name__})") from None
        kinds = {kind for kind in results if isinstance(kind, str) and _KIND.fullmatch(kind)}
        if len(kinds) < len(set(map(str, results))) or len(self._more_kinds.keys() | kinds) > _MOST_KINDS:
            raise ColumnError(
                "find_identifiers must return kinds of identifiers, not their text: names of lower case letters, "
                f"digits and _, at most {_MOST_KINDS} different ones"
            )
        return kinds

    def reach(self) -> Reach:
        """Return the reach of all rows; nothing without gold."""
        if self._reaches:
            return Reach(*map(np.concatenate, zip(*self._reaches, strict=True)))
        n = len(self.flags) if self.index is None else 0
        return Index.of([]).reach([("",)] * n)

    def overlap_figures(self, gold: Iterable[tuple[str, Row]]) -> dict[str, int | float]:
        """Raise the flags of copies and count each; gold is read again only for pieces in short rows."""
        if self.index is None:
            return {}
        reach = self.reach()
        return {
            "boilerplate_windows": self.index.boilerplate,
            "copies_of_gold": self.raise_on("copy_of_gold", np.flatnonzero(reach.same).tolist()),
            "copied_spans": self.raise_on("copied_span", np.flatnonzero(reach.spans()).tolist()),
            "near_copies": self.raise_on("near_copy", np.flatnonzero(reach.near()).tolist()),
            "pieces_of_gold": self.raise_on("piece_of_gold", sorted(self._pieces.find(gold))),
            **_spread("", reach),
        }

    def other_figures(self) -> dict[str, int | float]:
        """Count identifiers, canaries, leaks and refusals; raise and count the flags of repetition."""
        raised = Counter(flag for flags in self.flags if flags for flag in flags)
        figures: dict[str, int | float] = {f"with_{k}": self._kinds[k] for k in IDENTIFIERS if self._kinds[k]}
        figures |= {f"with_{k}": n + self._kinds[k] for k, n in sorted(self._more_kinds.items())}
        if self._canaries:
            figures["canaries_planted"] = len(self._canaries.planted)
            figures["canaries_found"] = len(self._canary_numbers)
            figures["canary_rows"] = raised["canary"]
        figures["label_leaks"], figures["refusals"] = raised["label_leak"], raised["refusal"]
        exact, near = self._repeats.find()
        figures["duplicates"] = self.raise_on("duplicate", np.flatnonzero(exact).tolist())
        figures["near_duplicates"] = self.raise_on("near_duplicate", np.flatnonzero(near).tolist())
        figures["too_short"] = self._too_short
        return figures


def _is_refusal(text: str) -> bool:
    lower = text.lower()
    return any(hint in lower for hint in _REFUSAL_HINTS) and _REFUSAL.search(text) is not None


def _spread(prefix: str, reach: Reach) -> dict[str, int | float]:
    """Summarise the runs and the containment of some rows."""
    share = reach.share if len(reach.share) else np.zeros(1)
    return {
        f"{prefix}longest_run_words": int(reach.runs.max(initial=0)),
        f"{prefix}containment_mean": round(float(share.mean()), 4),
        f"{prefix}containment_p95": round(float(np.quantile(share, 0.95)), 4),
    }


def _echoes(scan: _Scan, synthetic: Dataset, gold: Sequence[Dataset]) -> Iterator[int]:
    """Yield the rows that copy an exemplar of their own prompt."""
    assert scan.index is not None
    number: dict[str, int] = {}
    for p, part in enumerate(gold):
        if "id" in part.column_names:
            pairs = zip(part["id"], _groups(part, p), strict=True)
            number |= {str(id): scan.index.groups[group] for id, group in pairs if group in scan.index.groups}
    reach = scan.reach()
    echoed = reach.echoed()
    for i in np.flatnonzero((echoed >= 0).any(1)).tolist():
        if not {number.get(str(id), -1) for id in synthetic[i]["seed_ids"] or ()}.isdisjoint(set(echoed[i]) - {-1}):
            yield i


def _compare_closeness(
    task: Task, synthetic: Dataset, gold: Dataset, held_out: Dataset | None, seed: int
) -> tuple[dict[str, int | float], dict[str, list[float]]]:
    """Compare the distances of synthetic rows and of held-out gold to gold, on samples.

    `closeness_auc` is the chance that a synthetic row lies nearer to its closest row of gold than a held-out row does
    (ties count half): .5 when neither is nearer. Its interval counts patients or notes, not rows.
    """
    texts = [" ".join(row) for row in _rows(task, sample_rows(synthetic, _SAMPLE, seed)) if any(row)]
    control = None if held_out is None or not len(held_out) else sample_rows(held_out, _SAMPLE, seed)
    control_texts = [] if control is None else [" ".join(row) for row in _rows(task, control)]
    near = np.round(closest([*texts, *control_texts], (" ".join(row) for row in _rows(task, gold))), 4)
    distances = {"synthetic": near[: len(texts)]}
    figures: dict[str, int | float] = {}
    if len(texts):
        figures["closest_median"] = round(float(np.median(distances["synthetic"])), 4)
    if held_out is not None and control is not None:
        distances["held_out"] = near[len(texts) :]
        reach = index_gold(task, gold).reach(list(_rows(task, control)))
        sizes = len(texts), count_groups(control)
        chance = auc(-distances["synthetic"], -distances["held_out"], sizes=sizes)
        figures |= {
            "held_out_rows": len(held_out),
            "held_out_over_limit": int((reach.spans() | reach.near()).sum()),
            **_spread("held_out_", reach),
            "held_out_closest_median": round(float(np.median(distances["held_out"])), 4),
            "closeness_auc": round(chance.value, 4),
            "closeness_auc_low": round(chance.low, 4),
            "closeness_auc_high": round(chance.high, 4),
        }
    return figures, {name: values.tolist() for name, values in distances.items()}
