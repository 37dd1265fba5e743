"""What is wrong with a model by its scores."""

from __future__ import annotations

from typing import Any

from hf_synth.evaluation.weakness import weakness_text, weaknesses


def scores(found: dict[str, tuple[int, int]], macro_f1: float, low: float | None = None, **more: Any) -> dict[str, Any]:
    """Return scores of a model that finds so many of the rows of each label."""
    per_class = {label: {"support": n, "recall": k / n if n else 0.0} for label, (k, n) in found.items()}
    accuracy = sum(k for k, _ in found.values()) / sum(n for _, n in found.values())
    ci95 = {} if low is None else {"macro_f1": (low, 1.0)}
    values = {"accuracy": accuracy, "macro_f1": macro_f1}
    return {"values": values, "ci95": ci95, "per_class": per_class, "confusion": [[1]], **more}


def test_a_label_that_is_never_found_is_named_with_its_rows_and_what_mends_it() -> None:
    text = weakness_text("gold_40", scores({"fall": (8, 9), "fever": (5, 6), "bleeding": (0, 3), "other": (0, 0)}, 0.4))
    assert text.startswith("gold_40 never finds bleeding (0 of 3) on the test rows; label more gold of bleeding, ")
    toy = weakness_text("gold_40", scores({"a": (8, 9), "b": (5, 6), "c": (0, 3)}, 0.4, model={"toy": True}))
    assert toy.endswith("train with a pretrained --base-model")
    many = weakness_text("m", scores({"a": (9, 9), **{f"l{i}": (0, 2) for i in range(8)}}, 0.4))
    assert "l4 (0 of 2) and 3 more labels on" in many
    assert "label more gold, train" in many


def test_a_model_no_better_than_the_commonest_label_is_named() -> None:
    even = {"a": (3, 6), "b": (2, 6)}
    assert "no better than always answering a (5 of 12 test rows right, against 6)" in weaknesses(scores(even, 0.41))[0]
    assert weaknesses(scores({"a": (5, 6), "b": (4, 6)}, 0.74, 0.5)) == []
    rare = {"no": (900, 950), "yes": (40, 50)}  # finds the rare label and pays for it in accuracy
    assert weaknesses(scores(rare, 0.78, 0.72)) == []
    assert weaknesses(scores(rare, 0.49, 0.45))


def test_other_scores_have_none() -> None:
    assert weaknesses({"values": {"rougeL": 0.2}, "per_class": {}, "confusion": []}) == []
    sets = scores({"a": (1, 6), "b": (2, 6)}, 0.2) | {"confusion": []}
    assert weaknesses(sets) == [], "of sets of labels no label is the commonest answer"
    assert weakness_text("m", sets) == ""
    broken = scores({"a": (6, 6), "b": (1, 6)}, 0.5)
    assert weaknesses(broken | {"values": {"accuracy": float("nan")}, "ci95": {"macro_f1": [None, None]}}) == []
