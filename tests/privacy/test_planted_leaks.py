"""Planted copies are found in every disguise, clean notes are not flagged, and no finding shows text."""

from __future__ import annotations

import json
import logging
import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset, load_dataset
from support.audit_texts import (
    CANARY,
    DISGUISES,
    PAIR,
    TASK,
    WORDS,
    copied,
    hyphenated,
    notes,
    pairs_of,
    rows_of,
)

from hf_synth.cli.cli import main
from hf_synth.errors import ColumnError, HfSynthError, MissingExtraError, RowError
from hf_synth.privacy.audit import audit
from hf_synth.privacy.canaries import Canaries, make_canaries, plant, sentence
from hf_synth.privacy.findings import FLAGS, with_findings
from hf_synth.privacy.identifiers import IDENTIFIERS, identifiers_in, presidio_finder
from hf_synth.privacy.report import audit_markdown, audit_page
from hf_synth.task.folders import write_stage
from hf_synth.task.task import Task

GOLD, CLEAN = notes(300, 1), notes(200, 2)


@pytest.fixture(scope="module")
def gold() -> Dataset:
    return rows_of(TASK, GOLD)


# --- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", DISGUISES)
def test_a_disguised_copy_is_found_every_time(how: str, gold: Dataset) -> None:
    rng = random.Random(how)
    planted = [DISGUISES[how](rng, text) for text in GOLD[:60]]
    found = audit(TASK, rows_of(TASK, [*CLEAN[:60], *planted], "synthetic"), gold=gold)
    assert not any(copied(found)[:60])
    assert all(copied(found)[60:])
    assert set(range(60, 120)) <= set(found.refused)
    assert found.verdict == "refuse"


@pytest.mark.parametrize("how", ["as it is", "hyphens", "look-alikes", "no spaces"])
def test_40_words_of_one_patient_in_another_note_are_found_every_time(how: str) -> None:
    rng = random.Random(how)
    own = [" ".join(rng.choices(WORDS, k=80)) for _ in range(60)]
    disguise = {"as it is": str, "hyphens": hyphenated, "no spaces": lambda t: t.replace(" ", ""),
                "look-alikes": lambda t: DISGUISES["look-alikes"](rng, t)}[how]  # fmt: skip
    planted = []
    for host, text in zip(CLEAN, own, strict=False):
        words, at, start = host.split(), rng.randrange(60), rng.randrange(40)
        planted.append(" ".join([*words[:at], disguise(" ".join(text.split()[start : start + 40])), *words[at:]]))
    found = audit(TASK, rows_of(TASK, planted, "synthetic"), gold=rows_of(TASK, [*GOLD, *own]))
    assert all("copied_span" in flags for flags in found.row_flags)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_note_split_over_two_columns_is_found(swapped: bool) -> None:
    halves = [(" ".join(t.split()[:55]), " ".join(t.split()[55:])) for t in GOLD[:50]]
    left, right = ([h[i] for h in halves] for i in ((1, 0) if swapped else (0, 1)))
    gold = pairs_of(GOLD, ["" for _ in GOLD])
    found = audit(PAIR, pairs_of([*left, *CLEAN[:50]], [*right, *CLEAN[50:100]], "synthetic"), gold=gold)
    assert all(copied(found)[:50])
    assert not any(copied(found)[50:])
    assert all("copy_of_gold" in flags for flags in found.row_flags[:50])


def test_a_span_that_lies_across_two_columns_is_found() -> None:
    rng = random.Random(5)
    own = [rng.choices(WORDS, k=80) for _ in range(40)]
    left = [f"{CLEAN[i]} {' '.join(words[20:40])}" for i, words in enumerate(own)]
    right = [f"{' '.join(words[40:60])} {CLEAN[100 + i]}" for i, words in enumerate(own)]
    gold = pairs_of([*GOLD, *(" ".join(w) for w in own)], [""] * 340)
    found = audit(PAIR, pairs_of(left, right, "synthetic"), gold=gold)
    assert all("copied_span" in flags for flags in found.row_flags)


def test_short_texts_with_the_same_words_are_no_copies_by_chance() -> None:
    gold = rows_of(TASK, ["Pain 3 of 10 today.", "no acute distress", *GOLD])
    texts = ["today pain of 7 in all 10 joints", "Pain 5 of 10 today.", "No acute distress!"]
    found = audit(TASK, rows_of(TASK, texts, "synthetic"), gold=gold)
    assert found.row_flags == ((), (), ("copy_of_gold",))


