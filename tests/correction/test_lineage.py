"""Which gold a synthetic row was written from: folds, units, rows that remain, and a leak that they close."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from support.copies import let_disguised_copies_pass
from support.tiny import toy_rows
from support.toy_experiment import TASK, as_synthetic

from hf_synth.correction.advice import lineage_warnings
from hf_synth.correction.correction import correct_with_policy
from hf_synth.correction.crossfit import Rows
from hf_synth.correction.lineage import Lineage, fold_groups, lineage, lineage_of
from hf_synth.correction.methods import CorrectionOptions
from hf_synth.demo.simulator import Faults, running_simulator
from hf_synth.errors import ColumnError
from hf_synth.generation.generation import generate
from hf_synth.gold.adoption import adopt
from hf_synth.gold.gold import load_gold
from hf_synth.llm.llm import LLM
from hf_synth.models.linear import linear_fit
from hf_synth.privacy.folding import words_of
from hf_synth.task.labels import Ints
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

CLINIC = load_task("clinic")


def trace(
    seeds: list[Any], recorded: list[Any] | None = None, *, m: int = 10, per_group: int = 1, **more: Any
) -> Lineage:
    """Trace rows to m gold rows g0, g1, ... of groups of some consecutive rows, with two labels in turn."""
    ids, groups = [f"g{i}" for i in range(m)], [f"p{i // per_group}" for i in range(m)]
    return lineage(ids, groups, np.arange(m) % 2, seeds, recorded, **more)


@st.composite
def histories(draw: st.DrawFn) -> dict[str, Any]:
    m = draw(st.integers(1, 30))
    id = st.integers(0, m + 3).map("g{}".format)  # some are of other gold
    seeds = draw(st.lists(st.none() | st.lists(id, max_size=4), max_size=30))
    folds = draw(st.lists(st.none() | st.integers(0, 4), min_size=len(seeds), max_size=len(seeds)))
    several = draw(st.booleans())
    labels = draw(st.lists(st.integers(0, 2), min_size=m, max_size=m))
    return {
        "ids": [f"g{i}" for i in range(m)],
        "groups": draw(st.none() | st.lists(st.none() | st.integers(0, 12), min_size=m, max_size=m)),
        "labels": np.eye(3, dtype=np.float32)[labels] if several else np.array(labels),
        "seed_ids": seeds,
        "row_folds": draw(st.none() | st.just(folds)),
        "folds": draw(st.integers(2, 6)),
    }


@settings(deadline=None, max_examples=300)
@given(histories())
def test_what_holds_for_any_history(how: dict[str, Any]) -> None:
    made = lineage(**how)
    m, ids = len(how["ids"]), how["ids"]
    groups = [f"row {i}" if g is None else g for i, g in enumerate(how["groups"] or [None] * m)]
    assert set(made.fold.tolist()) == set(range(made.folds))
    assert made.folds <= how["folds"]
    assert len({(g, f) for g, f in zip(groups, made.fold.tolist(), strict=True)}) == len(set(groups))
    assert len({(g, u) for g, u in zip(groups, made.gold_unit.tolist(), strict=True)}) == len(set(groups))
    fold = dict(zip(ids, made.fold.tolist(), strict=True))
    unit = dict(zip(ids, made.gold_unit.tolist(), strict=True))
    for i, seeds in enumerate(how["seed_ids"]):
        here = [s for s in seeds or () if s in fold]
        assert set(np.flatnonzero(made.shows[i])) == {fold[s] for s in here}
        assert made.known[i] == (seeds is not None)
        if here:
            assert {unit[s] for s in here} == {made.row_unit[i]}
        else:
            assert [*made.gold_unit, *made.row_unit].count(made.row_unit[i]) == 1
    for k in range(made.folds):
        held = {id for id in ids if fold[id] == k}
        assert made.without(k).tolist() == [i for i, s in enumerate(how["seed_ids"]) if not held & set(s or ())]
    shares = [len(made.without(k)) / max(1, len(how["seed_ids"])) for k in range(made.folds)]
    assert made.least_share() == pytest.approx(min(shares) if how["seed_ids"] else 1)


@settings(deadline=None, max_examples=60)
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_of_gold_rows_does_not_matter(how: dict[str, Any], rng: random.Random) -> None:
    made, order = lineage(**how), rng.sample(range(len(how["ids"])), len(how["ids"]))
    groups = how["groups"] and [how["groups"][i] for i in order]
    other = lineage(**(how | {"ids": [how["ids"][i] for i in order], "groups": groups, "labels": how["labels"][order]}))
    assert other.fold.tolist() == made.fold[order].tolist()
    assert other.shows.tolist() == made.shows.tolist()


def test_recorded_folds_decide_and_the_rest_is_dealt_by_label() -> None:
    made = trace([["g0", "g1"], ["g4"], ["g7"]], [3, 1, 0], m=40)
    shown = [made.fold[i] for i in (0, 1, 4, 7)]
    assert shown == [3, 3, 1, 0]
    assert Counter(made.fold[::2].tolist()) == Counter(made.fold[1::2].tolist()) == dict.fromkeys(range(5), 4)
    assert made.shows.sum(axis=1).tolist() == [1, 1, 1]


def test_a_group_is_in_the_fold_of_any_of_its_rows() -> None:
    made = trace([["g1"], ["g9"]], [2, 0], m=30, per_group=3)
    assert made.fold[:3].tolist() == [2, 2, 2]
    assert made.fold[9:12].tolist() == [0, 0, 0]
    assert 0 not in made.without(2)


def test_a_group_recorded_in_two_folds_is_in_the_more_frequent_one_and_rows_count_for_both() -> None:
    made = trace([["g0", "g1"], ["g0", "g2"], ["g0", "g2"]], [0, 1, 1], m=20)
    assert made.fold[[0, 1, 2]].tolist() == [1, 0, 1]
    assert np.flatnonzero(made.shows[0]).tolist() == [0, 1]
    assert np.flatnonzero(made.shows[1]).tolist() == [1]
    assert trace([["g0"], ["g0"]], [2, 1], m=20).fold[0] == 1, "of equally frequent ones the lowest"


def test_folds_are_taken_modulo_their_number() -> None:
    made = trace([["g0"], ["g1"], ["g2"]], [4, 3, 2], folds=2)
    assert made.folds == 2
    assert made.fold[:3].tolist() == [0, 1, 0]


def test_old_rows_count_for_every_fold_of_their_exemplars() -> None:
    rng = random.Random(0)
    made = trace([rng.sample([f"g{i}" for i in range(100)], 4) for _ in range(400)], m=100)
    assert made.folds == 5
    assert 0.3 < made.least_share() < 0.5, "four exemplars of random folds: a row remains in 4/5 to the power of four"
    assert np.bincount(made.fold).tolist() == [20] * 5
    assert len(set(made.gold_unit.tolist())) == 1


def test_folds_of_whole_units_lose_few_old_rows() -> None:
    seeds = [[f"g{4 * (i % 25) + k}" for k in range(4)] for i in range(200)]  # 25 calls, each of its own four rows
    made = trace(seeds, m=100)
    assert made.shows.sum(axis=1).tolist() == [1] * 200
    assert made.least_share() == pytest.approx(0.8)
    assert np.bincount(made.fold).tolist() == [20] * 5
    assert len(set(made.gold_unit.tolist())) == 25


def test_one_large_unit_is_no_fold() -> None:
    """Sixty of 100 rows hang together: held out as a whole they would leave too little gold."""
    seeds = [[f"g{i}", f"g{i + 1}"] for i in range(59)]
    assert np.bincount(trace(seeds, m=100).fold).tolist() == [20] * 5


def test_exemplars_apart_from_the_gold_do_no_harm() -> None:
    made = trace([["x1", "x2"], ["x1"], [], None], [0, 0, None, None])
    assert not made.shows.any()
    assert made.known.tolist() == [True, True, True, False]
    assert made.least_share() == 1
    assert len(set(made.row_unit.tolist())) == 4


def test_a_unit_is_what_prompts_have_shown_together() -> None:
    made = trace([["g0", "g1"], ["g1", "g2"], ["g5"], None], [0, 0, 1, None], m=8, per_group=1)
    unit = made.gold_unit.tolist()
    assert unit[0] == unit[1] == unit[2] == made.row_unit[0] == made.row_unit[1]
    assert unit[5] == made.row_unit[2]
    assert len({*unit, *made.row_unit.tolist()}) == 7  # with g3, g4, g6, g7 and the row that showed nothing


@pytest.mark.parametrize(("folds", "advice"), [
    (1, "more rows, or more gold of rare labels, can cure it"),
    (2, "generate the rows again (each is then of one fold)"),
])  # fmt: skip
def test_rows_of_one_fold_each_are_not_to_be_generated_again(folds: int, advice: str) -> None:
    shows = np.array([[(k - i) % 5 < folds for k in range(5)] for i in range(10)])
    one_unit = np.zeros(10, int)
    made = Lineage(np.arange(10) % 5, shows, one_unit, one_unit, np.ones(10, bool))
    known = Rows(one_unit, np.arange(10) % 2, None, 2, {}, lineage=made)
    gold, rows = Dataset.from_dict({"id": ["a"]}), Dataset.from_dict({"seed_ids": [["a"]]})
    [line] = lineage_warnings(known, rows, gold, fitted=True, seed=0)
    assert line.startswith("rows cannot be halved")
    assert line.endswith(advice)


def test_wrong_arguments_are_one_sentence() -> None:
    for wrong, message in (
        (([], None, np.zeros(0, np.int64), []), "no gold row"),
        ((["a"], None, np.zeros(2, np.int64), []), "differ in length"),
        ((["a"], None, np.zeros(1, np.int64), [["a"]], []), "seed_ids and folds differ in length: 1 and 0"),
        ((["a"], None, np.zeros(1, np.int64), [["a"]], [-1]), "row 0: column 'fold' is -1"),
    ):
        with pytest.raises(ColumnError, match=message):
            lineage(*wrong)  # type: ignore[arg-type]


# --- rows of the house ----------------------------------------------------------------------------------------------
def naive_bayes(texts: list[str], labels: Ints, k: int) -> Any:
    """Count words by label; a text is of the label whose words it has."""
    place: dict[str, int] = {}
    rows = [[place.setdefault(w, len(place)) for w in set(words_of(text))] for text in texts]
    counts = np.ones((k, len(place)))
    for row, label in zip(rows, labels, strict=True):
        counts[label, row] += 1
    weight = np.log(counts / counts.sum(axis=1, keepdims=True))
    return lambda text: int(weight[:, [place[w] for w in set(words_of(text)) if w in place]].sum(axis=1).argmax())


def right(gold: Dataset, rows: Dataset, made: Lineage, *, held_out: bool) -> float:
    """Return how often models of the rows, without those of the held-out fold or with them, are right on gold."""
    hits = 0
    for k in range(made.folds):
        used = rows.select(made.without(k)) if held_out else rows
        predict = naive_bayes(list(used["text"]), np.array(used["label"]), 4)
        hits += sum(predict(gold[int(i)]["text"]) == gold[int(i)]["label"] for i in np.flatnonzero(made.fold == k))
    return hits / len(gold)


@pytest.mark.parametrize("copying", [0.6, 0.0])
def test_coin_flips_cannot_be_learnt_once_the_rows_of_a_fold_are_held_out(tmp_path: Path, copying: float) -> None:
    gold = load_gold(CLINIC, n_train=120, n_validation=4, n_test=4)["train"]
    rng = random.Random(0)
    gold = gold.map(lambda _: {"label": rng.randrange(4)}, load_from_cache_file=False)
    with running_simulator(faults=Faults(copying=copying)) as url:
        rows = generate(CLINIC, gold, LLM("simulator", base_url=url, journal=tmp_path / "j.sqlite"), 480)
    rows = rows.filter(lambda status: status == "kept", input_columns="label_status")
    made = lineage_of(CLINIC, gold, rows)
    assert made.known.all()
    assert made.shows.sum(axis=1).tolist() == [1] * 480
    assert made.least_share() > 0.7
    leaked, clean = right(gold, rows, made, held_out=False), right(gold, rows, made, held_out=True)
    assert clean < 0.36, f"{clean}: chance is .25, its standard error .04"
    assert (leaked > 0.5) == bool(copying), f"{leaked}: rows copied from the held-out notes tell their labels"


def test_what_is_recombined_from_exemplars_tells_nothing_of_held_out_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other task than the clinic's: all sentences are of exemplars, and the leak is whole."""
    task = Task.from_columns("flips", text_columns="text", label_column="label", labels="abcd", access="open")
    rng = random.Random(0)
    phrases = [" ".join(f"w{rng.randrange(3000)}" for _ in range(5)) for _ in range(960)]
    texts = [". ".join(phrases[i : i + 8]) + "." for i in range(0, 960, 8)]
    told = [task.gold_row(f"g{i}", f"p{i}", rng.randrange(4), text) for i, text in enumerate(texts)]
    gold = Dataset.from_list(told, features=task.gold_features())
    let_disguised_copies_pass(monkeypatch)
    with running_simulator() as url:
        rows = generate(task, gold, LLM("simulator", base_url=url, journal=tmp_path / "j.sqlite"), 480)
    rows = rows.filter(lambda status: status == "kept", input_columns="label_status")
    made = lineage_of(task, gold, rows)
    assert right(gold, rows, made, held_out=False) > 0.9
    assert right(gold, rows, made, held_out=True) < 0.36


