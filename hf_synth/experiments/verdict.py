"""The first part of a run's report: a verdict from its scores, the labels that got worse, and notes side by side."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hf_synth.correction.augmentation import trainable_rows
from hf_synth.correction.description import describe
from hf_synth.evaluation.comparison import Difference, compare
from hf_synth.evaluation.evaluation import Scores
from hf_synth.evaluation.statistics import holm, mcnemar
from hf_synth.evaluation.weakness import weakness_points
from hf_synth.experiments.equivalence import log_size_for_score
from hf_synth.experiments.names import arm_name, metric_name
from hf_synth.experiments.next_steps import RunSource, source_of, steps_of_run, steps_without_rows
from hf_synth.reports.page import Lead, Section, State, Table, Tile
from hf_synth.task.columns import MANIFEST, REASONS, access_of
from hf_synth.task.labels import label_names
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

    from hf_synth.correction.policy import Policy

_USUAL = ("macro_f1", "accuracy", "rougeL", "token_f1", "exact_match")
_SAME = 0.01  # F1 of a label that changed by less counts as unchanged
_CHANCE = 0.05  # level of the tests of all labels together
_SHOWN = {"kept": 4, "relabelled": 3, "dropped": 3}  # notes side by side
_MOST_LABELS = 8  # whose rows found are listed at the top
_MOST_LETTERS = 700  # of a note that is shown


def shown_metrics(task: Task, scores: Mapping[str, Scores]) -> list[str]:
    """Return the metrics to show: the computed ones of the task, its main one first, then the usual ones."""
    values = next(iter(scores.values())).values
    return [m for m in dict.fromkeys((*task.metrics, *_USUAL)) if m in values] or list(values)


def headline(scores: Mapping[str, Scores]) -> tuple[str, str | None]:
    """Return the mixture that a run is about, and gold alone of the same size or None.

    It is gold with corrected notes where there is such a mixture, whatever its score.
    """
    ends = ("_plus_corrected", "_plus_raw", "synthetic_corrected", "synthetic_raw")
    name = next((n for end in ends for n in scores if n.endswith(end)), list(scores)[-1])
    pure = [n for n in scores if re.fullmatch(r"gold_\d+", n) and n != name]
    own = name.partition("_plus_")[0]
    if own == name and re.fullmatch(r"gold_\d+", name):
        return name, None  # a run of gold alone
    paired = next((a for a in pure if any(b.startswith(f"{a}_plus_") for b in scores)), None)
    return name, own if own in pure else paired if len(pure) != 1 else pure[0]


def gain(scores: Mapping[str, Scores], name: str, alone: str, metric: str) -> Difference | None:
    """Compare a mixture with gold alone on the same rows; None where scores cannot be compared in pairs."""
    pair = scores[name], scores[alone]
    if not all((s.labels or "sets" in s.row_values) and metric in s.values for s in pair):
        return None
    return compare(*pair, metric)


class LabelChange(NamedTuple):
    """One label in a mixture and in gold alone.

    Args:
        rows: test rows with the label.
        before, now: F1 of gold alone and of the mixture.
        found_before, found: how many of the rows each finds.
        clear: whether chance is excluded: exact McNemar tests of the rows with the label and of those without it, at 5%
            for all labels together (Holm).
    """

    label: str
    rows: int
    before: float
    now: float
    found_before: int
    found: int
    clear: bool = False

    @property
    def change(self) -> str:
        """How the label's F1 changed: "better" or "worse", "higher" or "lower" where it may be chance, or "same"."""
        gap = self.now - self.before
        if abs(gap) < _SAME:
            return "same"
        return ("better" if gap > 0 else "worse") if self.clear else "higher" if gap > 0 else "lower"


def label_changes(now: Scores, before: Scores) -> list[LabelChange]:
    """Return each label of the test rows, in two models."""
    known = [label for label, of in now.per_class.items() if of["support"] and label in before.per_class]
    clear = dict(zip(known, _differs_clearly(now, before, known), strict=True))
    changes = []
    for label in known:
        old, of = before.per_class[label], now.per_class[label]
        rows = int(of["support"])
        found_before, found = (round(one["recall"] * rows) for one in (old, of))
        changes.append(LabelChange(label, rows, old["f1"], of["f1"], found_before, found, clear[label]))
    return changes


