"""Generation: the questions, the parsing of any answer, and the rows made from answers."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from support.llm_server import LLMServer, Said, content, entries, serving

from hf_synth.cli.cli import main
from hf_synth.correction.transform import GenerateAndCorrect
from hf_synth.errors import ColumnError, EndpointError, LLMError
from hf_synth.generation.answers import parse
from hf_synth.generation.gates import Gates
from hf_synth.generation.generation import check_some, generate, generate_with_figures
from hf_synth.generation.label_words import normalize_label
from hf_synth.generation.plan import Call, Pool, plan_for_row
from hf_synth.generation.prompts import answer_schema, render
from hf_synth.generation.rows import rows_from_answer
from hf_synth.llm import calls
from hf_synth.llm.journal import Journal
from hf_synth.llm.llm import LLM
from hf_synth.llm.questions import Answer
from hf_synth.privacy.repetition import Seen
from hf_synth.task.columns import REASONS, access_of
from hf_synth.task.folders import read_export, write_stage
from hf_synth.task.labels import text_id
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Prompt, Task

CLINIC = load_task("clinic")
GRADES = CLINIC.labels
PAIRS = Task.from_columns(
    "pairs", text_columns=["premise", "hypothesis"], label_column="label", access="open",
    labels=["entailment", "contradiction", "neutral"],
)  # fmt: skip
SUMMARY = Task.from_columns(
    "summaries", text_columns="document", label_column="summary", kind="text2text", access="open"
)
FINDINGS = Task.from_columns(
    "findings", text_columns="text", label_column="labels", kind="multi_label", labels=["cough", "fever"], access="open"
)
KINDS = [CLINIC, PAIRS, SUMMARY, FINDINGS]


def gold_of(task: Task, n: int = 24) -> Dataset:
    """Write gold rows of a task; text and label of a row hold its number."""
    rows = []
    for i in range(n):
        label: Any = f"gold summary {i}" if not task.labels else task.labels[i % len(task.labels)]
        if task.kind == "multi_label":
            label = [label]
        texts = [f"Gold {column} number {i}\u2028of the ward." for column in task.text_columns]
        rows.append(task.gold_row(f"g{i}", None, label, *texts))
    names = task.gold_features()
    return Dataset.from_dict({c: [row[c] for row in rows] for c in names}, features=names)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_BACKOFF", 0.01)


@pytest.fixture
def writer() -> Iterator[LLMServer]:
    with serving(lambda request, _: Said(entries(request))) as server:
        yield server


def make(server: LLMServer, folder: Path, **more: Any) -> LLM:
    return LLM("m", base_url=server.url, journal=folder / "journal.sqlite", **more)


# --- what is asked --------------------------------------------------------------------------------------------------
def test_a_prompt_looks_as_the_design_says() -> None:
    prompt = Prompt(system="Be a writer.", instruction="Write notes.")
    task = dataclasses.replace(CLINIC, labels=("grade_0", "grade_1"), label_meanings=("none", "some"))
    shown = [{"text": 'He said "no".\nThen left\u2028.', "label": "grade_0"}, {"text": "Two", "label": 1}]
    system, user = render(task, prompt, shown, ["grade_0", "grade_1"], 5)
    assert system == {"role": "system", "content": "Be a writer."}
    assert user["content"] == (
        "Write notes.\n\n"
        "Labels:\n- grade_0: none\n- grade_1: some\n\n"
        'Examples:\n{"text": "He said \\"no\\".\\nThen left\\u2028.", "label": "grade_0"}\n'
        '{"text": "Two", "label": "grade_1"}\n\n'
        "Write 5 new entries for each of these labels: grade_0, grade_1.\n"
        'Answer with one JSON object and nothing else: {"entries": [{"text": "...", "label": "grade_0"}, ...]}'
    )


def test_a_prompt_without_labels_asks_for_pairs_of_text() -> None:
    user = render(SUMMARY, SUMMARY.prompt, [{"document": "d", "summary": "s"}], [], 2)[1]["content"]
    assert "Labels:" not in user
    assert "Write 2 new entries.\n" in user
    assert user.endswith('{"entries": [{"document": "...", "summary": "..."}, ...]}')
    assert "Write 1 new entry.\n" in render(SUMMARY, SUMMARY.prompt, [], [], 1)[1]["content"]


@given(
    st.lists(st.tuples(st.text(), st.sampled_from(GRADES)), max_size=4),
    st.lists(st.sampled_from(GRADES), min_size=1, unique=True),
)
def test_every_label_is_named_and_every_exemplar_is_one_line(shown: list[tuple[str, str]], asked: list[str]) -> None:
    rows = [{"text": text, "label": label} for text, label in shown]
    user = render(CLINIC, CLINIC.prompt, rows, asked)[1]["content"]
    assert f"labels: {', '.join(asked)}.\n" in user
    if rows:
        block = user.split("Examples:\n", 1)[1].split("\n\nWrite ", 1)[0]
        seen = [json.loads(line) for line in block.splitlines()]
        assert [r["label"] for r in seen] == [r["label"] for r in rows]
        assert [r["text"] for r in seen] == [r["text"].encode("utf-8", "replace").decode() for r in rows]


@pytest.mark.parametrize("task", KINDS, ids=lambda t: t.kind + t.name)
def test_the_schema_describes_what_is_parsed(task: Task) -> None:
    entry = answer_schema(task)["properties"]["entries"]["items"]
    assert set(entry["required"]) == {*task.text_columns, task.label_column}
    assert all(p.get("maxLength") or p.get("enum") or p.get("items") for p in entry["properties"].values())
    limited = answer_schema(task, 2)["properties"]["entries"]
    assert (limited.pop("minItems"), limited.pop("maxItems")) == (1, 2)
    assert limited == answer_schema(task)["properties"]["entries"]


# --- labels ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("grade_2", "grade_2"), ("Grade 2", "grade_2"), (" GRADE-2. ", "grade_2"), ("2", "grade_2"), (2, "grade_2"),
        (2.0, "grade_2"), ("grade2", "grade_2"), (["grade_2"], "grade_2"), ("grade 2 (symptomatic)", "grade_2"),
        ("Label: grade_2", "grade_2"), ("grade_2\n", "grade_2"),
        ("grade 7", None), ("7", None), (7, None), ("grade 2-3", None), ("grade_2 or grade_3", None), ("", None),
        (None, None), ({}, None), ([], None), (True, None), ("not grade_2", None), ("grade", None), (2.5, None),
        (float("nan"), None), ("grade_2" * 100, None),
    ],
)  # fmt: skip
def test_labels_are_understood_where_only_one_fits(said: object, meant: str | None) -> None:
    assert normalize_label(CLINIC, said) == meant


def test_labels_that_hold_each_other_are_told_apart() -> None:
    task = dataclasses.replace(PAIRS, labels=("relevant", "not relevant", "C", "C+"))
    for said, meant in (("Relevant", "relevant"), ("Not_Relevant", "not relevant"), ("C+", "C+"), ("C", "C")):
        assert normalize_label(task, said) == meant
    assert normalize_label(task, "c") is None
    merged = dataclasses.replace(PAIRS, labels=("grade_0_1", "grade_2_3"))
    assert [normalize_label(merged, x) for x in ("2", "grade 2", "grade_2_3", "Grade 2-3")] == [
        None, None, "grade_2_3", "grade_2_3",
    ]  # fmt: skip


@given(st.sampled_from(GRADES), st.sampled_from([str.upper, str.title, str.lower]), st.sampled_from(" _-."))
def test_case_and_spaces_of_a_label_do_not_matter(label: str, case: Callable[[str], str], gap: str) -> None:
    assert normalize_label(CLINIC, f"  {case(label.replace('_', gap))}{gap} ") == label


# --- what is read ---------------------------------------------------------------------------------------------------
NOTE = "Swallows soft food only since Monday."
GOOD = {"text": NOTE, "label": "grade_2"}
ONE = json.dumps(GOOD)
REPAIRABLE = "{'entries': [{'text': 'Swallows soft food only since Monday.', 'label': 'grade_2',},]}"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"entries": [GOOD]}),
        json.dumps([GOOD]),
        ONE,
        f"Sure! Here it is:\n```json\n{json.dumps({'entries': [GOOD]}, indent=2)}\n```\nAnything else?",
        f"<think>They want {{a note}}. [ok]</think>\n{ONE}",
        f"[note] {ONE}",
        REPAIRABLE,
        f"```json\n{REPAIRABLE}\n```",
        json.dumps({"grade_2": [NOTE]}),
        json.dumps({"data": {"entries": [GOOD]}}),
        json.dumps({"entries": [{"Text": f" {NOTE} ", "LABEL": 2, "why": "pain"}]}),
        f"text | label\n--- | ---\n| {NOTE} | Grade 2 |",
        f"Note: {NOTE}\nLabel: grade 2\n",
        f"**Note 1:** {NOTE}\n**Label:** Grade 2\n\nI hope that this helps.",
        '{"entries": [{"text": "Swallows soft food only since Monday.", "label": "grade_2"}, {"text": "Cut he',
        f"{ONE}\n{{broken",
    ],
)
def test_many_forms_are_read(text: str) -> None:
    assert [p.row for p in parse(CLINIC, text) if p.row] == [GOOD]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"), ("  \n", "empty"), ("I'm sorry, but I can't help with that.", "refusal"),
        ("I cannot generate clinical notes.", "refusal"), ("As an AI language model, no.", "refusal"),
        ("Patient is well today.", "unparsable"), ("{}", "unparsable"), ('{"entries": []}', "unparsable"),
        ("[1, 2, null]", "unparsable"), ('{"text": "Swallows well today"}', "unknown_label"),
        ('{"text": "Swallows well today", "label": "grade_9"}', "unknown_label"),
        ('{"text": null, "label": "grade_1"}', "empty"), ('{"text": " . ", "label": "grade_1"}', "empty"),
        ('{"text": "I\'m sorry, I cannot write this.", "label": "grade_1"}', "refusal"),
        ('{"text": ["a"], "label": "grade_1"}', "empty"), ("[" * 50_000, "unparsable"), ('{"a":' * 9_000, "unparsable"),
    ],
)  # fmt: skip
def test_rejects_keep_their_reason(text: str, reason: str) -> None:
    assert [(p.row, p.reason) for p in parse(CLINIC, text)] == [(None, reason)]


def test_a_cut_answer_gives_its_complete_entries_only() -> None:
    cut = json.dumps({"entries": [GOOD, {"label": "grade_1", "text": "Cut here and never finished"}]})[:-20]
    found = parse(CLINIC, cut, whole=False)
    assert [p.row for p in found] == [GOOD, None]
    assert found[1].reason == "truncated"
    label_first = '{"entries": [{"label": "grade_1", "text": "Cut here and ne'
    assert [p.reason for p in parse(CLINIC, label_first, whole=False)] == ["truncated"]
    assert [p.row for p in parse(CLINIC, label_first)] == [None]  # nor when the endpoint does not say that it cut


def test_one_answer_cannot_flood_the_rows() -> None:
    assert len(parse(CLINIC, "a|grade_1\n" * 20_000)) == 500


def test_a_missing_label_is_the_only_one_that_was_asked_for() -> None:
    text = json.dumps({"entries": [{"text": NOTE}]})
    assert parse(CLINIC, text, ["grade_2"])[0].row == GOOD
    assert parse(CLINIC, text, ["grade_2", "grade_3"])[0].reason == "unknown_label"


def test_other_kinds_of_task_are_read() -> None:
    pair = {"premise": "He eats well.", "hypothesis": "He cannot eat.", "label": "contradiction"}
    assert parse(PAIRS, json.dumps([pair | {"label": "Contradiction."}]))[0].row == pair
    assert parse(PAIRS, "Premise: He eats well.\nHypothesis: He cannot eat.\nLabel: contradiction")[0].row == pair
    assert parse(PAIRS, "He eats well. | He cannot eat. | contradiction")[0].row == pair
    assert parse(PAIRS, json.dumps([{**pair, "hypothesis": ""}]))[0].reason == "empty"
    document = {"document": "A long\nnote of the ward.", "summary": "pain;\nfever"}
    assert parse(SUMMARY, json.dumps(document))[0].row == document
    assert parse(SUMMARY, "Document: A long\nnote of the ward.\nSummary: pain;\nfever")[0].row == document
    for said, labels in ((["Fever", "cough"], ["cough", "fever"]), ("fever; cough", ["cough", "fever"]), ([], [])):
        assert parse(FINDINGS, json.dumps({"text": NOTE, "labels": said}))[0].row == {"text": NOTE, "labels": labels}
    assert parse(FINDINGS, json.dumps({"text": NOTE, "labels": ["fever", "rash"]}))[0].reason == "unknown_label"


def test_a_task_may_bring_its_own_parser() -> None:
    def own(text: str) -> list[dict[str, str]]:
        return [{"text": t, "label": "2"} for t in text.split("##") if t] if "##" in text else [{}["no"]]

    task = dataclasses.replace(CLINIC, parse=own)
    assert parse(task, f"{NOTE}##Another note.")[0].row == GOOD
    assert [p.reason for p in parse(task, "no mark")] == ["unparsable"]


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["text", "label", "entries", "premise", "labels", "grade_2", "x"]), inner)
    ),
    max_leaves=12,
)
PIECES = st.lists(
    st.sampled_from(['{"text": "', '", "label": "', "grade_2", '"}', "[", "]", "{", "}", "|", "\n", "Note:", "Label: 2",
                     "```", "\\", "\ud800", "\x00", "a b c", ",", '"entries"', ":", "'"]), max_size=40,
).map("".join)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(st.text(), st.binary().map(lambda b: b.decode("latin-1")), JSON.map(json.dumps), PIECES), st.booleans()
)
def test_nothing_makes_the_parser_raise(text: str, whole: bool) -> None:
    for task in KINDS:
        found = parse(task, text, task.labels[:1], whole=whole)
        assert found
        for p in found:
            assert (p.row is None) == (p.reason in REASONS)
            if p.row:
                assert set(p.row) == {*task.text_columns, task.label_column}
                json.dumps(p.row, ensure_ascii=False).encode()  # storable


# --- exemplars ------------------------------------------------------------------------------------------------------
def test_every_exemplar_is_shown_once_before_any_comes_again() -> None:
    gold = gold_of(CLINIC, 40)
    pool = Pool(CLINIC, gold)
    for fold in range(5):
        for lap in (0, 2, 4):
            shown = [p for start in (lap, lap + 1) for p in pool.turn("grade_1", fold, start, 1)]
            assert len(set(shown)) == 2
            assert {pool.fold_of(gold[p]) for p in shown} == {fold}
        assert pool.turn("grade_9", fold, 0, 3) == []
    assert sorted(p for fold in range(5) for p in pool.turn("grade_1", fold, 7, 9)) == pool.by_label["grade_1"]
    assert sorted(p for fold in range(5) for p in pool.turn("", fold, 5, 100)) == list(range(40))


def test_rows_without_text_or_label_are_not_shown() -> None:
    rows = gold_of(CLINIC, 8).to_list()
    rows[0]["label"], rows[1]["text"] = None, None
    pool = Pool(CLINIC, Dataset.from_list(rows, features=CLINIC.gold_features()))
    assert sorted(pool.by_label[""]) == list(range(2, 8))


@pytest.mark.parametrize(
    ("shape", "asks", "count"),
    [("one_per_label", "every_label", 4), ("mixed", "every_label", 3), ("same_label", "one_label", 3)],
)
def test_a_plan_for_a_row_shows_that_row(shape: Any, asks: Any, count: int) -> None:
    prompt = dataclasses.replace(CLINIC.prompt, exemplars=shape, asks_for=asks, n_exemplars=1 if count == 4 else 3)
    gold = gold_of(CLINIC, 60)
    call = plan_for_row(CLINIC, prompt, gold[6], gold, 2)
    pool = Pool(CLINIC, gold)
    assert {pool.fold_of(row) for row in gold if row["id"] in call.seed_ids} == {call.fold}, "all of the row's own fold"
    assert call == plan_for_row(CLINIC, prompt, gold[6], Pool(CLINIC, gold), 2)
    assert call.labels == ("grade_2",)
    assert "g6" in call.seed_ids
    assert len(set(call.seed_ids)) == len(call.seed_ids) == count
    assert "Write 2 new entries for each of these labels: grade_2.\n" in call.messages[1]["content"]
    with pytest.raises(ColumnError):
        plan_for_row(CLINIC, prompt, gold[6] | {"label": None}, gold)
    pair = gold_of(PAIRS)[1]
    assert plan_for_row(PAIRS, PAIRS.prompt, pair, gold_of(PAIRS)).labels == ("contradiction",)
    text = plan_for_row(SUMMARY, SUMMARY.prompt, gold_of(SUMMARY)[1], gold_of(SUMMARY), 3)
    assert (text.labels, text.rows) == ((), 3)


# --- rows -----------------------------------------------------------------------------------------------------------
def rows_of(text: str, *, status: Any = "ok", code: str = "stop", seen: Seen | None = None) -> list[Any]:
    call = Call(0, [{"role": "user", "content": "x"}], GRADES, 2, ("g1",))
    answer = Answer(text, status, code, model="m-served", journal_key="k", created=1e9)
    gates = Gates(CLINIC, Pool(CLINIC, gold_of(CLINIC)))
    return rows_from_answer(CLINIC, call, answer, "open", gates, seen or Seen(), '{"top_p": 0.9}')


def test_rows_carry_where_they_come_from() -> None:
    (row,) = rows_of(ONE)
    assert set(row) == set(CLINIC.synthetic_features())
    assert (row["text"], row["label"], row["llm_label"], row["label_status"]) == (NOTE, 2, 2, "kept")
    assert (row["seed_ids"], row["generator"], row["journal_key"]) == (["g1"], "m-served", "k")
    assert (row["sampling"], row["created"]) == ('{"top_p": 0.9}', "2001-09-09T01:46:40+00:00")
    assert row["id"] == row["group"] == rows_of(ONE)[0]["id"]
    assert re.fullmatch("clinic-syn-[0-9a-f]{16}", row["id"])


@pytest.mark.parametrize(
    ("text", "status", "code", "reasons"),
    [
        ("", "error", "timeout", ["llm_error"]),
        ("", "error", "budget", ["budget"]),
        ("no", "refusal", "content_filter", ["refusal"]),
        ('{"entries": [{"tex', "truncated", "length", ["truncated"]),
        (json.dumps([GOOD, GOOD]), "ok", "stop", ["as_generated", "duplicate"]),
        (json.dumps([GOOD, {**GOOD, "text": NOTE.upper() + " !"}]), "ok", "stop", ["as_generated", "duplicate"]),
        (json.dumps([{**GOOD, "text": "Esophagitis grade 2 today."}]), "ok", "stop", ["label_leak"]),
        (json.dumps([{**GOOD, "text": f"note {x}"} for x in "abc"]), "ok", "stop", ["as_generated"] * 2),
    ],
)
def test_gates(text: str, status: str, code: str, reasons: list[str]) -> None:
    rows = rows_of(text, status=status, code=code)
    assert [r["reason"] for r in rows] == reasons
    for row in rows:
        rejected = row["reason"] != "as_generated"
        assert (row["label_status"] == "rejected") is rejected
        assert (row["text"] is None) is (row["label"] is None) is (row["llm_label"] is None) is rejected
    Dataset.from_list(rows, features=CLINIC.synthetic_features())


def test_gold_is_not_repeated() -> None:
    seen = Seen()
    assert seen.repeat((NOTE.lower(),)) is None
    assert rows_of(ONE, seen=seen)[0]["reason"] == "duplicate"
    copy = {"text": gold_of(CLINIC)[2]["text"].upper(), "label": "grade_2"}
    assert rows_of(json.dumps({"entries": [copy]}))[0]["reason"] == "duplicate"


# --- generate -------------------------------------------------------------------------------------------------------
def test_generate_gives_balanced_rows_of_the_contract(writer: LLMServer, tmp_path: Path) -> None:
    made = generate(CLINIC, gold_of(CLINIC), make(writer, tmp_path), 70)
    assert made.features == CLINIC.synthetic_features()
    assert len(made) == 70
    assert max(Counter(made["label"]).values()) - min(Counter(made["label"]).values()) <= 1
    assert len(set(made["id"])) == 70
    assert access_of(made) == "open"
    assert set(made["label_status"]) == {"kept"}
    assert made["label"] == made["llm_label"]
    assert len(writer.requests) == 4
    assert all(len(ids) == 4 for ids in made["seed_ids"])
    for request in writer.requests:
        assert request["temperature"] == 0.9
        assert request["response_format"]["type"] == "json_schema"
    assert len({r["seed"] for r in writer.requests}) == 4


def test_rows_are_as_strict_as_the_notes_that_the_llm_learnt(writer: LLMServer, tmp_path: Path) -> None:
    class Learnt(LLM):
        access = "restricted"

    told = make(writer, tmp_path)
    learnt = Learnt(told.model, base_url=told.base_url, api_key="none", journal=tmp_path / "j.sqlite")
    made = generate(CLINIC, gold_of(CLINIC), learnt, 20)
    assert set(made["access"]) == {"restricted"}
    paired = gold_of(CLINIC, 2).map(GenerateAndCorrect(CLINIC, learnt, exemplars=gold_of(CLINIC)))
    assert set(paired["access"]) == {"restricted"}


@pytest.mark.parametrize("task", KINDS, ids=lambda t: t.kind + t.name)
def test_every_kind_of_task_is_generated(task: Task, tmp_path: Path) -> None:
    def answer(request: dict[str, Any], number: int) -> Said:
        rows = [
            {c: f"Made {c} {number}-{i}." for c in task.text_columns}
            | {task.label_column: "a target" if not task.labels else task.labels[i % len(task.labels)]}
            for i in range(8)
        ]
        return Said(json.dumps({"entries": rows}))

    with serving(answer) as server:
        made = generate(task, gold_of(task), make(server, tmp_path), 6)
    assert made.features == task.synthetic_features()
    assert list(made["label_status"]) == ["kept"] * 6


def test_the_same_seed_gives_the_same_rows_without_a_call(writer: LLMServer, tmp_path: Path) -> None:
    first = generate(CLINIC, gold_of(CLINIC), make(writer, tmp_path), 60)
    asked = len(writer.requests)
    assert generate(CLINIC, gold_of(CLINIC), make(writer, tmp_path, concurrency=2), 60).to_list() == first.to_list()
    assert len(writer.requests) == asked
    longer = generate(CLINIC, gold_of(CLINIC), make(writer, tmp_path), 100)
    assert longer.to_list()[:60] == first.to_list()
    assert len(writer.requests) == asked + 2
    other = generate(CLINIC, gold_of(CLINIC), make(writer, tmp_path), 60, seed=1)
    assert other["seed_ids"] != first["seed_ids"]


PLAN = """
from support.clinic_rows import clinic_gold
from hf_synth.generation.plan import Plan, Pool
from hf_synth.task.scripts import load_task
task = load_task("clinic")
made = Plan(task, task.prompt, Pool(task, clinic_gold(task, [0, 1, 2, 3] * 6), seed=3), 5)
print([made.call(task.labels, j).seed_ids for j in range(9)])
"""


def test_the_plan_is_the_same_in_another_process(capsys: pytest.CaptureFixture[str]) -> None:
    env = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    there = subprocess.run([sys.executable, "-c", PLAN], check=True, capture_output=True, text=True, env=env).stdout
    exec(PLAN, {})
    assert capsys.readouterr().out == there
    assert "[" in there


def test_rejects_are_made_up_for_and_kept(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], number: int) -> Said:
        faults = [Said("I'm sorry, I can't."), Said("nonsense"), Said(status=400)]
        seed = request["seed"]
        return Said(entries(request)) if seed % 3 else faults[seed // 3 % 3]

    with serving(answer) as server:
        made = generate(CLINIC, gold_of(CLINIC), make(server, tmp_path), 300)
        calls = {r["seed"] for r in server.requests}
        assert 15 < len(calls) <= 45
    counts = Counter(made["label_status"])
    assert counts["kept"] == 300
    rejected = Counter(r for s, r in zip(made["label_status"], made["reason"], strict=True) if s == "rejected")
    assert set(rejected) <= {"refusal", "unparsable", "llm_error"}
    assert rejected.total() > 3
    assert len(set(made["journal_key"])) == 15 + rejected.total()  # all rejects of the calls up to the last good row


def test_an_endpoint_that_only_refuses_is_not_asked_for_ever(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(lambda *_: Said("I'm sorry, I can't help with that.")) as server:
        made = generate(CLINIC, gold_of(CLINIC), make(server, tmp_path), 40)
        assert len(server.requests) == 6
    assert Counter(made["reason"]) == {"refusal": 6}
    assert made["text"] == [None] * 6
    assert "0 of 40 rows" in caplog.text


def test_a_copied_example_is_a_duplicate(tmp_path: Path) -> None:
    def parrot(request: dict[str, Any], _: int) -> Said:
        lines = content(request).split("Examples:\n")[1].split("\n\n")[0].splitlines()
        return Said(json.dumps({"entries": [json.loads(line) for line in lines]}))

    with serving(parrot) as server:
        made = generate(CLINIC, gold_of(CLINIC), make(server, tmp_path), 4)
    assert set(made["reason"]) == {"duplicate"}


def test_a_spent_budget_leaves_rejects(writer: LLMServer, tmp_path: Path) -> None:
    llm = make(writer, tmp_path, budget_usd=2.5, price=(0.0, 50_000.0))
    prompt = dataclasses.replace(CLINIC.prompt, sampling=(("max_tokens", 20),))
    made = generate(CLINIC, gold_of(CLINIC), llm, 100, prompt=prompt)
    assert Counter(made["reason"]) == {"as_generated": 40, "budget": 3}
    assert len(writer.requests) == 2


def test_one_label_a_call(writer: LLMServer, tmp_path: Path) -> None:
    prompt = dataclasses.replace(CLINIC.prompt, exemplars="same_label", asks_for="one_label", n_exemplars=2, rows=3)
    made = generate(CLINIC, gold_of(CLINIC), make(writer, tmp_path), 24, prompt=prompt)
    assert Counter(made["label"]) == {0: 6, 1: 6, 2: 6, 3: 6}
    gold = dict(zip(gold_of(CLINIC)["id"], gold_of(CLINIC)["label"], strict=True))
    assert all({gold[i] for i in ids} == {label} for ids, label in zip(made["seed_ids"], made["label"], strict=True))


def test_few_rows_ask_for_few(writer: LLMServer, tmp_path: Path) -> None:
    assert len(generate(CLINIC, gold_of(CLINIC), make(writer, tmp_path), 3)) == 3
    assert "Write 1 new entry for each" in writer.asked()[0]
    none = generate(CLINIC, gold_of(CLINIC), make(writer, tmp_path), 0)
    assert none.features == CLINIC.synthetic_features()
    assert len(writer.requests) == 1


def test_a_label_without_gold_is_still_asked_for(writer: LLMServer, tmp_path: Path) -> None:
    gold = gold_of(CLINIC).filter(lambda label: label != 3, input_columns="label")
    made = generate(CLINIC, gold, make(writer, tmp_path), 20)
    assert Counter(made["label"])[3] == 5


def test_gold_without_ids_gets_those_of_its_texts(writer: LLMServer, tmp_path: Path) -> None:
    gold = gold_of(CLINIC)
    made = generate(CLINIC, gold.remove_columns("id"), make(writer, tmp_path), 8)
    shown = {i for ids in made["seed_ids"] for i in ids}
    assert len(shown) == 4
    assert shown <= {text_id(CLINIC, row) for row in gold}


def test_bad_exemplars_are_one_sentence(writer: LLMServer, tmp_path: Path) -> None:
    llm = make(writer, tmp_path)
    for wrong in (gold_of(CLINIC).select([]), gold_of(CLINIC).remove_columns("text"), gold_of(PAIRS)):
        with pytest.raises(ColumnError):
            generate(CLINIC, wrong, llm, 4)
    assert not writer.requests


def test_restricted_gold_stays_here(tmp_path: Path) -> None:
    llm = LLM("m", base_url="https://8.8.8.8/v1", api_key="k", journal=tmp_path / "j.sqlite")
    without = gold_of(CLINIC).remove_columns("access")
    with pytest.raises(EndpointError):
        generate(CLINIC, without, llm, 4)
    with serving(lambda request, _: Said(entries(request))) as server:
        assert access_of(generate(CLINIC, without, make(server, tmp_path), 4)) == "credentialed"


def test_the_journal_lies_beside_the_gold(writer: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    gold = read_export(write_stage(CLINIC, gold_of(CLINIC), tmp_path / "here" / "gold", stage="gold"))["train"]
    generate(CLINIC, gold, LLM("m", base_url=writer.url), 4)
    assert len(Journal(tmp_path / "here" / "gold" / ".hf_synth" / "journal.sqlite")) == 1
    generate(CLINIC, gold_of(CLINIC), LLM("m", base_url=writer.url), 4)
    assert len(Journal(tmp_path / ".hf_synth" / "journal.sqlite")) == 1


def test_no_text_in_logs_or_errors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    canary = "CANARY-77aa"
    gold = gold_of(CLINIC).map(lambda row: {"text": f"{canary} {row['text']}"})
    caplog.set_level(logging.DEBUG)
    said = ""
    for reply in (Said(canary), Said(json.dumps([{"text": canary, "label": canary}])), Said(status=401)):
        with serving(lambda *_, reply=reply: reply) as server:
            try:
                generate(CLINIC, gold, make(server, tmp_path / reply.text[:3] / str(reply.status)), 4)
            except LLMError as error:
                said += str(error)
    assert "401" in said
    assert canary not in caplog.text + said


# --- labels in other words, and JSON in strings ----------------------------------------------------------------------
NEGATED = dataclasses.replace(PAIRS, labels=("fracture", "pneumonia", "severe", "no", "œdème aigu"))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("fracture not seen", None), ("pneumonia ruled out", None), ("severe? not really", None), ("severe?", None),
        ("no information", None), ("no fracture", None), ("fracture, if at all", None), ("fracture (excluded)", None),
        ("Fracture: unlikely", None), ("fracture risk", None), ("pneumonia isn't there", None), ("severe, maybe", None),
        ("fracture or pneumonia", None), ("pneumonia - suspected", None), ("fracture vs contusion", None),
        ("Fracture (of the left wrist)", "fracture"), ("severe, since the patient was admitted", "severe"),
        ("No.", "no"), ("no - nothing of the kind is stated", "no"), ("severe (0.9)", "severe"),
        ("'Severe'.", "severe"),
        ("label: severe", "severe"), ("**Label:** severe", "severe"), ("severe (95%)", "severe"),
        ("œde\u0300me aigu", "œdème aigu"),
        ("severe (30%)", None), ("severe (0.2)", None), ("severe (low confidence)", None), ("fracture, likely", None),
        ("no, unless it was missed", None), ("fracture - I am guessing", None), ("fracture ❌", None),
        ("fracture: 0", None), ("fracture: N", None), ("fracture (neg.)", None), ("fracture (-)", None),
        ("fracture-free", None), ("¬fracture", None), ("~fracture", None), ("> severe", None),
        ("fracture: nein", None), ("fracture, aber unsicher", None), ("fracture, fraglich", None),
        ("fracture - kein Hinweis", None), ("fracture (wahrscheinlich)", None), ("fracture: Verdacht", None),
        ("fracture : non", None), ("fracture (peu probable)", None), ("fracture - incertaine", None),
        ("fracture, exclue", None), ("fracture (aucune)", None), ("fracture, peut-être", None),
        ("fracture (descartada)", None), ("fracture: nunca", None), ("fracture, quizás", None),
        ("fracture - ausente", None), ("fracture (posible)", None), ("fracture, tal vez", None),
        ("fracture (non-displaced, of the left wrist)", "fracture"), ("pneumonia - with a low fever", "pneumonia"),
        ("fracture (free fragment)", "fracture"), ("severe (score 10)", "severe"), ("fracture - clearly", "fracture"),
    ],
)  # fmt: skip
def test_a_label_in_other_words_is_no_label(said: str, meant: str | None) -> None:
    assert normalize_label(NEGATED, said) == meant


def test_a_plus_after_a_number_is_a_part_of_it() -> None:
    strips = dataclasses.replace(PAIRS, labels=("0", "1+", "2+"))
    assert [normalize_label(strips, x) for x in ("2+", "2 +", "2", "(1+)")] == ["2+", None, None, "1+"]
    assert normalize_label(CLINIC, "grade 2+") is None


def test_signs_before_numbers_decide() -> None:
    grades = dataclasses.replace(PAIRS, labels=("-1", "0", "1", "> 1"))
    said = {
        "label: -1": "-1",
        "-1": "-1",
        -1: "-1",
        "1": "1",
        "> 1": "> 1",
        ">1": "> 1",
        "label: > 1": "> 1",
        "<1": None,
    }
    assert {x: normalize_label(grades, x) for x in said} == said
    assert normalize_label(CLINIC, "> 2") is None


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(json.dumps({"entries": [GOOD]})),
        json.dumps({"entries": json.dumps([GOOD])}),
        json.dumps({"entries": [json.dumps(GOOD)]}),
        json.dumps({"answer": f"```json\n{ONE}\n```"}),
        json.dumps({"entries": [GOOD]}).replace('"', '\\"'),
        f"{ONE}\n\nNote: all patients are invented.",
    ],
)
def test_json_in_a_string_is_read(text: str) -> None:
    assert [p.row for p in parse(CLINIC, text) if p.row] == [GOOD]


# --- failure is failure ---------------------------------------------------------------------------------------------
def test_a_server_that_said_nothing_for_an_hour_does_no_harm_for_good(tmp_path: Path) -> None:
    """Empty answers use up no call: the same command against the mended server brings all rows."""
    mended: list[int] = []
    with serving(lambda request, _: Said(entries(request) if mended else "")) as server:
        task, gold = CLINIC, gold_of(CLINIC)
        first = generate(task, gold, make(server, tmp_path), 20, max_calls=4)
        assert {row["reason"] for row in first} == {"empty"}
        asked = len(server.requests)
        mended.append(1)
        rows = generate(task, gold, make(server, tmp_path), 20, max_calls=4)
        assert Counter(rows["label_status"])["kept"] == 20
        assert len(server.requests) > asked
        again = len(server.requests)
        assert generate(task, gold, make(server, tmp_path), 20, max_calls=4)["text"] == rows["text"]
        assert len(server.requests) == again


def test_rows_of_a_cut_answer_stay_what_they_are(tmp_path: Path) -> None:
    """A cut answer of which rows came is not asked for again: its rows have their ids from its key."""
    texts: list[str] = []

    def cut(request: dict[str, Any], number: int) -> Said:
        texts.append(entries({**request, "seed": number}))  # a server that heeds no seed
        return Said(texts[-1][: len(texts[-1]) // 2], finish="length")

    with serving(cut) as server:
        rows = generate(CLINIC, gold_of(CLINIC), make(server, tmp_path), 20, max_calls=12)
        kept = {row["id"]: row["text"] for row in rows if row["label_status"] == "kept"}
        assert len(kept) == 20
        asked = len(server.requests)
        again = generate(CLINIC, gold_of(CLINIC), make(server, tmp_path), 20, max_calls=12)
        assert {row["id"]: row["text"] for row in again if row["label_status"] == "kept"} == kept
        assert len(server.requests) == asked


def test_empty_answers_use_up_no_calls_and_come_to_an_end(tmp_path: Path) -> None:
    prompt = dataclasses.replace(CLINIC.prompt, asks_for="one_label", rows=1)
    with serving(lambda request, n: Said("" if n % 2 else entries(request))) as server:
        llm = make(server, tmp_path, concurrency=1)
        rows = generate(CLINIC, gold_of(CLINIC), llm, 12, prompt=prompt, max_calls=12)
        assert Counter(rows["label_status"])["kept"] == 12
    with serving(lambda *_: Said("")) as server:
        llm = make(server, tmp_path / "other", concurrency=1)
        rows = generate(CLINIC, gold_of(CLINIC), llm, 12, prompt=prompt, max_calls=12)
        assert len(server.requests) == 24  # as many again at most
        assert set(rows["reason"]) == {"empty"}


def test_refusals_are_counted_by_label(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prompt = dataclasses.replace(CLINIC.prompt, asks_for="one_label", rows=1)
    flagged = json.dumps({"error": {"code": 403, "message": "flagged by moderation"}}).encode()

    def moderated(request: dict[str, Any], _: int) -> Said:
        return Said(status=403, body=flagged) if "labels: grade_3" in content(request) else Said(entries(request))

    with serving(moderated) as server:
        how: dict[str, Any] = {"prompt": prompt, "max_calls": 16}
        rows, figures = generate_with_figures(CLINIC, gold_of(CLINIC), make(server, tmp_path), 8, **how)
    assert Counter(rows["label_status"])["kept"] == 6
    assert figures["refused_by_label"] == {"grade_3": figures["refused"]}
    assert figures["refused"] == Counter(rows["reason"])["refusal"] > 0
    assert f"by label: grade_3 {figures['refused']}" in caplog.text


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said("no notes for you"), "no note was made: .*does not keep to the form"),
        (Said(""), "no note was made: .*max_tokens"),
        (Said(status=402), r"credits .* are spent \(402\)"),
        (Said(body=b"<html>log in</html>"), "web page"),
        (Said(status=403, body=b'{"error": {"message": "flagged"}}'), "no note was made: .*declines"),
    ],
)
def test_no_note_is_exit_1_with_the_cause(
    said: Said, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(lambda *_: said) as server:
        argv = ["generate", "clinic", "--llm", "m", "--base-url", server.url, "--n", "8", "--max-calls", "3", "-q"]
        assert main([*argv, "--out", str(tmp_path / "syn")]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(words, error)
    assert not (tmp_path / "syn").exists()


@pytest.mark.parametrize(
    ("reason", "code", "words"),
    [
        ("llm_error", "timeout", r"no answer came \(timeout\), 3 of 3 times; raise --timeout"),
        ("llm_error", "http_400", r"no answer came \(http_400\), 3 of 3 times; the server's own log says why"),
        ("truncated", "", "raise --max-tokens .*, or ask for fewer"),
        ("unknown_label", "", "the model gives other labels"),
        ("budget", "", "raise it$"),
        ("copied", "", "3 of 3 times$"),
    ],
)
def test_the_cause_of_no_note_says_what_to_do(reason: str, code: str, words: str) -> None:
    rows = Dataset.from_dict({"label_status": ["rejected"] * 3, "reason": [reason] * 3})
    with pytest.raises(LLMError, match=words) as caught:
        check_some(rows, {"failures": {code: 3} if code else {}})
    assert str(caught.value).startswith("no note was made: ")
    check_some(Dataset.from_dict({"label_status": ["kept", "rejected"], "reason": ["", reason]}))
    check_some(Dataset.from_dict({"label_status": [], "reason": []}))


@pytest.mark.parametrize(("asks_for", "most"), [("one_label", 3), ("every_label", 3 * len(CLINIC.labels))])
def test_a_server_of_this_process_is_held_to_the_entries_that_are_asked_for(
    writer: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asks_for: Any, most: int
) -> None:
    """A small model goes on with entries; other endpoints may refuse a schema that limits them."""
    prompt = dataclasses.replace(CLINIC.prompt, asks_for=asks_for, rows=3)

    def limits(folder: str) -> set[tuple[Any, Any]]:
        before = len(writer.requests)
        generate(CLINIC, gold_of(CLINIC), make(writer, tmp_path / folder), 12, prompt=prompt)
        schemas = [r["response_format"]["json_schema"]["schema"] for r in writer.requests[before:]]
        return {(e.get("minItems"), e.get("maxItems")) for e in (s["properties"]["entries"] for s in schemas)}

    assert limits("other") == {(None, None)}
    monkeypatch.setattr(LLM, "weights", object())
    assert limits("own") == {(1, most)}
