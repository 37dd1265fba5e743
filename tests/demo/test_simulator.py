"""The simulator answers our real prompts, errs in the writing, and can be read back."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset

from hf_synth.demo.simulator import Faults, answer, running_simulator, true_label, write
from hf_synth.generation.answers import parse
from hf_synth.generation.generation import generate
from hf_synth.generation.prompts import render
from hf_synth.gold.gold import load_gold
from hf_synth.llm.llm import LLM
from hf_synth.privacy.audit import audit
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

CLINIC = load_task("clinic")
CALM = Faults(refusal=0, broken=0, chatter=0, duplicate=0)


def ask(task: Task, labels: list[str], rows: int = 2) -> list[dict[str, str]]:
    words = {c: f"A made-up {c}. It has two sentences." for c in task.text_columns}
    shown = [words | {task.label_column: label} for label in (task.labels or ("A made-up target.",))]
    return render(task, task.prompt, shown, labels, rows)


def test_it_is_seeded() -> None:
    messages = ask(CLINIC, list(CLINIC.labels))
    assert answer(messages, seed=1) == answer(messages, seed=1)
    assert answer(messages, seed=1) != answer(messages, seed=2)


def test_what_was_written_is_read_back_exactly() -> None:
    rng = random.Random(0)
    for i in range(800):
        text, grade = write(rng, i % 4)
        assert true_label(text) == grade


@pytest.mark.parametrize(("slips", "low", "high"), [(0.0, 1.0, 1.0), (1.0, 0.62, 0.78)])
def test_wrong_labels_arise_in_the_writing(slips: float, low: float, high: float) -> None:
    rng = random.Random(1)
    right = [write(rng, i % 4, slips=slips)[1] == i % 4 for i in range(2_000)]
    assert low <= sum(right) / len(right) <= high


@pytest.mark.parametrize("name", ["clinic", "esophagitis:presence", "esophagitis:severe", "esophagitis:three"])
def test_it_answers_in_the_labels_of_the_task(name: str) -> None:
    task = load_task(name)
    entries = parse(task, answer(ask(task, list(task.labels)), faults=CALM), task.labels)
    assert [e.row[task.label_column] for e in entries if e.row] == list(task.labels) * 2


def test_any_other_task_is_recombined_from_its_exemplars() -> None:
    pair = Task.from_columns(
        "nli", text_columns=["premise", "hypothesis"], label_column="label", labels=["yes", "no"], access="open"
    )
    entries = parse(pair, answer(ask(pair, ["yes"]), faults=CALM), ["yes"])
    assert [e.row["label"] for e in entries if e.row] == ["yes", "yes"]
    summary = Task.from_columns(
        "sums", text_columns="document", label_column="summary", kind="text2text", access="open"
    )
    entries = parse(summary, answer(ask(summary, []), faults=CALM))
    assert all(e.row and e.row["summary"] for e in entries)


TRIAGE = Task.from_columns(
    "triage", text_columns="message", label_column="label", labels=["now", "later", "office"], access="open"
)
SUBJECTS = {"now": "chest", "later": "knee", "office": "parking"}


def messages(slips: float, seeds: int = 30) -> list[dict[str, str]]:
    shown = [{"message": f"It is about my {SUBJECTS[y]} please. Can I come today?", "label": y} for y in TRIAGE.labels]
    prompt = render(TRIAGE, TRIAGE.prompt, shown, TRIAGE.labels, 4)
    calm = Faults(refusal=0, broken=0, chatter=0, duplicate=0, slips=slips)
    answers = [parse(TRIAGE, answer(prompt, seed=seed, faults=calm), TRIAGE.labels) for seed in range(seeds)]
    rows = [dict(entry.row) for entries in answers for entry in entries if entry.row]
    return [row | {"message": row["message"].lower()} for row in rows]


def test_a_text_with_one_label_is_said_in_other_words_and_some_labels_are_wrong() -> None:
    made = messages(slips=1.0)
    assert [row["label"] for row in made] == list(TRIAGE.labels) * 120
    wrong = [SUBJECTS[row["label"]] not in row["message"] for row in made]
    assert 0.15 < sum(wrong) / len(wrong) < 0.25
    assert all(sum(word in row["message"] for word in SUBJECTS.values()) == 1 for row in made), "one label's sentences"
    assert all(
        row["message"] != "it is about my knee please. can i come today?" for row in made if row["label"] == "later"
    )
    assert not any(SUBJECTS[row["label"]] not in row["message"] for row in messages(slips=0.0, seeds=5))
    assert messages(slips=1.0, seeds=3) == made[:36], "by messages and seed alone"


HEADS = ("Acude por", "Llama por", "Consulta de", "Ingresa por", "Revisión de", "Control de")
SIGNS = ("tos seca nocturna", "fiebre alta matutina", "dolor lumbar sordo", "mareo al girar", "edema de tobillo")
ENDS = (
    "pide analítica completa",
    "recibe suero templado",
    "vuelve dentro de quince días",
    "queda en observación corta",
)


def test_notes_of_a_table_in_any_language_are_kept(tmp_path: Path) -> None:
    task = Task.from_columns("notas", text_columns="nota", label_column="motivo", labels=["a", "b"], access="open")
    rng = random.Random(0)
    words = [f"{a}{b}{c}" for a in ("tra", "bel", "mon", "sir") for b in "aeiou" for c in ("dor", "ces", "lino")]
    texts = [
        f"{rng.choice(HEADS)} {rng.choice(SIGNS)} y {' '.join(rng.sample(words, 9))}, {rng.choice(ENDS)}."
        for _ in range(40)
    ]
    rows = {"id": [f"r{i}" for i in range(40)], "nota": texts, "motivo": ["a", "b"] * 20}
    gold = Dataset.from_dict(rows).cast_column("motivo", task.gold_features()["motivo"])
    with running_simulator() as url:
        written = generate(task, gold, LLM("simulator", base_url=url, journal=tmp_path / "j.sqlite"), 40)
    assert Counter(written["reason"])["copied"] <= 2
    assert not any(text and "again" in text for text in written["nota"]), "no English filler"
    assert len(audit(task, written, gold=gold).refused) <= 2


def test_a_label_without_exemplar_is_made_of_the_others() -> None:
    prompt = render(TRIAGE, TRIAGE.prompt, [{"message": "My knee clicks.", "label": "later"}], ["now"], 2)
    rows = [entry.row for entry in parse(TRIAGE, answer(prompt, faults=CALM), ["now"])]
    assert [row and row["label"] for row in rows] == ["now", "now"]
    assert all(row and "knee" in row["message"] for row in rows)


def test_it_misbehaves_on_demand() -> None:
    messages = ask(CLINIC, list(CLINIC.labels))
    assert "entries" not in answer(messages, faults=Faults(refusal=1))
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer(messages, faults=Faults(refusal=0, broken=1)))


NOTES = {
    grade: f"Patient {i} rode a camel over the {word} hills of home. The {word} lamp stood on a table by the door."
    for i, (grade, word) in enumerate(zip(CLINIC.labels, ("amber", "cobalt", "ivory", "scarlet"), strict=True))
}


def notes(copying: float, shown: dict[str, str], seed: int = 0) -> list[dict[str, str]]:
    messages = render(CLINIC, CLINIC.prompt, [{"text": t, "label": y} for y, t in shown.items()], CLINIC.labels, 40)
    said = answer(messages, seed=seed, faults=Faults(refusal=0, broken=0, chatter=0, duplicate=0, copying=copying))
    return [dict(entry.row) for entry in parse(CLINIC, said, CLINIC.labels) if entry.row]


def test_a_share_of_the_sentences_is_copied_from_exemplars_of_the_same_label() -> None:
    words = ("amber", "cobalt", "ivory", "scarlet")
    shares = {}
    for copying in (0.0, 0.2, 0.6):
        made = notes(copying, NOTES)
        assert [row["label"] for row in made] == list(CLINIC.labels) * 40
        found = [{w for w in words if w in row["text"]} for row in made]
        assert all(f <= {words[CLINIC.labels.index(row["label"])]} for f, row in zip(found, made, strict=True))
        shares[copying] = sum(map(bool, found)) / len(made)
    assert shares[0.0] == 0
    assert 0.3 < shares[0.2] < 0.9 < shares[0.6]


def test_a_label_without_exemplar_has_nothing_to_copy() -> None:
    made = notes(1.0, {y: t for y, t in NOTES.items() if y != "grade_2"})
    assert not any("camel" in row["text"] for row in made if row["label"] == "grade_2")
    assert all("camel" in row["text"] or "lamp" in row["text"] for row in made if row["label"] != "grade_2")


def test_copied_sentences_pass_the_gate_for_copies(tmp_path: Path) -> None:
    gold = load_gold(CLINIC, n_train=80, n_validation=4, n_test=4)["train"]
    with running_simulator(faults=Faults(copying=0.5)) as url:
        rows = generate(CLINIC, gold, LLM("simulator", base_url=url, journal=tmp_path / "j.sqlite"), 200)
    reasons = Counter(rows["reason"])
    assert reasons["as_generated"] == 200
    assert reasons["copied"] <= 10
