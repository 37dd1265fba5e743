"""The audit finds what is planted, and leaves clean text with boilerplate alone."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from datasets import Dataset
from support.audit_texts import CANARY, TASK, WORDS, note, rows_of

from hf_synth.demo.clinic import write_notes
from hf_synth.errors import ColumnError
from hf_synth.privacy.audit import audit
from hf_synth.privacy.findings import COPIED, FLAGS
from hf_synth.privacy.folding import Units
from hf_synth.privacy.identifiers import identifiers_in
from hf_synth.privacy.overlap import MAX_CONTAINMENT, MAX_RUN, Index
from hf_synth.privacy.repetition import Repeats
from hf_synth.task.task import Task


@pytest.fixture(scope="module")
def gold_texts() -> list[str]:
    rng = random.Random(1)
    return [note(rng) for _ in range(400)]


@pytest.fixture(scope="module")
def clean_texts() -> list[str]:
    rng = random.Random(2)
    return [note(rng) for _ in range(400)]


def test_clean_text_with_boilerplate_passes(gold_texts: list[str], clean_texts: list[str]) -> None:
    rng = random.Random(3)
    held_out = [note(rng) for _ in range(200)]
    found = audit(
        TASK, rows_of(TASK, clean_texts, "synthetic"), gold=rows_of(TASK, gold_texts), held_out=rows_of(TASK, held_out)
    )
    assert found.verdict == "ok"
    assert found.figures["refused_share"] <= 0.01
    assert found.figures["boilerplate_windows"] > 20
    assert found.figures["closeness_auc"] == pytest.approx(0.5, abs=0.1)


def test_boilerplate_is_not_discounted_for_one_patient(clean_texts: list[str]) -> None:
    """A passage copied forward through the notes of one patient is that patient's, not a phrase of the house."""
    own = " ".join(random.Random(9).choices(WORDS, k=60))
    gold = rows_of(TASK, [f"{own} visit {i}" for i in range(8)])
    same = gold.remove_columns("group").add_column("group", ["p1"] * 8)
    synthetic = rows_of(TASK, [clean_texts[0] + " " + own], "synthetic")
    assert "copied_span" in audit(TASK, synthetic, gold=same).row_flags[0]
    assert "copied_span" not in audit(TASK, synthetic, gold=gold).row_flags[0]  # eight patients share it


@pytest.mark.parametrize("seed", range(5))
def test_planted_spans_of_40_words_are_all_found(gold_texts: list[str], clean_texts: list[str], seed: int) -> None:
    rng = random.Random(seed)
    texts, planted = list(clean_texts), rng.sample(range(400), 60)
    for i in planted:
        words, start = rng.choice(gold_texts).split(), rng.randrange(40)
        host = texts[i].split()
        at = rng.randrange(len(host))
        texts[i] = " ".join(host[:at] + words[start : start + 40] + host[at:])
    found = audit(TASK, rows_of(TASK, texts, "synthetic"), gold=rows_of(TASK, gold_texts))
    assert [i for i in planted if "copied_span" not in found.row_flags[i]] == []
    assert set(planted) <= set(found.refused)
    assert len(set(found.refused) - set(planted)) <= 4
    assert found.verdict == "refuse"


def test_notes_of_the_artificial_clinic_clean_and_with_spans() -> None:
    """The hardest clean text there is here: every phrase of it comes from one pool, and is in other notes too."""
    gold, clean = ([n.text for n in write_notes(n, seed=seed)] for n, seed in ((600, 1), (300, 2)))
    rng = random.Random(0)
    long = [t.split() for t in gold if len(t.split()) >= 60]
    planted = []
    for text in clean:
        words = rng.choice(long)
        start = rng.randrange(len(words) - 39)
        planted.append(" ".join([*text.split()[:20], *words[start : start + 40], *text.split()[20:]]))
    found = audit(TASK, rows_of(TASK, clean + planted, "synthetic"), gold=rows_of(TASK, gold))
    assert sum(i < 300 for i in found.refused) <= 3
    assert set(range(300, 600)) <= set(found.refused)


def test_near_copies_and_disguised_copies_are_all_found(gold_texts: list[str]) -> None:
    rng = random.Random(4)
    near = []
    for text in gold_texts[:100]:
        words = text.split()
        for i in rng.sample(range(len(words)), round(0.06 * len(words))):
            words[i] = rng.choice(WORDS)
        near.append(" ".join(words))
    disguised = [t.upper().replace(" ", " \u200b\n").replace(".", " ;") for t in gold_texts[100:200]]
    found = audit(TASK, rows_of(TASK, near + disguised, "synthetic"), gold=rows_of(TASK, gold_texts))
    assert all("near_copy" in flags or "copied_span" in flags for flags in found.row_flags[:100])
    assert all("copy_of_gold" in flags for flags in found.row_flags[100:])


