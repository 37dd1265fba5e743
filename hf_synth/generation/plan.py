"""The plan of calls: labels, exemplars, attributes and facts of each call, and the number of rows of each label.

Call j for some labels is always the same call, whatever the number of rows wanted. Which labels come next is decided by
the answers to calls so far back that the pipeline never waits for them (`Chat.ahead`), and by later ones only when
everything wanted is under way. Neither depends on the speed of the endpoint.

All exemplars of a call are of one fold of gold, so that gold can be held out later together with the rows that were
written from it (`correction/lineage.py`). Calls take the folds in turn.
"""

from __future__ import annotations

import json
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from hf_synth.errors import ColumnError, TaskError
from hf_synth.generation.fact_check import Asked
from hf_synth.generation.prompts import STATES, Messages, Row, render
from hf_synth.llm.questions import Question
from hf_synth.privacy.folding import digest
from hf_synth.task.columns import access_of, strictest
from hf_synth.task.facts import Facts
from hf_synth.task.folds import deal
from hf_synth.task.labels import check_columns, label_names, text_id
from hf_synth.task.task import Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset

Balance = Literal["equal", "gold", "fill"]

_CACHED_ROWS = 2_048  # gold rows kept as Python objects
_MOST_COMBINATIONS = 200_000  # combinations of facts that are searched for those of a label


@dataclass(frozen=True)
class Call:
    """One call: its messages, and the rows that it asks for.

    Args:
        index: its number in the plan; equal messages with different indices are different questions.
        messages: the messages for the endpoint.
        labels: the labels that it asks for; none for text2text.
        rows: how many rows of each label.
        seed_ids: ids of the exemplars in the prompt.
        facts: the facts that the answer must state, as (name, wording).
        fold: the fold of gold that all exemplars are of; None without exemplars.
    """

    index: int
    messages: Messages
    labels: tuple[str, ...]
    rows: int
    seed_ids: tuple[str, ...]
    facts: Asked = ()
    fold: int | None = None

    @property
    def prompt_sha256(self) -> str:
        """Hash of the messages."""
        return sha256(json.dumps(self.messages).encode()).hexdigest()


