"""A GGUF file answers in a process of its own: its key, its journal keys, its end, and what goes wrong."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from support.gguf_model import CONTEXT, write_gguf

from hf_synth.errors import LLMError
from hf_synth.llm import local_server as module
from hf_synth.llm.gguf_files import Weights, find_weights
from hf_synth.llm.llm import LLM
from hf_synth.llm.local_server import connections, fitting_slots, free_cores, local_server
from hf_synth.llm.questions import access_of_llm
from hf_synth.task.columns import MANIFEST

SCHEMA = {
    "type": "object",
    "properties": {"note": {"type": "string", "maxLength": 20}, "label": {"enum": ["calm", "urgent"]}},
    "required": ["note", "label"],
    "additionalProperties": False,
}
PARENT = """
import os, sys, time
from hf_synth.llm.llm import LLM
llm = LLM.local_gguf(sys.argv[1], slots=1, context=256, journal=sys.argv[2])
print(llm._server._process.child.pid, flush=True)
if os.fork() == 0:  # a fork has the pipe to the server, too
    time.sleep(3)
    os._exit(0)
os.kill(os.getpid(), {signal})
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("xllamacpp", reason="needs xllamacpp (PyPI): llama.cpp's server")
    pytest.importorskip("gguf", reason="needs gguf (PyPI): writes the model")
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def ask(n: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": f"Write note {i}."}] for i in range(n)]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def ends(pid: int, seconds: float = 20.0) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def status(url: str, key: str | None) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/models", headers=headers), timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_it_answers_by_the_schema_and_its_answers_are_found_again(model: Path, tmp_path: Path) -> None:
    how = {"schema": SCHEMA, "max_tokens": 300, "access": "credentialed"}
    with LLM.local_gguf(model, slots=2, context=1024, journal=tmp_path / "journal.sqlite") as llm:
        assert llm.origin.host == "127.0.0.1"
        assert llm.api_key is not None
        assert llm.api_key not in repr(llm) + repr(llm._server)
        url, pid = str(llm.base_url), llm._server._process.child.pid  # type: ignore[union-attr]
        assert [status(url, key) for key in (None, "wrong", llm.api_key)] == [401, 401, 200]
        command = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert llm.api_key.encode() not in command
        answers = llm.chat(ask(5), **how)
        assert pickle.loads(pickle.dumps(llm)).chat(ask(1), **how)[0].cached  # another process asks the same server
    assert not alive(pid)
    for answer in answers:
        assert (answer.status, answer.cached, answer.cost) == ("ok", False, 0.0)
        assert list(json.loads(answer.text)) == ["note", "label"]
        assert answer.model == llm.model == find_weights(model).name
    copy = tmp_path / "another name.gguf"
    copy.write_bytes(model.read_bytes())
    with LLM.local_gguf(str(copy), slots=1, journal=tmp_path / "journal.sqlite") as other:
        assert (other.base_url, other.api_key) != (llm.base_url, llm.api_key)
        again = other.chat(ask(5), **how)
    assert [(a.text, a.cached) for a in again] == [(a.text, True) for a in answers]
    with pytest.raises(LLMError, match=f"cannot reach the server of {llm.model} that this process started"):
        llm.chat(ask(6), max_tokens=3)


