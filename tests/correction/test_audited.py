"""Audited rows: samples that are drawn by strata, read back with their weights, and what they say of all rows."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from support.tiny import toy_rows, toy_task
from support.toy_experiment import TASK, as_synthetic, simulated

from hf_synth.cli.cli import main
from hf_synth.correction.audited import (
    Audited,
    audit_sample,
    check_ids,
    design,
    powered_accuracy,
    read_audited,
    read_ids,
    read_labels,
    read_rejected,
    relative_weights,
    sample_csv,
    select_audited,
)
from hf_synth.correction.choice import choose
from hf_synth.correction.correction import correct_with_policy
from hf_synth.correction.fitting import fit
from hf_synth.correction.methods import CorrectionOptions
from hf_synth.correction.noise import em_noise, estimate_noise
from hf_synth.errors import ColumnError, RowError, TaskError
from hf_synth.evaluation.statistics import design_share
from hf_synth.experiments.assessment import assess
from hf_synth.models.linear import linear_fit
from hf_synth.task.folders import write_stage


def pool(n: int, seed: int = 2):  # type: ignore[no-untyped-def]
    """Return toy rows as a generator hands them over; of the rarest label there are few."""
    rows = [{**row, "llm_label": row["label"], "id": f"s{i}"} for i, row in enumerate(toy_rows(n, seed))]
    return as_synthetic([row for i, row in enumerate(rows) if row["label"] or i % 5 == 0])


def drawn(rng: np.random.Generator, kind: str) -> tuple[float, tuple[float, float, float]]:
    """Draw an audit sample of 2,000 rows, of which doubtful ones are wrong oftener; give the truth and the estimate."""
    strata = rng.choice(6, 2_000, p=[0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    right = rng.random(2_000) < np.array([0.97, 0.9, 0.8, 0.7, 0.5, 0.3])[strata]
    if kind == "by strata":
        at = np.concatenate([rng.permutation(np.flatnonzero(strata == h))[:20] for h in range(6)])
        return right.mean(), design_share(right[at], (np.bincount(strata) / 20)[strata[at]], strata[at])
    chance = np.array([0.03, 0.05, 0.08, 0.1, 0.2, 0.3])[strata]
    at = np.flatnonzero(rng.random(2_000) < chance)
    return right.mean(), design_share(right[at], 1 / chance[at])


@pytest.mark.parametrize("kind", ["by strata", "with unequal chances"])
def test_the_interval_covers_the_truth_whatever_the_design(kind: str) -> None:
    rng = np.random.default_rng(0)
    found = [drawn(rng, kind) for _ in range(600)]
    covered = np.mean([low <= truth <= high for truth, (_, low, high) in found])
    assert 0.93 <= covered <= 0.99
    assert np.mean([share - truth for truth, (share, *_) in found]) == pytest.approx(0, abs=0.01)


def test_rows_that_are_all_right_do_not_say_that_all_are() -> None:
    """Of rows that are nearly all right, by strata: it covers, though often no row looked at is wrong."""
    rng, covered = np.random.default_rng(1), []
    for _ in range(400):
        strata = rng.choice(4, 1_000, p=[0.6, 0.2, 0.15, 0.05])
        right = rng.random(1_000) < 0.98
        at = np.concatenate([rng.permutation(np.flatnonzero(strata == h))[:15] for h in range(4)])
        _, low, high = design_share(right[at], (np.bincount(strata) / 15)[strata[at]], strata[at])
        covered.append(low <= right.mean() <= high)
    assert np.mean(covered) >= 0.93


def test_equal_weights_are_a_simple_random_sample() -> None:
    truth, given = simulated(0, right=0.7, corrector=0.6)
    plain = {i: int(truth[i]) for i in range(50)}
    equal = Audited(plain, dict.fromkeys(plain, 60.0))
    assert design(equal) is None
    assert fit("posterior", **given, audited=equal) == fit("posterior", **given, audited=plain)
    one = Audited(plain, dict.fromkeys(plain, 60.0), dict.fromkeys(plain, "all"))
    assert fit("posterior", **given, audited=one).figures == fit("posterior", **given, audited=plain).figures


def test_a_share_counts_rows_for_what_they_stand_for() -> None:
    """All rows of a doubtful tenth are looked at, and a few of the others."""
    truth, given = simulated(0, right=0.7, corrector=0.6)
    wrong = np.flatnonzero(given["llm_label"] != truth)[:300].tolist()
    others = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(3_000), wrong))[:90].tolist()
    labels = {i: int(truth[i]) for i in (*wrong, *others)}
    weights = {**dict.fromkeys(wrong, 1.0), **dict.fromkeys(others, 30.0)}
    strata = {**dict.fromkeys(wrong, "doubtful"), **dict.fromkeys(others, "others")}
    plain = fit("posterior", **given, audited=labels).figures
    told = fit("posterior", **given, audited=Audited(labels, weights, strata)).figures
    real = float(np.mean(given["llm_label"] == truth))
    assert plain["generator_accuracy_audited_ci95"][1] < real - 0.3
    low, high = told["generator_accuracy_audited_ci95"]
    assert low < real < high
    assert told["audited_strata"] == 2


def test_the_noise_moves_by_what_a_row_stands_for() -> None:
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 60)
    meant = np.zeros(60, dtype=np.int64)
    labels = {0: 1, 1: 2}
    for estimate in (estimate_noise, em_noise):
        heavy = estimate(meant, probs, Audited(labels, {0: 30.0, 1: 2.0}))
        even, light = estimate(meant, probs, labels), estimate(meant, probs, Audited(labels, {0: 2.0, 1: 30.0}))
        assert heavy[1, 0] > even[1, 0] > light[1, 0]
        assert heavy[2, 0] < even[2, 0] < light[2, 0]
        assert np.allclose(heavy.sum(1), 1)
        assert (heavy >= 0).all()
    assert sum(relative_weights(Audited(labels, {0: 30.0, 1: 2.0})).values()) == pytest.approx(2)


def test_a_choice_counts_audited_rows_for_what_they_stand_for() -> None:
    labels = np.zeros(200, dtype=int)
    hits = {"posterior": np.arange(200) < 100, "gold_only": np.arange(200) >= 80}  # 100 and 120 right
    assert choose(hits, labels).scores == {"posterior": 0.5, "gold_only": 0.6}
    drawn_oftener = np.where(np.arange(200) < 100, 3.0, 1.0)
    assert choose(hits, labels, weights=drawn_oftener).scores["posterior"] == 0.75


def test_each_stratum_is_looked_at() -> None:
    rows = pool(300)
    sizes = Counter(TASK.labels[i] for i in rows["llm_label"])
    found = audit_sample(TASK, rows, 45, seed=1)
    assert Counter(found["stratum"]) == dict.fromkeys(TASK.labels, 15)
    assert found["llm_label"] == found["stratum"]
    assert set(found["label"]) == {""}
    assert sum(1 / p for p in found["inclusion_probability"]) == pytest.approx(len(rows))
    assert all(p == 15 / sizes[s] for p, s in zip(found["inclusion_probability"], found["stratum"], strict=True))
    assert len(set(found["id"])) == 45
    assert found["id"] != audit_sample(TASK, rows, 45, seed=2)["id"]
    assert found["stratum"][:15] != sorted(found["stratum"])[:15]
    whole = audit_sample(TASK, rows, len(rows))
    assert set(whole["inclusion_probability"]) == {1.0}
    assert set(audit_sample(TASK, rows, 10, by=())["inclusion_probability"]) == {10 / len(rows)}
    confident = rows.remove_columns([c for c in ("label_confidence",) if c in rows.column_names]).add_column(
        "label_confidence", np.linspace(0, 1, len(rows)).tolist()
    )
    unsure = audit_sample(TASK, confident, 40, by=("confidence",))
    place = {id: i for i, id in enumerate(rows["id"])}
    assert Counter(unsure["stratum"]) == {"least sure": 20, "surer": 20}
    told = zip(unsure["id"], unsure["stratum"], strict=True)
    assert all((place[id] < round(len(rows) / 4)) == (stratum == "least sure") for id, stratum in told)
    assert len(set(audit_sample(TASK, confident, 60, by=("label", "confidence"))["stratum"])) == 6


def test_a_rejected_row_has_no_label_and_is_not_drawn() -> None:
    rows = pool(60)
    first = rows.to_list()
    for row in first[:3]:
        row |= {"label_status": "rejected", "llm_label": None, "label": None, "text": None}
    mixed = Dataset.from_list(first, features=rows.features)
    left = {row["id"] for row in first if row["label_status"] != "rejected"}
    assert set(audit_sample(TASK, mixed, len(left))["id"]) == left


def test_what_cannot_be_drawn_is_one_sentence() -> None:
    rows = pool(60)
    with pytest.raises(ColumnError, match="ask for 1 to"):
        audit_sample(TASK, rows, 1_000)
    with pytest.raises(ColumnError, match="too few for 3 strata"):
        audit_sample(TASK, rows, 3)
    with pytest.raises(ColumnError, match="not by 'colour'"):
        audit_sample(TASK, rows, 10, by=("colour",))
    with pytest.raises(ColumnError, match="no label_confidence"):
        audit_sample(TASK, rows, 10, by=("confidence",))
    with pytest.raises(TaskError, match="single_label"):
        audit_sample(toy_task(kind="multi_label"), rows, 10)
    with pytest.raises(ColumnError, match="1 of 2 audited rows have no weight"):
        Audited({"a": 0, "b": 1}, {"a": 2.0})
    with pytest.raises(ColumnError, match="1 or more"):
        Audited({"a": 0}, {"a": 0.5})


def test_a_sample_is_labelled_and_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, folder = pool(300), tmp_path / "synthetic"
    write_stage(TASK, rows, folder, stage="generate")
    write_stage(TASK, toy_rows(40, 1), tmp_path / "gold", stage="gold")
    line = ["sample", str(tmp_path / "gold"), str(folder), "--n", "45", "-q", "--json"]
    assert main(line) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    file = Path(told["out"])
    assert file.parent.parent == folder
    assert file.stat().st_mode & 0o077 == 0
    assert main(line) == 1  # a person's labels are not written over
    assert "is there already" in capsys.readouterr().err
    with pytest.raises(RowError, match="no audited row"):
        read_audited(file)
    with file.open(newline="", encoding="utf-8") as opened:
        table = list(csv.DictReader(opened))
    assert {row["text"] for row in table} <= set(rows["text"])
    truth = dict(zip(rows["id"], rows["label"], strict=True))
    some = Counter[str]()
    for row in table:  # a person stops after two thirds
        some[row["stratum"]] += 1
        row["label"] = TASK.labels[truth[row["id"]]] if some[row["stratum"]] <= 10 else ""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, table[0])
        writer.writeheader()
        writer.writerows(table)
    audited = read_audited(file)
    assert len(audited) == 30
    assert sum(audited.weights.values()) == pytest.approx(len(rows))  # they stand for the rows not looked at, too
    assert isinstance(select_audited(audited, list(audited)[:3]), Audited)
    gold = toy_rows(40, 1)
    done, policy = correct_with_policy(
        TASK, rows, linear_fit(TASK, gold, rows), gold=gold, options=CorrectionOptions("posterior", audited=audited)
    )
    assert policy.figures["audited_rows"] == 30
    assert policy.figures["audited_strata"] == 3
    assert policy.figures["generator_accuracy_audited"] == 1.0
    assert list(done["reason"]).count("audited") == 30
    right = assess(TASK, rows, gold=gold, audited=audited, repeats=1, n_bootstrap=50).generator_right
    assert right == (1.0, *policy.figures["generator_accuracy_audited_ci95"])


EVIL = ['=HYPERLINK("http://x.example","open")', "+cmd|' /C calc'!A0", "@SUM(1+1)", "-2+3", "\t=1+1", "\r=1", "\n=1",
        "\uff1d1+1", "'=1", "''@x"]  # fmt: skip


def test_no_cell_of_a_sample_is_a_formula_and_labels_come_back(tmp_path: Path) -> None:
    """A text of an LLM, an id or a name of a label may begin as a formula does."""
    plain = ["a note; =1+1", "'quoted' words", "- ", "", "x=1"]
    texts = [*EVIL, *plain]
    rows = Dataset.from_dict(
        {"id": [f"{t}{i}" for i, t in enumerate(texts)], "text": texts, "label": texts, "p": [0.5] * len(texts)}
    )
    table = sample_csv(rows)
    cells = [cell for row in csv.reader(table.splitlines(keepends=True)) for cell in row]
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r\n\uff1d")]
    file = tmp_path / "sample.csv"
    file.write_text(table, encoding="utf-8", newline="")
    labels = read_audited(file).labels
    assert labels == {id: label for id, label in zip(rows["id"], rows["label"], strict=True) if label}
    assert 'a note; =1+1"' in table, "a list that is split at semicolons has no cell =1+1 either"


def test_a_sample_of_an_earlier_version_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "sample.csv"
    file.write_text("id,text,label\n-1,=x,-2+3\n", encoding="utf-8")
    assert read_audited(file).labels == {"-1": "-2+3"}


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("id,label,inclusion_probability\na,none,0\n", "row 1.*above 0"),
        ("id,label,inclusion_probability\na,none,high\n", "row 1.*above 0"),
        ("id,label,inclusion_probability,stratum\na,none,0.5,x\nb,,0.5,y\n", "no label in 1 of its 2 strata"),
        ("id,label\na,none\na,mild\n", "row 2.*of an earlier row"),
    ],
)
def test_a_broken_sample_is_one_sentence(tmp_path: Path, table: str, says: str) -> None:
    file = tmp_path / "audited.csv"
    file.write_text(table, encoding="utf-8")
    with pytest.raises(RowError, match=says):
        read_audited(file)


def test_each_fault_of_a_table_names_row_line_and_column(tmp_path: Path) -> None:
    file = tmp_path / "audited.csv"
    lines = ("id,label,inclusion_probability", ",none,1", "s1,midl,1", "s2,mild,7", "s2,mild,1")
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(RowError) as error:
        read_audited(file, TASK)
    for part in ("line 2: column 'id' is empty", "line 3: column 'label' holds 'midl'", "line 5: column 'id' holds the",
                 "line 4: column 'inclusion_probability' holds no number above 0"):  # fmt: skip
        assert part in str(error.value)


def test_a_row_of_a_table_that_is_of_no_row_is_named(tmp_path: Path) -> None:
    file = tmp_path / "audited.csv"
    file.write_text("id,label\ns1,mild\nnobody,mild\n'=s2,\n", encoding="utf-8")
    check_ids(file, ["s1", "nobody", "=s2"])
    with pytest.raises(RowError, match=r"audited.csv, line 3, row 2: column 'id' holds no id of the pilot rows"):
        check_ids(file, ["s1", "=s2"], "the pilot rows")


def test_predictions_narrow_the_interval_of_audited_rows() -> None:
    """A third of the labels are wrong, and a head trained on gold sees which."""
    rows = [{**row, "id": f"s{i}", "llm_label": row["label"]} for i, row in enumerate(toy_rows(400, 2))]
    truth = {row["id"]: row["label"] for row in rows}
    for row in rows[::3]:
        row |= {"label": (row["label"] + 1) % 3, "llm_label": (row["label"] + 1) % 3}
    data, gold = as_synthetic(rows), toy_rows(80, 1)
    sample = audit_sample(TASK, data, 60, by=())
    audited = {id: TASK.labels[truth[id]] for id in sample["id"]}
    figures = powered_accuracy(TASK, data, audited, gold)
    low, high = figures["generator_accuracy_audited_and_predicted_ci95"]
    assert low <= 1 - 134 / 400 <= high
    right = [data["llm_label"][int(id[1:])] == truth[id] for id in audited]
    _, alone_low, alone_high = design_share(right, [400 / 60] * 60)
    assert high - low < 0.8 * (alone_high - alone_low)
    strata = Audited(audited, dict.fromkeys(audited, 400 / 60), dict.fromkeys(audited, "all"))
    assert powered_accuracy(TASK, data, strata, gold) == figures, "one stratum is a simple random sample"
    assert powered_accuracy(TASK, data, {"s0": 1}, gold) == {}
    with pytest.raises(ColumnError, match="1 audited ids are not among the synthetic rows"):
        powered_accuracy(TASK, data, {**audited, "nobody": 1}, gold)
    with pytest.raises(ColumnError, match="an audited label is not one of the task's labels"):
        powered_accuracy(TASK, data, {**audited, "s0": "moderate"}, gold)


def test_labels_and_ids_are_read_where_rows_are_blank(tmp_path: Path) -> None:
    table = tmp_path / "look.csv"
    table.write_text("id,label,inclusion_probability,stratum\na,mild,0.5,x\nb,,0.5,y\n", encoding="utf-8")
    assert read_labels(table) == {"a": "mild"}
    assert read_ids(table) == ["a", "b"]
    with pytest.raises(RowError, match="has no label in 1 of its 2 strata"):
        read_audited(table)
    table.write_text("id,label\na,\n", encoding="utf-8")
    assert read_labels(table) == {}
    table.write_text("id,label\na,mild\na,none\n", encoding="utf-8")
    with pytest.raises(RowError, match="row 2: column 'id' holds the id of an earlier row"):
        read_labels(table)


def test_a_row_that_a_person_rejected_is_dropped_and_stands_for_none(tmp_path: Path) -> None:
    """Of stratum a 8 rows stand for 16: 5 labelled, 2 rejected, 1 blank; labelled rows stand for 16 / 7 each."""
    file = tmp_path / "reviewed.csv"
    decisions = ["label"] * 5 + ["reject", " Reject "] + [""] + ["label"] * 2
    rows = ["id,label,inclusion_probability,stratum,decision"]
    for i, decision in enumerate(decisions):
        stratum, share = ("a", 0.5) if i < 8 else ("b", 1.0)
        rows.append(f"s{i},{'mild' if decision == 'label' else ''},{share},{stratum},{decision}")
    file.write_text("\ufeff" + "\n".join(rows), encoding="utf-8")
    audited = read_audited(file, TASK)
    assert audited.rejected == read_rejected(file) == {"s5", "s6"}
    assert set(audited) == {"s0", "s1", "s2", "s3", "s4", "s8", "s9"}
    assert audited.weights["s0"] == pytest.approx(16 / 7)
    assert audited.weights["s8"] == 1
    assert select_audited(audited, ["s0", "s5"]).rejected == {"s5"}  # type: ignore[attr-defined]

    synthetic = as_synthetic([{**row, "llm_label": row["label"], "id": f"s{i}"} for i, row in enumerate(toy_rows(12))])
    corrected, _ = correct_with_policy(
        TASK, synthetic, lambda _: None, gold=toy_rows(40, 1), options=CorrectionOptions("none", audited=audited)
    )
    for row in corrected:
        if row["id"] in ("s5", "s6"):
            assert (row["label_status"], row["reason"], row["weight"]) == ("dropped", "unusable", 0)
        else:
            assert row["label_status"] in ("kept", "relabelled")
            assert (row["reason"] == "audited") == (row["id"] in audited)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            ["s0,mild,reject"],
            "line 2, row 1: columns 'label' and 'decision' are both filled, with 'reject': leave one empty",
        ),
        (["s0,,reject"], "holds no audited row"),
    ],
)
def test_a_rejected_row_with_a_label_is_one_sentence(tmp_path: Path, lines: list[str], says: str) -> None:
    file = tmp_path / "reviewed.csv"
    file.write_text("\n".join(["id,label,decision", *lines]), encoding="utf-8")
    with pytest.raises(RowError) as error:
        read_audited(file, TASK)
    assert str(error.value) == f"reviewed.csv{', ' if 'line' in says else ': '}{says}"
