"""LLM labels beside the rows: asked for, paired, written by `hf-synth label`, and kept out of training rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Value
from support.judges import voting
from support.kinds import SETS
from support.llm_server import serving
from support.tiny import LABELS, toy_rows, toy_task
from support.toy_experiment import TASK, as_synthetic, toy_gold

from hf_synth.cli.cli import main
from hf_synth.correction.annotations import annotate, annotations_of
from hf_synth.correction.augmentation import augment
from hf_synth.correction.correction import correct
from hf_synth.correction.judging import LLMJudge, label_notes
from hf_synth.errors import ColumnError, TaskError
from hf_synth.experiments.grid import Grid
from hf_synth.experiments.opinions import ask, read_opinions
from hf_synth.experiments.planning import prepare
from hf_synth.gold.adoption import adopt, read_dataset
from hf_synth.gold.gold import load_gold, split_by_group, subset
from hf_synth.llm.llm import LLM
from hf_synth.models.linear import linear_fit
from hf_synth.task.columns import access_of
from hf_synth.task.folders import read_manifest, write_stage


def judge_at(url: str, folder: Path, **how: Any) -> LLMJudge:
    return LLMJudge(TASK, LLM("m", base_url=url, api_key="none", journal=folder / "j.sqlite"), votes=1, **how)


class Learnt(LLM):
    """An LLM that hands on the access of the notes that it learnt, as a `LocalLLM` does."""

    access = "credentialed"


class Wrapper:
    """An object of a user around an LLM, or a judge, that says nothing of its access itself."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.model = "m"

    def stream(self, questions: Any, **options: Any) -> Any:
        return self._inner.stream(questions, **options)

    def predict(self, rows: Dataset) -> Any:
        return self._inner.predict(rows)


def test_labels_of_a_model_that_learnt_notes_are_as_strict_as_these(tmp_path: Path) -> None:
    gold = toy_rows(12, 1)
    with serving(voting(0.8)) as server:
        learnt = Learnt("m", base_url=server.url, api_key="none", journal=tmp_path / "j.sqlite")
        judge = LLMJudge(TASK, learnt, votes=1)
        plain = judge_at(server.url, tmp_path)
        assert (judge.access, plain.access) == ("credentialed", "open")
        assert access_of(annotate(plain, gold)) == "open"
        done = annotate(judge, gold)
        assert access_of(done) == "credentialed"
        assert done["llm_label"][:] == annotate(plain, gold)["llm_label"][:]
        assert access_of(label_notes(TASK, gold, learnt, votes=1)) == "credentialed"
        assert access_of(label_notes(TASK, gold, plain.llm, votes=1)) == "open"
        rows = as_synthetic([{**row, "llm_label": row["label"]} for row in toy_rows(8, 2).to_list()])
        assert access_of(correct(TASK, rows, plain, gold=gold, method="argmax")) == "open"
        assert access_of(correct(TASK, rows, judge, gold=gold, method="argmax")) == "credentialed"
        assert access_of(correct(TASK, rows, judge, gold=gold, method="none")) == "open"  # it was not asked
        wrapped = LLMJudge(TASK, Wrapper(learnt), votes=1)
        assert access_of(annotate(wrapped, gold)) == wrapped.access == "credentialed"
        assert access_of(correct(TASK, rows, Wrapper(judge), gold=gold, method="argmax")) == "credentialed"
        ask(TASK, judge, gold, rows, seed=0, folder=tmp_path / "o", name="judge")
    stored = read_opinions(TASK, tmp_path / "o")
    assert access_of(correct(TASK, rows, stored, gold=gold, method="argmax")) == "credentialed"


def with_labels(rows: Dataset, **columns: list[Any]) -> Dataset:
    for name, values in columns.items():
        feature = Value("float32") if "confidence" in name else TASK.label_feature()
        rows = rows.add_column(name, values, feature=feature)
    return rows


