"""Rows that were dropped are asked for again, in bounded rounds, without paying twice."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from support.llm_server import LLMServer, Said, entries, serving
from support.tiny import LABELS, TINY_ARGS, tiny_base, toy_rows, toy_task

from hf_synth.cli.cli import main
from hf_synth.correction.correction import correct
from hf_synth.correction.methods import CorrectionOptions
from hf_synth.correction.regeneration import estimate_again, regenerate, regenerate_with_policy
from hf_synth.errors import ColumnError, HfSynthError, ModelError, OverlapError, TaskError
from hf_synth.generation.generation import generate
from hf_synth.gold.adoption import read_dataset
from hf_synth.gold.gold import load_gold
from hf_synth.llm.llm import LLM
from hf_synth.models.record import write_facts
from hf_synth.models.training import train
from hf_synth.task.columns import UNLABELLED
from hf_synth.task.folders import read_manifest
from hf_synth.task.labels import MARKS, row_digests
from hf_synth.task.scripts import load_task

TASK = toy_task()


class Doubting:
    """Agree with gold, and with some synthetic rows: by what their texts hash to."""

    def __init__(self, share: float) -> None:
        self.share = share

    def predict(self, rows: Dataset) -> Any:
        luck = [int(sha256(text.encode()).hexdigest()[:8], 16) / 16**8 for text in rows["text"]]
        meant = rows["llm_label"] if "llm_label" in rows.column_names else rows["label"]
        said = [
            (m + (u >= self.share and "Invented" in t)) % 3 for m, u, t in zip(meant, luck, rows["text"], strict=True)
        ]
        return np.eye(3)[said] * 0.9 + 0.1 / 3


def asking(server: LLMServer, folder: Path) -> LLM:
    return LLM("m", base_url=server.url, api_key="none", journal=folder / "journal.sqlite")


def test_dropped_rows_are_asked_for_again(tmp_path: Path) -> None:
    gold = toy_rows(30, task=TASK)
    with serving(lambda request, _: Said(entries(request))) as server:
        llm, judging = asking(server, tmp_path), Doubting(0.5)
        rows = generate(TASK, gold, llm, 30)
        first = correct(TASK, rows, judging, gold=gold, method="agree")
        paid, dropped = len(server.requests), first["label_status"].count("dropped")
        assert 5 < dropped < 25
        done = regenerate(TASK, first, judging, llm, exemplars=gold, gold=gold, method="agree", rounds=2)
        kept = [i for i, s in enumerate(done["label_status"]) if s == "kept"]
        assert done["id"][:30] == rows["id"]
        assert done["label_status"][:30] == first["label_status"]
        assert len(done) == 30 + dropped + done["label_status"][30 : 30 + dropped].count("dropped")
        assert 30 - dropped < len(kept) <= 30
        assert len(set(done["id"])) == len(set(done["text"])) == len(done)
        asked = len(server.requests) - paid
        assert 0 < asked <= paid + 6  # what the first plan asked comes from the journal
        again = regenerate(TASK, first, judging, llm, exemplars=gold, gold=gold, method="agree", rounds=2)
        assert again.to_dict() == done.to_dict()
        assert len(server.requests) == paid + asked
        meant = [LABELS[x] for x in done.select(kept)["llm_label"]]
        assert max(map(meant.count, LABELS)) <= 10  # no label gets more than it had


def test_labels_of_other_llms_stay_beside_the_rows_that_have_them(tmp_path: Path) -> None:
    gold = toy_rows(30, task=TASK)
    with serving(lambda request, _: Said(entries(request))) as server:
        llm, judging = asking(server, tmp_path), Doubting(0.5)
        rows = generate(TASK, gold, llm, 30)
        rows = rows.add_column("llm_label_other", rows["llm_label"], feature=TASK.label_feature())
        first = correct(TASK, rows, judging, gold=gold, method="agree")
        done = regenerate(TASK, first, judging, llm, exemplars=gold, gold=gold, method="agree", rounds=1)
    assert len(done) > 30
    assert done["llm_label_other"][:30] == rows["llm_label"]
    assert set(done["llm_label_other"][30:]) == {None}  # nobody asked that LLM about the new rows
    assert done.features["llm_label_other"] == TASK.label_feature()


def test_rows_of_an_earlier_version_are_corrected_and_asked_for_again(tmp_path: Path) -> None:
    """Their folder has no column `fold`: it is null in them, and the new rows have theirs."""
    gold, judging = toy_rows(30, task=TASK), Doubting(0.5)
    with serving(lambda request, _: Said(entries(request))) as server:
        llm = asking(server, tmp_path)
        rows = generate(TASK, gold, llm, 30)
        first = correct(TASK, rows.remove_columns("fold"), judging, gold=gold, method="agree")
        assert first.features == TASK.corrected_features()
        assert first["fold"] == [None] * 30
        known = correct(TASK, rows, judging, gold=gold, method="agree")
        assert known["fold"] == rows["fold"]
        assert first.remove_columns("fold").to_dict() == known.remove_columns("fold").to_dict()
        done = regenerate(TASK, first.remove_columns("fold"), judging, llm, exemplars=gold, gold=gold, method="agree")
    assert done["fold"][:30] == [None] * 30
    assert set(done["fold"][30:]) <= set(range(5))
    assert len(done) > 30


def test_rounds_are_bounded_and_end_when_nothing_is_missing(tmp_path: Path) -> None:
    gold = toy_rows(12, task=TASK)
    with serving(lambda request, _: Said(entries(request))) as server:
        llm = asking(server, tmp_path)
        rows = generate(TASK, gold, llm, 6)
        never = Doubting(0.0)
        first = correct(TASK, rows, never, gold=gold, method="agree")
        assert set(first["label_status"]) == {"dropped"}
        done = regenerate(TASK, first, never, llm, exemplars=gold, gold=gold, method="agree", rounds=2)
        assert (len(done), set(done["label_status"])) == (18, {"dropped"})
        asked = len(server.requests)
        whole = correct(TASK, rows, Doubting(1.0), gold=gold, method="agree")
        assert regenerate(TASK, whole, Doubting(1.0), llm, exemplars=gold, gold=gold).to_dict() == whole.to_dict()
        assert len(server.requests) == asked
        with pytest.raises(TaskError, match="at least one round"):
            regenerate(TASK, first, never, llm, exemplars=gold, gold=gold, rounds=0)


def test_a_generator_that_has_nothing_new_ends_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gold = toy_rows(12, task=TASK)

    def same(request: dict[str, Any], _: int) -> Said:
        return Said(entries({**request, "seed": 0}))

    with serving(same) as server:
        llm, never = asking(server, tmp_path), Doubting(0.0)
        rows = generate(TASK, gold, llm, 15)
        first = correct(TASK, rows, never, gold=gold, method="agree")
        with caplog.at_level("WARNING"):
            done = regenerate(TASK, first, never, llm, exemplars=gold, gold=gold, method="agree", rounds=5)
    assert "gave no new one" in caplog.text
    assert done.to_dict() == first.to_dict()


def test_audited_rows_and_coverage_reach_the_correction(tmp_path: Path) -> None:
    gold = toy_rows(30, task=TASK)
    with serving(lambda request, _: Said(entries(request))) as server:
        llm, judging = asking(server, tmp_path), Doubting(0.5)
        first = correct(TASK, generate(TASK, gold, llm, 30), judging, gold=gold, method="agree")
        at = first["label_status"].index("dropped")
        audited = {first["id"][at]: LABELS[first["llm_label"][at]]}  # a person says that the generator was right
        told: dict[str, Any] = {"gold": gold, "method": "agree", "rounds": 1}
        done = regenerate(TASK, first, judging, llm, exemplars=gold, audited=audited, **told)
        assert first["label_status"][at] == "dropped"
        assert (done["label_status"][at], done["label"][at]) == ("kept", first["llm_label"][at])
        how: dict[str, Any] = {"gold": gold, "exemplars": gold, "rounds": 1}
        options = CorrectionOptions("agree"), CorrectionOptions("agree", coverage=0.9)
        plain, policy = regenerate_with_policy(TASK, first, judging, llm, **how, options=options[0])
        covered, sure = regenerate_with_policy(TASK, first, judging, llm, **how, options=options[1])
        assert policy is not None
        assert sure is not None
        assert policy.to_json() != sure.to_json()
        assert len(plain) == len(covered)
        assert plain["label_status"][at] == "dropped"


def test_what_correction_would_refuse_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    gold = toy_rows(30, task=TASK)
    seen = tiny_base(tmp_path / "model")
    write_facts(seen, {"row_digests": row_digests(TASK, gold.select(range(9)).select_columns(["text"]))})
    one = gold.remove_columns("group").add_column("group", ["p"] * 30)
    labelled = gold.remove_columns("source").add_column("source", [UNLABELLED] * 30)
    outside = Dataset.from_list([row | {"label": 7} for row in gold.to_list()])
    untrained: Any = lambda rows: None  # noqa: E731  a fit that must never be called
    with serving(lambda request, _: Said(entries(request))) as server:
        llm, judging = asking(server, tmp_path), Doubting(0.5)
        first = correct(TASK, generate(TASK, gold, llm, 30), judging, gold=gold, method="agree")
        paid = len(server.requests)
        wrong: list[tuple[type[HfSynthError], str, Any, dict[str, Any]]] = [
            (TaskError, "needs a judge", untrained, {"method": "llm_judge"}),
            (TaskError, "unknown method", judging, {"method": "guess"}),
            (TaskError, "does not serve single_label", judging, {"method": "replace"}),
            (ModelError, "no model folder", tmp_path / "nowhere", {}),
            (OverlapError, "trained on 9 of the 30", seen, {}),
            (TaskError, "needs a coverage: give one too", judging, {"coverage_by_class": True}),
            (TaskError, "share between 0 and 1", judging, {"coverage": 1.5}),
            (ColumnError, "1 audited ids are not among", judging, {"audited": {first["id"][0]: 0, "other": 0}}),
            (ColumnError, "not one of the task's", judging, {"audited": {first["id"][0]: "unheard"}}),
            (ColumnError, "needs gold rows", judging, {"gold": gold.select(range(1))}),
            (ColumnError, "gold", judging, {"gold": gold.remove_columns("label")}),
            (ColumnError, "label", judging, {"gold": outside}),
            (ColumnError, "all 30 gold rows are of one group", untrained, {"gold": one}),
            (ColumnError, "an LLM labelled", judging, {"gold": labelled}),
        ]  # fmt: skip
        for kind, said, corrector, how in wrong:
            with pytest.raises(kind, match=said):
                regenerate(TASK, first, corrector, llm, exemplars=gold, **{"gold": gold, "method": "agree", **how})
            assert len(server.requests) == paid, said


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        ("multi_label", {"coverage": 0.9}, "serve single_label tasks only"),
        ("multi_label", {"audited": {"r": 0}}, "serve single_label tasks only"),
        ("multi_label", {"method": "posterior_"}, "unknown method"),
        ("text2text", {"method": "argmax"}, "does not serve text2text"),
        ("text2text", {"corrector": Doubting(1.0)}, "a judge chooses among labels"),
    ],
)
def test_other_kinds_are_looked_at_as_well(kind: str, wrong: dict[str, Any], said: str) -> None:
    task = replace(TASK, kind=kind) if kind == "multi_label" else replace(TASK, kind=kind, labels=(), label_meanings=())
    rows = {"id": ["r"], "llm_label": [[]], "label_status": ["dropped"], "prompt_sha256": ["p"], "text": ["t"]}
    told: dict[str, Any] = {"corrector": "nowhere", "gold": toy_rows(4), "method": "auto", **wrong}
    with pytest.raises(TaskError, match=said):
        regenerate(task, Dataset.from_dict(rows), llm=None, exemplars=toy_rows(4), **told)  # type: ignore[arg-type]


def test_an_estimate_is_of_what_goes_beyond_the_answers_there(tmp_path: Path) -> None:
    gold = toy_rows(30, task=TASK)
    with serving(lambda request, _: Said(entries(request))) as server:
        llm = asking(server, tmp_path)
        rows = generate(TASK, gold, llm, 30)
        first = correct(TASK, rows, Doubting(0.5), gold=gold, method="agree")
        asked = len(server.requests)
        guess = estimate_again(TASK, first, gold, price=(1.0, 2.0))
        dropped = first["label_status"].count("dropped")
        assert sum(guess.rows.values()) == dropped
        assert guess.cost_usd == pytest.approx((guess.prompt_tokens + 2 * guess.completion_tokens) / 1e6)
        assert len(server.requests) == asked  # nothing was asked
        regenerate(TASK, first, Doubting(0.5), llm, exemplars=gold, gold=gold, method="agree", rounds=1)
        assert guess.calls <= len(server.requests) - asked <= guess.most_calls
    whole = correct(TASK, rows, Doubting(1.0), gold=gold, method="agree")
    assert estimate_again(TASK, whole, gold).calls == 0
    with pytest.raises(ColumnError, match="lack columns"):
        estimate_again(TASK, whole.remove_columns("prompt_sha256"), gold)
    elsewhere = whole.remove_columns("prompt_sha256").add_column("prompt_sha256", [None] * len(whole))
    with pytest.raises(ColumnError, match="were written elsewhere"):
        estimate_again(TASK, elsewhere, gold)


def test_the_verb_fills_up_what_was_dropped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*words: Any) -> tuple[int, str, str]:
        code = main([str(w) for w in words])
        return code, *capsys.readouterr()

    gold, some = tmp_path / "gold", ["--gold", tmp_path / "gold", "--gold-size", "40"]
    sizes = ["--option=n_train=100", "--option=n_validation=30", "--option=n_test=20"]
    assert run("gold", "clinic", *sizes, "--out", gold)[0] == 0
    clinic = load_task("clinic")
    seen = load_gold(clinic, gold)["train"].select(range(60))
    judge = train(
        clinic, seen, base_model=tiny_base(tmp_path / "base"), output_dir=tmp_path / "judge",
        args=TINY_ARGS | {"max_steps": 3},
    )  # fmt: skip
    assert run("generate", "clinic", *some, "--llm", "simulator", "--n", "24", "--out", tmp_path / "syn")[0] == 0
    how = [*some, "--corrector", judge, "--method", "agree"]
    assert run("correct", "clinic", tmp_path / "syn", *how, "--out", tmp_path / "first")[0] == 0
    first = read_dataset(tmp_path / "first")
    dropped = first["label_status"].count("dropped")
    assert dropped > 0
    again = ["regenerate", "clinic", tmp_path / "first", *how, "--llm", "simulator", "--rounds", "1"]
    code, out, _ = run(*again, "--dry-run", "--price", "1", "2")
    assert (code, out.split(" notes in")[0]) == (0, str(dropped))
    assert "nothing was asked" in out
    assert run(*again)[2].startswith("hf-synth: name the folder for the notes")
    at = first["label_status"].index("dropped")
    said = clinic.labels[first["llm_label"][at]]
    (tmp_path / "checked.csv").write_text(f"id,label\n{first['id'][at]},{said}\n")
    code, out, error = run(*again, "--audited", tmp_path / "checked.csv", "--out", tmp_path / "more", "--json")
    assert code == 0, error
    done, manifest = read_dataset(tmp_path / "more"), read_manifest(tmp_path / "more")
    assert done["id"][:24] == first["id"][:24]
    assert done["label_status"][at] == "kept"
    assert json.loads(out.splitlines()[-1])["new_rows"] == len(done) - len(first) > 0
    assert manifest is not None
    assert manifest["stage"] == "correct"
    assert manifest["policy"]["method"] == "agree"
    assert set(manifest[MARKS]) >= set((read_manifest(tmp_path / "first") or {})[MARKS])
    monkeypatch.setattr("hf_synth.correction.regeneration.generate", lambda *_, **__: pytest.fail("somebody was asked"))
    at_once = ["regenerate", "clinic", tmp_path / "first", *some, "--llm", "simulator", "--out", tmp_path / "x"]
    assert "is no model folder" in run(*at_once, "--corrector", tmp_path / "nothere")[2]
    assert "needs a judge" in run(*at_once, "--method", "llm_judge", "--base-model", tmp_path / "base")[2]
    assert not (tmp_path / "x").exists()