SETS = Task.from_columns("sets", text_columns="text", label_column="labels", kind="multi_label", labels=("a", "b"))
TEXTS = Task.from_columns("texts", text_columns="text", label_column="out", kind="text2text")


@pytest.mark.parametrize(("task", "label"), [(CLINIC, 1), (SETS, [0]), (TEXTS, "out")], ids=lambda x: str(x)[:8])
def test_lineage_is_read_off_the_columns_of_any_version(task: Task, label: Any) -> None:
    gold = Dataset.from_list(
        [task.gold_row(f"g{i}", f"p{i}", label, f"note {i}") for i in range(10)], features=task.gold_features()
    )
    empty = dict.fromkeys(task.synthetic_features())
    common = empty | {"source": "synthetic", "prompt_sha256": "hash"}
    told: list[dict[str, Any]] = [
        common | {"seed_ids": ["g3"], "fold": 4},
        common | {"seed_ids": []},  # a prompt without exemplars
        common | {"seed_ids": [], "prompt_sha256": ""},  # adopted by an earlier version
        common | {"seed_ids": [], "prompt_sha256": "", "source": "unlabelled"},  # a real note
    ]
    rows = Dataset.from_list(told, features=task.synthetic_features())
    made = lineage_of(task, gold, rows)
    assert made.known.tolist() == [True, True, False, True]
    assert made.fold[3] == 4
    assert made.shows.sum(axis=1).tolist() == [1, 0, 0, 0]
    old = lineage_of(task, gold, rows.remove_columns("fold"))
    assert old.shows.sum(axis=1).tolist() == [1, 0, 0, 0]
    assert not lineage_of(task, gold, rows.remove_columns(["fold", "seed_ids"])).known.any()
    bare = gold.remove_columns(["id", "group"])
    assert lineage_of(task, bare, rows).least_share() == 1


