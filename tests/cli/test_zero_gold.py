"""The start without gold, by its verbs: each says what may be claimed, and leads to the next one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_synth.cli.cli import main
from hf_synth.demo.simulator import true_label
from hf_synth.gold.adoption import read_dataset
from hf_synth.review.log import Log
from hf_synth.review.session import review_folder
from hf_synth.task.folders import read_manifest


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_from_definitions_to_reviewed_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes, gold = tmp_path / "synthetic", tmp_path / "gold"
    llm = ("--llm", "simulator", "--no-config")
    code, said = run(capsys, "generate", "clinic:facts", "--no-gold", *llm, "--n", 24, "--out", notes)
    assert code == 0
    assert "what may be claimed: an LLM wrote these notes from definitions. Nothing shows that" in said
    assert "state every fact by the first answer" in said
    assert f"next: hf-synth review {notes} --n 24" in said
    facts = read_manifest(notes) or {}
    assert facts["no_gold"] is True
    assert facts["gold_rows"] == 0
    assert facts["prompt"] == "facts"
    rows = [row for row in read_dataset(notes) if row["label_status"] == "kept"]
    assert len(rows) == 24

    head = {"review": 1, "kind": "labels", "task": "clinic:facts", "reviewer": "Anna"}
    log = Log(review_folder(notes) / "labels" / "Anna.jsonl", head)
    for row in rows[:16]:
        log.append({"do": "label", "row": row["id"], "label": f"grade_{true_label(row['text'])}"})
    log.close()
    code, said = run(capsys, "gold", notes, "--from-review", "--no-config", "--out", gold)
    assert code == 0
    assert "It is no gold of real notes" in said
    assert f"next: hf-synth correct {gold} {gold}_rest" in said
    assert (read_manifest(gold) or {})["from_review"]["no_gold"] is True
    assert set(read_dataset(gold)["source"][:]) == {"synthetic"}
    rest = [row for row in read_dataset(Path(f"{gold}_rest")) if row["label_status"] == "kept"]
    assert {row["id"] for row in rest} == {row["id"] for row in rows[16:]}

    code, said = run(capsys, "correct", gold, f"{gold}_rest", "--method", "none", "--no-config",
                     "--out", tmp_path / "corrected")  # fmt: skip
    assert code == 0
    assert "what may be claimed: no label was corrected: each is what the LLM was asked for." in said
    code, said = run(capsys, "augment", gold, tmp_path / "corrected", "--no-config", "--out", tmp_path / "training")
    assert code == 0
    assert "what may be claimed: no row of this training set is a real note." in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("generate", "clinic", "--no-gold", "--prompt", "examples_of_mine"), "has no prompt 'examples_of_mine'"),
        (("generate", "clinic", "--no-gold", "--prompt", "rewrite"), "--prompt rewrite shows gold"),
        (("generate", "clinic", "--no-gold", "--gold-size", "5"), "--gold-size needs gold"),
        (("generate", "clinic", "--no-gold", "--balance", "fill"), "--balance needs gold"),
        (("gold", "clinic", "--from-review"), "clinic is no folder that `generate` wrote"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llm = ("--llm", "simulator", "--n", "4") if words[0] == "generate" else ()
    code, said = run(capsys, *words, *llm, "--no-config", "-q", "--out", tmp_path / "out")
    assert code == 1
    assert message in said
    assert not (tmp_path / "out").exists()


def test_an_estimate_needs_no_gold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("generate", "clinic:facts", "--no-gold", "--llm", "simulator", "--n", 8, "--dry-run", "--json", "-q")
    code, said = run(capsys, *words)
    assert code == 0
    assert json.loads(said.splitlines()[-1])["calls"] == 8
    assert not list(tmp_path.iterdir())
