"""Planted leaks at the moment of publishing: what must not leave is refused or left out, wherever it was put."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Value
from support.hub_clients import served
from support.publishing_rows import CANARY, LABELS, NOUNS, OPEN, RESTRICTED, gold_rows, synthetic_rows, text
from support.tiny import tiny_base, toy_rows, toy_task

from hf_synth.errors import PublishError
from hf_synth.models.training import train
from hf_synth.privacy.folding import words_of
from hf_synth.privacy.identifiers import IDENTIFIERS
from hf_synth.publishing.gate import Verdict
from hf_synth.publishing.publishing import publish_dataset, publish_model
from hf_synth.task.folders import write_stage
from hf_synth.task.task import Task

# One of each kind that has a form, written by hand.
IDENTIFYING = {
    "titled_name": "seen by Dr. Patel",
    "email": "write to jan.doe@example.org", "url": "see https://example.org/p/7", "ip_address": "host 192.0.2.17",
    "ssn": "SSN 078-05-1120", "phone": "call (617) 555-0199", "record_number": "MRN 00483921",
    "account_number": "account no. A4471123", "licence_or_device": "serial number SN44-8812Q",
    "birth_date": "DOB 03/04/1951", "date": "seen 2019-03-04", "date_in_words": "seen March 4, 2019",
    "age_over_89": "a 93-year-old", "zip_code": "lives in MA 02139", "street_address": "12 Long Hill Road",
    "mac_address": "device 00:1B:44:11:3A:B7", "health_plan": "Medicare number 1EG4-TE5-MK73",
    "vehicle": "VIN 1HGBH41JXMN109186", "coordinates": "at 42.36011, -71.05891",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, not_read_back: None) -> None:
    monkeypatch.chdir(tmp_path)


def put(rows: Dataset, column: str, values: dict[int, Any]) -> Dataset:
    """Replace some values of a column."""
    kept = list(rows[column]) if column in rows.column_names else [None] * len(rows)
    for i, value in values.items():
        kept[i] = value
    feature = rows.features.get(column, Value("string"))
    without = rows.remove_columns(column) if column in rows.column_names else rows
    return without.add_column(column, kept, feature=feature)


def shipped(verdict: Verdict) -> str:
    """Return every word that an export holds: files as they are, tables value by value."""
    if verdict.export is None:
        return ""
    said = []
    for file in sorted(f for f in verdict.export.rglob("*") if f.is_file()):
        said.append(file.relative_to(verdict.export).as_posix())
        if file.suffix == ".parquet":
            table = pq.read_table(file)
            said += [json.dumps(table.to_pylist(), ensure_ascii=False, default=str), str(table.schema.metadata)]
        else:
            said.append(file.read_bytes().decode("utf-8", "replace"))
    return "\n".join(said)


def left_out(verdict: Verdict, planted: list[str]) -> bool:
    """Return whether nothing planted left: refused, or no five words of it in a row in what is shipped."""
    words = " ".join(words_of(shipped(verdict)))
    spans = [words_of(p) for p in planted]
    return not any(" ".join(w[i : i + 5]) in words for w in spans for i in range(max(1, len(w) - 4)))


def changed(words: list[str], share: float, seed: int) -> str:
    rng = np.random.default_rng(seed)
    at = rng.choice(len(words), max(1, round(share * len(words))), replace=False)
    return " ".join(f"other{i}" if i in at else w for i, w in enumerate(words))


GOLD_TEXT = [text("gold", i) for i in range(30)]
PLANTS: dict[str, Any] = {
    "a span of 40 words": lambda i: f"{text('front', i)} {GOLD_TEXT[i]} {text('behind', i)}",
    "a near copy, 6% of its words changed": lambda i: changed(GOLD_TEXT[i].split(), 0.06, i),
    "a verbatim copy": lambda i: GOLD_TEXT[i],
    "a copy in other letters": lambda i: GOLD_TEXT[i].upper().replace(" ", "\n"),
    "a copy with invisible characters": lambda i: GOLD_TEXT[i].replace(" ", " \u200b"),
}


@pytest.mark.parametrize("share", [0.005, 0.1])
@pytest.mark.parametrize("how", PLANTS)
def test_gold_in_the_text_is_refused_or_left_out(how: str, share: float) -> None:
    rows = synthetic_rows(RESTRICTED, 300)
    planted = {10 * k: PLANTS[how](k) for k in range(max(1, int(share * 270)))}
    verdict = publish_dataset(
        RESTRICTED, put(rows, "text", planted), "o/x", gold=gold_rows(RESTRICTED, 300), push=False
    )
    assert left_out(verdict, list(planted.values())), how
    assert verdict.allowed == (len(planted) / 270 <= 0.01)
    if verdict.allowed:
        assert verdict.counts["withheld"] == len(planted)


def test_identifiers_of_each_kind_are_left_out() -> None:
    assert set(IDENTIFYING) == set(IDENTIFIERS)
    free = (i for i in range(100) if i % 10 != 9)  # the others are rejected answers
    planted = {
        kind: {i: f"{text('note', i)} {words} {text('more', i)}" for i in itertools.islice(free, 3)}
        for kind, words in IDENTIFYING.items()
    }
    rows = put(synthetic_rows(RESTRICTED, 100), "text", {i: t for texts in planted.values() for i, t in texts.items()})
    verdict = publish_dataset(RESTRICTED, rows, "o/x", gold=gold_rows(RESTRICTED, 100), push=False)
    assert verdict.allowed
    for kind, texts in planted.items():
        assert left_out(verdict, list(texts.values())), kind
    assert verdict.counts["withheld"] == 3 * len(IDENTIFIERS)


COLUMNS = [c for c, f in synthetic_rows(OPEN).features.items() if getattr(f, "dtype", "") == "string"]


@pytest.mark.parametrize("column", [*COLUMNS, "note_raw", "seed_ids"])
@pytest.mark.parametrize("what", ["a note", "a word of it"])
def test_gold_in_any_column_of_text_is_refused_or_left_out(column: str, what: str) -> None:
    gold = put(gold_rows(RESTRICTED), "text", {i: f"{CANARY} {t}" for i, t in enumerate(GOLD_TEXT)})
    leak = f"{CANARY} {GOLD_TEXT[3]}" if what == "a note" else CANARY
    if column == "text" and what == "a word of it":
        leak = f"{CANARY} {GOLD_TEXT[3]} and more"
    rows = put(synthetic_rows(RESTRICTED), column, {0: [leak] if column == "seed_ids" else leak})
    verdict = publish_dataset(RESTRICTED, rows, "o/x", gold=gold, push=False)
    assert CANARY not in shipped(verdict)
    assert CANARY not in f"{verdict} {verdict!r} {json.dumps(verdict.to_json())}"
    log = Path("export/.hf_synth/publishing.jsonl").read_text()
    assert CANARY not in log
    assert GOLD_TEXT[3][:20] not in log


def test_gold_as_the_target_of_a_text_is_left_out() -> None:
    task = Task.from_columns("sums", text_columns="note", label_column="summary", kind="text2text", access="restricted")
    gold = Dataset.from_list([task.gold_row(f"g{i}", None, GOLD_TEXT[i], text("note", i)) for i in range(30)])
    made = [
        task.gold_row(f"s{i}", None, GOLD_TEXT[0] if i == 7 else text("sum", i), text("made", i))
        | {"source": "synthetic", "seed_ids": [f"g{i % 30}"]}
        for i in range(200)
    ]
    verdict = publish_dataset(task, Dataset.from_list(made), "o/x", gold=gold, push=False)
    assert verdict.counts["withheld"] == 1
    assert left_out(verdict, [GOLD_TEXT[0]])


# --- the folder of a model --------------------------------------------------------------------------------------------
def test_a_token_in_the_training_arguments_and_a_gold_file_stay_here(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    token = "hf_" + "Q7wertzuiopasdfghjklyxcvb"
    task, gold = toy_task(access="restricted"), toy_rows(12, task=toy_task(access="restricted"))
    arguments = TrainingArguments(output_dir=str(tmp_path / "work"), max_steps=1, report_to="none", use_cpu=True)
    folder = train(task, gold, base_model=tiny_base(tmp_path / "base"), output_dir=tmp_path / "m", args=arguments)
    import torch

    arguments.hub_token = token  # as another script's trainer, which pushes by itself, leaves it beside the weights
    torch.save(arguments, folder / "training_args.bin")
    assert token.encode() in (folder / "training_args.bin").read_bytes()
    for name in ("gold.csv", "gold.json", "optimizer.pt", "predictions.json", "trainer_state.json", "notes.txt"):
        (folder / name).write_text(f"{CANARY} {token}\n" + "\n".join(gold["text"]))
    (folder / "runs").mkdir()
    (folder / "runs" / "events").write_text(CANARY)
    (folder / "README.md").write_text(CANARY)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"token": token, "name_or_path": str(tmp_path)}))
    verdict = publish_model(task, folder, None, "o/m", gold=gold, push=False, token=token)
    assert verdict.allowed, verdict
    assert verdict.export is not None
    names = {f.name for f in verdict.export.rglob("*") if f.is_file()}
    assert not names & {"training_args.bin", "gold.csv", "gold.json", "optimizer.pt", "predictions.json", "notes.txt"}
    bytes_ = b"".join(f.read_bytes() for f in verdict.export.rglob("*") if f.is_file())
    assert token.encode() not in bytes_
    assert CANARY.encode() not in bytes_
    assert str(tmp_path).encode() not in bytes_


@pytest.mark.parametrize("where", ["config.json", "special_tokens_map.json", "tokenizer_config.json"])
def test_a_token_in_a_file_that_leaves_fails_the_publishing(model: Path, where: str, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "m"
    shutil.copytree(model, folder, symlinks=True)
    token = "hf_" + "A" * 30
    told = json.loads((folder / where).read_text()) if (folder / where).is_file() else {}
    (folder / where).write_text(json.dumps(told | {"custom": token}))
    with pytest.raises(PublishError, match=f"{where}: it holds a token") as caught:
        publish_model(OPEN, folder, None, "org/m", push=False)
    assert token not in str(caught.value)
    assert not Path("export/m").exists()


def test_a_secret_in_the_weights_is_found(model: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "m"
    shutil.copytree(model, folder, symlinks=True)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-19:] = b"my-own-secret-token"  # the bytes of a tensor
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(PublishError, match="holds the token in use"):
        publish_model(OPEN, folder, None, "org/m", push=False, token="my-own-secret-token")


@pytest.mark.parametrize(("words", "said"), [
    ({"attestation": text("gold", 3)}, "text of gold"),
    ({"attestation": "the board; key sk-abcdefghijklmnopqrstuv"}, "a key of an LLM"),
    ({"attestation": "see /home/jan/notes"}, "a path of this machine"),
    ({"attestation": "{{ board }}"}, "a placeholder"),
    ({"token": "a-token-of-mine", "attestation": "by a-token-of-mine"}, "the token in use"),
])  # fmt: skip
def test_what_a_person_adds_to_the_card_is_checked_too(words: dict[str, str], said: str) -> None:
    rows, gold = synthetic_rows(RESTRICTED), gold_rows(RESTRICTED)
    with pytest.raises(PublishError, match=said) as caught:
        publish_dataset(RESTRICTED, rows, "o/x", gold=gold, push=False, **words)  # type: ignore[arg-type]
    assert all(value not in str(caught.value) for value in words.values())
    assert not Path("export/x").exists()


# --- nowhere else -----------------------------------------------------------------------------------------------------
def test_the_canary_is_nowhere_outside_the_users_folder(tmp_path: Path) -> None:
    task = replace(RESTRICTED, name="canary_notes")
    mine, home, temp = tmp_path / "mine", tmp_path / "home", tmp_path / "temp"
    for folder in (mine, home, temp):
        folder.mkdir()
    gold = put(gold_rows(task), "text", {i: f"{CANARY} {t}" for i, t in enumerate(GOLD_TEXT)})
    write_stage(task, gold, mine / "gold", stage="gold")
    rows = put(synthetic_rows(task, 300), "text", {5: gold["text"][5]})
    rows = put(put(rows, "generator", {0: CANARY}), "reason", {0: CANARY})
    gold_all = put(gold_rows(task, 300), "text", {i: f"{CANARY} {t}" for i, t in enumerate(GOLD_TEXT)})
    write_stage(task, gold_all, mine / "gold", stage="gold")
    write_stage(task, rows, mine / "rows", stage="correct", gold_marks=[])
    broken = put(rows, "label_status", {0: CANARY})
    write_stage(task, broken, mine / "copies", stage="correct")
    asked = (("rows", []), ("rows", ["--json"]), ("copies", ["--dry-run"]), ("nothing", []))
    code = "import json, sys; from hf_synth.cli.cli import main\nsys.exit(str([*map(main, json.loads(sys.argv[1]))]))"
    with served(tmp_path / "hub") as (server, url, token):
        there = ["--repo-id", "org/canary", "--endpoint", url, "--push", "--yes"]
        lines = json.dumps([["publish", "gold", name, *there, *more] for name, more in asked])
        done = subprocess.run(
            [sys.executable, "-c", code, lines], cwd=mine, capture_output=True, text=True, check=False,
            env={**os.environ, "HF_HOME": str(home), "TMPDIR": str(temp), "HF_TOKEN": token, "HF_SYNTH_DEBUG": "0",
                 "HOME": str(home)},
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert done.stderr.endswith("[0, 0, 0, 1]\n"), said
        assert token not in said
        server.kill()
        said += "".join(server.communicate())
    assert "published:" in said
    assert CANARY not in said
    for folder in (home, temp, tmp_path / "hub"):
        for file in (f for f in folder.rglob("*") if f.is_file()):
            content = file.read_bytes()
            assert CANARY.encode() not in content, file
            if content[:4] == b"PAR1":
                assert CANARY not in json.dumps(pq.read_table(file).to_pylist(), default=str), file
    export = mine / "export" / "canary"
    assert CANARY not in shipped(Verdict("dataset", "o/x", "restricted", True, (), export=export))
    assert CANARY not in (mine / "export" / ".hf_synth" / "publishing.jsonl").read_text()
    assert set(LABELS) <= set((export / "README.md").read_text().replace("|", " ").split())
    assert NOUNS


def test_the_leaks_are_there_to_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the guards the same plants do leave: the tests above can fail."""
    from hf_synth.privacy.findings import Findings
    from hf_synth.publishing import export

    gold = put(gold_rows(RESTRICTED), "text", {i: f"{CANARY} {t}" for i, t in enumerate(GOLD_TEXT)})
    rows = put(
        put(synthetic_rows(RESTRICTED), "generator", {0: CANARY}), "text", {1: f"{text('front', 1)} {GOLD_TEXT[1]}"}
    )
    monkeypatch.setattr(export, "plain_columns", lambda dataset, _: dataset)
    monkeypatch.setattr(Findings, "verdict", property(lambda self: "ok"))
    monkeypatch.setattr(export, "view_rows", lambda task, dataset, withheld: {"corrected": [0, 1], "raw": [0, 1, 2]})
    monkeypatch.setattr("hf_synth.publishing.checks.check_card", lambda text: [])
    monkeypatch.setattr("hf_synth.publishing.writing.content_check", lambda *a: lambda folder: None)
    verdict = publish_dataset(RESTRICTED, rows, "o/x", gold=gold, push=False)
    assert CANARY in shipped(verdict)
    assert not left_out(verdict, [GOLD_TEXT[1]])
