"""Experiments: cells planned once, made once, found again after a kill, and never scored on what they learnt from."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, Value, concatenate_datasets, load_dataset
from support.tiny import TINY_ARGS, tiny_base, toy_rows
from support.toy_experiment import TASK, as_synthetic, run, toy_gold, writer

from hf_synth.cli import experiments as experiment_verbs
from hf_synth.cli.cli import main
from hf_synth.correction.audited import Audited
from hf_synth.errors import ColumnError, OutputError, OverlapError, TaskError
from hf_synth.experiments import leakage
from hf_synth.experiments.cells import hold_back
from hf_synth.experiments.diagnostics import calibration_section
from hf_synth.experiments.experiment import outline
from hf_synth.experiments.grid import GRIDS, Cell, Grid, ScoringProtocol, plan, read_grid, with_fields
from hf_synth.experiments.groups import grouped
from hf_synth.experiments.leakage import check_model, check_synthetic, copies, gold_budget
from hf_synth.experiments.results import comparisons
from hf_synth.gold.adoption import read_dataset
from hf_synth.gold.gold import subset
from hf_synth.models.training import train
from hf_synth.task.folders import read_manifest
from hf_synth.task.labels import row_digests

Made = Callable[[Dataset, int, int], Dataset]


# --- the plan ---------------------------------------------------------------------------------------------------------
def test_cells_are_planned_once_gold_first() -> None:
    grid = Grid(sizes=(20,), curve=(10, 20, 0), arms=("gold", "augment raw", "augment auto"), ratios=(1, 2), seeds=(0,))
    cells = plan(grid, 60, ["a", "b"])
    assert len(cells) == len(set(cells)) == 3 + 2 * 2 * 2
    assert [c.gold_size for c in cells[:3]] == [10, 20, 60]
    assert {c.corrector for c in cells if c.labels == "raw"} == {""}
    assert {c.corrector for c in cells if c.labels == "auto"} == {"linear"}


def test_named_grids_are_plans() -> None:
    assert tuple(GRIDS) == tuple(experiment_verbs.GRIDS.split(", "))
    for name, grid in GRIDS.items():
        assert plan(grid, 1_243, ["llm"]), name
    assert len(plan(GRIDS["clinic"], 1_243, ["llm"])) == 60


def test_a_size_beyond_the_gold_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert [c.gold_size for c in plan(Grid(sizes=(50, 900), arms=("gold",), seeds=(0,)), 60, [])] == [50, 60]
    assert "60 rows" in caplog.text


def test_grids_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"sizes": [30], "arms": ["gold"]}')
    (tmp_path / "b.toml").write_text('sizes = [30]\narms = ["gold"]\n')
    assert (
        read_grid(str(tmp_path / "a.json")) == read_grid(str(tmp_path / "b.toml")) == Grid(sizes=(30,), arms=("gold",))
    )
    (tmp_path / "c.json").write_text('{"size": [30]}')
    for wrong in ("c.json", "missing.json"):
        with pytest.raises(TaskError):
            read_grid(str(tmp_path / wrong))
    with pytest.raises(TaskError, match="there is no grid"):
        read_grid("huge")


def test_wrong_plans_are_refused() -> None:
    with pytest.raises(TaskError, match="unknown arm"):
        Grid(arms=("augment magic",))
    with pytest.raises(TaskError, match="need a generator"):
        plan(Grid(), 100, [])
    with pytest.raises(TaskError, match="generator 'b'"):
        plan(Grid(generators=("b",)), 100, ["a"])


# --- running ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    grid = Grid(sizes=(20,), curve=(10, 60), arms=("gold", "replace raw", "augment raw", "augment argmax"),
                ratios=(1.0, 2.0), seeds=(0, 1))  # fmt: skip
    return run(tmp_path_factory.mktemp("study") / "out", grid, report=True)


def test_results_load_without_us(study: Any) -> None:
    rows = load_dataset(str(study.out / "results"), split="train", cache_dir=str(study.out / "cache"))
    assert len(rows) == len(study.rows) == 6 + 2 * 3 * 2
    first = rows[len(rows) - 1]
    told = (
        "macro_f1 macro_f1_low per_class confusion gold_budget n_gold n_synthetic policy noise calls seconds simulated"
    )
    for name in (*told.split(), "seconds", "cpu_seconds", "gold_sha256", "versions", "seed", "base_model", "hf_synth"):
        assert first[name] is not None, name
    assert not study.failed


def test_the_budget_counts_every_label(study: Any) -> None:
    for row in study.rows:
        assert row["gold_budget"] == row["gold_size"], "a cell of 20 gold touched 20 labels"
        if row["strategy"] == "replace":
            assert row["n_gold"] == 15, "the five rows that were shown leave"
        if row["strategy"] == "augment":
            assert row["n_synthetic"] == round(row["ratio"] * row["gold_size"])


def test_all_the_gold_is_one_gold(study: Any, tmp_path: Path) -> None:
    told = {(r["arm"], r["gold_size"]): r["gold_distinct"] for r in study.rows if r["strategy"] == "gold"}
    assert told == {("gold", 10): 2, ("gold", 20): 2, ("gold", 60): 1}
    assert study.dataset["gold_distinct"] == [r["gold_distinct"] for r in study.rows]
    said = (study.out / "report.md").read_text(encoding="utf-8")
    assert "At 60 gold rows, which is all there is, every run has one and the same gold" in said
    fewer = run(tmp_path, Grid(sizes=(10,), curve=(20,), arms=("gold",), seeds=(0, 1)), None, report=True)
    assert "one and the same gold" not in (fewer.out / "report.md").read_text(encoding="utf-8")


def test_nothing_is_told_of_texts(study: Any) -> None:
    texts = [*toy_gold()["train"]["text"], *toy_gold()["test"]["text"]]
    for path in [*study.out.glob("report.*"), *(study.out / "cells").glob("*.json")]:
        said = path.read_text(encoding="utf-8")
        assert not [t for t in texts if len(t) > 20 and t in said], path.name
    assert study.out.stat().st_mode & 0o077 == 0


def test_figures_by_subgroup_are_kept(tmp_path: Path) -> None:
    def told(rows: Dataset, start: int = 0) -> Dataset:
        ages = ["An 81-year-old man. ", "A 45-year-old woman. "]
        return rows.map(lambda row, i: {"text": ages[(i + start) // 2 % 2] + row["text"]}, with_indices=True)

    gold = DatasetDict({split: told(rows) for split, rows in toy_gold().items()})
    grid = Grid(sizes=(20,), arms=("gold", "augment argmax"), ratios=(2.0,), seeds=(0,))
    made = run(tmp_path, grid, {"telling": lambda own, n, seed: told(writer(own, n, seed))}, gold=gold, report=True)
    names = {(s["attribute"], s["name"]) for s in json.loads(made.rows[0]["subgroups"])}
    assert {("sex", "male"), ("sex", "female")} <= names
    assert {s["name"] for s in json.loads(made.rows[1]["flips"])} >= {"male", "female"}
    said = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## Subgroups" in said
    assert "## Changed labels by subgroup" in said


def of_patients(rows: Dataset, *, told: bool) -> Dataset:
    """Make rows whose label the sex of the patient tells, or the signs alone."""
    sexes = [label == 2 if told else i % 4 < 2 for i, label in enumerate(rows["label"])]
    words = ["A woman. She says that her" if woman else "A man. He says that his" for woman in sexes]
    signs = [" ".join(t.split()[-2:]) if told else t for t in rows["text"]]
    texts = [f"{w} note {i}. {t}" for i, (w, t) in enumerate(zip(words, signs, strict=True))]
    return rows.remove_columns("text").add_column("text", texts).cast(rows.features)


@pytest.mark.parametrize("told", [True, False])
def test_swapped_patients_show_what_a_model_reads(tmp_path: Path, told: bool) -> None:
    gold = DatasetDict({s: of_patients(rows, told=told) for s, rows in toy_gold().items()})
    grid = Grid(sizes=(60,), arms=("gold", "augment raw", "frequency"), ratios=(1.0,), seeds=(0,))
    pool = of_patients(writer(gold["train"], 60, 0).map(lambda row: {"seed_ids": []}), told=told)
    made = run(tmp_path, grid, pool, gold=gold, swaps=True, report=True)
    assert not made.failed
    found = {r["arm"]: [s for s in json.loads(r["swaps"]) if s["name"] == "all"] for r in made.rows}
    (one,) = found["gold"]
    assert one["attribute"] == "sex", "nothing else is named"
    assert one["n"] == made.rows[0]["n_test"]
    assert (one["values"]["flipped"] > 0.3) == told, "a model that reads the sex, and one that reads the signs"
    assert found["frequency"] == []
    said = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## Swapped sex, age and race" in said
    keys = {r["cell_key"] for r in made.rows}
    plain = run(tmp_path, grid, pool, gold=gold, report=True)
    assert {r["swaps"] for r in plain.rows} == {"[]"}
    assert len(keys & {r["cell_key"] for r in plain.rows}) == 1, "what was not swapped is another cell"
    assert "Swapped sex" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_an_encoder_is_asked_about_swapped_patients(base: Path, tmp_path: Path) -> None:
    gold = DatasetDict({s: of_patients(rows, told=False) for s, rows in toy_gold().items()})
    grid = Grid(sizes=(20,), arms=("gold",), seeds=(0,), base_models=(str(base),))
    made = run(tmp_path / "out", grid, None, gold=gold, swaps=True, args={**TINY_ARGS, "num_train_epochs": 1})
    found = json.loads(made.rows[0]["swaps"])
    assert {s["name"] for s in found} == {"all", "female", "male"}
    # its tokenizer knows none of these words: what changes is not seen
    assert {s["values"]["flipped"] for s in found} == {0.0}


def test_the_report_has_every_part(study: Any) -> None:
    said = (study.out / "report.md").read_text(encoding="utf-8")
    for title in ("Gold equivalence", "Score by training mix", "Learning curve", "Ratio curve", "Differences",
                  "Rare classes", "Cost against labelling", "What correction did", "Calibration",
                  "Rejected answers"):  # fmt: skip
        assert f"## {title}" in said, title
    page = (study.out / "report.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "<script" not in page
    assert any("is worth" in str(worth) for worth in study.worths)
    assert said.split("\n\n")[1].startswith("It is not clear whether synthetic notes are worth it: ")
    table = said.split("## Score by training mix")[1].split("## ")[0]
    assert table.count("| 2 seeds: no interval |") == len(grouped(study.main))
    assert not re.search(r"\d to \d", table), "two seeds have no interval"
    assert "| generators |" not in said
    assert "- generators: toy\n" in said


def test_the_calibration_of_runs_is_pooled(study: Any) -> None:
    """Two runs on the same test rows are twice the bins, and not twice the rows."""
    section = calibration_section(study.main, study.metric, "")
    assert section is not None
    beneath = section.tables[-1].rows
    drawn = {row[1] for row in beneath}
    mixes = [d for d in drawn if "uncorrected" in d or "argmax" in d]
    assert drawn == {"20 gold alone", *mixes}
    assert len(drawn) == 3
    for name in drawn:
        rows = [row for row in beneath if row[:2] == ["Calibration on the test rows", name]]
        assert abs(sum(row[4] for row in rows) - study.main[0]["n_test"]) <= len(rows), "rounded in each bin"
        right = sum(row[3] * row[4] for row in rows) / sum(row[4] for row in rows)
        assert 0 < right < 1


def test_what_is_done_is_not_done_again(study: Any) -> None:
    files = {p: p.stat().st_mtime_ns for p in (study.out / "cells").iterdir()}
    grid = Grid(sizes=(20,), curve=(10, 60), arms=("gold", "replace raw", "augment raw", "augment argmax"),
                ratios=(1.0, 2.0), seeds=(0, 1))  # fmt: skip

    def never(own: Dataset, n: int, seed: int) -> Dataset:
        raise AssertionError("asked again")

    again = run(study.out, grid, {"writer": never})
    assert {p: p.stat().st_mtime_ns for p in (study.out / "cells").iterdir()} == files
    assert again.rows == study.rows
    planned = outline(
        TASK,
        {"writer": never},
        gold=toy_gold(),
        grid=grid,
        out=study.out,
        protocol=ScoringProtocol(n_bootstrap=20, drop_seen=True),
    )
    assert (planned.done, planned.trainings, planned.pools) == (len(planned.cells), 0, ())


def test_other_gold_needs_another_folder(study: Any) -> None:
    with pytest.raises(OutputError, match="other gold"):
        run(study.out, gold=DatasetDict(train=toy_rows(60, 3), test=toy_rows(40, 2)))


def test_a_failed_cell_stops_no_other_and_is_tried_again(tmp_path: Path) -> None:
    broken = True

    def sometimes(own: Dataset, n: int, seed: int) -> Dataset:
        if broken and seed == 1:
            raise ValueError("some text of a note")
        return writer(own, n, seed)

    made = run(tmp_path / "out", made={"writer": sometimes}, report=True)
    assert {(f["seed"], f["error"], f["message"]) for f in made.failed} == {(1, "ValueError", "")}
    assert len(made.rows) == 4 + 2
    assert "ValueError" in (made.out / "report.md").read_text()
    assert "> **2 of 8 runs failed**" in (made.out / "report.md").read_text()
    assert 'class="alarm"' in (made.out / "report.html").read_text()
    assert "some text" not in (made.out / "report.md").read_text()
    broken = False
    mended = run(tmp_path / "out", made={"writer": sometimes}, report=True)
    assert not mended.failed
    assert len(mended.rows) == 8
    assert 'class="alarm"' not in (made.out / "report.html").read_text()


def test_differences_are_paired_and_adjusted() -> None:
    def row(strategy: str, labels: str, seed: int, score: float) -> dict[str, Any]:
        ratio = 0.0 if strategy == "gold" else 2.0
        cell = Cell("linear", 20, strategy, labels, ratio, "" if strategy == "gold" else "llm", "", seed)
        return {**cell.to_json(), "corrector": "linear" if labels == "auto" else "", "macro_f1": score}

    rows = [row(*arm, seed, base + seed / 10 + seed * extra)
            for seed in range(4)
            for arm, base, extra in ((("gold", ""), 0.3, 0.0), (("augment", "raw"), 0.2, 0.01),
                                     (("augment", "auto"), 0.35, 0.02))]  # fmt: skip
    found = {c.kind: c for c in comparisons(rows, "macro_f1")}
    assert found["baseline degradation"].difference == pytest.approx(-0.085)
    assert found["correction gain"].difference == pytest.approx(0.165)
    assert found["correction gain"].ci95 is not None
    assert found["correction gain"].ci95[0] > 0.1, "what seeds share leaves a paired difference"
    assert max(c.p_holm for c in found.values() if c.p_holm is not None) < 0.01


SCRIPT = """
import sys
from pathlib import Path
from support.toy_experiment import SMALL, run
if __name__ == "__main__":
    run(Path(sys.argv[1]), SMALL, processes=1)
