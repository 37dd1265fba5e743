"""Synthetic data generation with an LLM: gold exemplars -> prompts -> answers -> synthetic rows, and its cost.

`generate` keeps one pipeline full from the first call to the last, without rounds. Its questions and its rows depend on
the plan alone, never on the order in which answers arrive: answers are taken in the order of the plan, and the first of
several duplicates stays, rejects are kept. The same call returns the same rows, and a larger n asks only new questions.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ColumnError, LLMError
from hf_synth.generation.gates import Gates
from hf_synth.generation.mending import FACT_ROUNDS, Mending
from hf_synth.generation.no_row import why_no_row
from hf_synth.generation.plan import Balance, Call, Plan, Pool, Schedule, check_balance, share_rows
from hf_synth.generation.prompts import Row, answer_schema, prompt_for
from hf_synth.generation.rows import rows_from_answers, usage_of
from hf_synth.llm.journal import default_journal
from hf_synth.llm.questions import Answer, Chat, access_of_llm, asked_of, closing
from hf_synth.privacy.repetition import Seen
from hf_synth.reports.page import markdown_table
from hf_synth.reports.progress import Stage, shown, stage
from hf_synth.task.columns import REASONS, USAGE_COLUMNS, Access, strictest
from hf_synth.task.folders import WORK
from hf_synth.task.scripts import is_artificial
from hf_synth.task.task import Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset

_LOG = logging.getLogger(__name__)
_MOST_CALLS = 3  # most calls, as a multiple of those needed if every answer were good
_HOPELESS = 50  # calls in a row without an answer
_TOGETHER = 32  # answers that the gates look at together
_GROUP = 1_000  # rows converted to Arrow at once
_LENGTH = 800  # characters of a note where there is no gold
_CHARACTERS = 4  # characters of a token in English, roughly


# --- generate -------------------------------------------------------------------------------------------------------
def generate(
    task: Task,
    exemplars: Dataset,
    llm: Chat,
    n: int | Mapping[str, int],
    *,
    prompt: Prompt | str | None = None,
    balance: Balance = "equal",
    max_calls: int | None = None,
    seed: int = 0,
    fact_rounds: int = FACT_ROUNDS,
    progress: bool = False,
) -> Dataset:
    """Generate synthetic rows from gold exemplars.

    For every rejected row another call is made with other exemplars, until there are enough good rows or `max_calls`
    are made. An LLM without a journal keeps its answers beside the gold.

    The exemplars are dealt into five folds, by group. All exemplars of a prompt are of one fold, which column `fold` of
    its rows records: a fold of gold can be held out later with all rows that were written from it.

    Args:
        exemplars: gold rows that prompts may show (see `exemplars.choose_exemplars`); no row (`no_gold`) for a prompt
            that shows none, such as "facts" and "attributes".
        llm: an `LLM`, a `LocalLLM` or a `BatchLLM`.
        n: number of good rows, in all or by label.
        prompt: a prompt, or the name of a shape (see `prompts.prompt_for`); the task's default when None.
        balance: how n rows are shared among the labels (see `label_plan`).
        max_calls: the most calls; three times the number needed if every answer were good when None.
        seed: of the plan; the same seed asks the same questions.
        fact_rounds: how often a note that does not state the facts it was asked for is asked for again, at most.
        progress: show the progress: notes, rejected answers, failures, dollars and the time that is left.

    Returns:
        n good rows (`label_status` "kept"; fewer, with a warning, when the calls do not suffice) and the rejects of
        their calls, in the order of the plan.

    Raises:
        ColumnError: the exemplars are empty or lack columns, or n has a label that the task does not have.
        TaskError: the task has no such prompt.
        HfSynthError: an error of `LLM.chat`.

    Example:
        >>> notes = generate(task, gold["train"], llm, 20)
        >>> notes["label_status"][:].count("kept")
        20
    """
    return generate_with_figures(
        task, exemplars, llm, n, prompt=prompt, balance=balance, max_calls=max_calls, seed=seed,
        fact_rounds=fact_rounds, progress=progress,
    )[0]  # fmt: skip


def no_gold(task: Task) -> Dataset:
    """Return gold rows of a task that are none, for prompts that show no gold.

    Example:
        >>> no_gold(task).num_rows
        0
    """
    from datasets import Dataset

    features = task.gold_features()
    return Dataset.from_dict({name: [] for name in features}, features=features)


def generate_with_figures(
    task: Task,
    exemplars: Dataset,
    llm: Chat,
    n: int | Mapping[str, int],
    *,
    prompt: Prompt | str | None = None,
    balance: Balance = "equal",
    max_calls: int | None = None,
    seed: int = 0,
    fact_rounds: int = FACT_ROUNDS,
    progress: bool = False,
    copies: dict[bytes, bool] | None = None,
) -> tuple[Dataset, dict[str, Any]]:
    """Generate as `generate` does, and return the rows with the figures of the run.

    Args:
        copies: what is known of texts that are copies of gold, as for `Gates`.

    Returns:
        The rows, and the numbers of `calls`, of answers `from_journal`, of `failures` by code, of answers that were
        none (`no_answer`), and of `refused` calls, also by the labels that they asked for; tokens and dollars of all
        answers, those among them of which no row was kept. With a prompt of facts `facts_checked`: notes that were
        `checked`, those that stated every fact `at_first` and `in_the_end`, and how many were `asked_again`.
    """
    prompt = prompt_for(task, prompt) if isinstance(prompt, str) else prompt or task.prompt
    pool, quotas, schedule = prepare(task, exemplars, n, prompt, balance, max_calls, seed, llm.ahead)
    llm, settings = settings_of(task, exemplars, llm, prompt, pool, schedule)
    access = strictest(pool.access, access_of_llm(llm))
    mending = Mending(task, llm, settings, fact_rounds) if prompt.facts else None
    gates = Gates(task, pool, copies)
    making = Making(task, access, quotas, schedule, asked_of(llm, dict(prompt.sampling)), gates, mending)
    with shown(progress), stage(total=sum(quotas.values()), unit="notes") as bar:
        with closing(llm.stream(schedule.questions(), **settings)) as answers:
            for answer in answers:
                making.take(answer)
                making.show(bar, cached=answer.cached)
        making.check()
        making.show(bar)
    if making.cut:
        llm.keep(making.cut)
    return making.table.dataset(), making.figures()


class Making:
    """The rows of one run of `generate`, in the order of the plan.

    Answers are checked up to `_TOGETHER` at once, and at the latest when the plan waits for them.
    """

    def __init__(
        self,
        task: Task,
        access: Access,
        quotas: Mapping[str, int],
        schedule: Schedule,
        sampling: Mapping[str, Any],
        gates: Gates,
        mending: Mending | None = None,
    ) -> None:
        self._task, self._quotas, self._schedule, self._access = task, quotas, schedule, access
        self._gates, self._seen, self.table, self._mending = gates, Seen(), _Table(task), mending
        self._sampling = json.dumps(sampling, sort_keys=True)
        self._left, self._reasons = Counter(quotas), Counter[str]()
        self.cut: list[str] = []  # keys of answers that the server cut, and of which rows came
        self._unchecked: list[tuple[Call, Answer]] = []
        self._in_vain = self._cached = self._none = 0  # answers in a row that are none; from the journal; none in all
        self._refused, self._usage = 0, dict.fromkeys(USAGE_COLUMNS, 0.0)  # of every answer, with rows or without
        self._failures, self._refusals = Counter[str](), Counter[str]()
        schedule.settle = self.check

    def take(self, answer: Answer) -> None:
        """Take the answer to the oldest open call."""
        call = self._schedule.open_calls.popleft()
        self._cached += answer.cached
        for name, value in usage_of(answer).items():
            self._usage[name] += value or 0
        if answer.status == "error":
            self._failures[answer.code] += 1
        elif answer.status == "refusal":
            self._refused += 1
            self._refusals.update(call.labels or ("",))
        self._in_vain = self._in_vain + 1 if answer.status == "error" or answer.again else 0
        self._schedule.stopped |= self._in_vain >= _HOPELESS or answer.code == "budget"
        self._unchecked.append((call, answer))
        if len(self._unchecked) >= _TOGETHER:
            self.check()

    def check(self) -> bool:
        """Check the answers that wait for it; return False where there are none."""
        group, self._unchecked = self._unchecked, []
        if self._mending is not None and group and any(self._left.values()):
            first = group
            group = self._mending.mend(first)
            for (_, before), (_, after) in zip(first, group, strict=True):
                for name in USAGE_COLUMNS:
                    self._usage[name] += (usage_of(after).get(name) or 0) - (usage_of(before).get(name) or 0)
        made = rows_from_answers(self._task, group, self._access, self._gates, self._seen, self._sampling)
        for call, answer in group:
            kept = Counter[str]()
            if any(self._left.values()):
                self._keep(next(made), usage_of(answer), kept)
            if answer.again and kept:
                self.cut.append(answer.journal_key)
            self._none += answer.again and not kept
            self._schedule.record(call, kept, none=answer.again and not kept)
        return bool(group)

    def _keep(self, rows: Sequence[Row], usage: Row, kept: Counter[str]) -> None:
        """Keep the rows that are wanted, and the rejects."""
        for row in rows:
            label = _label_of(self._task, row, self._quotas)
            if row["label_status"] == "rejected":
                self._reasons[row["reason"]] += 1
            elif self._left[label] > 0:
                self._left[label] -= 1
                kept[label] += 1
            else:
                continue  # more of a label than wanted
            self.table.add(row | usage)
            usage = {}

    def show(self, bar: Stage, *, cached: bool = False) -> None:
        """Show the notes, the rejected answers, the refusals and the dollars so far."""
        bar.done = sum(self._quotas.values()) - sum(self._left.values())
        if cached:
            bar.restart()
        counts = {"rejected": self._reasons.total(), "refused": self._refused}
        words = [f"{count:,} {word}" for word, count in counts.items() if count]
        words += [f"${self._usage['cost_usd']:,.2f}"] if self._usage["cost_usd"] else []
        bar.words = " | ".join(words)

    def figures(self) -> dict[str, Any]:
        """Return the figures of the run, and log a warning where rows are missing."""
        calls, total, lacking = self._schedule.calls, sum(self._quotas.values()), sum(self._left.values())
        if lacking:
            words = f"rejected: {dict(self._reasons)}"
            if late := self._failures["timeout"]:
                words += f"; {late} calls timed out"
            if self._none:
                words += f"; {self._none} answers were empty, or cut by the server: run again to ask for them again"
            _LOG.warning("%d of %d rows came of %d calls; %s", total - lacking, total, calls, words)
        if self._refusals:
            by_label = ", ".join(f"{name or 'no label'} {count}" for name, count in self._refusals.most_common())
            _LOG.warning("%d calls were refused, by label: %s", self._refused, by_label)
        counts: dict[str, Any] = {"failures": dict(self._failures), "no_answer": self._none}
        counts |= {"refused": self._refused, "refused_by_label": dict(self._refusals)}
        counts |= {"facts_checked": self._mending.counts} if self._mending is not None else {}
        whole = {name: total if name == "cost_usd" else int(total) for name, total in self._usage.items()}
        return {"calls": calls, "from_journal": self._cached, **counts, **whole}


def prepare(
    task: Task,
    exemplars: Dataset,
    n: int | Mapping[str, int],
    prompt: Prompt,
    balance: Balance,
    max_calls: int | None,
    seed: int,
    ahead: int = 1,
) -> tuple[Pool, dict[str, int], Schedule]:
    """Make the pool of exemplars, the quotas of rows by label, and the schedule of calls."""
    pool = Pool(task, exemplars, seed=seed, needed=prompt.exemplars != "none")
    check_balance(balance)
    if isinstance(n, int):
        quotas = share_rows(task, pool, n, balance) if task.kind == "single_label" else {"": n}
    else:
        quotas = dict(n)
    known = set(task.labels) if task.kind == "single_label" else {""}
    if not set(quotas) <= known or any(count < 0 for count in quotas.values()):
        raise ColumnError(f"n must be a number, or numbers by label of task {task.full_name!r}, not below 0")
    quotas = {label: count for label, count in quotas.items() if count}
    together = prompt.asks_for == "every_label" and bool(task.labels)
    each = math.ceil(max(quotas.values(), default=0) / (len(task.labels) if "" in quotas and together else 1))
    rows = max(1, min(prompt.rows, each))
    calls = math.ceil(each / rows) if together else sum(math.ceil(count / rows) for count in quotas.values())
    most = _MOST_CALLS * calls if max_calls is None else max_calls
    return pool, quotas, Schedule(Plan(task, prompt, pool, rows, seed=seed), quotas, task.labels, together, most, ahead)


def settings_of(
    task: Task, exemplars: Dataset, llm: Chat, prompt: Prompt, pool: Pool, schedule: Schedule
) -> tuple[Chat, dict[str, Any]]:
    """Return the LLM with its journal, and the keywords of `stream` that are a part of every key.

    A small model goes on with entries that nobody asked for, at the cost of half its time. The llama.cpp server of this
    process takes a limit of entries.
    """
    most = schedule.rows_of_call if getattr(llm, "weights", None) is not None else None
    settings = {"access": pool.access, "schema": None if task.parse else answer_schema(task, most)}
    return _with_journal(llm, exemplars), settings | {"scope": task.fingerprint(), **dict(prompt.sampling)}


def _label_of(task: Task, row: Row, quotas: Mapping[str, int]) -> str:
    """Return the label that a row counts for."""
    return "" if "" in quotas or row["llm_label"] is None else task.labels[row["llm_label"]]


class _Table:
    """Rows collected in Arrow, which takes a twentieth of the memory of Python objects."""

    def __init__(self, task: Task) -> None:
        self._features = task.synthetic_features()
        self._rows: list[Row] = []
        self._groups: list[Any] = []

    def add(self, row: Row) -> None:
        """Add a row."""
        self._rows.append(row)
        if len(self._rows) >= _GROUP:
            self._pack()

    def _pack(self) -> None:
        import pyarrow as pa

        columns = {name: [row[name] for row in self._rows] for name in self._features}
        self._groups.append(pa.table(columns, schema=self._features.arrow_schema))
        self._rows = []

    def dataset(self) -> Dataset:
        """Return all rows as a Dataset."""
        import pyarrow as pa
        from datasets import Dataset

        self._pack()
        table = pa.concat_tables(self._groups)
        # without a fingerprint `datasets` would pickle the whole table; ids are hashes of the answers
        name = sha256("".join(map("{}{}".format, table["id"].to_pylist(), table["reason"].to_pylist())).encode())
        return Dataset(table, fingerprint=name.hexdigest()[:16])


def _with_journal(llm: Chat, exemplars: Dataset) -> Chat:
    """Put the journal of an LLM without one beside the gold, in the work folder of the gold's cache."""
    if llm.journal is not None:
        return llm
    for file in exemplars.cache_files:
        for folder in Path(file["filename"]).parents:
            if folder.name == WORK:
                return llm.with_journal(folder / "journal.sqlite")
    return llm.with_journal(default_journal())


