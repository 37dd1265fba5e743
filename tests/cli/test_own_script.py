"""The task script in the commands of `status`: that of the newest run, and never one that came with the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hf_synth.cli.own_script import UNKNOWN_SCRIPT, is_script, script_of
from hf_synth.cli.stages import Stage


def stage(path: Path, *, task: str = "reflux", when: float = 1.0, script: object = None, **facts: Any) -> Stage:
    path.mkdir(exist_ok=True)
    if script is not None:
        (path / "hf_synth_run.toml").write_text(f'[generate]\ntask = "{script}"\n', encoding="utf-8")
    return Stage("generate", path, task, "1.0.0", when, facts)


def test_the_newest_run_names_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("old.py", "new.py"):
        Path(name).write_text("raise SystemExit", encoding="utf-8")
    stages = [
        stage(tmp_path / "b", when=2.0, script=f"{tmp_path}/new.py:by_week"),
        stage(tmp_path / "a", when=1.0, script=tmp_path / "old.py"),
        stage(tmp_path / "c", when=3.0),  # of the Python API
    ]
    assert script_of(stages) == "new.py:by_week"
    Path("new.py").unlink()
    assert script_of(stages) == "old.py"
    monkeypatch.chdir(tmp_path / "a")
    assert script_of(stages) == str(tmp_path / "old.py")


def test_a_script_that_came_with_the_data_is_not_named(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "evil.py"
    found = stage(tmp_path / "a", script=inside)
    inside.write_text("raise SystemExit", encoding="utf-8")
    assert script_of([found]) == UNKNOWN_SCRIPT


@pytest.mark.parametrize(
    ("task", "facts", "expected"),
    [
        ("clinic:facts", {}, None),
        ("triage", {"definition": {}}, None),
        ("", {}, None),
        ("reflux", {}, UNKNOWN_SCRIPT),
    ],
)
def test_folders_that_lead_to_their_task(
    task: str, facts: dict[str, Any], expected: str | None, tmp_path: Path
) -> None:
    assert script_of([stage(tmp_path / "a", task=task, **facts)]) == expected
    for broken in ("[generate", "task = 3", "[generate]\ntask = 3", 'generate = "x.py"'):
        (tmp_path / "a" / "hf_synth_run.toml").write_text(broken, encoding="utf-8")
        assert script_of([stage(tmp_path / "a", task=task, **facts)]) == expected
    assert script_of([]) is None


@pytest.mark.parametrize(("task", "expected"), [
    ("reflux.py", True), ("a/reflux.py:by_week", True), ("clinic:facts", False), ("work/gold", False),
])  # fmt: skip
def test_is_script(task: str, expected: bool) -> None:
    assert is_script(task) is expected
