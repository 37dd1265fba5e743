"""`generate` with workers that ask its questions, without Ray: the rows of one run, and no question asked twice."""

from __future__ import annotations

import json
import pickle
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.llm_server import LLMServer, Said, content, entries, serving
from support.ray_threads import Method, Threads
from support.tiny import toy_rows
from support.toy_experiment import TASK

from hf_synth.cluster import asking
from hf_synth.cluster.asking import generate_on_ray
from hf_synth.cluster.on_ray import places_of
from hf_synth.errors import HfSynthError, LLMError, MissingExtraError, RowError
from hf_synth.generation.asking import CallAsker
from hf_synth.generation.blocks import Order
from hf_synth.generation.generation import generate_with_figures, no_gold
from hf_synth.llm.batch import BatchLLM
from hf_synth.llm.journal import Journal
from hf_synth.llm.llm import LLM
from hf_synth.privacy.overlap import Index
from hf_synth.task.facts import Fact, Facts
from hf_synth.task.task import Task


class Worker:
    """A worker in threads."""

    def __init__(self, ray: Threads, number: int) -> None:
        self._ray, self._number, self._askers = ray, number, dict[int, CallAsker]()
        self.ask, self.end = Method(ray.threads, self._ask), Method(ray.threads, self._end)
        self.begin: Any = Method(ray.threads, int)
        if number in ray.never:
            self.begin = self.ask = self.end = SimpleNamespace(remote=lambda *_: Future())  # type: ignore[assignment]

    def _ask(self, place: int, stored: Sequence[bytes], questions: Sequence[Any]) -> Any:
        self._ray.groups.append(len(questions))
        if place not in self._askers:
            asker: CallAsker = pickle.loads(stored[0])
            self._askers[place] = asker.with_llm(asker.llm.with_journal(self._ray.folder / f"{self._number}.sqlite"))
        return self._askers[place].ask(questions)

    def _end(self, now: bool) -> HfSynthError | None:
        try:
            for asker in self._askers.values():
                asker.close(now=now)
        except HfSynthError as error:
            return error
        return None


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    (tmp_path / "workers").mkdir()
    one = Threads(tmp_path / "workers")
    monkeypatch.setattr(asking, "running", lambda *_: nullcontext(one))
    monkeypatch.setattr(asking, "permits_of", lambda *_: (None, None))
    monkeypatch.setattr(asking, "workers_of", lambda ray, _, most, *__, **___: [Worker(ray, i) for i in range(most)])
    yield one
    one.threads.shutdown(wait=False)


def spread(order: Order, folder: Path, **more: Any) -> tuple[list[Any], Mapping[str, Any]]:
    rows, figures = generate_on_ray(order, folder=folder, **more)
    return rows.remove_columns("created").to_list(), figures


def answer(request: dict[str, Any], _: int) -> Said:
    seed = request["seed"]
    if seed % 7 == 0:
        return Said("")
    return Said("no" if seed % 5 == 0 else entries({**request, "seed": seed if seed % 4 else 0}))


def order_for(server: LLMServer, journal: Path) -> Order:
    llm = LLM("m", base_url=server.url, concurrency=4, journal=journal)
    return Order(TASK, toy_rows(24, 1), llm, 40, seed=3)


def generated(order: Order, llm: Any, **more: Any) -> tuple[list[Any], Mapping[str, Any]]:
    rows, figures = generate_with_figures(order.task, order.exemplars, llm, order.n, seed=order.seed, **more)
    return rows.remove_columns("created").to_list(), figures


def asked_of(server: LLMServer) -> Counter[str]:
    return Counter(sha256(json.dumps(request, sort_keys=True).encode()).hexdigest() for request in server.requests)


