"""Shards and their merge from the command line: paths, machines that differ, and what stays after a refusal."""

from __future__ import annotations

import shlex
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict
from support.cluster_rows import audit_words
from support.llm_server import Said, entries, serving
from support.tiny import toy_rows
from support.toy_experiment import TASK, as_synthetic

from hf_synth.cli.cli import main, parse_command
from hf_synth.cli.cluster import how_of
from hf_synth.cli.repeated import words_on_one_machine
from hf_synth.cluster import work as cluster_work
from hf_synth.publishing import publishing
from hf_synth.task import arrow
from hf_synth.task.folders import write_stage


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Gold and synthetic rows in a folder whose name has a space."""
    folder = tmp_path / "my work"
    write_stage(TASK, DatasetDict(train=toy_rows(12, 1), validation=toy_rows(9, 2)), folder / "gold", stage="gold")
    write_stage(TASK, as_synthetic(list(toy_rows(20, 4))), folder / "synthetic", stage="generate")
    return folder


def test_a_merge_by_another_path_after_shards_of_two_versions(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(arrow, "BLOCK_ROWS", 7)
    out = str(work / "audited")
    version = cluster_work.__version__
    monkeypatch.setattr(cluster_work, "__version__", "0.0.1")
    assert main(audit_words(work, "--shard", "0/2")) == 0
    assert f"next: hf-synth merge '{out}'\n" in capsys.readouterr().out, "the command can be pasted"
    monkeypatch.setattr(cluster_work, "__version__", version)
    assert main(audit_words(work, "--shard", "1/2")) == 0
    assert main(["merge", out]) == 1
    said = capsys.readouterr().err
    assert "2 of the 3 blocks" in said
    assert "2 of them are there as made of other rows, of another model or by another version" in said
    assert f"(this is {version})" in said
    assert main(audit_words(work, "--shard", "0/2")) == 0
    (link := work.parent / "link").symlink_to(work)
    assert main(["merge", str(link / "gold" / ".." / "audited")]) in (0, 1)
    assert (work / "audited" / "audit.md").is_file()
    assert not (work / "audited" / ".hf_synth" / "blocks").exists()


def test_a_merge_has_a_journal_of_its_own_machine(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The last shard's journal lies on a disk of its node; before, the merge could use no other one."""
    asked = 0

    def answer(request: dict[str, Any], _: int) -> Said:
        nonlocal asked
        asked += 1
        return Said("no" if asked < 3 else entries(request))  # rejected answers: the merge asks for others

    node = work / "node"
    with serving(answer) as server:
        url = ["--base-url", server.url]
        command = ["generate", str(work / "gold"), "--llm", "m", "--n", "6", "--out", str(work / "new"), *url]
        assert main([*command, "--journal", str(node / "notes.sqlite"), "--shard", "0/1"]) == 0
        for file in node.iterdir():
            file.unlink()
        node.rmdir()
        node.write_text("no folder on this machine")
        assert main(["merge", str(work / "new")]) == 1
        assert "journal" in capsys.readouterr().err
        assert main(["merge", str(work / "new"), "--journal", str(work / "here.sqlite"), *url]) == 0
    assert (work / "here.sqlite").is_file()
    assert main(audit_words(work, "--shard", "0/1")) == 0
    assert main(["merge", str(work / "audited"), *url]) == 2
    assert "`audit` asks no LLM: leave --base-url out" in capsys.readouterr().err


