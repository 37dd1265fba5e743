"""Labels that a person gives to some synthetic rows: which rows are drawn, and what each stands for.

A sample says something of all rows only by its design: rows that were drawn more often than others count for less.
`audit_sample` draws by strata and tells each row's chance; `reading.read_audited` reads the labels back with it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError, RowError, TaskError
from hf_synth.gold.readers import File, read_table
from hf_synth.gold.sources import as_source
from hf_synth.task.labels import check_columns, label_names
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Floats = npt.NDArray[np.float64]
BY = ("label", "confidence")  # what strata can be made of
UNSURE = 0.25  # share of rows that are the least sure ones
LEAST = 2  # rows of a stratum that are drawn at least: one says nothing of how rows differ
PROBABILITY, STRATUM = "inclusion_probability", "stratum"  # columns of a sample


@dataclass(frozen=True)
class Audited(Mapping[Any, Any]):
    """True labels of a sample of synthetic rows, with its design. Who needs no weights reads it as a plain mapping.

    Args:
        labels: true labels by row id (or position).
        weights: of each row 1 / the chance with which it was drawn: how many rows it stands for; equal where empty.
        strata: the stratum of each row, where rows were drawn by strata.

    Raises:
        ColumnError: a row has no weight or stratum while others do, or a weight is below 1.
    """

    labels: Mapping[Any, Any]
    weights: Mapping[Any, float] = field(default_factory=dict)
    strata: Mapping[Any, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, told in (("weight", self.weights), ("stratum", self.strata)):
            if told and (lacking := sum(key not in told for key in self.labels)):
                raise ColumnError(f"{lacking} of {len(self.labels)} audited rows have no {what}: give one to each")
        if not all(np.isfinite(w) and w >= 1 for w in self.weights.values()):
            raise ColumnError("an audited row's weight is 1 / its chance of being drawn: a number of 1 or more")

    def __getitem__(self, key: Any) -> Any:
        return self.labels[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.labels)

    def __len__(self) -> int:
        return len(self.labels)


def design(audited: Mapping[Any, Any]) -> tuple[Floats, list[str] | None] | None:
    """Give the weight of each audited row in its order, (n,), and its stratum if there are any.

    None where it is a simple random sample, as far as one is told.
    """
    if not isinstance(audited, Audited) or not audited.weights or not audited.labels:
        return None
    weights = np.array([audited.weights[key] for key in audited], dtype=np.float64)
    strata = [audited.strata[key] for key in audited] if audited.strata else None
    return None if np.ptp(weights) == 0 and len(set(strata or ())) < 2 else (weights, strata)


def relative_weights(audited: Mapping[Any, Any]) -> dict[Any, float]:
    """Give the weight of each audited row, 1 on average."""
    told = design(audited)
    if told is None or np.ptp(told[0]) == 0:
        return dict.fromkeys(audited, 1.0)
    return dict(zip(audited, (told[0] / told[0].mean()).tolist(), strict=True))


def rekeyed(audited: Mapping[Any, Any], labels: Mapping[Any, Any], place: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Give other names to audited rows, whose design they keep; rows without one leave.

    Args:
        labels: true labels by the new names.
        place: the new name of each old one.
    """
    if not isinstance(audited, Audited):
        return labels
    weights = {place[key]: weight for key, weight in audited.weights.items() if key in place}
    return Audited(labels, weights, {place[key]: name for key, name in audited.strata.items() if key in place})


def part_of(audited: Mapping[Any, Any], keys: Iterable[Any]) -> Mapping[Any, Any]:
    """Take some of the audited rows, with their design."""
    kept = [key for key in keys if key in audited]
    return rekeyed(audited, {key: audited[key] for key in kept}, {key: key for key in kept})