def check_some(rows: Dataset, figures: Mapping[str, Any] | None = None) -> None:
    """Check that `generate` made a note.

    Args:
        figures: of `generate_with_figures`, for the cause.

    Raises:
        LLMError: it made none; the message says why, and what to do.
    """
    if not len(rows) or "label_status" not in rows.column_names:
        return
    if any(status != "rejected" for status in rows["label_status"][:]):
        return
    cause = why_no_row(rows["reason"][:], (figures or {}).get("failures", {}))
    raise LLMError(f"no note was made: {cause}")


# --- cost estimate --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Estimate:
    """Calls, tokens and cost of a run of `generate` if every answer were good.

    Args:
        rows: good rows wanted, by label ("" for any).
        calls: number of questions.
        prompt_tokens: tokens read, estimated at four characters each.
        completion_tokens: tokens written, estimated from the length of the exemplars' texts.
        most_calls: most questions, when rows are rejected.
        cost_usd: US dollars; None where no price is known.
    """

    rows: dict[str, int]
    calls: int
    prompt_tokens: int
    completion_tokens: int
    most_calls: int
    cost_usd: float | None = None


def estimate(
    task: Task,
    exemplars: Dataset,
    n: int | Mapping[str, int],
    *,
    price: tuple[float, float] | None = None,
    prompt: Prompt | str | None = None,
    balance: Balance = "equal",
    max_calls: int | None = None,
    seed: int = 0,
) -> Estimate:
    """Estimate the cost of `generate` with the same arguments; nothing is asked.

    Args:
        price: US dollars for 1 million tokens (read, written).

    Raises:
        ColumnError, TaskError: as in `generate`.
    """
    prompt = prompt_for(task, prompt) if isinstance(prompt, str) else prompt or task.prompt
    pool, quotas, schedule = prepare(task, exemplars, n, prompt, balance, max_calls, seed)
    lengths = [sum(map(len, row)) for _, row in pool.texts()]
    row_length = (sum(lengths) / len(lengths) if lengths else _LENGTH) + 40  # with its label and the JSON around it
    read = written = 0.0
    for question in schedule.questions():
        if question is None:  # as if every answer were good
            while schedule.open_calls:
                call = schedule.open_calls.popleft()
                schedule.record(call, schedule.rows_of(call))
            continue
        read += sum(len(m["content"]) for m in question.messages)
        written += row_length * schedule.open_calls[-1].rows * max(1, len(schedule.open_calls[-1].labels))
    tokens = int(read / _CHARACTERS), int(written / _CHARACTERS)
    cost = None if price is None else (tokens[0] * price[0] + tokens[1] * price[1]) / 1e6
    return Estimate(quotas, schedule.calls, *tokens, max(schedule.most, schedule.calls), cost)