def test_an_llm_is_asked_about_gold_and_its_answers_stand_beside_the_labels(tmp_path: Path) -> None:
    gold = toy_rows(20, 1)
    with serving(voting(0.8)) as server:
        done = annotate(judge_at(server.url, tmp_path), gold)
        again = annotate(judge_at(server.url, tmp_path), done, name="b")
        assert len(server.requests) == 20, "the second answers come from the journal"
        with pytest.raises(ColumnError, match="'llm_label' already: choose another name for the annotator"):
            annotate(judge_at(server.url, tmp_path), done)
        with pytest.raises(TaskError, match="no name of an annotator"):
            annotate(judge_at(server.url, tmp_path), gold, name="B C")
        rejected = as_synthetic([{**row, "llm_label": row["label"]} for row in gold.to_list()]).to_list()
        rejected[3] |= {"text": None, "label_status": "rejected"}
        rows = annotate(
            judge_at(server.url, tmp_path), Dataset.from_list(rejected, features=TASK.synthetic_features()), name="b"
        )
    assert done.column_names == [*gold.column_names, "llm_label", "llm_confidence"]
    assert done["label"][:] == gold["label"][:]
    assert done.features["llm_label"] == TASK.label_feature()
    right = np.mean(np.array(done["llm_label"][:]) == gold["label"][:])
    assert 0.5 < right < 1
    assert done["llm_confidence"][:] == pytest.approx([2 / 3] * 20)  # one vote and a third of one beforehand, of two
    assert again["llm_label_b"][:] == done["llm_label"][:]
    assert rows["llm_label_b"][3] is None
    assert rows["llm_confidence_b"][3] is None
    assert [v for i, v in enumerate(rows["llm_label_b"][:]) if i != 3] == [
        v for i, v in enumerate(done["llm_label"][:]) if i != 3
    ]


def test_unlabelled_notes_have_a_confidence_too(tmp_path: Path) -> None:
    with serving(voting()) as server:
        rows = label_notes(
            TASK,
            toy_rows(6, 1).select_columns(["id", "text"]),
            judge_at(server.url, tmp_path).llm,
            votes=1,
            access="open",
        )
    assert rows["llm_confidence"][:] == rows["label_confidence"][:]


def test_what_gold_and_rows_share_is_paired() -> None:
    gold, rows = toy_rows(4, 1), as_synthetic([{**r, "llm_label": r["label"]} for r in toy_rows(3, 2).to_list()])
    assert annotations_of(TASK, gold, rows) is None
    told = with_labels(gold, llm_label=[0, 1, 2, None], llm_confidence=[0.5, 0.9, 1.0, None], llm_label_b=[2, 2, 2, 2])
    paired = annotations_of(TASK, told, with_labels(rows, llm_label_b=[0, None, 1], llm_label_c=[0, 0, 0]))
    assert paired is not None
    assert paired[0].names == ("llm_label", "llm_label_b")
    assert paired[0].labels.tolist() == [[0, 2], [1, 2], [2, 2], [-1, 2]]
    assert paired[1].labels[:, 1].tolist() == [0, -1, 1]
    assert paired[0].sure is None, "the rows state no confidence"
    sure = annotations_of(TASK, told, with_labels(rows, llm_confidence=[0.5, None, 0.25]))
    assert sure is not None
    assert sure[1].sure == pytest.approx(np.array([[0.5], [np.nan], [0.25]]), nan_ok=True)
    written = rows.remove_columns("prompt_sha256").add_column("prompt_sha256", ["x"] * 3)
    assert annotations_of(TASK, with_labels(gold, llm_label=[0, 1, 2, 0]), written) is None, "written for a label"
    with pytest.raises(ColumnError, match="row 1: column 'llm_confidence' is no confidence"):
        annotations_of(TASK, told, with_labels(rows, llm_confidence=[0.5, 7.0, 0.25]))
    named = gold.add_column("llm_label_b", ["no"] * 4)
    with pytest.raises(ColumnError, match="'llm_label_b' holds no label of task"):
        annotations_of(TASK, named, with_labels(rows, llm_label_b=[0, 1, 2]))


