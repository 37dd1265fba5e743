"""What is asked and what is kept: label plans, shapes of prompts, exemplars, gates, and the pipeline's promises."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from support.clinic_rows import clinic_gold, words
from support.llm_server import LLMServer, Said, content, entries, serving

from hf_synth.errors import ColumnError, LLMError, TaskError
from hf_synth.generation.exemplars import CHOICES, choose_exemplars
from hf_synth.generation.gates import Gates, language_of
from hf_synth.generation.generation import estimate, generate
from hf_synth.generation.plan import Call, Plan, Pool, Schedule, label_plan, plan_for_row
from hf_synth.generation.prompts import prompt_for
from hf_synth.llm import calls
from hf_synth.llm.journal import Journal
from hf_synth.llm.llm import LLM
from hf_synth.privacy.repetition import Seen
from hf_synth.task.facts import Fact, Facts
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

CLINIC = load_task("clinic")
GRADES = CLINIC.labels
GOLD = clinic_gold(CLINIC, [0] * 20 + [1] * 10 + [2] * 6 + [3] * 4)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_BACKOFF", 0.01)


def make(server: LLMServer, folder: Path, **more: Any) -> LLM:
    return LLM("m", base_url=server.url, journal=folder / "journal.sqlite", **more)


def writer(request: dict[str, Any], _: int) -> Said:
    return Said(entries(request))


# --- how many of what -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("n", "balance", "plan"),
    [
        (8, "equal", [2, 2, 2, 2]), (10, "equal", [3, 3, 2, 2]), (3, "equal", [1, 1, 1, 0]), (0, "equal", [0] * 4),
        (40, "gold", [20, 10, 6, 4]), (4, "gold", [2, 1, 1, 0]), (20, "gold", [10, 5, 3, 2]),
        (10, "fill", [0, 0, 4, 6]), (40, "fill", [0, 10, 14, 16]), (41, "fill", [1, 10, 14, 16]),
        (2, "fill", [0, 0, 0, 2]),
    ],
)  # fmt: skip
def test_rows_are_shared_among_the_labels(n: int, balance: Any, plan: list[int]) -> None:
    assert label_plan(CLINIC, GOLD, n, balance) == dict(zip(GRADES, plan, strict=True))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 60))
def test_any_plan_adds_up(labels: list[int], n: int) -> None:
    gold = clinic_gold(CLINIC, labels)
    for balance in ("equal", "gold", "fill"):
        plan = label_plan(CLINIC, gold, n, balance)  # type: ignore[arg-type]
        assert sum(plan.values()) == n
        assert min(plan.values()) >= 0
    together = [Counter(gold["label"])[i] + plan[x] for i, x in enumerate(GRADES)]
    lifted = [t for t, x in zip(together, GRADES, strict=True) if plan[x]]
    assert not lifted or max(lifted) - min(together) <= 1  # whoever got a row is not above whoever has fewest


def test_a_wrong_plan_is_one_sentence(tmp_path: Path) -> None:
    llm = LLM("m", base_url="http://127.0.0.1:9/v1", journal=tmp_path / "j.sqlite")
    with pytest.raises(ColumnError, match="balance"):
        label_plan(CLINIC, GOLD, 4, "even")  # type: ignore[arg-type]
    for wrong in ({"grade_9": 2}, {"grade_1": -1}):
        with pytest.raises(ColumnError, match="numbers by label"):
            generate(CLINIC, GOLD, llm, wrong)


@pytest.mark.parametrize("asks", ["one_label", "every_label"])
def test_rows_wanted_by_label_are_what_comes(asks: Any, tmp_path: Path) -> None:
    prompt = dataclasses.replace(CLINIC.prompt, asks_for=asks, rows=3)
    wanted = {"grade_3": 11, "grade_1": 4}
    with serving(writer) as server:
        made = generate(CLINIC, GOLD, make(server, tmp_path), wanted, prompt=prompt)
        asked = [re.findall(r"labels: (.*)\.\n", a)[0] for a in server.asked()]
    assert Counter(made["label"]) == {3: 11, 1: 4}
    assert set(made["label_status"]) == {"kept"}
    assert not any("grade_0" in a or "grade_2" in a for a in asked)
    assert len(asked) == (6 if asks == "one_label" else 4)  # together: two calls for both, two for the rest of one


# --- the pipeline ---------------------------------------------------------------------------------------------------
def moody(request: dict[str, Any], number: int) -> Said:
    """Fail for good, refuse, or answer, by the seed alone; after a time that is never the same."""
    seed = request["seed"]
    said = (
        [Said(status=400), Said("I'm sorry, I can't."), Said("nonsense")][seed % 9]
        if seed % 9 < 3
        else writer(request, 0)
    )
    return dataclasses.replace(said, delay=random.random() * 0.02)


def test_rows_do_not_depend_on_the_order_of_arrival(tmp_path: Path) -> None:
    made = []
    with serving(moody) as server:
        for concurrency in (1, 7, 64):
            llm = make(server, tmp_path / str(concurrency), concurrency=concurrency)
            rows = generate(CLINIC, GOLD, llm, 150, prompt=dataclasses.replace(CLINIC.prompt, rows=2), balance="gold")
            made.append(rows.remove_columns("created").to_list())
            assert sum(r["label_status"] == "kept" for r in made[-1]) == 150
    assert made[0] == made[1] == made[2]


class Endless:
    """A plan whose calls cost nothing to make."""

    def call(self, labels: tuple[str, ...], j: int) -> Call:
        return Call(j, [], tuple(labels), 1, ())


@settings(deadline=None, max_examples=80)
@given(st.randoms(use_true_random=False), st.integers(1, 40), st.floats(0, 0.9), st.booleans())
def test_the_plan_ends_with_enough_or_at_its_bound(rng: random.Random, n: int, bad: float, together: bool) -> None:
    """Whatever comes, and whenever: enough rows of each label, or as many calls as are allowed; the same calls."""
    asked = []
    for pace in ("eager", "lazy", "mixed"):
        wanted = {"x": n, "y": n // 2 + 1}
        schedule = Schedule(Endless(), wanted, ("x", "y"), together, 500, 16)  # type: ignore[arg-type]
        left, log = Counter(wanted), []
        fate = random.Random(3)
        fates = [fate.random() >= bad for _ in range(600)]
        answered = 0
        for question in schedule.questions():
            if question is not None:
                log.append(schedule.open_calls[-1].labels)
            ready = len(schedule.open_calls) if question is None or pace == "eager" else 0
            if pace == "mixed":
                ready = max(ready and 1, rng.randint(0, len(schedule.open_calls)))
            for _ in range(min(1, ready) if question is None and pace != "eager" else ready):
                call = schedule.open_calls.popleft()
                kept = Counter(x for x in call.labels if fates[answered] and left[x] > 0)
                answered += 1
                left -= kept
                schedule.record(call, kept)
        assert not +left or len(log) == 500
        asked.append(log)
    assert asked[0] == asked[1] == asked[2]


def test_a_bound_on_calls_holds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(lambda *_: Said("nonsense")) as server:
        made = generate(CLINIC, GOLD, make(server, tmp_path), 30, max_calls=5)
        assert len(server.requests) == 5
    assert Counter(made["reason"]) == {"unparsable": 5}
    assert "0 of 30 rows came of 5 calls" in caplog.text


def test_what_answers_took_adds_up(tmp_path: Path) -> None:
    with serving(writer) as server:
        made = generate(CLINIC, GOLD, make(server, tmp_path, price=(1e5, 1e5)), 50)
        answered = len(server.requests)
    assert sum(v for v in made["prompt_tokens"] if v is not None) == 10 * answered
    assert sum(v for v in made["completion_tokens"] if v is not None) == 20 * answered
    assert sum(v for v in made["cost_usd"] if v is not None) == pytest.approx(3.0 * answered)


def test_an_estimate_names_the_calls_that_are_made(tmp_path: Path) -> None:
    guess = estimate(CLINIC, GOLD, 90, price=(1.0, 2.0), balance="gold")
    with serving(writer) as server:
        generate(CLINIC, GOLD, make(server, tmp_path), 90, balance="gold")
        asked = server.asked()
    assert guess.calls == len(asked)
    assert guess.most_calls >= guess.calls
    assert sum(guess.rows.values()) == 90
    assert guess.prompt_tokens == pytest.approx(sum(map(len, asked)) / 4, rel=0.25)  # and the system message
    assert guess.cost_usd == pytest.approx((guess.prompt_tokens + 2 * guess.completion_tokens) / 1e6)
    assert estimate(CLINIC, GOLD, 90).cost_usd is None


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from hf_synth import LLM, generate, load_task
from support.clinic_rows import clinic_gold
CLINIC = load_task("clinic")
n, grown = int(sys.argv[4]), int(sys.argv[5])
gold = clinic_gold(CLINIC, ([0] * 20 + [1] * 10 + [2] * 6 + [3] * 4) + [0, 1] * grown)
if grown:
    gold = gold.select(list(range(len(gold)))[::-1])
rows = generate(CLINIC, gold, LLM("m", base_url=sys.argv[2], journal=sys.argv[3], concurrency=8), n)
print(sum(s == "kept" for s in rows["label_status"]))
"""


