"""Description of a corrected dataset: counts by status, reason and label, and the figures of its policy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from hf_synth.errors import ColumnError
from hf_synth.reports.page import markdown_table
from hf_synth.task.columns import STATUSES
from hf_synth.task.display import Displayed, listed
from hf_synth.task.labels import column_of, label_names

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_synth.correction.policy import Policy


_HEADINGS = {"meant": "generated", "came": "relabelled to it", "now": "in the result"}  # of counts by label


@dataclass(frozen=True, repr=False)
class Description(Displayed):
    """Figures of a corrected (or merely generated) dataset, without any text.

    Args:
        rows: all rows, rejected ones among them.
        statuses: rows by status.
        reasons: rows by status and reason, as "kept: agrees".
        labels: for each label the rows that the generator meant for it; those kept, relabelled away and dropped of
            these; those that came from other labels, and those that carry it now.
        moved: used rows by the generator's label (first index) and current label, K x K; empty without single labels.
        lost: labels of the generator that no row carries any more.
        weight: sum of training weights of the used rows.
        confidence: mean confidence of the current labels of the used rows; None where there is none, as for the labels
            of a rule.
        policy: the policy's method, figures and warnings; empty when not given.
        warnings: sentences for whoever trains on the rows: those of the policy, then `doubts`.
        doubts: what speaks against the labels and what to do about it: a corrector no better than chance, labels that
            it never finds, labels without a row. A report and a card state them first.
    """

    rows: int
    statuses: Mapping[str, int]
    reasons: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    moved: tuple[tuple[int, ...], ...]
    lost: tuple[str, ...]
    weight: float
    confidence: float | None
    policy: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def summary(self) -> tuple[str, list[tuple[str, str]]]:
        """Return the rows by status; the policy, the rows by label, and the warnings."""
        statuses = listed(f"{n:,} {status}" for status, n in self.statuses.items())
        labels = listed(f"{name} {of['meant']:,} -> {of['now']:,}" for name, of in self.labels.items())
        confidence = "" if self.confidence is None else f", mean confidence {self.confidence:.2f}"
        lines = [("policy", f"{self.policy['method']}{confidence}" if self.policy else "")]
        lines += [("labels, generated -> now", labels), ("warnings", "; ".join(self.warnings))]
        return f"{self.rows:,} rows: {statuses}", lines

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        statuses = ", ".join(f"{n:,} {status}" for status, n in self.statuses.items())
        parts = [f"{self.rows:,} rows: {statuses}"]
        if self.labels:
            columns = [_HEADINGS.get(name, name) for name in next(iter(self.labels.values()))]
            table = [[name, *counts.values()] for name, counts in self.labels.items()]
            parts.append(markdown_table(["label", *columns], table))
        parts.append(markdown_table(["status and reason", "rows"], list(self.reasons.items())))
        if self.policy:
            figures = {k: _printable(v) for k, v in self.policy["figures"].items() if _printable(v) is not None}
            why = figures.pop("auto_why", None)
            lines = [["method", self.policy["method"]], *([k.replace("_", " "), v] for k, v in figures.items())]
            parts.append(markdown_table(["policy", ""], lines))
            if why is not None:
                parts.append(f"Chosen by auto: {why}.")
        parts += [f"Note: {line}." for line in self.warnings]
        return "\n\n".join(parts)


def describe(dataset: Dataset, policy: Policy | Mapping[str, Any] | None = None) -> Description:
    """Describe what correction did to a dataset.

    Args:
        dataset: rows of `correct`, or of `generate`.
        policy: the policy that was applied, or its JSON (in the folder's manifest).

    Raises:
        ColumnError: the rows have no `label_status` or no `llm_label`.
    """
    missing = [c for c in ("label_status", "reason", "llm_label") if c not in dataset.column_names]
    if missing:
        raise ColumnError(f"only generated or corrected rows can be described: these lack {', '.join(missing)}")
    status = column_of(dataset, "label_status")
    pairs = Counter(zip(status, column_of(dataset, "reason"), strict=True))
    if unknown := set(status) - set(STATUSES):
        raise ColumnError(f"label_status has {len(unknown)} values that are none of {', '.join(STATUSES)}")
    order = sorted(pairs.items(), key=lambda item: (STATUSES.index(item[0][0]), -item[1]))
    used = [i for i, s in enumerate(status) if s in ("kept", "relabelled")]
    weights = column_of(dataset, "weight", 1.0)
    confidence = column_of(dataset, "label_confidence")
    known = [confidence[i] for i in used if confidence[i] is not None]
    plain = _plain(policy)
    labels, moved = _by_label(dataset, status)
    lost = tuple(name for name, counts in labels.items() if counts["meant"] and not counts["now"])
    doubts = _doubts(plain, labels, lost)
    return Description(
        rows=len(status),
        statuses={s: n for s in STATUSES if (n := status.count(s))},
        reasons={f"{s}: {reason}": n for (s, reason), n in order},
        labels=labels,
        moved=moved,
        lost=lost,
        weight=round(float(sum(weights[i] for i in used if weights[i] is not None)), 3),
        confidence=round(sum(known) / len(known), 4) if known and min(known) < 1 else None,
        policy=plain,
        warnings=(*plain.get("warnings", ()), *doubts),
        doubts=doubts,
    )


def _plain(policy: Policy | Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the JSON of a policy with method, figures and warnings; empty where it is not known.

    A folder from elsewhere may hold a policy of any form: what has another form counts as not there.
    """
    if policy is None:
        return {}
    plain = dict(policy) if isinstance(policy, Mapping) else policy.to_json()
    method, figures, warnings = (plain.get(name) for name in ("method", "figures", "warnings"))
    if not isinstance(method, str):
        return {}
    lines = [line for line in warnings if isinstance(line, str)] if isinstance(warnings, list | tuple) else []
    return plain | {"figures": figures if isinstance(figures, Mapping) else {}, "warnings": lines}


def _doubts(policy: Mapping[str, Any], labels: Mapping[str, Mapping[str, int]], lost: Sequence[str]) -> tuple[str, ...]:
    """Return what speaks against corrected labels, and what to do about it.

    Args:
        policy: JSON of the policy; empty where it is not known. Policies of earlier versions have fewer figures, and a
            folder from elsewhere may hold any: figures of another form count as not there.
        labels: counts of rows by label, in index order of the task's labels.
        lost: labels that the generator wrote and no row carries.
    """
    method, figures = policy.get("method"), policy.get("figures")
    figures, doubts = figures if isinstance(figures, Mapping) else {}, list[str]()
    counts = _gold_found(figures)
    if method not in (None, "none", "gold_only"):
        judged = str(policy.get("corrector") or "").startswith("judge")
        remedy = "label more gold, or " + ("ask another judge (--judge)" if judged else "take a larger base model")
        interval = _balanced_interval(figures)
        if interval is not None and len(counts) > 1 and interval[1] <= 1 / len(counts):
            balanced, low, high = interval
            doubts.append(
                f"the corrector cannot be told from guessing on held-out gold: balanced accuracy {balanced:.2f} (95% "
                f"CI {low:.2f} to {high:.2f}), and guessing reaches {1 / len(counts):.2f}: {remedy}"
            )
        each = figures.get("labels")  # sets of labels: a corrector for each
        of_label = {k: v for k, v in each.items() if isinstance(v, Mapping)} if isinstance(each, Mapping) else {}
        limits = {name: _balanced_interval(of) for name, of in of_label.items()}
        if guessed := [name for name, limit in limits.items() if limit is not None and limit[1] <= 1 / 2]:
            doubts.append(
                f"the corrector cannot be told from guessing on held-out gold for {', '.join(guessed)}: {remedy}"
            )
        names = dict(zip(map(str, range(len(labels))), labels, strict=True))
        never = {names[i]: n for i, (found, n) in counts.items() if n and not found and i in names}
        present = {name: _gold_found(of).get("1", (0, 0)) for name, of in of_label.items()}
        never |= {name: n for name, (found, n) in present.items() if n and not found}
        if never:
            rows = ", ".join(f"{name} (0 of {n:,})" for name, n in never.items())
            doubts.append(f"the corrector finds no held-out gold row of {rows}: label more gold of it")
    if lost and method != "gold_only":
        doubts.append(
            f"no row is left of these labels that the generator wrote: {', '.join(lost)}: label more gold of them"
            + ("" if method in (None, "none") else ", or keep the generator's labels (method none)")
        )
    of_gold = [name for i, name in enumerate(labels) if counts.get(str(i), (0, 0))[1]]
    unwritten = [name for name in of_gold if not labels[name]["meant"] and not labels[name]["now"]]
    if unwritten and method != "gold_only":
        doubts.append(
            f"gold has these labels and no synthetic row does: {', '.join(unwritten)}: generate notes of them"
        )
    return tuple(doubts)


def _gold_found(figures: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return for each label of gold, by index, the rows that the corrector finds and all rows."""
    counts = figures.get("corrector_found_on_held_out_gold")
    pairs = counts.items() if isinstance(counts, Mapping) else ()
    return {str(i): (int(pair[0]), int(pair[1])) for i, pair in pairs if _are_numbers(pair)}


def _balanced_interval(figures: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Return the corrector's balanced accuracy on gold with its interval; None where it is not known."""
    name = "corrector_balanced_accuracy_on_held_out_gold"
    value, limits = figures.get(name), figures.get(f"{name}_ci95")
    return (value, limits[0], limits[1]) if isinstance(value, int | float) and _are_numbers(limits) else None


def _are_numbers(pair: Any) -> TypeGuard[Sequence[float]]:
    """Return whether a figure is a pair of finite numbers."""
    known = isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(v, int | float) for v in pair)
    return known and all(map(math.isfinite, pair))


def _printable(value: Any) -> int | float | str | None:
    """Return a figure as it is printed, two numbers as a range; None for other lists and for dicts."""
    if isinstance(value, int | float | str):
        return value
    if _are_numbers(value):
        return f"{value[0]} to {value[1]}"
    return None


def _labels(value: Any) -> set[int]:
    """Return the label indices of a cell; -1 and None are no label."""
    return {v for v in (value if isinstance(value, list) else [value]) if v is not None and v >= 0}


def _by_label(dataset: Dataset, status: list[str]) -> tuple[dict[str, dict[str, int]], tuple[tuple[int, ...], ...]]:
    """Count rows by label, and moved rows; sets of labels are counted label by label, texts not at all."""
    features = dataset.features
    names = label_names(features["llm_label"])
    column = next((c for c in dataset.column_names if c != "llm_label" and label_names(features[c])), None)
    if names is None or column is None:
        return {}, ()
    counts = {name: dict.fromkeys(("meant", "kept", "relabelled", "dropped", "came", "now"), 0) for name in names}
    moved = [[0] * len(names) for _ in names]
    single = True
    for state, meant, now in zip(status, column_of(dataset, "llm_label"), column_of(dataset, column), strict=True):
        if state == "rejected":
            continue
        single = single and not isinstance(meant, list)
        before = _labels(meant)
        after = _labels(now) if state != "dropped" else set()
        for label in before:
            counts[names[label]]["meant"] += 1
            place = "dropped" if state == "dropped" else "kept" if label in after else "relabelled"
            counts[names[label]][place] += 1
        for label in after:
            counts[names[label]]["now"] += 1
            counts[names[label]]["came"] += label not in before
        if single and before and after:
            moved[next(iter(before))][next(iter(after))] += 1
    return counts, tuple(map(tuple, moved)) if single else ()