def test_a_row_that_follows_its_own_prompt_is_an_echo(gold: Dataset) -> None:
    def half(text: str) -> str:  # 15 words of gold: too few to be called copied
        own = next(s for s in text.split(". ") if s.split()[0].lower() in WORDS and len(s.split()) > 14)
        return " ".join(own.split()[:15])

    texts = [f"{CLEAN[i]} {half(GOLD[i])}" for i in range(0, 60, 2)]
    rows = rows_of(TASK, texts, "synthetic")
    shown = rows.add_column("seed_ids", [[f"gold-{i}", "gold-299"] for i in range(0, 60, 2)])
    others = rows.add_column("seed_ids", [[f"gold-{i + 1}", "gold-299"] for i in range(0, 60, 2)])
    found = audit(TASK, shown, gold=gold)
    assert all("exemplar_echo" in flags for flags in found.row_flags)
    assert found.figures["exemplar_echoes"] == 30
    assert found.verdict == "ok"
    assert audit(TASK, others, gold=gold).figures["exemplar_echoes"] == 0


# --- canaries -------------------------------------------------------------------------------------------------------

TEXT2TEXT = Task.from_columns("sums", text_columns="document", label_column="summary", kind="text2text", access="open")


@pytest.mark.parametrize(("task", "column"), [
    (TASK, "text"), (PAIR, "premise"), (PAIR, "hypothesis"), (TEXT2TEXT, "document"), (TEXT2TEXT, "summary"),
])  # fmt: skip
def test_a_canary_in_any_text_column_is_found_and_refused(task: Task, column: str) -> None:
    canaries = make_canaries(3, references=4, seed=1)
    columns = [*task.text_columns, *([task.label_column] if task.kind == "text2text" else [])]
    rows = []
    for i, phrase in enumerate([*canaries.planted, canaries.references[0]]):
        texts = dict(zip(columns, CLEAN[3 * i :], strict=False))
        texts[column] += " " + DISGUISES[["case", "hyphens", "zero width", "verbatim"][i]](random, sentence(phrase))
        label = {} if task.kind == "text2text" else {task.label_column: 0}
        rows.append({"id": str(i), "access": "open", "source": "synthetic"} | label | texts)
    found = audit(task, Dataset.from_list(rows), gold=None, canaries=canaries)
    assert [("canary" in flags) for flags in found.row_flags] == [True, True, True, False]
    assert sorted(found.refused) == [0, 1, 2]
    assert found.verdict == "refuse"
    assert (found.figures["canaries_found"], found.figures["canaries_planted"]) == (3, 3)


def test_planting_as_sentences_and_as_rows(gold: Dataset, tmp_path: Path) -> None:
    canaries = make_canaries(4, references=7)
    assert len({*canaries.planted, *canaries.references}) == 11
    planted = plant(TASK, gold, canaries, times=2)
    assert planted.features == gold.features
    assert sum(a != b for a, b in zip(planted["text"], gold["text"], strict=True)) == 8
    assert all(sum(p in t for t in planted["text"]) == 2 for p in canaries.planted)
    more = plant(TASK, gold, canaries, as_rows=True)
    assert len(more) == len(gold) + 4
    assert more["text"][:-4] == gold["text"][:]
    assert all(p in t for p, t in zip(canaries.planted, more["text"][-4:], strict=True))
    pairs = plant(PAIR, pairs_of(GOLD[:9], GOLD[9:18]), canaries)
    assert {c for c in PAIR.text_columns if any(p in t for t in pairs[c] for p in canaries.planted)} == {
        *PAIR.text_columns
    }
    with pytest.raises(ColumnError, match="need as many rows"):
        plant(TASK, gold.select(range(3)), canaries)
    file = canaries.save(tmp_path / "canaries.json")
    assert Canaries.load(file) == canaries
    assert file.stat().st_mode & 0o777 == 0o600
    assert not any(p in repr(canaries) for p in canaries.planted)
    with pytest.raises(RowError):
        Canaries.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "told",
    [
        {"planted": "abc", "references": []},
        {"planted": ["abc"], "references": "def"},
        {"planted": ["abc"], "references": {"def": 1}},
        {"planted": [1, 2], "references": []},
        {"planted": ["abc"], "references": [None]},
        {"planted": [], "references": ["def"]},
        {"planted": [" "], "references": ["def"]},
        {"planted": ["abc"]},
        ["abc"],
        "abc",
        None,
    ],
)
def test_a_file_that_holds_no_canaries_is_refused(tmp_path: Path, told: Any) -> None:
    (tmp_path / "canaries.json").write_text(json.dumps(told))
    with pytest.raises(
        RowError, match=r"canaries\.json.* is not a file of canaries; pass a file that `Canaries\.save` wrote"
    ) as caught:
        Canaries.load(tmp_path / "canaries.json")
    assert "abc" not in str(caught.value)


