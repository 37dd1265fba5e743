"""The page of benchmarks/real_llm.py: its tables come from kept results, and say what `experiment` said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from support.blocks import ROOT
from support.toy_experiment import TASK, run, writer

from hf_synth.experiments.grid import Grid


@pytest.fixture(scope="module", autouse=True)
def _benchmarks() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield
    sys.path.remove(str(ROOT / "benchmarks"))


def second_writer(own: Dataset, n: int, seed: int) -> Dataset:
    return writer(own, n, seed + 100)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Three folders: a generator at ratio 1, another one with fewer seeds, and the first again at ratio 2."""
    root, arms = tmp_path_factory.mktemp("kept"), ("gold", "augment raw", "augment argmax")
    grid = Grid(sizes=(20,), curve=(10,), arms=arms, ratios=(1.0,), seeds=(0, 1, 2))
    few = Grid(sizes=(20,), arms=arms[:2], ratios=(1.0,), seeds=(0, 1))
    wide = Grid(sizes=(20,), arms=arms[:2], ratios=(2.0,), seeds=(0,))
    made = [
        run(root / folder / "toy" / "linear", plan, {name: by})
        for folder, plan, name, by in (
            ("all", grid, "smollm2", writer),
            ("gemma", few, "gemma3-270m", second_writer),
            ("wide", wide, "smollm2", writer),
        )
    ]
    return SimpleNamespace(folders=[root / name for name in ("all", "gemma", "wide")], made=made)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    import real_llm_page  # type: ignore[import-not-found]

    monkeypatch.setattr(real_llm_page, "load_task", lambda name: TASK)
    return real_llm_page


def line_of(table: str, *beginnings: str) -> list[str]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return next(line for line in cells if tuple(line[: len(beginnings)]) == beginnings)


@pytest.mark.slow
def test_kept_results_are_those_that_the_experiment_returned(kept: SimpleNamespace, page: Any) -> None:
    studies = page.read_kept(kept.folders)
    assert [(k.generator, k.first) for k in studies] == [("smollm2", True), ("smollm2", False), ("gemma3-270m", True)]
    first, made = studies[0], kept.made[0]
    assert first.results.rows == made.rows
    assert first.results.comparisons == made.comparisons
    assert [str(w) for w in first.results.worths] == [str(w) for w in made.worths]
    assert studies[1].title.endswith(", 40 wanted")


@pytest.mark.slow
def test_a_difference_is_that_of_the_experiment(kept: SimpleNamespace, page: Any) -> None:
    first = page.read_kept(kept.folders)[0]
    found = page.difference((first, first.runs("augment raw", 1.0)), (first, first.runs("gold", 1.0)))
    same = next(c for c in kept.made[0].comparisons if c.what == "augment raw - gold")
    assert found.mean == pytest.approx(same.difference)
    assert found.ci95 == pytest.approx(same.ci95)
    only = np.arange(40) < 7  # a subgroup of test rows has its own figure
    part = page.difference((first, first.runs("augment raw", 1.0)), (first, first.runs("gold", 1.0)), only)
    assert part.mean != pytest.approx(found.mean)


@pytest.mark.slow
def test_generators_are_compared_on_the_seeds_of_both(kept: SimpleNamespace, page: Any) -> None:
    cells = line_of(page.generator_table(page.read_kept(kept.folders)), "gold + uncorrected", "1")
    scores = [
        np.mean([r["macro_f1"] for r in made.rows if r["arm"] == "augment raw" and r["seed"] < 2])
        for made in kept.made[:2]
    ]
    assert cells[2:] == ["2", "20", "20", *(f"{s:.3f}" for s in scores), f"{scores[1] - scores[0]:+.3f}"]


@pytest.mark.slow
def test_rare_labels_are_counted_by_training_mix(
    kept: SimpleNamespace, page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "RARE_ROWS", 1_000)
    studies = page.read_kept(kept.folders)
    table, rows = page.rare_table(studies[:1], studies[0].task), kept.made[0].rows
    for label in TASK.labels:
        finders = {r["arm"] for r in rows if r["gold_size"] == 20 and json.loads(r["per_class"])[label]["recall"]}
        assert line_of(table, label)[-1] == f"{len(finders)} of 3"
    assert "0 of 3 found" not in table


@pytest.mark.slow
def test_the_page_and_its_lines_have_every_run(kept: SimpleNamespace, page: Any) -> None:
    from real_llm_kept import run_lines  # type: ignore[import-not-found]

    text = page.page_from(kept.folders, written=False)
    assert text.startswith("# ")
    assert "\\*" not in text
    assert "**" in page.score_table(page.read_kept(kept.folders))
    assert page.text_of.HEAD.splitlines()[0] in page.page_from(kept.folders[2:])
    assert page.text_of.HEAD.splitlines()[0] not in text  # what it says is of other runs
    lines = [json.loads(line) for line in run_lines(kept.folders).splitlines()]
    assert sorted(line["cell_key"] for line in lines) == sorted(r["cell_key"] for m in kept.made for r in m.rows)


