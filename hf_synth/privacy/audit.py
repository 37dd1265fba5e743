"""Audit of synthetic rows before they leave: what they share with gold, identifiers in them, labels they give away.

Four questions, each answered in time linear in the text, some thousand rows at a time:

- *Is gold in it?* Windows of words and of letters of gold go into an index (`overlap`); a synthetic row is held against
  it. Windows that stand in three or more distinct groups of gold (patients, notes) are boilerplate and do not count.
- *Does it lie nearer to gold than it should?* On a sample, beside gold that the generator never saw (`closeness`).
- *Does it name someone?* Patterns (`identifiers`) find what has a form, a finder of the user's own may find more.
  Patterns do not find names or places: a clean audit is not de-identification.
- *Does it repeat itself, refuse, or give its label away?* Counted, not refused.

`Findings` hold counts and row numbers, never text.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from hf_synth.errors import ColumnError, HfSynthError
from hf_synth.privacy.canaries import Canaries
from hf_synth.privacy.closeness import auc, closest
from hf_synth.privacy.findings import COPIED, FLAGS, Findings, refusing
from hf_synth.privacy.folding import Row, Units
from hf_synth.privacy.identifiers import DATES_AND_AGES, IDENTIFIERS, identifiers_in
from hf_synth.privacy.overlap import Index, Reach
from hf_synth.privacy.repetition import Repeats
from hf_synth.task.columns import UNLABELLED, access_of, strictest
from hf_synth.task.labels import check_columns, column_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

# Of a row and the gold that its own prompt showed less is enough, since chance has few notes to hit.
_ECHO_RUN, _ECHO_SHARE, _ECHO_LETTERS = 14, 0.15, 40
_REFUSAL = re.compile(
    r"(?i)\bas an? (?:ai\b|artificial intelligence|(?:large )?language model)|\bi(?:['’]m| am) an ai\b"
    r"|\A\W*(?:i(?:['’]m| am) (?:very |so )?sorry|sorry,|i apologi[sz]e)"
    r"|\bi (?:cannot|can['’]t|can not|am (?:unable|not able) to|won['’]t|must decline to) "
    r"(?:assist|help you|comply|fulfil|create|generate|provide (?:that|this|you|any|real|synthetic|medical))"
)
# ... looked for only where one of these stands
_REFUSING = (
    "as an ai", "as a ai", "as an art", "as a lang", "as a large", "an ai", "sorry", "apolog", "i cannot", "i can't",
    "i can’t", "i can not", "i am unable", "i am not able", "i won't", "i won’t", "i must decline",
)  # fmt: skip
_READ = 1_000  # rows of a dataset that are held as text at once
_SAMPLE = 1_000  # rows of each side whose closest row of gold is sought
_MOST_KINDS = 40
_KIND = re.compile(r"[a-z][a-z0-9_]{0,39}")
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
) -> Findings:
    """Hold synthetic rows against gold and look for identifiers, leaked labels, refusals and repetition.

    Dates, ages over 89 and ZIP codes refuse a row only where task, rows or gold are not open: invented notes are full
    of them.

    Args:
        synthetic: rows with the task's columns; rows without text (rejected ones) are passed over. With `seed_ids`,
            rows that follow what their own prompt showed are found too.
        gold: every gold row the generator or a corrector may have seen; None when there is none to compare with.
        held_out: gold that neither saw. It is the control: what gold reaches by being about the same things. Its
            texts must not leave either, so synthetic rows are held against it too.
        find_identifiers: a finder of your own, from a text to the kinds of identifiers in it ("person", "hospital").
        canaries: what was planted in gold (`canaries.plant`).
        seed: of the samples.
        access: an access to join with that of task, rows and gold.

    Raises:
        ColumnError: a dataset lacks columns of the task, or `find_identifiers` gives something other than kinds.
        HfSynthError: `find_identifiers` failed.
    """
    check_columns(task, synthetic, what="the synthetic dataset")
    parts = [p for p in (gold, held_out) if p is not None]
    for part in parts:
        check_columns(task, part, what="the gold")
    worst = strictest(access, task.access, access_of(synthetic), *(access_of(p) for p in parts))
    found = _Scan(task, len(synthetic), index_gold(task, *parts) if parts else None, find_identifiers, canaries)
    found.read(_batches(task, synthetic))
    figures: dict[str, int | float] = {"rows": found.rows, "gold_rows": sum(map(len, parts))}
    if "source" in synthetic.column_names:
        found.raise_on("gold_row", (i for i, s in enumerate(synthetic["source"]) if s in ("gold", UNLABELLED)))
    figures |= found.overlap_figures()
    if found.index is not None and "seed_ids" in synthetic.column_names:
        figures["exemplar_echoes"] = found.raise_on("exemplar_echo", _echoes(found, synthetic, parts))
    closeness: Mapping[str, Sequence[float]] = {}
    if gold is not None:
        more, closeness = _control(task, synthetic, gold, held_out, seed)
        figures |= more
    figures |= found.other_figures()

    refuse = refusing(worst)
    row_flags = tuple(tuple(f for f in FLAGS if f in raised) if raised else () for raised in found.flags)
    refused = {i: hit for i, fs in enumerate(row_flags) if (hit := tuple(f for f in fs if f in refuse))}
    n = max(1, found.rows)
    figures["copied_rows"] = sum(any(f in COPIED for f in fs) for fs in row_flags)
    figures["copied_share"] = round(figures["copied_rows"] / n, 4)
    figures["refused_rows"] = len(refused)
    figures["refused_share"] = round(len(refused) / n, 4)
    reach = found.reach()
    return Findings(
        MappingProxyType(figures), row_flags, MappingProxyType(refused), bool(parts), worst,
        reach.runs.astype(np.int32), np.maximum(reach.share, reach.letter_share).astype(np.float32),
        MappingProxyType(dict(closeness)),
    )  # fmt: skip


def index_gold(task: Task, *gold: Dataset) -> Index:
    """Index the texts of gold by group (`group`; a row without one is a group of its own)."""
    named = (zip(_groups(part, p), _rows(task, part), strict=True) for p, part in enumerate(gold))
    return Index.of(item for part in named for item in part)


# --- reading --------------------------------------------------------------------------------------------------------
def _batches(task: Task, dataset: Dataset) -> Iterator[list[Row]]:
    """Give each row's texts, some rows at a time; for text2text the target is text of a note too."""
    columns = [*task.text_columns, *([task.label_column] if task.kind == "text2text" else [])]
    for table in dataset.select_columns(columns).with_format("arrow").iter(batch_size=_READ):
        texts = (table[c].to_pylist() for c in columns)
        yield [tuple(t if isinstance(t, str) else str(t or "") for t in row) for row in zip(*texts, strict=True)]