def test_kill_costs_no_answer_that_was_kept(tmp_path: Path) -> None:
    here = str(Path(__file__).parent.parent)
    with serving(lambda r, _: dataclasses.replace(writer(r, 0), delay=0.02)) as server:
        command = [sys.executable, "-c", CHILD, here, server.url, str(tmp_path / "j.sqlite"), "1200", "0"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while len(server.requests) < 25:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        with Journal(tmp_path / "j.sqlite") as journal:
            before = len(journal)
        again = subprocess.run(command, capture_output=True, text=True, check=True)
        asked = Counter((a, r["seed"]) for a, r in zip(server.asked(), server.requests, strict=True))
    assert before > 0
    assert again.stdout.split() == ["1200"]
    assert max(asked.values()) <= 2
    assert asked.total() - len(asked) <= 16  # in flight, or answered and on its way to the disk


# --- shapes ---------------------------------------------------------------------------------------------------------
def test_every_shape_has_its_form() -> None:
    task = load_task("esophagitis:grade")
    gold = clinic_gold(task, [0, 1, 2, 3] * 5)
    for shape, shown in (("examples", 4), ("attributes", 0), ("facts", 0), ("rewrite", 1)):
        prompt = prompt_for(task, shape)
        labels = task.labels if prompt.asks_for == "every_label" else ("grade_2",)
        plan = Plan(task, prompt, Pool(task, gold), prompt.rows)
        call, other = plan.call(labels, 0), plan.call(labels, 1)
        said = call.messages[1]["content"]
        assert call == Plan(task, prompt, Pool(task, gold), prompt.rows).call(labels, 0)
        assert call.messages[0] == other.messages[0]
        assert call.messages != other.messages
        assert len(call.seed_ids) == shown == said.count('{"text": "') - 0 - ('{"entries": [{"text"' in said) * 1
        assert ("Every entry fulfils this:" in said) is (shape in ("attributes", "facts"))
        assert ("it states, in its own words: support:" in said) is (shape == "facts")
        assert bool(call.facts) is (shape == "facts")
    with pytest.raises(TaskError, match="no facts"):
        prompt_for(CLINIC, "facts")
    with pytest.raises(TaskError, match="no prompt 'poem'; there are examples, attributes, facts, rewrite"):
        prompt_for(CLINIC, "poem")
    own = dataclasses.replace(
        CLINIC, prompts=(*CLINIC.prompts, dataclasses.replace(CLINIC.prompt, name="attributes", rows=9))
    )
    assert prompt_for(own, "attributes").rows == 9


@pytest.mark.parametrize(
    "name", [*(f"esophagitis:{c}" for c in ("grade", "presence", "severe", "three")), "fall_risk:morse"]
)
def test_the_statements_of_facts_lead_to_their_label(name: str) -> None:
    """A text that states the facts as they are worded is graded as they are meant: rule and patterns agree."""
    task = load_task(name)
    assert task.facts is not None
    for chosen in product(*(item.values for item in task.facts.items)):
        text = ". ".join(said for said, *_ in chosen) + "."
        label = task.facts.label([points for _, points, _ in chosen])
        assert task.facts.found_in(text) == label, text
    assert {task.facts.label([p for _, p, _ in c]) for c in product(*(i.values for i in task.facts.items))} == set(
        range(len(task.labels))
    )


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("Eating regular meals with no pain. No feeding tube.", 0),
        ("Denies dysphagia, was never admitted, no supplements.", 0),
        ("CT shows mild thickening of the esophagus; she has no complaint.", 1),
        ("Odynophagia, on a soft diet and Ensure.", 2), ("PEG placed last week for dysphagia.", 3),
        ("Not hospitalized, but only liquids go down: full liquids for a week.", 2),
        ("No soft foods needed. TPN was started.", 3),
        ("Seen on the inpatient ward for cellulitis; eats ordinary meals without pain.", 0),
        ("Was admitted for port placement last month. Swallowing is normal.", 0),
        ("Hospital admission for nutrition was not needed. Ordinary meals.", 0),
        ("Feeding tube: none. TPN: none. Eats ordinary meals.", 0), ("She doesn't need a feeding tube.", 0),
        ("She isn't on a soft diet; supplements aren't needed.", 0),
        ("He denies fever but a feeding tube was placed and TPN started.", 3),
        ("She could no longer swallow and a PEG tube was placed.", 3),
    ],
)  # fmt: skip
def test_what_is_denied_is_not_stated(text: str, grade: int) -> None:
    facts = load_task("esophagitis:grade").facts
    assert facts is not None
    assert facts.found_in(text) == grade


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Walks without a cane or walker; doesn't have an IV line. Hasn't fallen recently.", "low"),
        ("Stage IV colon cancer. Walks unaided, furniture is arranged safely.", "low"),
        ("She fell two weeks ago and has an IV line.", "high"), ("He fell last month. Walks alone.", "moderate"),
    ],
)  # fmt: skip
def test_the_scale_is_read_off_a_note(text: str, label: str) -> None:
    task = load_task("fall_risk:morse")
    assert task.facts is not None
    assert task.labels[task.facts.found_in(text)] == label


