"""Only audited text leaves: a row of gold in any place that can reach an export is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from support.publishing_rows import text
from support.tiny import TINY_ARGS, tiny_base, toy_rows, toy_task

from hf_synth.correction.policy import Policy
from hf_synth.errors import HfSynthError, PublishError
from hf_synth.evaluation.evaluation import Scores
from hf_synth.models.training import train
from hf_synth.privacy.folding import words_of
from hf_synth.publishing.contents import piece_as_text
from hf_synth.publishing.publishing import publish_dataset, publish_model
from hf_synth.publishing.sealed import copy_sealed, sealed
from hf_synth.task.task import Task

LABELS = ("no", "yes", "maybe")
SUMMED = Task.from_columns("sums", text_columns="note", label_column="summary", kind="text2text", license="MIT")
ONE = Task.from_columns("notes", text_columns="note", label_column="label", labels=LABELS, license="MIT")
PAIR = Task.from_columns("pairs", text_columns=("first", "second"), label_column="label", labels=LABELS, license="MIT")
SETS = Task.from_columns("sets", text_columns="note", label_column="labels", labels=LABELS, kind="multi_label")
TASKS = {task.name: task for task in (ONE, PAIR, SETS, SUMMED)}
NOTE = text("gold", 3)


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, not_read_back: None) -> None:
    monkeypatch.chdir(tmp_path)


def label_of(task: Task, i: int, kind: str) -> Any:
    if task.kind == "text2text":
        return text(f"{kind} sum", i)
    return [i % 3] if task.kind == "multi_label" else i % 3


def gold_of(task: Task, n: int = 20) -> Dataset:
    rows = []
    for i in range(n):
        texts = [text("gold" if c == 0 else "gold more", i) for c in range(len(task.text_columns))]
        rows.append(task.gold_row(f"g{i}", f"p{i}", label_of(task, i, "gold"), *texts))
    return Dataset.from_list(rows, features=task.gold_features())


def rows_of(task: Task, n: int = 20) -> Dataset:
    rows = []
    for i in range(n):
        texts = [text("synthetic" if c == 0 else "synthetic more", i) for c in range(len(task.text_columns))]
        label = label_of(task, i, "synthetic")
        told = {"source": "synthetic", "seed_ids": [f"g{i}"], "generator": "some-llm", "llm_label": label}
        told |= {"label_status": "kept", "reason": "agrees", "weight": 1.0, "label_confidence": 0.5}
        told |= {} if task.kind == "text2text" else {"label_probs": [0.5, 0.25, 0.25]}
        rows.append({**task.gold_row(f"s{i}", f"s{i}", label, *texts), **told})
    columns = {name: [row.get(name) for row in rows] for name in task.corrected_features()}
    return Dataset.from_dict(columns, features=task.corrected_features())


def put(rows: Dataset, column: str, value: Any) -> Dataset:
    values = list(rows[column])
    values[7] = value
    return rows.remove_columns(column).add_column(column, values, feature=rows.features[column])


def shipped(folder: Path) -> str:
    """Return every word of an export: tables value by value, JSON parsed, other files as they are."""
    said = []
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        if file.suffix == ".parquet":
            table = pq.read_table(file)
            said += [json.dumps(table.to_pylist(), ensure_ascii=False, default=str), str(table.schema.metadata)]
        else:
            content = file.read_bytes().decode("utf-8", "replace")
            parsed = json.dumps(json.loads(content), ensure_ascii=False) if file.suffix == ".json" else ""
            said += [content, parsed]
    return " ".join(words_of(" ".join(said)))


def stays_here(publish: Callable[[], Any], planted: str) -> bool:
    """Return whether nothing planted left: refused, or not in what is shipped."""
    try:
        verdict = publish()
    except HfSynthError as error:
        assert not any(span in str(error) for span in _spans(planted))
        return True
    assert not any(span in f"{verdict} {verdict.to_json()}" for span in _spans(planted))
    if not verdict.allowed:
        return True
    folder = " ".join(words_of(shipped(verdict.export)))
    return not any(span in folder for span in _spans(planted))


def _spans(planted: str) -> list[str]:
    words = words_of(planted)
    return [" ".join(words[i : i + 6]) for i in range(len(words) - 5)]


# --- datasets -------------------------------------------------------------------------------------------------------
STRINGS = [
    (name, column)
    for name, task in TASKS.items()
    for column, feature in task.corrected_features().items()
    if getattr(feature, "dtype", "") == "string"
]


@pytest.mark.parametrize(("name", "column"), STRINGS)
def test_a_row_of_gold_in_any_column_stays_here(name: str, column: str) -> None:
    task = TASKS[name]
    gold = gold_of(task)
    rows = put(rows_of(task), column, NOTE)
    assert stays_here(lambda: publish_dataset(task, rows, "o/x", gold=gold, push=False, export_dir="e/x"), NOTE)


@pytest.mark.parametrize("name", TASKS)
def test_rows_without_a_plant_leave(name: str) -> None:
    """The tests of this file can fail: nothing else refuses these rows."""
    task = TASKS[name]
    verdict = publish_dataset(task, rows_of(task), "o/x", gold=gold_of(task), push=False, export_dir="e/x")
    assert verdict.allowed, verdict
    assert verdict.counts["withheld"] == 0
    assert stays_here(lambda: verdict, NOTE)
    assert not stays_here(lambda: verdict, text("synthetic", 3))


def test_the_target_that_leaves_is_the_one_that_was_audited() -> None:
    """A corrector replaced the generator's targets: the export holds what the generator wrote."""
    gold, rows = gold_of(SUMMED, 200), rows_of(SUMMED, 200)
    copied = put(rows, "llm_label", gold["summary"][3])  # one row of 200: the rest may leave
    verdict = publish_dataset(SUMMED, copied, "o/x", gold=gold, push=False, export_dir="e/x")
    assert verdict.allowed, verdict
    assert verdict.counts["withheld: copy_of_gold"] == 1
    table = pq.read_table("e/x/raw/train-00000-of-00001.parquet")
    assert table["summary"].to_pylist() == [t for i, t in enumerate(rows["llm_label"]) if i != 7]
    replaced = put(rows, "summary", "a summary that the corrector wrote, which is not exported")
    verdict = publish_dataset(SUMMED, replaced, "o/x", gold=gold, push=False, export_dir="e/x")
    assert verdict.counts["rows of raw"] == 200


