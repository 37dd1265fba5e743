"""Arms of an experiment whose labels come from an LLM: asked once, counted, and apart from gold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from support.judges import by_signs, voting
from support.llm_server import LLMServer, Said, serving
from support.tiny import LABELS
from support.toy_experiment import TASK, run, toy_gold, writer

from hf_synth.cli.cli import main
from hf_synth.correction.judging import LLMJudge
from hf_synth.errors import TaskError
from hf_synth.experiments.experiment import outline
from hf_synth.experiments.grid import Grid, ScoringProtocol, plan, with_fields
from hf_synth.experiments.opinions import ask, judge_identity, read_opinions
from hf_synth.gold.gold import subset
from hf_synth.llm.llm import LLM
from hf_synth.task.folders import write_stage
from hf_synth.task.labels import row_digests

JUDGED = Grid(sizes=(20,), arms=("gold", "augment raw", "augment llm_judge"), ratios=(1.0, 2.0), seeds=(0,))


def judge_at(server: LLMServer, folder: Path, **more: Any) -> LLMJudge:
    llm = LLM("m", base_url=server.url, api_key="none", journal=folder / "journal.sqlite", price=(1.0, 2.0))
    return LLMJudge(TASK, llm, **{"votes": 2, **more})


def never(request: dict[str, Any], _: int) -> Said:
    raise AssertionError("asked again")


def test_a_judge_is_asked_once_and_its_labels_are_an_arm(tmp_path: Path) -> None:
    with serving(voting()) as server:
        judge = judge_at(server, tmp_path)
        planned = outline(
            TASK,
            writer,
            gold=toy_gold(),
            judges=judge,
            grid=JUDGED,
            out=tmp_path / "out",
            protocol=ScoringProtocol(drop_seen=True),
        )
        assert (planned.judged, len(server.requests)) == (20 + 40, 0)
        made = run(tmp_path / "out", JUDGED, judges=judge_at(server, tmp_path), report=True)
        asked = len(server.requests)
    assert not made.failed
    assert asked <= 2 * (20 + 40), "the rows of a small ratio are among those of a large one"
    rows = {(r["arm"], r["ratio"], r["seed"]): r for r in made.rows}
    row = rows["augment llm_judge", 2.0, 0]
    assert (row["corrector"], row["judged_by"], row["policy"], row["gold_budget"]) == ("m", "m", "posterior", 20)
    assert json.loads(row["policy_figures"])["judge"]["by"] == "votes"
    assert row["n_relabelled"] > 5, "three in ten labels of this generator are drawn at random"
    assert row["judge_calls"] == 120
    assert row["judge_cost_usd"] == pytest.approx(
        (row["judge_prompt_tokens"] + 2 * row["judge_completion_tokens"]) / 1e6, rel=0.01
    )
    small = rows["augment llm_judge", 1.0, 0]
    assert small["judge_calls"] == pytest.approx(80, abs=1), "a cell bears the share of its own rows"
    assert rows["augment raw", 2.0, 0]["judge_calls"] == 0
    gains = [c for c in made.comparisons if c.kind == "correction gain" and "llm_judge" in c.what]
    assert len(gains) == 2
    assert "corrected (llm judge)" in (made.out / "report.md").read_text(encoding="utf-8")
    with serving(never) as server:  # the same name, model and way of asking: nothing is asked again
        again = run(tmp_path / "out", JUDGED, judges=judge_at(server, tmp_path))
        assert again.rows == made.rows
        assert not server.requests


def test_labels_of_a_judge_are_those_it_gave(tmp_path: Path) -> None:
    from hf_synth.gold.adoption import read_dataset

    grid = Grid(sizes=(20,), arms=("augment llm_judge",), ratios=(2.0,), seeds=(0,))
    with serving(voting()) as server:
        made = run(tmp_path / "out", grid, judges={"judge": judge_at(server, tmp_path)})
    done = read_dataset(made.out / "corrected" / made.rows[0]["corrected_key"])
    assert [LABELS[i] for i in done["label"]] == [by_signs(t) for t in done["text"]]
    kept = next((made.out / "judged").iterdir())
    said = b"".join(p.read_bytes() for p in kept.rglob("*") if p.is_file())
    assert not [t for t in done["text"] if len(t) > 20 and t.encode() in said], "no text is kept with opinions"


def test_another_judge_is_another_cell(tmp_path: Path) -> None:
    grid = Grid(sizes=(20,), arms=("augment llm_judge",), ratios=(2.0,), seeds=(0,))
    with serving(voting()) as server:
        first = run(tmp_path / "out", grid, judges={"a": judge_at(server, tmp_path)})
        other = run(tmp_path / "out", grid, judges={"a": judge_at(server, tmp_path, votes=3)})
        both = run(tmp_path / "out", grid, judges={"a": judge_at(server, tmp_path), "b": judge_at(server, tmp_path)})
    assert first.rows[0]["cell_key"] != other.rows[0]["cell_key"]
    assert [r["corrector"] for r in both.rows] == ["a", "b"]
    assert [c.kind for c in both.comparisons] == ["corrector"]


def test_a_judge_that_cannot_be_reached_fails_its_cells_alone(tmp_path: Path) -> None:
    grid = Grid(sizes=(20,), arms=("gold", "augment llm_judge"), ratios=(2.0,), seeds=(0,))
    llm = LLM("m", base_url="http://127.0.0.1:9/v1", api_key="none", journal=tmp_path / "j.sqlite", max_retries=0)
    made = run(tmp_path / "out", grid, judges={"m": LLMJudge(TASK, llm, 1)})
    assert [r["arm"] for r in made.rows] == ["gold"]
    assert [f["labels"] for f in made.failed] == ["llm_judge"]
    assert not list((made.out / "judged").iterdir()), "what was not answered is not kept as an opinion"
    with serving(voting()) as server:
        assert not run(tmp_path / "out", grid, judges={"m": judge_at(server, tmp_path)}).failed


def test_a_judge_that_talks_of_something_else_is_no_judge(tmp_path: Path) -> None:
    grid = Grid(sizes=(20,), arms=("gold", "augment llm_judge"), ratios=(2.0,), seeds=(0,))
    with serving(lambda request, _: Said("I would rather not say.")) as server:
        made = run(tmp_path / "out", grid, judges=judge_at(server, tmp_path))
    assert "gave no vote on 20 notes" in made.failed[0]["message"]


@dataclass
class Shows:
    """A judge that shows gold rows in its prompts."""

    exemplars: Dataset
    asked: list[str]

    def predict(self, rows: Dataset) -> Any:
        self.asked += row_digests(TASK, rows.select_columns(["text"]))
        return np.eye(3)[[LABELS.index(by_signs(t)) for t in rows["text"]]] * 0.94 + 0.02


def test_exemplars_of_a_judge_are_the_cells_own_and_not_what_it_is_measured_on(tmp_path: Path) -> None:
    grid = Grid(sizes=(20,), arms=("gold", "augment llm_judge"), ratios=(2.0,), seeds=(0,))
    made_for: list[Shows] = []

    def few_shot(own: Dataset, seed: int) -> Shows:
        made_for.append(Shows(own.select(range(4)), []))
        return made_for[-1]

    made = run(tmp_path / "a", grid, judges={"few": few_shot})
    assert not made.failed
    row = next(r for r in made.rows if r["labels"] == "llm_judge")
    (judge,) = made_for
    shown = set(row_digests(TASK, judge.exemplars.select_columns(["text"])))
    assert not shown & set(judge.asked), "it knows the answer to those"
    assert json.loads(row["policy_figures"])["gold_rows"] <= 16
    assert row["gold_budget"] == 20
    gold = toy_gold()
    for foreign in (gold["test"], gold["train"]):  # test rows, and gold beyond the 20 of the cell
        cheat = run(tmp_path / "b", grid, judges={"cheat": Shows(foreign, [])})
        assert [(f["labels"], f["error"]) for f in cheat.failed] == [("llm_judge", "OverlapError")]
        assert "not of the cell's own gold" in cheat.failed[0]["message"]


def test_opinions_are_of_the_rows_that_were_asked_about(tmp_path: Path) -> None:
    gold = toy_gold()
    ask(TASK, Shows(gold["train"].select([]), []), gold["train"].select(range(10)), gold["test"].select(range(5)),
        seed=0, folder=tmp_path / "o", name="x")  # fmt: skip
    said = read_opinions(TASK, tmp_path / "o")
    assert said.predict(gold["train"].select(range(10))).argmax(1).tolist() == gold["train"]["label"][:10]
    with pytest.raises(Exception, match="was not asked about"):
        said.predict(gold["train"])
    assert len(said.known(gold["train"])) >= 10


def test_a_copy_of_an_exemplar_does_not_bring_it_back(tmp_path: Path) -> None:
    """The pool holds what was shown in the same words: the judge is asked about that, and not measured on it."""
    own = toy_gold()["train"].select(range(20))
    shown = own.select(range(5))
    ask(TASK, Shows(shown, []), own, shown, seed=0, folder=tmp_path / "o", name="x")
    said = read_opinions(TASK, tmp_path / "o")
    names = set(row_digests(TASK, shown.select_columns(["text"])))
    known = said.known(own)
    assert not names & set(row_digests(TASK, known.select_columns(["text"])))
    assert len(said.predict(shown)) == 5


def test_each_seed_has_its_judge_of_a_pool_and_all_the_gold(tmp_path: Path) -> None:
    """At the size of all gold, seeds share it, and still judge other shares of a pool of rows made elsewhere."""
    pool = writer(toy_gold()["train"], 120, 0)
    grid = Grid(sizes=(0,), arms=("augment llm_judge",), ratios=(1.0,), seeds=(0, 1, 2))
    made = run(tmp_path / "out", grid, pool, judges={"x": Shows(toy_gold()["train"].select([]), [])})
    assert not made.failed
    assert len({r["corrected_key"] for r in made.rows}) == 3


@dataclass
class Wrong(Shows):
    """Labels all texts by their sign, and then the next label."""

    def predict(self, rows: Dataset) -> Any:
        return np.roll(super().predict(rows), 1, axis=1)


def test_another_judge_of_ones_own_is_asked(tmp_path: Path) -> None:
    grid = Grid(arms=("gold", "zero-shot"), sizes=(20,), seeds=(0,))
    nothing = toy_gold()["train"].select([])
    found = [
        next(r for r in run(tmp_path / "out", grid, None, judges=judge).rows if r["arm"] == "zero-shot")["accuracy"]
        for judge in (Shows(nothing, []), Wrong(nothing, []))
    ]
    assert found == [1.0, 0.0]
    few = [judge_identity(TASK, "x", Shows(toy_gold()["train"].select(range(n)), [])) for n in (0, 3)]
    assert few[0] != few[1]


def test_a_judge_that_no_arm_asks_is_said(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no arm asks judge 'x'"):
        run(tmp_path, Grid(arms=("gold",), sizes=(20,), seeds=(0,)), None, judges={"x": few_shot})


def few_shot(own: Dataset, seed: int) -> Shows:
    return Shows(own.select(range(4)), [])


def test_what_trains_nothing_is_no_training(tmp_path: Path) -> None:
    grid = Grid(sizes=(20,), arms=("gold", "frequency", "zero-shot"), seeds=(0,))
    judge = Shows(toy_gold()["train"].select([]), [])
    scored = ScoringProtocol(drop_seen=True)
    planned = outline(TASK, None, gold=toy_gold(), judges={"x": judge}, grid=grid, out=tmp_path, protocol=scored)
    assert planned.trainings == 1


BASELINES = Grid(sizes=(20,), curve=(40,), arms=("gold", "augment raw", "frequency", "zero-shot"), ratios=(1.0,),
                 seeds=(0, 1))  # fmt: skip


def test_baselines_are_arms_on_the_same_rows(tmp_path: Path) -> None:
    with serving(voting(0.8)) as server:
        made = run(tmp_path / "out", BASELINES, judges=judge_at(server, tmp_path), report=True)
        test = [json.loads(line)["text"] for said in server.asked() for line in said.splitlines() if line[:2] == '{"']
    assert not made.failed
    by_arm = {arm: [r for r in made.rows if r["arm"] == arm] for arm in ("gold", "frequency", "zero-shot")}
    assert [len(rows) for rows in by_arm.values()] == [4, 2, 1], "no seed bears on zero-shot: one run, not two alike"
    (zero,) = by_arm["zero-shot"]
    assert (zero["base_model"], zero["gold_size"], zero["gold_budget"], zero["n_train"]) == ("m", 0, 0, 0)
    assert {r["n_test"] for r in made.rows} == {zero["n_test"]}
    assert zero["judge_calls"] == 2 * zero["n_test"]
    assert json.loads(zero["policy_figures"])["judge"]["rows"] == zero["n_test"]
    assert set(test) <= set(toy_gold()["test"]["text"]), "of gold for training nothing was shown"
    for row in by_arm["frequency"]:
        own = subset(TASK, toy_gold()["train"], 20, seed=row["seed"])
        most = max(range(3), key=own["label"].count)
        assert row["gold_budget"] == row["n_train"] == 20
        said = np.array(json.loads(row["confusion"])).sum(0)
        assert (said > 0).nonzero()[0].tolist() == [most]
    assert zero["accuracy"] > max(r["accuracy"] for r in by_arm["frequency"])
    assert {w.arm.split(",")[0] for w in made.worths} == {"augment raw"}, "baselines are no mixtures"
    assert {c.kind for c in made.comparisons} == {"baseline degradation"}
    told = (made.out / "report.md").read_text(encoding="utf-8")
    order = " ".join(told.split("## Score by training mix")[1].split("## ")[0].split())
    assert "| zero-shot | 0 | m | 1 |" in order
    assert "| most frequent label | 20 |" in order
    with serving(never) as server:  # more seeds ask for more rows, and for no more of zero-shot
        more = run(tmp_path / "out", with_fields(BASELINES, {"seeds": (1, 2)}), judges=judge_at(server, tmp_path))
        assert not more.failed
        assert next(r for r in more.rows if r["arm"] == "zero-shot")["cell_key"] == zero["cell_key"]


def test_who_trains_nothing_holds_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a GPU a judge's opinions and a baseline are read off what is kept, and cost none of it."""
    monkeypatch.setattr("hf_synth.experiments.cell_figures.usual_device", lambda: "cuda")
    grid = Grid(sizes=(20,), arms=("gold", "augment llm_judge", "frequency", "zero-shot"), ratios=(1.0,), seeds=(0,))
    made = run(tmp_path / "out", grid, judges={"m": Shows(toy_gold()["train"].select([]), [])})
    assert not made.failed
    assert {(r["gpu_seconds"], r["gpu_seconds_correct"]) for r in made.rows} == {(0.0, 0.0)}


