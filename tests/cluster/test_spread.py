"""Stages on many machines from Python: what the local twins take and return."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from support.cluster_rows import make_journey
from support.judges import voting
from support.llm_server import Said, entries, serving
from support.tiny import toy_rows
from support.toy_experiment import TASK, as_synthetic

import hf_synth
from hf_synth import LLM, cluster
from hf_synth.cluster.spread import Correcting, Exporting
from hf_synth.cluster.stages import generation_work, label_work, opinion_work
from hf_synth.correction.judging import LLMJudge, label_notes
from hf_synth.correction.methods import CorrectionOptions
from hf_synth.errors import UsageError
from hf_synth.generation.blocks import Order
from hf_synth.llm.local import LocalLLM
from hf_synth.task import arrow
from hf_synth.task.folders import read_export

TWINS: list[tuple[Any, Any]] = [
    (cluster.correct, hf_synth.correct),
    (cluster.label, label_notes),
    (cluster.generate, hf_synth.generate),
    (cluster.audit, hf_synth.audit),
]


@pytest.mark.parametrize(("spread", "local"), TWINS, ids=lambda function: function.__name__)
def test_a_twin_takes_what_its_local_twin_takes(spread: Any, local: Any) -> None:
    own, theirs = inspect.signature(spread).parameters, inspect.signature(local).parameters
    assert set(own) - set(theirs) <= {"folder", "engine", "sampling"}
    more = set(Correcting.__annotations__) if spread is cluster.correct else set()
    assert set(theirs) <= set(own) | more
    for name in set(theirs) - {"sampling"} - more:
        assert own[name].default == theirs[name].default, name
    assert set(cluster.Machines.__annotations__) == {"engine", "address", "shards", "gpus"}


def test_an_export_takes_what_publish_dataset_takes_but_for_a_push() -> None:
    options = set(Exporting.__annotations__) - set(cluster.Machines.__annotations__)
    own = [*inspect.signature(cluster.export).parameters, *options]
    theirs = set(inspect.signature(hf_synth.publish_dataset).parameters)
    assert theirs - set(own) == {"push", "dry_run", "confirm", "squash"}
    assert set(own) - theirs == {"folder", "options", "progress"}


def test_each_twin_returns_what_its_local_twin_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "BLOCK_ROWS", 7)
    work = make_journey(tmp_path / "work")
    gold = read_export(work / "gold")
    rows = load_dataset("parquet", data_files=str(work / "synthetic" / "train.parquet"), split="train")
    rows = rows.cast(TASK.synthetic_features())
    here: Any = {"folder": tmp_path / "blocks", "engine": "here"}
    given: Any = {"gold": gold["validation"], "method": "posterior"}
    corrected = hf_synth.correct(TASK, rows, str(work / "model"), **given)
    assert cluster.correct(TASK, rows, str(work / "model"), **given, **here).to_list() == corrected.to_list()
    found = hf_synth.audit(TASK, rows, gold=gold["train"])
    assert cluster.audit(TASK, rows, gold=gold["train"], **here) == found
    exports = [tmp_path / "exports" / name / "notes" for name in ("one", "two")]
    verdicts = [
        hf_synth.publish_dataset(TASK, rows, "org/notes", gold=gold, push=False, export_dir=exports[0]),
        cluster.export(TASK, rows, "org/notes", gold=gold, export_dir=exports[1], **here),
    ]
    assert verdicts[0].counts == verdicts[1].counts
    with serving(voting(0.8)) as server:
        llms = [LLM("m", base_url=server.url, journal=tmp_path / f"{i}.sqlite") for i in range(2)]
        labelled = label_notes(TASK, rows, llms[0], votes=1)
        assert cluster.label(TASK, rows, llms[1], votes=1, **here).to_list() == labelled.to_list()
    with serving(lambda request, _: Said(entries(request))) as server:
        llms = [LLM("m", base_url=server.url, journal=tmp_path / f"w{i}.sqlite") for i in range(2)]
        notes = hf_synth.generate(TASK, gold["train"], llms[0], 12)
        same = cluster.generate(TASK, gold["train"], llms[1], 12, **here)
    assert same.remove_columns("created").to_list() == notes.remove_columns("created").to_list()
    assert {path.stat().st_mode & 0o077 for path in [tmp_path / "blocks", *(tmp_path / "blocks").iterdir()]} == {0}
    with pytest.raises(UsageError, match="'ray' or 'here'"):
        cluster.audit(TASK, rows, gold=None, folder=tmp_path / "blocks", engine="spark")


def test_blocks_of_another_tokenizer_or_of_other_weights_at_the_same_place_are_others(tmp_path: Path) -> None:
    """They stood, and the merged rows were partly those of the model that had been there before."""
    work = make_journey(tmp_path / "work", 9)
    model, rows = work / "model", toy_rows(9, 4)

    def blocks_of(llm: Any) -> list[str]:
        judged = label_work(LLMJudge(TASK, llm), rows, access="open", folder=tmp_path / "b").parts
        order = Order(TASK, rows, llm, 6)
        generated = generation_work(order, folder=tmp_path / "b").work.parts
        corrected = opinion_work(
            TASK, as_synthetic(list(rows)), model, gold=toy_rows(9, 2), folder=tmp_path / "b",
            options=CorrectionOptions("posterior"),
        ).work.parts  # fmt: skip
        return [part.identity for part in (judged[0], generated[0], corrected[0])]

    def local() -> LocalLLM:
        return LocalLLM(str(model), journal=tmp_path / "j.sqlite")

    before = blocks_of(local())
    assert blocks_of(local()) == before
    settings = model / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "model_max_length": 32}))
    assert not set(blocks_of(local())) & set(before)
