"""What a card says of a correction: how it was decided, what that rests on, and how the generator errs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_FIGURES = {  # name in a policy's figures: how a card says it
    "corrector_accuracy_on_held_out_gold": "corrector: accuracy on gold that it had not seen",
    "corrector_balanced_accuracy_on_held_out_gold": "corrector: balanced accuracy on the same rows",
    "corrector_ece_on_held_out_gold": "corrector: expected calibration error there",
    "corrector_temperature": "corrector: temperature that calibrates it",
    "corrector_ece_after_temperature": "corrector: expected calibration error after that",
    "generator_accuracy_audited": "generator: share of right labels among rows that a person checked",
    "audited_rows": "rows that a person checked",
    "generator_accuracy_estimated": "generator: share of right labels, estimated, not measured",
    "gold_against_synthetic_auc": "how well gold and synthetic texts can be told apart (AUC; .5 = not at all)",
    "gold_rows": "gold rows that the policy was fitted on",
    "synthetic_rows": "synthetic rows that the policy was fitted on",
}
METHODS = {
    "none": "labels stay as the generator meant them",
    "argmax": "the corrector's most probable label replaces the generator's",
    "threshold": "the corrector's label replaces the generator's where it is sure enough",
    "agree": "rows are kept where corrector and generator agree",
    "clean_drop": "rows are dropped whose label confident learning holds for wrong",
    "weight": "labels stay, and rows weigh as much as they are believed",
    "posterior": "the opinions of corrector and generator are joined",
    "ensemble": "joined opinions and weighted labels are averaged",
}


def policy_facts(policy: Any, labels: Sequence[str]) -> dict[str, Any]:
    """Give what a card says of a policy: its method, figures as rows of a table, and the noise as a matrix.

    Args:
        policy: a `correction.Policy`, its JSON, the name of its method, or None.
        labels: the task's, for the matrix.
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
        "policy_meaning": METHODS.get(method, ""),
        "policy_rows": [
            {"meaning": said, "value": _shown(figures[k])} for k, said in _FIGURES.items() if _told(figures, k)
        ],
        "policy_assumes": str(figures.get("generator_accuracy_assumes") or ""),
        "policy_warnings": [str(w) for w in plain.get("warnings") or ()],
        **_matrix(plain.get("noise") or (), labels),
    }  # fmt: skip


def _matrix(noise: Sequence[Sequence[float]], labels: Sequence[str]) -> dict[str, Any]:
    """Give the estimated noise as rows of a table: of notes with a true label, the share meant for each label."""
    if len(noise) != len(labels) or any(len(row) != len(labels) for row in noise):
        return {"noise": [], "noise_columns": []}
    rows = [
        {"truth": name, **{f"meant_{k}": f"{p:.2f}" for k, p in enumerate(row)}}
        for name, row in zip(labels, noise, strict=True)
    ]
    return {"noise": rows, "noise_columns": [[name, f"meant_{k}"] for k, name in enumerate(labels)]}


def _told(figures: Mapping[str, Any], name: str) -> bool:
    value = figures.get(name)
    return isinstance(value, int | float) and value == value  # not a number is not told


def _shown(value: int | float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