# --- drawing --------------------------------------------------------------------------------------------------------
def audit_sample(task: Task, dataset: Dataset, n: int, *, by: Sequence[str] = ("label",), seed: int = 0) -> Dataset:
    """Draw synthetic rows for a person to label.

    Each stratum gives about equally many rows, so that rare labels and doubtful rows are looked at, too; which chance
    each row had stands beside it. Rows come in random order: whoever stops early has looked at some of all strata.

    Args:
        dataset: rows of `generate` or `correct`; rejected ones have no text and are left out.
        n: rows to draw.
        by: what strata are made of: "label" (what the generator meant), "confidence" (the quarter of the rows that
            correction is least sure of, and the others), both, or nothing for a simple random sample.

    Returns:
        Rows with `id`, `llm_label`, the texts, an empty `label`, `inclusion_probability` and `stratum`.

    Raises:
        TaskError: the task is not single_label.
        ColumnError: columns are missing, or there are too few rows for n or too few of n for the strata.
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
    share = _allotted(sizes, n)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([rng.permutation(np.flatnonzero(codes == h))[: share[h]] for h in range(len(names))])
    drawn = rng.permutation(drawn)
    rows = dataset.select(at[drawn])
    columns: dict[str, Any] = {"id": list(rows["id"]), "llm_label": _names(task, rows)}
    columns |= {c: list(rows[c]) for c in task.text_columns}
    columns |= {"label": [""] * n, PROBABILITY: (share / sizes)[codes[drawn]].tolist()}
    columns[STRATUM] = [str(names[c]) for c in codes[drawn]]
    kinds = {c: Value("float64" if c == PROBABILITY else "string") for c in columns}
    return Dataset.from_dict(columns, features=Features(kinds))


def _strata(task: Task, dataset: Dataset, at: npt.NDArray[np.int64], by: Sequence[str]) -> list[str]:
    parts: list[list[str]] = []
    if "label" in by:
        parts.append(_names(task, dataset.select(at)))  # a rejected row has no label
    if "confidence" in by:
        told = list(dataset["label_confidence"]) if "label_confidence" in dataset.column_names else []
        if not told or any(told[i] is None for i in at):
            raise ColumnError("a sample by confidence needs corrected rows: these have no label_confidence")
        order = np.argsort(np.array([told[i] for i in at], dtype=np.float64), kind="stable")
        unsure = np.zeros(len(at), bool)
        unsure[order[: round(UNSURE * len(at))]] = True
        parts.append(["least sure" if u else "surer" for u in unsure])
    return [", ".join(told) for told in zip(*parts, strict=True)] if parts else ["all"] * len(at)


def _names(task: Task, rows: Dataset) -> list[str]:
    """Give the names of the labels that the generator meant."""
    typed = label_names(rows.features["llm_label"])
    return [v if isinstance(v, str) else (typed or task.labels)[v] for v in rows["llm_label"]]


def _allotted(sizes: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    """Share n rows out evenly among strata, none more than it has, (H,)."""
    share = np.zeros(len(sizes), dtype=np.int64)
    for _ in range(len(sizes)):
        left = n - int(share.sum())
        room = np.flatnonzero(share < sizes)
        if not left or not len(room):
            break
        more = np.full(len(room), left // len(room))
        more[np.argsort(-sizes[room], kind="stable")[: left % len(room)]] += 1  # the odd ones to the largest
        share[room] += np.minimum(more, (sizes - share)[room])
    return share


def read_audited(file: File) -> Audited:
    """Read the labels that a person gave to some rows: a table with the columns id and label.

    Rows without a label were not looked at, and are passed over. A table of `audited.audit_sample` also says with which
    chance each row was drawn: labelled rows then stand for the rows of their stratum that were not looked at, too.

    Raises:
        RowError: a column or an id is missing, an id comes twice, a chance is none, no row has a label, or none of a
            stratum.
    """
    labels: dict[str, str] = {}
    chances: dict[str, float] = {}
    strata: dict[str, str] = {}
    name = as_source(file).name
    for number, row in read_table(file):
        if "label" not in row or row.get("id") in (None, ""):
            raise RowError(name, number, "needs an id and a label: a table of audited rows has these two columns")
        id, label = str(row["id"]), row["label"]
        if id in strata:
            raise RowError(name, number, "names an id that came before")
        strata[id] = str(row.get(STRATUM) or "all")
        if PROBABILITY in row:
            chances[id] = _chance(row[PROBABILITY], name, number)
        if label not in (None, ""):
            labels[id] = str(label)
    if not labels:
        raise RowError(name, None, "holds no audited row")
    if not chances:
        return Audited(labels)
    stands: dict[str, float] = defaultdict(float)  # for how many rows those drawn of a stratum stand
    looked: dict[str, float] = defaultdict(float)  # and those of them that were labelled
    for id, chance in chances.items():
        stands[strata[id]] += 1 / chance
        looked[strata[id]] += (id in labels) / chance
    if blank := [stratum for stratum in stands if not looked[stratum]]:
        raise RowError(name, None, f"has no label in {len(blank)} of its {len(stands)} strata: label some rows of each")
    weights = {id: stands[strata[id]] / looked[strata[id]] / chances[id] for id in labels}
    return Audited(labels, weights, {id: strata[id] for id in labels})


def _chance(told: object, name: str, number: int) -> float:
    try:
        chance = float(str(told))
    except ValueError:
        chance = 0.0
    if not 0 < chance <= 1:
        raise RowError(name, number, f"{PROBABILITY} is not a number above 0 and at most 1")
    return chance