def test_a_row_that_says_gold_is_refused_whatever_its_text(clean_texts: list[str]) -> None:
    found = audit(TASK, rows_of(TASK, clean_texts[:3], "gold"), gold=None)
    assert all(flags == ("gold_row",) for flags in found.row_flags)
    assert found.verdict == "refuse"
    assert not found.compared


def test_pairs_each_text_counts_and_columns_may_be_swapped(gold_texts: list[str], clean_texts: list[str]) -> None:
    pair = Task.from_columns(
        "pairs", text_columns=("premise", "hypothesis"), label_column="label", labels=("no", "yes"), access="open"
    )

    def pairs(left: list[str], right: list[str], source: str) -> Dataset:
        rows = [pair.gold_row(a[:9], None, 0, a, b) | {"source": source} for a, b in zip(left, right, strict=True)]
        return Dataset.from_list(rows, features=pair.gold_features())

    gold = pairs(gold_texts[:50], gold_texts[50:100], "gold")
    synthetic = pairs(clean_texts[:3], [clean_texts[3], gold_texts[0], "fine"], "synthetic")
    found = audit(pair, synthetic, gold=gold)
    assert list(found.refused) == [1]


def test_the_target_of_text2text_is_text_too(gold_texts: list[str], clean_texts: list[str]) -> None:
    summary = Task.from_columns("sums", text_columns="text", label_column="summary", kind="text2text", access="open")
    gold = rows_of(summary, gold_texts[:20]).remove_columns("summary").add_column("summary", gold_texts[20:40])
    synthetic = rows_of(summary, clean_texts[:1], "synthetic").remove_columns("summary")
    assert audit(summary, synthetic.add_column("summary", [gold_texts[20]]), gold=gold).refused
    assert not audit(summary, synthetic.add_column("summary", [clean_texts[1]]), gold=gold).refused


PLANTED = {
    "email": "write to j.doe@example.org for it",
    "url": "images at https://pacs.example.org/v/12 today",
    "ip_address": "uploaded from 192.168.14.7 last night",
    "ssn": "SSN 123-45-6789 on file",
    "phone": "call (617) 555-0199 with results",
    "record_number": "MRN: 00483921 was opened",
    "account_number": "account number AC-4493021 billed",
    "licence_or_device": "pacemaker serial no. SN88213X checked",
    "birth_date": "DOB 3/14/1952 confirmed",
    "date": "seen on 03/14/2021 for review",
    "date_in_words": "seen on March 14, 2021 for review",
    "age_over_89": "a 93-year-old woman with cough",
    "zip_code": "lives in Boston, MA 02115 alone",
    "street_address": "lives at 12 Elm Tree Road alone",
}
OTHER_FORMS = {
    "phone": ["tel 617.555.0199", "pager 5501-22", "+44 20 7946 0958", "fax: 617 555 0100"],
    "date": ["2021-03-14", "3-14-21", "14.3.2021"],
    "date_in_words": ["14 March 2021", "on Mar 3rd", "the 3rd of May"],
    "ip_address": ["2001:0db8:85a3:0000:0000:8a2e:0370:7334"],
    "age_over_89": ["aged 91", "94 yo man", "102 year old"],
    "record_number": ["medical record number 123456", "chart # A123456", "0012345678"],
    "ssn": ["social security number 123 45 6789"],
    "zip_code": ["02115-1234", "zip code 02115"],
    "licence_or_device": ["license plate 7ABC123", "DEA AB1234563"],
    "account_number": ["member id XYZ123456"],
}
HARMLESS = [
    "BP 120/80, pain 3/10, strength 5/5, T 98.6, platelets 250000, penicillin 2400000 units",
    "60 Gy in 30 fractions at 2 Gy; 5000 mg; SpO2 95% on room air; weight 91.2 kg; BMI 34.5",
    "a 62-year-old man, 40 pack-years, may 5 times a day; ratio 1.2.3; 20/20 vision; 98 beats",
    "T2N1M0, stage IIIA; lot of fatigue; hospital day 4; ECOG 1; heart rate 90; aged 45",
    "insurance approved the scan; the device was checked; her account is consistent; policy unchanged",
]