MEANT: dict[str, Callable[[Task], dict[str, Any]]] = {
    "label": lambda task: {"task": replace(task, labels=(NOTE, *LABELS[1:]))},
    "short label": lambda task: {"task": replace(task, labels=("sore throat since monday", *LABELS[1:]))},
    "meaning": lambda task: {"task": replace(task, label_meanings=(NOTE, "b", "c"))},
    "license": lambda task: {"task": replace(task, license=NOTE)},
    "citation": lambda task: {"task": replace(task, citation=NOTE)},
    "description": lambda task: {"task": replace(task, description=NOTE)},
    "source": lambda task: {"task": replace(task, source_url="https://example.org/" + "-".join(NOTE.split()))},
    "unverified": lambda task: {"task": replace(task, unverified=NOTE)},
    "version": lambda task: {"task": replace(task, version=NOTE)},
    "name": lambda task: {"task": replace(task, name="_".join(words_of(NOTE)))},
    "config": lambda task: {"task": replace(task, config="_".join(words_of(NOTE)))},
    "attestation": lambda task: {"attestation": NOTE},
    "policy's warning": lambda task: {"policy": Policy("posterior", 3, warnings=(NOTE,))},
    "policy's name": lambda task: {"policy": NOTE},
    "manifest's policy": lambda task: {"manifest": {"access": task.access, "policy": {"method": NOTE}}},
    "scores": lambda task: {"scores": {NOTE: Scores("n", 9, {"accuracy": 0.5}, {"accuracy": (0.4, 0.6)}, {}, [])}},
    "tag": lambda task: {"tag": "-".join(words_of(NOTE))},
    "repository": lambda task: {"repo_id": "o/" + "-".join(words_of(NOTE))},
}


@pytest.mark.parametrize("place", MEANT)
def test_a_row_of_gold_beside_the_rows_stays_here(place: str) -> None:
    told = {
        "repo_id": "o/x",
        "gold": gold_of(ONE),
        "push": False,
        "export_dir": "e/x",
        "task": ONE,
        **MEANT[place](ONE),
    }
    task = told.pop("task")
    if place == "short label":
        told["gold"] = put(told["gold"], "note", task.labels[0])
    told["gold"] = told["gold"].cast_column("label", task.label_feature())
    rows = rows_of(ONE).map(lambda row: {"task": task.full_name}).cast_column("label", task.label_feature())
    rows = rows.cast_column("llm_label", task.label_feature())
    told["gold"] = told["gold"].map(lambda row: {"task": task.full_name})
    repo_id = told.pop("repo_id")
    planted = task.labels[0] if place == "short label" else NOTE
    try:
        verdict = publish_dataset(task, rows, repo_id, **told)
    except HfSynthError:
        return
    assert not verdict.allowed or (verdict.export and " ".join(words_of(planted)) not in shipped(verdict.export))
    assert place not in ("tag", "repository", "name", "config", "label", "short label")


