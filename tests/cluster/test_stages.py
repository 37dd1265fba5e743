"""Verbs in shards: what is merged has the bytes of a run in one process, and nothing is computed twice."""

from __future__ import annotations

import json
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Dataset, load_dataset
from support.blocks import blocks
from support.cluster_rows import CANARY, audit_words, files_of, make_journey
from support.judges import voting
from support.kinds import SETS, generated, sets_gold
from support.llm_server import Said, content, entries, serving
from support.tiny import toy_rows
from support.toy_experiment import TASK

from hf_synth.cli.cli import main, parse_command
from hf_synth.cluster.stages import audit_work, opinion_work
from hf_synth.cluster.work import Work, parse_shard, run_here
from hf_synth.correction import opinions
from hf_synth.correction.correction import correct_with_policy
from hf_synth.correction.judging import LLMJudge
from hf_synth.correction.methods import CorrectionOptions
from hf_synth.errors import ColumnError
from hf_synth.generation import blocks as generation
from hf_synth.llm.llm import LLM
from hf_synth.privacy.audit import audit as audit_rows
from hf_synth.privacy.audit import audit_of_blocks
from hf_synth.task import arrow
from hf_synth.task.folders import write_stage


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_journey(tmp_path_factory.mktemp("work"))


@pytest.fixture(autouse=True)
def _small_blocks(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "BLOCK_ROWS", 7)
    for blocks_of_before in work.glob("*/.hf_synth/blocks"):
        shutil.rmtree(blocks_of_before)


def correct(work: Path, *more: str, method: str = "auto") -> list[str]:
    words = ["correct", str(work / "gold"), str(work / "synthetic"), "--corrector", str(work / "model")]
    return [*words, "--split", "validation", "--method", method, "--out", str(work / "corrected"), *more]


def in_shards(command: list[str], n: int = 3) -> None:
    """Run the shards from the last to the first, and merge them."""
    for number in reversed(range(n)):
        assert main([*command, "--shard", f"{number}/{n}"]) == 0
    assert main(["merge", command[command.index("--out") + 1]]) in (0, 1)


@pytest.mark.parametrize("method", ["auto", "posterior", "none"])
def test_corrected_in_shards_and_at_once_are_the_same_bytes(work: Path, method: str) -> None:
    assert main(correct(work, method=method)) == 0
    whole = files_of(work / "corrected")
    in_shards(correct(work, method=method))
    assert files_of(work / "corrected") == whole
    assert "train.parquet" in whole
    assert not (work / "corrected" / ".hf_synth" / "blocks").exists()


def test_an_audit_in_shards_and_at_once_is_the_same(work: Path) -> None:
    code = main(audit_words(work))
    whole = files_of(work / "audited")
    in_shards(audit_words(work))
    assert files_of(work / "audited") == whole
    figures = json.loads(whole["audit.json"])["figures"]
    assert figures["duplicates"] == 2  # across blocks
    assert figures["copies_of_gold"] == 1
    assert code == 1


