"""Why a model should not be used yet: labels that it never finds, or no gain over always answering the commonest label.

The functions take scores as plain values, as `Scores.to_json` returns them or `vars(scores)`, so that the command line
can read a file of scores without loading what computes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_synth.evaluation.evaluation import Scores

_SHOWN = 5  # labels that are listed


def weaknesses(scores: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a model by its scores, as sentences without a subject and a full stop; [] for nothing.

    Args:
        scores: `values`, `ci95`, `per_class` and `confusion` of `Scores`.
    """
    rows = {label: int(of["support"]) for label, of in scores["per_class"].items() if of["support"]}
    never = [label for label in rows if not scores["per_class"][label]["recall"]]
    found = []
    if never:
        shown = [f"{label} (0 of {rows[label]:,})" for label in never[:_SHOWN]]
        more = [f"{len(never) - _SHOWN:,} more labels"] if len(never) > _SHOWN else []
        found.append(f"never finds {_joined(shown + more)} on the test rows")
    if scores.get("confusion") and (text := _no_gain(scores, rows)):
        found.append(text)
    return found


def cure(scores: Mapping[str, Any]) -> str:
    """Return what mends a weak model, as a clause."""
    if dict(scores.get("model") or {}).get("toy"):
        return "its base model is a tiny one that knows no words: train with a pretrained --base-model"
    never = [label for label, of in scores["per_class"].items() if of["support"] and not of["recall"]]
    more = f"label more gold of {_joined(never[:_SHOWN])}" if 0 < len(never) <= _SHOWN else "label more gold"
    return f"{more}, train longer (--set num_train_epochs=N), or take another --base-model"


def weakness_text(name: str, scores: Mapping[str, Any]) -> str:
    """Return what is wrong with a model and what mends it; "" for nothing.

    Args:
        name: how the model is called.
    """
    found = weaknesses(scores)
    return f"{name} {_joined(found)}; {cure(scores)}" if found else ""


def weakness_points(scores: Scores) -> list[str]:
    """Return `weakness_text` of a model as a sentence of a report; [] for nothing."""
    text = weakness_text("The model", vars(scores))
    return [f"{text}."] if text else []


def _no_gain(scores: Mapping[str, Any], rows: Mapping[str, int]) -> str:
    """Return that a model is no better than the commonest label; "" where it is.

    Its accuracy must not be higher, and its macro-F1 not beyond chance: where labels are rare, a good model may give
    up accuracy to find them.
    """
    accuracy, total = scores["values"].get("accuracy"), sum(rows.values())
    if len(rows) < 2 or accuracy is None or not math.isfinite(accuracy):
        return ""
    commonest = max(rows, key=lambda label: rows[label])
    share = rows[commonest] / total
    constant = 2 * share / (1 + share) / len(rows)  # macro-F1 of always answering it
    limits = (scores.get("ci95") or {}).get("macro_f1") or (None, None)
    if accuracy > share or (limits[0] is not None and limits[0] > constant):
        return ""
    right = round(accuracy * total)
    return (
        f"is no better than always answering {commonest} ({right:,} of {total:,} test rows right, against "
        f"{rows[commonest]:,})"
    )


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