def test_llms_of_one_file_share_a_server_until_the_last_one_leaves(model: Path, tmp_path: Path) -> None:
    first = LLM.local_gguf(model, slots=1, context=256, journal=tmp_path / "a.sqlite")
    second = LLM.local_gguf(model, slots=1, context=256).with_journal(tmp_path / "b.sqlite")  # the first copy is gone
    assert first.base_url == second.base_url
    pid = second._server._process.child.pid  # type: ignore[union-attr]
    first.close()
    first.close()
    assert alive(pid)
    assert second.chat(ask(1), max_tokens=3)[0].completion_tokens == 3
    module._release(second._server._process, os.getpid() + 1)  # type: ignore[union-attr]  # as in a fork of this process
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)
    assert ends(pid)
    second._server._process.child.wait(timeout=20)  # type: ignore[union-attr]  # its last thread may end later
    third = LLM.local_gguf(model, slots=1, context=256)  # a dead server is not shared
    assert third._server._process.child.pid != pid  # type: ignore[union-attr]  # its port may be the same
    pid = third._server._process.child.pid  # type: ignore[union-attr]
    del third
    assert not alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_a_killed_parent(model: Path, tmp_path: Path, kill: signal.Signals) -> None:
    program = PARENT.replace("{signal}", str(int(kill)))
    process = subprocess.run(
        [sys.executable, "-c", program, str(model), str(tmp_path / "journal.sqlite")],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert process.returncode == -kill
    assert ends(int(process.stdout))


def test_what_cannot_start_is_one_sentence(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = model.read_bytes()
    cut, strange = tmp_path / "cut.gguf", tmp_path / "strange.gguf"
    cut.write_bytes(data[: len(data) // 2])
    strange.write_bytes(data.replace(b"llama", b"lmlml"))
    for path, says in ((cut, "incomplete: fetch it again"), (strange, "pip install --upgrade xllamacpp")):
        with pytest.raises(LLMError, match=says) as error:
            local_server(path, slots=1)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    for numbers in ({"slots": 0}, {"context": 0}, {"threads": -1}, {"context": CONTEXT + 1}):
        with pytest.raises(LLMError, match="at least 1|at most"):
            local_server(model, **numbers)
    with pytest.raises(LLMError, match="positive timeout"):
        LLM.local_gguf(model, slots=1, context=256, timeout=0)
    assert not module._RUNNING
    odd = tmp_path / os.fsdecode(b"\xff.gguf")
    odd.write_bytes(data)
    with pytest.raises(LLMError, match="rename it"):
        local_server(odd, slots=1, context=256)
    broken = tmp_path / "xllamacpp.py"
    broken.write_text("raise ImportError")
    with monkeypatch.context() as context, pytest.raises(LLMError, match="xllamacpp cannot be loaded"):
        context.syspath_prepend(tmp_path)
        local_server(model, slots=1, context=256)
    monkeypatch.setattr(module, "_cause", lambda log, code, error: str(code))
    monkeypatch.setattr(module, "_STOPPING", 1.0)
    monkeypatch.setattr(module.llama_process, "__file__", str(tmp_path / "killed.py"))
    (tmp_path / "killed.py").write_text("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(LLMError, match="-9"):
        local_server(model, slots=1, context=256)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(LLMError, match=r"pip install 'hf_synth\[local\]'"):
        local_server(model)


def test_slots_fit_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = Weights(Path("x.gguf"), "0" * 64, "x", "mit", 8_192, 1_000)
    for cores, free, slots in (
        (2, None, 8),
        (1, None, 4),
        (64, None, 32),
        (2, 16_000_000, 4),  # a quarter holds 4 conversations of 1,000 tokens
        (2, 1_000, 1),
        (16, 10**12, 32),
    ):
        monkeypatch.setattr(module, "cores", lambda cores=cores: cores)
        monkeypatch.setattr(module, "_free_memory", lambda free=free: free)
        assert fitting_slots(weights, 1_000) == slots
        assert slots < connections(slots) == connections(slots, None) < connections(slots, 10**6)
        assert connections(slots, 1) == 1


@pytest.mark.parametrize(
    ("load", "ours", "machine", "threads"),
    [(0.0, 2, 2, 2), (0.9, 2, 2, 2), (1.2, 2, 2, 1), (20.0, 2, 2, 1), (30.0, 4, 64, 4), (62.5, 4, 64, 2)],
)
def test_threads_are_for_free_cores(
    load: float, ours: int, machine: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "cores", lambda: ours)
    monkeypatch.setattr(module.os, "cpu_count", lambda: machine)
    monkeypatch.setattr(module.os, "getloadavg", lambda: (load, 0.0, 0.0))
    assert free_cores() == threads


def test_what_a_file_learnt_is_the_access_of_its_answers_also_in_a_pickle(model: Path, tmp_path: Path) -> None:
    with LLM.local_gguf(model, slots=1, context=256, journal=tmp_path / "journal.sqlite") as llm:
        assert access_of_llm(llm) == "open"
    (tmp_path / "closed").mkdir()
    file = Path(shutil.copy(model, tmp_path / "closed"))
    (tmp_path / "closed" / MANIFEST).write_text('{"access": "credentialed"}')
    with LLM.local_gguf(file, slots=1, context=256, journal=tmp_path / "journal.sqlite") as llm:
        for one in (llm, llm.with_journal(tmp_path / "other.sqlite"), pickle.loads(pickle.dumps(llm))):
            assert access_of_llm(one) == "credentialed"