def test_facts_are_checked_in_the_answer(tmp_path: Path) -> None:
    facts = Facts((Fact("pain", (("no pain", 0, ""), ("pain of the chest", 1, r"pain"))),), "max", (1,))
    task = Task.from_columns(
        "pain", text_columns="text", label_column="label", labels=("no", "yes"), access="open", facts=facts
    )

    def says(request: dict[str, Any], number: int) -> Said:
        label = re.findall(r"labels: (.*)\.\n", content(request))[0]
        found = f"{words(request['seed'])}. {'pain' if label == 'yes' or request['seed'] % 2 else 'well'} today"
        return Said(json.dumps({"entries": [{"text": found, "label": label}]}))

    with serving(says) as server:
        made = generate(task, clinic_gold(task, [0, 1] * 4), make(server, tmp_path), 20, prompt="facts")
    assert Counter(made["reason"])["facts_differ"] > 0
    kept = [(t, y) for t, y, s in zip(made["text"], made["label"], made["label_status"], strict=True) if s == "kept"]
    assert len(kept) == 20
    assert all(("pain" in text) is bool(label) for text, label in kept)


def test_wrong_facts_are_refused() -> None:
    facts = Facts((Fact("pain", (("no pain", 0, ""),)),), "max", (1,))
    columns: Any = {"text_columns": "text", "label_column": "label", "labels": ("no", "yes")}
    task = Task.from_columns("pain", **columns, facts=facts)
    with pytest.raises(TaskError, match="no facts lead to the label 'yes'"):
        Plan(task, prompt_for(task, "facts"), Pool(task, clinic_gold(task, [0, 1])), 1).call(("yes",), 0)
    with pytest.raises(TaskError, match="one bound fewer"):
        Task.from_columns("pain", **columns, facts=dataclasses.replace(facts, bounds=(1, 2)))


