"""Gold exemplars to prompts, prompts to answers, answers to synthetic rows; every reject keeps its reason.

`generate` keeps one pipeline full from the first call to the last: no rounds, no batch that is drained. What it asks
and what it keeps follows from the plan alone, never from the order in which answers arrive, so the same call gives the
same rows again; a second run, and a larger n, ask only what was never answered.
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
from hf_synth.generation.plan import Balance, Call, Plan, Pool, _check_balance, _Filling, _shared
from hf_synth.generation.prompts import Row, answer_schema, prompt_for
from hf_synth.llm.journal import default_journal
from hf_synth.llm.questions import Answer, Chat
from hf_synth.privacy.repetition import Seen
from hf_synth.reports.page import markdown_table
from hf_synth.task.columns import REASONS, USAGE_COLUMNS, Access
from hf_synth.task.folders import WORK
from hf_synth.task.task import Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset

_LOG = logging.getLogger(__name__)
_MOST_CALLS = 3  # times the calls that would do if every answer were good
_HOPELESS = 50  # calls in a row without an answer
_GROUP = 1_000  # rows that are put into Arrow together
_CHARACTERS = 4  # of a token, roughly, in English


# --- the rows of one answer -----------------------------------------------------------------------------------------
def rows_from_answer(
    task: Task, call: Call, answer: Answer, access: Access, gates: Gates, seen: Seen, sampling: str = ""
) -> list[Row]:
    """Make synthetic rows of one answer, rejects included, with the columns of `Task.synthetic_features`.

    Args:
        access: of the task and all that was shown.
        seen: what came before; grows by the good rows of this answer.
        sampling: the sampling parameters, as JSON.

    Returns:
        Rows in the answer's order, labels as indices (text2text: text); at least one, which may be a reject. Good
        rows beyond the number that was asked for of a label are left out.
    """
    if answer.status == "error":
        found = [Parsed(reason="budget" if answer.code == "budget" else "llm_error")]
    elif answer.status == "refusal":
        found = [Parsed(reason="refusal")]
    else:
        found = parse(task, answer.text, call.labels, whole=answer.status != "truncated")
    faults = iter(gates.faults([entry.row for entry in found if entry.row], call))
    created = datetime.fromtimestamp(answer.created, UTC).isoformat(timespec="seconds") if answer.created else ""
    counts: Counter[str] = Counter()
    rows = []
    for position, entry in enumerate(found):
        reason = entry.reason
        if entry.row:
            reason = next(faults) or seen.repeat(tuple(entry.row[c] for c in task.text_columns))
        if not reason and entry.row:
            label = str(entry.row[task.label_column]) if task.labels else ""
            counts[label] += 1
            if counts[label] > call.rows:
                continue
        id = f"{task.name}-syn-" + sha256(f"{answer.journal_key}:{position}".encode()).hexdigest()[:16]
        rows.append(
            {
                **_content(task, entry.row, reason), "id": id, "group": id, "source": "synthetic",
                "task": task.full_name, "task_version": task.version, "access": access,
                "seed_ids": list(call.seed_ids), "prompt_sha256": call.prompt_sha256, "generator": answer.model,
                "journal_key": answer.journal_key, "answer_code": answer.code, "sampling": sampling, "created": created,
                **dict.fromkeys(USAGE_COLUMNS),
            }
        )  # fmt: skip
    return rows


def usage_of(answer: Answer) -> Row:
    """Give what an answer took, as the columns of the first row that is kept of it."""
    if answer.status == "error":
        return {}
    return dict(zip(USAGE_COLUMNS, (answer.prompt_tokens, answer.completion_tokens, answer.cost), strict=True))


def _content(task: Task, row: Mapping[str, Any] | None, reason: str | None) -> Row:
    """Give texts, labels and status of a row; all null but the reason for a reject."""
    kept = {} if reason or row is None else row
    label = kept.get(task.label_column)
    if label is not None and task.labels:
        label = [task.labels.index(x) for x in label] if isinstance(label, list) else task.labels.index(label)
    return {
        **{c: kept.get(c) for c in task.text_columns}, task.label_column: label, "llm_label": label,
        "label_status": "rejected" if reason else "kept", "reason": reason or "as_generated",
    }  # fmt: skip


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
    """Make synthetic rows from gold exemplars.

    A call is made again, with other exemplars, for every row that a gate kept out, until enough are good or `max_calls`
    are spent. Without a journal of its own the LLM keeps its answers beside the gold.

    Args:
        exemplars: gold rows that may be shown (see `exemplars.choose_exemplars`).
        llm: an `LLM`, a `LocalLLM` or a `BatchLLM`.
        n: good rows wanted, or how many of each label.
        prompt: how to ask, or the name of a shape (see `prompts.prompt_for`); the task's default when None.
        balance: how n rows are shared among the labels (see `label_plan`).
        max_calls: the most calls; three times what good answers would need when None.
        seed: of the plan; the same seed asks the same questions.
        progress: show a progress bar.

    Returns:
        n good rows (`label_status` "kept"; fewer when the calls did not give them, with a warning), and each reject
        of the calls they came from, in the order of the plan.

    Raises:
        ColumnError: the exemplars are empty or lack columns, or n names a label that the task does not have.
        TaskError: the task has no such prompt.
        HfSynthError: as `LLM.chat` has it.
    """
    prompt = prompt_for(task, prompt) if isinstance(prompt, str) else prompt or task.prompt
    pool, wanted, filling = _prepare(task, exemplars, n, prompt, balance, max_calls, seed, llm.ahead)
    llm = _beside(llm, exemplars)
    gates, seen, table = Gates(task, pool), Seen(), _Table(task)
    left, failed, reasons = Counter(wanted), 0, Counter[str]()
    sampling = json.dumps(dict(prompt.sampling), sort_keys=True)
    for answer in llm.stream(
        filling.questions(), access=pool.access, schema=None if task.parse else answer_schema(task),
        scope=task.fingerprint(), progress=progress, **dict(prompt.sampling),
    ):  # fmt: skip
        call = filling.under_way.popleft()
        failed = failed + 1 if answer.status == "error" else 0
        filling.stopped |= failed >= _HOPELESS or answer.code == "budget"
        kept: Counter[str] = Counter()
        usage = usage_of(answer)
        if any(left.values()):
            for row in rows_from_answer(task, call, answer, pool.access, gates, seen, sampling):
                label = _label_of(task, row, wanted)
                if row["label_status"] == "rejected":
                    reasons[row["reason"]] += 1
                elif left[label] > 0:
                    left[label] -= 1
                    kept[label] += 1
                else:
                    continue  # more of a label than is wanted
                table.add(row | usage)
                usage = {}
        filling.answered(call, kept)
    if lacking := sum(left.values()):
        total = sum(wanted.values())
        _LOG.warning(
            "%d of %d rows came of %d calls; rejected: %s", total - lacking, total, filling.calls, dict(reasons)
        )
    return table.dataset()


def _prepare(
    task: Task, exemplars: Dataset, n: int | Mapping[str, int], prompt: Prompt, balance: Balance,
    max_calls: int | None, seed: int, ahead: int = 1,
) -> tuple[Pool, dict[str, int], _Filling]:  # fmt: skip
    """Set up the pool, the rows wanted by label, and what decides the calls."""
    pool = Pool(task, exemplars, seed=seed)
    _check_balance(balance)
    if isinstance(n, int):
        wanted = _shared(task, pool, n, balance) if task.kind == "single_label" else {"": n}
    else:
        wanted = dict(n)
    known = set(task.labels) if task.kind == "single_label" else {""}
    if not set(wanted) <= known or any(count < 0 for count in wanted.values()):
        raise ColumnError(f"n must be a number, or numbers by label of task {task.full_name!r}")
    wanted = {label: count for label, count in wanted.items() if count}
    together = prompt.asks_for == "every_label" and bool(task.labels)
    each = math.ceil(max(wanted.values(), default=0) / (len(task.labels) if "" in wanted and together else 1))
    rows = max(1, min(prompt.rows, each))
    calls = math.ceil(each / rows) if together else sum(math.ceil(count / rows) for count in wanted.values())
    most = _MOST_CALLS * calls if max_calls is None else max_calls
    return pool, wanted, _Filling(Plan(task, prompt, pool, rows, seed=seed), wanted, task.labels, together, most, ahead)


def _label_of(task: Task, row: Row, wanted: Mapping[str, int]) -> str:
    """Give the label that a row counts for."""
    return "" if "" in wanted or row["llm_label"] is None else task.labels[row["llm_label"]]


class _Table:
    """Rows as they come, in Arrow, group by group: a twentieth of what they take as Python objects."""

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
        """Give all rows as a Dataset."""
        import pyarrow as pa
        from datasets import Dataset

        self._pack()
        table = pa.concat_tables(self._groups)
        # ids follow from the answers; without a fingerprint `datasets` would pickle the whole table to make one
        name = sha256("".join(map("{}{}".format, table["id"].to_pylist(), table["reason"].to_pylist())).encode())
        return Dataset(table, fingerprint=name.hexdigest()[:16])


def _beside(llm: Chat, exemplars: Dataset) -> Chat:
    """Put the journal of an LLM that has none beside the gold: into the folder of ours that its cache lies in."""
    if llm.journal is not None:
        return llm
    for file in exemplars.cache_files:
        for folder in Path(file["filename"]).parents:
            if folder.name == WORK:
                return llm.with_journal(folder / "journal.sqlite")
    return llm.with_journal(default_journal())


def generation_table(rows: Dataset) -> str:
    """Give a Markdown table of what came of the generator's answers, and what they took.

    Args:
        rows: as `generate` gives them, or corrected.
    """
    rejected = Counter(r for s, r in zip(rows["label_status"], rows["reason"], strict=True) if s == "rejected")
    made = len(rows) - rejected.total()
    lines = [["good rows", made], *([f"rejected: {REASONS[why]}", n] for why, n in rejected.most_common())]
    read, written, dollars = (sum(v for v in rows[c] if v) if c in rows.column_names else 0 for c in USAGE_COLUMNS)
    cost = f", ${dollars:,.2f}" if dollars else ""
    return f"{markdown_table(['of the answers', 'rows'], lines)}\n\n{read:,} tokens read, {written:,} written{cost}."


# --- what it would cost ---------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Estimate:
    """What a run of `generate` would take if every answer were good.

    Args:
        rows: good rows wanted, by label ("" for any).
        calls: questions.
        prompt_tokens: tokens read, reckoned at four characters a token.
        completion_tokens: tokens written, reckoned from the length of the exemplars' texts.
        most_calls: questions at most, when rows are rejected.
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
    """Reckon what `generate` with the same arguments would take; nothing is asked.

    Args:
        price: US dollars for 1 million tokens (read, written).

    Raises:
        ColumnError, TaskError: as `generate`.
    """
    prompt = prompt_for(task, prompt) if isinstance(prompt, str) else prompt or task.prompt
    pool, wanted, filling = _prepare(task, exemplars, n, prompt, balance, max_calls, seed)
    lengths = [sum(map(len, row)) for _, row in pool.texts()]
    a_row = sum(lengths) / len(lengths) + 40  # its label, and the form around it
    read = written = 0.0
    for question in filling.questions():
        if question is None:  # as if every answer were good
            while filling.under_way:
                call = filling.under_way.popleft()
                filling.answered(call, filling._asks(call))
            continue
        read += sum(len(m["content"]) for m in question.messages)
        written += a_row * filling.under_way[-1].rows * max(1, len(filling.under_way[-1].labels))
    tokens = int(read / _CHARACTERS), int(written / _CHARACTERS)
    cost = None if price is None else (tokens[0] * price[0] + tokens[1] * price[1]) / 1e6
    return Estimate(wanted, filling.calls, *tokens, max(filling._most, filling.calls), cost)


def simulated(task: Task, made_by: Sequence[str]) -> str:
    """Say what of a task and its generators is artificial; "" where nothing is."""
    said = []
    if task.name == "clinic":
        said.append("The gold is an artificial clinic: notes of no patient, written by a program.")
    if any("simulator" in name for name in made_by):
        said.append("The generator is a simulator that stands in for an LLM.")
    return " ".join(said)
