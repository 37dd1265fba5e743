"""Synthetic data generation with an LLM: gold exemplars -> prompts -> answers -> synthetic rows, and its cost.

`generate` keeps one pipeline full from the first call to the last, without rounds. Its questions and its rows depend on
the plan alone, never on the order in which answers arrive: answers are taken in the order of the plan, and the first of
several duplicates stays. The same call therefore returns the same rows again, and a larger n asks only new questions.
A reject is kept with its reason.
"""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ColumnError
from hf_synth.generation.answers import Parsed, parse
from hf_synth.generation.gates import Gates
from hf_synth.generation.plan import Balance, Call, Plan, Pool, Schedule, check_balance, share_rows
from hf_synth.generation.prompts import Row, answer_schema, prompt_for
from hf_synth.llm.journal import default_journal
from hf_synth.llm.questions import Answer, Chat
from hf_synth.privacy.repetition import Seen
from hf_synth.reports.page import markdown_table
from hf_synth.task.columns import REASONS, USAGE_COLUMNS, Access
from hf_synth.task.folders import WORK
from hf_synth.task.scripts import is_artificial
from hf_synth.task.task import Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset

_LOG = logging.getLogger(__name__)
_MOST_CALLS = 3  # most calls, as a multiple of those needed if every answer were good
_HOPELESS = 50  # calls in a row without an answer
_GROUP = 1_000  # rows converted to Arrow at once
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
    progress: bool = False,
) -> Dataset:
    """Generate synthetic rows from gold exemplars.

    For every rejected row another call is made with other exemplars, until there are enough good rows or `max_calls`
    are made. An LLM without a journal keeps its answers beside the gold.

    The exemplars are dealt into five folds, by group. All exemplars of a prompt are of one fold, which column `fold` of
    its rows records: a fold of gold can be held out later with all rows that were written from it.

    Args:
        exemplars: gold rows that prompts may show (see `exemplars.choose_exemplars`).
        llm: an `LLM`, a `LocalLLM` or a `BatchLLM`.
        n: number of good rows, in all or by label.
        prompt: a prompt, or the name of a shape (see `prompts.prompt_for`); the task's default when None.
        balance: how n rows are shared among the labels (see `label_plan`).
        max_calls: the most calls; three times the number needed if every answer were good when None.
        seed: of the plan; the same seed asks the same questions.
        progress: show a progress bar.

    Returns:
        n good rows (`label_status` "kept"; fewer, with a warning, when the calls do not suffice) and the rejects of
        their calls, in the order of the plan.

    Raises:
        ColumnError: the exemplars are empty or lack columns, or n has a label that the task does not have.
        TaskError: the task has no such prompt.
        HfSynthError: an error of `LLM.chat`.
    """
    prompt = prompt_for(task, prompt) if isinstance(prompt, str) else prompt or task.prompt
    pool, quotas, schedule = _prepare(task, exemplars, n, prompt, balance, max_calls, seed, llm.ahead)
    llm = _with_journal(llm, exemplars)
    gates, seen, table = Gates(task, pool), Seen(), _Table(task)
    left, failed, reasons = Counter(quotas), 0, Counter[str]()
    sampling = json.dumps(dict(prompt.sampling), sort_keys=True)
    schema = None if task.parse else answer_schema(task)
    settings = {"access": pool.access, "schema": schema, "scope": task.fingerprint(), "progress": progress}
    for answer in llm.stream(schedule.questions(), **settings, **dict(prompt.sampling)):
        call = schedule.open_calls.popleft()
        failed = failed + 1 if answer.status == "error" else 0
        schedule.stopped |= failed >= _HOPELESS or answer.code == "budget"
        kept: Counter[str] = Counter()
        usage = usage_of(answer)
        if any(left.values()):
            for row in rows_from_answer(task, call, answer, pool.access, gates, seen, sampling):
                label = _label_of(task, row, quotas)
                if row["label_status"] == "rejected":
                    reasons[row["reason"]] += 1
                elif left[label] > 0:
                    left[label] -= 1
                    kept[label] += 1
                else:
                    continue  # more of a label than wanted
                table.add(row | usage)
                usage = {}
        schedule.record(call, kept)
    if lacking := sum(left.values()):
        total, good = sum(quotas.values()), sum(quotas.values()) - lacking
        _LOG.warning("%d of %d rows came of %d calls; rejected: %s", good, total, schedule.calls, dict(reasons))
    return table.dataset()


