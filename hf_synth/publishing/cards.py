"""Facts of a dataset's card, computed from its columns, the audit's findings, scores and policy.

`dataset_facts` returns plain values; `card_text` renders them. `card_models` has the facts of a model's card. Pure, no
network. No gold row is shown; examples are kept synthetic rows of open data.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hf_synth.correction.description import describe
from hf_synth.correction.policy import Policy
from hf_synth.evaluation.evaluation import Scores
from hf_synth.generation.generation import simulated
from hf_synth.generation.likeness import MEANINGS, Likeness
from hf_synth.llm.gguf_files import licence_of
from hf_synth.privacy.findings import Findings
from hf_synth.publishing.card_text import FIGURES, LOOKS_LIKE, METRICS, code
from hf_synth.publishing.card_values import (
    hub_dataset,
    interval_of,
    label_meanings,
    number,
    policy_facts,
    task_facts,
)
from hf_synth.publishing.languages import recognised
from hf_synth.reports.realism import realism_facts
from hf_synth.task.columns import REASONS, STATUSES, USAGE_COLUMNS, access_of, strictest
from hf_synth.task.folders import APPROVED, FOLLOWS
from hf_synth.task.labels import column_of, label_names
from hf_synth.task.scripts import is_artificial
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_SAMPLE = 280  # characters of an example
_LEFT_OUT = re.compile(
    r"split (train|validation|test|rows): rows left out, since they ([\w ,'-]{1,150}): ([\d,]{1,20})$"
)
# The words of the reasons that our readers state. A note with any other word may come from a foreign folder.
_REASON_WORDS = frozenset((
    "a", "action", "actor", "agreed", "also", "an", "and", "annotations", "another", "answer", "answers", "are",
    "assessment", "certainity", "changes", "contradict", "earlier", "empty", "event", "file", "have", "holds", "id",
    "in", "is", "its", "judged", "label", "labelled", "labels", "later", "medication", "mention", "no", "note",
    "notes", "of", "on", "one", "only", "or", "pair", "pieces", "plan", "premise", "question", "records", "relation",
    "repeat", "row", "same", "several", "split", "stands", "summary", "tag", "tell", "temporality", "text", "that",
    "the", "true", "which", "with", "without",
))  # fmt: skip
_LONGEST_REASON = 16  # words
_WHAT = {
    "corrected": "labels after correction; rows that were dropped are left out",
    "raw": "labels as the generator meant them, every row with a text",
    "targets": "targets as the generator wrote them, every row with a text",
}
_AS_ASKED = "labels are those asked of the generator"
_EXAMPLES = 8  # at most, one of each label
_STAGE_NAME = re.compile(r"synthetic|corrected|(?:train|validation|test|rows|rejected)\.parquet")


@dataclass(frozen=True)
class Recorded:
    """What is known of rows besides their columns.

    Args:
        manifest: of the folder that they were read from (`hf_synth.json`): the file that wrote them, what a person
            edited, and what people thought of them (`realism`).
        likeness: how like gold the texts are; None without gold.
        contact: whom to ask for access, as the publisher states it.
    """

    manifest: Mapping[str, Any] = field(default_factory=dict)
    likeness: Likeness | None = None
    contact: str | None = None


# --- datasets -------------------------------------------------------------------------------------------------------
def dataset_facts(
    task: Task,
    dataset: Dataset,
    *,
    scores: Scores | Mapping[str, Scores] | None = None,
    findings: Findings | None = None,
    repo_id: str = "",
    policy: Any = None,
    attestation: str | None = None,
    access: str | None = None,
    origin: str = "",
    gold_rows: int | None = None,
    gold_notes: Sequence[str] = (),
    recorded: Recorded | None = None,
) -> dict[str, Any]:
    """Compute the facts of a dataset's card from its columns.

    Args:
        dataset: generated or corrected rows, including rejected ones; rows refused by `findings` count as withheld.
        scores: of models trained with the rows, by the name of their training set.
        policy: of the correction, if known: a policy, its JSON, or the name of its method.
        access: an access to join with that of task and rows.
        origin: whether the gold is the gold they came from (`Origin.summary`).
        gold_rows: number of rows of open gold published with them; None without such a config.
        gold_notes: what was left out when the gold was read (`task.folders.notes_of`); names of files are not shown.
        recorded: what is known besides the columns.
    """
    recorded = recorded or Recorded()
    names = ("source", "label_status", "reason", "generator", "prompt_sha256", "seed_ids", *USAGE_COLUMNS)
    columns = {c: column_of(dataset, c) for c in names}
    status = [s or "kept" for s in columns["label_status"]]
    withheld = set(findings.refused) if findings else set()
    meant = _labels(task, dataset, "llm_label" if "llm_label" in dataset.column_names else task.label_column)
    final = _labels(task, dataset, task.label_column)
    exported = [i for i, s in enumerate(status) if s != "rejected" and i not in withheld]
    kept = [i for i in exported if status[i] != "dropped"]
    corrected = "label_probs" in dataset.column_names and task.kind != "text2text"
    joined = strictest(task.access, access_of(dataset), *([findings.access] if findings else []), access or "open")
    generators = dict(sorted(Counter(str(columns["generator"][i] or "unknown") for i in exported).items()))
    reasons = Counter(zip(status, (r or "as_generated" for r in columns["reason"]), strict=True))
    views = [("corrected", kept, final)] if corrected else []
    views.append(("raw", exported, meant))
    text2text = task.kind == "text2text"
    correction = policy_facts(policy if corrected else None, task.labels)
    facts = task_facts(task, joined, attestation, recorded.contact) | {
        "repo_id": repo_id, "title": repo_id.split("/")[-1] or task.name, "rows": len(views[0][1]),
        "unit": "entries" if text2text else "pairs" if len(task.text_columns) > 1 else "notes",
        "text_columns": " and ".join(map(code, task.text_columns)), "label_column": task.label_column,
        "label_word": "target" if text2text else "list of labels" if task.kind == "multi_label" else "label",
        "configs": [{"name": name, "split": "train", "rows": len(rows), "default": n == 0,
                     "what": _WHAT["targets" if text2text else name]}
                    for n, (name, rows, _) in enumerate(views)],
        "labels": _label_table(task, views),
        "generators": ", ".join(f"{code(name)} ({n:,} rows)" for name, n in generators.items()),
        "generator_files": [text for name in generators if (text := licence_of(name, _weights(recorded)))],
        "edited": edited_by_hand(recorded.manifest),
        "looks_like": "" if task.language else _looks_like(task, dataset, exported),
        "config_columns": [[name, name] for name, _, _ in views],
        "costs": _costs(columns, len(kept)),
        "prompts": len({p for i in exported if (p := columns["prompt_sha256"][i])}),
        "exemplars": len({s for i in exported for s in columns["seed_ids"][i] or ()}),
        **correction,
        "correction": _correction(status, reasons, correction["policy"]) if corrected else
                      f"none; {'targets are those that the generator wrote' if text2text else _AS_ASKED}",
        "reasons": [{"status": s, "meaning": REASONS.get(r, r), "rows": n} for (s, r), n in
                    sorted(reasons.items(), key=lambda item: (STATUSES.index(item[0][0]), item[0][1]))],
        "audited": _audited(findings, origin), "audit_rows": _audit_rows(findings) if findings else [],
        "examples": _examples(task, dataset, kept, final) if joined == "open" else [],
        "doubts": doubts_of(dataset, policy, withheld),
    }  # fmt: skip
    left_out = [match for note in gold_notes if (match := _LEFT_OUT.search(note))]
    facts["gold_left_out"] = "; ".join(
        f"{m[3]} of split `{m[1]}`" + (f", since they {m[2]}" if _is_reason(m[2]) else "") for m in left_out
    )
    facts |= _likeness_table(recorded.likeness) | realism_facts(recorded.manifest.get("realism"))
    facts |= _status_table(task, meant, status) if corrected and task.labels else {"statuses": [], "status_columns": []}
    facts |= _score_table(scores)
    facts["simulated"] = simulated(task, list(generators))
    with_gold = gold_rows is not None and joined == "open"
    facts |= _terms(task, audited=any(columns["reason"][i] == "audited" for i in kept), with_gold=with_gold)
    if gold_rows is not None and with_gold:
        augmented = {"name": "augmented", "split": "train", "default": False, "rows": gold_rows + len(views[0][1])}
        facts["configs"].append(
            augmented | {"what": f"{gold_rows:,} rows of open gold and the first config, to train on"}
        )
    return facts


def doubts_of(dataset: Dataset, policy: Any, withheld: Collection[int] = ()) -> tuple[str, ...]:
    """Return what speaks against the labels of rows (`describe`); none for rows that were not generated by hf_synth.

    Args:
        policy: a policy, its JSON, the name of its method, or None.
        withheld: numbers of rows that do not leave. A label that stands on no other row is named.
    """
    if not {"label_status", "reason", "llm_label"} <= set(dataset.column_names):
        return ()
    known = policy if isinstance(policy, Mapping | Policy) else {"method": policy} if isinstance(policy, str) else None
    found = describe(dataset, known)
    if not withheld:
        return found.doubts
    left = describe(dataset.select([i for i in range(len(dataset)) if i not in withheld])).labels
    gone = [name for name, counts in found.labels.items() if counts["now"] and not left[name]["now"]]
    line = f"the audit withholds every row of these labels: {', '.join(gone)}: generate other notes of them"
    return (*found.doubts, *([line] if gone else []))


def _terms(task: Task, *, audited: bool, with_gold: bool) -> dict[str, Any]:
    """Return fields of the header by the Hub's vocabularies: who wrote and labelled the rows, and what they come from.

    Args:
        audited: whether a person gave some of the labels.
        with_gold: whether open gold is published with the rows.
    """
    human = ["other"] if with_gold and not is_artificial(task) else []  # who wrote and labelled gold is not recorded
    source = hub_dataset(task.source_url)
    ids = {"multi_label": "multi-label-classification", "single_label": "multi-class-classification"}
    if {"entailment", "contradiction"} <= {label.casefold() for label in task.labels}:
        ids["single_label"] = "natural-language-inference"
    extended = f"extended|{source}" if source else "extended|other"
    return {
        "annotated_by": ["machine-generated", *(["expert-generated"] if audited else []), *human],
        "written_by": ["machine-generated", *human],
        "task_ids": [ids[task.kind]] if task.kind in ids else [],
        "sources": ["original"] if is_artificial(task) else [extended],
    }


def _costs(columns: Mapping[str, list[Any]], rows: int) -> str:
    """Return what the generator's answers cost, with those of which no row is here; "" if unknown.

    Args:
        rows: rows of the first config.
    """
    read, written, dollars = ([v for v in columns[c] if v is not None] for c in USAGE_COLUMNS)
    if not any(read) and not any(written):
        return ""
    answers = sum(r is not None or w is not None for r, w in zip(*(columns[c] for c in USAGE_COLUMNS[:2]), strict=True))
    price = f"${sum(dollars):,.2f} by the price that was given" if dollars else "no price was given"
    paid = f"{sum(read):,} tokens read and {sum(written):,} written, {price}"
    return f"{paid}. These are {answers:,} answers, rejected ones among them; {rows:,} rows of them are kept"


def _labels(task: Task, dataset: Dataset, column: str) -> list[tuple[str, ...]]:
    """Return the names of each row's labels; none for a row without label and for text2text."""
    if task.kind == "text2text":
        return [()] * len(dataset)
    known = label_names(dataset.features[column]) or list(task.labels)

    def name(value: Any) -> str:
        return known[value] if isinstance(value, int) else str(value)

    values = column_of(dataset, column)
    if task.kind == "multi_label":
        return [tuple(map(name, v or ())) for v in values]
    return [() if v is None else (name(v),) for v in values]