class Pool:
    """The gold rows that may be exemplars, by label and fold, in a seeded order; none comes again before all were used.

    The folds depend on groups and labels alone, not on the seed: rows of several seeds have the same folds.

    Args:
        seed: of that order.
        needed: whether prompts show gold; without it there may be no row at all.

    Raises:
        ColumnError: there is no usable row where one is needed, or a column is missing.
    """

    def __init__(self, task: Task, exemplars: Dataset, *, seed: int = 0, needed: bool = True) -> None:
        check_columns(task, exemplars, what="the exemplars")
        self.task, self.access = task, strictest(task.access, access_of(exemplars))
        self._seed = f"{task.fingerprint()}:{seed}"
        columns = [c for c in ("id", "group", *task.text_columns, task.label_column) if c in exemplars.column_names]
        self.rows = exemplars.select_columns(columns).with_format(None)
        self._names = label_names(exemplars.features[task.label_column])
        self._orders: dict[tuple[str, int, int], list[int]] = {}
        self._row = lru_cache(_CACHED_ROWS)(lambda position: self.named(self.rows[position]))
        self.by_label: dict[str, list[int]] = {}
        labels_of: dict[int, list[str]] = {}
        units: dict[int, str] = {}
        columns = [c for c in columns if c != task.label_column]
        values = zip(*(self.rows[c] for c in columns), strict=True)
        for i, (value, label) in enumerate(zip(values, self.rows[task.label_column][:], strict=True)):
            row = dict(zip(columns, value, strict=True))
            if label is None or not all(isinstance(row[c], str) and row[c].strip() for c in task.text_columns):
                continue
            names = self._label(label) if task.kind == "multi_label" else [self._label(label)] * bool(task.labels)
            labels_of[i], units[i] = names, _unit(task, row)
            for name in ("", *names):
                self.by_label.setdefault(name, []).append(i)
        if not self.by_label and needed:
            raise ColumnError(f"there is no gold row with text and label to show for task {task.full_name!r}")
        self._fold_of = deal((units[i], names) for i, names in labels_of.items())
        self.n_folds = 1 + max(self._fold_of.values(), default=0)
        self._by_fold: dict[tuple[str, int], list[int]] = {}
        self._turns: dict[str, list[int]] = {}
        for i, names in labels_of.items():
            for name in ("", *names):
                self._by_fold.setdefault((name, self._fold_of[units[i]]), []).append(i)

    def fold_of(self, row: Mapping[str, Any]) -> int:
        """Return the fold of a gold row; rows of a group that is not in the pool are of one fold, too."""
        unit = _unit(self.task, row)
        fold = self._fold_of.get(unit)
        return int(sha256(unit.encode()).hexdigest(), 16) % self.n_folds if fold is None else fold

    def folds(self, label: str) -> list[int]:
        """Return the folds with rows of a label ("" for any), in a seeded order."""
        if (order := self._turns.get(label)) is None:
            known = [fold for fold in range(self.n_folds) if (label, fold) in self._by_fold]
            order = random.Random(f"{self._seed}:folds:{label}").sample(known, len(known))
            self._turns[label] = order
        return order

    def _label(self, value: Any) -> Any:
        """Return the name of a label, or the names of several."""
        if isinstance(value, list):
            return [self._label(v) for v in value]
        if self.task.labels and isinstance(value, int):
            names = self._names or self.task.labels
            if not 0 <= value < len(names):
                raise ColumnError(f"the exemplars have label {value}, which task {self.task.full_name!r} does not have")
            return names[value]
        if self.task.labels and value not in self.task.labels:
            raise ColumnError(f"the exemplars have a label that task {self.task.full_name!r} does not have")
        return value

    def named(self, row: Mapping[str, Any]) -> Row:
        """Return a gold row with its label as a name, and an id made of its texts where it has none."""
        named = {c: row[c] for c in self.task.text_columns}
        named[self.task.label_column] = self._label(row[self.task.label_column])
        named["id"] = str(row["id"]) if row.get("id") is not None else text_id(self.task, row)
        return named

    def row(self, position: int) -> Row:
        """Return the row at a position in the form of `named`."""
        return dict(self._row(position))

    def turn(self, label: str, fold: int, start: int, count: int) -> list[int]:
        """Return the positions of `count` different rows of a label ("" for any) and a fold.

        Args:
            start: place in their order of the first one.
        """
        rows = self._by_fold.get((label, fold), [])
        positions: dict[int, None] = {}
        place = start
        while len(positions) < min(count, len(rows)):
            lap = place // len(rows)
            if (order := self._orders.get((label, fold, lap))) is None:
                order = random.Random(f"{self._seed}:{label}:{fold}:{lap}").sample(rows, len(rows))
                self._orders[label, fold, lap] = order
            positions[order[place % len(rows)]] = None
            place += 1
        return list(positions)

    def texts(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the group and the texts of every gold row with text."""
        columns = (self.rows[c] for c in self.task.text_columns)
        groups = self.rows["group"] if "group" in self.rows.column_names else range(len(self.rows))
        for i, (group, *row) in enumerate(zip(groups, *columns, strict=True)):
            if all(isinstance(t, str) for t in row):
                yield str(group if group is not None else i), tuple(row)

    @cached_property
    def digests(self) -> set[bytes]:
        """Digests of all gold texts; an answer that repeats one is a duplicate."""
        return {digest(row) for _, row in self.texts()}


class Plan:
    """The endless sequence of calls of one prompt for each set of labels.

    Args:
        rows: how many rows of each label a call asks for.
        seed: of the attributes and facts.
    """

    def __init__(self, task: Task, prompt: Prompt, pool: Pool, rows: int, *, seed: int = 0) -> None:
        self._task, self._prompt, self._pool, self.rows, self._seed = task, prompt, pool, rows, seed
        self._fact_sets: dict[str, list[Asked]] = {}

    def call(self, labels: Sequence[str], j: int) -> Call:
        """Return call j for some labels (none for a text2text task)."""
        task, prompt = self._task, self._prompt
        fold, turn = self._fold(labels, j)
        exemplars = [self._pool.row(p) for p in dict.fromkeys(self._positions(labels, fold, turn))]
        conditions, facts = self.draw(labels, f"{','.join(labels)}:{j}")
        messages = render(task, prompt, exemplars, labels, self.rows, conditions)
        shown = tuple(row["id"] for row in exemplars)
        return Call(j, messages, tuple(labels), self.rows, shown, facts, fold if shown else None)

    def draw(self, labels: Sequence[str], place: str) -> tuple[list[str], Asked]:
        """Draw attributes and facts for a place in the plan; return the conditions of its call, and the facts alone."""
        rng = random.Random(f"{self._task.fingerprint()}:{self._seed}:{place}")
        conditions = [f"{name}: {rng.choice(values)}" for name, values in self._prompt.attributes]
        facts: Asked = ()
        if self._prompt.facts:
            label = labels[0]
            if label not in self._fact_sets:
                self._fact_sets[label] = _fact_sets(self._task, label)
            facts = rng.choice(self._fact_sets[label])
        return conditions + [f"{STATES} {name}: {wording}" for name, wording in facts], facts

    def _fold(self, labels: Sequence[str], j: int) -> tuple[int, int]:
        """Return the fold of call j, and how many earlier calls for these labels took it.

        Calls for one label take the folds that have an exemplar of it, all other calls every fold.
        """
        of_one = len(labels) == 1 and self._prompt.exemplars != "mixed"
        folds = (self._pool.folds(labels[0]) if of_one else []) or self._pool.folds("") or [0]
        return folds[j % len(folds)], j // len(folds)

    def _positions(self, labels: Sequence[str], fold: int, turn: int) -> list[int]:
        """Return the positions of exemplars; a label that the fold lacks has none."""
        task, prompt, pool, count = self._task, self._prompt, self._pool, self._prompt.n_exemplars
        if prompt.exemplars == "none":
            return []
        if prompt.exemplars == "one_per_label" and task.labels:
            return [p for name in task.labels for p in pool.turn(name, fold, turn * count, count)]
        if prompt.exemplars == "same_label" and len(labels) == 1:
            return pool.turn(labels[0], fold, turn * count, count)
        return pool.turn("", fold, turn * count, count)


def plan_for_row(
    task: Task, prompt: Prompt, row: Mapping[str, Any], exemplars: Dataset | Pool, n: int = 1, seed: int = 0
) -> Call:
    """Plan the call that makes n rows like one gold row, which is the exemplar of its label.

    The other exemplars are of the row's own fold.

    Args:
        row: a gold row; its label is a name or an index.
        exemplars: rows for the other exemplars; a `Pool` is faster than a Dataset for many calls.

    Raises:
        ColumnError: the row has no text or no label.
    """
    pool = exemplars if isinstance(exemplars, Pool) else Pool(task, exemplars, seed=seed)
    if row.get(task.label_column) is None or any(not isinstance(row.get(c), str) for c in task.text_columns):
        raise ColumnError(f"a gold row has no text or no label of task {task.full_name!r}; leave it out")
    own, fold = pool.named(row), pool.fold_of(row)
    label = own[task.label_column]
    labels = () if not task.labels else tuple(label) if task.kind == "multi_label" else (label,)
    start = random.Random(f"{seed}:{own['id']}").randrange(1 << 30)
    texts = [own[c] for c in task.text_columns]

    def others(name: str, count: int) -> list[Row]:
        turn = (pool.row(p) for p in pool.turn(name, fold, start, count + 1))
        return [r for r in turn if [r[c] for c in task.text_columns] != texts][: max(0, count)]

    count = prompt.n_exemplars
    if prompt.exemplars == "none":
        rows = []
    elif prompt.exemplars == "one_per_label" and task.kind == "single_label":
        rows = [r for x in task.labels for r in ([own, *others(x, count - 1)] if x == label else others(x, count))]
    elif prompt.exemplars == "same_label" and task.kind == "single_label":
        rows = [own, *others(label, count - 1)]
    else:
        rows = [own, *others("", count - 1)]
    conditions, facts = Plan(task, prompt, pool, n, seed=seed).draw(labels, own["id"])
    messages = render(task, prompt, rows, labels, n, conditions)
    shown = tuple(r["id"] for r in rows)
    return Call(start, messages, labels, n, shown, facts, fold if shown else None)


def _unit(task: Task, row: Mapping[str, Any]) -> str:
    """Return a name of the rows that are dealt together: those of a group; else a row by itself."""
    if row.get("group") is not None:
        return f"group {row['group']}"
    return f"row {text_id(task, row) if row.get('id') is None else row['id']}"


def _fact_sets(task: Task, label: str) -> list[Asked]:
    """List all combinations of facts that lead to a label, as (name, wording)."""
    facts = task.facts or Facts((), "sum", ())
    if prod(len(item.values) for item in facts.items) > _MOST_COMBINATIONS:
        raise TaskError(
            f"task {task.full_name!r}: its facts have more than {_MOST_COMBINATIONS:,} combinations; define fewer"
        )
    index = task.labels.index(label)
    statements = [
        tuple((item.name, wording) for item, (wording, *_) in zip(facts.items, values, strict=True))
        for values in product(*(item.values for item in facts.items))
        if facts.label([worth for _, worth, _ in values]) == index
    ]
    if not statements:
        raise TaskError(f"task {task.full_name!r}: no facts lead to the label {label!r}; correct its facts")
    return statements


def label_plan(task: Task, exemplars: Dataset, n: int, balance: Balance = "equal") -> dict[str, int]:
    """Plan the number of rows of each label.

    Args:
        balance: "equal"; "gold": in the proportions of the exemplars; "fill": so that exemplars and new rows together
            are as near to equal as n rows allow.

    Returns:
        The number of rows by label, n in all; {"": n} for a task without single labels.

    Raises:
        ColumnError: `balance` is none of these.
    """
    check_balance(balance)
    return {"": n} if task.kind != "single_label" else share_rows(task, Pool(task, exemplars), n, balance)


def check_balance(balance: str) -> None:
    """Check that a balance is "equal", "gold" or "fill"; raise a ColumnError otherwise."""
    if balance not in ("equal", "gold", "fill"):
        raise ColumnError("balance must be equal, gold or fill")


def share_rows(task: Task, pool: Pool, n: int, balance: Balance) -> dict[str, int]:
    """Share n rows among the labels of a single_label task."""
    gold = {label: len(pool.by_label.get(label, ())) for label in task.labels}
    if balance == "gold":
        total = sum(gold.values())
        shares = {label: n * count / total for label, count in gold.items()}
        plan = {label: int(share) for label, share in shares.items()}
        rest = sorted(task.labels, key=lambda x: plan[x] - shares[x])  # largest remainders
    else:
        level = dict.fromkeys(task.labels, 0) if balance == "equal" else gold
        top = _water_level(list(level.values()), n)
        plan = {label: max(0, top - count) for label, count in level.items()}
        rest = [label for label in task.labels if level[label] <= top]
    for label in (rest * n)[: n - sum(plan.values())]:
        plan[label] += 1
    return plan


def _water_level(levels: list[int], n: int) -> int:
    """Return the highest integer level to which n rows raise all levels below it."""
    low, high = 0, max(levels) + n
    while low < high:
        middle = (low + high + 1) // 2
        if sum(max(0, middle - level) for level in levels) <= n:
            low = middle
        else:
            high = middle - 1
    return low


class Schedule:
    """Decides which call comes next, and when there are enough.

    Call c depends on the answers to calls before c - `ahead`, and on later ones that the plan had to wait for: both are
    independent of the speed of the endpoint.

    Args:
        quotas: rows by label; {"": n} for rows of any label.
        together: whether a call asks for all labels.
        most: most calls.
        ahead: how far the plan may run ahead of the oldest open call.
    """

    def __init__(
        self, plan: Plan, quotas: Mapping[str, int], labels: Sequence[str], together: bool, most: int, ahead: int
    ) -> None:
        self.plan, self._quotas, self._labels, self._together = plan, quotas, labels, together
        self.most, self._ahead = most, ahead
        self._kept: Counter[str] = Counter()  # good rows of the calls that were counted
        self._expected: Counter[str] = Counter()  # rows that the other calls ask for
        self._next_index: Counter[tuple[str, ...]] = Counter()
        self._answered: deque[tuple[Call, Counter[str], bool]] = deque()  # answered calls that were not yet counted
        self._turn = 0
        self._extra = most  # further calls, for those whose answer was none
        self.settle: Callable[[], bool] = lambda: False  # checks answers that wait for it; False: there are none
        self.open_calls: deque[Call] = deque()
        self.calls = self.counted = 0
        self.stopped = False

    @property
    def rows_of_call(self) -> int:
        """How many rows a call asks for, at most."""
        return self.plan.rows * (len(self._labels) if self._together else 1)

    def questions(self) -> Iterator[Question | None]:
        """Yield the questions to ask; None where the plan has to wait for an answer."""
        while not self.stopped:
            labels = self._next_labels() if self.calls - self.counted < self._ahead else None
            if labels is not None and self.calls < self.most:
                call = self.plan.call(labels, self._next_index[labels])
                self._next_index[labels] += 1
                self.calls += 1
                self._expect(call, 1)
                self.open_calls.append(call)
                yield Question(call.messages, call.index)
            elif self._answered or self.settle():
                self._count()
            elif self.open_calls:
                yield None
            else:
                return

    def record(self, call: Call, kept: Counter[str], *, none: bool = False) -> None:
        """Record the number of good rows of each label of a call, in the order of the calls.

        Args:
            none: whether the answer was none (empty, or cut by the server): it does not use up the calls. At most as
                many such calls are made again as the plan had at first.
        """
        self._answered.append((call, kept, none))

    def rows_of(self, call: Call) -> Counter[str]:
        """Return the rows that a call asks for, by label."""
        if "" in self._quotas:
            return Counter({"": call.rows * max(1, len(call.labels))})
        return Counter(dict.fromkeys(call.labels, call.rows))

    def _count(self) -> None:
        call, kept, none = self._answered.popleft()
        self.counted += 1
        if none and self._extra:
            self._extra, self.most = self._extra - 1, self.most + 1
        for label, count in kept.items():
            self._kept[label] += count
        self._expect(call, -1)

    def _expect(self, call: Call, sign: int) -> None:
        """Add the rows that a call asks for to the expected ones, or take them away."""
        if "" in self._quotas:
            self._expected[""] += sign * call.rows * max(1, len(call.labels))
            return
        for label in call.labels:
            self._expected[label] += sign * call.rows

    def _next_labels(self) -> tuple[str, ...] | None:
        """Return the labels to ask for next; None when the expected rows may be enough."""
        lacking = {x: n - self._kept[x] - self._expected[x] for x, n in self._quotas.items()}
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
        return (max(short, key=lambda x: lacking[x] / self._quotas[x]),)