def _differs_clearly(now: Scores, before: Scores, known: Sequence[str]) -> list[bool]:
    """Return for each label whether two models differ about it beyond chance; False where their rows are not known."""
    if not now.labels or now.labels != before.labels:
        return [False] * len(known)
    truth, names = np.array(now.labels), list(now.per_class)
    values = []
    for label in known:
        at = names.index(label)
        said, has = [np.array(s.predictions) == at for s in (before, now)], truth == at
        values.append(min(1.0, 2 * min(mcnemar(*(of[rows] for of in said)) for rows in (has, ~has) if rows.any())))
    return [p < _CHANCE for p in holm(values)]


def rows_by_source(scores: Scores) -> dict[str, int]:
    """Return the number of training rows of a model by source."""
    return {str(source): int(n) for source, n in dict(scores.model.get("rows") or {}).items() if n}


def gold_equivalent_in_words(scores: Mapping[str, Scores], name: str, metric: str) -> str:
    """Return "about as good as 300 gold notes", read off three sizes of gold alone or more; else ""."""
    pure = {
        rows["gold"]: s.values[metric]
        for s in scores.values()
        if set(rows := rows_by_source(s)) == {"gold"} and np.isfinite(s.values.get(metric, np.nan))
    }
    if len(pure) < 3 or not np.isfinite(scores[name].values[metric]):
        return ""
    sizes = sorted(pure)
    means = np.array([[pure[n] for n in sizes]])
    score = np.array([scores[name].values[metric]])
    at = float(np.exp(log_size_for_score(np.log(sizes), means, np.ones(len(sizes)), score)[0]))
    if at == np.inf:
        return f"at least as good as {sizes[-1]:,} gold notes"
    return f"about as good as {round(at):,} gold notes" if at > 0 else f"worse than {sizes[0]:,} gold notes"


# --- the lead ---------------------------------------------------------------------------------------------------------
def run_lead(
    task: Task, scores: Mapping[str, Scores], corrected: Dataset, out: Path, caption: str = "",
    policy: Policy | None = None, source: RunSource | None = None,
) -> Lead:  # fmt: skip
    """Return what the report of a run says first, computed from its scores and the columns of its rows.

    Args:
        corrected: the synthetic rows after correction.
        out: folder of the run, for the commands.
        caption: a sentence about the whole run.
        policy: how the rows were corrected; None where it is not known.
        source: how commands name the task and gold of the run; by the task and folder when None.
    """
    source = source or source_of(task, out)
    if not trainable_rows(corrected) and any(re.fullmatch(r"gold_\d+", n) for n in scores):
        return _unused_lead(task, scores, out, caption, policy, source)
    (name, alone), metric = headline(scores), shown_metrics(task, scores)[0]
    now, gap = scores[name], None
    if alone is not None:
        gap = gain(scores, name, alone, metric)
    changes = label_changes(now, scores[alone]) if alone is not None else []
    worse = [c for c in changes if c.change == "worse"]
    doubts = [f"{text[0].upper()}{text[1:]}." for text in describe(corrected, policy).doubts]
    state = _state(gap, bool(worse or weakness_points(now) or doubts))
    tiles = [_score_tile(now, metric), *([_gain_tile(scores, alone, gap, metric, name)] if alone else [])]
    tiles.append(_changed_tile(corrected))
    points = [*doubts, *weakness_points(now), *_better_uncorrected(scores, name, metric), *_label_points(now, changes)]
    points += [caption] if caption else []
    steps = steps_of_run(task, source, corrected, out, state)
    return Lead(_verdict(scores, name, alone, gap, metric, worse), state, (), tiles, points, steps)