def _label_table(task: Task, views: Sequence[tuple[str, list[int], list[tuple[str, ...]]]]) -> list[dict[str, Any]]:
    counts = [Counter(label for i in rows for label in labels[i]) for _, rows, labels in views]
    return [
        {"name": name, "meaning": meaning} | {view[0]: count[name] for view, count in zip(views, counts, strict=True)}
        for name, meaning in label_meanings(task)
    ]


def _status_table(task: Task, meant: list[tuple[str, ...]], status: list[str]) -> dict[str, Any]:
    names = [s for s in STATUSES if s != "rejected"]
    counts = Counter((label, s) for labels, s in zip(meant, status, strict=True) for label in labels)
    rows = [{"label": label} | {s: counts[label, s] for s in names} for label in task.labels]
    return {"status_columns": [[s, s] for s in names], "statuses": rows}


def _correction(status: list[str], reasons: Mapping[tuple[str, str], int], policy: str) -> str:
    if all(s == "rejected" or reason == "as_generated" for s, reason in reasons):
        return f"none; {_AS_ASKED}"
    counts = Counter(status)
    changes = ", ".join(f"{counts[s]:,} {s}" for s in STATUSES if counts[s] and s != "rejected")
    return f"by a corrector trained on gold{f', policy {code(policy)}' if policy else ''}: {changes}"


