"""Audited rows, a stratified sample of synthetic rows with labels by a person: drawing it, reading it, its weights.

`audit_sample` draws by strata and records each row's inclusion probability, and `read_audited` reads the labels back.
Each row stands for 1 / its probability rows; the labelled rows of a stratum also stand for those left blank. The
generator's accuracy is the weighted share (`statistics.design_share`), and the noise matrix and `auto` use the weights.
Without a design the rows count as a simple random sample. `powered_accuracy` adds predictions on all rows.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError, RowError, TaskError
from hf_synth.evaluation.prediction_powered import prediction_powered
from hf_synth.evaluation.statistics import design_share, wilson
from hf_synth.gold.faults import Faults
from hf_synth.gold.readers import File
from hf_synth.gold.sources import as_source
from hf_synth.gold.spelling import LabelNames, cell_text, label_problem
from hf_synth.gold.tables import check_needed, read_batches
from hf_synth.models.linear import linear_fit
from hf_synth.task.labels import Floats, audited_labels, check_columns, column_of, id_places, label_indices, label_names
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

BY = ("label", "confidence")  # columns that strata are made of
UNSURE = 0.25  # share of the least confident rows
LEAST = 2  # rows drawn of each stratum at least: one has no variance
PROBABILITY, STRATUM = "inclusion_probability", "stratum"  # columns of a sample
DECISION, UNUSABLE = "decision", "reject"  # column of a reviewed sample, and its value for a note of no use
# What a spreadsheet takes for a formula, also behind line ends and in full width; a quote before it makes it a text.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


@dataclass(frozen=True)
class Audited(Mapping[Any, Any]):
    """True labels of a sample of synthetic rows, as a mapping, with the design of the sample.

    Args:
        labels: true labels by row id (or position).
        weights: 1 / inclusion probability of each row: how many rows it stands for; equal when empty.
        strata: stratum of each row, of a stratified sample.
        rejected: ids of rows that a person found unusable. They have no true label, and are no part of the mapping.

    Raises:
        ColumnError: a row has no weight or stratum while others do, or a weight is below 1.
    """

    labels: Mapping[Any, Any]
    weights: Mapping[Any, float] = field(default_factory=dict)
    strata: Mapping[Any, str] = field(default_factory=dict)
    rejected: frozenset[Any] = frozenset()

    def __post_init__(self) -> None:
        for name, values in (("weight", self.weights), ("stratum", self.strata)):
            if values and (lacking := sum(key not in values for key in self.labels)):
                raise ColumnError(f"{lacking} of {len(self.labels)} audited rows have no {name}: give one to each")
        if not all(np.isfinite(w) and w >= 1 for w in self.weights.values()):
            raise ColumnError("an audited row's weight is not 1 / its inclusion probability: it must be 1 or more")

    def __getitem__(self, key: Any) -> Any:
        return self.labels[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)


# --- samples --------------------------------------------------------------------------------------------------------
def audit_sample(task: Task, dataset: Dataset, n: int, *, by: Sequence[str] = ("label",), seed: int = 0) -> Dataset:
    """Draw a stratified sample of synthetic rows for a person to label.

    Strata get about equally many rows, so that rare labels and doubtful rows are audited, too. Rows are in random
    order, so that a person who stops early has labelled some of every stratum.

    Args:
        dataset: rows of `generate` or `correct`; rejected ones have no text and are left out.
        n: rows to draw.
        by: columns of the strata: "label" (the generator's), "confidence" (the quarter of the rows with the least
            `label_confidence`, and the others), both, or none for a simple random sample.

    Returns:
        Rows with `id`, `llm_label`, the texts, an empty `label`, `inclusion_probability` and `stratum`.

    Raises:
        TaskError: the task is not single_label.
        ColumnError: columns are missing, n is above the number of rows, or too small for the strata.
    """
    from datasets import Dataset, Features, Value

    if task.kind != "single_label":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: audited labels serve single_label tasks only")
    if unknown := [name for name in by if name not in BY]:
        raise ColumnError(f"a sample is drawn by {' or '.join(BY)}, not by {unknown[0]!r}")
    check_columns(task, dataset, "id", "llm_label", "label_status", what="the synthetic dataset")
    at = np.array([i for i, status in enumerate(dataset["label_status"]) if status != "rejected"], dtype=np.int64)
    strata = _strata(task, dataset, at, by)
    names, codes, sizes = np.unique(np.array(strata, dtype=object), return_inverse=True, return_counts=True)
    if not 0 < n <= len(at):
        raise ColumnError(f"there are {len(at)} rows to draw from: ask for 1 to {len(at)}, not {n}")
    if n < np.minimum(LEAST, sizes).sum():
        raise ColumnError(f"{n} rows are too few for {len(names)} strata: ask for {np.minimum(LEAST, sizes).sum()}")
    share = _allocate(sizes, n)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([rng.permutation(np.flatnonzero(codes == h))[: share[h]] for h in range(len(names))])
    drawn = rng.permutation(drawn)
    rows = dataset.select(at[drawn])
    columns: dict[str, Any] = {"id": list(rows["id"][:]), "llm_label": _names(task, rows)}
    columns |= {c: list(rows[c][:]) for c in task.text_columns}
    columns |= {"label": [""] * n, PROBABILITY: (share / sizes)[codes[drawn]].tolist()}
    columns[STRATUM] = [str(names[c]) for c in codes[drawn]]
    kinds = {c: Value("float64" if c == PROBABILITY else "string") for c in columns}
    return Dataset.from_dict(columns, features=Features(kinds))


def sample_csv(rows: Dataset) -> str:
    """Return a sample as CSV for a person's spreadsheet, in which no cell is a formula.

    A text that a spreadsheet would take for a formula gets a quote before it, which `read_audited` takes away.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([_as_text(name) for name in rows.column_names])
    writer.writerows([_as_text(value) for value in row.values()] for row in rows)
    return table.getvalue()