# --- identifiers ----------------------------------------------------------------------------------------------------

FORMS = {
    "email": ["j.doe＠example.org", "j.d\u043ee@example.org"],
    "titled_name": ["seen by Dr. Patel", "Dr Patel will call", "DR. PATEL", "Mrs. O'Brien agrees",
                    "told Mr Smith", "with Ms. J. A. de la Cruz", "Doctor Nguyen came", "Prof. M\u00fcller",
                    "Nurse Jackie",
                    "Miss Lee?", "and\nDr.\nPatel", "Dr.Patel", "Drs. Smith and Jones", "\uff24r. Patel"],
    "mac_address": ["pump a4:5e:60:d1:22:0f online", "A4-5E-60-D1-22-0F"],
    "ip_address": ["from fe80::1ff:fe23:4567:890a", "2001:db8::8a2e:370:7334 logged"],
    "ssn": ["１２３-45-6789"],
    "phone": ["617–555–0199", "call (617)\u00a0555-0199", "her number is 555-0141.",
              "call 555 0141", "(555-0141)", "call me back at 5550141", "555\u20130141", "beeper 55012", "ext. 40917"],
    "health_plan": ["card 1EG4-TE5-MK73 shown", "1EG4TE5MK73"],
    "account_number": ["medicare number 1EG4TE5MK73", "paid by 4111 1111 1111 1111", "beneficiary ID XK-77310"],
    "vehicle": ["VIN 1HGCM82633A004352", "the car 1HGCM82633A004352", "license plate no. 7ABC123"],
    "licence_or_device": ["UDI (01)00884838019022", "lot no. A77B1234", "passport X1234567"],
    "coordinates": ["fell at 42.3601, -71.0589 on the way"],
    "date": ["14-Mar-2021", "3/14/21"],
    "date_in_words": ["since March 2021", "admitted Sept. 3"],
    "age_over_89": ["ninety-three year old", "a hundred and two years old", "Age: 97", "103yo"],
    "street_address": ["P.O. Box 1234"],
}  # fmt: skip


@pytest.mark.parametrize("kind", FORMS)
def test_more_forms_of_identifiers(kind: str) -> None:
    assert kind in IDENTIFIERS
    for text in FORMS[kind]:
        assert kind in identifiers_in(text), text


@pytest.mark.parametrize("text", [
    "lot of pain in 2 days, 12:30 to 14:45, at 10:20:30 am", "a hundred percent; Medicare covers it; age 54, aged 60",
    "registration desk 5; 3 plates and 12 screws; mobile 10 m", "pH 7.35, 1:2:3 ratio",
    "grade 1A2B; 5 March",
    "Dr. X and Mr. XYZ; Dr. A. B.; Doctor: Hello; the doctor said; MR Angiography; MS Contin 15 mg; DR. XYZ",
    "the Nurse Practitioner asked; seen by the dr. She was well; symptoms Improve; arms Were fine; Doctor Patient talk",
    "200-1000 mg, 250-1500 units, 300-1200 kcal, 500-2000 ml; platelets 150-4000; call in 3 days; 555-01; 123-4567",
])  # fmt: skip
def test_ordinary_words_and_figures_are_none_of_the_new_kinds(text: str) -> None:
    assert identifiers_in(text) <= {"date_in_words"}


def test_a_finder_of_ones_own_counts_and_refuses(gold: Dataset) -> None:
    def find(text: str) -> list[str]:
        return ["person"] * text.count("Mrs Jones")

    rows = rows_of(TASK, [CLEAN[0], CLEAN[1] + " Mrs Jones and Mrs Jones"], "synthetic")
    found = audit(TASK, rows, gold=gold, find_identifiers=find)
    assert found.refused == {1: ("identifier",)}
    assert found.figures["with_person"] == 1