def _audited(findings: Findings | None, origin: str) -> str:
    if findings is None:
        return "No audit was made."
    compared = f"Held against {findings.figures['gold_rows']:,} gold rows before it left."
    if not findings.compared:
        compared = "There was no gold to compare with: only identifiers, leaks and repetition were looked for."
    known = f" {origin[0].upper()}{origin[1:]}." if origin else ""
    return f"{compared}{known} Rows withheld by it: {len(findings.refused):,}."


def _audit_rows(findings: Findings) -> list[dict[str, str]]:
    figures = findings.figures
    rows = [{"meaning": meaning, "value": number(figures[k])} for k, meaning in FIGURES.items() if k in figures]
    for name, value in figures.items():
        if name.startswith("with_"):
            rows.append({"meaning": LOOKS_LIKE + name[5:].replace("_", " "), "value": f"{value:,}"})
    return rows


def _likeness_table(found: Likeness | None) -> dict[str, Any]:
    rows = [
        {"meaning": MEANINGS[f.name], "synthetic": f"{f.synthetic:.3g}", "ratio": f"{f.ratio:.2f}",
         "halves": f"{f.low:.2f} to {f.high:.2f}",
         "as": "as gold" if f.inside else "less" if f.ratio < f.low else "more"}
        for f in (found.figures if found else ())
    ]  # fmt: skip
    return {"likeness": rows, "likeness_rows": found.rows if found else 0, "likeness_why": found.why if found else ""}