def test_the_rows_are_those_of_one_run_and_each_machine_keeps_the_answers(
    ray: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = list[bool]()
    reach = Index.reach

    def reached(self: Index, texts: Any) -> Any:
        looked.append(threading.current_thread() is threading.main_thread())
        return reach(self, texts)

    with serving(answer) as server:
        alone = order_for(server, tmp_path / "alone.sqlite")
        whole, figures = generated(alone, alone.llm)
        asked = asked_of(server)
        server.requests.clear()
        order = order_for(server, tmp_path / "driver.sqlite")
        monkeypatch.setattr(Index, "reach", reached)
        rows, own = spread(order, tmp_path)
        assert rows == whole
        assert own == figures
        assert asked_of(server) == asked
        assert max(ray.groups) > 1, "a worker gets several questions at once"
        assert set(looked) == {False}, "what workers say of copies is not compared again"
        server.requests.clear()
        again, _ = spread(order, tmp_path)
        assert again == whole
        assert asked_of(server).keys() <= asked.keys()
        assert all(request["seed"] % 7 == 0 for request in server.requests), "what was no answer is asked for again"
    keys = [row["journal_key"] for row in whole]
    one, two = (Journal(tmp_path / f"{name}.sqlite").get_many(keys) for name in ("alone", "driver"))
    assert {key: entry.text for key, entry in one.items()} == {key: entry.text for key, entry in two.items()}


def test_what_was_answered_before_an_error_comes_into_the_journal_of_the_first_process(
    ray: Threads, tmp_path: Path
) -> None:
    lock, seen = threading.Lock(), list[int]()

    def refusing(request: dict[str, Any], number: int) -> Said:
        with lock:
            seen.append(number)
            return Said(status=401) if len(seen) == 12 else Said(entries(request), delay=0.05)

    with serving(refusing) as server:
        order = replace(order_for(server, tmp_path / "driver.sqlite"), n=300)
        with pytest.raises(LLMError, match="refuses the key"):
            spread(order, tmp_path)
    workers = [keys_in(file) for file in sorted(ray.folder.glob("*.sqlite"))]
    first = keys_in(tmp_path / "driver.sqlite")
    assert any(keys <= first for keys in workers), "all answers of the worker that had no error"
    assert len(set().union(*workers) - first) <= 2 * 4, "of the other one all but those that were under way"


def test_ctrl_c_sends_no_further_question_and_keeps_what_is_under_way(
    ray: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(request: dict[str, Any], number: int) -> Said:
        return Said(entries(request), delay=0.3)

    with serving(late) as server:
        order = replace(order_for(server, tmp_path / "driver.sqlite"), n=300)
        wait, pressed = ray.wait, list[int]()

        def interrupted(*given: Any, **more: Any) -> Any:
            if len(server.requests) >= 4:
                monkeypatch.setattr(ray, "wait", wait)
                pressed.append(len(server.requests))
                raise KeyboardInterrupt
            return wait(*given, **more)

        monkeypatch.setattr(ray, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            spread(order, tmp_path)
        asked = len(server.requests)
        assert pressed[0] <= asked <= pressed[0] + 2 * 4, "nothing more is sent"
    workers = [keys_in(file) for file in sorted(ray.folder.glob("*.sqlite"))]
    assert sum(map(len, workers)) == asked, "each answer is kept"


def keys_in(file: Path) -> set[str]:
    with Journal(file, read_only=True).reading() as database:
        return {key for (key,) in database.execute("SELECT key FROM answers")}


def test_notes_that_lack_facts_are_asked_for_again_by_workers(ray: Threads, tmp_path: Path) -> None:
    fact = Fact("pain", (("no pain", 0, ""), ("pain of the chest", 1, "pain")))
    how: Any = {"text_columns": "text", "label_column": "label", "labels": ("no", "yes"), "access": "open"}
    task = Task.from_columns("pain", label_meanings=("no pain", "pain"), facts=Facts((fact,), "max", (1,)), **how)

    def says(request: dict[str, Any], _: int) -> Said:
        again = "It does not state everything" in content(request)
        if again and request["seed"] % 3 == 0:
            return Said(status=400)
        said = "Feels well" if request["seed"] % 4 == 0 and not again else "Pain of the chest"
        row = {"text": f"{said}, visit {request['seed']} and {request['seed'] ** 2}.", "label": "yes"}
        return Said(json.dumps({"entries": [row]}))

    found = []
    with serving(says) as server:
        for name in ("alone", "driver"):
            llm = LLM("m", base_url=server.url, concurrency=2, journal=tmp_path / f"{name}.sqlite")
            order = Order(task, no_gold(task), llm, {"yes": 40}, prompt="facts", fact_rounds=1)
            found.append(
                spread(order, tmp_path) if name == "driver" else generated(order, llm, prompt="facts", fact_rounds=1)
            )
    assert found[0] == found[1]
    assert found[0][1]["facts_checked"]["asked_again"] > 5


def test_no_question_waits_for_a_worker_that_never_begins(ray: Threads, tmp_path: Path) -> None:
    with serving(answer) as server:
        alone = order_for(server, tmp_path / "alone.sqlite")
        whole, _ = generated(alone, alone.llm)
        ray.never = (0, 2)
        rows, _ = spread(order_for(server, tmp_path / "driver.sqlite"), tmp_path, workers=3)
    assert rows == whole


def test_a_machine_with_too_few_gpus_is_said(ray: Threads) -> None:
    assert places_of(ray, None, 0, None) == 2
    assert places_of(ray, 5, 0, "auto") == 5
    with pytest.raises(HfSynthError, match="1 workers with 1 GPUs each need more than the 0 GPUs"):
        places_of(ray, None, 1, None)


def test_what_workers_spend_leaves_less_of_the_budget(ray: Threads, tmp_path: Path) -> None:
    with serving(lambda request, _: Said(entries(request))) as server:
        llm = LLM("m", base_url=server.url, journal=tmp_path / "j", price=(0.0, 1e6), budget_usd=1e9)
        _, figures = spread(Order(TASK, toy_rows(24, 1), llm, 6), tmp_path)
    assert llm.spent_usd == figures["cost_usd"] > 0


def test_an_endpoint_that_answers_nothing_is_said_as_without_workers(ray: Threads, tmp_path: Path) -> None:
    with serving(lambda *_: Said(status=500)) as server:
        for name in ("alone", "driver"):
            llm = LLM("m", base_url=server.url, max_retries=0, journal=tmp_path / name)
            order = Order(TASK, toy_rows(24, 1), llm, 6)
            with pytest.raises(LLMError, match="answered no question"):
                generated(order, llm) if name == "alone" else spread(order, tmp_path)


def test_an_llm_that_sends_files_is_refused_before_ray_starts(tmp_path: Path) -> None:
    order = Order(TASK, toy_rows(24, 1), BatchLLM(LLM("m", base_url="http://127.0.0.1:9/v1")), 6)
    with pytest.raises(HfSynthError, match="an LLM or a LocalLLM is asked"):
        generate_on_ray(order, folder=tmp_path)


def test_each_error_of_ours_comes_back_from_a_worker_with_its_words() -> None:
    for error in (
        LLMError("the key is refused"),
        MissingExtraError("xllamacpp", "gguf"),
        RowError("a.csv", 3, "empty"),
    ):
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back)) == (type(error), str(error))