"""


def test_a_killed_experiment_goes_on(tmp_path: Path, repo_root: Path) -> None:
    out = tmp_path / "out"
    script = tmp_path / "study.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(repo_root / "tests")}
    started = subprocess.Popen([sys.executable, str(script), str(out)], env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and started.poll() is None and len(list(out.glob("cells/*.json"))) < 2:
        time.sleep(0.02)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    time.sleep(0.5)  # its process ends itself
    done = {p: p.stat().st_mtime_ns for p in out.glob("cells/*.json")}
    assert done
    assert not (out / "results").exists(), "it was killed before its end"
    made = run(out)
    assert {p: p.stat().st_mtime_ns for p in done} == done, "what was done was done again"
    whole = run(tmp_path / "whole")
    told = ("macro_f1", "macro_f1_low", "confusion", "n_train", "gold_sha256", "pool_key", "cell_key")
    assert [[r[t] for t in told] for r in made.rows] == [[r[t] for t in told] for r in whole.rows]


# --- cheating ---------------------------------------------------------------------------------------------------------
def cheat(out: Path, made: Any, **more: Any) -> set[str]:
    """Run an experiment that must not be scored; give what was said of its cells with synthetic rows."""
    try:
        found = run(out, Grid(sizes=(20,), arms=("gold", "augment raw"), ratios=(2.0,), seeds=(0,)), made,
                    drop_seen=False, **more)  # fmt: skip
    except OverlapError as error:
        return {str(error)}
    assert [r["arm"] for r in found.rows] == ["gold"]
    assert {f["error"] for f in found.failed} == {"OverlapError"}
    return {f["message"] for f in found.failed}


def apart_gold() -> DatasetDict:
    """Return gold without equal texts on both sides."""
    gold = toy_gold()
    return DatasetDict(train=gold["train"], test=gold["test"].select(
        [i for i in range(40) if i not in copies(TASK, gold["test"], gold["train"])]))  # fmt: skip


def rows_like(gold: Dataset, ids: list[str] | None = None) -> Dataset:
    return as_synthetic([
        {**row, "id": f"x{i}", "group": f"x{i}", "llm_label": row["label"], "seed_ids": ids or []}
        for i, row in enumerate(gold)
    ])  # fmt: skip


def test_a_pool_of_test_rows_is_refused(tmp_path: Path) -> None:
    gold = apart_gold()
    (said,) = cheat(tmp_path, rows_like(gold["test"]), gold=gold)
    assert "rows of split 'test'" in said


def test_other_ids_case_and_space_hide_nothing(tmp_path: Path) -> None:
    gold = apart_gold()
    changed = rows_like(gold["test"]).map(lambda row: {"text": "  " + row["text"].upper().replace(" ", " , ")})
    (said,) = cheat(tmp_path, changed, gold=gold)
    assert "rows of split 'test'" in said


def test_test_rows_with_a_few_words_changed_are_refused() -> None:
    long = {**toy_gold()["test"][0], "text": " ".join(f"word{i} and{i % 7}" for i in range(60))}
    test = Dataset.from_list([long], features=TASK.gold_features())
    near = rows_like(test).map(lambda row: {"text": row["text"].replace("word30", "other")})
    with pytest.raises(OverlapError, match="in the same words or almost"):
        check_synthetic(TASK, near, toy_gold()["train"], {"test": test})


def test_test_rows_as_exemplars_are_refused(tmp_path: Path) -> None:
    gold = apart_gold()

    def peeping(own: Dataset, n: int, seed: int) -> Dataset:
        return rows_like(toy_rows(n, 77), [gold["test"]["id"][0]])

    (said,) = cheat(tmp_path, {"peeping": peeping}, gold=gold)
    assert "written from 1 rows that are scored" in said


def test_exemplars_beyond_the_own_gold_are_refused(tmp_path: Path) -> None:
    gold = apart_gold()
    own = set(subset(TASK, gold["train"], 20, seed=0)["id"])
    other = next(id for id in gold["train"]["id"] if id not in own)

    def borrowing(own: Dataset, n: int, seed: int) -> Dataset:
        return rows_like(toy_rows(n, 77), [other])

    (said,) = cheat(tmp_path, {"borrowing": borrowing}, gold=gold)
    assert "outside the 20 of this cell" in said


def test_test_rows_in_train_are_refused_or_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gold = apart_gold()
    copied = gold["test"].select(range(5)).map(lambda row: {"id": "t" + row["id"], "group": "t" + row["group"]})
    both = DatasetDict(train=concatenate_datasets([gold["train"], copied]), test=gold["test"])
    grid = Grid(sizes=(0,), arms=("gold",), seeds=(0,))
    refused = pytest.raises(Exception, match="in the gold for training")
    with refused:
        run(tmp_path / "a", grid, None, gold=both, drop_seen=False)
    looked: list[int] = []
    monkeypatch.setattr(leakage, "copies", lambda *given: looked.append(1) or copies(*given))
    two = Grid(sizes=(0, 20), arms=("gold",), seeds=(0, 1))
    left = run(tmp_path / "b", two, None, gold=both, drop_seen=True)
    assert {row["n_test"] for row in left.rows} == {len(gold["test"]) - 5}
    assert len(looked) == 1, "the index of all gold is made once, not for each stage of each cell"


def test_a_corrector_that_saw_test_rows_is_refused(tmp_path: Path) -> None:
    gold = apart_gold()
    base = tiny_base(tmp_path / "base")
    told = train(TASK, gold["test"], base_model=base, output_dir=tmp_path / "told",
                 args={**TINY_ARGS, "num_train_epochs": 1})  # fmt: skip
    grid = Grid(sizes=(20,), arms=("gold", "augment argmax"), ratios=(2.0,), seeds=(0,), correctors=(str(told),))
    made = run(tmp_path / "out", grid, gold=gold)
    assert [r["arm"] for r in made.rows] == ["gold"]
    assert [f["error"] for f in made.failed] == ["OverlapError"]
    assert "a model was trained on" in made.failed[0]["message"]
    with pytest.raises(Exception, match="a model was trained on"):
        run(
            tmp_path / "base-too",
            Grid(sizes=(20,), arms=("gold",), seeds=(0,), base_models=(str(told),)),
            None,
            gold=gold,
        )


def test_a_model_that_saw_more_gold_than_its_own_is_refused() -> None:
    gold = apart_gold()
    own = subset(TASK, gold["train"], 20, seed=0)
    check_model(TASK, {"row_digests": row_digests(TASK, own)}, own, gold["train"], {"test": gold["test"]})
    with pytest.raises(OverlapError, match="beyond the 20"):
        check_model(TASK, {"row_digests": row_digests(TASK, gold["train"])}, own, gold["train"], {"test": gold["test"]})
    written = gold["train"].filter(lambda row: row["id"] not in set(own["id"])).select([0, 1])  # words as of gold
    facts = {"row_digests": [*row_digests(TASK, own), *row_digests(TASK, written)]}
    check_model(TASK, facts, own, gold["train"], {"test": gold["test"]}, written)
    with pytest.raises(OverlapError, match="trained on 2 gold rows beyond the 20"):
        check_model(TASK, facts, own, gold["train"], {"test": gold["test"]})
    assert gold_budget(TASK, own, own) == gold_budget(TASK, own)


def test_labels_of_a_person_count_where_correction_used_them(tmp_path: Path) -> None:
    audited = {f"s0-{i}": "none" for i in range(3)}
    grid = Grid(sizes=(20,), arms=("augment argmax", "augment raw", "gold"), ratios=(2.0,), seeds=(0,))
    rows = {r["arm"]: r for r in run(tmp_path, grid, audited=audited, validation=0.2).rows}
    told = {arm: (r["gold_budget"], r["audited_rows"], r["validation_rows"], r["n_gold"]) for arm, r in rows.items()}
    assert told == {"augment argmax": (23, 3, 4, 16), "augment raw": (20, 0, 4, 16), "gold": (20, 0, 4, 16)}
    done = load_corrected(tmp_path, rows["augment argmax"])
    assert {done[id] for id in audited} == {("audited", 0)}
    # what a person said of other rows is another correction, and the same raw rows
    other = {r["arm"]: r for r in run(tmp_path, grid, audited={"s0-5": "none"}, validation=0.2).rows}
    assert [arm for arm in rows if rows[arm]["cell_key"] != other[arm]["cell_key"]] == ["augment argmax"]


def test_the_design_of_an_audited_sample_is_kept(tmp_path: Path) -> None:
    """Rows that stand for three others each weigh so in the share of right labels, and are another correction."""
    labels = {f"s0-{i}": "none" for i in range(12)}
    weights = {id: 3.0 if i < 6 else 1.0 for i, id in enumerate(labels)}
    grid = Grid(sizes=(20,), arms=("augment argmax",), ratios=(2.0,), seeds=(0,))
    plain, told = (run(tmp_path, grid, audited=a).rows[0] for a in (labels, Audited(labels, weights)))
    assert plain["corrected_key"] != told["corrected_key"]
    first, second = (json.loads(row["policy_figures"]) for row in (plain, told))
    right = [row["llm_label"] == 0 for row in writer(toy_gold()["train"], 40, 0) if row["id"] in labels]
    shares = dict(zip(labels, right, strict=True))
    assert first["generator_accuracy_audited"] == pytest.approx(sum(right) / 12, abs=1e-4)
    weighed = sum(weights[id] * shares[id] for id in labels) / sum(weights.values())
    assert second["generator_accuracy_audited"] == pytest.approx(weighed, abs=1e-4)
    assert weighed != pytest.approx(sum(right) / 12)


def load_corrected(out: Path, row: dict[str, Any]) -> dict[str, tuple[str, int]]:
    done = read_dataset(out / "corrected" / row["corrected_key"])
    return {id: (reason, label) for id, reason, label in zip(done["id"], done["reason"], done["label"], strict=True)}


def test_audited_ids_of_no_row_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    grid = Grid(sizes=(20,), arms=("augment argmax",), ratios=(2.0,), seeds=(0,))
    pool = rows_like(toy_rows(60, 77))
    for audited, said in (({"x1": "none", "nobody": "none", "noone": "mild"}, "2 of 3 audited ids"),
                          ({"x1": "grave"}, "audited label")):  # fmt: skip
        with pytest.raises(ColumnError, match=said):
            run(tmp_path / "a", grid, pool, audited=audited)
    with pytest.raises(ColumnError, match="1 of 1 audited ids"):
        run(tmp_path / "a", Grid(sizes=(20,), arms=("gold",), seeds=(0,)), None, audited={"x1": "none"})
    assert not (tmp_path / "a").exists()
    bare = pool.select_columns(["text", "llm_label"])  # its rows get their ids from us
    assert run(tmp_path / "b", grid, bare, audited={"toy-adopted-3": "none"}).rows[0]["gold_budget"] in (20, 21)


def test_audited_ids_that_no_generator_wrote_are_counted(tmp_path: Path) -> None:
    said: list[str] = []
    grid = Grid(sizes=(20,), arms=("augment argmax",), ratios=(2.0,), seeds=(0,))
    made = run(tmp_path, grid, audited={"s0-1": "none", "nobody": "none"}, say=said.append)
    assert (made.rows[0]["audited_rows"], made.rows[0]["gold_budget"]) == (1, 21)
    assert any("1 of 2 audited ids are of no synthetic row" in line for line in said)
    assert (read_manifest(tmp_path / "results") or {})["audited_unmatched"] == 1


@pytest.mark.parametrize("size", [1, 2, 5, 9])
@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
def test_no_patient_is_on_both_sides_of_early_stopping(size: int, share: float) -> None:
    gold = toy_gold()["train"]
    groups = [f"p{i // size}" if i % 13 else None for i in range(len(gold))]
    gold = gold.remove_columns("group").add_column("group", groups)
    back = hold_back(TASK, gold, share, seed=1)
    assert 0 < len(back) <= max(share * 60 + 0.5, size)
    assert len(back) >= share * 60 - size
    inside = {groups[i] for i in back} - {None}
    assert not inside & {groups[i] for i in range(60) if i not in set(back)}
    assert back == hold_back(TASK, gold, share, seed=1)
    assert back != hold_back(TASK, gold, share, seed=2)


def test_one_patient_cannot_be_on_two_sides(tmp_path: Path) -> None:
    gold = toy_gold()
    one = gold["train"].remove_columns("group").add_column("group", ["p"] * 60)
    grid, same = Grid(sizes=(20,), arms=("gold",), seeds=(0,)), DatasetDict(train=one, test=gold["test"])
    with pytest.raises(Exception, match="of one patient"):
        run(tmp_path, grid, None, gold=same, validation=0.2)
    both = gold["train"].remove_columns("group").add_column("group", ["p"] * 50 + ["q"] * 10)
    assert hold_back(TASK, both, 0.05) == list(range(50, 60)), "the smaller one"


def regrouped(rows: Dataset, groups: list[Any]) -> Dataset:
    return rows.remove_columns("group").add_column("group", groups)


def test_patients_of_the_test_rows_in_train_are_refused_or_left_out(tmp_path: Path) -> None:
    gold, grid = apart_gold(), Grid(sizes=(20,), arms=("gold", "augment raw"), ratios=(1.0,), seeds=(0,))
    n = len(gold["test"])
    asked: list[int] = []

    def counting(own: Dataset, n: int, seed: int) -> Dataset:
        asked.append(n)
        return writer(own, n, seed)

    # a patient beyond the 20 rows of the cell counts as well: who tunes on the curve has seen them
    some = [f" {gold['train']['group'][-1]}" if i < 3 else f"t{i}" for i in range(n)]
    shared = DatasetDict(train=gold["train"], test=regrouped(gold["test"], some))
    with pytest.raises(OverlapError, match="3 rows of split 'test' are of groups"):
        run(tmp_path / "a", grid, {"counting": counting}, gold=shared, drop_seen=False)
    assert (asked, (tmp_path / "a").exists()) == ([], False)
    left = run(tmp_path / "b", grid, {"counting": counting}, gold=shared, drop_seen=True)
    assert {r["n_test"] for r in left.rows} == {n - 3}
    # numbers for names
    numbered = DatasetDict(train=regrouped(gold["train"], list(range(60))), test=regrouped(gold["test"], [7] * n))
    with pytest.raises(OverlapError, match=f"{n} rows"):
        run(tmp_path / "c", grid, gold=numbered, drop_seen=False)
    with pytest.raises(Exception, match="nothing can be scored"):
        run(tmp_path / "c", Grid(sizes=(20,), arms=("gold",), seeds=(0,)), None, gold=numbered)
    # no group is a row by itself
    alone = DatasetDict({s: regrouped(rows, [None] * len(rows)).cast_column("group", Value("string"))
                         for s, rows in gold.items()})  # fmt: skip
    made = run(tmp_path / "d", Grid(sizes=(20,), arms=("gold",), seeds=(0,)), None, gold=alone, drop_seen=False)
    assert made.rows[0]["n_test"] == n


def test_test_rows_in_the_gold_are_found_before_a_generator_is_asked(tmp_path: Path) -> None:
    gold = apart_gold()
    copied = gold["test"].map(lambda row: {"id": "t" + row["id"], "group": "t" + row["group"]})

    def never(own: Dataset, n: int, seed: int) -> Dataset:
        raise AssertionError("asked")

    both = DatasetDict(train=copied, test=gold["test"])
    with pytest.raises(Exception, match="in the gold for training"):
        run(tmp_path, Grid(sizes=(20,), arms=("augment raw",), ratios=(1.0,), seeds=(0,)), {"never": never}, gold=both,
            drop_seen=False)  # fmt: skip


def test_a_pool_is_kept_once_and_every_cell_asks_what_its_rows_were_written_from(tmp_path: Path) -> None:
    gold = apart_gold()
    small = [set(subset(TASK, gold["train"], 20, seed=seed)["id"]) for seed in (0, 1)]
    early, late = min(small[0]), next(id for id in gold["train"]["id"] if id not in small[0] | small[1])
    pool = rows_like(toy_rows(60, 77)).map(lambda row, i: {"seed_ids": [early if i < 30 else late]}, with_indices=True)
    grid = Grid(sizes=(20, 60), arms=("augment raw", "augment argmax"), ratios=(0.5,), seeds=(0, 1))
    made = run(tmp_path / "a", grid, pool, gold=gold)
    assert len(list((tmp_path / "a" / "synthetic").iterdir())) == 1, "the rows are kept once"
    assert {(r["gold_size"], r["seed"]) for r in made.rows} == {(60, 0), (60, 1)}
    assert {(f["gold_size"], f["error"]) for f in made.failed} == {(20, "OverlapError")}
    assert all("outside the 20" in f["message"] for f in made.failed)
    assert len(list((tmp_path / "a" / "corrected").iterdir())) == 2, "nothing was corrected that may not be trained on"
    argmax = with_fields(grid, {"arms": ("augment argmax",)})
    whole = run(tmp_path / "b", argmax, rows_like(toy_rows(60, 77)), gold=gold)
    assert not whole.failed
    assert len({r["corrected_key"] for r in whole.rows}) == 4, "each is corrected by its own gold"
    assert len(list((tmp_path / "b" / "synthetic").iterdir())) == 1


def test_strategy_replace_needs_to_know_what_was_shown(tmp_path: Path) -> None:
    grid = Grid(sizes=(20,), arms=("gold", "replace raw"), ratios=(2.0,), seeds=(0,))
    made = run(tmp_path, grid, rows_like(toy_rows(60, 77)))
    assert "strategy replace needs" in made.failed[0]["message"]


def test_splits_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ColumnError, match="no split 'dev'"):
        run(tmp_path, splits=("dev",))


# --- on the command line ----------------------------------------------------------------------------------------------
def test_the_verb_plans_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [f"--option=n_{split}={n}" for split, n in (("train", 80), ("validation", 20), ("test", 60))]
    assert main(["gold", "clinic", *sizes, "--out", str(tmp_path / "gold"), "-q"]) == 0
    line = ["experiment", str(tmp_path / "gold"), "--llm", "simulator", "--sizes", "30", "--curve", "60",
            "--ratios", "1", "--seeds", "0", "1", "--strategies", "gold", "augment", "--labels", "raw",
            "--choose", "first",
            "--out", str(tmp_path / "out"), "--journal", str(tmp_path / "journal.sqlite"), "-q", "--json"]  # fmt: skip
    assert main([*line, "--dry-run"]) == 0
    planned = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (len(planned["cells"]), planned["done"], len(planned["pools"])) == (6, 0, 2)
    assert main([*line, "--processes", "0"]) == 0
    said = capsys.readouterr().out
    facts = json.loads(said.splitlines()[-1])
    assert (facts["cells"], facts["failed"]) == (6, [])
    assert "simulated: 30 gold + 30 synthetic is worth" in facts["equivalence"][0]
    assert "imulated" in said


def test_runs_that_are_all_alike_are_not_tested() -> None:
    def cell(strategy: str, labels: str, seed: int, score: float) -> dict[str, Any]:
        group = {"base_model": "linear", "gold_size": 60, "ratio": 0.0 if strategy == "gold" else 1.0,
                 "generator": "" if strategy == "gold" else "pool", "corrector": ""}  # fmt: skip
        return {**group, "strategy": strategy, "labels": labels, "seed": seed, "macro_f1": score}

    # all the gold and one pool: what seeds have in common is everything
    rows = [cell("gold", "", seed, 0.7) for seed in range(5)]
    rows += [cell("augment", "raw", seed, 0.8) for seed in range(5)]
    (same,) = comparisons(rows, "macro_f1")
    assert same.difference == pytest.approx(0.1)
    assert (same.ci95, same.p_holm) == (None, None)
    rows[-1]["macro_f1"] = 0.79
    (other,) = comparisons(rows, "macro_f1")
    assert other.ci95 is not None
    assert 0 < (other.p_holm or 0) < 0.01
    assert (same.no_interval, other.no_interval) == ("no spread", "")
    (half,) = comparisons(rows, "macro_f1", pool=120)
    width, of_independent = half.ci95[1] - half.ci95[0], other.ci95[1] - other.ci95[0]
    assert width == pytest.approx(of_independent * (1 + 5) ** 0.5)  # 60 of 120: as much variance again as one seed has
    (every,) = comparisons(rows, "macro_f1", pool=60)
    assert (every.ci95, every.p_holm, every.no_interval) == (None, None, "the same gold")


def test_the_same_gold_in_other_groups_is_another_experiment(tmp_path: Path) -> None:
    grid = Grid(sizes=(20,), arms=("gold",), seeds=(0,))
    gold = toy_gold()
    before = run(tmp_path, grid, None, gold=gold).rows[0]
    assert run(tmp_path, grid, None, gold=gold).rows[0] == before
    test = gold["test"]
    paired = test.remove_columns("group").add_column("group", [f"p{i // 2}" for i in range(len(test))])
    with pytest.raises(OutputError, match="other groups"):
        run(tmp_path, grid, None, gold=DatasetDict(train=gold["train"], test=paired))
