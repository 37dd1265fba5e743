"""Dataset and model cards: the facts they show, computed from columns, findings, scores and policy.

`dataset_facts`, `model_card_facts` and `policy_facts` return plain values; `card_text` renders them. Pure, no network.
No gold row is shown; examples are kept synthetic rows of open data.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_synth.correction.methods import DESCRIBED
from hf_synth.evaluation.evaluation import Scores
from hf_synth.generation.generation import simulated
from hf_synth.llm.gguf_files import licence_of
from hf_synth.models.base_models import TOY_NOTE, is_toy, known_model, licence_note, pretraining_note
from hf_synth.privacy.findings import Findings
from hf_synth.publishing.card_text import ACCESS_MEANING, FIGURES, METRICS, license_data
from hf_synth.task.columns import REASONS, STATUSES, UNLABELLED, USAGE_COLUMNS, access_of, strictest
from hf_synth.task.labels import column_of, label_names
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
_POOLED = {  # long_notes of training.train: how to read a note that is longer than the model
    "windows": "the highest logits of its windows, label by label",
    "windows_mean": "the mean of its windows' logits",
}

_FIGURES = {  # figure of a policy: its meaning
    "corrector_accuracy_on_held_out_gold": "corrector: accuracy on gold that it had not seen",
    "corrector_balanced_accuracy_on_held_out_gold": "corrector: balanced accuracy on the same rows",
    "corrector_ece_on_held_out_gold": "corrector: expected calibration error there",
    "corrector_temperature": "corrector: temperature that calibrates it",
    "corrector_ece_after_temperature": "corrector: expected calibration error after that",
    "generator_accuracy_audited": "generator: share of right labels among rows that a person checked",
    "audited_rows": "rows that a person checked",
    "generator_accuracy_on_gold": "generator: share of right labels on gold that it labelled too",
    "generator_labelled_gold_rows": "gold rows that it labelled",
    "auto_accuracy_on_held_out_gold": "linear head trained on the chosen policy's rows: accuracy on held-out gold",
    "auto_loss_at_most": "the most that its accuracy lies below gold only, at the confidence below",
    "auto_loss_confidence": "confidence of that bound",
    "promise_error": "wrong labels that were allowed, as a share of all labels",
    "promise_confidence": "probability with which no more labels are wrong",
    "promise_looked_at": "rows that people looked at for it",
    "promise_wrong_at_most": "share of wrong labels among all, at most",
    "promise_unseen_wrong_at_most": "share of wrong labels among rows that nobody looked at, at most",
    "generator_accuracy_estimated": "generator: share of right labels, estimated, not measured",
    "gold_against_synthetic_auc": "how well gold and synthetic texts can be told apart (AUC; .5 = not at all)",
    "gold_rows": "gold rows that the policy was fitted on",
    "synthetic_rows": "synthetic rows that the policy was fitted on",
}


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
    """
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
    generators = dict(sorted(Counter(str(g or "unknown") for g in columns["generator"]).items()))
    reasons = Counter(zip(status, (r or "as_generated" for r in columns["reason"]), strict=True))
    views = [("corrected", kept, final)] if corrected else []
    views.append(("raw", exported, meant))
    text2text = task.kind == "text2text"
    correction = policy_facts(policy if corrected else None, task.labels)
    facts = _task_facts(task, joined, attestation) | {
        "repo_id": repo_id, "title": repo_id.split("/")[-1] or task.name, "rows": len(views[0][1]),
        "unit": "entries" if text2text else "pairs" if len(task.text_columns) > 1 else "notes",
        "text_columns": " and ".join(f"`{c}`" for c in task.text_columns), "label_column": task.label_column,
        "label_word": "target" if text2text else "list of labels" if task.kind == "multi_label" else "label",
        "configs": [{"name": name, "split": "train", "rows": len(rows), "default": n == 0,
                     "what": _WHAT["targets" if text2text else name]}
                    for n, (name, rows, _) in enumerate(views)],
        "labels": _label_table(task, views),
        "generators": ", ".join(f"`{name}` ({n:,} rows)" for name, n in generators.items()),
        "generator_files": [text for text in map(licence_of, generators) if text],
        "config_columns": [[name, name] for name, _, _ in views],
        "costs": _costs(columns),
        "prompts": len({p for p in columns["prompt_sha256"] if p}),
        "exemplars": len({s for ids in columns["seed_ids"] if ids for s in ids}),
        **correction,
        "correction": _correction(status, reasons, correction["policy"]) if corrected else
                      f"none; {'targets are those that the generator wrote' if text2text else _AS_ASKED}",
        "reasons": [{"status": s, "meaning": REASONS.get(r, r), "rows": n} for (s, r), n in
                    sorted(reasons.items(), key=lambda item: (STATUSES.index(item[0][0]), item[0][1]))],
        "audited": _audited(findings, origin), "audit_rows": _audit_rows(findings) if findings else [],
        "examples": _examples(task, dataset, kept, final, columns["source"]) if joined == "open" else [],
    }  # fmt: skip
    left_out = [match for note in gold_notes if (match := _LEFT_OUT.search(note))]
    facts["gold_left_out"] = "; ".join(
        f"{m[3]} of split `{m[1]}`" + (f", since they {m[2]}" if _is_reason(m[2]) else "") for m in left_out
    )
    facts |= _status_table(task, meant, status) if corrected and task.labels else {"statuses": [], "status_columns": []}
    facts |= _score_table(scores)
    facts["simulated"] = simulated(task, list(generators))
    if gold_rows is not None and joined == "open":
        augmented = {"name": "augmented", "split": "train", "default": False, "rows": gold_rows + len(views[0][1])}
        facts["configs"].append(
            augmented | {"what": f"{gold_rows:,} rows of open gold and the first config, to train on"}
        )
    return facts


