"""Blocks on Ray: the bytes of one process, a killed worker, a budget, and no text outside the work folder."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, nullcontext
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset
from support.cluster_rows import CANARY, GOLD_CANARY, files_of, make_journey
from support.judges import voting
from support.llm_server import LLMServer, Said, entries, serving
from support.ray_threads import Method, Threads
from support.rays import KEY_CANARY, World, heard_at, kill_a_worker, world
from support.toy_experiment import TASK

from hf_synth.cli.cli import main
from hf_synth.cluster import on_ray
from hf_synth.cluster.on_ray import _another_home, running
from hf_synth.cluster.work import Part, Work
from hf_synth.errors import HfSynthError
from hf_synth.task import arrow
from hf_synth.task.folders import write_stage

_ON_RAY = ("--engine", "ray", "--workers", "2")


def test_without_ray_the_pip_line_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    work = make_journey(tmp_path)
    words = ["audit", str(work / "gold"), str(work / "synthetic"), "--out", str(work / "audited"), "--engine", "ray"]
    assert main(words) == 1
    assert "pip install 'hf_synth[ray]'" in capsys.readouterr().err


def test_a_ray_that_was_imported_without_our_settings_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))  # it would listen on all addresses, without a token
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, "0")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(HfSynthError, match="call hf_synth.cluster before `import ray`"), running(tmp_path, None, 1):
        pass


def test_an_address_where_nothing_answers_is_said_before_ray_tries_for_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", ray := ModuleType("ray"))
    tried: list[str] = []
    ray.init = lambda **options: tried.append(options["address"])  # type: ignore[attr-defined]
    ray.shutdown = lambda: None  # type: ignore[attr-defined]
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        monkeypatch.setenv(name, "0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = f"127.0.0.1:{server.getsockname()[1]}"
        for address in (head, f"ray://{head}", "auto"):
            with running(tmp_path, address, 1):
                pass
    for address in (head, f"ray://{head}", "127.0.0.1:99999"):
        with pytest.raises(HfSynthError, match=f"nothing answers at {address}"), running(tmp_path, address, 1):
            pass
    assert tried == [head, f"ray://{head}", "auto"]


def test_what_ray_starts_has_another_home_and_asks_no_cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/a")
    monkeypatch.delenv("PYTHONUSERBASE", raising=False)
    with _another_home(tmp_path):
        assert Path("~/ray_bootstrap_config.yaml").expanduser() == tmp_path / "ray_bootstrap_config.yaml"
        assert (tmp_path / "ray_bootstrap_config.yaml").is_file()
    assert os.environ["HOME"] == "/home/a"
    assert "PYTHONUSERBASE" not in os.environ


class Computing:
    """A worker in threads; there is no room for number 0."""

    def __init__(self, ray: Threads, number: int) -> None:
        self.begin: Any = Method(ray.threads, int) if number else SimpleNamespace(remote=Future)
        self.compute = Method(ray.threads, lambda _, stored, table: self._result(pickle.loads(stored[0]), table))

    def _result(self, block: Any, table: Any) -> Any:
        try:
            return block(table)
        except HfSynthError as error:
            return error


def doubled(table: pa.Table) -> pa.Table:
    return pa.table({"x": [2 * x for x in table["x"].to_pylist()]})


def wrong(table: pa.Table) -> pa.Table:
    if 4 in table["x"].to_pylist():
        raise HfSynthError("a row is wrong")
    return doubled(table)


def test_no_block_waits_for_a_worker_that_never_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Threads(tmp_path)
    monkeypatch.setattr(on_ray, "running", lambda *_: nullcontext(one))
    monkeypatch.setattr(on_ray, "workers_of", lambda ray, _, most, *__, **___: [Computing(ray, i) for i in range(most)])
    rows = Dataset.from_dict({"x": list(range(10))})
    works = [
        Work(tmp_path / name, [Part("rows", rows, block, "", 3)])
        for name, block in (("doubled", doubled), ("wrong", wrong))
    ]
    assert on_ray.run_on_ray(works[0], workers=3) == (4, 0)
    assert on_ray.run_on_ray(works[0], workers=3) == (0, 4)
    found = [x for table in works[0].results(works[0].parts[0]) for x in table["x"].to_pylist()]
    assert found == [2 * x for x in range(10)]
    with pytest.raises(HfSynthError, match="a row is wrong"):
        on_ray.run_on_ray(works[1], workers=3)
    assert 0 in set(range(4)) - set(works[1].missing(range(4))), "blocks that others had begun are kept"
    one.threads.shutdown(wait=False)


class Asking:
    """A block that asks an LLM."""

    llm = None

    def __call__(self, table: pa.Table) -> pa.Table:
        return table


def finished(value: Any) -> Future[Any]:
    future = Future[Any]()
    future.set_result(value)
    return future


def test_ctrl_c_has_workers_keep_what_they_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halted, waited = list[int](), list[Any]()

    def worker(number: int) -> SimpleNamespace:
        methods = {"begin": lambda: finished(0), "compute": lambda *_: Future(), "halt": lambda: halted.append(number)}
        return SimpleNamespace(**{name: SimpleNamespace(remote=method) for name, method in methods.items()})

    def wait(ones: list[Any], num_returns: int, timeout: float | None = None) -> tuple[list[Any], list[Any]]:
        if timeout is not None:
            waited.append((len(ones), timeout))
        elif not (done := [future for future in ones if future.done()]):
            raise KeyboardInterrupt
        else:
            return done[:1], []
        return [], ones

    one = Threads(tmp_path)
    monkeypatch.setattr(one, "wait", wait)
    monkeypatch.setattr(on_ray, "running", lambda *_: nullcontext(one))
    monkeypatch.setattr(on_ray, "workers_of", lambda _, __, most, *___, **____: [worker(i) for i in range(most)])
    rows = Dataset.from_dict({"x": list(range(10))})
    for name, block, expected in (("asks", Asking(), [0, 1]), ("computes", doubled, [])):
        halted.clear()
        with pytest.raises(KeyboardInterrupt):
            on_ray.run_on_ray(Work(tmp_path / name, [Part("rows", rows, block, "", 3)]), workers=2)
        assert sorted(halted) == expected
    assert waited == [(2, 25.0)], "what asks nobody is not waited for"
    one.threads.shutdown(wait=False)


def test_the_short_way_of_a_run_that_was_killed_is_deleted_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    blocks = tmp_path / "blocks" / ("long" * 12)
    for name, target in (("r0000dead", blocks / "ray"), ("r0000live", tmp_path / "another")):
        (scratch / name).mkdir()
        (scratch / name / "r").symlink_to(target)
    with on_ray._short_folder(blocks) as short:
        assert short.parent.parent == scratch
    assert [place.name for place in scratch.iterdir()] == ["r0000live"]


def skip_without_ray() -> None:
    if find_spec("ray") is None:  # it is not imported: its settings are made first
        pytest.skip("needs hf_synth[ray]")


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[World]:
    skip_without_ray()
    scratch = Path(tempfile.mkdtemp(dir="/tmp"))  # short: sockets lie behind a link in it
    try:
        with world(tmp_path, scratch) as one:
            yield one
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


# --- generate -------------------------------------------------------------------------------------------------------
def marked(request: dict[str, Any], text: str) -> Said:
    """Answer with a number of tokens read by which the question is known in a journal."""
    usage = {"prompt_tokens": mark_of(request), "completion_tokens": 20, "total_tokens": 0}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    facts = {"id": "1", "object": "chat.completion", "created": 1, "model": "m-served", "choices": [choice]}
    return Said(body=json.dumps({**facts, "usage": usage}).encode(), delay=0.3)


def mark_of(request: dict[str, Any]) -> int:
    """Return a number that can be one of tokens: above 0, below 2 million."""
    return int(sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:5], 16) + 1


def notes(request: dict[str, Any], _: int) -> Said:
    seed = request["seed"]  # odd answers and repeats are among them
    return marked(request, "no" if seed % 5 == 0 else entries({**request, "seed": seed if seed % 4 else 0}))


def journalled(file: Path) -> set[int]:
    """Return the marks of the answers in a journal."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        return {mark for (mark,) in connection.execute("SELECT prompt_tokens FROM answers")}