def test_an_export_in_shards_and_at_once_is_the_same_bytes(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = work / "export" / "notes"  # the name of the repository is another one
    rows = load_dataset("parquet", data_files=str(work / "synthetic" / "train.parquet"), split="train")
    named = {**rows[5], "text": "mail to jane.doe@ward.example"}
    kept = [named if i == 5 else row for i, row in enumerate(rows) if i != len(rows) - 3]  # without the copy of gold
    write_stage(TASK, Dataset.from_list(kept, features=rows.features), work / "clean", stage="generate")
    folders = [str(work / "gold"), str(work / "clean"), "--gold", str(work / "gold")]
    command = ["publish", *folders, "--repo-id", "org/synth-notes", "--out", str(out)]
    assert main(command) == 0
    whole = everything_in(out)
    in_shards(command)
    assert everything_in(out) == whole
    assert {"raw/train-00000-of-00001.parquet", "README.md", "release.json"} <= set(whole)
    assert not (out / ".hf_synth" / "blocks").exists()
    assert pq.read_metadata(out / "raw" / "train-00000-of-00001.parquet").num_rows == 45, "one of 46 is withheld"
    capsys.readouterr()
    for more in (["--push"], ["--dry-run"], ["--public"]):
        assert main([*command, *more, "--shard", "0/3"]) == 2
        assert f"{more[0]} works on one machine only" in capsys.readouterr().err
    model = ["publish", str(work / "gold"), str(work / "model"), "--repo-id", "o/m", "--out", str(work / "to" / "m")]
    assert main([*model, "--shard", "0/3"]) == 2
    assert "a model is exported on one machine" in capsys.readouterr().err


def everything_in(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files of an export."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_labels_in_shards_and_at_once_are_the_same_and_no_note_is_asked_about_twice(work: Path) -> None:
    with serving(voting(0.8)) as server:
        more = [
            "--llm",
            "m",
            "--base-url",
            server.url,
            "--votes",
            "2",
            "--access",
            "open",
            "--out",
            str(work / "labelled"),
        ]
        command = ["label", str(work / "gold"), str(work / "synthetic"), *more]
        assert main([*command, "--journal", str(work / "whole.sqlite")]) == 0
        whole, asked = files_of(work / "labelled"), len(server.requests)
        for number in (1, 0):
            node = ["--journal", str(work / f"node{number}.sqlite")]
            assert main([*command, *node, "--shard", f"{number}/2"]) == 0
            assert main([*command, *node, "--shard", f"{number}/2"]) == 0  # all blocks stand
        assert len(server.requests) - asked <= asked
        before = len(server.requests)
        assert main(["merge", str(work / "labelled")]) == 0
        assert len(server.requests) == before, "a merge asks nothing"
    merged = files_of(work / "labelled")
    assert merged["train.parquet"] == whole["train.parquet"]
    assert json.loads(merged["hf_synth.json"])["judge"] == json.loads(whole["hf_synth.json"])["judge"]


def test_notes_generated_in_shards_are_those_of_one_run_and_a_killed_shard_goes_on_from_its_journal(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generation, "CALLS", 2)

    def answer(request: dict[str, Any], _: int) -> Said:
        seed = request["seed"]
        return Said(
            "no" if seed % 4 == 0 else entries({**request, "seed": seed if seed % 3 else 0})
        )  # repeats, odd ones

    def parts(*more: str) -> list[str]:
        return ["generate", str(work / "gold"), "--llm", "m", "--base-url", server.url, "--n", "40", *more]

    with serving(answer) as server:
        assert main(parts("--out", str(tmp_path / "one"), "--journal", str(tmp_path / "one.sqlite"))) == 0
        asked = Counter(json.dumps(request, sort_keys=True) for request in server.requests)
        server.requests.clear()
        for number in (1, 0):
            spread = ["--out", str(tmp_path / "two"), "--journal", str(tmp_path / f"{number}.sqlite")]
            command = parts(*spread, "--shard", f"{number}/2")
            write = Work.write
            monkeypatch.setattr(Work, "write", _stopped)  # as if killed once its answers had arrived
            assert main(command) == 130
            monkeypatch.setattr(Work, "write", write)
            before = len(server.requests)
            assert main(command) == 0
            assert before, "its first block was asked"
        capsys.readouterr()
        assert main([*command[:-2], "--engine", "ray"]) == 1
        assert "has answers of shards, which --engine ray does not read" in capsys.readouterr().err
        assert main(["merge", str(tmp_path / "two")]) == 0
    assert Counter(json.dumps(request, sort_keys=True) for request in server.requests) == asked
    one, two = (load_rows(tmp_path / name) for name in ("one", "two"))
    assert two == one
    facts = [json.loads((tmp_path / name / "hf_synth.json").read_text()) for name in ("one", "two")]
    assert facts[0]["calls"] == facts[1]["calls"]
    assert facts[0]["rejected"] == facts[1]["rejected"]


def _stopped(*_: Any) -> None:
    raise KeyboardInterrupt


def load_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a folder and its rejects, without the time at which each was made."""
    tables = [pq.read_table(folder / name) for name in ("train.parquet", "rejected.parquet")]
    return [row for table in tables for row in table.drop_columns(["created"]).to_pylist()]


def test_sets_of_labels_are_judged_in_blocks_as_at_once(tmp_path: Path) -> None:
    def answer(request: dict[str, Any], _: int) -> Said:
        luck = random.Random(content(request))
        return Said(json.dumps({SETS.label_column: [label for label in SETS.labels if luck.random() < 0.5]}))

    gold, rows = sets_gold(24, 1), generated(SETS, sets_gold(30, 2))
    with serving(answer) as server:
        judges = [
            LLMJudge(SETS, LLM("m", base_url=server.url, journal=tmp_path / f"{n}.sqlite"), votes=2) for n in "ab"
        ]
        whole, policy = correct_with_policy(SETS, rows, judges[0], gold=gold, options=CorrectionOptions("posterior"))
        cut = opinion_work(
            SETS, rows, judges[1], gold=gold, folder=tmp_path / "blocks", options=CorrectionOptions("posterior")
        )
        assert run_here(cut.work, range(len(cut.work.places))) == (9, 0)
        given = cut.opinions()
        merged, same = correct_with_policy(
            SETS, rows, judges[1], gold=gold, options=CorrectionOptions("posterior"), opinions=given
        )
    assert merged.to_dict() == whole.to_dict()
    assert same == policy


def test_pieces_of_gold_in_rows_of_many_blocks_are_found_together() -> None:
    gold = toy_rows(3, 1).map(lambda row, i: {"text": " ".join(f"word{i}x{k}" for k in range(40))}, with_indices=True)
    pieces = [" ".join(f"word1x{k}" for k in range(begin, begin + 6)) for begin in range(0, 40, 5)]
    rows = toy_rows(8, 2).map(lambda row, i: {"text": pieces[i], "source": "synthetic"}, with_indices=True)
    whole = audit_rows(TASK, rows, gold=gold)
    cut = audit_work(TASK, rows, gold=gold, folder=Path("unused"))
    scan = cut.parts[0].block
    blocks_found = [scan(cut.table(number)) for number in range(len(cut.places))]
    assert len(blocks_found) == 2
    assert audit_of_blocks(TASK, rows, blocks_found, gold=gold) == whole
    assert whole.figures["pieces_of_gold"] == 8
    with pytest.raises(ColumnError, match="the blocks are of 7 rows"):
        audit_of_blocks(TASK, rows, blocks_found[:1], gold=gold)


def test_shards_write_nothing_into_the_folder_but_blocks(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = correct(work, method="argmax")
    assert main(command) == 0
    whole = files_of(work / "corrected")
    fresh = [*command[:-1], str(work / "fresh")]
    for number in range(3):
        capsys.readouterr()
        assert main([*fresh, "--shard", f"{number}/3"]) == 0
        assert [file.name for file in (work / "fresh").iterdir()] == [".hf_synth"]
        computed = [4, 4, 3][number]
        said = capsys.readouterr().out
        assert said.startswith(f"shard {number}/3: {computed} blocks computed, 0 there already; next: hf-synth merge")
        assert len(said.splitlines()) == 1
    assert main(["merge", str(work / "fresh")]) == 0
    assert {name: data for name, data in files_of(work / "fresh").items() if name != "hf_synth_run.toml"} == {
        name: data for name, data in whole.items() if name != "hf_synth_run.toml"
    }
    before = files_of(work / "corrected")
    assert main([*command, "--shard", "0/3"]) == 0
    assert files_of(work / "corrected") == before, "an earlier output stays as it is until the merge"


def test_votes_that_a_budget_lacked_are_asked_for_again(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    notes = [str(work / "gold"), str(work / "gold" / "validation.parquet"), "--votes", "1", "--price", "0", "1000000"]
    with serving(voting(0.8)) as server:
        own = ["--llm", "m", "--base-url", server.url, "--out", str(work / "poor"), "--shard", "0/1"]
        command = ["label", *notes, *own]
        assert main([*command, "--budget-usd", "400"]) == 1  # an answer costs 20; 256 are reserved for it
        assert "the budget is spent; every answer is kept" in capsys.readouterr().err
        first = len(server.requests)
        assert 0 < first < 23
        assert main([*command, "--budget-usd", "1e9"]) == 0
        assert len(server.requests) == 23, "no note is asked about twice"
    assert main(["merge", str(work / "poor")]) == 0
    assert len(pq.read_table(work / "poor" / "train.parquet")) == 23


def test_a_judge_corrects_in_shards_as_at_once(work: Path) -> None:
    with serving(voting(0.8)) as server:
        words = ["correct", str(work / "gold"), str(work / "synthetic"), "--judge", "m", "--base-url", server.url]
        command = [*words, "--votes", "1", "--method", "llm_judge", "--out", str(work / "judged")]
        assert main(command) == 0
        whole = files_of(work / "judged")
        in_shards(command, 2)
    assert files_of(work / "judged") == whole


def test_a_second_run_computes_what_is_missing(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []
    predict = opinions.predict_proba

    def dying(task: Any, model: Any, rows: Any, **more: Any) -> Any:
        if len(computed) == 4:
            raise KeyboardInterrupt
        computed.append(len(rows))
        return predict(task, model, rows, **more)

    monkeypatch.setattr(opinions, "predict_proba", dying)
    command = [*correct(work, method="argmax"), "--shard", "0/1"]
    assert main(command) == 130
    blocks = list((work / "corrected" / ".hf_synth" / "blocks").glob("*/*.parquet"))
    assert len(blocks) == 4
    assert all(file.stat().st_mode & 0o077 == 0 for file in blocks)
    monkeypatch.setattr(opinions, "predict_proba", lambda *a, **k: computed.append(1) or predict(*a, **k))
    assert main(command) == 0
    assert len(computed) == 11  # 7 blocks of 47 rows and 4 of 23 gold rows, each once


def test_what_cannot_be_merged_is_said(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def says(*words: str) -> str:
        capsys.readouterr()
        assert main(list(words)) in (1, 2)
        return capsys.readouterr().err

    out = str(work / "corrected")
    blocks = work / "corrected" / ".hf_synth" / "blocks"
    (work / "corrected").mkdir(exist_ok=True)
    assert "no blocks to merge" in says("merge", out)
    assert main([*correct(work, method="argmax"), "--shard", "0/2"]) == 0
    assert "5 of the 11 blocks" in says("merge", out)
    assert main([*correct(work, method="argmax"), "--shard", "1/2"]) == 0
    file = sorted(blocks.glob("*/*.parquet"))[2]
    good = file.read_bytes()
    file.write_bytes(good[:-9])
    assert f"{file} is broken" in says("merge", out)
    file.write_bytes(sorted(blocks.glob("*/*.parquet"))[3].read_bytes())  # a block under another's name
    assert f"{file} is broken" in says("merge", out)
    file.write_bytes(good)
    assert main([*correct(work, method="agree"), "--shard", "0/2"]) == 0
    assert "blocks of 2 different commands" in says("merge", out)
    assert "I from 0 to N - 1" in says(*correct(work), "--shard", "3/3")
    assert "exclude each other" in says(*correct(work), "--shard", "0/3", "--engine", "ray")
    assert "one machine only" in says(*correct(work), "--shard", "0/3", "--error", "0.05")
    assert "--corrector" in says(
        "correct", str(work / "gold"), str(work / "synthetic"), "--base-model", str(work / "model"),
        "--out", str(work / "other"), "--shard", "0/3",
    )  # fmt: skip
    assert "need --out" in says("audit", str(work / "gold"), str(work / "synthetic"), "--shard", "0/3")


def test_a_shard_that_is_killed_goes_on(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = "import sys, hf_synth.task.arrow as arrow; arrow.BLOCK_ROWS = 3"
    code = f"{small}; from hf_synth.cli.cli import main; sys.exit(main(sys.argv[1:]))"
    command = audit_words(work, "--shard", "0/1", "--split-held-out", "validation")
    folder = work / "audited" / ".hf_synth" / "blocks"
    process = subprocess.Popen([sys.executable, "-c", code, *command], stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(folder.glob("*/*.parquet"))) < 3:
        time.sleep(0.002)
    process.kill()
    process.wait()
    stood = {file: file.stat().st_mtime_ns for file in folder.glob("*/*.parquet")}
    assert len(stood) >= 3
    monkeypatch.setattr(arrow, "BLOCK_ROWS", 3)
    assert main(command) == 0
    assert f"{16 - len(stood)} blocks computed, {len(stood)} there already" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in stood} == stood
    assert not [file for file in folder.rglob("*") if CANARY.encode() in (file.read_bytes() if file.is_file() else b"")]


def test_the_files_for_clusters_parse_and_so_do_their_commands() -> None:
    """Every command of docs/scale.md parses; shards name as many as there are tasks or pods, Ray jobs a cluster."""
    page = Path(__file__).resolve().parents[2] / "docs" / "scale.md"
    found = [block for block in blocks(page) if block.language in ("yaml", "bash")]
    jobs = [yaml.safe_load(block.code) for block in found if block.language == "yaml"]
    assert [job["kind"] for job in jobs] == ["Job", "RayJob", "RayJob"]
    completions = jobs[0]["spec"]["completions"]
    assert jobs[0]["spec"]["completionMode"] == "Indexed"
    (container,) = jobs[0]["spec"]["template"]["spec"]["containers"]
    on_ray = [parsed(job["spec"]["entrypoint"]) for job in jobs[1:]]
    assert {(args.engine, args.address) for args in on_ray} == {("ray", "auto")}
    assert [args.gpus_per_worker for args in on_ray] == [1.0, None]
    for job in jobs[1:]:
        cluster = job["spec"]["rayClusterSpec"]
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            mounted = {mount["name"] for one in pod["containers"] for mount in one["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["volumes"]}
    in_shards, arrays = Counter[str](), 0
    for code in (container["args"][0], *(block.code for block in found if block.language == "bash")):
        tasks = re.search(r"--array=0-(\d+)", code)
        arrays += tasks is not None
        for command in re.findall(r"^hf-synth .*$", code, re.M):
            last = int(tasks[1]) if tasks else completions - 1
            args = parsed(re.sub(r"\$(SLURM_ARRAY_TASK_ID|JOB_COMPLETION_INDEX)", str(last), command))
            if (shard := getattr(args, "shard", None)) is not None:
                assert parse_shard(shard) == (last, last + 1), command
                in_shards[args.verb] += 1
    assert arrays == 3
    assert set(in_shards) == {"generate", "correct", "audit", "publish"}


def parsed(command: str) -> Any:
    return parse_command(shlex.split(command)[1:])[1]
