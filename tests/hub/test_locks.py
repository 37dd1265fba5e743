"""Locks on files, with flock and without: the Hub and the publishing log work where the system has no fcntl."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hf_synth.hub import locks

WITHOUT = """
import sys, threading, warnings
warnings.simplefilter("ignore")
sys.modules["fcntl"] = None
from pathlib import Path
import hf_synth
root = Path(sys.argv[1])
from hf_synth.hub.locks import take
unlock = take(root / "one", wait=False)
try:
    take(root / "one", wait=False)
    raise SystemExit("taken twice")
except BlockingIOError:
    pass
order = []
waiting = threading.Thread(target=lambda: (take(root / "one")(), order.append("second")))
waiting.start()
order.append("first")
unlock()
waiting.join(20)
assert order == ["first", "second"], order

from hf_synth.hub import connected, running_hub
from huggingface_hub import HfApi
with running_hub(root / "hub") as hub, connected(hub):
    api = HfApi(endpoint=hub.url, token=hub.token)
    api.create_repo("me/notes", repo_type="dataset")
    api.upload_file(path_or_fileobj=b"note", path_in_repo="a.txt", repo_id="me/notes", repo_type="dataset")
    assert "a.txt" in api.list_repo_files("me/notes", repo_type="dataset")

from hf_synth.publishing.release import entries, record
threads = [threading.Thread(target=record, args=(root, "export"), kwargs={"number": i}) for i in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sorted(e["number"] for e in entries(root)) == list(range(8))
import hf_synth.cli.cli
import hf_synth.demo.journey
print("done")
"""


def test_all_works_without_fcntl(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True, timeout=240)
    assert done.stdout.strip() == "done", done.stderr[-3_000:]


@pytest.mark.parametrize("portable", [False, True])
def test_a_lock_has_one_holder(tmp_path: Path, portable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if portable:
        monkeypatch.setattr(locks, "fcntl", None)
    unlock = locks.take(tmp_path / "lock")
    with pytest.raises(BlockingIOError):
        locks.take(tmp_path / "lock", wait=False)
    held: list[int] = []
    waiting = threading.Thread(target=lambda: (held.append(1), locks.take(tmp_path / "lock")(), held.append(2)))
    waiting.start()
    waiting.join(0.1)
    assert held == [1]
    unlock()
    waiting.join(20)
    assert held == [1, 2]
    locks.take(tmp_path / "lock", wait=False)()
    assert {f.stat().st_mode & 0o077 for f in tmp_path.iterdir()} <= {0}
