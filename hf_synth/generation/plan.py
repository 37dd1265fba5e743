"""The plan of calls: which labels, which exemplars and which seed each call has, fixed by its number."""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from hf_synth.errors import ColumnError, TaskError
from hf_synth.generation.prompts import Messages, Row, render
from hf_synth.llm.questions import Question
from hf_synth.privacy.folding import digest
from hf_synth.task.columns import access_of, strictest
from hf_synth.task.facts import Facts
from hf_synth.task.labels import check_columns, label_names
from hf_synth.task.task import Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset

Balance = Literal["equal", "gold", "fill"]


# --- how many rows of what ------------------------------------------------------------------------------------------
def label_plan(task: Task, exemplars: Dataset, n: int, balance: Balance = "equal") -> dict[str, int]:
    """Say how many rows of each label n rows are to be.

    Args:
        balance: "equal"; "gold": in the proportions of the exemplars; "fill": so that exemplars and new rows together
            come as near to equal as n rows allow.

    Returns:
        Label to number, n in all; {"": n} for a task without single labels.

    Raises:
        ColumnError: `balance` is none of these.
    """
    _check_balance(balance)
    return {"": n} if task.kind != "single_label" else _shared(task, Pool(task, exemplars), n, balance)


def _check_balance(balance: str) -> None:
    if balance not in ("equal", "gold", "fill"):
        raise ColumnError("balance is equal, gold or fill")


def _shared(task: Task, pool: Pool, n: int, balance: Balance) -> dict[str, int]:
    have = {label: len(pool.by_label.get(label, ())) for label in task.labels}
    if balance == "gold":
        total = sum(have.values())
        shares = {label: n * count / total for label, count in have.items()}
        plan = {label: int(share) for label, share in shares.items()}
        rest = sorted(task.labels, key=lambda x: plan[x] - shares[x])  # largest remainders
    else:
        level = dict.fromkeys(task.labels, 0) if balance == "equal" else have
        top = _water_level(list(level.values()), n)
        plan = {label: max(0, top - count) for label, count in level.items()}
        rest = [label for label in task.labels if level[label] <= top]
    for label in (rest * n)[: n - sum(plan.values())]:
        plan[label] += 1
    return plan


def _water_level(levels: list[int], n: int) -> int:
    """Give the highest whole level to which n rows lift all that lie below it."""
    low, high = 0, max(levels) + n
    while low < high:
        middle = (low + high + 1) // 2
        if sum(max(0, middle - level) for level in levels) <= n:
            low = middle
        else:
            high = middle - 1
    return low


class _Filling:
    """Which call comes next, and when there are enough.

    Call c is decided by the answers to calls before c - `ahead`, and to as many more as were waited for: these do
    not depend on the speed of the endpoint, so that neither does the plan.
    """

    def __init__(
        self, plan: Plan, wanted: Mapping[str, int], labels: Sequence[str], together: bool, most: int, ahead: int
    ) -> None:
        self._plan, self._wanted, self._labels, self._together = plan, wanted, labels, together
        self._most, self._ahead = most, ahead
        self._kept: Counter[str] = Counter()  # rows of calls that the plan knows of
        self._coming: Counter[str] = Counter()  # rows asked for by the others
        self._asked: Counter[tuple[str, ...]] = Counter()
        self._known: deque[tuple[Call, Counter[str]]] = deque()  # answered, but not yet looked at by the plan
        self._turn = 0
        self.under_way: deque[Call] = deque()
        self.calls = self.looked_at = 0
        self.stopped = False

    def questions(self) -> Iterator[Question | None]:
        """Give the questions to ask; None where the plan has to wait for an answer."""
        while not self.stopped:
            labels = self._short() if self.calls - self.looked_at < self._ahead else None
            if labels is not None and self.calls < self._most:
                call = self._plan.call(labels, self._asked[labels])
                self._asked[labels] += 1
                self.calls += 1
                self._coming.update(self._asks(call))
                self.under_way.append(call)
                yield Question(call.messages, call.index)
            elif self._known:
                self._look()
            elif self.under_way:
                yield None
            else:
                return

    def answered(self, call: Call, kept: Counter[str]) -> None:
        """Note how many rows of each label came of a call, in the order of the calls."""
        self._known.append((call, kept))

    def _look(self) -> None:
        call, kept = self._known.popleft()
        self.looked_at += 1
        self._kept.update(kept)
        self._coming.subtract(self._asks(call))

    def _short(self) -> tuple[str, ...] | None:
        """Give the labels to ask for next; None when what is coming may be enough."""
        lacking = {x: n - self._kept[x] - self._coming[x] for x, n in self._wanted.items()}
        short = [x for x, n in lacking.items() if n > 0]
        if not short:
            return None
        if short == [""]:  # rows of any label: labels take turns
            if not self._labels:
                return ()
            self._turn += 1
            return tuple(self._labels) if self._together else (self._labels[(self._turn - 1) % len(self._labels)],)
        if self._together:
            return tuple(short)
        return (max(short, key=lambda x: lacking[x] / self._wanted[x]),)

    def _asks(self, call: Call) -> Counter[str]:
        if "" in self._wanted:
            return Counter({"": call.rows * max(1, len(call.labels))})
        return Counter(dict.fromkeys(call.labels, call.rows))