# --- folds ----------------------------------------------------------------------------------------------------------
SETS = Task.from_columns(
    "sets", text_columns="text", label_column="labels", kind="multi_label", labels=("a", "b", "c"), access="open"
)
TEXTS = Task.from_columns("texts", text_columns="text", label_column="out", kind="text2text", access="open")


def patients(task: Task, labels: list[Any], per_patient: int = 1) -> Dataset:
    """Write gold rows, of which several consecutive ones are of one patient."""
    rows = [task.gold_row(f"g{i}", f"p{i // per_patient}", y, words(f"gold {i}")) for i, y in enumerate(labels)]
    features = task.gold_features()
    return Dataset.from_dict({c: [row[c] for row in rows] for c in features}, features=features)


def calls_of(task: Task, gold: Dataset, n: int = 40, seed: int = 0, **prompt: Any) -> list[Call]:
    shape = dataclasses.replace(task.prompt, **prompt)
    plan = Plan(task, shape, Pool(task, gold, seed=seed), 1, seed=seed)
    asked = task.labels if shape.asks_for == "every_label" else task.labels[:1]
    return [plan.call(asked, j) for j in range(n)]


@pytest.mark.parametrize("exemplars", ["one_per_label", "mixed", "same_label"])
@pytest.mark.parametrize("asks_for", ["every_label", "one_label"])
@pytest.mark.parametrize("task", [CLINIC, SETS, TEXTS], ids=lambda task: task.kind)
def test_all_exemplars_of_a_call_are_of_its_fold(task: Task, exemplars: Any, asks_for: Any) -> None:
    rng = random.Random(5)
    labels: list[Any] = {
        "single_label": [rng.choice((0, 0, 0, 0, 1, 1, 2, 3)) for _ in range(60)],
        "multi_label": [[k for k in range(3) if rng.random() < 0.4] for _ in range(60)],
        "text2text": [words(i, 3) for i in range(60)],
    }[task.kind]
    gold = patients(task, labels, 2)
    group = dict(zip(gold["id"], gold["group"], strict=True))
    fold_of: dict[str, set[int | None]] = {}
    for seed in (0, 1):
        asked = calls_of(task, gold, seed=seed, exemplars=exemplars, asks_for=asks_for, n_exemplars=2)
        assert set(Counter(call.fold for call in asked).values()) == {8}, "40 calls, 8 of each fold"
        for call in asked:
            assert call.seed_ids
            for id in call.seed_ids:
                fold_of.setdefault(group[id], set()).add(call.fold)
    assert all(len(folds) == 1 for folds in fold_of.values()), "a patient is of one fold, whatever the seed"
    assert len(fold_of) == 30 or exemplars != "mixed"