def _as_text(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _without_quote(value: Any) -> Any:
    return value[1:] if isinstance(value, str) and value[:1] == "'" and _FORMULA.match(value) else value


def read_audited(file: File, task: Task | None = None) -> Audited:
    """Read audited rows from a table with the columns id and label; rows without a label are left out.

    A quote that `sample_csv` set before a formula is taken away, and decimal commas are read. With the inclusion
    probabilities of `audit_sample`, labelled rows also stand for the blank rows of their stratum. A row whose column
    `decision` says "reject" is unusable: it has no label, and labelled rows do not stand for it.

    Args:
        task: labels are read as gold reads them, and those of another task are wrong; without it they stay as written.

    Raises:
        RowError: a column or an id is missing, an id comes twice, a label is none of the task's, an inclusion
            probability is not one, or no row of the table or of a stratum has a label. All wrong rows are in one error.
    """
    name = as_source(file).name
    labels, probabilities, strata, rejected = _read(file, name, task)
    if not labels:
        raise RowError(name, None, "holds no audited row")
    if not probabilities:
        return Audited(labels, rejected=rejected)
    audited, blank = _with_design(labels, probabilities, strata, rejected)
    if blank:
        strata_count = len(set(strata.values()))
        raise RowError(
            name, None, f"has no label in {len(blank)} of its {strata_count} strata: label some rows of each"
        )
    return audited


def _with_design(
    labels: Mapping[Any, Any],
    probabilities: Mapping[Any, float],
    strata: Mapping[Any, str],
    rejected: frozenset[Any] = frozenset(),
) -> tuple[Audited, list[str]]:
    """Return the labelled rows of a sample with their weights, and the strata in which no row was looked at.

    Rows that were looked at, labelled or rejected, stand for the blank rows of their stratum.

    Args:
        labels: true labels by row id.
        probabilities: the inclusion probability of each drawn row, by id.
        strata: the stratum of each drawn row, by id.
        rejected: ids of unusable rows.
    """
    drawn: dict[str, float] = defaultdict(float)  # rows that the drawn rows of a stratum stand for
    looked_at: dict[str, float] = defaultdict(float)  # rows that its rows with a decision stand for
    for id, probability in probabilities.items():
        drawn[strata[id]] += 1 / probability
        looked_at[strata[id]] += (id in labels or id in rejected) / probability
    blank = [stratum for stratum in drawn if not looked_at[stratum]]
    weights = {id: drawn[strata[id]] / looked_at[strata[id]] / probabilities[id] for id in labels}
    return Audited(labels, weights, {id: strata[id] for id in labels}, rejected), blank


def read_labels(file: File, task: Task | None = None) -> dict[str, str]:
    """Read the labels of a table with the columns id and label, by id; rows without a label are left out.

    Args:
        task: as for `read_audited`.

    Raises:
        RowError: a column or an id is missing, an id comes twice, a label is none of the task's, or an inclusion
            probability is not one.
    """
    return _read(file, as_source(file).name, task)[0]


def read_rejected(file: File) -> frozenset[str]:
    """Read the ids of the rows that a person found unusable: their column `decision` says "reject".

    Raises:
        RowError: as for `read_labels`.
    """
    return _read(file, as_source(file).name)[3]


def read_ids(file: File) -> list[str]:
    """Read the ids of a table with the columns id and label.

    Raises:
        RowError: as for `read_labels`.
    """
    return list(_read(file, as_source(file).name)[2])


def check_ids(file: File, known: Collection[str], what: str = "the synthetic rows") -> None:
    """Check that each row of a table of labels is of a known row.

    Args:
        known: ids of the rows that the labels are for.
        what: what these rows are, for the message.

    Raises:
        RowError: it is not; the message names each such row of the table.
    """
    faults, ids = Faults(as_source(file).name), set(known)
    for batch in read_batches(file, faults, needed=("id",)):
        for number, cell in zip(batch.numbers, batch.column("id"), strict=True):
            id = _cell_as_text(_without_quote(cell))
            if id is not None and id not in ids:
                faults.add(number, f"column 'id' holds no id of {what}: was the table made for other rows?")
    faults.check()


# --- designs --------------------------------------------------------------------------------------------------------
def design(audited: Mapping[Any, Any]) -> tuple[Floats, list[str] | None] | None:
    """Return the weights of audited rows in their order, (n,), and their strata if any; None without a design."""
    if not isinstance(audited, Audited) or not audited.weights or not audited.labels:
        return None
    weights = np.array([audited.weights[key] for key in audited], dtype=np.float64)
    strata = [audited.strata[key] for key in audited] if audited.strata else None
    return None if np.ptp(weights) == 0 and len(set(strata or ())) < 2 else (weights, strata)


def relative_weights(audited: Mapping[Any, Any]) -> dict[Any, float]:
    """Return the weight of each audited row, 1 on average."""
    weights, _ = design(audited) or (None, None)
    if weights is None or np.ptp(weights) == 0:
        return dict.fromkeys(audited, 1.0)
    return dict(zip(audited, (weights / weights.mean()).tolist(), strict=True))


def rekey(audited: Mapping[Any, Any], labels: Mapping[Any, Any], place: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Return audited rows under other keys, with their design; rows without a new key are left out.

    Args:
        labels: true labels by the new keys.
        place: the new key of each old one.
    """
    if not isinstance(audited, Audited):
        return labels
    weights = {place[key]: weight for key, weight in audited.weights.items() if key in place}
    strata = {place[key]: name for key, name in audited.strata.items() if key in place}
    return Audited(labels, weights, strata, frozenset(place[key] for key in audited.rejected if key in place))


def select_audited(audited: Mapping[Any, Any], keys: Iterable[Any]) -> Mapping[Any, Any]:
    """Return some of the audited rows, with their design."""
    rejected = audited.rejected if isinstance(audited, Audited) else frozenset()
    kept = [key for key in keys if key in audited or key in rejected]
    return rekey(audited, {key: audited[key] for key in kept if key in audited}, {key: key for key in kept})


def powered_accuracy(task: Task, rows: Dataset, audited: Mapping[str, int | str], gold: Dataset) -> dict[str, Any]:
    """Estimate the generator's accuracy from audited rows and predictions on all rows, with its 95% interval.

    A linear head on frozen features, trained on gold alone, predicts how likely each row's label is right. The interval
    (`evaluation.prediction_powered`) is narrower than that of the audited rows alone as far as the head is right.

    Args:
        rows: rows of `generate` or `correct`; rejected ones are left out.
        audited: true labels by row id, with the design of the sample if it has one.
        gold: any gold rows.

    Returns:
        Figures for a policy; empty with fewer than two audited rows, or where the interval is no narrower than that of
        the audited rows alone.

    Raises:
        ColumnError: an id is not among the rows, or a label is none of the task's.
    """
    check_columns(task, rows, "id", "llm_label", "label_status", what="the synthetic dataset")
    used = rows.select([i for i, status in enumerate(rows["label_status"][:]) if status != "rejected"])
    place = id_places(used["id"][:], audited, "the synthetic rows")
    if len(audited) < LEAST:
        return {}
    meant = label_indices(task, used, "llm_label")
    truth = audited_labels(task, {place[id]: label for id, label in audited.items()})
    chance = linear_fit(task, gold, used)(gold)(used)[np.arange(len(used)), meant]
    at = np.array(list(truth), dtype=np.int64)
    weights, strata = design(audited) or (None, None)
    right = meant[at] == np.array(list(truth.values()))
    found = prediction_powered(right, chance[at], chance, weights=weights, strata=strata, census=True)
    alone = design_share(right, weights, strata)[1:] if weights is not None else wilson(int(right.sum()), len(right))
    if not found.factor or found.high - found.low >= alone[1] - alone[0]:
        return {}
    return {
        "generator_accuracy_audited_and_predicted": round(found.mean, 4),
        "generator_accuracy_audited_and_predicted_ci95": [round(found.low, 4), round(found.high, 4)],
    }


# --- parts of drawing and reading -----------------------------------------------------------------------------------
def _read(
    file: File, name: str, task: Task | None = None
) -> tuple[dict[str, str], dict[str, float], dict[str, str], frozenset[str]]:
    """Read labels, inclusion probabilities and strata by id, and the ids of unusable rows.

    Only rows with a label are in the first.
    """
    labels: dict[str, str] = {}
    probabilities: dict[str, float] = {}
    strata: dict[str, str] = {}
    rejected: set[str] = set()
    faults = Faults(name)
    names = LabelNames(task.labels) if task is not None and task.kind == "single_label" else None
    for batch in read_batches(file, faults, needed=("id",)):
        check_needed(file, batch, ("id", "label"))
        names_read = ("id", "label", STRATUM, PROBABILITY, DECISION)
        columns = {c: [_without_quote(v) for v in batch.column(c)] for c in names_read}
        designed = PROBABILITY in batch.columns
        for number, id, cell, stratum, probability, decision in zip(batch.numbers, *columns.values(), strict=True):
            id, label = _cell_as_text(id), _cell_as_text(cell)
            if id is None:
                faults.add(number, "column 'id' is empty: each row needs an id")
                continue
            if id in strata:
                faults.add(number, "column 'id' holds the id of an earlier row: leave one of the two out")
            strata[id] = cell_text(stratum) or "all"
            if designed:
                probabilities[id] = _probability(probability, number, faults)
            if str(decision or "").strip().lower() == UNUSABLE:
                if label is not None:
                    faults.add(
                        number,
                        f"columns 'label' and {DECISION!r} are both filled, with {UNUSABLE!r}: leave one empty",
                    )
                rejected.add(id)
                continue
            if label is None:
                continue
            found = label if names is None else names.find(cell)
            if found is None and names is not None:
                faults.add(number, label_problem(names, "label", cell, None))
            else:
                labels[id] = str(found)
    faults.check()
    return labels, probabilities, strata, frozenset(rejected)


def _strata(task: Task, dataset: Dataset, at: npt.NDArray[np.int64], by: Sequence[str]) -> list[str]:
    parts: list[list[str]] = []
    if "label" in by:
        parts.append(_names(task, dataset.select(at)))  # a rejected row has no label
    if "confidence" in by:
        confidence = column_of(dataset, "label_confidence")
        if any(confidence[i] is None for i in at):
            raise ColumnError("a sample by confidence needs corrected rows: these have no label_confidence")
        order = np.argsort(np.array([confidence[i] for i in at], dtype=np.float64), kind="stable")
        unsure = np.zeros(len(at), bool)
        unsure[order[: round(UNSURE * len(at))]] = True
        parts.append(["least sure" if u else "surer" for u in unsure])
    return [", ".join(names) for names in zip(*parts, strict=True)] if parts else ["all"] * len(at)


def _names(task: Task, rows: Dataset) -> list[str]:
    """Return the names of the generator's labels."""
    typed = label_names(rows.features["llm_label"])
    return [v if isinstance(v, str) else (typed or task.labels)[v] for v in rows["llm_label"][:]]


def _allocate(sizes: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """Allocate n rows evenly to strata, at most the size of each, (H,)."""
    share = np.zeros(len(sizes), dtype=np.int64)
    for _ in range(len(sizes)):
        left = n - int(share.sum())
        room = np.flatnonzero(share < sizes)
        if not left or not len(room):
            break
        more = np.full(len(room), left // len(room))
        more[np.argsort(-sizes[room], kind="stable")[: left % len(room)]] += 1  # the remainder to the largest
        share[room] += np.minimum(more, (sizes - share)[room])
    return share


def _cell_as_text(cell: Any) -> str | None:
    """Return a text as it is, and a number as text; None for an empty cell."""
    return cell if isinstance(cell, str) and cell.strip(" ") else cell_text(cell)


def _probability(value: object, number: int, faults: Faults) -> float:
    """Return an inclusion probability; a comma may stand for the point ("0,25"), as in German spreadsheets."""
    try:
        probability = float(str(value).strip().replace(",", "."))
    except ValueError:
        probability = 0.0
    if not 0 < probability <= 1:
        faults.add(number, f"column {PROBABILITY!r} holds no number above 0 and at most 1")
        return 1.0
    return probability