def _score_table(scores: Scores | Mapping[str, Scores] | None) -> dict[str, Any]:
    if not scores:
        return {"scores": [], "metric_columns": []}
    by_name = {str(scores.model.get("name", "model")): scores} if isinstance(scores, Scores) else dict(scores)
    first = next(iter(by_name.values()))
    metrics = [m for m in ("macro_f1", "accuracy") if m in first.values] or list(first.values)[:2]
    rows = [
        {"name": name, "n": s.n} | {m: f"{s.values[m]:.3f} {interval_of(s, m)}" for m in metrics}
        for name, s in by_name.items()
    ]
    return {"scores": rows, "metric_columns": [[METRICS.get(m, (m, m))[0], m] for m in metrics]}


def _looks_like(task: Task, dataset: Dataset, rows: Sequence[int]) -> str:
    """Return the language that the texts of rows look like, for a task that states none; "" where it is unknown."""
    seen = recognised(dataset[i][task.text_columns[0]] or "" for i in rows)
    return seen if seen and seen != "other" else ""


def _weights(recorded: Recorded) -> Mapping[str, Any] | None:
    weights = recorded.manifest.get("weights")
    return weights if isinstance(weights, Mapping) else None


def edited_by_hand(manifest: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each kind of edit by a person that the manifest of a stage's folder records."""
    sentences = []
    if names := _edited_files(manifest.get(APPROVED)):
        sentences.append(f"A person edited these rows after they were written ({names}); they are as edited.")
    if names := _edited_files(manifest.get(FOLLOWS)):
        sentences.append(f"They were made from rows that a person had edited ({names}).")
    return sentences


def _edited_files(recorded: Any) -> str:
    """Return the names of edited files, with their stage where it is recorded; a name that is none of ours is hidden.

    `correct` records the digests of files by name, a run records them by stage.
    """
    names = []
    for key, inner in recorded.items() if isinstance(recorded, Mapping) else ():
        files = [f"{key}/{file}" for file in inner] if isinstance(inner, Mapping) else [str(key)]
        names += [f if all(map(_is_stage_name, f.split("/"))) else "a file" for f in files]
    return ", ".join(dict.fromkeys(names))


def _is_stage_name(part: str) -> bool:
    return _STAGE_NAME.fullmatch(part) is not None


# --- examples -------------------------------------------------------------------------------------------------------
def _examples(task: Task, dataset: Dataset, kept: list[int], labels: list[tuple[str, ...]]) -> list[dict[str, str]]:
    """Return a kept synthetic row of each label: the surest one where there are probabilities, else the first.

    Surer is, in this order: a label that a person gave; one on which corrector and generator agree; the probability of
    the label. A label without a row in which it is the most probable one has no example.
    """
    text2text = task.kind == "text2text"
    columns = (*task.text_columns, *((task.label_column,) if text2text else ()))
    meant = _labels(task, dataset, "llm_label") if "llm_label" in dataset.column_names else labels
    names = ("source", "reason", "label_probs")
    source, reason, probs = (column_of(dataset, c) for c in names)
    common = [key for key, _ in Counter(labels[i] for i in kept if source[i] == "synthetic").most_common(_EXAMPLES)]
    best: dict[tuple[str, ...], tuple[tuple[bool, bool, float], int]] = {}
    for i in kept:
        sure, audited = _label_probability(task, labels[i], probs[i]), reason[i] == "audited"
        if source[i] != "synthetic" or labels[i] not in common or not (sure is None or sure[1] or audited):
            continue
        rank = (audited, sure is not None and meant[i] == labels[i], sure[0] if sure else 0.0)
        if labels[i] not in best or rank > best[labels[i]][0]:
            best[labels[i]] = (rank, i)
    examples = []
    for key, (rank, i) in sorted(best.items()):
        text = " / ".join(" ".join(str(dataset[i][c]).split()) for c in columns)
        if len(text) > _SAMPLE:
            text = text[:_SAMPLE].rsplit(" ", 1)[0] + " ..."
        label = ", ".join(key) or (" / ".join(columns) if text2text else "no label")
        known = _label_probability(task, key, probs[i]) is not None
        stated = "by a person" if rank[0] else f"probability {rank[2]:.2f}" if known and rank[2] < 1 else ""
        examples.append({"label": label, "sure": stated, "text": text.replace("{{", "{ {").replace("}}", "} }")})
    return examples


def _label_probability(task: Task, labels: tuple[str, ...], probs: Any) -> tuple[float, bool] | None:
    """Return the probability of a row's labels, and whether no other label is as probable; None without probabilities.

    For a set of labels it is the least probability with which one of the task's labels is, or is not, in the set.
    """
    if task.kind == "text2text" or probs is None or len(probs) != len(task.labels):
        return None
    values = [float(p) if p is not None and p == p else 0.0 for p in probs]
    if task.kind == "multi_label":
        sides = [p if name in labels else 1 - p for name, p in zip(task.labels, values, strict=True)]
        return min(sides), min(sides) > 0.5
    if not labels:
        return None
    own = values[task.labels.index(labels[0])]
    return own, sum(p >= own for p in values) == 1


def _is_reason(text: str) -> bool:
    """Return whether a reason for leaving rows out consists of words that our readers use."""
    words = re.findall(r"\w+", text.lower())
    return len(words) <= _LONGEST_REASON and _REASON_WORDS.issuperset(words)
