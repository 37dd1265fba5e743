"""Checks of a model before it is published: its export loads alone, exposure of canaries, membership test.

The export is loaded in a process without hf_synth, network or cache, and must predict the same on made-up sentences as
the model does here: a missing file, or a config that does not fit the weights, is noticed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.errors import ColumnError, HfSynthError, PublishError
from hf_synth.models.inference import predict_proba
from hf_synth.models.record import training_row_digests
from hf_synth.models.text2text import generate_text, input_texts
from hf_synth.privacy.canaries import Canaries
from hf_synth.privacy.membership import MIXED, Exposure, Membership, exposure, membership
from hf_synth.publishing import loaded_alone
from hf_synth.task.labels import column_of, row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

# Invented, and short enough for any model.
SENTENCES = (
    "The kettle in the tea room boils.",
    "Seen today in clinic, no new complaint, plan unchanged.",
    "Swallowing is sore; soft diet, review in two weeks.",
    "A tube was placed and feeding started on the ward.",
)
_TOLERANCE = 1e-3  # of a probability: batches and rounding differ
_NEW_TOKENS = 12
_SECONDS = 900

_PLACES = 8  # at most, where exposure is measured: each takes some hundred predictions
_ROWS = 500  # at most, of members and of others in a membership test
_ALL_PLACES = "nothing recorded says which rows it was trained on: places of all the gold were taken"
_MIXED_PLACES = "rows that only stopped its training may be among the places"


def load_check(task: Task, model: Path) -> Callable[[Path], None]:
    """Return the check of an export folder: loaded alone, it must predict what the model predicts here.

    Raises:
        PublishError: (by the check) it cannot be loaded, or its predictions differ.
    """

    def check(folder: Path) -> None:
        rows = _made_up_rows(task)
        texts = [[t] for t in input_texts(task, rows)]
        if task.kind != "text2text":
            texts = [list(row) for row in zip(*(rows[c] for c in task.text_columns), strict=True)]
        request = {"folder": str(folder.resolve()), "kind": task.kind, "texts": texts, "most": _NEW_TOKENS}
        if not _same(task, model, rows, _predict_alone(request)):
            raise PublishError(
                "the exported model, loaded in a process of its own, predicts differently from "
                "yours; nothing was exported"
            )

    return check


def _made_up_rows(task: Task) -> Dataset:
    from datasets import Dataset

    rotated = [SENTENCES[n:] + SENTENCES[:n] for n in range(len(task.text_columns))]
    return Dataset.from_dict({c: list(rotated[n]) for n, c in enumerate(task.text_columns)})


def _same(task: Task, model: Path, rows: Dataset, result: Mapping[str, Any]) -> bool:
    """Compare the predictions of the export with those of the model."""
    try:
        if task.kind == "text2text":
            return bool(result["texts"] == generate_text(task, model, rows, max_new_tokens=_NEW_TOKENS, device="cpu"))
        order = [result["labels"].index(label) for label in task.labels]
        probs = np.array(result["probs"])[:, order]
    except (KeyError, ValueError, IndexError, TypeError):
        return False
    expected = predict_proba(task, model, rows, device="cpu")
    return probs.shape == expected.shape and bool(np.abs(probs - expected).max() <= _TOLERANCE)


def _predict_alone(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run `loaded_alone` in a separate process and return its predictions."""
    why = "it took too long"
    with tempfile.TemporaryDirectory(prefix="hf-synth-alone-") as home:
        env = {k: v for k in ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS") if (v := os.environ.get(k))}
        env |= {"HOME": home, "HF_HOME": home, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        env |= {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
        command, stdin = [sys.executable, "-I", str(loaded_alone.__file__)], json.dumps({"path": sys.path, **request})
        try:
            process = subprocess.run(
                command, input=stdin, env=env, cwd=home, capture_output=True, text=True, check=True, timeout=_SECONDS
            )
            result: dict[str, Any] = json.loads(process.stdout.strip().splitlines()[-1])
            if "error" not in result:
                return result
            why = str(result["error"])
        except subprocess.TimeoutExpired:
            pass
        except (subprocess.CalledProcessError, ValueError, IndexError, OSError) as error:
            why = type(error).__name__
    raise PublishError(f"the export cannot be loaded alone ({why}); nothing was exported")


def exposure_of(
    task: Task, model: Path, facts: Mapping[str, Any], canaries: Canaries | None, gold: Sequence[Dataset]
) -> tuple[Exposure | None, str]:
    """Measure how well a classifier knows the canaries that are in its training rows.

    Canaries in other rows cannot be known, and would hide those that are.

    Args:
        facts: of the model: digests of its training rows. Without them all rows are taken, and a note says so.
        canaries: that were planted in gold, if any.
        gold: its parts.

    Returns:
        The exposure and "", or None and why it was not measured; None and "" without canaries.

    Raises:
        ColumnError: no canary is in the gold.
    """
    if canaries is None:
        return None, ""
    if task.kind == "text2text":
        return None, "it is for classifiers only"
    if not gold:
        return None, "there was no gold"
    rows = _joined(task, gold)
    texts = rows.select_columns([*task.text_columns])
    planted = [i for i, row in enumerate(texts) if any(p in str(t) for t in row.values() for p in canaries.planted)]
    if not planted:
        raise ColumnError("no canary is in these rows: give the gold in which they were planted")
    seen, learnt = set(facts.get("row_digests") or ()), training_row_digests(facts)
    note = _ALL_PLACES if not seen else _MIXED_PLACES if learnt is None else ""
    known, labels = seen if learnt is None else learnt, rows[task.label_column][:]
    digests = row_digests(task, texts.select(planted))
    at = [i for i, d in zip(planted, digests, strict=True) if (d in known or not seen) and labels[i] is not None]
    if not at:
        return None, "no canary stands in a labelled row that it was trained on"
    try:
        return replace(exposure(task, model, canaries, rows.select(at), most_places=_PLACES), note=note), ""
    except HfSynthError as error:
        return None, f"it failed ({type(error).__name__})"


def membership_of(
    task: Task, model: Path, facts: Mapping[str, Any], gold: Sequence[Dataset], *, seed: int = 0
) -> tuple[Membership | None, str]:
    """Run a membership test on a sample of gold: training rows against rows of patients that the model never saw.

    Args:
        facts: of the model: digests of all rows it saw, and of those used only for early stopping, which are left out.
        gold: its parts.

    Returns:
        The result and "", or None and why there is no test.
    """
    seen = set(facts.get("row_digests") or ())
    if task.kind == "text2text":
        return None, "it is for classifiers only"
    if not gold or not seen:
        return None, "there was no gold" if not gold else "nothing recorded says which rows it was trained on"
    if (learnt := training_row_digests(facts)) is None:
        return None, MIXED
    try:
        rows = _joined(task, gold)
        digests = row_digests(task, rows.select_columns([*task.text_columns]))
        groups = column_of(rows, "group")
        seen_groups = {group for group, digest in zip(groups, digests, strict=True) if digest in seen} - {None}
        labelled = [i for i, label in enumerate(rows[task.label_column][:]) if label is not None]
        members = [i for i in labelled if digests[i] in learnt]
        others = [i for i in labelled if digests[i] not in seen and groups[i] not in seen_groups]
        return membership(
            task, model, gold=rows.select(members), held_out=rows.select(others), most=_ROWS, seed=seed
        ), ""
    except HfSynthError as error:
        return None, f"it failed ({type(error).__name__})"


def _joined(task: Task, gold: Sequence[Dataset]) -> Dataset:
    from datasets import concatenate_datasets

    shared = ["group"] if all("group" in part.column_names for part in gold) else []
    columns = [*task.text_columns, task.label_column, *shared]
    return concatenate_datasets([part.select_columns(columns) for part in gold])