def _rows(task: Task, dataset: Dataset) -> Iterator[Row]:
    return (row for rows in _batches(task, dataset) for row in rows)


def _groups(part: Dataset, p: int) -> Iterator[str]:
    groups = column_of(part, "group")
    return (f"row {p} {i}" if g is None else f"group {g}" for i, g in enumerate(groups))


def _sampled(dataset: Dataset, n: int, seed: int) -> Dataset:
    if len(dataset) <= n:
        return dataset
    return dataset.select(np.sort(np.random.default_rng(seed).choice(len(dataset), n, replace=False)))


# --- looking --------------------------------------------------------------------------------------------------------
class _Scan:
    """One pass over synthetic rows, batch after batch: what is seen of each row, in arrays and flags."""

    def __init__(
        self, task: Task, n: int, index: Index | None, finder: FindIdentifiers | None, canaries: Canaries | None
    ) -> None:
        self.index, self.rows = index, 0
        self.flags: list[set[str] | None] = [None] * n
        self._task, self._finder, self._canaries = task, finder, canaries
        self._leaks = [re.compile(p) for p in task.leaks]
        self._repeats = Repeats()
        self._reaches: list[Reach] = []
        self._kinds: Counter[str] = Counter()
        self._own_kinds: Counter[str] = Counter()
        self._canaries_found: set[int] = set()
        self._at = 0

    def raise_on(self, flag: str, rows: Iterable[int]) -> int:
        """Raise a flag on rows; give how many."""
        count = 0
        for i in rows:
            count += 1
            raised = self.flags[i]
            if raised is None:
                raised = self.flags[i] = set()
            raised.add(flag)
        return count

    def read(self, batches: Iterable[list[Row]]) -> None:
        """Look at all rows: at patterns here, at hashes in a thread beside, since numpy lets the interpreter go."""
        with ThreadPoolExecutor(1) as beside:
            measured: Future[None] | None = None
            for rows in batches:
                if measured is not None:
                    measured.result()
                measured = beside.submit(self._measure, rows)
                self._search(rows)
            if measured is not None:
                measured.result()

    def _measure(self, rows: list[Row]) -> None:
        if self.index is not None:
            self._reaches.append(self.index.reach(rows))
        self._repeats.add(Units.of([" ".join(row) for row in rows]))

    def _search(self, rows: list[Row]) -> None:
        for i, row in enumerate(rows, self._at):
            if any(row):
                self.rows += 1
                for flag in self._look(i, row):
                    self.raise_on(flag, [i])
        self._at += len(rows)

    def _look(self, i: int, row: Row) -> Iterator[str]:
        """Give the flags that one row raises by itself."""
        kinds = {kind for text in row for kind in identifiers_in(text)}
        own = self._own(i, row) if self._finder else set()
        self._kinds.update(kinds)
        self._own_kinds.update(own - kinds)
        if kinds & _SOFT_KINDS:
            yield "date_or_age"
        if kinds - _SOFT_KINDS or own:
            yield "identifier"
        if any(p.search(text) for p in self._leaks for text in row[: len(self._task.text_columns)]):
            yield "label_leak"
        if any(_refuses(text) for text in row):
            yield "refusal"
        if self._canaries and (found := self._canaries.found_in(row)):
            self._canaries_found |= found
            yield "canary"

    def _own(self, i: int, row: Row) -> set[str]:
        """Ask the user's finder; what it raises may hold text and is not shown."""
        assert self._finder is not None
        try:
            found = [kind for text in row if text for kind in self._finder(text)]
        except Exception as error:
            raise HfSynthError(f"find_identifiers failed at row {i} ({type(error).__name__})") from None
        kinds = {kind for kind in found if isinstance(kind, str) and _KIND.fullmatch(kind)}
        if len(kinds) < len(set(map(str, found))) or len(self._own_kinds.keys() | kinds) > _MOST_KINDS:
            raise ColumnError(
                "find_identifiers gives kinds, not what it found: names of lower case letters, digits and _, "
                f"{_MOST_KINDS} of them at most"
            )
        return kinds

    def reach(self) -> Reach:
        """Give what all rows reached; nothing without gold."""
        if self._reaches:
            return Reach(*map(np.concatenate, zip(*self._reaches, strict=True)))
        n = len(self.flags) if self.index is None else 0
        return Index.of([]).reach([("",)] * n)

    def overlap_figures(self) -> dict[str, int | float]:
        """Raise the flags of copies and count them."""
        if self.index is None:
            return {}
        reach = self.reach()
        return {
            "boilerplate_windows": self.index.boilerplate,
            "copies_of_gold": self.raise_on("copy_of_gold", np.flatnonzero(reach.same).tolist()),
            "copied_spans": self.raise_on("copied_span", np.flatnonzero(reach.spans()).tolist()),
            "near_copies": self.raise_on("near_copy", np.flatnonzero(reach.near()).tolist()),
            **_spread("", reach),
        }

    def other_figures(self) -> dict[str, int | float]:
        """Count what has nothing to do with gold, and raise the flags of repetition."""
        raised = Counter(flag for flags in self.flags if flags for flag in flags)
        figures: dict[str, int | float] = {f"with_{k}": self._kinds[k] for k in IDENTIFIERS if self._kinds[k]}
        figures |= {f"with_{k}": n + self._kinds[k] for k, n in sorted(self._own_kinds.items())}
        if self._canaries:
            figures["canaries_planted"] = len(self._canaries.planted)
            figures["canaries_found"] = len(self._canaries_found)
            figures["canary_rows"] = raised["canary"]
        figures["label_leaks"], figures["refusals"] = raised["label_leak"], raised["refusal"]
        exact, near = self._repeats.found()
        figures["duplicates"] = self.raise_on("duplicate", np.flatnonzero(exact).tolist())
        figures["near_duplicates"] = self.raise_on("near_duplicate", np.flatnonzero(near).tolist())
        return figures


