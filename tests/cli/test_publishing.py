"""`hf-synth publish` and `hf-synth withdraw`: what they write, ask and refuse, and the codes they end with."""

from __future__ import annotations

import io
import json
import shlex
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import DatasetDict, load_dataset
from huggingface_hub import HfApi
from support.publishing_rows import CREDENTIALED, OPEN, POLICY, RESTRICTED, gold_rows, synthetic_rows

from hf_synth.cli.cli import main
from hf_synth.cli.publishing import _export_folder
from hf_synth.cli.scores import scores_of_model, scores_of_rows
from hf_synth.errors import RowError
from hf_synth.evaluation.evaluation import score
from hf_synth.models.record import weights_sha256
from hf_synth.publishing.release import entries, record
from hf_synth.task.folders import write_stage
from hf_synth.task.labels import MARKS, gold_marks
from hf_synth.task.task import Task


def folders(task: Task, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)
    gold = gold_rows(task, 60)
    splits = DatasetDict(train=gold.select(range(40)), test=gold.select(range(40, 60)))
    write_stage(task, splits, here / "gold", stage="gold")
    known: dict[str, Any] = {"policy": POLICY.to_json(), MARKS: gold_marks(task, gold.select(range(30)))}
    write_stage(task, synthetic_rows(task), here / "rows", stage="correct", **known)


def run(*words: Any) -> int:
    return main([str(w) for w in words])


def test_without_push_folder_card_and_verdict_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(RESTRICTED, tmp_path, monkeypatch)
    assert run("publish", "gold", "rows", "--repo-id", "org/site-notes", "--dry-run") == 0
    assert not Path("export").exists()
    assert "nothing was written" in capsys.readouterr().out
    file = Path("rows/train.parquet")
    pq.write_table(pq.read_table(file), file, compression="zstd")  # as if a person had saved it
    Path("rows/realism.json").write_text('{"n": 30, "plausibility_mean": 3.5, "reviewers": 1}')
    more = ("--contact", "the data office, data@ward.example", "--language", "en")
    assert run("publish", "gold", "rows", "--repo-id", "org/site-notes", "--json", *more) == 0
    facts = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert facts["allowed"]
    assert not facts["pushed"]
    card = Path("export/site-notes/README.md").read_text()
    assert "policy `posterior`" in card
    assert "| corrector: accuracy on gold that it had not seen | 0.750 |" in card
    assert "all 30 gold rows that the folder was made with" in card
    assert "extra_gated_fields" in card
    assert "control: 95th percentile" in card  # the test split was the control
    assert "A person edited these rows after they were written (train.parquet)" in card
    assert "30 notes, looked at by 1 reviewer." in card
    assert "\nlanguage: en\n" in card
    assert run("publish", "clinic", "rows", "--repo-id", "org/x", "--language", "de") == 1
    assert "states language 'en': leave out --language" in capsys.readouterr().err
    assert "write to\nthe data office, data@ward.example." in card
    assert json.loads(Path("export/.hf_synth/site-notes.verdict.json").read_text()) == facts
    assert len(load_dataset("export/site-notes", "corrected", split="train", cache_dir=str(tmp_path / "c"))) == 18


def test_notes_do_without_the_scores_of_a_configuration_that_are_not_there_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(RESTRICTED, tmp_path, monkeypatch)
    Path("hf_synth.toml").write_text('task = "gold"\n[publish]\nscores = "scores.json"\n')
    assert run("publish", "rows", "--repo-id", "org/site-notes", "--dry-run") == 0
    assert run("publish", "rows", "--repo-id", "org/site-notes", "--dry-run", "--scores", "typed.json") == 1
    assert "typed.json is no file" in capsys.readouterr().err


def test_refused_is_exit_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folders(CREDENTIALED, tmp_path, monkeypatch)
    words = ("publish", "gold", "rows", "--repo-id", "org/n", "--endpoint", "https://huggingface.co")
    for more in (["--push", "--yes"], ["--public", "--push", "--yes", "--attestation", "x"], ["--public"]):
        assert run(*words, *more) == 1
        assert "refused: dataset org/n, access credentialed" in capsys.readouterr().out
    assert [e["action"] for e in entries(tmp_path / "export")] == ["refused"] * 3
    assert run("publish", "gold", "rows", "--repo-id", "org/n") == 0
    out = capsys.readouterr().out
    assert Path("export/notes-Ext-n/SHA256SUMS").is_file()  # the name that PhysioNet wants
    assert "for PhysioNet" in out
    write_stage(CREDENTIALED, gold_rows(CREDENTIALED, 60, kind="other"), tmp_path / "other", stage="gold")
    assert run("publish", "gold", "rows", "--repo-id", "org/n", "--gold", "other") == 1
    assert "gold rows that the folder was made with" in capsys.readouterr().out