def _costs(columns: Mapping[str, list[Any]]) -> str:
    """Return what the answers to the rows cost; "" if unknown."""
    read, written, dollars = ([v for v in columns[c] if v is not None] for c in USAGE_COLUMNS)
    if not any(read) and not any(written):
        return ""
    tokens = f"{sum(read):,} tokens read and {sum(written):,} written"
    return f"{tokens}, ${sum(dollars):,.2f} by the price that was given" if dollars else f"{tokens}; no price was given"


def _labels(task: Task, dataset: Dataset, column: str) -> list[tuple[str, ...]]:
    """Return the names of each row's labels; none for a row without label and for text2text."""
    if task.kind == "text2text":
        return [()] * len(dataset)
    known = label_names(dataset.features[column]) or list(task.labels)

    def name(value: Any) -> str:
        return known[value] if isinstance(value, int) else str(value)

    values = dataset[column]
    if task.kind == "multi_label":
        return [tuple(map(name, v or ())) for v in values]
    return [() if v is None else (name(v),) for v in values]


def _label_table(task: Task, views: Sequence[tuple[str, list[int], list[tuple[str, ...]]]]) -> list[dict[str, Any]]:
    counts = [Counter(label for i in rows for label in labels[i]) for _, rows, labels in views]
    return [
        {"name": name, "meaning": meaning} | {view[0]: count[name] for view, count in zip(views, counts, strict=True)}
        for name, meaning in _meanings(task)
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
    return f"by a corrector trained on gold{f', policy `{policy}`' if policy else ''}: {changes}"


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
    rows = [{"meaning": meaning, "value": _number(figures[k])} for k, meaning in FIGURES.items() if k in figures]
    for name, value in figures.items():
        if name.startswith("with_"):
            rows.append({"meaning": "rows with what looks like: " + name[5:].replace("_", " "), "value": f"{value:,}"})
    return rows


def _score_table(scores: Scores | Mapping[str, Scores] | None) -> dict[str, Any]:
    if not scores:
        return {"scores": [], "metric_columns": []}
    by_name = {str(scores.model.get("name", "model")): scores} if isinstance(scores, Scores) else dict(scores)
    first = next(iter(by_name.values()))
    metrics = [m for m in ("macro_f1", "accuracy") if m in first.values] or list(first.values)[:2]
    rows = [
        {"name": name, "n": s.n} | {m: f"{s.values[m]:.3f} {_interval(s, m)}" for m in metrics}
        for name, s in by_name.items()
    ]
    return {"scores": rows, "metric_columns": [[METRICS.get(m, (m, m))[0], m] for m in metrics]}


def _examples(
    task: Task, dataset: Dataset, kept: list[int], labels: list[tuple[str, ...]], source: list[Any]
) -> list[dict[str, str]]:
    """Return the first kept synthetic row of each label, at most four; for text2text the first with its target."""
    text2text = task.kind == "text2text"
    columns = (*task.text_columns, *((task.label_column,) if text2text else ()))
    examples: dict[tuple[str, ...], dict[str, str]] = {}
    for i in kept:
        if source[i] == "synthetic" and labels[i] not in examples and len(examples) < 4:
            text = " / ".join(" ".join(str(dataset[i][c]).split()) for c in columns)
            if len(text) > _SAMPLE:
                text = text[:_SAMPLE].rsplit(" ", 1)[0] + " ..."
            examples[labels[i]] = {
                "label": ", ".join(labels[i]) or (" / ".join(columns) if text2text else "no label"),
                "text": text.replace("{{", "{ {").replace("}}", "} }"),
            }
    return [examples[key] for key in sorted(examples)]


# --- models ---------------------------------------------------------------------------------------------------------
def _is_reason(text: str) -> bool:
    """Return whether a reason for leaving rows out consists of words that our readers use."""
    words = re.findall(r"\w+", text.lower())
    return len(words) <= _LONGEST_REASON and _REASON_WORDS.issuperset(words)


def model_card_facts(
    task: Task,
    trained: Mapping[str, Any],
    scores: Scores | None,
    *,
    repo_id: str = "",
    access: str | None = None,
    attestation: str | None = None,
    architecture: str = "An encoder",
    parents: Sequence[Mapping[str, Any]] = (),
    membership: str = "",
    untested: str = "",
    exposure: str = "",
    widget: Sequence[str] = (),
) -> dict[str, Any]:
    """Compute the facts of a model's card.

    Args:
        trained: the facts that training wrote (`record.model_facts`).
        access: an access to join with that of task and facts.
        architecture: class name of the network.
        membership: result of a membership test; "" without one.
        untested: why there was none.
        exposure: of canaries planted in its gold, or why it was not measured; "" without canaries.
        parents: releases it was made from (`release.parents_of`).
        widget: texts of synthetic rows for the page's widget.
    """
    rows = dict(trained.get("rows", {}))
    sources = {
        "gold": "gold",
        UNLABELLED: "real notes, labelled by an LLM",
        **{s: f"synthetic, label {s}" for s in STATUSES},
        "unmarked": "synthetic, unmarked",
    }
    base = str(trained.get("base_model") or "")
    on_hub = bool(re.fullmatch(r"[\w.-]+/[\w.-]+", base))
    hyperparameters = trained.get("hyperparameters", {})
    joined = strictest(task.access, trained.get("access"), access or "open")
    return _task_facts(task, joined, attestation) | {
        "repo_id": repo_id, "title": repo_id.split("/")[-1] or task.name, "network": architecture,
        "call": "note" if len(task.text_columns) == 1 else '{"text": first, "text_pair": second}',
        "input": "..." if len(task.text_columns) == 1 else "\\n".join(f"{c}: ..." for c in task.text_columns),
        "labels": [{"index": str(i), "name": n, "meaning": m} for i, (n, m) in enumerate(_meanings(task))],
        "composition": [{"what": sources.get(k, k), "rows": n} for k, n in rows.items()] or
                       [{"what": "unknown", "rows": 0}],
        "base": (f"[{base}](https://huggingface.co/{base})" if on_hub else f"`{base or 'unknown'}`, not on a Hub")
                + (f", revision `{trained['base_revision']}`" if trained.get("base_revision") else "")
                + (f", {licence}" if (licence := licence_note(base)) else "")
                + (f", weights `{trained['base_weights']}` (sha256)"
                   if licence and trained.get("base_weights") else ""),
        "base_model": base if on_hub else None,
        "hyperparameters": ", ".join(f"{k} {v}" for k, v in hyperparameters.items() if v not in (None, -1, False)),
        "pretrained_on": TOY_NOTE if is_toy(trained) else pretraining_note(base) if on_hub or known_model(base) else "",
        "long_notes": _POOLED.get((trained.get("long_notes") or {}).get("how", ""), ""),
        "membership": membership.rstrip("."), "untested": untested.rstrip("."),
        "exposure": exposure.rstrip("."),
        "parents": [_parent(p) for p in parents],
        "datasets": sorted({p["repo_id"] for p in parents if p["kind"] == "dataset"}),
        "widget": list(widget) if joined == "open" else [],
        "simulated": simulated(task, [str(trained.get("generator", ""))]),
        **_model_scores(scores),
    }  # fmt: skip


def _parent(parent: Mapping[str, Any]) -> str:
    rows = f", {parent['rows']:,} of its texts" if parent.get("rows") else ""
    return f"{parent['kind']} `{parent['repo_id']}`{rows}"


def _model_scores(scores: Scores | None) -> dict[str, Any]:
    if scores is None:
        scored = "No scores were given: nobody has scored it."
        return {"n": 0, "scores": [], "per_class": [], "excluded": "", "scored": scored}
    left, groups = scores.excluded, scores.dataset.get("groups")
    metrics = [m for m in METRICS if m in scores.values]
    return {
        "n": scores.n,
        "scored": f"On {scores.n:,} gold test rows{f' of {groups:,} groups' if groups else ''}, with 95% intervals "
                  "over groups.",
        "scores": [_score_row(scores, m) for m in metrics],
        "per_class": [{"name": name, "rows": int(c.get("support", 0)),
                       **{k: f"{c.get(k, 0.0):.3f}" for k in ("precision", "recall", "f1")}}
                      for name, c in scores.per_class.items()],
        "excluded": f"Without the {scores.n - left.n:,} test rows whose text it was trained on: " + ", ".join(
            f"{METRICS[m][0]} {left.values[m]:.3f} {_interval(left, m)}" for m in metrics[:2]) + "." if left else "",
    }  # fmt: skip


def _score_row(scores: Scores, metric: str) -> dict[str, Any]:
    value, label = scores.values[metric], METRICS[metric]
    return {
        "metric": metric, "label": label[0], "hub_metric": label[1], "value": f"{value:.3f}",
        "number": round(value, 4), "ci95": [round(v, 4) for v in scores.ci95.get(metric, ())],
        "interval": _interval(scores, metric).strip("()"),
    }  # fmt: skip


# --- policies -------------------------------------------------------------------------------------------------------
def policy_facts(policy: Any, labels: Sequence[str]) -> dict[str, Any]:
    """Return method, figures and noise matrix of a policy, for a card.

    Args:
        policy: a `correction.Policy`, its JSON, the name of its method, or None.
        labels: the task's, for the noise matrix.
    """
    plain: dict[str, Any] = {}
    if isinstance(policy, str):
        plain = {"method": policy}
    elif policy is not None:
        plain = dict(policy) if isinstance(policy, Mapping) else policy.to_json()
    figures = plain.get("figures") or {}
    method = str(plain.get("method") or "")
    return {
        "policy": method,
        "policy_meaning": DESCRIBED[method].meaning if method in DESCRIBED else "",
        "policy_rows": [
            {"meaning": meaning, "value": _number(figures[k])}
            for k, meaning in _FIGURES.items()
            if isinstance(figures.get(k), int | float) and not math.isnan(figures[k])
        ],
        "policy_assumes": str(figures.get("generator_accuracy_assumes") or ""),
        "policy_warnings": [str(w) for w in plain.get("warnings") or ()],
        **_matrix(plain.get("noise") or (), labels),
    }


def _matrix(noise: Sequence[Sequence[float]], labels: Sequence[str]) -> dict[str, Any]:
    """Return the estimated noise as rows of a table: for each true label, the share of notes meant for each label."""
    if len(noise) != len(labels) or any(len(row) != len(labels) for row in noise):
        return {"noise": [], "noise_columns": []}
    rows = [
        {"truth": name, **{f"meant_{k}": f"{p:.2f}" for k, p in enumerate(row)}}
        for name, row in zip(labels, noise, strict=True)
    ]
    return {"noise": rows, "noise_columns": [[name, f"meant_{k}"] for k, name in enumerate(labels)]}


# --- shared ---------------------------------------------------------------------------------------------------------
def _task_facts(task: Task, access: str, attestation: str | None) -> dict[str, Any]:
    from hf_synth import __version__

    return {
        "task": task.full_name, "task_version": task.version, "kind": task.kind, "description": task.description,
        "unverified": task.unverified,
        "access": access, "access_meaning": ACCESS_MEANING[access], "license": task.license,
        "license_data": license_data(task.license), "hub_dataset": _hub_dataset(task.source_url),
        "source_url": task.source_url, "citation": task.citation,
        "attestation": attestation, "version": __version__,
    }  # fmt: skip


def _hub_dataset(source_url: str) -> str | None:
    """Return the id of the dataset of the public Hub that is a task's source, if it is one."""
    match = re.fullmatch(r"https://(?:huggingface\.co|hf\.co)/datasets/([\w.-]+/[\w.-]+)/?", source_url)
    return match[1] if match else None


def _meanings(task: Task) -> list[tuple[str, str]]:
    return list(zip(task.labels, task.label_meanings or [""] * len(task.labels), strict=True))


def _interval(scores: Scores, metric: str) -> str:
    """Return the interval of a score in brackets, or why it has none."""
    if metric not in scores.ci95:
        return f"(no interval: {scores.no_interval.get(metric, 'none was computed')})"
    low, high = scores.ci95[metric]
    return f"({low:.3f}-{high:.3f})"


def _number(value: int | float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
