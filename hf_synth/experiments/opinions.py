"""What a judge says of an experiment's rows: asked in one place, kept by key, read by the stages that need it.

A judge is asked where the pools are made: an LLM's requests run side by side as it is, and what it answered is in its
journal. What is kept holds no text: a row is known by the digest of its words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from hf_synth.correction.judging import LLMJudge
from hf_synth.errors import ColumnError, LLMError, OverlapError
from hf_synth.gold.adoption import read_dataset
from hf_synth.llm.local import LocalLLM
from hf_synth.llm.questions import Answer, Chat
from hf_synth.task.columns import access_of, strictest
from hf_synth.task.folders import read_manifest, write_stage
from hf_synth.task.labels import row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Floats = npt.NDArray[np.float64]
_ERRORS = 0.1  # share of questions without an answer, beyond which nothing is kept: all is asked again next time
NO_JUDGE: Mapping[str, Any] = {
    "judged_by": "", "judge_calls": 0, "judge_prompt_tokens": 0, "judge_completion_tokens": 0, "judge_cost_usd": None,
    "seconds_judge": 0.0,
}  # fmt: skip


class Judge(Protocol):
    """What labels rows and learnt from none of ours, such as an `LLMJudge`. Gold that it shows is its `exemplars`."""

    def predict(self, rows: Dataset) -> npt.ArrayLike:
        """Give the probability of each label for each row, (N, K)."""


AnyJudge = Judge | Callable[["Dataset", int], Judge]  # a function of a cell's own gold and seed makes one for the cell


@dataclass(frozen=True)
class Opinions:
    """What a judge said of rows, as a judge of those rows.

    Args:
        task: of the rows.
        probs: of each label for each text, (N, K).
        place: where a text stands there, by the digest of the row.
        figures: what was asked and what came of it.
        shown: digests of gold that stood in the judge's prompts.
    """

    task: Task
    probs: Floats
    place: Mapping[str, int]
    figures: Mapping[str, Any] = field(default_factory=dict)
    shown: frozenset[str] = frozenset()

    def predict(self, rows: Dataset) -> Floats:
        """Give what was said of rows, (N, K).

        Raises:
            ColumnError: a row was not asked about.
        """
        found = [self.place.get(name, -1) for name in _names(self.task, rows)]
        if min(found, default=0) < 0:
            raise ColumnError(f"the judge was not asked about {found.count(-1)} of {len(found)} rows")
        return self.probs[found]

    def known(self, rows: Dataset) -> Dataset:
        """Give the gold that measures the judge: what it was asked about, and none that stood in its prompts."""
        at = [i for i, name in enumerate(_names(self.task, rows)) if name in self.place and name not in self.shown]
        return rows if len(at) == len(rows) else rows.select(at)


def judge_identity(task: Task, name: str, judge: AnyJudge) -> list[Any]:
    """Tell one judge from another: by its name, what it is, its model, how it is asked and what gold it shows."""
    how = ("votes", "logprobs", "prior_free", "seed")
    kind = judge if not hasattr(judge, "predict") and hasattr(judge, "__qualname__") else type(judge)
    module = "hf_synth.judging" if kind is LLMJudge else kind.__module__  # where it lay: kept opinions stay valid
    asked, shown = getattr(judge, "llm", judge), getattr(judge, "exemplars", None)
    return [
        name,
        f"{module}.{kind.__qualname__}",
        *(str(getattr(asked, told, "")) for told in ("model", "revision")),
        *(getattr(judge, h, None) for h in how),
        sorted(dict(getattr(judge, "sampling", {})).items()),
        [] if shown is None else _names(task, shown),
    ]


def ask(task: Task, judge: AnyJudge, gold: Dataset, *rows: Dataset, seed: int, folder: Path, name: str) -> None:
    """Ask a judge about gold and other rows, and keep what it says in a folder.

    Args:
        gold: a cell's own; what the judge shows of it in its prompts is not asked about, since it knows the answer.
        rows: any others.
        seed: of the cell, for a function that makes the judge.
        name: of the judge.

    Raises:
        OverlapError: the judge shows gold that is not the cell's own.
        LLMError: more than a tenth of its questions got no answer, or none that can be read.
    """
    from datasets import Dataset

    started = time.perf_counter()
    asked: Any = judge if hasattr(judge, "predict") else judge(gold, seed)
    shown = getattr(asked, "exemplars", None)
    shows = set() if shown is None else set(_names(task, shown))
    own = _names(task, gold)
    if foreign := shows - set(own):
        raise OverlapError(
            f"judge {name!r} shows {len(foreign)} rows in its prompts that are not of the cell's own gold: give a "
            "function (own gold, seed) -> judge that takes them from there"
        )
    usage: dict[str, Any] = {}
    reads = isinstance(asked, LLMJudge) and asked.logprobs and isinstance(asked.llm, LocalLLM)  # and writes nothing
    if isinstance(asked, LLMJudge):  # a new one, whose figures are of these rows alone
        counted: Any = asked.llm if reads else _Counted(asked.llm)
        asked, usage = replace(asked, llm=counted), {} if reads else counted.usage
    kept: dict[str, list[float]] = {}
    for part in (gold.select([i for i, n in enumerate(own) if n not in shows]), *rows):
        if len(part):
            said = np.asarray(asked.predict(part), dtype=np.float64)
            kept |= dict(zip(_names(task, part), said.tolist(), strict=True))
    figures = dict(getattr(asked, "figures", {}))
    _check_answered(name, figures.get("judge", {}), "; their prompts are too long for its model" if reads else "")
    access = strictest(task.access, access_of(gold), *(access_of(part) for part in rows))
    told = Dataset.from_dict({"name": list(kept), "probs": list(kept.values()), "access": [access] * len(kept)})
    write_stage(
        task, told, folder, stage="judge", judge=name, figures=figures, usage=usage, shown=sorted(shows),
        seconds=round(time.perf_counter() - started, 2),
    )  # fmt: skip


def _check_answered(name: str, told: Mapping[str, Any], why: str) -> None:
    asked, errors = told.get("asked", 0), told.get("errors", 0)
    if errors > _ERRORS * asked:
        what = f"judge {name!r} left {errors:,} of {asked:,} questions without an answer"
        raise LLMError(what + (why or "; they are asked again next time"))
    if asked and not told.get("votes", asked):
        raise LLMError(f"none of {asked:,} answers of judge {name!r} names a label: it cannot judge this task")


def read_opinions(task: Task, folder: Path) -> Opinions:
    """Read what `ask` kept."""
    rows = read_dataset(folder)
    place = {name: i for i, name in enumerate(rows["name"])}
    facts = read_manifest(folder) or {}
    probs = np.asarray(rows["probs"], np.float64)
    return Opinions(task, probs, place, facts.get("figures", {}), frozenset(facts.get("shown", ())))


def usage_of(folder: Path | None, used: int) -> dict[str, Any]:
    """Say what a cell's share of a judge's answers took.

    Args:
        folder: what `ask` kept; None where no judge was asked.
        used: rows of the cell that were judged.
    """
    if folder is None:
        return dict(NO_JUDGE)
    facts = read_manifest(folder) or {}
    share, usage = used / max(1, facts.get("rows", {}).get("train", used)), facts.get("usage", {})
    counts = {n: round(share * usage.get(n, 0)) for n in ("calls", "prompt_tokens", "completion_tokens")}
    cost = usage.get("cost_usd")
    return {
        "judged_by": facts.get("figures", {}).get("judge", {}).get("model", facts.get("judge", "")),
        **{f"judge_{n}": value for n, value in counts.items()},
        "judge_cost_usd": None if cost is None else share * cost,
        "seconds_judge": round(share * float(facts.get("seconds", 0.0)), 2),
    }


def _names(task: Task, rows: Dataset) -> list[str]:
    return row_digests(task, rows.select_columns(list(task.text_columns)))


class _Counted:
    """A chat whose answers are counted; all else is that of the chat itself."""

    def __init__(self, chat: Chat) -> None:
        self._asked = chat
        self.usage: dict[str, Any] = {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost_usd": None}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._asked, name)

    def stream(self, list_of_messages: Iterable[Any], **options: Any) -> Iterator[Answer]:
        for answer in self._asked.stream(list_of_messages, **options):
            usage = self.usage
            usage["calls"] += 1
            usage["prompt_tokens"] += answer.prompt_tokens
            usage["completion_tokens"] += answer.completion_tokens
            if answer.cost is not None:
                usage["cost_usd"] = (usage["cost_usd"] or 0.0) + answer.cost
            yield answer