def test_a_label_that_looks_like_an_identifier_stays_here() -> None:
    task = replace(ONE, labels=("MRN 00417723", *LABELS[1:]))
    rows = rows_of(ONE).cast_column("label", task.label_feature()).cast_column("llm_label", task.label_feature())
    gold = gold_of(ONE).cast_column("label", task.label_feature())
    verdict = publish_dataset(task, rows, "o/x", gold=gold, push=False, dry_run=True)
    assert verdict.reasons[0] == "a label of the task looks like an identifier of a person (record_number)"
    mine = publish_dataset(
        ONE, rows_of(ONE), "o/x", gold=gold_of(ONE), push=False, dry_run=True,
        find_identifiers=lambda words: ["kind"] if words == "maybe" else [],
    )  # fmt: skip
    assert mine.reasons[0] == "a label of the task looks like an identifier of a person (one of your own kinds)"


# --- the list of files ------------------------------------------------------------------------------------------------
def test_what_is_pushed_is_what_was_checked(tmp_path: Path) -> None:
    publish_dataset(ONE, rows_of(ONE), "o/x", gold=gold_of(ONE), push=False, export_dir="e/x")
    folder, seal = Path("e/x"), sealed(Path("e/x"))
    (tmp_path / "outside.json").write_text(NOTE)
    table = folder / "corrected" / "train-00000-of-00001.parquet"
    changes: dict[str, Callable[[], object]] = {
        "1 files that were not checked": lambda: (folder / f"{NOTE}.txt").write_text("x"),
        "corrected/train-00000-of-00001.parquet": lambda: gold_of(ONE).to_parquet(table),
        "README.md": lambda: (folder / "README.md").unlink(),
        "a link": lambda: (folder / "all.json").symlink_to(tmp_path / "outside.json"),
        "link": lambda: (folder / "more").symlink_to(tmp_path, target_is_directory=True),
    }
    for number, (said, change) in enumerate(changes.items()):
        shutil.copytree(folder, tmp_path / "kept", symlinks=True)
        change()
        (tmp_path / f"copy{number}").mkdir()
        with pytest.raises(PublishError, match=said) as caught:
            copy_sealed(folder, seal, tmp_path / f"copy{number}")
        assert NOTE not in str(caught.value)
        shutil.rmtree(folder)
        shutil.move(tmp_path / "kept", folder)
    (tmp_path / "whole").mkdir()
    (folder / ".hf_synth").mkdir()  # a cache of ours, which is never pushed
    (folder / ".hf_synth" / "cache").write_text(NOTE)
    copy_sealed(folder, seal, tmp_path / "whole")
    assert sealed(tmp_path / "whole") == seal


# --- models ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def grader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grader")
    task = toy_task(access="restricted")
    rows = toy_rows(12, task=task).map(lambda row, i: {"text": text("gold", i)}, with_indices=True)
    args = TINY_ARGS | {"num_train_epochs": 1}
    return train(task, rows, base_model=tiny_base(folder / "base"), output_dir=folder / "model", args=args)


def edited(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    file = folder / name
    facts = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(change(facts)))


def _piece(folder: Path, pieces: list[str]) -> None:
    """Write a sentencepiece model of these pieces in protobuf's wire format."""
    content = b""
    for piece in pieces:
        words = piece.encode()
        inner = b"\x0a" + _varint(len(words)) + words + b"\x15\x00\x00\x80\xbf"
        content += b"\x0a" + _varint(len(inner)) + inner
    (folder / "spiece.model").write_bytes(content)


def _varint(n: int) -> bytes:
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def _tensors(folder: Path, **more: Any) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors") | more
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _named(folder: Path) -> None:
    import torch

    _tensors(folder, **{NOTE: torch.zeros(1)})


def _buried(folder: Path) -> None:
    import torch

    _tensors(folder, position_ids=torch.frombuffer(bytearray(NOTE.encode()), dtype=torch.uint8).clone())


def _larger(folder: Path) -> None:
    import torch

    _tensors(folder, **{"classifier.bias": torch.zeros(400)})


