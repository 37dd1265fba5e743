"""A preview makes the first calls of the run, shows all of them, and is not paid for again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from support.llm_server import LLMServer, Said, entries, serving

from hf_synth.cli.cli import main
from hf_synth.generation.generation import generate, generate_with_figures
from hf_synth.generation.preview import preview
from hf_synth.llm.llm import LLM
from hf_synth.task.task import Prompt, Task

TASK = Task.from_columns(
    "notes", text_columns="text", label_column="label", labels=["calm", "urgent"], access="open",
    prompts=(Prompt(system="You write.", instruction="Write notes.", rows=2),),
)  # fmt: skip


def gold() -> Dataset:
    rows = [TASK.gold_row(f"g{i}", None, i % 2, f"Gold note {i} <b>with</b> marks.") for i in range(20)]
    return Dataset.from_list(rows, features=TASK.gold_features())


def llm_of(server: LLMServer, folder: Path) -> LLM:
    return LLM("m", base_url=server.url, journal=folder / "j.sqlite", price=(1_000.0, 2_000.0), concurrency=4)


@pytest.fixture
def writer() -> Iterator[LLMServer]:
    with serving(lambda request, _: Said(entries(request))) as server:
        yield server


def test_a_preview_shows_all_and_the_run_goes_on_from_it(writer: LLMServer, tmp_path: Path) -> None:
    made = preview(TASK, gold(), llm_of(writer, tmp_path), 40, rows=5)
    first = [json.dumps(r["messages"]) for r in writer.requests]
    assert (len(first), made.kept, len(made.calls)) == (2, 8, 2)  # two rows of each of two labels a call
    text = made.text()
    for one in made.calls:
        assert one.call.messages[-1]["content"] in text
        assert one.answer.text in text
        assert all(str(row["text"]) in text and verdict == "kept" for row, verdict in one.entries if row)
    assert made.figures()["preview_cost_usd"] == pytest.approx(2 * (10 * 1_000 + 20 * 2_000) / 1e6)
    assert (made.calls_in_all, made.cost_usd) == (10, pytest.approx(10 * 0.05))
    rows = generate(TASK, gold(), llm_of(writer, tmp_path), 40)
    assert [json.dumps(r["messages"]) for r in writer.requests[:2]] == first
    assert len(writer.requests) == 10  # none of the two was asked for again
    shown = [row["text"] for one in made.calls for row, _ in one.entries if row]
    assert rows["text"][:8] == shown


def test_a_preview_is_as_strict_as_the_model_that_wrote_it(writer: LLMServer, tmp_path: Path) -> None:
    class Learnt(LLM):
        access = "credentialed"  # as of a LocalLLM that was trained on such notes

    llm = Learnt("m", base_url=writer.url, journal=tmp_path / "j.sqlite")
    assert preview(TASK, gold(), llm, 4, rows=2).access == "credentialed"


def test_a_preview_says_what_the_gates_say(tmp_path: Path) -> None:
    said = [{"text": "Gold note 3 <b>with</b> marks.", "label": "calm"}, {"text": "Fine now, all quiet.", "label": "x"}]
    with serving(lambda *_: Said(json.dumps({"entries": said}))) as server:
        made = preview(TASK, gold(), llm_of(server, tmp_path), 40, rows=1)
    verdicts = [verdict for _, verdict in made.calls[0].entries]
    assert len(verdicts) == 2
    assert "kept" not in verdicts
    assert (made.kept, made.calls_in_all) == (0, None)
    assert "No row was kept" in made.text()
    page = made.write(tmp_path / "page")
    html = page.read_text(encoding="utf-8")
    assert "Gold note 3 &lt;b&gt;with" in html
    assert page.stat().st_mode & 0o077 == 0


def test_the_command_previews_then_goes_on(
    writer: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["--llm", "m", "--base-url", writer.url, "--n", "40", "--seed", "1", "-q", "--json"]
    argv = ["generate", "clinic", *common, "--out", str(tmp_path / "syn")]
    assert main([*argv, "--preview", "1"]) == 0
    out = capsys.readouterr().out
    facts: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert "--- prompt, user ---" in out
    assert Path(facts["preview"]).is_file()
    asked = len(writer.requests)
    assert asked == facts["preview_calls"] == 1
    assert not (tmp_path / "syn").exists()
    assert main(argv) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["from_journal"] == 1
    assert len(writer.requests) == facts["calls"]
    assert main([*argv, "--preview", "0"]) == 2


def test_a_preview_without_a_good_row_is_exit_code_1_and_obeys_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(lambda *_: Said("I cannot \x1b]0;owned\x07 \x1b[2J\x9b31m write notes.")) as server:
        words = ["generate", "clinic", "--llm", "m", "--base-url", server.url, "--n", "9", "--gold-size", "20"]
        assert main([*words, "--out", "o", "--preview", "1", "-q"]) == 1
    out, error = capsys.readouterr()
    assert error.startswith(
        "hf-synth: no note was made: the answer is not in the form that was asked for, 1 of 1 times; "
    )
    assert "goes on from here" not in out
    assert "\\x1b]0;owned\\x07" in out
    assert not set("\x1b\x07\x9b") & set(out)


def test_answers_of_which_no_row_is_wanted_are_paid_for_too(tmp_path: Path) -> None:
    def calm(request: dict[str, Any], number: int) -> Said:
        rows = [{"text": f"Quiet ward, note {number} {i} of the night.", "label": "calm"} for i in range(2)]
        return Said(json.dumps({"entries": rows}))

    with serving(calm) as server:
        _, figures = generate_with_figures(TASK, gold(), llm_of(server, tmp_path), 4, max_calls=6)
        asked = len(server.requests)
    assert (figures["prompt_tokens"], figures["completion_tokens"]) == (10 * asked, 20 * asked)
    assert figures["cost_usd"] == pytest.approx(asked * 0.05)