def asked_of(server: LLMServer) -> list[int]:
    return [mark_of(request) for request in server.requests]


def rows_of(folder: Path) -> list[dict[str, Any]]:
    files = [folder / name for name in ("train.parquet", "rejected.parquet") if (folder / name).is_file()]
    return [row for file in files for row in pq.read_table(file).drop_columns(["created"]).to_pylist()]


def texts_of(file: Path) -> list[str]:
    """Return the texts of a file, whose bytes are compressed."""
    texts: list[str] = pq.read_table(file)["text"].to_pylist()
    return texts


@pytest.mark.slow
def test_notes_from_two_workers_one_of_them_killed(tmp_path: Path, apart: World) -> None:
    work = make_journey(tmp_path / "work")
    journal = work / "two.sqlite"
    with serving(notes) as server:
        words = ["generate", str(work / "gold"), "--llm", "m", "--base-url", server.url, "--n", "100"]
        command = [*words, "--concurrency", "3", "--max-tokens", "500"]
        assert main([*command, "--out", str(work / "one"), "--journal", str(work / "one.sqlite")]) == 0
        once = set(asked_of(server))
        server.requests.clear()
        server.headers.clear()
        server.peak = 0
        two = [*command, "--out", str(work / "two"), "--journal", str(journal), *_ON_RAY]
        apart.environment["OPENAI_BASE_URL"] = server.url  # the key of the environment goes there and nowhere else
        process = apart.start(*two)
        kept, heard = list[set[int]](), set[str]()

        def ready() -> bool:
            heard.update(heard_at(process.pid))
            kept.append(journalled(journal) if journal.is_file() else set())
            return server.in_flight > 0 and len(kept[-1]) >= 12

        assert kill_a_worker(process, work / "two", 0, ready), process.communicate()[1]
        before = len(server.requests)
        _, said = process.communicate(timeout=1_500)
        assert process.returncode == 0, said
        asked = asked_of(server)
    assert heard == {"loopback"}
    known = kept[-1]  # answers that were in the journal when the worker was killed
    assert set(asked) == once, "the calls of one run"
    assert not known & set(asked[before:]), "an answer that was in the journal is not asked for again"
    repeated = Counter(asked) - Counter(once)
    assert set(repeated) <= set(asked[:before]) - known
    assert repeated.total() <= len(set(asked[:before]) - known) <= 3 + 1, "what was in flight; one may be on its way"
    assert server.peak <= 3 + 3, "the limit holds over both workers; the server may still hold a dead worker's calls"
    assert any(KEY_CANARY.encode() in head for head in server.headers), "the key was used"
    assert any(GOLD_CANARY in json.dumps(request) for request in server.requests), "gold was shown"
    assert rows_of(work / "two") == rows_of(work / "one")
    assert len(rows_of(work / "two")) > 100
    apart.check_nothing_left(CANARY, GOLD_CANARY, KEY_CANARY)
    held = [file for file in (work / "two").rglob("*") if file.is_file() and KEY_CANARY.encode() in file.read_bytes()]
    assert held == [], "the key is in no file"