# --- reports --------------------------------------------------------------------------------------------------------
def generation_table(rows: Dataset, usage: Mapping[str, Any] | None = None) -> str:
    """Write a Markdown table of good and rejected rows, with tokens and cost.

    Args:
        rows: rows of `generate`, or corrected ones.
        usage: tokens and cost of the whole run, in which answers without a wanted row count too; of the rows when None.
    """
    rejected = Counter(r for s, r in zip(rows["label_status"][:], rows["reason"][:], strict=True) if s == "rejected")
    lines = [["good rows", len(rows) - rejected.total()]]
    lines += [[f"rejected: {REASONS[reason]}", n] for reason, n in rejected.most_common()]
    of_rows = {c: sum(v for v in rows[c] if v) if c in rows.column_names else 0 for c in USAGE_COLUMNS}
    read, written, dollars = ((of_rows if usage is None else usage)[c] for c in USAGE_COLUMNS)
    cost = f", ${dollars:,.2f}" if dollars else ""
    return f"{markdown_table(['of the answers', 'rows'], lines)}\n\n{read:,} tokens read, {written:,} written{cost}."


def simulated(task: Task, generators: Sequence[str]) -> str:
    """Describe what of a task and its generators is artificial; "" where nothing is."""
    notes = []
    if is_artificial(task):
        notes.append("The gold is an artificial clinic: notes of no patient, written by a program.")
    if any("simulator" in name for name in generators):
        notes.append("The generator is a simulator that stands in for an LLM.")
    return " ".join(notes)
