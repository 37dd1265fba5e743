"""The examples run as they stand. The default suite runs the cheapest one; the others are slow."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hf_synth import Task, load_gold
from hf_synth.errors import RowError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
CHEAPEST = "own_task.py"
PULL = "use_published_model.py"  # run by triage/run.sh, which makes what it pulls
PRINTED = {  # what each script prints
    "audit_before_publishing.py": (
        r"a copy: .*copy_of_gold",
        r"half of a note: .*copied_span",
        r"some words changed: near_copy",
        r"a date: date_or_age",
        r"verdict: refuse; 4 of 204 rows",
        r"with the planted notes: refused",
        r"without them: allowed",
    ),
    "gold_equivalence.py": (r"simulated: 100 gold \+ 300 synthetic is worth \d+ gold notes \(95% CI", r"report\.html"),
    "map_generate_and_correct.py": (r"1 -> n: 20 gold rows became 6\d synthetic rows", r"1 -> 1: 20 rows, 0 of them"),
    "own_endpoint.py": (
        r"first: 60 notes, \$0\.0[1-9]",
        r"same again: 60 notes, \$0\.0000",
        r"twice as many: 120 notes",
        r"budget of \$0\.50: \d{3} notes, \$0\.4\d* spent",
    ),
    "own_task.py": (r"calls: 8 train, 1 validation, 3 test", r"[6-8] new calls by the simulator"),
    "person_in_the_loop.py": (
        r"60 labels by a person",
        r"The promise holds: at most 10%",
        r"looked at \d+ of 400 rows",
    ),
    "several_annotators.py": (r"by llm_label: 8\d", r"by llm_label_small: [56]\d", r"by measured: 9\d"),
}


def run(command: list[str], work: Path, **environment: str) -> str:
    """Run a command from another folder, with Hugging Face's caches in a temporary one; return what it printed."""
    own = {**os.environ, "HF_HOME": str(work / "home"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
    done = subprocess.run(command, cwd=work, env=own, capture_output=True, text=True, check=False, timeout=1_500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name != CHEAPEST else []) for name in PRINTED]
)
def test_a_script_runs_as_it_stands(name: str, tmp_path: Path) -> None:
    printed = run([sys.executable, str(EXAMPLES / name)], tmp_path)
    for pattern in PRINTED[name]:
        assert re.search(pattern, printed), f"{pattern} is not in\n{printed}"


def test_every_example_is_run_and_listed() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {*PRINTED, PULL}
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for name in (*PRINTED, PULL, "quickstart.ipynb", "triage/README.md"):
        assert f"({name})" in listed, name


@pytest.mark.slow
def test_triage_from_the_table_to_the_pulled_model(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    small = {"BASE_MODEL": "tiny", "STEPS": "20", "N": "60", "PORT": port}
    printed = run(["bash", str(EXAMPLES / "triage" / "run.sh"), str(tmp_path / "work")], tmp_path, **small)
    for pattern in (
        r"triage: 172 train, 21 validation, 43 test",
        r"correction by agree",
        r"allowed: dataset local/triage-messages, access open(?s:.*)published: http://127",
        r"allowed: model local/triage-model, access open(?s:.*)published: http://127",
        r"columns id, Message, Priority",
        r"(urgent|routine|admin) \(0\.\d+\): My chest feels tight",
    ):
        assert re.search(pattern, printed), f"{pattern} is not in\n{printed}"
    assert (tmp_path / "work" / "run" / "report.html").is_file()


def test_triage_readme_names_the_commands_of_the_script() -> None:
    """At most six commands, each as in the script, but for the names of folders."""
    readme = (EXAMPLES / "triage" / "README.md").read_text(encoding="utf-8")
    script = (EXAMPLES / "triage" / "run.sh").read_text(encoding="utf-8")
    typed = "\n".join(blocks(readme))
    verbs = [re.findall(r"^ *(hf-synth \w+(?: serve)?)", text, re.MULTILINE) for text in (typed, script)]
    assert verbs[0] == verbs[1]
    assert len(verbs[0]) <= 6
    options = [set(re.findall(r"--[a-z-]+", typed)), set(re.findall(r"--[a-z-]+", script))]
    assert options[0] <= options[1], options[0] - options[1]


def blocks(text: str) -> list[str]:
    return re.findall(r"```bash\n(.*?)```", text, re.DOTALL)


def test_the_messages_have_the_quirks_that_the_readme_names() -> None:
    columns: dict[str, Any] = {"text_columns": "Message", "label_column": "Priority", "group_column": "Patient ID"}
    table = EXAMPLES / "triage" / "messages.csv"
    raw = table.read_bytes()
    assert raw.endswith(b";;;\r\n")
    with pytest.raises(UnicodeDecodeError):
        raw.decode("utf-8")
    task = Task.from_columns("triage", labels=["urgent", "routine", "admin"], access="open", **columns)
    with pytest.raises(RowError, match=r"5 rows cannot be read.*line 70 \(71 in an editor\): .*'urgnet'"):
        load_gold(task, table)
    task = Task.from_columns("triage", labels=["urgent", "routine", "admin", "urgnet"], access="open", **columns)
    rows = load_gold(task, table, skip_empty=True)
    labels = Counter(task.labels[y] for part in rows.values() for y in part["Priority"])
    assert labels == {"urgent": 38, "routine": 112, "admin": 85, "urgnet": 1}
    texts = Counter(text for part in rows.values() for text in part["Message"])
    assert sorted(texts.values())[-3:] == [1, 2, 2], "two messages came twice, no other"


NOTEBOOK = EXAMPLES / "quickstart.ipynb"


def code_cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_has_the_outputs_of_one_run() -> None:
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell["outputs"]) for cell in cells) >= len(cells) - 2
    kinds = Counter(output["output_type"] for cell in cells for output in cell["outputs"])
    assert "error" not in kinds
    assert not re.search(r"/(tmp|home|root|work|Users)/", json.dumps(cells)), "a path of the machine"


@pytest.mark.slow
def test_the_notebook_runs() -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, 4)
    stored = [cell["outputs"] for cell in notebook.cells if cell.cell_type == "code"]
    nbclient.NotebookClient(
        notebook, timeout=1_200, kernel_name="python3", resources={"metadata": {"path": str(EXAMPLES)}}
    ).execute()
    again = [cell["outputs"] for cell in notebook.cells if cell.cell_type == "code"]

    def tables(outputs: list[Any]) -> list[Any]:
        return [o["data"]["text/plain"] for o in outputs if "data" in o]

    assert [tables(o) for o in again[:5]] == [tables(o) for o in stored[:5]], "what no model decides is the same"