def test_rows_made_elsewhere_keep_labels_of_llms() -> None:
    table = Dataset.from_dict({
        "text": ["a sore cough", "tube in"], "llm_label": ["mild", "severe"], "llm_label_x": ["mild", "none"],
        "llm_confidence": [0.5, 0.9], "llm_confidence_x": [0.4, 0.8],
    })  # fmt: skip
    rows = adopt(TASK, table, access="open")
    gold = with_labels(toy_rows(4, 1), llm_label=[0, 1, 2, 0], llm_label_x=[0, 1, 2, 0],
                       llm_confidence=[0.5] * 4, llm_confidence_x=[0.5] * 4)  # fmt: skip
    paired = annotations_of(TASK, gold, rows)
    assert paired is not None
    assert paired[1].labels.tolist() == [[1, 1], [2, 0]]
    assert paired[1].sure == pytest.approx(np.array([[0.5, 0.4], [0.9, 0.8]]))


def test_labels_of_gold_travel_with_it_and_enter_no_training_row() -> None:
    gold = with_labels(toy_rows(30, 1), llm_label=[1] * 30, llm_label_b=[2] * 30, llm_confidence=[0.5] * 30)
    extra = {"llm_label", "llm_label_b", "llm_confidence"}
    assert extra <= set(subset(TASK, gold, 12).column_names)
    assert all(extra <= set(part.column_names) for part in split_by_group(TASK, gold).values())
    rows = as_synthetic([{**r, "llm_label": r["label"]} for r in toy_rows(10, 2).to_list()])
    rows = with_labels(rows, llm_label_b=[0] * 10, llm_confidence=[0.9] * 10)
    done = correct(TASK, rows, linear_fit(TASK, gold, rows), gold=gold, method="measured")
    joined = augment(TASK, done, gold=gold)
    assert not {"llm_label_b", "llm_confidence"} & set(joined.column_names)
    by_source = {(s, v) for s, v in zip(joined["source"][:], joined["llm_label"][:], strict=True) if s == "gold"}
    assert by_source == {("gold", None)}
    assert augment(TASK, done, gold=gold, strategy="gold").column_names == joined.column_names


def test_the_verb_labels_gold_and_puts_further_llms_beside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stage(TASK, toy_gold(), tmp_path / "gold", stage="gold", seed=3)
    notes = toy_rows(12, 9).select_columns(["id", "text", "access"])
    notes.to_parquet(tmp_path / "notes.parquet")
    task = str(tmp_path / "gold")
    with serving(voting(0.9)) as server:
        asked = ["--llm", "m", "--base-url", server.url, "--votes", "1", "--json", "-q"]

        def labelled(*words: str, out: str) -> dict[str, Any]:
            assert main(["label", task, *words, *asked, "--out", str(tmp_path / out)]) == 0
            return json.loads(capsys.readouterr().out.splitlines()[-1])

        done = labelled("--gold", out="one")
        assert done["rows"] == 100
        assert 80 <= done["right"] < 100
        labelled(str(tmp_path / "one"), "--gold", "--as", "b", out="both")
        labelled(str(tmp_path / "notes.parquet"), out="notes")
        labelled(str(tmp_path / "notes"), "--as", "b", out="notes_b")
        assert main(["label", task, str(tmp_path / "one"), "--as", "c", *asked, "--out", str(tmp_path / "no")]) == 1
        assert "add --gold" in capsys.readouterr().err
        assert main(["label", task, *asked, "--out", str(tmp_path / "no")]) == 1
        assert "name the notes to label" in capsys.readouterr().err
    assert (read_manifest(tmp_path / "both") or {})["stage"] == "gold"
    assert (read_manifest(tmp_path / "both") or {})["seed"] == 3
    gold = load_gold(TASK, tmp_path / "both")
    assert {split: len(rows) for split, rows in gold.items()} == {"train": 60, "test": 40}
    wanted = {"llm_label", "llm_confidence", "llm_label_b", "llm_confidence_b"}
    assert all(wanted <= set(rows.column_names) for rows in gold.values())
    rows = read_dataset(tmp_path / "notes_b")
    assert (read_manifest(tmp_path / "notes_b") or {})["stage"] == "label"
    assert wanted <= set(rows.column_names)
    assert set(rows["source"]) == {"unlabelled"}
    paired = annotations_of(TASK, gold["train"], rows)
    assert paired is not None
    assert paired[0].names == ("llm_label", "llm_label_b")
    assert paired[1].sure is not None


