"""Facts of a model's card, from the facts that training wrote and from its scores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hf_synth.evaluation.evaluation import Scores
from hf_synth.evaluation.weakness import weaknesses
from hf_synth.generation.generation import simulated
from hf_synth.models.base_models import TOY_NOTE, is_toy, known_model, licence_note, pretraining_note
from hf_synth.publishing.card_text import METRICS, code
from hf_synth.publishing.card_values import interval_of, label_meanings, task_facts
from hf_synth.task.columns import STATUSES, UNLABELLED, strictest
from hf_synth.task.task import Task

_POOLED = {  # long_notes of training.train: how to read a note that is longer than the model
    "windows": "the highest logits of its windows, label by label",
    "windows_mean": "the mean of its windows' logits",
}


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
    return task_facts(task, joined, attestation) | {
        "repo_id": repo_id, "title": repo_id.split("/")[-1] or task.name, "network": architecture,
        "call": "note" if len(task.text_columns) == 1 else '{"text": first, "text_pair": second}',
        "input": "..." if len(task.text_columns) == 1 else "\\n".join(f"{c}: ..." for c in task.text_columns),
        "labels": [{"index": str(i), "name": n, "meaning": m} for i, (n, m) in enumerate(label_meanings(task))],
        "composition": [{"what": sources.get(k, k), "rows": n} for k, n in rows.items()] or
                       [{"what": "unknown", "rows": 0}],
        "base": (f"[{base}](https://huggingface.co/{base})" if on_hub else f"{code(base or 'unknown')}, not on a Hub")
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
        scored = "Not scored: no scores of this model were given to `publish` or found beside it."
        return {"n": 0, "scores": [], "per_class": [], "excluded": "", "scored": scored}
    left, groups = scores.excluded, scores.dataset.get("groups")
    metrics = [m for m in METRICS if m in scores.values]
    return {
        "n": scores.n,
        "scored": f"On {scores.n:,} gold test rows{f' of {groups:,} groups' if groups else ''}, with 95% intervals "
                  f"over groups.{''.join(f' It {text}.' for text in weaknesses(vars(scores)))}",
        "scores": [_score_row(scores, m) for m in metrics],
        "per_class": [{"name": name, "rows": int(c.get("support", 0)),
                       **{k: f"{c.get(k, 0.0):.3f}" for k in ("precision", "recall", "f1")}}
                      for name, c in scores.per_class.items()],
        "excluded": f"Without the {scores.n - left.n:,} test rows whose text it was trained on: " + ", ".join(
            f"{METRICS[m][0]} {left.values[m]:.3f} {interval_of(left, m)}" for m in metrics[:2]) + "." if left else "",
    }  # fmt: skip


def _score_row(scores: Scores, metric: str) -> dict[str, Any]:
    value, label = scores.values[metric], METRICS[metric]
    return {
        "metric": metric, "label": label[0], "hub_metric": label[1], "value": f"{value:.3f}",
        "number": round(value, 4), "ci95": [round(v, 4) for v in scores.ci95.get(metric, ())],
        "interval": interval_of(scores, metric).strip("()"),
    }  # fmt: skip
