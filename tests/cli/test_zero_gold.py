"""The start without gold, by its verbs: each says what may be claimed, and leads to the next one."""

from __future__ import annotations

import json
import shlex
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


SCRIPT = """
from hf_synth.task import Task
TASKS = {"default": Task.from_columns(
    "reflux", text_columns="text", label_column="label", labels=("mild", "severe"),
    label_meanings=("heartburn that needs no treatment", "heartburn with loss of weight"), access="open")}
"""


def test_each_command_names_the_script_of_an_own_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reflux.py").write_text(SCRIPT, encoding="utf-8")
    generate = ("generate", "reflux.py", "--no-gold", "--llm", "simulator", "--prompt", "attributes", "--n", 12)
    _, said = run(capsys, *generate, "--out", "work/synthetic")
    assert "next: hf-synth review work/synthetic --task reflux.py --n 12" in said
    Path("hf_synth.toml").write_text('llm = "simulator"\n', encoding="utf-8")  # gives `review` nothing
    assert "next: hf-synth review work/synthetic --task reflux.py --n 50" in run(capsys, "status", "work")[1]
    Path("hf_synth.toml").unlink()
    rows = [row for row in read_dataset(Path("work/synthetic")) if row["label_status"] == "kept"]
    head = {"review": 1, "kind": "labels", "task": "reflux", "reviewer": "Anna"}
    log = Log(review_folder(Path("work/synthetic")) / "labels" / "Anna.jsonl", head)
    make_gold = "hf-synth gold reflux.py work/synthetic --from-review --out work/gold"
    for i, row in enumerate(rows[:10]):
        if i == 4:
            assert "hf-synth review work/synthetic --task SCRIPT.py --n 50" in run(capsys, *make_gold.split()[1:])[1]
        log.append({"do": "label", "row": row["id"], "label": ("mild", "severe")[row["llm_label"]]})
    log.close()
    assert f"next: {make_gold}" in run(capsys, "status", "work")[1]
    _, said = run(capsys, "review", "work/synthetic", "--task", "reflux.py", "--reviewer", "Anna", "--export")
    assert f"then: {make_gold}" in said

    _, said = run(capsys, *shlex.split(make_gold)[1:])
    assert "next: hf-synth correct reflux.py work/gold_rest --gold work/gold" in said
    _, said = run(capsys, "status", "work")
    assert "out of date" not in said
    assert "next: hf-synth correct reflux.py work/gold_rest --gold work/gold" in said
    assert said.splitlines()[-1].endswith(" --method none --out work/corrected"), "no label was wrong"
    code, said = run(capsys, "correct", "work/gold", "work/gold_rest", "--out", "work/corrected")
    assert code == 1
    assert "the task 'reflux' of work/gold is defined by a script" in said
    assert "name it, e.g. `hf-synth correct SCRIPT.py NOTES --gold work/gold`" in said
    code, said = run(capsys, "review", "work/synthetic", "--export")
    assert code == 1
    assert "`hf-synth review work/synthetic --task SCRIPT.py`" in said

    Path("reflux.py").write_text("raise SystemExit('run')", encoding="utf-8")  # `status` names it, and never runs it
    assert "next: hf-synth correct reflux.py" in run(capsys, "status", "work")[1]
    Path("reflux.py").rename("elsewhere.py")
    assert "next: hf-synth correct SCRIPT.py" in run(capsys, "status", "work")[1]


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


def test_a_judge_of_facts_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "notes"
    code, said = run(capsys, "generate", "clinic", "--llm", "simulator", "--n", 4, "--check-facts", "llm", "--out", out)
    assert (code, out.exists()) == (1, False)
    assert "give --prompt facts" in said