@pytest.mark.slow
def test_a_budget_holds_over_two_workers_one_of_them_killed(tmp_path: Path, apart: World) -> None:
    work = make_journey(tmp_path / "work")

    def answer(request: dict[str, Any], number: int) -> Said:
        return Said(entries(request), delay=0.3)  # of 20 tokens, as many as are reserved: 20 dollars each

    with serving(answer) as server:
        words = ["generate", str(work / "gold"), "--llm", "m", "--base-url", server.url, "--n", "100"]
        command = [*words, "--concurrency", "4", "--max-tokens", "20", "--price", "0", "1000000"]
        assert main([*command, "--out", str(work / "one"), "--journal", str(work / "one.sqlite")]) == 0
        once = set(asked_of(server))
        most = len(once) * 2 // 3
        server.requests.clear()
        two = [*command, "--out", str(work / "two"), "--journal", str(work / "two.sqlite"), *_ON_RAY]
        process = apart.start(*two, "--budget-usd", str(20 * most))
        begun = lambda: server.in_flight >= 2 and len(server.requests) > 8  # noqa: E731
        assert kill_a_worker(process, work / "two", 0, begun), process.communicate()[1]
        _, said = process.communicate(timeout=1_500)
        assert process.returncode == 0, said
        assert "'budget': " in said, "as without Ray, the rows are written that there are"
        assert len(rows_of(work / "two")) < len(rows_of(work / "one"))
        spent = len(server.requests)
        assert most - 4 <= spent <= most, "every request was paid for, those of the dead worker too"
        process = apart.start(*two, "--budget-usd", "1e9")
        assert process.communicate(timeout=1_500)[1] is not None
        assert process.returncode == 0
        asked = asked_of(server)
    assert set(asked) == once
    assert len(asked) - len(once) <= 4, "only what the dead worker had in flight is asked for again"
    assert len(rows_of(work / "two")) >= 100
    assert rows_of(work / "two") == rows_of(work / "one")