def _as_numbers(folder: Path) -> None:
    """Write a note over the numbers of a tensor of the architecture."""
    import torch
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    name = max(weights, key=lambda name: weights[name].numel())
    numbers = weights[name].flatten()
    note = torch.frombuffer(bytearray(NOTE.encode() + b" " * (-len(NOTE) % 4)), dtype=torch.float32)
    numbers[: len(note)] = note
    _tensors(folder, **{name: numbers.reshape(weights[name].shape)})


def _behind(folder: Path) -> None:
    with (folder / "model.safetensors").open("ab") as out:
        out.write(NOTE.encode())


def _slow(folder: Path, write: Callable[[Path], object]) -> None:
    (folder / "tokenizer.json").unlink()
    write(folder)


def _repeated(folder: Path) -> None:
    plain = (folder / "config.json").read_text()
    (folder / "config.json").write_text(plain.replace("{", '{"note": ' + json.dumps(NOTE) + ', "note": "",', 1))


def _escaped(folder: Path) -> None:
    plain = json.loads((folder / "config.json").read_text()) | {"note": "@@"}
    words = "".join(f"\\u{ord(c):04x}" for c in NOTE)
    (folder / "config.json").write_text(json.dumps(plain).replace("@@", words))


def _added(token: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(facts: dict[str, Any]) -> dict[str, Any]:
        tokens = [*facts["added_tokens"], {**facts["added_tokens"][0], "id": 45, "content": token, "special": False}]
        return facts | {"added_tokens": tokens}

    return change


def _in_vocabulary(*pieces: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(facts: dict[str, Any]) -> dict[str, Any]:
        vocabulary = facts["model"]["vocab"]
        vocabulary |= {piece: len(vocabulary) + n for n, piece in enumerate(pieces)}
        return facts

    return change


FILES: dict[str, Callable[[Path], object]] = {
    "config": lambda m: edited(m, "config.json", lambda f: f | {"x": NOTE}),
    "config, a key": lambda m: edited(m, "config.json", lambda f: f | {NOTE: 1}),
    "config, deep": lambda m: edited(m, "config.json", lambda f: f | {"x": [{"y": [1, {"z": NOTE}]}]}),
    "config, word by word": lambda m: edited(m, "config.json", lambda f: f | {"x": NOTE.split()}),
    "config, escapes": _escaped,
    "config, a repeated key": _repeated,
    "generation config": lambda m: edited(m, "generation_config.json", lambda f: f | {"x": NOTE}),
    "tokenizer's config": lambda m: edited(m, "tokenizer_config.json", lambda f: f | {"x": NOTE}),
    "special tokens": lambda m: edited(m, "special_tokens_map.json", lambda f: f | {"x_token": NOTE}),
    "an added token": lambda m: edited(m, "tokenizer.json", _added(NOTE)),
    "pieces": lambda m: edited(m, "tokenizer.json", _in_vocabulary(NOTE.replace(" ", "\u2581"))),
    "words as pieces": lambda m: edited(m, "tokenizer.json", _in_vocabulary(*(f"\u2581{w}" for w in NOTE.split()))),
    "a vocabulary of lines": lambda m: _slow(m, lambda m: (m / "vocab.txt").write_text(f"[UNK]\n{NOTE}\n")),
    "merges": lambda m: _slow(m, lambda m: (m / "merges.txt").write_text("\n".join(NOTE.split()))),
    "sentencepiece": lambda m: _slow(m, lambda m: _piece(m, ["<unk>", NOTE.replace(" ", "\u2581")])),
    "sentencepiece, text": lambda m: _slow(m, lambda m: (m / "spiece.model").write_text(NOTE)),
    "tokens added": lambda m: _slow(m, lambda m: edited(m, "added_tokens.json", lambda f: {NOTE: 50})),
    "names of tensors": _named,
    "bytes of tensors": _buried,
    "a tensor of another shape": _larger,
    "numbers of a tensor": _as_numbers,
    "behind the tensors": _behind,
    "facts": lambda m: edited(m, "hf_synth_facts.json", lambda f: f | {"base_model": NOTE}),
    "hyperparameters": lambda m: edited(m, "hf_synth_facts.json", lambda f: f | {"hyperparameters": {"note": NOTE}}),
}


@pytest.mark.parametrize("place", FILES)
def test_a_note_in_any_file_of_a_model_stays_here(grader: Path, tmp_path: Path, place: str) -> None:
    task, folder = toy_task(access="restricted"), tmp_path / "m"
    gold = toy_rows(12, task=task).map(lambda row, i: {"text": text("gold", i)}, with_indices=True)
    shutil.copytree(grader, folder)
    FILES[place](folder)
    told: dict[str, Any] = {"gold": gold, "push": False, "export_dir": "e/m", "membership": False}
    assert stays_here(lambda: publish_model(task, folder, None, "o/m", **told), NOTE)
    if place in ("numbers of a tensor", "bytes of tensors", "behind the tensors", "a tensor of another shape"):
        with pytest.raises(PublishError, match="model.safetensors"):
            publish_model(task, folder, None, "o/m", **told)


def test_a_model_without_a_plant_leaves(grader: Path) -> None:
    task = toy_task(access="restricted")
    gold = toy_rows(12, task=task).map(lambda row, i: {"text": text("gold", i)}, with_indices=True)
    verdict = publish_model(task, grader, None, "o/m", gold=gold, push=False, export_dir="e/m", membership=False)
    assert verdict.allowed, verdict


def test_umlauts_are_letters(grader: Path, tmp_path: Path) -> None:
    """`json.dumps` writes an umlaut as an escape: whoever loads the file reads the letter."""
    task, folder = toy_task(access="restricted"), tmp_path / "m"
    note = NOTE.translate(str.maketrans("aou", "\u00e4\u00f6\u00fc"))
    gold = toy_rows(12, task=task).map(lambda row, i: {"text": note if i == 3 else text("gold", i)}, with_indices=True)
    shutil.copytree(grader, folder)
    edited(folder, "config.json", lambda f: f | {"x": note})
    assert "\\u00e4" in (folder / "config.json").read_text()
    edited(folder, "hf_synth_facts.json", lambda f: {k: v for k, v in f.items() if k != "gold_texts"})
    refused = publish_model(task, folder, None, "o/m", gold=gold, push=False, export_dir="e/m", membership=False)
    assert "config.json holds text of gold" in refused.reasons


@pytest.mark.parametrize("token", ["Ada Weatherby MRN 00417723", "00417723", "jan.doe@example.org"])
def test_a_token_that_is_an_identifier_stays_here(grader: Path, tmp_path: Path, token: str) -> None:
    task, folder = toy_task(access="restricted"), tmp_path / "m"
    gold = toy_rows(12, task=task).map(lambda row, i: {"text": text("gold", i)}, with_indices=True)
    told: dict[str, Any] = {"gold": gold, "push": False, "dry_run": True, "membership": False}
    for change in (_added(token), _in_vocabulary(token)):
        shutil.copytree(grader, folder)
        edited(folder, "tokenizer.json", change)
        refused = publish_model(task, folder, None, "o/m", **told)
        assert "tokenizer.json holds a token that looks like an identifier" in refused.reasons[0], refused
        assert token not in str(refused)
        shutil.rmtree(folder)


def test_a_phrase_of_one_patient_is_no_token(grader: Path, tmp_path: Path) -> None:
    task, folder = toy_task(access="restricted"), tmp_path / "m"
    shutil.copytree(grader, folder)
    edited(folder, "tokenizer.json", _added("Ada Weatherby"))

    def ask(*named: int) -> Any:
        words = [f"{text('gold', i)} {'seen by ada weatherby' if i in named else ''}" for i in range(12)]
        gold = toy_rows(12, task=task).map(lambda row, i: {"text": words[i], "group": f"p{i}"}, with_indices=True)
        facts = json.loads((folder / "hf_synth_facts.json").read_text()) | {"row_digests": [], "gold_texts": 0}
        (folder / "hf_synth_facts.json").write_text(json.dumps(facts))
        return publish_model(task, folder, None, "o/m", gold=gold, push=False, dry_run=True, membership=False)

    assert ask(2).reasons[0].startswith("1 tokens that were added to the vocabulary are phrases of one or two notes")
    assert ask(1, 2, 3).allowed
    assert ask().allowed


def test_pieces_stand_for_words() -> None:
    assert piece_as_text("\u2581chest") == " chest"
    assert piece_as_text("\u0120chest") == " chest"
    assert piece_as_text("##ing") == "ing"
    assert piece_as_text("Ã¤rzte") == "ärzte"  # the bytes of an umlaut in byte-level BPE
    assert piece_as_text("naïve") in ("naïve", "na\ufffdve")


@pytest.mark.parametrize("joint", ["-", ".", "/", "_"])
def test_a_generators_name_made_of_gold_stays_here(joint: str) -> None:
    leak = joint.join(NOTE.split()[:14])
    rows = put(rows_of(ONE), "generator", leak)
    assert stays_here(lambda: publish_dataset(ONE, rows, "o/x", gold=gold_of(ONE), push=False, export_dir="e/x"), leak)