def test_every_row_is_shown_before_any_comes_again_in_a_fold() -> None:
    asked = calls_of(CLINIC, patients(CLINIC, [0, 1, 2, 3] * 15), 15)
    assert set(Counter(id for call in asked for id in call.seed_ids).values()) == {1}
    again = calls_of(CLINIC, patients(CLINIC, [0, 1, 2, 3] * 15), 30)
    assert set(Counter(id for call in again for id in call.seed_ids).values()) == {2}


def test_the_folds_do_not_depend_on_the_order_of_the_rows() -> None:
    gold = patients(CLINIC, [0] * 20 + [1] * 10 + [2] * 6 + [3] * 4)
    pool, other = Pool(CLINIC, gold), Pool(CLINIC, gold.select(random.Random(1).sample(range(40), 40)), seed=9)
    assert [pool.fold_of(row) for row in gold] == [other.fold_of(row) for row in gold]


def test_a_label_that_a_fold_lacks_is_left_out_or_another_fold_is_taken() -> None:
    gold = patients(CLINIC, [0] * 20 + [1] * 20 + [2] * 20 + [3] * 2)
    label = dict(zip(gold["id"], gold["label"], strict=True))
    shown = [{label[id] for id in call.seed_ids} for call in calls_of(CLINIC, gold, exemplars="one_per_label")]
    assert Counter(3 in labels for labels in shown) == {True: 16, False: 24}, "two folds of five have the label"
    assert all({0, 1, 2} <= labels for labels in shown)
    for exemplars in ("same_label", "one_per_label"):
        prompt = dataclasses.replace(CLINIC.prompt, exemplars=exemplars, asks_for="one_label")  # type: ignore[arg-type]
        plan = Plan(CLINIC, prompt, Pool(CLINIC, gold), 1)
        calls = [plan.call(("grade_3",), j) for j in range(20)]
        assert set(Counter(call.fold for call in calls).values()) == {10}, "the two folds take turns"
        assert all(3 in {label[id] for id in call.seed_ids} for call in calls)