def _prepare(
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
    pool = Pool(task, exemplars, seed=seed)
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
    pool, quotas, schedule = _prepare(task, exemplars, n, prompt, balance, max_calls, seed)
    lengths = [sum(map(len, row)) for _, row in pool.texts()]
    row_length = sum(lengths) / len(lengths) + 40  # with its label and the JSON around it
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


# --- the rows of one answer -----------------------------------------------------------------------------------------
def rows_from_answer(
    task: Task, call: Call, answer: Answer, access: Access, gates: Gates, seen: Seen, sampling: str = ""
) -> list[Row]:
    """Make the synthetic rows of one answer, rejects included, with the columns of `Task.synthetic_features`.

    Args:
        access: of the task and the exemplars.
        seen: earlier rows; the good rows of this answer are added.
        sampling: the sampling parameters, as JSON.

    Returns:
        Rows in the answer's order, labels as indices (text2text: text); at least one, which may be a reject. Good
        rows of a label beyond the number asked for are left out.
    """
    if answer.status == "error":
        entries = [Parsed(reason="budget" if answer.code == "budget" else "llm_error")]
    elif answer.status == "refusal":
        entries = [Parsed(reason="refusal")]
    else:
        entries = parse(task, answer.text, call.labels, whole=answer.status != "truncated")
    faults = iter(gates.faults([entry.row for entry in entries if entry.row], call))
    created = datetime.fromtimestamp(answer.created, UTC).isoformat(timespec="seconds") if answer.created else ""
    counts: Counter[str] = Counter()
    shared = {
        "source": "synthetic",
        "task": task.full_name,
        "task_version": task.version,
        "access": access,
        "seed_ids": list(call.seed_ids),
        "fold": call.fold,
        "prompt_sha256": call.prompt_sha256,
        "generator": answer.model,
        "journal_key": answer.journal_key,
        "answer_code": answer.code,
        "sampling": sampling,
        "created": created,
        **dict.fromkeys(USAGE_COLUMNS),
    }
    rows = []
    for position, entry in enumerate(entries):
        reason = entry.reason
        if entry.row:
            reason = next(faults) or seen.repeat(tuple(entry.row[c] for c in task.text_columns))
        if not reason and entry.row:
            label = str(entry.row[task.label_column]) if task.labels else ""
            counts[label] += 1
            if counts[label] > call.rows:
                continue
        id = f"{task.name}-syn-" + sha256(f"{answer.journal_key}:{position}".encode()).hexdigest()[:16]
        rows.append({**_content(task, entry.row, reason), "id": id, "group": id, **shared})
    return rows


def usage_of(answer: Answer) -> Row:
    """Return the tokens and the cost of an answer, as columns of the first of its rows."""
    if answer.status == "error":
        return {}
    return dict(zip(USAGE_COLUMNS, (answer.prompt_tokens, answer.completion_tokens, answer.cost), strict=True))


def _content(task: Task, row: Mapping[str, Any] | None, reason: str | None) -> Row:
    """Return texts, labels, status and reason of a row; a reject has null texts and labels."""
    kept = {} if reason or row is None else row
    label = kept.get(task.label_column)
    if label is not None and task.labels:
        label = [task.labels.index(x) for x in label] if isinstance(label, list) else task.labels.index(label)
    texts = {c: kept.get(c) for c in task.text_columns}
    status = {"label_status": "rejected" if reason else "kept", "reason": reason or "as_generated"}
    return {**texts, task.label_column: label, "llm_label": label, **status}


# --- reports --------------------------------------------------------------------------------------------------------
def generation_table(rows: Dataset) -> str:
    """Write a Markdown table of good and rejected rows, with tokens and cost.

    Args:
        rows: rows of `generate`, or corrected ones.
    """
    rejected = Counter(r for s, r in zip(rows["label_status"], rows["reason"], strict=True) if s == "rejected")
    lines = [["good rows", len(rows) - rejected.total()]]
    lines += [[f"rejected: {REASONS[reason]}", n] for reason, n in rejected.most_common()]
    read, written, dollars = (sum(v for v in rows[c] if v) if c in rows.column_names else 0 for c in USAGE_COLUMNS)
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