def _unused_lead(
    task: Task, scores: Mapping[str, Scores], out: Path, caption: str, policy: Policy | None, source: RunSource
) -> Lead:  # fmt: skip
    """Return the lead of a run whose correction used no synthetic row: the score of gold alone, why, and what to do."""
    name, metric = [n for n in scores if re.fullmatch(r"gold_\d+", n)][-1], shown_metrics(task, scores)[0]
    now = scores[name]
    low, high = now.ci95.get(metric, (None, None))
    interval = "" if low is None or high is None else f" ({low:.2f}-{high:.2f})"
    score = f"{arm_name(name)} alone: {metric_name(metric)} {now.values[metric]:.2f}{interval}"
    why = str(policy.figures.get("auto_why") or "") if policy else ""
    method = policy.method if policy else "its method"
    reason = f"Chosen by auto: {why}." if why else f"Correction by {method} left no row to train on."
    points = [reason, *weakness_points(now), *_better_uncorrected(scores, name, metric), *_label_points(now, [])]
    points += [caption] if caption else []
    steps = steps_without_rows(task, source, name, out, weak=bool(weakness_points(now)))
    return Lead(f"No synthetic note was used: {score}.", "unsure", (), [_score_tile(now, metric)], points, steps)


def _better_uncorrected(scores: Mapping[str, Scores], name: str, metric: str) -> list[str]:
    """Return a sentence where uncorrected notes beat a mixture beyond chance: correction may cost more than it mends.

    That happens where gold has few rows of a label and the LLM wrote as many notes of it as of the others: a corrector
    that gold taught to overlook the label takes it from them.
    """
    raw = next((n for n in scores if n.endswith("_plus_raw")), None)
    gap = None if raw is None or raw == name else gain(scores, raw, name, metric)
    if raw is None or gap is None or gap.ci95 is None or gap.ci95[0] <= 0:
        return []
    low, high = gap.ci95
    return [
        f"Uncorrected notes did better: {_score_in_words(scores[raw], raw)} reach {metric_name(metric)} "
        f"{scores[raw].values[metric]:.2f} ({gap.value:+.2f} over {arm_name(name)}, 95% CI {low:+.2f} to {high:+.2f}). "
        "The test rows show this, so confirm it on other rows before you choose --method none."
    ]


def _verdict(
    scores: Mapping[str, Scores], name: str, alone: str | None, gap: Difference | None, metric: str,
    worse: Sequence[LabelChange],
) -> str:  # fmt: skip
    now = scores[name]
    low, high = now.ci95.get(metric, (None, None))
    interval = "" if low is None or high is None else f" ({low:.2f}-{high:.2f})"
    parts = [f"{_score_in_words(now, name)}: {metric_name(metric)} {now.values[metric]:.2f}{interval}"]
    if equal := gold_equivalent_in_words(scores, name, metric):
        parts.append(equal)
    if alone is not None:
        parts.append(_comparison_in_words(now, scores[alone], alone, gap, metric))
    text = ", ".join(parts)
    if worse:
        text += f"; {_join_names([c.label for c in worse])} got worse"
    if now.never_found:
        text += f"; {_join_names(list(now.never_found))} {'is' if len(now.never_found) == 1 else 'are'} never found"
    return f"{text}."


def _score_in_words(scores: Scores, name: str) -> str:
    rows = rows_by_source(scores)
    if not rows:
        return arm_name(name)
    added = sum(n for source, n in rows.items() if source != "gold")
    kind = "corrected" if name.endswith("corrected") else "uncorrected"
    if not added:
        return f"{rows.get('gold', 0):,} gold notes alone"
    return f"{rows['gold']:,} gold + {added:,} {kind} notes" if rows.get("gold") else f"{added:,} {kind} notes alone"


def _comparison_in_words(now: Scores, before: Scores, alone: str, gap: Difference | None, metric: str) -> str:
    value = now.values[metric] - before.values[metric]
    than = f"the {arm_name(alone)} alone"
    if gap is None or gap.ci95 is None:
        return f"{value:+.2f} against {than}, with no interval"
    low, high = gap.ci95
    limits = f"({value:+.2f}, 95% CI {low:+.2f} to {high:+.2f})"
    how = "better than" if low > 0 else "worse than" if high < 0 else "not clearly different from"
    return f"{how} {than} {limits}"