def test_a_public_repository_wants_a_yes(
    hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(OPEN, tmp_path, monkeypatch)
    api = HfApi(endpoint=hub.url, token=hub.token)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    words = ("publish", "gold", "rows", "--endpoint", hub.url, "--token", hub.token, "--push")
    where = f"{hub.url}/datasets/org/asked"
    for visible in ("--public", "--private"):
        assert run(*words, "--repo-id", "org/asked", visible) == 1  # nobody can be asked
        captured = capsys.readouterr()
        assert f"to push to {where} where nobody can be asked, add --yes" in captured.err
        assert "not confirmed" in captured.out
        assert not api.repo_exists("org/asked", repo_type="dataset")
    assert run(*words, "--repo-id", "org/asked", "--public", "--dry-run") == 0
    assert f"  to: {where} (public)\n" in capsys.readouterr().out

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert run(*words, "--repo-id", "org/asked", "--private") == 1
    shown, _, asked = capsys.readouterr().out.partition(f"Push dataset org/asked (private) to {where}? [y/N]")
    assert "what changes in the repository, which is new:" in shown
    assert "rows added: 18 (maybe 9, no 9)" in shown
    assert "not confirmed" in asked
    assert not api.repo_exists("org/asked", repo_type="dataset")
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert run(*words, "--repo-id", "org/asked", "--public", "--tag", "first") == 0
    assert not api.dataset_info("org/asked", revision="first").private
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run(*words, "--repo-id", "org/asked2", "--private", "--yes") == 0
    assert api.dataset_info("org/asked2").private
    assert "what changes in the repository, which is new:" in capsys.readouterr().out
    Path("rows/realism.json").write_text("{")
    assert run(*words, "--repo-id", "org/asked2", "--dry-run") == 1
    assert "realism.json" in capsys.readouterr().err
    Path("rows/realism.json").unlink()

    back = ("withdraw", "org/asked", "--endpoint", hub.url, "--token", hub.token)
    assert run(*back) == 1
    captured = capsys.readouterr()
    assert "add --yes" in captured.err
    assert "derives from it: nothing" in captured.out
    assert f"to be withdrawn: dataset org/asked on {hub.url}" in captured.out
    assert not api.dataset_info("org/asked").private
    assert run(*back, "--dry-run") == 0
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert run(*back) == 1
    assert f"Withdraw dataset org/asked from {hub.url}? [y/N]" in capsys.readouterr().out
    assert run(*back, "--yes", "--json") == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["done"]["tags"] == ["first"]
    assert api.dataset_info("org/asked").private
    assert run(*words, "--repo-id", "org/asked", "--public", "--yes") == 1
    assert "was withdrawn" in capsys.readouterr().out
    assert hub.token not in Path("export/.hf_synth/publishing.jsonl").read_text()


def test_a_withdrawal_finds_the_log_of_its_release(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever the release was exported to, what derives from it is named, or said to be not known."""
    monkeypatch.chdir(tmp_path)
    words = ("withdraw", "org/notes", "--kind", "dataset", "--endpoint", "http://127.0.0.1:1", "--dry-run")
    assert run(*words) == 0
    assert "derives from it: not known: no publishing log in export names it" in capsys.readouterr().out
    parent = [{"kind": "dataset", "repo_id": "org/notes"}]
    for beside in (Path("work"), Path("work/run/export")):
        record(beside, "push", kind="dataset", repo_id="org/notes", tag="v1", url="")
        record(beside, "push", kind="model", repo_id="org/child", tag="v1", url="", derives_from=parent)
        assert run(*words) == 0
        assert "model org/child (v1)" in capsys.readouterr().out
        (beside / "notes").mkdir()
        (beside / "notes/release.json").write_text("{}")
        assert run(*words, "--records", beside / "notes") == 0
        assert "model org/child (v1)" in capsys.readouterr().out, "the export itself is named"
        if beside.name == "work":
            (beside / ".hf_synth").rename("moved")
    Path("moved").rename("work/.hf_synth")
    assert run(*words) == 1
    assert "work and work/run/export name org/notes: withdraw it once for each" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "text"), [
    (["--repo-id", "org/x", "--scores", "nowhere.json"], "is no file"),
    (["--repo-id", "org/x", "--scores", "gold/hf_synth.json"], "holds no scores"),
    (["--repo-id", "not a name", "--push", "--endpoint", "http://127.0.0.1:9"], "the repository's name is not valid"),
])  # fmt: skip
def test_bad_input_is_one_sentence(
    words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(OPEN, tmp_path, monkeypatch)
    assert run("publish", "gold", "rows", *words) == 1
    error = capsys.readouterr().err
    assert text in error
    assert len(error.splitlines()) == 1


def test_the_scores_of_a_run_are_found_by_the_weights_of_a_model(tmp_path: Path) -> None:
    model = tmp_path / "run" / "models" / "gold_4"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_text("{}")
    scores = score(OPEN, np.eye(len(OPEN.labels))[[0, 1]], np.array([0, 1]), None, n_bootstrap=0)
    mine, other = (replace(scores, n=n, model={"weights_sha256": w}) for n, w in ((7, weights_sha256(model)), (8, "x")))
    file = tmp_path / "run" / "scores.json"
    file.write_text(json.dumps({"gold_4_plus_raw": other.to_json(), "gold_4": mine.to_json()}))
    bare = Namespace(folder=model, scores=None, argv=["publish"])
    assert scores_of_model(bare).n == 7  # type: ignore[union-attr]
    typed = Namespace(folder=model, scores=file, argv=["publish", "--scores", str(file)])
    assert scores_of_model(typed).n == 7  # type: ignore[union-attr]
    rows = Namespace(folder=tmp_path / "run" / "corrected", scores=None, argv=["publish"])
    found = scores_of_rows(rows, edited=False)
    assert isinstance(found, dict)
    assert set(found) == {"4 gold + uncorrected", "4 gold"}
    assert scores_of_rows(rows, edited=True) is None, "the models saw other rows"
    configured = Namespace(folder=tmp_path / "run" / "corrected", scores=file, argv=["publish"])
    assert scores_of_rows(configured, edited=True) is None, "those of a configuration, too"
    for name, text in (("a", "[]"), ("b", '{"model": "x"}'), ("c", '{"labels": [1e999], "task": "t"}')):
        (tmp_path / "run" / "models" / f"{name}.json").write_text(text)
    assert scores_of_model(bare).n == 7, "a file of something else is passed over"  # type: ignore[union-attr]
    file.write_text(json.dumps({"gold_4_plus_raw": other.to_json()}))
    assert scores_of_model(bare) is None
    with pytest.raises(RowError, match="scores of other models only; score this one"):
        scores_of_model(typed)


def test_the_configuration_names_one_release_and_not_all(tmp_path: Path) -> None:
    scores = score(OPEN, np.eye(len(OPEN.labels))[[0, 1]], np.array([0, 1]), None, n_bootstrap=0)
    file = tmp_path / "scores.json"
    file.write_text(json.dumps(scores.to_json()))
    mine = Namespace(folder=tmp_path / "corrected", scores=file, argv=["publish"])
    assert scores_of_rows(mine, edited=False).n == 2  # type: ignore[union-attr]
    run = Namespace(folder=tmp_path / "run" / "corrected", scores=file, argv=["publish"])
    assert scores_of_rows(run, edited=False) is None, "those are of a model of other notes"
    out = Path("work/export/wards-model")
    of = {"repo_id": "ward/notes", "out": out}
    assert _export_folder(Namespace(argv=["publish", "work/run/corrected"], **of)) == Path("work/export/notes")
    assert _export_folder(Namespace(argv=["publish", f"--out={out}"], **of)) == out
    assert _export_folder(Namespace(argv=["publish"], out=None, repo_id="ward/notes")) is None


def test_an_audit_of_notes_that_are_not_used_proposes_no_publication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(RESTRICTED, tmp_path, monkeypatch)
    write_stage(RESTRICTED, synthetic_rows(RESTRICTED, corrected=False), tmp_path / "synthetic", stage="generate")
    status = [s if s == "rejected" else "dropped" for s in synthetic_rows(RESTRICTED)["label_status"]]
    none = synthetic_rows(RESTRICTED).map(lambda _, i: {"label_status": status[i]}, with_indices=True)
    plain = {**POLICY.to_json(), "method": "gold_only"}
    write_stage(RESTRICTED, none, tmp_path / "corrected", stage="correct", policy=plain)
    assert run("audit", "gold", "corrected") == 0
    said = capsys.readouterr().out.splitlines()
    assert "  no row is left to publish: correction chose gold alone and uses none of the rows; publish the model" in (
        "\n".join(said)
    )
    words = shlex.split(said[-1])
    assert words[:5] == ["next:", "hf-synth", "correct", "gold", "synthetic"]
    assert words[-4:] == ["--out", "corrected_posterior", "--method", "posterior"]
    assert run("audit", "gold", "rows", "--json") == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["rows_used"], facts["rows_to_publish"]) == (18, 18)


def test_an_audit_of_rows_without_ids_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(RESTRICTED, tmp_path, monkeypatch)
    rows = synthetic_rows(RESTRICTED).select_columns([*RESTRICTED.text_columns, RESTRICTED.label_column, "access"])
    rows.to_parquet("bare.parquet")
    assert run("audit", "gold", "bare.parquet", "--out", "audit") == 0
    table = pq.read_table("audit/findings.parquet")
    assert table["id"].to_pylist() == [*range(len(rows))]
    assert table.num_rows == len(rows)