def _refuses(text: str) -> bool:
    low = text.lower()
    return any(sign in low for sign in _REFUSING) and _REFUSAL.search(text) is not None


_SOFT_KINDS = frozenset(DATES_AND_AGES)


def _spread(prefix: str, reach: Reach) -> dict[str, int | float]:
    share = reach.share if len(reach.share) else np.zeros(1)
    return {
        f"{prefix}longest_run_words": int(reach.runs.max(initial=0)),
        f"{prefix}containment_mean": round(float(share.mean()), 4),
        f"{prefix}containment_p95": round(float(np.quantile(share, 0.95)), 4),
    }


def _echoes(scan: _Scan, synthetic: Dataset, gold: Sequence[Dataset]) -> Iterator[int]:
    """Give the rows that reach into a note that their own prompt showed."""
    assert scan.index is not None
    number: dict[str, int] = {}
    for p, part in enumerate(gold):
        if "id" in part.column_names:
            named = zip(part["id"], _groups(part, p), strict=True)
            number |= {str(id): scan.index.groups[group] for id, group in named if group in scan.index.groups}
    reach = scan.reach()
    follows = (reach.runs >= _ECHO_RUN) | ((reach.letter_share > _ECHO_SHARE) & (reach.letters >= _ECHO_LETTERS))
    for i in np.flatnonzero(follows & (reach.group >= 0)).tolist():
        if any(number.get(str(id)) == reach.group[i] for id in synthetic[i]["seed_ids"] or ()):
            yield i