def test_a_refused_export_keeps_its_blocks(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = Namespace(allowed=False, pushed=False, to_json=dict)
    monkeypatch.setattr(publishing, "export_scanned", lambda *_, **__: verdict)
    out = work / "export"
    command = ["publish", str(work / "gold"), str(work / "synthetic"), "--gold", str(work / "gold")]
    assert main([*command, "--repo-id", "o/n", "--out", str(out), "--shard", "0/1"]) == 0
    for _ in range(2):
        assert main(["merge", str(out)]) == 1
    assert list(out.rglob("*.parquet")), "no folder is written, and a later merge scans nothing again"


def test_the_command_after_a_merge_is_the_one_that_the_shards_were_given(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It named the file of the blocks, which the merge deletes; after Ray it named options that --push refuses."""
    out = work / "export"
    command = ["publish", "--shard=0/1", str(work / "gold"), str(work / "synthetic"), "--gold", str(work / "gold")]
    command += ["--contact", 300 * "a"]  # longer than the name of a file may be
    assert main([*command, "--repo-id", "o/n", "--out", str(out)]) == 0
    capsys.readouterr()
    (work / ".hf_synth").mkdir()
    (work / ".hf_synth" / "merged").write_text("")  # what was merged cannot be recorded
    assert main(["merge", str(out)]) == 0
    words = [word for word in [*command, "--repo-id", "o/n", "--out", str(out)] if word != "--shard=0/1"]
    assert f"next: {shlex.join(['hf-synth', *words, '--push'])}" in capsys.readouterr().out
    typed = ["publish", "--engine", "ray", "task", "--workers", "2", "rows", "--address=auto"]
    assert words_on_one_machine(typed) == ["publish", "task", "rows"]


def test_a_command_that_is_no_longer_whole_is_said(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(audit_words(work, "--shard", "0/1")) == 0
    (file,) = (work / "audited").rglob("command.toml")
    for text in ("", "x = 1\n", "[nothing]\nx = 1\n", "[audit]\n[publish]\n"):
        file.write_text(text)
        assert main(["merge", str(work / "audited")]) == 1
        assert "no longer what a shard wrote: run one shard again" in capsys.readouterr().err
    file.with_name("words.json").unlink()  # of an earlier version
    assert main(audit_words(work, "--shard", "0/1")) == 0
    file.with_name("words.json").write_text("{")
    assert main(["merge", str(work / "audited")]) == 0


def test_a_shard_that_is_started_again_after_the_merge_asks_nothing(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It paid for its answers again where its journal was gone, and left blocks in a folder that may be published."""
    out = work / "new"

    def shard(journal: str, *more: str) -> str:
        capsys.readouterr()
        own = ["--journal", str(work / journal), "--shard", "0/1"]
        assert main([*command, *own, *more]) == 0
        return capsys.readouterr().out

    with serving(lambda request, _: Said(entries(request))) as server:
        command = ["generate", str(work / "gold"), "--llm", "m", "--n", "6", "--base-url", server.url, "--out"]
        command.append(str(out))
        assert "next: hf-synth merge" in shard("a.sqlite")
        asked = len(server.requests)
        assert main([*command, "--journal", str(work / "b.sqlite")]) == 1
        assert "has answers of shards, which one process does not read: run the missing" in capsys.readouterr().err
        assert main([*command, "--dry-run"]) == 0
        assert len(server.requests) == asked
        assert main(["merge", str(out), "--journal", str(work / "a.sqlite")]) == 0
        whole = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
        asked = len(server.requests)
        assert "nothing to do, since" in shard("b.sqlite")
        assert len(server.requests) == asked
        assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == whole
        assert main(["merge", str(out)]) == 1
        assert "was merged already, and no shard" in capsys.readouterr().err
        assert "next: hf-synth merge" in shard("b.sqlite", "--seed", "1"), "another command has blocks of its own"
        (work / "new" / "train.parquet").touch()
        assert "next: hf-synth merge" in shard("b.sqlite"), "the output is another one"
    assert main(audit_words(work, "--shard", "0/1")) == 0
    assert main(["merge", str(work / "audited")]) == 0
    capsys.readouterr()
    assert main(audit_words(work, "--shard", "0/1")) == 0
    assert "nothing to do" in capsys.readouterr().out
    labelled = [{**row, "label": 0} for row in as_synthetic(list(toy_rows(20, 4)))]  # the texts are the same
    write_stage(TASK, as_synthetic(labelled), work / "synthetic", stage="generate")
    assert main(audit_words(work, "--shard", "0/1")) == 0
    assert "next: hf-synth merge" in capsys.readouterr().out
    assert main(["merge", str(work / "audited")]) == 0
    assert len(list((work / ".hf_synth" / "merged").glob("audited-*"))) == 1


def test_answers_that_never_come_can_be_done_without(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A shard with one question that the server cannot answer could never end."""
    words = ["label", str(work / "gold"), str(work / "synthetic"), "--llm", "m", "--out", str(work / "labelled")]
    assert main([*words, "--accept-failed"]) == 2
    assert "--accept-failed is for --shard and --engine" in capsys.readouterr().err
    folders = set()
    for more in ([], ["--accept-failed"]):
        how = how_of(parse_command([*words, "--shard", "0/1", *more])[1])
        assert how["accept_failed"] is bool(more)
        folders.add(how["folder"])
    (folder,) = folders  # the blocks are the same
    assert parse_command(["label", "--config", str(folder / "command.toml")])[1].accept_failed is True