@pytest.mark.parametrize("kind", PLANTED)
def test_identifiers_of_each_kind_are_found_and_refused(kind: str, clean_texts: list[str]) -> None:
    for text in [PLANTED[kind], *OTHER_FORMS.get(kind, [])]:
        assert kind in identifiers_in(text), text
    private = replace(TASK, access="restricted")
    rows = rows_of(private, [clean_texts[0], clean_texts[1] + " " + PLANTED[kind]], "synthetic")
    found = audit(private, rows, gold=rows_of(private, clean_texts[5:9]))
    assert list(found.refused) == [1]
    assert found.figures[f"with_{kind}"] == 1
    assert found.verdict == "ok"  # an identifier takes its row out; only copies condemn the whole


@pytest.mark.parametrize("text", HARMLESS)
def test_ordinary_figures_are_no_identifiers(text: str) -> None:
    assert identifiers_in(text) == set()


def test_dates_in_open_data_are_counted_not_refused(clean_texts: list[str]) -> None:
    rows = rows_of(TASK, [clean_texts[0] + " " + PLANTED["date"]], "synthetic")
    found = audit(TASK, rows, gold=None)
    assert found.row_flags == (("date_or_age",),)
    assert not found.refused


def test_leaks_and_repetition_are_counted_not_refused(clean_texts: list[str]) -> None:
    task = replace(TASK, leaks=(r"(?i)\bgrade \d",))
    almost = clean_texts[1].rsplit(" ", 1)[0] + " tomorrow"
    texts = [clean_texts[0] + " Grade 2 noted", clean_texts[1], almost, clean_texts[1].upper(), "short one"]
    found = audit(task, rows_of(task, texts, "synthetic"), gold=None)
    assert found.row_flags == (("label_leak",), (), ("near_duplicate",), ("duplicate",), ())
    assert not found.refused


def test_rejected_rows_without_text_are_passed_over(gold_texts: list[str]) -> None:
    gold = rows_of(TASK, [*gold_texts[:5], ""])
    rows = rows_of(TASK, ["", ""], "synthetic")
    empty = rows.map(lambda r: {"text": None}, features=rows.features)
    found = audit(TASK, empty, gold=gold, held_out=gold)
    assert found.row_flags == ((), ())
    assert found.figures["rows"] == 0
    assert found.verdict == "ok"
    assert audit(TASK, rows.select([]), gold=gold.select([])).verdict == "ok"


def test_findings_hold_no_text_and_are_plain_values(gold_texts: list[str]) -> None:
    texts = [f"{CANARY} {gold_texts[0]}", gold_texts[1] + f" mail {CANARY}@example.org"]
    found = audit(TASK, rows_of(TASK, texts, "synthetic"), gold=rows_of(TASK, gold_texts))
    assert found.verdict == "refuse"
    told = repr(found) + str(found) + json.dumps(found.to_json())
    assert CANARY not in told
    assert not any(word in told for word in gold_texts[0].split()[:5])
    assert all(set(flags) <= set(FLAGS) for flags in found.row_flags)
    assert set(COPIED) <= set(FLAGS)


def test_a_missing_column_is_one_sentence(clean_texts: list[str]) -> None:
    rows = rows_of(TASK, clean_texts[:2], "synthetic")
    with pytest.raises(ColumnError, match="the gold has no column 'text'"):
        audit(TASK, rows, gold=rows.rename_column("text", "note"))


def test_runs_and_containment_are_what_they_say() -> None:
    text = [f"w{i}" for i in range(100)]
    index = Index.of([("g", (" ".join(text),))])
    reach = index.reach([(" ".join(["x", *text[10:40], "y", *text[50:57]]),), ("w1 w2",), ("",)])
    assert reach.runs.tolist() == [30, 0, 0]
    assert reach.matches.tolist() == [23, 0, 0]
    assert reach.share[0] == pytest.approx(23 / (39 - 7))
    assert MAX_RUN < 40
    assert 0 < MAX_CONTAINMENT < 0.94**8


def test_repeats_names_the_later_row() -> None:
    one = " ".join(f"w{i}" for i in range(60))
    repeats = Repeats()
    for texts in ([one, one + " more"], [one.upper(), "other words entirely here now", "", ""]):  # two batches
        repeats.add(Units.of(texts))
    exact, near = repeats.find()
    assert exact.nonzero()[0].tolist() == [2]
    assert near.nonzero()[0].tolist() == [1]