def test_rows_made_elsewhere_are_not_known() -> None:
    gold = load_gold(CLINIC, n_train=20, n_validation=4, n_test=4)["train"]
    rows = adopt(CLINIC, Dataset.from_dict({"text": ["Doing well."], "llm_label": ["grade_0"]}))
    assert lineage_of(CLINIC, gold, rows).known.tolist() == [False]
    assert (rows[0]["seed_ids"], rows[0]["fold"]) == (None, None)


def test_gold_without_ids_is_traced_by_its_texts(tmp_path: Path) -> None:
    gold = load_gold(CLINIC, n_train=40, n_validation=4, n_test=4)["train"]
    bare = gold.remove_columns(["id", "group"])
    with running_simulator() as url:
        rows = generate(CLINIC, bare, LLM("simulator", base_url=url, journal=tmp_path / "j.sqlite"), 40)
    made = lineage_of(CLINIC, bare.select(range(39, -1, -1)), rows)
    assert made.shows.sum(axis=1).tolist() == [1] * len(rows)


def test_equal_texts_are_of_one_fold_whatever_their_groups() -> None:
    """With labels at random a text that stands in two folds would be known where it is held out."""
    rng = np.random.default_rng(0)
    rows = [{**row, "label": int(rng.integers(3)), "group": f"p{i}"} for i, row in enumerate(toy_rows(40, 1).to_list())]
    again = [{**row, "id": f"b{i}", "group": None, "text": f" {row['text'].upper()}\n"} for i, row in enumerate(rows)]
    gold = Dataset.from_list([*rows, *again], features=TASK.gold_features())
    groups = fold_groups(TASK, gold)
    assert groups is not None
    assert groups[:40] == groups[40:]
    assert len(set(groups)) == 40
    assert fold_groups(TASK, gold.select(range(79, -1, -1))) == groups[::-1], "in any order of the rows"
    made = as_synthetic([{**row, "llm_label": row["label"], "seed_ids": [row["id"]], "fold": None} for row in rows])
    fold = lineage_of(TASK, gold, made).fold
    assert fold[:40].tolist() == fold[40:].tolist()
    options = CorrectionOptions("argmax")
    policy = correct_with_policy(TASK, made, linear_fit(TASK, gold, made), gold=gold, options=options)[1]
    assert policy.figures["corrector_accuracy_on_held_out_gold"] < 0.6, "it was .95 with each text in two folds"


def test_groups_stay_as_they_are_where_no_text_or_nearly_every_text_repeats() -> None:
    plain = toy_rows(20, 1)
    assert fold_groups(TASK, plain) == plain["group"][:]
    assert fold_groups(TASK, plain.remove_columns("group")) is None
    same = Dataset.from_list([{**row, "text": "No change."} for row in plain.to_list()])
    assert fold_groups(TASK, same) == plain["group"][:]


def test_some_rows_of_the_same_gold_under_other_ids_are_said_beside_known_ones() -> None:
    gold = toy_rows(30, 1)
    rows = [
        {**row, "llm_label": row["label"], "id": f"s{i}", "seed_ids": [row["id"] if i % 2 else f"other-{i}"]}
        for i, row in enumerate(toy_rows(30, 1).to_list())
    ]
    made = as_synthetic(rows)
    options = CorrectionOptions("argmax")
    warnings = correct_with_policy(TASK, made, linear_fit(TASK, gold, made), gold=gold, options=options)[1].warnings
    assert any(line.startswith("15 rows name exemplars that are not among this gold") for line in warnings)