def test_zero_shot_alone_needs_no_generator(tmp_path: Path) -> None:
    with serving(voting()) as server:
        made = run(tmp_path / "out", Grid(arms=("zero-shot", "frequency"), sizes=(20,), seeds=(3,)), None,
                   judges={"b": judge_at(server, tmp_path)})  # fmt: skip
    assert sorted(r["arm"] for r in made.rows) == ["frequency", "zero-shot"]
    assert next(r for r in made.rows if r["arm"] == "zero-shot")["accuracy"] == 1


def test_zero_shot_shows_no_gold(tmp_path: Path) -> None:
    grid = Grid(arms=("gold", "zero-shot"), sizes=(20,), seeds=(0,))
    made = run(tmp_path / "out", grid, None, judges={"cheat": Shows(toy_gold()["train"].select(range(3)), [])})
    assert [(f["strategy"], f["error"]) for f in made.failed] == [("zero-shot", "OverlapError")]


def test_plans_with_judges() -> None:
    with pytest.raises(TaskError, match="need a judge"):
        plan(Grid(arms=("zero-shot",)), 300, [])
    with pytest.raises(TaskError, match="need a judge"):
        plan(Grid(arms=("augment llm_judge",)), 300, ["llm"])
    with pytest.raises(TaskError, match="judge 'b'"):
        plan(Grid(arms=("augment llm_judge",), judges=("b",)), 300, ["llm"], ["a"])
    cells = plan(Grid(arms=("augment raw", "augment llm_judge"), seeds=(0,)), 300, ["llm"], ["a", "b"])
    assert sorted(c.corrector for c in cells) == ["", "a", "b"]


def test_the_verb_takes_a_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gold = toy_gold()
    write_stage(TASK, gold, tmp_path / "gold", stage="gold")
    write_stage(TASK, writer(gold["train"].select(range(20)), 60, 0).map(lambda row: {"seed_ids": []}),
                tmp_path / "pool", stage="generate")  # fmt: skip
    line = ["experiment", str(tmp_path / "gold"), "--synthetic", str(tmp_path / "pool"), "--judge", "m", "--votes", "1",
            "--sizes", "20", "--curve", "20", "--ratios", "1", "--seeds", "0", "--strategies", "gold", "augment",
            "zero-shot", "frequency", "--labels",
            "raw", "llm_judge", "--out", str(tmp_path / "out"), "--journal", str(tmp_path / "j.sqlite"),
            "--drop-seen", "--processes", "0", "-q", "--json"]  # fmt: skip
    with serving(voting()) as server:
        assert main([*line, "--base-url", server.url]) == 0
        assert len({*server.asked()}) == len(server.requests) > 30
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["cells"], facts["failed"]) == (5, [])
