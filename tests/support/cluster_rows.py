"""A toy folder of gold, synthetic rows and an encoder with a random head, for verbs that run on many machines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from support.tiny import LABELS, OPEN_FACTS, tiny_base, toy_rows
from support.toy_experiment import TASK, as_synthetic
from transformers import AutoConfig, AutoModelForSequenceClassification

from hf_synth.models.record import write_facts
from hf_synth.task.folders import write_stage

# Letters of this process: no other program's file has them, and no file of source code.
OWN = "".join(chr(ord("a") + int(digit)) for digit in str(os.getpid()))
CANARY, GOLD_CANARY = f"zyxcanary{OWN}", f"qwvcanary{OWN}"


def make_journey(work: Path, n: int = 47) -> Path:
    """Write work/gold, work/synthetic (n rows, one of them with CANARY, some repeated or copied) and work/model.

    A row of the gold holds GOLD_CANARY.
    """

    def marked(row: dict[str, Any], number: int) -> dict[str, Any]:
        return {"text": f"{row['text']} {GOLD_CANARY}"} if number == 7 else {}

    seen = toy_rows(24, 1).map(marked, with_indices=True, load_from_cache_file=False)
    gold = DatasetDict(train=seen, validation=toy_rows(23, 2), test=toy_rows(12, 3))
    write_stage(TASK, gold, work / "gold", stage="gold")
    rows = [{**row, "llm_label": (row["label"] + (i % 4 == 0)) % 3} for i, row in enumerate(toy_rows(n, 4))]
    rows[-1]["text"], rows[-2]["text"], rows[-3]["text"] = rows[0]["text"], rows[1]["text"], gold["train"][3]["text"]
    rows[-4]["text"] = f"a note of {CANARY} seen today"
    write_stage(
        TASK, as_synthetic([{**row, "id": f"s{i}"} for i, row in enumerate(rows)]), work / "synthetic", stage="generate"
    )
    folder = tiny_base(work / "model")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(
        folder, id2label=dict(enumerate(LABELS)), label2id={label: i for i, label in enumerate(LABELS)}
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    write_facts(folder, OPEN_FACTS)
    return work


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the files of an output, without those of its work folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def audit_words(work: Path, *more: str) -> list[str]:
    """Return the words of `hf-synth audit` for the folder."""
    return ["audit", str(work / "gold"), str(work / "synthetic"), "--out", str(work / "audited"), *more]
