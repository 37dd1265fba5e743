"""The other kinds of tasks: sets of labels, and texts written from texts, from training to what a Hub gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, load_dataset
from sklearn import metrics as sk
from support.kinds import ASKED, DRUGS, SETS, T5_ARGS, asked_gold, generated, sets_gold, tiny_t5
from support.tiny import TINY_ARGS, tiny_base

from hf_synth.correction.correction import correct, fit_policy
from hf_synth.demo.simulator import Faults, answer, running_simulator
from hf_synth.errors import ColumnError, HfSynthError, ModelError, OverlapError, TaskError
from hf_synth.evaluation.comparison import compare
from hf_synth.evaluation.evaluation import Scores, evaluate, score
from hf_synth.experiments.journey import run
from hf_synth.experiments.names import metric_name
from hf_synth.generation.answers import parse
from hf_synth.generation.generation import generate
from hf_synth.generation.prompts import render
from hf_synth.llm.llm import LLM
from hf_synth.models.inference import predict_proba
from hf_synth.models.record import weights_sha256
from hf_synth.models.text2text import (
    TEXT_METRICS,
    generate_text,
    input_texts,
    text_scores,
    trainer_parts,
    weighted_loss,
)
from hf_synth.models.training import train
from hf_synth.publishing.card_checks import check_card
from hf_synth.publishing.card_models import model_card_facts
from hf_synth.publishing.card_text import dataset_card, model_card
from hf_synth.publishing.cards import dataset_facts
from hf_synth.publishing.publishing import publish_dataset, publish_model
from hf_synth.task.labels import label_matrix, row_weights, soft_labels
from hf_synth.task.task import Task

CANARY = "Wxyzzy Canaryname"
SETS_ARGS = TINY_ARGS | {"learning_rate": 5e-3, "num_train_epochs": 12}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {"multi_label": tiny_base(folder / "bert"), "text2text": tiny_t5(folder / "t5")}


@pytest.fixture(scope="module")
def models(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    sets = train(SETS, sets_gold(240), base_model=bases["multi_label"], output_dir=folder / "sets", args=SETS_ARGS)
    asked = train(ASKED, asked_gold(160), base_model=bases["text2text"], output_dir=folder / "asked", args=T5_ARGS)
    return {"multi_label": sets, "text2text": asked}


# --- sets of labels -------------------------------------------------------------------------------------------------
def test_sets_of_labels_become_rows_of_0_and_1() -> None:
    rows = sets_gold(3).map(lambda _, i: {"findings": [[0, 2], [], [1]][i]}, with_indices=True)
    expected = [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert label_matrix(SETS, rows).tolist() == expected
    named = Dataset.from_dict({"text": ["a"] * 3, "findings": [["stay", "throat"], [], ["chest"]]})
    assert label_matrix(SETS, named).tolist() == expected
    for wrong, problem in ((["throat", CANARY], "none of the task's"), (None, "no list")):
        bad = Dataset.from_dict({"text": ["a", "b"], "findings": [["stay"], wrong]})
        with pytest.raises(ColumnError, match=f"row 1: .*{problem}") as caught:
            label_matrix(SETS, bad)
        assert CANARY not in str(caught.value)


def test_targets_of_sets_are_presence_and_absence_times_weight() -> None:
    rows = generated(SETS, sets_gold(3).map(lambda _: {"findings": [1]}))
    rows = rows.add_column("label_probs", [[0.9, 0.2, 0.0], None, None]).add_column("weight", [0.5, None, 2.0])
    expected = [[0.45, 0.1, 0, 0.05, 0.4, 0.5], [0, 1, 0, 1, 0, 1], [0, 2, 0, 2, 0, 2]]
    assert soft_labels(SETS, rows) == pytest.approx(np.array(expected))
    with pytest.raises(ColumnError, match="row 0: 'label_probs' are not 3 probabilities$"):
        soft_labels(SETS, rows.map(lambda _: {"label_probs": [1.2, 0, 0]}))
    with pytest.raises(ColumnError, match="row 0: 'weight'"):
        row_weights(rows.map(lambda _: {"weight": float("nan")}))


def test_sets_are_learnt_and_scored_as_scikit_learn_does(models: dict[str, Path]) -> None:
    from transformers import AutoConfig

    test = sets_gold(120, seed=1).map(lambda row, i: {"group": f"g{i // 3}"}, with_indices=True)
    truth, probs = label_matrix(SETS, test), predict_proba(SETS, models["multi_label"], test)
    assert AutoConfig.from_pretrained(models["multi_label"]).problem_type == "multi_label_classification"
    assert (probs.sum(1).min(), probs.sum(1).max()) != pytest.approx((1, 1), abs=0.2)
    scores, said = evaluate(SETS, models["multi_label"], test, n_bootstrap=200), probs > 0.5
    expected = {"accuracy": sk.accuracy_score(truth, said)} | {
        f"{average}_f1": sk.f1_score(truth, said, average=average, zero_division=0)
        for average in ("macro", "micro", "weighted")
    }
    expected["auroc"] = sk.roc_auc_score(truth, probs)
    expected["auprc"] = sk.average_precision_score(truth, probs)
    assert {name: scores.values[name] for name in expected} == pytest.approx(expected)
    everything = sk.f1_score(truth, np.ones_like(truth), average="macro")
    assert scores.values["macro_f1"] > everything + 0.2
    report = sk.classification_report(truth, said, target_names=SETS.labels, output_dict=True, zero_division=0)
    for label, found in scores.per_class.items():
        told = [report[label][k] for k in ("precision", "recall", "f1-score", "support")]
        assert [found[k] for k in ("precision", "recall", "f1", "support")] == pytest.approx(told)
    assert all(scores.ci95[m][0] <= scores.values[m] <= scores.ci95[m][1] for m in expected)
    assert (scores.confusion, scores.dataset["groups"], scores.excluded) == ([], 40, None)
    assert Scores.from_json(scores.to_json()) == scores
    assert compare(scores, scores).value == 0


def test_scores_of_sets_hold_by_hand_and_for_labels_that_never_occur() -> None:
    truth, said = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]]), np.array([[0.9, 0.6, 0], [0.8, 0.2, 0], [0.1, 0, 0.5]])
    values = score(SETS, said, truth, n_bootstrap=0).values
    expected = {"accuracy": 1 / 3, "macro_f1": 1 / 3, "micro_f1": 2 / 3, "weighted_f1": 2 / 3, "macro_recall": 1 / 3}
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    nothing = score(SETS, np.zeros((2, 3)), np.zeros((2, 3)), n_bootstrap=50)
    zero = ("macro_precision", "macro_recall", "macro_f1", "micro_f1", "weighted_f1")
    assert nothing.values == {"accuracy": 1, **dict.fromkeys(zero, 0)}
    with pytest.raises(ColumnError, match="each of the 3 labels"):
        score(SETS, np.zeros((2, 2)), np.zeros((2, 3)))


def test_validation_scores_sets_by_macro_f1(bases: dict[str, Path], tmp_path: Path) -> None:
    from hf_synth.models.record import model_facts

    held = sets_gold(40, seed=6)
    args = TINY_ARGS | {"learning_rate": 0.05, "num_train_epochs": 6, "lr_scheduler_type": "constant"}
    folder = train(SETS, sets_gold(40), held, base_model=bases["multi_label"], output_dir=tmp_path / "m", args=args)
    facts, found = model_facts(folder), evaluate(SETS, folder, held, n_bootstrap=0).values["macro_f1"]
    assert (facts["best_validation"], facts["labels"]) == (pytest.approx(found), list(SETS.labels))


def test_probabilities_and_weights_of_sets_reach_the_loss(bases: dict[str, Path], tmp_path: Path) -> None:
    gold = sets_gold(60, seed=9)
    rows = generated(SETS, Dataset.from_dict({c: list(gold[c]) * 2 for c in gold.column_names}, gold.features))
    probs = [[1.0, 0.0, 0.3]] * 60 + [[0.0, 0.0, 0.3]] * 60  # the first label: there in one half, not in the other
    rows = rows.add_column("label_probs", probs).add_column("weight", [0.8] * 60 + [0.2] * 60)
    folder = train(SETS, rows, base_model=bases["multi_label"], output_dir=tmp_path / "m", args=TINY_ARGS)
    said = predict_proba(SETS, folder, sets_gold(40, seed=2))
    assert said.mean(0) == pytest.approx([0.8, 0.0, 0.3], abs=0.08)


def correct_sets(rows: Dataset, corrector: Any, gold: Dataset, method: str) -> Dataset:
    done = correct(SETS, rows, corrector, gold=gold, method=method)
    assert done.features == SETS.corrected_features()
    assert done["id"] == rows["id"]
    return done


def test_sets_are_corrected_label_by_label(models: dict[str, Path]) -> None:
    gold = sets_gold(40, seed=3)
    wrong = gold.map(lambda row, i: {"findings": [0] if i < 10 else row["findings"]}, with_indices=True)
    status = ["kept"] * 39 + ["rejected"]
    rows = generated(SETS, wrong, label_status=status, reason=["as_generated"] * 39 + ["refusal"])
    probs = predict_proba(SETS, models["multi_label"], rows.select(range(39)))
    done = correct_sets(rows, models["multi_label"], sets_gold(30, seed=4), "argmax")
    assert label_matrix(SETS, done.select(range(39))).tolist() == (probs > 0.5).tolist()
    meant = label_matrix(SETS, rows)
    same = [bool(((p > 0.5) == m).all()) for p, m in zip(probs, meant, strict=False)]
    assert set(same) == {False, True}
    assert done["label_status"] == ["kept" if s else "relabelled" for s in same] + ["rejected"]
    assert done["reason"] == ["agrees" if s else "argmax" for s in same] + ["refusal"]
    assert done["label_probs"][:39] == (probs > 0.5).astype(float).tolist()  # hard labels, however unsure
    assert done["label_confidence"][:39] == [1.0] * 39
    assert done["weight"] == [1.0] * 39 + [0.0]
    assert done["llm_label"] == rows["llm_label"]

    alone = correct_sets(rows, models["multi_label"], gold, "none")
    assert alone["findings"] == rows["findings"]
    assert alone["label_status"] == status
    assert alone["label_probs"][:39] == meant[:39].tolist()
    assert alone["label_confidence"][0] == 1


def test_a_corrector_of_sets_may_be_a_fit_and_not_one_that_saw_the_gold(models: dict[str, Path]) -> None:
    gold, rows = sets_gold(20), generated(SETS, sets_gold(10, seed=5))
    seen: list[int] = []

    def fit(known: Dataset) -> Callable[[Dataset], Any]:
        seen.append(len(known))
        return lambda asked: np.tile([0.9, 0.4, 0.1], (len(asked), 1))

    done = correct_sets(rows, fit, gold, "argmax")
    assert (done["findings"], seen) == ([[0]] * 10, [16] * 5)  # each fold of gold is judged without it
    with pytest.raises(OverlapError, match="20 of the 20"):
        correct_sets(rows, models["multi_label"], gold, "argmax")
    with pytest.raises(TaskError, match="'clean_drop' does not serve multi_label"):
        correct_sets(rows, fit, gold, "clean_drop")
    with pytest.raises(TaskError, match="single_label tasks only"):
        fit_policy(SETS, rows, fit, gold=gold)
    with pytest.raises(ColumnError, match="3 numbers between 0 and 1"):
        correct_sets(rows, lambda _: lambda asked: np.full((len(asked), 3), 7.0), gold, "argmax")


# --- texts ----------------------------------------------------------------------------------------------------------
def test_several_columns_are_read_as_named_lines() -> None:
    rows = Dataset.from_dict({"question": ["what?"], "context": ["a note"], "answer": ["x"]})
    assert input_texts(ASKED, rows) == ["question: what?\ncontext: a note"]
    plain = Task.from_columns("sums", kind="text2text", text_columns="question", label_column="answer")
    assert input_texts(plain, rows) == ["what?"]
    with pytest.raises(ColumnError, match="row 1: column 'context'") as caught:
        input_texts(ASKED, Dataset.from_dict({"question": [CANARY] * 2, "context": ["a", None], "answer": ["x"] * 2}))
    assert CANARY not in str(caught.value)


def test_scores_of_texts_by_hand() -> None:
    pairs = [
        ("The heparin.", "heparin", 1, 1),
        ("heparin and heparin", "heparin drip", 0, 2 / 5),
        ("a", "the", 0, 0),  # options of a question: an answer that is only an article is that answer
        ("", "A", 0, 0),
        ("", "insulin", 0, 0),
    ]
    found = text_scores([said for said, *_ in pairs], [truth for _, truth, *_ in pairs])
    assert tuple(found) == TEXT_METRICS
    assert found["exact_match"].tolist() == [e for *_, e, _ in pairs]
    assert found["token_f1"] == pytest.approx([f for *_, f in pairs])
    # of 4 words said and 3 wanted, 1 in common, 3 once stemmed, then 2 pairs of neighbours among 3 and 2
    rouge = text_scores(["the patients walked home"], ["patient walks home"])
    assert [rouge[m][0] for m in ("rouge1", "rouge2", "rougeL")] == pytest.approx([2 / 7, 0, 2 / 7])
    stemmed = ("rouge1_stemmed", "rouge2_stemmed", "rougeL_stemmed")
    assert [rouge[m][0] for m in stemmed] == pytest.approx([6 / 7, 4 / 5, 6 / 7])


def test_the_best_of_several_right_texts_counts() -> None:
    found = text_scores(["81 mg", "81 mg", "x"], [["81 mg daily", "81 mg"], ["81 mg daily"], []])
    assert found["exact_match"].tolist() == [1, 0, 0]
    assert found["token_f1"] == pytest.approx([1, 4 / 5, 0])


def test_texts_are_learnt_and_written_in_the_order_of_rows(models: dict[str, Path]) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    test = asked_gold(60, seed=1)
    said = generate_text(ASKED, models["text2text"], test)
    assert said == generate_text(ASKED, models["text2text"], test, tokens_per_batch=60)  # another grouping of rows
    backwards = test.select(range(59, -1, -1))
    assert generate_text(ASKED, models["text2text"], backwards) == said[::-1]
    scores = evaluate(ASKED, models["text2text"], test, n_bootstrap=200)
    often = max(list(test["answer"]).count(drug) for drug in DRUGS) / 60
    assert scores.values["exact_match"] > often + 0.3
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    for name in ("rouge1", "rouge2", "rougeL"):
        each = [scorer.score(t, s)[name].fmeasure for t, s in zip(test["answer"], said, strict=True)]
        assert scores.values[name] == pytest.approx(np.mean(each))
    right = [s == t for s, t in zip(said, test["answer"], strict=True)]
    assert scores.values["exact_match"] == pytest.approx(np.mean(right))
    half = (scores.ci95["exact_match"][1] - scores.ci95["exact_match"][0]) / 2
    p, part = scores.values["exact_match"], 2.06**2 / 60  # Wilson's, since each row is a patient's only one
    assert half == pytest.approx((part * (p * (1 - p) + part / 4)) ** 0.5 / (1 + part))
    assert (scores.per_class, scores.confusion, scores.n) == ({}, [], 60)
    assert Scores.from_json(scores.to_json(rows=True)) == scores
    assert not any(drug in str(scores.to_json(rows=True)) for drug in DRUGS)


def test_scores_of_texts_tell_apart_what_was_seen(models: dict[str, Path]) -> None:
    from datasets import concatenate_datasets

    new = asked_gold(20, seed=2)
    mixed = concatenate_datasets([asked_gold(160).select(range(10)), new])
    scores = evaluate(ASKED, models["text2text"], mixed, n_bootstrap=20)
    assert scores.excluded is not None
    assert scores.excluded.values == evaluate(ASKED, models["text2text"], new, n_bootstrap=0).values
    assert (scores.n, scores.excluded.n, scores.dataset["seen"]) == (30, 20, 10)
    with pytest.raises(HfSynthError, match="are of texts: only single_label"):
        compare(scores, scores)


def test_weights_multiply_the_loss_of_their_tokens() -> None:
    import torch

    torch.manual_seed(0)
    logits, ids = torch.randn(2, 3, 5), torch.tensor([[1, 4, 2], [3, 1, -100]])
    weights = torch.tensor([[2.0, 2, 2], [0.5, 0.5, -100]])
    labels = torch.stack([ids.float(), weights], -1)
    each = -logits.log_softmax(-1)
    by_hand = (2 * sum(each[0, t, k] for t, k in enumerate((1, 4, 2))) + 0.5 * (each[1, 0, 3] + each[1, 1, 1])) / 5
    assert weighted_loss({"logits": logits}, labels) == pytest.approx(float(by_hand), rel=1e-5)
    half = weighted_loss(
        {"logits": logits}, labels, num_items_in_batch=(labels != -100).sum() * 2
    )  # two batches a step
    assert half == pytest.approx(float(by_hand) / 2, rel=1e-5)


def test_weights_reach_the_loss_with_a_mean_of_one(bases: dict[str, Path]) -> None:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

    network = AutoModelForSeq2SeqLM.from_config(AutoConfig.from_pretrained(bases["text2text"]))
    rows = generated(ASKED, asked_gold(4)).add_column("weight", [0.2, 0.2, 0.6, 0.6])
    parts = trainer_parts(network, AutoTokenizer.from_pretrained(bases["text2text"]), ASKED, rows, None)
    for row, expected in zip(parts["train_dataset"], (0.5, 0.5, 1.5, 1.5), strict=True):
        assert [weight for _, weight in row["labels"]] == pytest.approx([expected] * len(row["labels"]))


def test_the_heavier_of_two_targets_is_written(bases: dict[str, Path], tmp_path: Path) -> None:
    gold = asked_gold(32, seed=7)
    both = Dataset.from_dict({c: list(gold[c]) * 2 for c in gold.column_names}, gold.features)
    both = both.map(lambda _, i: {"answer": "clear plan" if i < 32 else "no cough"}, with_indices=True)
    for weights, expected in (([0.9, 0.1], "clear plan"), ([0.1, 0.9], "no cough")):
        rows = generated(ASKED, both).add_column("weight", [weights[0]] * 32 + [weights[1]] * 32)
        folder = train(
            ASKED, rows, base_model=bases["text2text"], output_dir=tmp_path / expected,
            args=T5_ARGS | {"num_train_epochs": 3},
        )  # fmt: skip
        assert set(generate_text(ASKED, folder, gold)) == {expected}


def test_validation_of_texts_keeps_the_best_epoch(bases: dict[str, Path], tmp_path: Path) -> None:
    from hf_synth.models.record import model_facts

    held = asked_gold(20, seed=6)
    folder = train(
        ASKED, asked_gold(48), held, base_model=bases["text2text"], output_dir=tmp_path / "m",
        args=T5_ARGS | {"num_train_epochs": 4},
    )  # fmt: skip
    found = evaluate(ASKED, folder, held, n_bootstrap=0).values["token_f1"]
    assert model_facts(folder)["best_validation"] == pytest.approx(found)
    assert model_facts(folder)["validation_rows"] == 20


def test_a_model_writes_greedily_whatever_its_base_did(models: dict[str, Path], tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM, GenerationConfig

    base = shutil.copytree(models["text2text"], tmp_path / "base")
    GenerationConfig(
        num_beams=4, min_length=30, max_length=40, decoder_start_token_id=0, eos_token_id=1, pad_token_id=0
    ).save_pretrained(base)
    gold = asked_gold(20, seed=3)
    before = generate_text(ASKED, base, gold)
    assert before == generate_text(ASKED, models["text2text"], gold)
    folder = train(ASKED, gold, base_model=base, output_dir=tmp_path / "m", args={"max_steps": 1})
    told = AutoModelForSeq2SeqLM.from_pretrained(folder).generation_config
    assert (told.num_beams, told.max_new_tokens) == (1, 4)  # twice the longest target: one word and the end
    assert not told.min_length
    assert all(len(text.split()) <= 3 for text in generate_text(ASKED, base, gold, max_new_tokens=3))


def test_target_texts_pass_as_they_are() -> None:
    gold = asked_gold(6)
    status = ["kept"] * 5 + ["rejected"]
    rows = generated(ASKED, gold, label_status=status, reason=["as_generated"] * 5 + ["empty"])
    done = correct(ASKED, rows, "no model is asked", gold=gold, method="none")
    assert done.features == ASKED.corrected_features()
    assert [done[c] for c in ("answer", "label_status", "reason")] == [
        rows[c] for c in ("answer", "label_status", "reason")
    ]
    assert set(done["label_probs"]) == set(done["label_confidence"]) == {None}
    assert done["weight"] == [1.0] * 5 + [0.0]
    with pytest.raises(TaskError, match="'argmax' does not serve text2text"):
        correct(ASKED, rows, "model", gold=gold, method="argmax")


def test_what_does_not_fit_a_kind_is_one_sentence(
    bases: dict[str, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="sequence-to-sequence"):
        train(ASKED, asked_gold(4), base_model=bases["multi_label"], output_dir=tmp_path / "m")
    with pytest.raises(ModelError, match="cannot be loaded"):
        generate_text(ASKED, models["multi_label"], asked_gold(2))
    with pytest.raises(TaskError, match="only text2text"):
        generate_text(SETS, models["text2text"], sets_gold(2))
    with pytest.raises(ColumnError, match="column 'answer' holds no text"):
        train(
            ASKED, asked_gold(2).map(lambda _: {"answer": None}), base_model=bases["text2text"],
            output_dir=tmp_path / "m",
        )  # fmt: skip
    assert not (tmp_path / "m").exists()


# --- both -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["multi_label", "text2text"])
def test_the_same_seed_gives_the_same_weights(kind: str, bases: dict[str, Path], tmp_path: Path) -> None:
    task, gold = (SETS, sets_gold(48)) if kind == "multi_label" else (ASKED, asked_gold(48))
    one, two, other = (
        train(task, gold, base_model=bases[kind], output_dir=tmp_path / name, args={"max_steps": 4}, seed=seed)
        for name, seed in (("a", 4), ("b", 4), ("c", 5))
    )
    assert weights_sha256(one) == weights_sha256(two) != weights_sha256(other)
    further = train(task, gold, base_model=one, output_dir=tmp_path / "d", args={"max_steps": 2})  # from weights
    assert weights_sha256(further) != weights_sha256(one)


CALM = Faults(refusal=0, broken=0, chatter=0, duplicate=0)


def shown(task: Task, gold: Dataset, labels: list[str]) -> list[Any]:
    rows = [dict(row) for row in gold]
    return parse(task, answer(render(task, task.prompt, rows, labels, 6), faults=CALM), labels)


def test_the_simulator_answers_every_kind() -> None:
    gold = sets_gold(6)
    entries = shown(SETS, gold, list(SETS.labels))
    assert [bool(e.row) for e in entries] == [True] * 18
    said = [e.row["findings"] for e in entries]
    assert len({str(s) for s in said}) > 2
    assert all(e.row["text"] not in set(gold["text"]) for e in entries)

    gold = asked_gold(4)
    for entry in shown(ASKED, gold, []):
        assert entry.row is not None
        assert entry.row["answer"] in entry.row["context"]
        assert entry.row["context"] not in set(gold["context"])
    three = Task.from_columns(
        "plans", kind="text2text", text_columns=("history", "exam", "labs"), label_column="plan", access="open"
    )
    notes = [
        {"history": f"Cough for {i} days. No fever.", "exam": "Lungs clear.", "labs": "Normal.", "plan": f"See in {i}."}
        for i in range(2, 6)
    ]
    found = parse(three, answer(render(three, three.prompt, notes, (), 4), faults=CALM))
    assert [bool(e.row) for e in found] == [True] * 4
    plans = {n["plan"] for n in notes}
    assert all(any(plan in e.row["plan"] for plan in plans) for e in found if e.row)

    pair = Task.from_columns(
        "pairs", text_columns=("premise", "hypothesis"), label_column="label", labels=("yes", "no"), access="open"
    )
    held = [
        {"premise": f"Seen on day {i}. No pain.", "hypothesis": f"Day {i}.", "label": ("yes", "no")[i % 2]}
        for i in range(4)
    ]
    found = parse(pair, answer(render(pair, pair.prompt, held, pair.labels, 3), faults=CALM), pair.labels)
    assert [e.row["label"] for e in found if e.row] == ["yes", "no"] * 3
    of = {h["hypothesis"]: h["label"] for h in held}
    assert all(of[e.row["hypothesis"]] == e.row["label"] for e in found if e.row)


JOURNEYS = {
    "multi_label": (SETS, sets_gold, SETS_ARGS, "macro_f1"),
    "text2text": (ASKED, asked_gold, T5_ARGS | {"num_train_epochs": 5}, "token_f1"),
}


@pytest.mark.parametrize("kind", list(JOURNEYS))
def test_a_whole_journey(kind: str, bases: dict[str, Path], hub: Any, tmp_path: Path) -> None:
    task, gold_of, args, main = JOURNEYS[kind]
    gold = DatasetDict({"train": gold_of(60), "test": gold_of(30, seed=1)})
    with running_simulator(faults=CALM) as url:
        llm = LLM("simulator", base_url=url, api_key="none", journal=tmp_path / "journal.sqlite")
        made = run(
            task,
            lambda shown: generate(task, shown, llm, 40),
            gold=gold,
            base_model=bases[kind],
            out=tmp_path / "out",
            arms=("gold", "gold_plus_corrected"),
            training={"args": args},
            method={"multi_label": "argmax", "text2text": "none"}.get(kind, "auto"),
        )
    table = (tmp_path / "out" / "scores.md").read_text()
    assert [cell.strip() for cell in table.splitlines()[0].split("|")][1:3] == ["trained on", f"{main} (95% CI)"]
    both = f"gold_60_plus_{'corrected' if kind == 'multi_label' else 'raw'}"  # targets of texts are not corrected
    assert list(made.scores) == ["gold_60", both]
    assert made.scores[both].model["rows"]["gold"] == 60
    assert sum(made.scores[both].model["rows"].values()) == 100
    assert metric_name(main) in (tmp_path / "out" / "scores.svg").read_text()

    model, scores = made.models[both], made.scores[both]
    where = {"endpoint": hub.url, "token": hub.token, "private": False}
    verdict = publish_dataset(
        task, made.corrected, f"org/{kind}-rows", gold=gold, scores=made.scores, export_dir=tmp_path / "rows",
        policy=made.policy.method, **where,
    )  # fmt: skip
    assert verdict.pushed, verdict
    repo = f"org/{kind}-model"
    verdict = publish_model(task, model, scores, repo, gold=gold, export_dir=tmp_path / "model", **where)
    assert verdict.pushed, verdict
    rows = load_dataset(f"org/{kind}-rows", split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.features[task.label_column] == task.label_feature()
    assert len(rows) > 20
    check_pulled_model(task, repo, model, gold["test"], str(tmp_path / "cache"))
    cards = [(tmp_path / name / "README.md").read_text() for name in ("rows", "model")]
    assert [check_card(card) for card in cards] == [[], []]
    assert ("AutoModelForSeq2SeqLM" in cards[1]) == (kind == "text2text")
    assert ("by a corrector" in cards[0]) == (kind == "multi_label")
    assert ("pipeline_tag: text-generation" in cards[1]) == (kind == "text2text")


def check_pulled_model(task: Task, repo: str, local: Path, test: Dataset, cache: str) -> None:
    """Pull a model with plain transformers and see that it says what ours says."""
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(repo, cache_dir=cache)
    if task.kind == "multi_label":
        model = AutoModelForSequenceClassification.from_pretrained(repo, cache_dir=cache)
        probs = model(**tokenizer(test[0]["text"], return_tensors="pt")).logits.sigmoid()[0].detach().numpy()
        assert probs == pytest.approx(predict_proba(task, local, test.select([0]))[0], abs=1e-5)
        return
    model = AutoModelForSeq2SeqLM.from_pretrained(repo, cache_dir=cache)
    assert model.generation_config.max_new_tokens >= 2  # its own way of writing came along
    ids = model.generate(tokenizer(input_texts(task, test)[0], return_tensors="pt").input_ids)
    said = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert said == generate_text(task, local, test.select([0]))[0]


def test_cards_of_models_say_how_to_load_them() -> None:
    values = dict.fromkeys(TEXT_METRICS, 0.5)
    scores = Scores("drugs", 9, values, dict.fromkeys(values, (0.4, 0.6)), {}, [])
    card = model_card(model_card_facts(ASKED, {"access": "open"}, scores, repo_id="demo/drugs"))
    assert check_card(card) == []
    assert '"question: ...\\ncontext: ..."' in card
    assert "text-classification" not in card
    assert "## Labels" not in card
    for name in ("exact match", "token F1", "ROUGE-1", "ROUGE-2", "ROUGE-L"):
        assert f"| {name}" in card
    sets = model_card(model_card_facts(SETS, {"access": "open"}, None, repo_id="demo/sets"))
    assert check_card(sets) == []
    assert "top_k=None" in sets
    assert "pipeline_tag: text-classification" in sets


def test_cards_of_uncorrected_rows_do_not_speak_of_a_corrector() -> None:
    for task, gold in ((SETS, sets_gold(12)), (ASKED, asked_gold(12))):
        rows = correct(task, generated(task, gold), "no model is asked", gold=gold, method="none")
        card = dataset_card(dataset_facts(task, rows, policy="none"))
        assert check_card(card) == []
        assert "Label correction: none" in card
