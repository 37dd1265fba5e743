"""Target texts: what gold says of a corrector, what becomes of a target it contradicts, and rows asked for again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from support.kinds import ASKED, DRUGS, T5_ARGS, asked_gold, generated, tiny_t5

from hf_synth.correction.correction import correct, correct_with_policy
from hf_synth.correction.methods import CorrectionOptions
from hf_synth.correction.policy import Policy
from hf_synth.correction.target_texts import Rules, decide_targets, found_in, measure
from hf_synth.errors import ColumnError, OverlapError, TaskError
from hf_synth.models.record import ModelAt
from hf_synth.models.text2text import generate_text
from hf_synth.models.training import train, trainer_fit
from hf_synth.task.columns import REASONS, STATUSES
from hf_synth.task.task import Task

SEEN: list[int] = []


def reading(rows: Dataset) -> Callable[[Dataset], Sequence[str]]:
    """Learn the drugs that rows answer with; write the one that a text names, or the most frequent one."""
    SEEN.append(len(rows))
    known = [str(a) for a in rows["answer"]]
    usual = max(sorted(set(known)), key=known.count)
    return lambda asked: [next((d for d in sorted(set(known)) if d in text), usual) for text in asked["context"]]


def guessing(rows: Dataset) -> Callable[[Dataset], Sequence[str]]:
    return lambda asked: ["aspirin"] * len(asked)


def wrong_rows(n: int, wrong: int) -> tuple[Dataset, list[str]]:
    """Make synthetic rows of which the first ones have a wrong target, every other of those one that is in no text."""
    truth = asked_gold(n, seed=4)
    said = [
        ("tomorrow maybe" if i % 2 else DRUGS[(DRUGS.index(a) + 1) % 6]) if i < wrong else a
        for i, a in enumerate(truth["answer"])
    ]
    return generated(ASKED, truth.map(lambda _, i: {"answer": said[i]}, with_indices=True)), list(truth["answer"])


def test_what_the_corrector_contradicts_is_dropped_or_rewritten() -> None:
    gold, (rows, truth) = asked_gold(60), wrong_rows(40, 10)
    done, policy = correct_with_policy(ASKED, rows, reading, gold=gold, options=CorrectionOptions("drop"))
    assert done.features == ASKED.corrected_features()
    assert done["label_status"] == ["dropped"] * 10 + ["kept"] * 30
    assert set(done["reason"][:10]) == {"not_in_text"}  # gold's answers stand in their texts
    assert done["reason"][10:] == ["agrees"] * 30
    assert done["weight"] == [0.0] * 10 + [1.0] * 30
    assert done["answer"] == rows["llm_label"]
    assert policy.figures["corrector_exact_match_on_held_out_gold"] == 1
    assert policy.figures["targets_must_be_in_text"] is True
    assert policy.figures["generator_rougeL_estimated"] == pytest.approx(0.75, abs=0.01)
    assert Policy.from_json(json.loads(json.dumps(policy.to_json()))) == policy

    done = correct(ASKED, rows, reading, gold=gold, method="replace")
    assert done["answer"] == truth
    assert done["label_status"] == ["relabelled"] * 10 + ["kept"] * 30
    assert set(done["reason"][:10]) == {"rewritten"}
    assert done["llm_label"] == rows["llm_label"]


def test_a_weak_corrector_replaces_nothing_and_drops_nothing_for_disagreeing() -> None:
    gold, (rows, _) = asked_gold(60), wrong_rows(40, 4)
    done, policy = correct_with_policy(ASKED, rows, guessing, gold=gold, options=CorrectionOptions("replace"))
    assert any("weaker" in line for line in policy.warnings)
    assert any("no row is dropped for disagreeing" in line for line in policy.warnings)
    assert "relabelled" not in done["label_status"]
    assert done["label_status"] == ["dropped"] * 4 + ["kept"] * 36  # what is in no text is wrong, whoever says so
    assert set(done["reason"][4:]) == {"abstained"}


def test_auto_leaves_targets_alone_unless_it_measured_better() -> None:
    rows, _ = wrong_rows(40, 30)

    def believing(data: Dataset) -> Callable[[Dataset], Sequence[str]]:
        """Write for each drug in a text what the rows most often answer to it."""
        answers: dict[str, list[str]] = {}
        for text, answer in zip(data["context"], data["answer"], strict=True):
            answers.setdefault(next(d for d in DRUGS if d in text), []).append(answer)
        best = {drug: max(sorted(set(said)), key=said.count) for drug, said in answers.items()}
        return lambda asked: [best.get(next(d for d in DRUGS if d in text), "") for text in asked["context"]]

    done, policy = correct_with_policy(ASKED, rows, believing, gold=asked_gold(40))
    assert policy.method == "gold_only", "gold alone answers all that is asked, and most rows are wrong"
    assert policy.figures["auto_scores"]["gold_only"] == 1
    assert policy.figures["auto_why"].startswith("gold_only")
    assert set(done["label_status"]) == {"dropped"}
    assert set(done["reason"]) == {"unused"}
    clean, _ = wrong_rows(40, 8)
    done, policy = correct_with_policy(ASKED, clean, believing, gold=asked_gold(6))  # which lack most drugs
    assert policy.method == "none"
    assert policy.figures["auto_scores"]["none"] == 1
    assert policy.figures["auto_scores"]["gold_only"] < 0.5
    assert set(done["label_status"]) == {"kept"}
    assert set(done["reason"]) == {"abstained"}


def test_gold_is_written_for_by_models_that_did_not_see_it() -> None:
    gold, (rows, _) = asked_gold(60), wrong_rows(10, 2)
    SEEN.clear()
    correct(ASKED, rows, reading, gold=gold, method="drop")
    assert SEEN == [30, 30, 60]


def test_targets_among_a_few_are_no_opinion() -> None:
    quiz = Task.from_columns(
        "quiz", kind="text2text", text_columns="question", label_column="answer", targets=("A", "B", "C"), access="open"
    )
    rules = Rules(threshold=1.0, extractive=False, stronger=True)
    decided = decide_targets(quiz, "replace", rules, ["q"] * 4, ["A", "B", "D", "D"], ["A", "C", "C", "E"])
    assert [d["answer"] for d in decided] == ["A", "C", "C", "D"]
    assert [d["label_status"] for d in decided] == ["kept", "relabelled", "relabelled", "dropped"]
    assert [d["reason"] for d in decided] == ["agrees", "rewritten", "rewritten", "unknown_target"]
    lax = Rules(threshold=0.0, extractive=False, stronger=False)
    decided = decide_targets(quiz, "drop", lax, ["q"] * 2, ["A", "D"], ["B", "D"])
    assert [d["label_status"] for d in decided] == ["kept", "dropped"]


def test_a_target_is_found_word_by_word() -> None:
    assert found_in("Heparin drip.", "started on a heparin  drip today")
    assert not found_in("arin", "heparin")
    assert not found_in("drip heparin", "heparin drip")
    assert not found_in("...", "... heparin")


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.tuples(st.text("ab .", max_size=6), st.text("ab .", max_size=6)), min_size=1, max_size=8),
    threshold=st.floats(0, 1), extractive=st.booleans(), stronger=st.booleans(),
    method=st.sampled_from(("drop", "replace")),
)  # fmt: skip
def test_what_comes_out_keeps_its_promises(
    texts: list[tuple[str, str]], threshold: float, extractive: bool, stronger: bool, method: str
) -> None:
    meant, said = [m for m, _ in texts], [s for _, s in texts]
    rules = Rules(threshold, extractive, stronger)
    for told, target, other in zip(
        decide_targets(ASKED, method, rules, ["a b"] * len(texts), meant, said), meant, said, strict=True
    ):
        assert told["label_status"] in STATUSES
        assert told["reason"] in REASONS
        assert told["weight"] == (told["label_status"] != "dropped")
        assert told["answer"] == (other if told["label_status"] == "relabelled" else target)
        if told["label_status"] == "relabelled":
            assert method == "replace"
            assert stronger


def test_measures_by_hand() -> None:
    gold = asked_gold(4)
    said = [*gold["answer"][:3], "nothing"]
    rules, figures, warnings = measure(ASKED, gold, said, gold, ["nothing"] * 2 + gold["answer"][2:], gold["answer"])
    assert figures["corrector_rougeL_on_held_out_gold"] == 0.75
    assert figures["rougeL_of_both_on_synthetic_rows"] == 0.5
    assert figures["generator_rougeL_estimated"] == round(0.5 / 0.75, 4)
    assert rules.stronger
    assert rules.threshold == pytest.approx(float(np.quantile([0, 1, 1, 1], 0.1)))
    assert not rules.extractive  # four rows say nothing of where targets stand
    assert any("few" in line for line in warnings)


def test_bad_input_is_one_sentence() -> None:
    gold, (rows, _) = asked_gold(20), wrong_rows(4, 1)
    with pytest.raises(ColumnError, match="one text for each row"):
        correct(ASKED, rows, lambda _: lambda asked: ["x"], gold=gold, method="drop")
    with pytest.raises(ColumnError, match="needs gold rows"):
        correct(ASKED, rows, reading, gold=gold.select([0]), method="drop")
    with pytest.raises(TaskError, match="'posterior' does not serve text2text"):
        correct(ASKED, rows, reading, gold=gold, method="posterior")


# --- with models ----------------------------------------------------------------------------------------------------
def test_a_trained_model_corrects_and_must_not_know_the_gold(tmp_path: Path) -> None:
    base = tiny_t5(tmp_path / "base")
    model = train(ASKED, asked_gold(160), base_model=base, output_dir=tmp_path / "m", args=T5_ARGS)
    rows, _ = wrong_rows(30, 8)
    with pytest.raises(OverlapError, match="20 of the 20"):
        correct(ASKED, rows, model, gold=asked_gold(160).select(range(20)), method="drop")
    done, policy = correct_with_policy(ASKED, rows, model, gold=asked_gold(40, seed=9))
    assert policy.method == "drop"
    assert "auto_why" in policy.figures
    assert done["label_status"][:8] == ["dropped"] * 8
    fit = trainer_fit(ASKED, base_model=base, work_dir=tmp_path / "folds", args=T5_ARGS | {"num_train_epochs": 2})
    write = fit(asked_gold(40))
    fit_of_strict = trainer_fit(ASKED, base_model=base, work_dir=tmp_path / "folds", base_access="credentialed")
    assert getattr(fit_of_strict, "access", "") == "credentialed"  # what it writes may repeat what the base learnt
    assert getattr(fit, "access", "") == ModelAt(base).access
    said = write(rows)
    assert [len(said), type(said[0])] == [30, str]
    kept = trainer_fit(ASKED, base_model=base, work_dir=tmp_path / "folds", args={"max_steps": 2}, keep=True)
    said = kept(asked_gold(20))(rows)
    (folder,) = (tmp_path / "folds").glob("fold-*")
    assert said == generate_text(ASKED, folder, rows)
