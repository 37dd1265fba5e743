"""One function says what the access of something is."""

from __future__ import annotations

import json
import time
import weakref
from collections import ChainMap, deque
from collections.abc import Iterator
from functools import partial
from operator import methodcaller
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from support.publishing_rows import CREDENTIALED, OPEN, RESTRICTED, gold_rows

from hf_synth.errors import RowError
from hf_synth.models.record import FACTS, ModelAt
from hf_synth.task.access import held_access, overall_access
from hf_synth.task.columns import MANIFEST
from hf_synth.task.folders import write_stage


def test_rows_files_folders_models_and_all_of_them(tmp_path: Path) -> None:
    rows, strict = gold_rows(OPEN, 4), gold_rows(RESTRICTED, 4)
    write_stage(RESTRICTED, strict, tmp_path / "r", stage="gold")
    write_stage(OPEN, rows, tmp_path / "o", stage="gold")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}")
    (tmp_path / "m" / FACTS).write_text(json.dumps({"access": "restricted", "row_digests": []}))
    assert overall_access(OPEN) == "open"
    assert overall_access(OPEN, rows) == "open"
    assert overall_access(OPEN, rows, strict) == "restricted"
    assert overall_access(OPEN, DatasetDict({"train": rows, "test": strict})) == "restricted"
    assert overall_access(OPEN, rows.remove_columns("access")) == "credentialed"
    assert overall_access(tmp_path / "o") == "open"
    assert overall_access(tmp_path / "r") == overall_access(tmp_path / "r" / "train.parquet") == "restricted"
    assert overall_access(OPEN, tmp_path / "nothing") == "credentialed"
    assert overall_access(ModelAt(tmp_path / "m")) == "restricted"
    assert overall_access(OPEN, ModelAt(tmp_path / "m"), rows) == "restricted"
    assert overall_access(SimpleNamespace(access="unheard of")) == "credentialed"
    assert overall_access(OPEN, also=["restricted"]) == overall_access(RESTRICTED, rows) == "restricted"
    assert overall_access() == "credentialed"
    (tmp_path / "o" / MANIFEST).write_text("{")
    with pytest.raises(RowError, match="is broken"):
        overall_access(tmp_path / "o")


def test_names_of_tasks_tighten_and_never_loosen() -> None:
    rows = gold_rows(OPEN, 4)
    other = Dataset.from_dict(rows.to_dict() | {"task": ["nobody_knows"] * 4})
    assert overall_access(OPEN, other) == "credentialed"
    assert overall_access(OPEN, other, named=False) == "open"
    assert overall_access(CREDENTIALED, rows) == "credentialed"  # the rows' own task


LEARNT = SimpleNamespace(access="credentialed")


class Slotted:
    __slots__ = ("empty", "inner")

    def __init__(self, inner: object) -> None:
        self.inner = inner


class Loose(SimpleNamespace):
    access = "open"


def test_a_wrapper_is_as_strict_as_what_it_holds() -> None:
    """What a wrapper says of itself may tighten the access, and never loosens it."""
    learnt = SimpleNamespace(access="credentialed")

    def ask(question: str, *, llm: object = None) -> str:
        return question if llm is None else f"{learnt}"

    class OfClass:
        inner = learnt

    class OfMethod:
        def stream(self) -> object:
            return learnt

    class OfProperty:
        @property
        def llm(self) -> object:
            return learnt

    class OfModule:
        @staticmethod
        def stream() -> object:
            return LEARNT

    ring = SimpleNamespace(others=[])
    ring.others += [ring, {"second": (learnt,)}]
    for wrapper in (
        SimpleNamespace(llm=learnt), Slotted(learnt), Loose(inner=learnt), SimpleNamespace(ask=ask),
        partial(ask, llm=1), partial(print, llm=learnt), SimpleNamespace(stream=Slotted(learnt).__init__), ring,
        OfClass(), OfMethod(), OfProperty(), OfModule(),
        SimpleNamespace(a=SimpleNamespace(b=SimpleNamespace(c=learnt))),
    ):  # fmt: skip
        assert held_access(wrapper) == "credentialed", wrapper
    assert held_access(SimpleNamespace(access="unheard of")) == "credentialed"
    assert held_access(SimpleNamespace(access="restricted", llm=Loose())) == "restricted"
    for plain in (SimpleNamespace(), Loose(), Slotted(None), SimpleNamespace(task=CREDENTIALED, notes=["x"] * 3), len):
        assert held_access(plain) == "open"


def hidden_far_away() -> Iterator[tuple[str, object]]:
    """Yield objects that hold something credentialed where one has to look for it."""
    learnt = Loose(llm=SimpleNamespace(access="credentialed"))
    deep: object = learnt
    for _ in range(300):
        deep = SimpleNamespace(inner=deep)

    def answers() -> Iterator[object]:
        kept = learnt
        yield 1
        yield kept

    begun = answers()
    next(begun)
    yield "deep", deep
    yield "behind many texts", SimpleNamespace(all=[learnt, *["x"] * 100_000])
    yield "among many objects", SimpleNamespace(all=[learnt, *(object() for _ in range(5_000))])
    yield "value", SimpleNamespace(all=dict.fromkeys(range(5_000), "x") | {0: learnt})
    yield "deque", deque([learnt])
    yield "map", map(str, [learnt])
    yield "generator", begun
    yield "chain map", ChainMap({}, {"a": learnt})
    yield "bound name", methodcaller("x", learnt)
    yield "array", SimpleNamespace(all=np.array([None, learnt], dtype=object))
    yield "weak reference", SimpleNamespace(one=weakref.ref(learnt))


def test_an_llm_is_found_wherever_an_object_holds_it() -> None:
    for where, thing in hidden_far_away():
        assert held_access(thing) == "credentialed", where


def test_an_object_that_fails_at_a_question_stops_nothing() -> None:
    class Lazy:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError("not connected")

    class Broken:
        @property
        def access(self) -> str:
            raise RuntimeError("not connected")

    assert held_access(SimpleNamespace(held=Lazy())) == "open"
    assert held_access(SimpleNamespace(held=Broken())) == "credentialed", "what it says is not known"
    with pytest.raises(RuntimeError):
        held_access(Broken())


def test_large_plain_objects_are_open_and_cost_little() -> None:
    import torch

    class Judge:
        def __init__(self, held: object) -> None:
            self.held = held

    net = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(50)))
    rows = Dataset.from_dict({"text": ["a note"] * 100})
    began = time.process_time()
    for held in (["x"] * 100_000, {i: str(i) for i in range(100_000)}, [{"a": i} for i in range(20_000)], net, rows):
        assert held_access(Judge(held)) == "open"
    assert time.process_time() - began < 2
    net.append(type("Judging", (torch.nn.Module,), {"llm": LEARNT})())
    assert held_access(Judge(net)) == "credentialed", "a container of torch holds a user's module"


def test_where_too_much_is_held_every_llm_of_the_process_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("hf_synth.task.access._MOST_HELD", 50)
    large = SimpleNamespace(all=[object() for _ in range(100)])
    monkeypatch.setattr("gc.get_objects", list)
    assert held_access(large) == "open", "there is none"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / FACTS).write_text(json.dumps({"access": "restricted", "row_digests": []}))
    learnt = ModelAt(tmp_path)
    monkeypatch.setattr("gc.get_objects", lambda: [SimpleNamespace(), "text", learnt])
    assert held_access(large) == "restricted", "it may be the one that was not reached"