def test_an_experiment_refuses_methods_that_gold_has_no_labels_for(tmp_path: Path) -> None:
    pool = as_synthetic(
        [{**r, "llm_label": r["label"], "id": f"s{i}"} for i, r in enumerate(toy_rows(60, 2).to_list())]
    )
    grid = Grid(sizes=(20,), arms=("gold", "augment measured"), ratios=(2.0,), seeds=(0,))
    with pytest.raises(TaskError, match="'measured' counts an LLM's errors on gold, and gold holds no labels"):
        prepare(TASK, pool, gold=toy_gold(), out=tmp_path / "a", grid=grid)
    told = DatasetDict({s: with_labels(rows, llm_label=rows["label"][:]) for s, rows in toy_gold().items()})
    _, cells, _ = prepare(TASK, pool, gold=told, out=tmp_path / "b", grid=grid)
    assert len(cells) == 2


def test_only_labels_of_one_kind_are_counted(tmp_path: Path) -> None:
    judge = LLMJudge(SETS, LLM("m", base_url="http://127.0.0.1:9/v1", journal=tmp_path / "j.sqlite"))
    with pytest.raises(TaskError, match="multi_label: labels of LLMs are counted for single_label tasks only"):
        annotate(judge, toy_rows(2, 1))
    assert TASK.labels == LABELS


def test_labels_of_an_llm_are_read_by_their_names() -> None:
    task = toy_task(labels=("1", "2", "3"))
    texts = {"text": ["a", "b", "c", "d"]}
    rows = Dataset.from_dict({**texts, "label": ["1", "2", "3", "3"], "llm_label_a": [1, 2, 3, None]})
    asked = rows.add_column("source", ["unlabelled"] * 4).add_column("llm_label", ["1", "2", "3", "1"])
    for paired in annotations_of(task, rows, asked):  # type: ignore[union-attr]
        assert paired.labels[:, 0].tolist() == [0, 1, 2, -1]  # a number is a name here, also beside an empty cell
    spelled = Dataset.from_dict({**texts, "label": list("1231"), "llm_label_a": [" 1", "2.0", "banana", ""]})
    assert annotations_of(task, spelled, asked)[0].labels[:, 0].tolist() == [0, 1, -1, -1]  # type: ignore[index]


@pytest.mark.parametrize("stored", ["another order", "names"])
def test_llm_labels_may_be_coded_otherwise_than_the_task(stored: str) -> None:
    gold, own = toy_rows(30, 1), as_synthetic([{**r, "llm_label": r["label"]} for r in toy_rows(20, 2).to_list()])
    names = [LABELS[v] for v in own["llm_label"]]
    feature = ClassLabel(names=list(LABELS[::-1])) if stored == "another order" else Value("string")
    values = [feature.str2int(n) for n in names] if isinstance(feature, ClassLabel) else names
    other = own.remove_columns("llm_label").add_column("llm_label", values, feature=feature)
    done, same = (correct(TASK, rows, linear_fit(TASK, gold, own), gold=gold, method="agree") for rows in (other, own))
    for column in ("label", "llm_label", "label_status"):
        assert done[column][:] == same[column][:]
    assert done.features == same.features
