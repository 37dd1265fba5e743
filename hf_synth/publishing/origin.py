"""Origin: whether the gold that was given for a check is the gold that rows or a model came from.

Checking against gold is worth nothing when the gold is of something else. What was recorded on the way decides: the ids
of exemplars in the rows (`seed_ids`), the marks of gold rows in the manifest of the folder that a verb wrote, the
digests of rows in a model's facts. Where nothing was recorded that is said, and nothing of it becomes public.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_synth.task.task import Task, row_digests

if TYPE_CHECKING:
    from datasets import Dataset

MARKS = "gold_marks"  # in a manifest
_MARK = 16  # hex digits of a digest


@dataclass(frozen=True)
class Origin:
    """What is known of where something came from.

    Args:
        wrong: why the gold given is not, or not all of, the gold it came from.
        told: what was compared, as a sentence for verdict and card.
        known: whether anything was recorded to compare with.
    """

    wrong: tuple[str, ...] = ()
    told: str = ""
    known: bool = False


def gold_marks(task: Task, *gold: Dataset) -> list[str]:
    """Mark gold rows by their text (16 hex digits each, sorted), for the manifest of what is made from them."""
    found = {d[:_MARK] for part in gold for d in row_digests(task, part.select_columns(list(task.text_columns)))}
    return sorted(found)


def origin_of_rows(
    task: Task, rows: Dataset, gold: Sequence[Dataset], manifest: Mapping[str, Any] | None = None
) -> Origin:
    """Compare gold with what synthetic rows say of the gold they came from.

    Args:
        gold: its parts; none is nothing to compare.
        manifest: of the folder that the rows were read from.
    """
    if not gold:
        return Origin()
    wrong, told = _not_gold(rows, gold), []
    seeds = list(rows["seed_ids"]) if "seed_ids" in rows.column_names else [None]
    shown = {s for ids in seeds if ids for s in ids}
    if shown:
        there = {i for part in gold if "id" in part.column_names for i in part["id"]}
        if shown - there:
            wrong.append(
                f"the gold lacks {len(shown - there):,} of the {len(shown):,} rows that were shown to the generator: "
                "give all of it"
            )
        told.append(f"all {len(shown):,} gold rows that were shown to the generator")
    marks = set((manifest or {}).get(MARKS) or ())
    if marks:
        missing = len(marks - set(gold_marks(task, *gold)))
        if missing:
            wrong.append(f"the gold lacks {missing:,} of the {len(marks):,} gold rows that the folder was made with")
        told.append(f"all {len(marks):,} gold rows that the folder was made with")
    if not told:
        return Origin(tuple(wrong), "nothing recorded says which gold the rows came from: that could not be checked")
    known = bool(marks) or (bool(shown) and all(ids is not None for ids in seeds))
    return Origin(tuple(wrong), f"the gold holds {' and '.join(told)}", known)


def origin_of_model(task: Task, facts: Mapping[str, Any], gold: Sequence[Dataset]) -> Origin:
    """Compare gold with what the facts of a model say of the gold it was trained on, text by text.

    A text counts once, however often it stands in what is given. Facts of earlier releases count rows alone: there as
    many texts may be wanting as rows of the training set are known to repeat others.
    """
    if not gold:
        return Origin()
    trained = int(dict(facts.get("rows") or {}).get("gold", 0))
    seen = set(facts.get("row_digests") or ())
    if not trained or not seen:
        return Origin((), "nothing recorded says which gold the model came from: that could not be checked")
    if others := sum(s != "gold" for part in gold if "source" in part.column_names for s in part["source"]):
        return Origin((f"{others:,} rows of what was given as gold do not call themselves gold",), "", True)
    columns = list(task.text_columns)
    there = len({d for part in gold for d in row_digests(task, part.select_columns(columns))} & seen)
    texts = int(facts.get("gold_texts") or trained - _repeated(facts, len(seen)))
    if there < texts:
        lacking = f"the gold lacks {texts - there:,} of the {texts:,} gold texts that the model was trained on"
        return Origin((f"{lacking}: give all of it",), lacking, True)
    return Origin((), f"the gold holds all {texts:,} gold texts that the model was trained on", True)


def _repeated(facts: Mapping[str, Any], texts: int) -> int:
    """Give how many rows a model saw that repeat others at least, by what its facts count."""
    rows = sum(map(int, dict(facts.get("rows") or {}).values())) + int(facts.get("validation_rows") or 0)
    return min(max(0, rows - texts), int(facts["rows"]["gold"]) - 1)


def _not_gold(rows: Dataset, gold: Sequence[Dataset]) -> list[str]:
    """Tell where what was given as gold calls itself something else."""
    wrong = []
    others = sum(s != "gold" for part in gold if "source" in part.column_names for s in part["source"])
    if others:
        wrong.append(f"{others:,} rows of what was given as gold do not call themselves gold")
    mine = {str(name).split(":")[0] for name in (rows["task"] if "task" in rows.column_names else ()) if name}
    named = {str(n).split(":")[0] for part in gold if "task" in part.column_names for n in part["task"] if n}
    if mine and named and not mine & named:
        wrong.append("the gold given is of another task than the rows")
    return wrong
