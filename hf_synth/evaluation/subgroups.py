"""Fairness by subgroup of patients: scores, share of corrected labels, flips under counterfactual swaps.

Subgroups come from a column of the dataset, else from what `demographics` reads in the note; "unknown" is one too.
Every interval is over patients, without correction for the number of subgroups: of twenty subgroups that do not differ,
about one interval leaves 0 out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError, TaskError
from hf_synth.evaluation.demographics import ATTRIBUTES, UNKNOWN, band_of, read_attribute, swap_attribute
from hf_synth.evaluation.evaluation import predict, truth
from hf_synth.evaluation.intervals import Limits, mean_limits, unpaired_limits
from hf_synth.evaluation.metrics import group_codes
from hf_synth.evaluation.scoring import Prepared, prepare
from hf_synth.reports.page import markdown_table
from hf_synth.task.labels import check_columns, column_of, groups_of, judged_mask, texts_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Array = npt.NDArray[Any]
COLUMNS = {"sex": ("sex", "gender"), "age": ("age",), "race": ("race", "ethnicity")}
FEW_PATIENTS = 10  # a subgroup of fewer patients has values but no intervals
_FEW = f"fewer than {FEW_PATIENTS} patients"
_SEXES = {"f": "female", "female": "female", "woman": "female", "m": "male", "male": "male", "man": "male"}


@dataclass(frozen=True)
class Subgroup:
    """Figures of one subgroup.

    Args:
        attribute: "sex", "age", "race" or a column's name.
        name: of the subgroup, e.g. "female".
        n: rows in it.
        patients: groups that its rows come from.
        values: figure by name.
        ci95: 95% intervals over patients, as in `Scores`; empty below `FEW_PATIENTS`.
        behind: each value minus that of all other rows, with its interval: (difference, low, high).
        no_interval: why each other value has no interval.
    """

    attribute: str
    name: str
    n: int
    patients: int
    values: dict[str, float]
    ci95: dict[str, tuple[float, float]] = field(default_factory=dict)
    behind: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    no_interval: dict[str, str] = field(default_factory=dict)


def find_subgroups(
    task: Task, dataset: Dataset, columns: Mapping[str, str] | Sequence[str] | None = None
) -> dict[str, list[str]]:
    """Name the subgroup of each row by each attribute: from a column where there is one, else from the note.

    Args:
        columns: attribute -> column, or names of columns that are attributes; those of COLUMNS when None. An age is a
            number of years; sex may be M, F or a word; other values are names as they stand.

    Returns:
        sex, age, race and the attributes of `columns` -> a name for each row; "unknown" without information.

    Raises:
        ColumnError: a column or a text is missing.
    """
    check_columns(task, dataset, *task.text_columns)
    others = set(dataset.column_names) - set(task.text_columns)
    if columns is None:
        named = {a: c for a, names in COLUMNS.items() for c in names[::-1] if c in others}
    else:
        named = dict(columns) if isinstance(columns, Mapping) else {c: c for c in columns}
        check_columns(task, dataset, *named.values())
    texts = texts_of(task, dataset)
    return {
        attribute: [_subgroup_name(attribute, value) for value in dataset[named[attribute]]]
        if attribute in named
        else [read_attribute(text, attribute) for text in texts]
        for attribute in dict.fromkeys((*ATTRIBUTES, *named))
    }


def score_subgroups(
    task: Task,
    dataset: Dataset,
    predicted: Any,
    *,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[Subgroup]:
    """Score predictions on each subgroup, and compare it with all other rows.

    Args:
        dataset: rows with true labels.
        predicted: predictions of a model (`evaluation.predict`), as `evaluation.score` takes them.
        columns: see `find_subgroups`.
        n_bootstrap, seed: as in `evaluation.score`.

    Raises:
        ColumnError: a column, text or label is missing, or shapes do not fit.
    """
    labels, groups = truth(task, dataset), groups_of(dataset)
    judged = judged_mask(task, dataset) if task.kind == "multi_label" else None
    codes = group_codes(groups, len(labels))
    grouped = groups is not None and any(g is not None for g in groups)

    def side(rows: Array) -> _Side | None:
        at = np.flatnonzero(rows)
        if not len(at) or (judged is not None and not judged[at].any()):
            return None
        patients, places = np.unique(codes[at], return_inverse=True)
        guess, true, known = (None if v is None else [v[i] for i in at] for v in (predicted, labels, judged))
        names = [f"{place:09d}" for place in places] if grouped else None  # numbered in the order of `patients`
        return _Side(len(at), prepare(task, guess, true, names, judged=known, limits=n_bootstrap > 0), patients)

    lines = []
    for attribute, names in find_subgroups(task, dataset, columns).items():
        for name in sorted(set(names)):
            inside = np.array(names) == name
            if (own := side(inside)) is not None:
                lines.append(_scored_subgroup(attribute, name, own, side(~inside)))
    return lines


def flips_by_subgroup(
    task: Task,
    corrected: Dataset,
    *,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[Subgroup]:
    """Compute the shares of rows that correction `relabelled` and `dropped`, by subgroup.

    Args:
        corrected: rows of `correct`; gold rows and rejected rows are left out.
        n_bootstrap, seed: as in `evaluation.score`.

    Raises:
        ColumnError: the rows were not corrected, or none is left.
    """
    check_columns(task, corrected, "label_status")
    sources = column_of(corrected, "source")
    status = corrected["label_status"][:]
    rows = [i for i, s in enumerate(status) if s in ("kept", "relabelled", "dropped") and sources[i] != "gold"]
    if not rows:
        raise ColumnError("no row was corrected: column 'label_status' holds no kept, relabelled or dropped")
    dataset = corrected.select(rows)
    facts = {name: np.array([status[i] == name for i in rows]) for name in ("relabelled", "dropped")}
    return [
        subgroup
        for attribute, names in find_subgroups(task, dataset, columns).items()
        for subgroup in _shares(attribute, names, facts, groups_of(dataset), limits=n_bootstrap > 0)
    ]


def swap_counterfactual(
    task: Task,
    model: str | Path | Callable[[Dataset], Any],
    dataset: Dataset,
    attribute: str = "sex",
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> list[Subgroup]:
    """Compute how often a prediction flips when only the patient's sex, age or race words are swapped in the note.

    Labels of the tasks here do not depend on these, so that every flip is an error. `demographics.swap_attribute` says
    what is swapped; notes without anything to swap are not counted.

    Args:
        model: folder or repo id of a trained classifier, or a function of rows to probabilities or labels.
        dataset: rows with texts; labels are not needed.
        attribute: "sex", "age" or "race".
        n_bootstrap, seed: as in `evaluation.score`.

    Returns:
        One line for each subgroup whose notes could be swapped, and one named "all": `flipped` is the share of
        predictions that flip, `moved` the mean largest change of a probability (where there are probabilities).

    Raises:
        TaskError: the task is text2text, or the attribute is unknown.
    """
    if task.kind == "text2text":
        raise TaskError(f"task {task.full_name!r} writes texts: swaps are counted for labels only")
    if attribute not in ATTRIBUTES:
        raise TaskError(f"cannot swap {attribute!r}; choose one of {', '.join(ATTRIBUTES)}")
    names = find_subgroups(task, dataset, {})[attribute]
    texts = {c: list(dataset[c][:]) for c in task.text_columns}
    other = {c: [swap_attribute(t, attribute, n) for t, n in zip(texts[c], names, strict=True)] for c in texts}
    rows = [i for i in range(len(dataset)) if any(other[c][i] != texts[c][i] for c in texts)]
    if not rows:
        return []
    before = dataset.select(rows)
    after = before
    for column in texts:
        after = after.remove_columns(column).add_column(column, [other[column][i] for i in rows])
    predictions = model if callable(model) else lambda rows: predict(task, model, rows)
    first, second = (np.asarray(predictions(notes)) for notes in (before, after))
    if first.shape != second.shape or len(first) != len(rows):
        raise ColumnError(f"{len(rows)} rows need a prediction each; got shapes {first.shape} and {second.shape}")
    flipped = (_labels(task, first) != _labels(task, second)).reshape(len(rows), -1).any(1)
    facts = {"flipped": flipped} | ({"moved": np.abs(first - second).max(1)} if first.ndim == 2 else {})
    by_name = (["all"] * len(rows), [names[i] for i in rows])
    groups, limits = groups_of(before), n_bootstrap > 0
    return [s for by in by_name for s in _shares(attribute, by, facts, groups, limits=limits)]


def subgroup_table(subgroups: Sequence[Subgroup], metrics: Sequence[str] | None = None) -> str:
    """Write a Markdown table: a row a subgroup, its figures with 95% intervals, the first minus that of all others.

    Args:
        metrics: figures to include; the first three when None.
    """
    known = list(dict.fromkeys(m for s in subgroups for m in s.values))
    columns = [m for m in (metrics or known[:3]) if m in known]
    rows = []
    for s in subgroups:
        figures = [_figure(s.values.get(m), s.ci95.get(m)) for m in columns]
        gap = s.behind.get(columns[0]) if columns else None
        behind = f"{gap[0]:+.3f} ({gap[1]:+.3f} to {gap[2]:+.3f})" if gap else "-"
        rows.append([s.attribute, s.name, f"{s.n:,}", f"{s.patients:,}", *figures, behind])
    header = ["attribute", "subgroup", "rows", "patients", *(f"{m} (95% CI)" for m in columns)]
    return markdown_table([*header, f"{columns[0] if columns else ''} minus all others"], rows)


def _subgroup_name(attribute: str, value: Any) -> str:
    name = "" if value is None else str(value).strip()
    if attribute == "age" and name:
        try:
            return band_of(float(name))
        except ValueError:
            return name.lower()  # already a band
    return (_SEXES.get(name.lower(), name.lower()) if attribute == "sex" else name.lower()) or UNKNOWN


@dataclass(frozen=True)
class _Side:
    """The n rows of a subgroup, or all other rows, and their patients in the order of the sums."""

    n: int
    prepared: Prepared
    patients: Array


def _scored_subgroup(attribute: str, name: str, own: _Side, rest: _Side | None) -> Subgroup:
    scores, patients = own.prepared, len(own.patients)
    subgroup = Subgroup(attribute, name, own.n, patients, scores.values)
    if patients < FEW_PATIENTS:
        subgroup.no_interval.update(dict.fromkeys(scores.values, _FEW))
        return subgroup
    subgroup.ci95.update(scores.ci95)
    subgroup.no_interval.update(scores.no_interval)
    if rest is None or len(rest.patients) < FEW_PATIENTS:
        return subgroup
    others = rest.prepared
    _, here, there = np.intersect1d(own.patients, rest.patients, return_indices=True)
    for m in scores.ci95.keys() & others.ci95.keys():
        correlation = 0.0
        if len(here):  # patients with rows on both sides, e.g. of two ages
            effects = scores.effects(m), others.effects(m)
            if effects[0] is None or effects[1] is None:
                continue
            correlation = _correlation(effects[0], effects[1], here, there)
        pair = (scores.values[m], scores.ci95[m]), (others.values[m], others.ci95[m])
        subgroup.behind[m] = _difference(*pair, correlation)
    return subgroup


def _difference(
    own: tuple[float, Limits], rest: tuple[float, Limits], correlation: float
) -> tuple[float, float, float]:
    """Return the difference of two values, and its interval."""
    value = own[0] - rest[0]
    a, b = ((low - score, high - score) for score, (low, high) in (own, rest))
    return (value, *unpaired_limits(value, a, b, correlation))


def _correlation(a: Array, b: Array, here: Array, there: Array) -> float:
    """Return the correlation of two scores from the effects of their groups, of which some are on both sides."""
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a[here] @ b[there]) / spread if spread else 0.0


def _shares(
    attribute: str, names: Sequence[str], facts: Mapping[str, Array], groups: Any, *, limits: bool
) -> list[Subgroup]:
    """Compute the mean of each fact (N,) in each subgroup, and its difference from that of all other rows."""
    codes, named, subgroups = group_codes(groups, len(names)), np.array(names), []
    for name in sorted(set(names)):
        sides = [np.flatnonzero(rows) for rows in (named == name, named != name)]
        patients = [np.unique(codes[rows], return_inverse=True) for rows in sides]
        n_patients, n_others = (len(found) for found, _ in patients)
        values = {fact: float(every[sides[0]].mean()) for fact, every in facts.items()}
        subgroup = Subgroup(attribute, name, len(sides[0]), n_patients, values)
        subgroups.append(subgroup)
        if n_patients < FEW_PATIENTS:
            subgroup.no_interval.update(dict.fromkeys(values, _FEW))
        elif limits:
            _, here, there = np.intersect1d(patients[0][0], patients[1][0], return_indices=True)
            for fact, every in facts.items():
                subgroup.ci95[fact] = mean_limits(every[sides[0]], patients[0][1])
                if n_others < FEW_PATIENTS:
                    continue
                own, rest = (every[rows].astype(float) for rows in sides)
                mine, theirs = (at for _, at in patients)
                ours, others = (np.bincount(at, part - part.mean()) for part, at in ((own, mine), (rest, theirs)))
                a, b = ((float(part.mean()), mean_limits(part, at)) for part, at in ((own, mine), (rest, theirs)))
                subgroup.behind[fact] = _difference(a, b, _correlation(ours, others, here, there))
    return subgroups


def _labels(task: Task, predicted: Array) -> Array:
    if task.kind == "multi_label":
        return predicted > 0.5
    return predicted.argmax(1) if predicted.ndim == 2 else predicted


def _figure(value: float | None, pair: tuple[float, float] | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f} ({pair[0]:.3f}-{pair[1]:.3f})" if pair else f"{value:.3f}"
