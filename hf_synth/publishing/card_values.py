"""What the cards of datasets and models share: facts of the task, numbers and intervals, facts of a policy."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hf_synth.correction.methods import DESCRIBED
from hf_synth.errors import PublishError
from hf_synth.evaluation.evaluation import Scores
from hf_synth.publishing.card_text import access_meaning, license_data
from hf_synth.task.task import Task

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
    "auto_loss_at_most": "bound of its loss of accuracy against gold only; can be too small where a label has few rows",
    "auto_macro_f1_on_held_out_gold": "linear head trained on the chosen policy's rows: macro-F1 on held-out gold",
    "auto_macro_f1_loss_at_most": "bound of its loss of macro-F1 against gold only, over labels with gold rows",
    "auto_loss_confidence": "nominal confidence of that bound",
    "promise_error": "wrong labels that were allowed, as a share of all labels",
    "promise_confidence": "probability with which no more labels are wrong",
    "promise_looked_at": "rows that people looked at for it",
    "promise_wrong_at_most": "share of wrong labels in the dataset, at most",
    "promise_unseen_wrong_at_most": "share of wrong labels among rows that nobody looked at, at most",
    "generator_accuracy_estimated": "generator: share of right labels, estimated, not measured",
    "gold_against_synthetic_auc": "how well gold and synthetic texts can be told apart (AUC; .5 = not at all)",
    "gold_rows": "gold rows that the policy was fitted on",
    "synthetic_rows": "synthetic rows that the policy was fitted on",
}


# --- task and numbers -----------------------------------------------------------------------------------------------
def task_facts(task: Task, access: str, attestation: str | None, contact: str | None = None) -> dict[str, Any]:
    """Return what every card states of its task, its access and its licence."""
    from hf_synth import __version__

    return {
        "task": task.full_name, "task_version": task.version, "kind": task.kind, "description": task.description,
        "unverified": task.unverified, "language": task.language,
        "access": access, "access_meaning": access_meaning(access, task.license), "license": task.license,
        "license_data": license_data(task.license), "hub_dataset": hub_dataset(task.source_url),
        "source_url": task.source_url, "citation": task.citation,
        "attestation": _checked_attestation(attestation), "version": __version__, "contact": checked_contact(contact),
    }  # fmt: skip


def one_line(text: str | None) -> str:
    """Return a text in one line; "" for none."""
    return " ".join((text or "").split())


def checked_contact(text: str | None) -> str:
    """Return whom to ask for access as plain text in one line; "" for none.

    Raises:
        PublishError: it holds markup, a placeholder, or an address that is not https.
    """
    line = one_line(text)
    if re.search(r"[<>\[\]{}`|\\\x00-\x1f\x7f]", line) or re.search(r"(?i)\b(?!https://)[a-z][a-z+.-]*:(?=\S)", line):
        raise PublishError("--contact takes plain text, an e-mail address or an https:// address, without markup")
    return line


def _checked_attestation(text: str | None) -> str | None:
    """Return an attestation as it is.

    Raises:
        PublishError: a placeholder is left in it.
    """
    if text and re.search(r"\{[{%#]", text):
        raise PublishError("a placeholder is left in --attestation: name who allows it, and when")
    return text


def hub_dataset(source_url: str) -> str | None:
    """Return the id of the dataset of the public Hub that is a task's source, if it is one."""
    match = re.fullmatch(r"https://(?:huggingface\.co|hf\.co)/datasets/([\w.-]+/[\w.-]+)/?", source_url)
    return match[1] if match else None


def label_meanings(task: Task) -> list[tuple[str, str]]:
    """Return the name and the meaning of each label, in index order; "" for a label without meaning."""
    return list(zip(task.labels, task.label_meanings or [""] * len(task.labels), strict=True))


def interval_of(scores: Scores, metric: str) -> str:
    """Return the interval of a score in brackets, or why it has none."""
    if metric not in scores.ci95:
        return f"(no interval: {scores.no_interval.get(metric, 'none was computed')})"
    low, high = scores.ci95[metric]
    return f"({low:.3f}-{high:.3f})"


def number(value: int | float) -> str:
    """Return a count as it is, and any other number with three digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


# --- policies ------------------------------------------------------------------------------------------------------
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
            {"meaning": meaning, "value": number(figures[k])}
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