@pytest.mark.parametrize("finder", [
    lambda text: [text], lambda text: text.split()[:1], lambda text: [1], lambda text: text,
])  # fmt: skip
def test_a_finder_that_gives_text_is_stopped_without_showing_it(finder: Any) -> None:
    rows = rows_of(TASK, [f"{CANARY} {text}" for text in CLEAN[:60]], "synthetic")
    with pytest.raises(ColumnError, match="must return kinds of identifiers") as caught:
        audit(TASK, rows, gold=None, find_identifiers=finder)
    assert CANARY not in str(caught.value)


def test_what_a_finder_raises_is_not_shown() -> None:
    def find(text: str) -> list[str]:
        raise ValueError(f"cannot parse {text}")

    rows = rows_of(TASK, [f"{CANARY} {CLEAN[0]}"], "synthetic")
    with pytest.raises(HfSynthError, match=r"failed at row 0 \(ValueError\)") as caught:
        audit(TASK, rows, gold=None, find_identifiers=find)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_analyzer_of_presidio_becomes_a_finder() -> None:
    class Analyzer:
        def analyze(self, *, text: str, language: str) -> list[SimpleNamespace]:
            assert language == "en"
            return [SimpleNamespace(entity_type="PERSON", score=0.85), SimpleNamespace(entity_type="NRP", score=0.2)]

    assert presidio_finder(Analyzer())("any text") == {"person"}


def test_presidio_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "presidio_analyzer", None)
    with pytest.raises(MissingExtraError, match=r"hf_synth\[presidio\]"):
        presidio_finder()


# --- findings and reports --------------------------------------------------------------------------------------------

REFUSALS = [
    "As an AI language model, I cannot provide this.", "I'm sorry, but I can't help with that.",
    "I cannot generate realistic patient notes.", "Sorry, this is not possible.",
    "Note follows. I am an AI and not a doctor.",
]  # fmt: skip
NO_REFUSALS = [
    "I cannot swallow solid food, she says.", "Patient is sorry she missed her visit.",
    "He can't assist with his care.",
    "Unable to tolerate; as an aide she lifts.", "Denies pain; as an airway precaution, suction at bedside.",
]  # fmt: skip


def test_refusals_are_counted() -> None:
    found = audit(TASK, rows_of(TASK, REFUSALS + NO_REFUSALS, "synthetic"), gold=None)
    assert [("refusal" in flags) for flags in found.row_flags] == [True] * 5 + [False] * 5
    assert found.figures["refusals"] == 5
    assert not found.refused


def test_findings_become_columns(gold: Dataset) -> None:
    rows = rows_of(TASK, [CLEAN[0], GOLD[0], ""], "synthetic")
    found = audit(TASK, rows, gold=gold)
    told = with_findings(rows, found)
    assert told.column_names[: len(rows.column_names)] == rows.column_names
    assert "copy_of_gold" in told["audit_flags"][1]
    assert list(told["audit_refused"]) == [False, True, False]
    assert told["audit_run_words"][1] > 60 > 20 > told["audit_run_words"][0]
    assert told["audit_containment"][1] == 1.0
    assert told["audit_flags"][2] == []
    assert with_findings(told, found).column_names == told.column_names
    with pytest.raises(ColumnError, match="are of 3 rows"):
        with_findings(rows.select([0]), found)
    assert with_findings(rows, audit(TASK, rows, gold=None))["audit_run_words"][:] == [0, 0, 0]