@pytest.mark.parametrize("n_groups", [1, 2, 4, 5, 7])
def test_few_patients_make_few_folds(n_groups: int) -> None:
    asked = calls_of(CLINIC, patients(CLINIC, [0, 1, 2, 3] * n_groups, 4), 20)
    assert {call.fold for call in asked} == set(range(min(5, n_groups)))


def test_prompts_without_exemplars_have_no_fold() -> None:
    call = Plan(CLINIC, prompt_for(CLINIC, "attributes"), Pool(CLINIC, GOLD), 1).call(("grade_1",), 3)
    assert (call.seed_ids, call.fold) == ((), None)


def test_a_row_of_its_own_plan_has_the_fold_of_its_patient() -> None:
    gold = patients(CLINIC, [0, 1, 2, 3] * 15, 2)
    pool = Pool(CLINIC, gold)
    for row in gold.select(range(0, 60, 7)):
        call = plan_for_row(CLINIC, CLINIC.prompt, row, pool)
        assert call.fold == pool.fold_of(row)
        assert {pool.fold_of(other) for other in gold if other["id"] in call.seed_ids} == {call.fold}
    stranger = CLINIC.gold_row("x", "p-new", 1, words("new"))
    sibling = CLINIC.gold_row("y", "p-new", 2, words("newer"))
    folds = [plan_for_row(CLINIC, CLINIC.prompt, row, pool).fold for row in (stranger, sibling)]
    assert folds[0] == folds[1], "rows of a patient who is not in the pool are of one fold, too"
    assert folds[0] in range(5)


# --- exemplars ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("how", CHOICES)
def test_a_choice_keeps_rows_and_their_order(how: Any) -> None:
    chosen = choose_exemplars(CLINIC, GOLD, how, share=0.25)
    ids = [int(i[1:]) for i in chosen["id"]]
    assert len(ids) == 10
    assert ids == sorted(set(ids))
    assert chosen.features == GOLD.features
    assert choose_exemplars(CLINIC, GOLD, how, share=0.25)["id"] == chosen["id"]
    if how == "first":
        assert ids == list(range(10))
    if how == "balanced":
        assert Counter(chosen["label"]) == {0: 3, 1: 3, 2: 2, 3: 2}
    if how == "random":
        assert choose_exemplars(CLINIC, GOLD, how, share=0.25, seed=1)["id"] != chosen["id"]


def test_diverse_rows_cover_more_than_others() -> None:
    common = words("common", 60)
    texts = [common + f" {i}" for i in range(20)] + [words(f"own {i}", 30) + " " + common[:40] for i in range(10)]
    rows = [CLINIC.gold_row(f"g{i}", None, i % 4, text) for i, text in enumerate(texts)]
    gold = Dataset.from_list(rows, features=CLINIC.gold_features())
    chosen = [int(i[1:]) for i in choose_exemplars(CLINIC, gold, "diverse", share=0.3)["id"]]
    assert sum(i >= 20 for i in chosen) >= 8  # one of those that are alike says what all of them say


def test_a_wrong_choice_is_one_sentence() -> None:
    for how, share in (("best", 0.2), ("first", 0.0), ("first", 1.5)):
        with pytest.raises(ColumnError, match="exemplars are chosen by"):
            choose_exemplars(CLINIC, GOLD, how, share=share)  # type: ignore[arg-type]
    with pytest.raises(ColumnError, match="no gold row"):
        choose_exemplars(CLINIC, GOLD.map(lambda _: {"text": " "}), "first")


# --- gates ----------------------------------------------------------------------------------------------------------
ENGLISH = (
    "The patient was seen in the clinic and is doing well with no pain; she denies fever and has not lost weight. "
)
SPANISH = "El paciente refiere que no tiene dolor y se encuentra bien; fue visto por el médico y no presenta fiebre. "
GERMAN = "Der Patient ist wohlauf und hat keine Schmerzen; die Untersuchung wurde in der Klinik mit ihm besprochen. "
GREEK = "Ο ασθενής είναι καλά και δεν έχει πόνο· δεν αναφέρει πυρετό και το βάρος του παραμένει σταθερό σήμερα."