def _join_names(names: Sequence[str]) -> str:
    shown = list(names[:3]) + ([f"{len(names) - 3} more"] if len(names) > 3 else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _state(gap: Difference | None, doubt: bool) -> State:
    if gap is not None and gap.ci95 is not None and gap.ci95[1] < 0:
        return "bad"
    clear = gap is not None and gap.ci95 is not None and gap.ci95[0] > 0
    return "good" if clear and not doubt else "unsure"


def _score_tile(now: Scores, metric: str) -> Tile:
    low, high = now.ci95.get(metric, (None, None))
    of = f"{now.n:,} test rows"
    why = now.no_interval.get(metric, "")
    note = f"95% CI {low:.2f}-{high:.2f}, {of}" if low is not None else f"no interval{f': {why}' if why else ''}, {of}"
    return Tile(f"{now.values[metric]:.2f}", metric_name(metric), note)


def _gain_tile(scores: Mapping[str, Scores], alone: str, gap: Difference | None, metric: str, name: str) -> Tile:
    value = scores[name].values[metric] - scores[alone].values[metric]
    about = f"over the {arm_name(alone)} alone"
    if gap is None or gap.ci95 is None:
        why = gap.no_interval if gap is not None else "it is not computed for this kind of score"
        return Tile(f"{value:+.2f}", about, f"no interval: {why}")
    low, high = gap.ci95
    state: State = "good" if low > 0 else "bad" if high < 0 else ""
    note = f"95% CI {low:+.2f} to {high:+.2f}"
    return Tile(f"{value:+.2f}", about, note if state else f"{note}: not clear", state)


def _changed_tile(corrected: Dataset) -> Tile:
    counts = Counter(corrected["label_status"])
    judged = sum(counts[s] for s in _SHOWN)
    used, dropped, rejected = judged - counts["dropped"], counts["dropped"], counts["rejected"]
    note = f"{counts['kept']:,} keep the LLM's label, {counts['relabelled']:,} have another, {dropped:,} are not used"
    if rejected:
        note += f"; {rejected:,} answers of the LLM were rejected before"
    return Tile(f"{used:,} of {judged:,}", "synthetic notes used", note)


def _label_points(now: Scores, changes: Sequence[LabelChange]) -> list[str]:
    points = []
    of = {label: figures for label, figures in now.per_class.items() if figures["support"]}
    if len(of) > 1:
        worst = min(of, key=lambda label: of[label]["f1"])
        rows = int(of[worst]["support"])
        found = round(of[worst]["recall"] * rows)
        points.append(f"The worst label is {worst}: F1 {of[worst]['f1']:.2f}, {found:,} of {rows:,} found.")
    if 2 < len(of) <= _MOST_LABELS:
        shares = sorted(of, key=lambda label: of[label]["recall"])
        each = (f"{x} {round(of[x]['recall'] * of[x]['support']):,} of {int(of[x]['support']):,}" for x in shares)
        points.append(f"Found, the smallest share first: {', '.join(each)}.")
    for c in changes:
        if c.change in ("worse", "lower"):
            what = "is worse than with gold alone" if c.change == "worse" else "is lower, which may be chance"
            points.append(
                f"{c.label} {what}: F1 {c.before:.2f} before and {c.now:.2f} now; "
                f"{c.found_before:,} of {c.rows:,} found before and {c.found:,} now."
            )
    return points


# --- sections ---------------------------------------------------------------------------------------------------------
def label_section(scores: Mapping[str, Scores]) -> Section | None:
    """Show how each label changed, against gold alone; None without labels."""
    name, alone = headline(scores)
    changes = label_changes(scores[name], scores[alone]) if alone is not None else []
    if alone is None or not changes:
        return None
    signs = {"better": "▲ better", "worse": "▼ worse", "same": "= same"}
    signs |= {"higher": "▲ higher, may be chance", "lower": "▼ lower, may be chance"}
    rows = [
        [c.label, c.rows, c.found_before, c.found, f"{c.before:.3f}", f"{c.now:.3f}", signs[c.change]]
        for c in sorted(changes, key=lambda c: c.now - c.before)
    ]
    header = ["label", "test rows", "found by gold alone", "found now", "F1 of gold alone", "F1 now", "change"]
    text = (
        f"{arm_name(name)} against {arm_name(alone)} alone, on the same test rows. An F1 that changed by less than "
        f"{_SAME:g} is called the same. A change may be chance unless an exact McNemar test excludes it, at 5% for all "
        "labels together."
    )
    return Section("Each label against gold alone", text, tables=[Table(header, rows)])


def notes_section(task: Task, corrected: Dataset, out: Path, *, seed: int = 0) -> Section | None:
    """Show ten synthetic notes side by side, drawn at random among kept, relabelled and dropped ones.

    Notes that are not open are shown only where the report lies in the folder of the notes, since whoever can read the
    report can read them there. The section is private: it is on the page, and not in Markdown.
    """
    statuses = list(corrected["label_status"][:])
    by_status = {s: [i for i, status in enumerate(statuses) if status == s] for s in _SHOWN}
    total = sum(map(len, by_status.values()))
    if not total:
        return None
    access = access_of(corrected)
    is_open = access == "open" and task.access == "open"
    if not is_open and not (out / "corrected" / MANIFEST).is_file():
        text = f"The notes are {access}, and this report does not lie in the folder of the notes: none is shown."
        return Section("Ten notes side by side", text, private=True)
    drawn = _draw_examples(by_status, seed)
    rows = [_side_by_side(task, corrected, i) for i in drawn]
    counts = Counter(statuses[i] for i in drawn)
    parts = [f"{counts[s]} of {len(by_status[s]):,} {s}" for s in _SHOWN if by_status[s]]
    text = f"Drawn at random (seed {seed}), not chosen: {', '.join(parts)}."
    note = "" if is_open else (
        f"These notes are {access}. They are on this page alone, which lies in the folder of the notes: do not send it "
        "to anybody who may not read them."
    )  # fmt: skip
    table = Table(["note", "LLM said", "now", "why"], rows, align="llll")
    return Section(f"{len(rows)} notes side by side", text, tables=[table], note=note, private=True)


def _draw_examples(by_status: Mapping[str, Sequence[int]], seed: int) -> list[int]:
    """Draw rows of each status; what one status lacks is drawn from the others."""
    rng = np.random.default_rng(seed)
    shuffled = {s: rng.permutation(rows).tolist() for s, rows in by_status.items()}
    taken = {s: min(n, len(shuffled[s])) for s, n in _SHOWN.items()}
    while sum(taken.values()) < min(sum(_SHOWN.values()), sum(map(len, shuffled.values()))):
        most = max(taken, key=lambda s: len(shuffled[s]) - taken[s])
        taken[most] += 1
    return [int(i) for s, n in taken.items() for i in shuffled[s][:n]]


def _side_by_side(task: Task, rows: Dataset, i: int) -> list[str]:
    row = rows[i]
    text = " / ".join(str(row[c] or "") for c in task.text_columns)
    text = " ".join(text.split())
    text = text if len(text) <= _MOST_LETTERS else text[:_MOST_LETTERS].rstrip() + "…"
    before = _label_text(rows, "llm_label", row["llm_label"])
    label = _label_text(rows, task.label_column, row[task.label_column])
    dropped = row["label_status"] == "dropped"
    now = "dropped" if dropped else label if label != before else f"{label} (kept)"
    why = REASONS.get(str(row["reason"]), str(row["reason"]))
    sure = row.get("label_confidence")
    # 1 is the label of a rule, which has no probability; of texts the column holds a likeness
    known = isinstance(sure, float) and sure < 1 and not dropped and task.kind != "text2text"
    return [text, before, now, why + (f" (probability {sure:.2f})" if known else "")]


def _label_text(rows: Dataset, column: str, value: Any) -> str:
    names = label_names(rows.features[column])
    values = value if isinstance(value, list) else [value]
    known = [str(v) if names is None or isinstance(v, str) else names[v] for v in values if v is not None]
    text = ", ".join(known) or "no label"
    return text if len(text) <= _MOST_LETTERS else text[:_MOST_LETTERS].rstrip() + "…"
