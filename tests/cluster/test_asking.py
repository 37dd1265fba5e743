"""`generate` whose questions others ask, without Ray: the rows of one run, and nothing asked that the journal has."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support.llm_server import LLMServer, Said, entries, serving
from support.tiny import toy_rows
from support.toy_experiment import TASK

from hf_synth.cluster.asking import SpreadLLM, _Workers, generate_on_ray
from hf_synth.errors import HfSynthError, LLMError
from hf_synth.generation.asking import CallAsker
from hf_synth.generation.blocks import Order
from hf_synth.generation.generation import generate_with_figures
from hf_synth.llm.batch import BatchLLM
from hf_synth.llm.journal import Journal
from hf_synth.llm.llm import LLM
from hf_synth.privacy.overlap import Index


class Pickled(_Workers):
    """Workers in this process, which have nothing but a pickle and a journal of their own, as on another machine."""

    def __init__(self, order: Order, journal: Path) -> None:
        super().__init__(order, journal.parent, 2, None, 0)
        self._measure(2)
        self._journal, self._made = journal, dict[int, CallAsker]()
        self.groups = list[int]()

    def __exit__(self, *_: object) -> None:
        for asker in self._made.values():
            asker.close()

    def explain(self) -> None:
        self.__exit__()

    def wait(self, ticket: Any) -> Any:
        while ticket.answer is None:
            size = min(self._size, len(self._new))
            group = [self._new.popleft() for _ in range(size)]
            place = group[0].asker
            if place not in self._made:
                asker: CallAsker = pickle.loads(pickle.dumps(self._askers[place][0]))
                self._made[place] = asker.with_llm(asker.llm.with_journal(self._journal))
            answers, copies, failed = self._made[place].ask([one.question for one in group])
            if failed is not None:
                raise failed
            self.copies |= copies
            self._keep(self._askers[place][1], answers)
            self.groups.append(size)
            for one, answer in zip(group, answers, strict=True):
                one.answer = answer
        return ticket.answer

    def put(self, ticket: Any) -> Any:
        self._new.append(ticket)
        return ticket


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(answer) as server:
        alone = order_for(server, tmp_path / "alone.sqlite")
        whole, figures = generated(alone, alone.llm)
        asked = asked_of(server)
        server.requests.clear()
        order = order_for(server, tmp_path / "driver.sqlite")
        with Pickled(order, tmp_path / "worker.sqlite") as workers:
            known = workers.copies
            looked = list[int]()
            reach = Index.reach
            rows, spread = generated(order, SpreadLLM(order.llm, workers), copies=known)  # type: ignore[arg-type]
            monkeypatch.setattr(Index, "reach", lambda self, texts: looked.append(len(texts)) or reach(self, texts))
            assert len(known) > 20
        assert rows == whole
        assert spread == figures
        assert asked_of(server) == asked
        assert max(workers.groups) == workers._size > 1, "a worker gets several questions at once"
        server.requests.clear()
        with Pickled(order, tmp_path / "other.sqlite") as workers:
            again, _ = generated(order, SpreadLLM(order.llm, workers), copies=known)  # type: ignore[arg-type]
        assert looked == [], "what workers say of copies is not compared again"
        assert again == whole
        assert asked_of(server).keys() <= asked.keys()
        assert all('"seed": ' in json.dumps(request) and request["seed"] % 7 == 0 for request in server.requests)
    entries_kept = [Journal(tmp_path / f"{name}.sqlite") for name in ("alone", "driver")]
    keys = {row["journal_key"] for row in whole}
    kept = [journal.get_many(keys) for journal in entries_kept]
    assert kept[0].keys() == kept[1].keys()
    assert all(kept[0][key].text == kept[1][key].text for key in kept[0])


def test_an_endpoint_that_answers_nothing_is_said_as_without_workers(tmp_path: Path) -> None:
    with serving(lambda *_: Said(status=500)) as server:
        for name in ("alone", "driver"):
            order = order_for(server, tmp_path / f"{name}.sqlite")
            order = Order(
                TASK, order.exemplars, LLM("m", base_url=server.url, max_retries=0, journal=tmp_path / name), 6
            )
            with Pickled(order, tmp_path / "worker.sqlite") as workers:
                llm: Any = order.llm if name == "alone" else SpreadLLM(order.llm, workers)  # type: ignore[arg-type]
                with pytest.raises(LLMError, match="answered no question"):
                    generated(order, llm)


def test_an_llm_that_sends_files_is_refused_before_ray_starts(tmp_path: Path) -> None:
    order = Order(TASK, toy_rows(24, 1), BatchLLM(LLM("m", base_url="http://127.0.0.1:9/v1")), 6)
    with pytest.raises(HfSynthError, match="an LLM or a LocalLLM is asked"):
        generate_on_ray(order, folder=tmp_path)
