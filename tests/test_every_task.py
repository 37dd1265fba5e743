"""The whole journey of many tasks: gold in its true layout, generate, correct, train, evaluate, publish, pull.

The generator is the simulator, models are of some thousand weights, the Hub is the local one; all is simulated, and
nothing is claimed of how well any of it labels a note.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict, concatenate_datasets, load_dataset
from support.gold_files import note, options, write_csv, write_gold
from support.kinds import tiny_t5
from support.tiny import tiny_base

from hf_synth.correction.augmentation import augment
from hf_synth.correction.correction import correct
from hf_synth.demo.simulator import Faults, running_simulator
from hf_synth.evaluation.evaluation import evaluate
from hf_synth.generation.generation import generate
from hf_synth.gold.gold import load_gold
from hf_synth.gold.own_table import task_from_table
from hf_synth.llm.llm import LLM
from hf_synth.models.training import train, trainer_fit
from hf_synth.privacy.audit import audit
from hf_synth.publishing.publishing import publish_dataset, publish_model
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

DEFAULT = ("medication:event", "mednli:pair", "medication_2009", "own:multi_label")  # one of each kind, and one pair
SLOW = (
    "obesity:textual", "obesity:intuitive", "medication:action", "fall_risk:fall", "fall_risk:morse",
    "mednli:text2text", "ap_reasoning:pair", "problem_summary:assessment", "emrqa:medications", "medqa:four", "soap",
    "esophagitis:three", "mts_dialog:summary", "sdoh_nli:pair", "sdoh_nli:text2text",
)  # fmt: skip
NAMES = (*DEFAULT, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW))
ARGS = {"max_steps": 6, "per_device_train_batch_size": 8, "learning_rate": 5e-3}
CALM = Faults(refusal=0, broken=0, chatter=0.05, duplicate=0.02)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    encoder = tiny_base(tmp_path_factory.mktemp("bert"))
    return {"text2text": tiny_t5(tmp_path_factory.mktemp("t5")), "single_label": encoder, "multi_label": encoder}


def gold_of(name: str, folder: Path) -> tuple[Task, DatasetDict]:
    if name == "own:multi_label":
        rows = [[note(n, "tea"), ";".join("abc"[k] for k in range(3) if n >> k & 1)] for n in range(60)]
        table = write_csv(folder / "own.csv", ["note", "findings"], rows)
        task = task_from_table(table, text_columns=["note"], label_column="findings", kind="multi_label")
        return task, load_gold(task, table)
    task = load_task(name)
    return task, load_gold(task, write_gold(task, folder / "source"), **options(task))


@pytest.mark.parametrize("name", NAMES)
def test_the_journey_of_a_task(name: str, hub: Any, bases: dict[str, Path], tmp_path: Path) -> None:
    task, gold = gold_of(name, tmp_path)
    base = bases[task.kind]
    with running_simulator(faults=CALM) as url:
        llm = LLM("simulator", base_url=url, api_key="none", journal=tmp_path / "journal.sqlite")
        made = generate(task, gold["train"], llm, 12)
    assert sum(s == "kept" for s in made["label_status"]) == 12
    assert set(made["access"]) == {task.access}

    fit: Any = trainer_fit(task, base_model=base, args=ARGS, work_dir=tmp_path / "folds")
    method = {"single_label": "agree", "multi_label": "argmax", "text2text": "none"}[task.kind]
    corrected = correct(task, made, fit, gold=gold["train"], method=method)
    assert corrected.features == task.corrected_features()
    held_out = gold["test" if "test" in gold else "validation"]
    training = augment(task, corrected, gold=gold["train"], evaluation=held_out)
    model = train(task, training, base_model=base, output_dir=tmp_path / "model", args=ARGS)
    scores = evaluate(task, model, held_out, exclude=gold["train"], n_bootstrap=50)
    assert scores.n == len(held_out)
    assert set(task.metrics) - {"macro_f1_min10"} <= set(scores.values)

    # the local Hub is the institution's own: what is credentialed may go there, private, and nowhere else
    where: dict[str, Any] = {"endpoint": hub.url, "token": hub.token, "gold": gold, "gated": False}
    repo = name.replace(":", "-")
    # made-up notes are much alike, and the simulator repeats most of a short premise: what is too near to gold is
    # refused, and the other rows go on without it
    near = set(audit(task, made, gold=concatenate_datasets(list(gold.values()))).refused)
    if near:
        refused = publish_dataset(task, made, f"org/{repo}-Ext-raw", export_dir=tmp_path / "near", **where)
        assert not refused.allowed
        assert f"the audit found gold in {len(near)} of " in str(refused)
        assert not (tmp_path / "near").exists()
    made, corrected = (rows.select([i for i in range(len(rows)) if i not in near]) for rows in (made, corrected))
    assert made["label_status"].count("kept") >= 4
    for verdict in (
        publish_dataset(task, made, f"org/{repo}-Ext-raw", export_dir=tmp_path / "raw", **where),
        publish_dataset(task, corrected, f"org/{repo}-Ext", export_dir=tmp_path / "rows", **where),
        publish_model(task, model, scores, f"org/{repo}-Ext-model", export_dir=tmp_path / "export", **where),
    ):
        assert verdict.pushed, verdict
        assert verdict.access == task.access
        assert verdict.private
    pulled = load_dataset(f"org/{repo}-Ext-raw", split="train", token=hub.token, cache_dir=str(tmp_path / "cache"))
    assert pulled.features[task.label_column] == task.label_feature()
    assert not {"seed_ids", "prompt_sha256", "journal_key"} & set(pulled.column_names)
    assert set(pulled["source"]) == {"synthetic"}
    texts = {t for rows in gold.values() for t in rows[task.text_columns[0]]}
    if len(task.text_columns) == 1:
        assert not texts & set(pulled[task.text_columns[0]])
    card = (tmp_path / "rows" / "README.md").read_text()
    assert task.full_name in card
    assert not any(t in card for t in texts if len(t) > 20)


def test_credentialed_rows_go_to_no_outside_hub(tmp_path: Path) -> None:
    task, gold = gold_of("mednli:pair", tmp_path)
    with running_simulator(faults=CALM) as url:
        llm = LLM("simulator", base_url=url, api_key="none", journal=tmp_path / "journal.sqlite")
        made = generate(task, gold["train"], llm, 6)
    verdict = publish_dataset(task, made, "org/x", gold=gold, endpoint="https://huggingface.co", token="none")
    assert not verdict.allowed
    assert "credentialed" in str(verdict)
