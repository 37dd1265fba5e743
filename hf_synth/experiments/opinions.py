"""Opinions of LLM judges on the rows of an experiment: ask a judge once, store the probabilities, read them later.

Stored opinions hold no text: a row is known by the digest of its words.
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
from hf_synth.experiments.leakage import text_digests
from hf_synth.gold.adoption import read_dataset
from hf_synth.llm.local import LocalLLM
from hf_synth.llm.questions import Answer, Chat, access_of_llm, asked_of, closing
from hf_synth.task.access import overall_access
from hf_synth.task.columns import access_of
from hf_synth.task.folders import read_manifest, write_stage
from hf_synth.task.labels import Floats
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_MAX_ERRORS = 0.1  # share of unanswered questions beyond which nothing is stored: the next call asks all again
NO_JUDGE: Mapping[str, Any] = {
    "judged_by": "", "judge_calls": 0, "judge_prompt_tokens": 0, "judge_completion_tokens": 0, "judge_cost_usd": None,
    "seconds_judge": 0.0,
}  # fmt: skip


class Judge(Protocol):
    """A labeller that was not trained on our rows, such as an `LLMJudge`. `exemplars` are the gold rows it shows."""

    def predict(self, rows: Dataset) -> npt.ArrayLike:
        """Return the probability of each label for each row, (N, K)."""


AnyJudge = Judge | Callable[["Dataset", int], Judge]  # a function (own gold, seed) makes the judge of a cell


@dataclass(frozen=True)
class Opinions:
    """Stored opinions of a judge; itself a judge of the same rows.

    Args:
        task: of the rows.
        probs: of each label for each text, (N, K).
        place: index of a text in `probs`, by the digest of the row.
        figures: counts of questions and answers.
        shown: digests of the gold in the judge's prompts.
        access: of the rows and the judge.
    """

    task: Task
    probs: Floats
    place: Mapping[str, int]
    figures: Mapping[str, Any] = field(default_factory=dict)
    shown: frozenset[str] = frozenset()
    access: str = "open"

    def predict(self, rows: Dataset) -> Floats:
        """Return the stored probabilities of rows, (N, K).

        Raises:
            ColumnError: the judge was not asked about a row.
        """
        places = [self.place.get(name, -1) for name in text_digests(self.task, rows)]
        if min(places, default=0) < 0:
            raise ColumnError(f"the judge was not asked about {places.count(-1)} of {len(places)} rows")
        return self.probs[places]

    def known(self, rows: Dataset) -> Dataset:
        """Return the gold rows that measure the judge: rows it was asked about that are not in its prompts."""
        names = text_digests(self.task, rows)
        at = [i for i, name in enumerate(names) if name in self.place and name not in self.shown]
        return rows if len(at) == len(rows) else rows.select(at)


def judge_identity(task: Task, name: str, judge: AnyJudge) -> list[Any]:
    """Return what distinguishes a judge: name, class, model, settings and the gold that it shows."""
    kind = judge if not hasattr(judge, "predict") and hasattr(judge, "__qualname__") else type(judge)
    module = "hf_synth.judging" if kind is LLMJudge else kind.__module__  # its old place: stored opinions stay valid
    llm, exemplars = getattr(judge, "llm", judge), getattr(judge, "exemplars", None)
    return [
        name,
        f"{module}.{kind.__qualname__}",
        *(str(getattr(llm, field, "")) for field in ("model", "revision")),
        *(getattr(judge, field, None) for field in ("votes", "logprobs", "prior_free", "seed")),
        sorted(asked_of(llm, dict(getattr(judge, "sampling", {}))).items()),
        [] if exemplars is None else text_digests(task, exemplars),
    ]


def ask(task: Task, judge: AnyJudge, gold: Dataset, *rows: Dataset, seed: int, folder: Path, name: str) -> None:
    """Ask a judge about gold and other rows, and write its opinions to a folder.

    Args:
        gold: a cell's own; rows in the judge's prompts are left out, since it knows their labels.
        rows: any others.
        seed: of the cell, for a function that makes the judge.
        name: of the judge.

    Raises:
        OverlapError: the judge shows gold that is not the cell's own.
        LLMError: more than a tenth of the questions have no answer, or no answer names a label.
    """
    from datasets import Dataset

    started = time.perf_counter()
    labeller: Any = judge if hasattr(judge, "predict") else judge(gold, seed)
    exemplars = getattr(labeller, "exemplars", None)
    shown = set() if exemplars is None else set(text_digests(task, exemplars))
    own = text_digests(task, gold)
    if foreign := shown - set(own):
        raise OverlapError(
            f"judge {name!r} shows {len(foreign)} rows in its prompts that are not of the cell's own gold: give a "
            "function (own gold, seed) -> judge that takes them from there"
        )
    usage: dict[str, Any] = {}
    handed_on = access_of_llm(labeller)
    local = isinstance(labeller, LLMJudge) and labeller.logprobs and isinstance(labeller.llm, LocalLLM)  # no tokens out
    if isinstance(labeller, LLMJudge):  # a copy, whose figures are of these rows alone
        llm: Any = labeller.llm if local else _CountingChat(labeller.llm)
        labeller, usage = replace(labeller, llm=llm), {} if local else llm.usage
    probs: dict[str, list[float]] = {}
    for part in (gold.select([i for i, n in enumerate(own) if n not in shown]), *rows):
        if len(part):
            values = np.asarray(labeller.predict(part), dtype=np.float64).tolist()
            probs |= dict(zip(text_digests(task, part), values, strict=True))
    figures = dict(getattr(labeller, "figures", {}))
    _check_answered(name, figures.get("judge", {}), "; their prompts are too long for its model" if local else "")
    access = overall_access(task, gold, *rows, also=[handed_on], named=False)
    table = Dataset.from_dict({"name": list(probs), "probs": list(probs.values()), "access": [access] * len(probs)})
    facts: dict[str, Any] = {"judge": name, "figures": figures, "usage": usage, "shown": sorted(shown)}
    write_stage(task, table, folder, stage="judge", **facts, seconds=round(time.perf_counter() - started, 2))


def _check_answered(name: str, figures: Mapping[str, Any], why: str) -> None:
    asked, errors = figures.get("asked", 0), figures.get("errors", 0)
    if errors > _MAX_ERRORS * asked:
        what = f"judge {name!r} left {errors:,} of {asked:,} questions without an answer"
        raise LLMError(what + (why or "; the next call asks them again"))
    if asked and not figures.get("votes", asked):
        raise LLMError(f"none of {asked:,} answers of judge {name!r} names a label; choose another judge for this task")


def read_opinions(task: Task, folder: Path) -> Opinions:
    """Read the opinions that `ask` wrote."""
    rows = read_dataset(folder)
    place = {name: i for i, name in enumerate(rows["name"])}
    facts = read_manifest(folder) or {}
    probs = np.asarray(rows["probs"], np.float64)
    shown = frozenset(facts.get("shown", ()))
    return Opinions(task, probs, place, facts.get("figures", {}), shown, access_of(rows))


def usage_of(folder: Path | None, used: int) -> dict[str, Any]:
    """Return the cost of a cell's share of a judge's answers.

    Args:
        folder: written by `ask`; None without a judge.
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


class _CountingChat:
    """A chat that counts calls, tokens and cost of its answers; everything else is passed on."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self.usage: dict[str, Any] = {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost_usd": None}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chat, name)

    def stream(self, list_of_messages: Iterable[Any], **options: Any) -> Iterator[Answer]:
        with closing(self._chat.stream(list_of_messages, **options)) as answers:
            for answer in answers:
                usage = self.usage
                usage["calls"] += 1
                usage["prompt_tokens"] += answer.prompt_tokens
                usage["completion_tokens"] += answer.completion_tokens
                if answer.cost is not None:
                    usage["cost_usd"] = (usage["cost_usd"] or 0.0) + answer.cost
                yield answer