_ROWS_AT_HAND = 2_048  # gold rows kept as Python objects
_MOST_DRAWS = 200_000  # combinations of facts that are looked through for those of a label


# --- the plan -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Call:
    """One call: what is shown and what is asked for.

    Args:
        index: its number in the plan; equal messages with another index are another question.
        messages: as the endpoint takes them.
        labels: asked for; none for text2text.
        rows: how many of each label.
        seed_ids: of the rows that are shown.
        facts: whether the answer is to be checked by the task's facts.
    """

    index: int
    messages: Messages
    labels: tuple[str, ...]
    rows: int
    seed_ids: tuple[str, ...]
    facts: bool = False

    @property
    def prompt_sha256(self) -> str:
        """Hash of the messages."""
        return sha256(json.dumps(self.messages).encode()).hexdigest()


class Pool:
    """The gold rows that may be shown, by label, in a seeded order that shows each once before any comes again.

    Args:
        seed: of that order.

    Raises:
        ColumnError: there is no usable row, or a column is missing.
    """

    def __init__(self, task: Task, exemplars: Dataset, *, seed: int = 0) -> None:
        check_columns(task, exemplars, what="the exemplars")
        self.task, self.access = task, strictest(task.access, access_of(exemplars))
        self._seed = f"{task.fingerprint()}:{seed}"
        columns = [c for c in ("id", "group", *task.text_columns, task.label_column) if c in exemplars.column_names]
        self._rows = exemplars.select_columns(columns).with_format(None)
        self._names = label_names(exemplars.features[task.label_column])
        self._orders: dict[tuple[str, int], list[int]] = {}
        self._row = lru_cache(_ROWS_AT_HAND)(lambda position: self.named(self._rows[position], position))
        self.by_label: dict[str, list[int]] = {}
        texts = zip(*(self._rows[c] for c in task.text_columns), strict=True)
        for i, (shown, label) in enumerate(zip(texts, self._rows[task.label_column], strict=True)):
            if label is None or not all(isinstance(t, str) and t.strip() for t in shown):
                continue
            self.by_label.setdefault("", []).append(i)
            for name in self._label(label) if task.kind == "multi_label" else [self._label(label)] * bool(task.labels):
                self.by_label.setdefault(name, []).append(i)
        if not self.by_label:
            raise ColumnError(f"there is no gold row with text and label to show for task {task.full_name!r}")

    def _label(self, value: Any) -> Any:
        """Give the name of a label, or the names of several."""
        if isinstance(value, list):
            return [self._label(v) for v in value]
        if self.task.labels and isinstance(value, int):
            names = self._names or self.task.labels
            if not 0 <= value < len(names):
                raise ColumnError(f"the exemplars hold label {value}, which task {self.task.full_name!r} does not have")
            return names[value]
        if self.task.labels and value not in self.task.labels:
            raise ColumnError(f"the exemplars hold a label that task {self.task.full_name!r} does not have")
        return value

    def named(self, row: Mapping[str, Any], position: int | None = None) -> Row:
        """Give a gold row with its label as a name, and an id in any case."""
        named = {c: row[c] for c in self.task.text_columns}
        named[self.task.label_column] = self._label(row[self.task.label_column])
        named["id"] = str(row["id"]) if row.get("id") is not None else f"row-{position}"
        return named

    def row(self, position: int) -> Row:
        """Give the row at a position, as `named` has it."""
        return dict(self._row(position))

    def turn(self, label: str, start: int, count: int) -> list[int]:
        """Give positions of `count` different rows of a label ("" for any), from a place of the endless order on."""
        rows = self.by_label.get(label, [])
        chosen: dict[int, None] = {}
        place = start
        while len(chosen) < min(count, len(rows)):
            lap = place // len(rows)
            if (order := self._orders.get((label, lap))) is None:
                order = random.Random(f"{self._seed}:{label}:{lap}").sample(rows, len(rows))
                self._orders[label, lap] = order
            chosen[order[place % len(rows)]] = None
            place += 1
        return list(chosen)

    def texts(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Give group and texts of every gold row that has text."""
        columns = (self._rows[c] for c in self.task.text_columns)
        groups = self._rows["group"] if "group" in self._rows.column_names else range(len(self._rows))
        for i, (group, *row) in enumerate(zip(groups, *columns, strict=True)):
            if all(isinstance(t, str) for t in row):
                yield str(group if group is not None else i), tuple(row)

    @cached_property
    def digests(self) -> set[bytes]:
        """Digests of all gold texts: an answer that repeats one of them is a duplicate."""
        return {digest(row) for _, row in self.texts()}


class Plan:
    """The calls of one prompt: for some labels the first one, the second one, ... without end.

    Args:
        rows: how many rows a call asks for, of each label.
        seed: of what is drawn (attributes, facts).
    """

    def __init__(self, task: Task, prompt: Prompt, pool: Pool, rows: int, *, seed: int = 0) -> None:
        self._task, self._prompt, self._pool, self._rows, self._seed = task, prompt, pool, rows, seed
        self._drawn: dict[str, list[tuple[str, ...]]] = {}

    def call(self, labels: Sequence[str], j: int) -> Call:
        """Give call j for some labels (none for a text2text task)."""
        task, prompt = self._task, self._prompt
        shown = [self._pool.row(p) for p in dict.fromkeys(self._places(labels, j))]
        messages = render(task, prompt, shown, labels, self._rows, self.draw(labels, f"{','.join(labels)}:{j}"))
        return Call(j, messages, tuple(labels), self._rows, tuple(row["id"] for row in shown), prompt.facts)

    def draw(self, labels: Sequence[str], place: str) -> list[str]:
        """Draw attributes and facts for a place of the plan, as the conditions of a call."""
        rng = random.Random(f"{self._task.fingerprint()}:{self._seed}:{place}")
        conditions = [f"{name}: {rng.choice(values)}" for name, values in self._prompt.attributes]
        if self._prompt.facts:
            conditions += rng.choice(self._facts(labels[0]))
        return conditions

    def _places(self, labels: Sequence[str], j: int) -> list[int]:
        task, prompt, pool, count = self._task, self._prompt, self._pool, self._prompt.n_exemplars
        if prompt.exemplars == "none":
            return []
        if prompt.exemplars == "one_per_label" and task.labels:
            return [p for name in task.labels for p in pool.turn(name, j * count, count)]
        if prompt.exemplars == "same_label" and len(labels) == 1:
            return pool.turn(labels[0], j * count, count)
        return pool.turn("", j * count, count)

    def _facts(self, label: str) -> list[tuple[str, ...]]:
        """Give all combinations of facts that lead to a label, as statements."""
        if label not in self._drawn:
            self._drawn[label] = _combinations(self._task, label)
        return self._drawn[label]


def _combinations(task: Task, label: str) -> list[tuple[str, ...]]:
    facts = task.facts or Facts((), "sum", ())
    if prod(len(item.values) for item in facts.items) > _MOST_DRAWS:
        raise TaskError(f"task {task.full_name!r}: its facts have more than {_MOST_DRAWS:,} combinations")
    wanted = task.labels.index(label)
    found = [
        tuple(
            f"it states, in its own words: {item.name}: {said}"
            for item, (said, *_) in zip(facts.items, chosen, strict=True)
        )
        for chosen in product(*(item.values for item in facts.items))
        if facts.label([worth for _, worth, _ in chosen]) == wanted
    ]
    if not found:
        raise TaskError(f"task {task.full_name!r}: no facts lead to the label {label!r}")
    return found


def plan_for_row(
    task: Task, prompt: Prompt, row: Mapping[str, Any], exemplars: Dataset | Pool, n: int = 1, seed: int = 0
) -> Call:
    """Plan the call that makes n rows like one gold row: it is shown as the exemplar of its label.

    Args:
        row: a gold row; its label a name or an index.
        exemplars: rows shown beside it; a `Pool` made once is faster than a Dataset.

    Raises:
        ColumnError: the row has no text or no label.
    """
    pool = exemplars if isinstance(exemplars, Pool) else Pool(task, exemplars, seed=seed)
    if row.get(task.label_column) is None or any(not isinstance(row.get(c), str) for c in task.text_columns):
        raise ColumnError(f"a row to make others from has no text or no label of task {task.full_name!r}")
    own = pool.named(row)
    if row.get("id") is None:
        own["id"] = "row-" + sha256("\x1f".join(own[c] for c in task.text_columns).encode()).hexdigest()[:16]
    label = own[task.label_column]
    labels = () if not task.labels else tuple(label) if task.kind == "multi_label" else (label,)
    start = random.Random(f"{seed}:{own['id']}").randrange(1 << 30)
    texts = [own[c] for c in task.text_columns]

    def others(name: str, count: int) -> list[Row]:
        turn = (pool.row(p) for p in pool.turn(name, start, count + 1))
        return [r for r in turn if [r[c] for c in task.text_columns] != texts][: max(0, count)]

    count = prompt.n_exemplars
    if prompt.exemplars == "none":
        shown = []
    elif prompt.exemplars == "one_per_label" and task.kind == "single_label":
        shown = [r for x in task.labels for r in ([own, *others(x, count - 1)] if x == label else others(x, count))]
    elif prompt.exemplars == "same_label" and task.kind == "single_label":
        shown = [own, *others(label, count - 1)]
    else:
        shown = [own, *others("", count - 1)]
    conditions = Plan(task, prompt, pool, n, seed=seed).draw(labels, own["id"])
    messages = render(task, prompt, shown, labels, n, conditions)
    return Call(start, messages, labels, n, tuple(r["id"] for r in shown), prompt.facts)