def gates_of(texts: list[str]) -> Gates:
    rows = [CLINIC.gold_row(f"g{i}", f"p{i}", i % 4, text) for i, text in enumerate(texts)]
    return Gates(CLINIC, Pool(CLINIC, Dataset.from_list(rows, features=CLINIC.gold_features())))


def fault(gates: Gates, text: str) -> str | None:
    return gates.faults([{"text": text, "label": "grade_1"}], [Call(0, [], GRADES, 1, ())])[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ENGLISH + words(1), None),
        (ENGLISH + words("gold 3", 40), "copied"),
        (words("gold 3", 40).upper() + "!", "duplicate"),
        (ENGLISH + "Esophagitis grade 2.", "label_leak"),
        (ENGLISH + "Dear [Patient Name], come again.", "template"),
        (ENGLISH + "Seen by {doctor_name} today.", "template"),
        (ENGLISH + "<insert finding here>", "template"),
        (ENGLISH + "An XX-year-old woman.", "template"),
        (ENGLISH + words(2) + "<|im_end|>", "template"),
        (ENGLISH + " word" * 5_000, "too_long"),
        (SPANISH * 2, "language"), (GERMAN * 2, "language"), (GREEK, "language"),
        ("BP 120/80, HR 72, afebrile, A&O x3, RRR, CTAB, NTND.", None),
    ],
)  # fmt: skip
def test_gates_name_their_reason(text: str, reason: str | None) -> None:
    gold = [words(f"gold {i}") for i in range(8)] + [ENGLISH + words(f"more {i}") for i in range(40)]
    assert fault(gates_of(gold), text) == reason


def test_what_gold_does_itself_is_no_fault() -> None:
    gold = [f"{SPANISH}{words(i)} [Name removed] seen on ___." for i in range(30)]
    gates = gates_of(gold)
    assert fault(gates, SPANISH + words("new") + " [Name removed]") is None
    assert fault(gates, ENGLISH * 2) == "language"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (ENGLISH, "english"), (SPANISH * 2, "spanish"), (GERMAN * 2, "german"), (GREEK, "other"), ("BP 120/80", None),
        (words(1, 60), None),
    ],
)  # fmt: skip
def test_languages_are_told_apart(text: str, language: str | None) -> None:
    assert language_of(text) == language


def test_near_duplicates_are_known_and_the_first_stays() -> None:
    seen, one = Seen(), words("one", 60)
    assert seen.repeat((one,)) is None
    assert seen.repeat((one.replace(one.split()[7], "changed", 1),)) == "near_duplicate"
    assert seen.repeat((one.upper() + "!",)) == "duplicate"
    assert seen.repeat(("",)) is None
    assert seen.repeat(("a b",)) is None
    assert seen.repeat(("A b.",)) == "duplicate"
    assert all(seen.repeat((words(f"row {i}", 40),)) is None for i in range(3_000))


# --- asking again when it is slow -----------------------------------------------------------------------------------
def test_hedging_takes_the_first_answer_and_is_an_opt_in(tmp_path: Path) -> None:
    def slow(request: dict[str, Any], number: int) -> Said:
        stuck = content(request) == "question 50" and not any(
            content(r) == "question 50" for r in server.requests[:number]
        )
        return Said("fine", delay=(60.0 if hedge else 0.3) if stuck else 0.01)

    for hedge in (True, False):
        with serving(slow) as server:
            llm = make(server, tmp_path / str(hedge), concurrency=4, hedge=hedge)
            began = time.monotonic()
            said = llm.chat([[{"role": "user", "content": f"question {i}"}] for i in range(60)], access="open")
            taken = time.monotonic() - began
            again = Counter(server.asked())["question 50"]
        assert [a.text for a in said] == ["fine"] * 60
        assert (again, taken < 30) == (2 if hedge else 1, True)
    with pytest.raises(LLMError, match="hedge pays twice"):
        LLM("m", base_url="https://api.example.org/v1", hedge=True)
    LLM("m", base_url="https://api.example.org/v1", hedge=True, price=(0, 0))
    with pytest.raises(LLMError, match="a budget"):
        LLM("m", base_url="http://127.0.0.1:1/v1", hedge=True, price=(1, 1), budget_usd=1.0)