# --- other verbs ----------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_two_workers_one_of_them_killed(tmp_path: Path, apart: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow, "BLOCK_ROWS", 40)
    work = make_journey(tmp_path / "work", 2_000)
    words = ["correct", str(work / "gold"), str(work / "synthetic"), "--corrector", str(work / "model")]
    command = [*words, "--split", "validation", "--method", "posterior", "--out", str(work / "corrected")]
    assert main(command) == 0
    whole = files_of(work / "corrected")
    process = apart.start(*command, *_ON_RAY, **{"task.arrow.BLOCK_ROWS": 40})
    assert kill_a_worker(process, work / "corrected", 3), process.communicate()[1]
    _, said = process.communicate(timeout=1_500)
    assert process.returncode == 0, said
    merged = files_of(work / "corrected")
    assert "engine" in merged.pop("hf_synth_run.toml").decode()
    assert merged.items() <= whole.items()
    assert len(merged) == len(whole) - 1
    apart.check_nothing_left(CANARY, GOLD_CANARY, KEY_CANARY)
    assert not Path("/tmp/ray").exists()
    assert any(CANARY in text for file in (work / "synthetic").glob("*.parquet") for text in texts_of(file))


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["correct", "label", "audit", "publish"])
def test_a_verb_on_ray_writes_what_it_writes_alone(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_ray()
    monkeypatch.setenv("RAY_worker_niceness", "0")
    monkeypatch.setattr(arrow, "BLOCK_ROWS", 9)
    work = make_journey(tmp_path / "work")
    rows = load_dataset("parquet", data_files=str(work / "synthetic" / "train.parquet"), split="train")
    own = [row for i, row in enumerate(rows) if i != len(rows) - 3]  # without the copy of gold
    write_stage(TASK, Dataset.from_list(own, features=rows.features), work / "clean", stage="generate")
    both, out = [str(work / "gold"), str(work / "clean")], work / "to" / "notes"
    with serving(voting(0.8)) as server:
        asking = ["--base-url", server.url, "--votes", "1"]
        command = {
            "correct": ["correct", *both, "--judge", "m", *asking, "--method", "llm_judge"],
            "label": ["label", *both, "--llm", "m", *asking, "--access", "open"],
            "audit": ["audit", *both],
            "publish": ["publish", *both, "--gold", str(work / "gold"), "--repo-id", "org/notes"],
        }[verb] + ["--out", str(out)]
        more = [] if verb in ("audit", "publish") else ["--journal"]
        code = main([*command, *more, *([str(work / "one.sqlite")] if more else [])])
        whole, asked = _everything_in(out), len(server.requests)
        shutil.rmtree(out)
        assert main([*command, *more, *([str(work / "two.sqlite")] if more else []), *_ON_RAY]) == code
        assert len(server.requests) == 2 * asked
    assert _everything_in(out) == whole
    assert len(whole) >= 3


def _everything_in(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files of an output, without its work folder and the options of its run."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    kept = {name for name in files if not name.startswith(".hf_synth/") and name != "hf_synth_run.toml"}
    return {name: files[name].read_bytes() for name in kept}