def test_nothing_that_is_told_holds_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A canary stands in every column of text; files, output and logs are searched for it."""
    caplog.set_level(logging.DEBUG)
    task = replace(PAIR, access="restricted")

    def rows(left: list[str], right: list[str], source: str) -> Dataset:
        made = pairs_of(left, right, source)
        return made.remove_columns("access").add_column("access", ["restricted"] * len(made)).cast(made.features)

    left, right = ([f"{CANARY} {t} mail {CANARY}@example.org" for t in part] for part in (GOLD[:40], GOLD[40:80]))
    write_stage(task, rows(left, right, "gold"), tmp_path / "gold", stage="gold")
    write_stage(task, rows(left[:9], right[:9], "synthetic"), tmp_path / "synthetic", stage="generate")
    out = tmp_path / "audit"
    code = main(["audit", str(tmp_path / "gold"), str(tmp_path / "synthetic"), "--out", str(out), "--json"])
    assert code == 1
    assert sorted(p.name for p in out.iterdir()) == [
        "audit.html", "audit.json", "audit.md", "findings.parquet", "hf_synth.json", "hf_synth_run.toml",
    ]  # fmt: skip
    assert out.stat().st_mode & 0o777 == 0o700
    said = capfd.readouterr()
    facts = json.loads(said.out.splitlines()[-1])
    assert facts["verdict"] == "refuse"
    assert facts["figures"]["copied_rows"] == 9
    everything = [said.out, said.err, caplog.text, *(p.read_bytes().decode("latin-1") for p in out.iterdir())]
    assert not any(CANARY in told for told in everything)
    assert not any(word in told for told in everything for word in WORDS)
    found = load_dataset("parquet", data_files=str(out / "findings.parquet"), split="train", cache_dir=str(tmp_path))
    assert set(found.column_names) == {"id", "audit_flags", "audit_refused", "audit_run_words", "audit_containment"}


def test_the_verb_on_clean_rows_and_with_a_control(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from datasets import DatasetDict

    splits = DatasetDict(train=rows_of(TASK, GOLD), test=rows_of(TASK, notes(60, 9)))
    write_stage(TASK, splits, tmp_path / "gold", stage="gold")
    write_stage(TASK, rows_of(TASK, CLEAN, "synthetic"), tmp_path / "synthetic", stage="generate")
    where = [str(tmp_path / "gold"), str(tmp_path / "synthetic")]
    assert main(["audit", *where, "--json", "--out", str(tmp_path / "audit")]) == 0
    assert main(["audit", *where, "--json", "--out", str(tmp_path / "audit")]) == 0  # written anew
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]
    assert (figures["gold_rows"], figures["held_out_rows"]) == (360, 60)
    assert figures["closeness_auc_low"] < 0.5 < figures["closeness_auc_high"]
    assert main(["audit", *where, "--split-held-out", "nothing"]) == 1
    assert "no split 'nothing'" in capsys.readouterr().err


def test_show_prints_words_of_refused_rows_in_a_terminal_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    escape = f"{CANARY} \x1b]0;title\x07 \x9b31m red. Call (617) 555-0199 tonight.\nNothing else."
    write_stage(TASK, rows_of(TASK, GOLD), tmp_path / "gold", stage="gold")
    write_stage(TASK, rows_of(TASK, [*CLEAN, escape, GOLD[0]], "synthetic"), tmp_path / "synthetic", stage="generate")
    out = tmp_path / "audit"
    command = ["audit", str(tmp_path / "gold"), str(tmp_path / "synthetic"), "--show", "--json", "--out", str(out)]
    assert main(command) == 1
    told = capsys.readouterr()
    assert "works in a terminal only" in told.err
    assert not told.out
    assert not out.exists()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(command) == 0
    told = capsys.readouterr()
    assert "row 200: identifier" in told.out
    assert "Call (617) 555-0199 tonight." in told.out
    assert "Nothing else" not in told.out  # the line with the identifier is enough
    assert GOLD[0][:60] in told.out
    assert not set("\x1b\x07\x9b") & set(told.out + told.err)
    kept = [told.out.splitlines()[-1], *(p.read_bytes().decode("latin-1") for p in out.iterdir())]
    assert not any("555-0199" in text or GOLD[0][:60] in text for text in kept)


def test_the_page_says_what_was_found(gold: Dataset) -> None:
    rows = rows_of(TASK, [*CLEAN[:100], GOLD[0]], "synthetic")
    found = audit(TASK, rows, gold=gold, held_out=rows_of(TASK, notes(50, 8)))
    page, text = audit_page(found, facts=[("task", "<b>")]), audit_markdown(found, simulated="made up.")
    assert "&lt;b&gt;" in page
    assert "<script" not in page
    assert page.count("<svg") == 2  # for wide and for narrow screens
    raised = {flag for flags in found.row_flags for flag in flags}
    assert raised
    for flag in raised:
        assert FLAGS[flag].split(" `")[0][:30] in text
    assert "not de-identification" in text
    assert re.search(r"1 must not leave", text)
    alone = audit_markdown(audit(TASK, rows, gold=None))
    assert "no gold to compare with" in alone