@pytest.mark.parametrize(("text", "category"), [
    ("She drinks no alcohol.", "alcohol"), ("He was a smoker.", "tobacco"), ("They took opioids.", "drugs"),
    ("A homemaker since 1990.", "employment"), ("Her home is a flat.", "housing"), ("He stays alone.", "living alone"),
    ("Food is scarce.", "food"), ("No transportation.", "transport"), ("She speaks Finnish.", "other"),
])  # fmt: skip
def test_a_hypothesis_has_a_category(page: Any, text: str, category: str) -> None:
    assert page.category_of(text) == category


def test_the_first_words_of_a_dialogue_leave_the_speakers_out() -> None:
    from real_llm_summary import leads  # type: ignore[import-not-found]

    assert leads(["Doctor: How are you? Patient: Fine."], 4) == ["How are you? Fine."]


def test_a_folder_without_results_makes_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import real_llm  # type: ignore[import-not-found]

    page = tmp_path / "page.md"
    monkeypatch.setattr(sys, "argv", ["real_llm", "--page", str(page), "--from", str(tmp_path / "none")])
    with pytest.raises(SystemExit) as ended:
        real_llm.main()
    assert ended.value.code == 2
    assert "none keeps no results" in capsys.readouterr().err
    assert not page.exists()


def test_summaries_are_said_to_fail_only_where_they_do(tmp_path: Path, page: Any) -> None:
    folder = tmp_path / "toy" / "summary"
    folder.mkdir(parents=True)
    lead = {"system": "the first 20 words of the dialogue", "gold": 0, "rougeL": 0.2}
    model = {"system": "a T5 from nothing, 4 epochs", "gold": 50, "rougeL": 0.1}
    for score, said in ((0.1, True), (0.3, False)):
        runs = [{"rouge1": 0.0, "rouge2": 0.0, "cpu_seconds": 0, "distinct": 9} | r for r in (lead, model)]
        runs[1]["rougeL"] = score
        (folder / "runs.jsonl").write_text("".join(json.dumps(run) + "\n" for run in runs))
        assert ("best ROUGE-L is 0.100, and the first 20 words of the dialogue have 0.200" in (
            text := page.page_from([tmp_path], written=False))) is said  # fmt: skip
        assert line_of(text, "a T5 from nothing, 4 epochs")[-2:] == [f"{score:.3f}", ""]


# --- tables of made-up runs -------------------------------------------------------------------------------------------
def made_up(scores: dict[str, float], recalls: dict[str, float]) -> SimpleNamespace:
    """Return a study with one run of each arm at ratio 1; recalls are of the rare label, 2 of 40 test rows."""

    def runs(arm: str, ratio: float) -> dict[int, Any]:
        if arm not in scores:
            return {}
        per_class = {"rare": {"support": 2, "recall": recalls[arm]}, "common": {"support": 38, "recall": 0.9}}
        return {0: {"macro_f1": scores[arm], "accuracy": 0.8, "n_synthetic": 9 if arm == "augment raw" else 5,
                    "per_class": json.dumps(per_class)}}  # fmt: skip

    return SimpleNamespace(
        title="made up", part="linear", first=True, ratios=[1.0], runs=runs,
        results=SimpleNamespace(main=list(runs("gold", 1.0).values()), comparisons=[]),
    )  # fmt: skip


def test_each_choice_of_auto_has_its_column(page: Any) -> None:
    arms = {"gold": 0.5, "augment raw": 0.6, "augment argmax": 0.3, "augment auto": 0.51, "augment auto_macro_f1": 0.7}
    study = made_up(arms, dict.fromkeys(arms, 0.0) | {"augment raw": 0.5, "augment auto_macro_f1": 1.0})
    table = page.score_table([study])
    assert line_of(table, "macro-F1 of 200 gold rows with ...")[-3:] == ["`auto`", "`auto` by macro-F1", "LLM judge"]
    assert line_of(table, "made up")[2:] == ["9", "1", "0.500", "0.600", "0.300", "0.510", "**0.700**", ""]
    recalls = page.recall_table([study])
    assert line_of(recalls, "made up", "recall of rare")[2:] == ["0.000", "0.500", "0.000", "0.000", "1.000"]
    assert line_of(recalls, "made up", "recall of common")[2:] == ["0.900"] * 5
    assert line_of(recalls, "made up", "accuracy")[2:] == ["0.800"] * 5
    del arms["augment auto_macro_f1"]  # a study of an earlier version
    assert line_of(page.recall_table([made_up(arms, dict.fromkeys(arms, 0.5))]), "made up", "accuracy")[-1] == ""
