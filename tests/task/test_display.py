"""Objects show themselves in five lines at a prompt, and as a small table in a notebook."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.tiny import toy_rows
from support.toy_experiment import TASK, as_synthetic

from hf_synth.correction.correction import correct_with_policy
from hf_synth.correction.description import describe
from hf_synth.evaluation.evaluation import score
from hf_synth.models.linear import linear_fit
from hf_synth.privacy.audit import audit
from hf_synth.publishing.gate import Verdict
from hf_synth.task.display import Displayed, listed


@pytest.fixture(scope="module")
def shown() -> dict[str, Displayed]:
    gold = toy_rows(40, 1)
    made = [{**row, "llm_label": row["label"], "id": f"s{i}"} for i, row in enumerate(toy_rows(60, 2))]
    rows = as_synthetic(made)
    corrected, policy = correct_with_policy(TASK, rows, linear_fit(TASK, gold, rows), gold=gold)
    probs = np.tile([0.8, 0.1, 0.1], (40, 1))  # a model that always says the first label
    scores = score(TASK, probs, np.array(gold["label"]), [f"p{i // 2}" for i in range(40)])
    verdict = Verdict("dataset", "org/name", "open", True, ("a remark",), counts={"rows": 4}, hub="http://h", push=True)
    return {
        "Task": TASK, "Policy": policy, "Description": describe(corrected, policy), "Scores": scores,
        "Findings": audit(TASK, corrected, gold=gold), "Verdict": verdict,
    }  # fmt: skip


EXPECTED = {
    "Task": ("labels: ", "scored by: macro_f1"),
    "Policy": ("fitted on: 40 gold rows, 60 synthetic rows", "chosen: "),
    "Description": ("60 rows: ", "labels, generated -> now: "),
    "Scores": ("40 rows", "scores (95% CI): macro_f1 0.", "found: ", "never found: "),
    "Findings": ("of 60 rows may leave", "gold: 40 rows", "not checked: names and places"),
    "Verdict": ("allowed, dataset org/name, access open", "counts: 4 rows", "reasons: a remark"),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_object_shows_itself_in_five_lines(name: str, shown: dict[str, Displayed]) -> None:
    text = repr(shown[name])
    assert text.startswith(f"{name}: ")
    assert len(text.splitlines()) <= 5
    assert max(map(len, text.splitlines())) < 200
    assert not any(odd in text for odd in ("np.", "mappingproxy", "dict(", "object at"))
    for part in EXPECTED[name]:
        assert part in text
    page = shown[name]._repr_html_()
    assert page.count("<tr>") == len([v for _, v in shown[name].summary()[1] if v])
    assert f"<strong>{name}</strong>" in page


def test_names_of_others_are_text() -> None:
    class Odd(Displayed):
        def summary(self) -> Any:
            return "<script>\x1b[2J", [("<b>", "a & b\n<i>"), ("nothing", "")]

    odd = Odd()
    assert repr(odd) == "Odd: <script> [2J\n  <b>: a & b <i>"
    page = odd._repr_html_()
    assert not any(tag in page for tag in ("<script", "<b>", "<i>", "\x1b", "nothing"))
    assert "a &amp; b &lt;i&gt;" in page


def test_long_lists_are_cut() -> None:
    assert listed(range(3)) == "0, 1, 2"
    assert listed(range(1_020)).endswith("10, 11, and 1,008 more")