def _control(
    task: Task, synthetic: Dataset, gold: Dataset, held_out: Dataset | None, seed: int
) -> tuple[dict[str, int | float], dict[str, list[float]]]:
    """Compare how near synthetic rows and held-out gold come to gold, on samples.

    `closeness_auc` is the chance that a synthetic row lies nearer to its closest row of gold than a held-out row does
    (ties count half): .5 when neither does. Its interval counts patients or notes, not rows.
    """
    mine = [" ".join(row) for row in _rows(task, _sampled(synthetic, _SAMPLE, seed)) if any(row)]
    control = None if held_out is None or not len(held_out) else _sampled(held_out, _SAMPLE, seed)
    theirs = [] if control is None else [" ".join(row) for row in _rows(task, control)]
    near = np.round(closest([*mine, *theirs], (" ".join(row) for row in _rows(task, gold))), 4)
    distances = {"synthetic": near[: len(mine)]}
    figures: dict[str, int | float] = {}
    if len(mine):
        figures["closest_median"] = round(float(np.median(distances["synthetic"])), 4)
    if held_out is not None and control is not None:
        distances["held_out"] = near[len(mine) :]
        reach = index_gold(task, gold).reach(list(_rows(task, control)))
        sizes = len(mine), len(set(_groups(control, 0)))
        found = auc(-distances["synthetic"], -distances["held_out"], sizes=sizes)
        figures |= {
            "held_out_rows": len(held_out),
            "held_out_over_limit": int((reach.spans() | reach.near()).sum()),
            **_spread("held_out_", reach),
            "held_out_closest_median": round(float(np.median(distances["held_out"])), 4),
            "closeness_auc": round(found.value, 4),
            "closeness_auc_low": round(found.low, 4),
            "closeness_auc_high": round(found.high, 4),
        }
    return figures, {name: values.tolist() for name, values in distances.items()}
