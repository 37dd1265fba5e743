"""Fifty notes for a person that cover what the notes were asked for: labels, facts, attributes and the prompt.

At most half of them are chosen, and each by the same rule: the note that was asked for the most values that no chosen
note has yet. Of equal ones the label with the fewest chosen notes comes first, then a hash of the row's id. The others
are drawn at random by label, as any other sample is.

A chosen note stands for itself alone (inclusion probability 1, a stratum of its own), and the drawn ones stand for all
others: the share of wrong labels is estimated for all notes, without a bias by the choice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hf_synth.correction.audited import LEAST, PROBABILITY, STRATUM, audit_sample
from hf_synth.generation.stated import stated_of
from hf_synth.review.sheets import SampleSheet, items_of, shuffled
from hf_synth.task.labels import label_names
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

COVER = "cover"  # stratum of the chosen notes


def draw_spread(task: Task, rows: Dataset, n: int, manifest: Mapping[str, Any], *, seed: int = 0) -> SampleSheet:
    """Choose notes that cover what was asked for, and draw the others at random by label.

    Args:
        rows: of `generate --no-gold`.
        n: notes in all.
        manifest: of their folder: `prompt` and `seed` of the run.
        seed: of the choice and of the sample.

    Raises:
        TaskError: the task is not single_label.
        ColumnError: columns are missing, or n does not fit the rows.
    """
    values = values_of(task, rows, manifest)
    at = [i for i, status in enumerate(rows["label_status"][:]) if status != "rejected"]
    if n > len(at):
        audit_sample(task, rows, n, seed=seed)  # raises the error that says how many there are
    most = min(n // 2, n - LEAST * len(task.labels), len(at) - 1)
    ids = [str(id) for id in rows["id"][:]]
    chosen = cover([values[i] for i in at], [ids[i] for i in at], max(0, most), seed=seed)
    picked = {at[k] for k in chosen}
    rest = rows.select([i for i in range(len(rows)) if i not in picked])
    drawn = audit_sample(task, rest, n - len(picked), by=("label",), seed=seed)
    designs = {ids[i]: (1.0, COVER) for i in picked}
    designs |= {r["id"]: (r[PROBABILITY], r[STRATUM]) for r in drawn.select_columns(["id", PROBABILITY, STRATUM])}
    everything = {value for i in at for value in values[i]}
    reached = {value for i, id in enumerate(ids) if id in designs for value in values[i]}
    settings = {"n": n, "by": ["label"], "seed": seed, "covered": len(reached), "to_cover": len(everything)}
    return SampleSheet(items_of(task, rows, shuffled(designs), designs), len(at), settings)


def values_of(task: Task, rows: Dataset, manifest: Mapping[str, Any]) -> list[frozenset[str]]:
    """Return what each row covers: its label, its prompt, and each fact and attribute that it was asked for."""
    prompt, seed = manifest.get("prompt"), manifest.get("seed", 0)
    names = label_names(rows.features["llm_label"]) or list(task.labels)
    asked = stated_of(task, rows, prompt if isinstance(prompt, str) else None, seed if isinstance(seed, int) else 0)
    values = []
    for hash, label in zip(rows["prompt_sha256"][:], rows["llm_label"][:], strict=True):
        own = {f"{kind} {name}: {value}" for kind, name, value in asked.get(str(hash), ())}
        name = names[label] if isinstance(label, int) else str(label)
        values.append(frozenset(own | {f"label {name}", f"prompt {prompt}"}) if label is not None else frozenset())
    return values


def cover(values: Sequence[frozenset[str]], ids: Sequence[str], most: int, *, seed: int = 0) -> list[int]:
    """Choose notes greedily until each value is covered, and return their positions.

    Args:
        values: what each note covers; a value that begins with "label " is its label.
        ids: of the notes.
        most: notes at most.
        seed: of the order of equal notes.
    """
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(f"{seed}\x1f{ids[i]}".encode()).digest())
    left = set().union(*values)
    labels = ["".join(v for v in own if v.startswith("label ")) for own in values]
    chosen: list[int] = []
    taken = Counter[str]()
    while left and len(chosen) < most:
        best = max(order, key=lambda i: (len(values[i] & left), -taken[labels[i]]))
        chosen.append(best)
        taken[labels[best]] += 1
        left -= values[best]
    return chosen
