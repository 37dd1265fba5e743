"""A look at the first calls of a run of `generate`, before the others are paid for.

The calls are those that `generate` makes first with the same arguments, and their answers go into the same journal: the
run goes on from there, and no answer is paid for twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.generation.gates import Gates
from hf_synth.generation.generation import estimate, prepare, settings_of
from hf_synth.generation.no_row import why_no_row
from hf_synth.generation.plan import Balance, Call
from hf_synth.generation.prompts import prompt_for
from hf_synth.generation.rows import entries_of
from hf_synth.llm.questions import Answer, Chat, Question, access_of_llm, closing
from hf_synth.privacy.repetition import Seen
from hf_synth.reports.page import Section, Table, write_report
from hf_synth.task.columns import REASONS, Access, strictest
from hf_synth.task.task import Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset

KEPT = "kept"
_REASON = {sentence: reason for reason, sentence in REASONS.items()}


@dataclass(frozen=True)
class PreviewedCall:
    """One call: its prompt, its answer, and the entries of the answer.

    Args:
        entries: the row of each entry, labels as names (None where it cannot be read), and "kept" or what the gates say
            (a sentence of `REASONS`).
    """

    call: Call
    answer: Answer
    entries: tuple[tuple[Mapping[str, Any] | None, str], ...]


@dataclass(frozen=True)
class Preview:
    """The first calls, and what all calls would take if they went like these.

    Args:
        access: of the notes in prompts and answers.
        calls: of the preview.
        rows: rows wanted in all.
        calls_in_all: calls that all rows would take; None where no row was kept.
        cost_usd: US dollars of all calls; None where no row was kept or no price is known.
    """

    task: Task
    access: Access
    calls: tuple[PreviewedCall, ...]
    rows: int
    calls_in_all: int | None
    cost_usd: float | None

    @property
    def kept(self) -> int:
        """The number of good rows of the preview."""
        return sum(verdict == KEPT for one in self.calls for _, verdict in one.entries)

    @property
    def cause(self) -> str:
        """Why no row was kept, and what to do; "" where one was kept."""
        if self.kept:
            return ""
        reasons = [_REASON[verdict] for one in self.calls for _, verdict in one.entries]
        failures = Counter(one.answer.code for one in self.calls if one.answer.status == "error")
        return why_no_row(reasons, failures) if reasons else "no call was made"

    def figures(self) -> dict[str, Any]:
        """Return the numbers of the preview, without any text."""
        answers = [one.answer for one in self.calls]
        known = [a.cost for a in answers if a.cost is not None]
        return {
            "preview_calls": len(answers),
            "preview_rows_kept": self.kept,
            "preview_tokens": sum(a.tokens for a in answers),
            "preview_cost_usd": sum(known) if known else None,
            "calls_in_all": self.calls_in_all,
            "cost_usd_in_all": self.cost_usd,
        }

    def text(self) -> str:
        """Return the preview as plain text: prompt, answer, rows and gates of each call, then the cost."""
        return "\n\n".join([*(_call_text(i, one) for i, one in enumerate(self.calls, 1)), self.summary()])

    def summary(self) -> str:
        """Return what the calls gave and took, and what all of them would take, as two sentences."""
        figures = self.figures()
        cost = "" if figures["preview_cost_usd"] is None else f", ${figures['preview_cost_usd']:,.4f}"
        made = f"{self.kept} good rows of {len(self.calls)} calls, {figures['preview_tokens']:,} tokens{cost}."
        if self.calls_in_all is None:
            return f"{made} No row was kept: {self.rows:,} rows cannot be made like this."
        dollars = "" if self.cost_usd is None else f" and ${self.cost_usd:,.2f}"
        return f"{made} At this rate {self.rows:,} rows take about {self.calls_in_all:,} calls{dollars}."

    def write(self, folder: Path) -> Path:
        """Write the preview as report.html and report.md, for their owner alone (0600); they hold texts of gold."""
        sections = [_section(i, one) for i, one in enumerate(self.calls, 1)]
        first = Section("In all", self.summary(), note="This page holds texts of the gold. Only you can read the file.")
        return write_report(folder, f"Preview: {self.task.full_name}", [first, *sections])


def preview(
    task: Task,
    exemplars: Dataset,
    llm: Chat,
    n: int | Mapping[str, int],
    *,
    rows: int = 5,
    prompt: Prompt | str | None = None,
    balance: Balance = "equal",
    max_calls: int | None = None,
    seed: int = 0,
) -> Preview:
    """Make the first calls of `generate` with the same arguments.

    Args:
        n: number of good rows of the whole run, in all or by label.
        rows: how many rows to ask for now.

    Raises:
        HfSynthError: as in `generate`.
    """
    prompt = prompt_for(task, prompt) if isinstance(prompt, str) else prompt or task.prompt
    pool, quotas, schedule = prepare(task, exemplars, n, prompt, balance, max_calls, seed, llm.ahead)
    llm, settings = settings_of(task, exemplars, llm, prompt, pool, schedule)

    def first() -> Iterator[Question]:
        asked = 0
        for question in schedule.questions():
            if question is None:
                return
            asked += schedule.rows_of(schedule.open_calls[-1]).total()
            yield question
            if asked >= rows:
                return

    gates, seen = Gates(task, pool), Seen()
    calls = []
    with closing(llm.stream(first(), **settings)) as answers:
        for answer in answers:
            call = schedule.open_calls.popleft()
            calls.append(PreviewedCall(call, answer, tuple(_judge_entries(task, call, answer, gates, seen))))
    access = strictest(pool.access, access_of_llm(llm))
    made = Preview(task, access, tuple(calls), sum(quotas.values()), None, None)
    if not made.kept:
        return made
    guess = estimate(task, exemplars, n, prompt=prompt, balance=balance, max_calls=max_calls, seed=seed)
    wanted = sum(schedule.rows_of(one.call).total() for one in calls)
    in_all = min(guess.most_calls, -(-guess.calls * wanted // made.kept)) if made.kept < wanted else guess.calls
    costs = [one.answer.cost for one in calls if one.answer.cost is not None]
    cost = in_all * sum(costs) / len(costs) if costs else None
    return Preview(task, access, made.calls, made.rows, in_all, cost)


def _judge_entries(
    task: Task, call: Call, answer: Answer, gates: Gates, seen: Seen
) -> Iterator[tuple[Mapping[str, Any] | None, str]]:
    """Yield the entries of an answer with the verdict of the gates on each."""
    entries = entries_of(task, call.labels, answer)
    rows = [entry.row for entry in entries if entry.row]
    faults = iter(gates.faults(rows, [call] * len(rows)))
    for entry in entries:
        reason = entry.reason
        if entry.row:
            reason = next(faults) or seen.repeat(tuple(entry.row[c] for c in task.text_columns))
        yield entry.row, REASONS[reason] if reason else KEPT


def _call_text(number: int, one: PreviewedCall) -> str:
    lines = [f"=== call {number}: {', '.join(one.call.labels) or 'any label'} ==="]
    for message in one.call.messages:
        lines += [f"--- prompt, {message['role']} ---", message["content"]]
    lines += [f"--- answer ({_facts(one.answer)}) ---", one.answer.text]
    for row, verdict in one.entries:
        lines.append(f"--- row: {verdict} ---")
        lines += [f"{column}: {value}" for column, value in (row or {}).items()]
    return "\n".join(lines)


def _section(number: int, one: PreviewedCall) -> Section:
    prompt = [(m["role"], line) for m in one.call.messages for line in m["content"].splitlines() if line.strip()]
    answer = [(line,) for line in one.answer.text.splitlines() if line.strip()]
    entries = [(verdict, *(str(v) for v in (row or {}).values())) for row, verdict in one.entries]
    width = max(map(len, entries), default=1)
    columns = next((list(row) for row, _ in one.entries if row), [])
    cells = [(*entry, *[""] * (width - len(entry))) for entry in entries]
    tables = [
        Table(["gates", *columns], cells, "What was read, and what the gates say.", align="l" * width),
        Table(["role", "line"], prompt, "The prompt.", align="ll"),
        Table(["line"], answer, "The answer as it came.", align="l"),
    ]
    labels = ", ".join(one.call.labels) or "any label"
    return Section(f"Call {number}: {labels}", f"{_facts(one.answer)}.", tables=tables)


def _facts(answer: Answer) -> str:
    words = [answer.status, f"{answer.prompt_tokens:,} tokens read and {answer.completion_tokens:,} written"]
    words += [f"${answer.cost:,.4f}"] if answer.cost is not None else []
    return ", ".join([*words, *(["from the journal"] if answer.cached else [])])
