"""A model on trial before it leaves: it is loaded back from its export alone, and asked whether it tells its rows.

The export is loaded in a process that has nothing of ours, no network and no cache, and must give on made-up sentences
what the model gives here: a file that was left behind, or a config that says other than the weights, shows there.
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
from hf_synth.models.record import trained_on
from hf_synth.models.text2text import generate_text, input_texts
from hf_synth.privacy.canaries import Canaries
from hf_synth.privacy.membership import MIXED, Exposure, Membership, exposure, membership
from hf_synth.publishing import loaded_alone
from hf_synth.task.labels import column_of, row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

# Invented, of nobody, and short enough for any model.
SENTENCES = (
    "The kettle in the tea room boils.",
    "Seen today in clinic, no new complaint, plan unchanged.",
    "Swallowing is sore; soft diet, review in two weeks.",
    "A tube was placed and feeding started on the ward.",
)
_TOLERANCE = 1e-3  # of a probability: other batches, other roundings
_NEW_TOKENS = 12
_SECONDS = 900
_PLACES = 8  # at which canaries are looked for: each takes some hundred predictions
_ALL_PLACES = "nothing recorded says which rows it was trained on: places of all the gold were taken"
_MIXED_PLACES = "rows that only stopped its training may be among the places"
_ROWS = 500  # of each side of a test of membership


# --- loaded back ----------------------------------------------------------------------------------------------------
def load_check(task: Task, model: Path) -> Callable[[Path], None]:
    """Give the check of an export folder: loaded alone, it must answer as the model does here.

    Raises:
        PublishError: (by the check) it cannot be loaded there, or answers something else.
    """

    def check(folder: Path) -> None:
        rows = _made_up(task)
        texts = [[t] for t in input_texts(task, rows)]
        if task.kind != "text2text":
            texts = [list(row) for row in zip(*(rows[c] for c in task.text_columns), strict=True)]
        there = _ask({"folder": str(folder.resolve()), "kind": task.kind, "texts": texts, "most": _NEW_TOKENS})
        if not _same(task, model, rows, there):
            raise PublishError("the export, loaded alone, answers otherwise than the model does here; nothing left")

    return check


def _made_up(task: Task) -> Dataset:
    from datasets import Dataset

    turned = [SENTENCES[n:] + SENTENCES[:n] for n in range(len(task.text_columns))]
    return Dataset.from_dict({c: list(turned[n]) for n, c in enumerate(task.text_columns)})


def _same(task: Task, model: Path, rows: Dataset, there: Mapping[str, Any]) -> bool:
    try:
        if task.kind == "text2text":
            return bool(there["texts"] == generate_text(task, model, rows, max_new_tokens=_NEW_TOKENS, device="cpu"))
        order = [there["labels"].index(label) for label in task.labels]
        found = np.array(there["probs"])[:, order]
    except (KeyError, ValueError, IndexError, TypeError):
        return False
    here = predict_proba(task, model, rows, device="cpu")
    return found.shape == here.shape and bool(np.abs(found - here).max() <= _TOLERANCE)


def _ask(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Let a process of its own answer."""
    why = "it took too long"
    with tempfile.TemporaryDirectory(prefix="hf-synth-alone-") as home:
        told = {k: v for k in ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS") if (v := os.environ.get(k))}
        told |= {"HOME": home, "HF_HOME": home, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        told |= {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
        try:
            done = subprocess.run(
                [sys.executable, "-I", str(loaded_alone.__file__)], input=json.dumps({"path": sys.path, **asked}),
                env=told, cwd=home, capture_output=True, text=True, check=True, timeout=_SECONDS,
            )  # fmt: skip
            answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
            if "error" not in answer:
                return answer
            why = str(answer["error"])
        except subprocess.TimeoutExpired:
            pass
        except (subprocess.CalledProcessError, ValueError, IndexError, OSError) as error:
            why = type(error).__name__
    raise PublishError(f"the export cannot be loaded by itself ({why}); nothing left")


# --- what it tells --------------------------------------------------------------------------------------------------
def known_canaries(
    task: Task, model: Path, facts: Mapping[str, Any], canaries: Canaries | None, gold: Sequence[Dataset]
) -> tuple[Exposure | None, str]:
    """Measure how well a classifier knows canaries, where they stand in rows that it learnt from.

    Canaries in other rows are none that it could know, and would hide those that it does.

    Args:
        facts: of the model: digests of the rows that it saw. Where there are none, all rows are taken, and a note says
            so.
        canaries: what was planted; None where nothing was.
        gold: its parts.

    Returns:
        What was found, or None and why it was not measured; "" without canaries.

    Raises:
        ColumnError: no canary stands in the gold.
    """
    if canaries is None:
        return None, ""
    if task.kind == "text2text":
        return None, "it is for classifiers only"
    if not gold:
        return None, "there was no gold"
    rows = _columns(task, gold)
    texts = rows.select_columns([*task.text_columns])
    planted = [i for i, row in enumerate(texts) if any(p in str(t) for t in row.values() for p in canaries.planted)]
    if not planted:
        raise ColumnError("no canary stands in these rows: give the gold that they were planted into")
    seen, learnt = set(facts.get("row_digests") or ()), trained_on(facts)
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
    """Test whether a model tells its training rows, on a sample of gold: those it saw, and those of others.

    Args:
        facts: of the model: digests of the rows that it saw, and of those that only stopped its training.
        gold: its parts; what the model did not see counts as outside where none of its patient was seen. Rows that
            stopped its training are of neither side.

    Returns:
        What was found, or None and why there is no test.
    """
    seen = set(facts.get("row_digests") or ())
    if task.kind == "text2text":
        return None, "it is for classifiers only"
    if not gold or not seen:
        return None, "there was no gold" if not gold else "nothing recorded says which rows it was trained on"
    if (learnt := trained_on(facts)) is None:
        return None, MIXED
    try:
        rows = _columns(task, gold)
        digests = row_digests(task, rows.select_columns([*task.text_columns]))
        there = [digest in seen for digest in digests]
        groups = column_of(rows, "group")
        inside = {group for group, is_there in zip(groups, there, strict=True) if is_there and group is not None}
        labelled = [label is not None for label in rows[task.label_column]]
        members = [i for i, digest in enumerate(digests) if digest in learnt and labelled[i]]
        others = [i for i, is_there in enumerate(there) if not is_there and labelled[i] and groups[i] not in inside]
        return membership(
            task, model, gold=rows.select(members), held_out=rows.select(others), most=_ROWS, seed=seed
        ), ""
    except HfSynthError as error:
        return None, f"it failed ({type(error).__name__})"


def _columns(task: Task, gold: Sequence[Dataset]) -> Dataset:
    from datasets import concatenate_datasets

    shared = ["group"] if all("group" in part.column_names for part in gold) else []
    columns = [*task.text_columns, task.label_column, *shared]
    return concatenate_datasets([part.select_columns(columns) for part in gold])
