"""The Python blocks of the README run as they stand, on artificial notes, a simulator, a tiny model and a local Hub."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.gold_files import WRITERS, write_csv
from support.tiny import tiny_base

from hf_synth import list_tasks, load_gold, load_task
from hf_synth.demo.clinic import write_notes
from hf_synth.demo.simulator import running_simulator
from hf_synth.hub import connected, running_hub

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"<!-- run: (\w+) -->\n```python\n(.*?)```", README, re.DOTALL))


def eso_folder(folder: Path) -> Path:
    folder.mkdir()
    for k, (split, n) in enumerate((("train", 60), ("validation", 40), ("test", 40))):
        rows = [[f"{split}{note.patient_id}", note.text, str(note.grade)] for note in write_notes(n, seed=50 + k)]
        write_csv(folder / f"{split}.csv", ["patient_id", "text", "grade"], rows)
    return folder


def test_every_block_is_run() -> None:
    assert set(BLOCKS) == {"journey", "publish", "pull", "columns", "register"}
    assert README.count("```python") == len(BLOCKS)


def test_the_journey_publish_and_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = tiny_base(tmp_path / "base")
    eso = eso_folder(tmp_path / "eso")
    names: dict[str, object] = {}
    with running_simulator(seed=0) as url, running_hub(tmp_path / "hub") as hub, connected(hub):
        here = {"/secure/eso": str(eso), "emilyalsentzer/Bio_ClinicalBERT": str(base), "http://127.0.0.1:8000/v1": url}
        with_token = {
            f'"org/{name}"': f'"org/{name}", token={hub.token!r}'
            for name in ("synth-esophagitis", "esophagitis-grader")
        }
        for block in ("journey", "publish", "pull"):
            code = BLOCKS[block]
            for old, new in (here | ({} if block == "journey" else with_token)).items():
                code = code.replace(old, new)
            exec(compile(code, f"README.md ({block})", "exec"), names)
            if block == "publish":
                verdict = names["verdict"]
                assert verdict.pushed, str(verdict)  # type: ignore[attr-defined]
                assert verdict.private  # type: ignore[attr-defined]
    assert names["synthetic"].features["label"].names == ["grade_0", "grade_1", "grade_2", "grade_3"]  # type: ignore[attr-defined]


def test_own_columns(tmp_path: Path) -> None:
    rows = [[f"Made-up note {i}.", "low" if i % 2 else "high"] for i in range(40)]
    write_csv(tmp_path / "triage.csv", ["note", "urgency"], rows)
    names: dict[str, object] = {}
    exec(BLOCKS["columns"].replace("/secure/triage.csv", str(tmp_path / "triage.csv")), names)
    assert len(names["gold"]) == 3  # type: ignore[arg-type]


def test_registered_builders(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    exec(BLOCKS["register"].replace("/secure/mednli", str(WRITERS["mednli"](tmp_path / "mednli"))), names)
    assert set(names["mednli"]) == {"train", "validation", "test"}  # type: ignore[call-overload]


def test_every_task_stands_in_the_table() -> None:
    table = README.split("## Tasks")[1].split("```")[0]
    for task in list_tasks():
        assert f"| `{task.name}` |" in table
        row = next(line for line in table.splitlines() if line.startswith(f"| `{task.name}` |"))
        assert task.config == "default" or f"`{task.config}`" in row
        assert task.access in row
        assert all(suite in row for suite in task.suites if suite != "extra")


def test_numbers_named_in_the_readme_are_the_codes() -> None:
    task = load_task("clinic")
    assert len(load_gold(task, n_train=10, n_validation=2, n_test=2)["train"]) == 10
