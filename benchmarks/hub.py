"""Benchmark of the local Hub: commits and downloads per second, and peak memory with a large file.

    python benchmarks/hub.py                # some minutes
    python benchmarks/hub.py --out docs/results/hub.md

`hf-synth hub serve` runs in its own process, on the disk of the temporary folder; the client is the installed
huggingface_hub, in this process. Memory is the peak resident memory of the server's process (VmHWM, Linux only).
Compare figures of one run only, not those of two machines.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MEGABYTE = 2**20
CHUNK = os.urandom(MEGABYTE)


def peak(pid: int) -> float:
    """Return the peak resident memory of a process in MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def large_file(api: Any, pid: int, folder: Path, megabytes: int) -> list[tuple[str, str]]:
    file = folder / "large.bin"
    with file.open("wb") as out:
        for k in range(megabytes):
            out.write(CHUNK[k:] + CHUNK[:k])
    api.create_repo("local/large")
    before, start = peak(pid), time.perf_counter()
    api.upload_file(path_or_fileobj=file, path_in_repo="large.bin", repo_id="local/large")
    upload, start = megabytes / (time.perf_counter() - start), time.perf_counter()
    copy = Path(api.hf_hub_download("local/large", "large.bin", cache_dir=folder / "cache"))
    download = megabytes / (time.perf_counter() - start)
    with file.open("rb") as one, copy.open("rb") as two:
        assert hashlib.file_digest(one, "sha256").digest() == hashlib.file_digest(two, "sha256").digest()
    return [
        ("server's peak memory before, MB", f"{before:.0f}"),
        (f"upload of {megabytes} MB (hashed by both sides, synced), MB/s", f"{upload:.0f}"),
        (f"download of {megabytes} MB, MB/s", f"{download:.0f}"),
        ("server's peak memory after, MB", f"{peak(pid):.0f}"),
        ("of that, for the large file, MB", f"{peak(pid) - before:.0f}"),
    ]


def small_commits(api: Any, clients: int, each: int) -> list[tuple[str, str]]:
    """Commit small files, from one client and from several at once, to one repository and to one each."""
    rows = []
    for writers, repos in ((1, 1), (clients, 1), (clients, clients)):
        for r in range(repos):
            api.create_repo(f"local/small-{writers}-{repos}-{r}")

        def push(w: int, writers: int = writers, repos: int = repos) -> None:
            for k in range(each):
                api.upload_file(
                    path_or_fileobj=b"%d %d" % (w, k), path_in_repo=f"{w}/{k}.txt",
                    repo_id=f"local/small-{writers}-{repos}-{w % repos}",
                )  # fmt: skip

        start = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(writers) as pool:
            list(pool.map(push, range(writers)))
        rate = writers * each / (time.perf_counter() - start)
        rows.append((f"commits/s, {writers} client(s), {repos} repository(ies)", f"{rate:.0f}"))
    return rows


def small_downloads(api: Any, folder: Path, clients: int, each: int) -> list[tuple[str, str]]:
    """Download small files from one repository, from several clients at once."""

    def pull(w: int) -> None:
        for k in range(each):
            api.hf_hub_download(f"local/small-{clients}-1-0", f"0/{k}.txt", cache_dir=folder / f"cache{w}")

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        list(pool.map(pull, range(clients)))
    rate = clients * each / (time.perf_counter() - start)
    return [(f"small downloads/s, {clients} clients (two requests each)", f"{rate:.0f}")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--each", type=int, default=15, help="commits and downloads of each client")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    os.environ.update(HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "hf_synth.cli", "hub"]
        create = [*command, "create-user", "local", "--root", str(folder / "hub"), "--json"]
        user = json.loads(subprocess.run(create, capture_output=True, check=True).stdout.splitlines()[-1])
        serve = [*command, "serve", "--root", str(folder / "hub"), "--port", "0", "--quiet"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                url = server.stdout.readline().split()[-1]
                api = HfApi(endpoint=url, token=user["token"])
                rows = large_file(api, server.pid, folder, args.megabytes)
                rows += small_commits(api, args.clients, args.each)
                rows += small_downloads(api, folder, args.clients, args.each)
            finally:
                server.terminate()
    lines = ["| what | measured |", "|---|---|", *(f"| {what} | {value} |" for what, value in rows)]
    print("\n".join(lines))
    if args.out:
        head = (
            "# The local Hub: commits and downloads per second, memory\n\n"
            "`python benchmarks/hub.py`, Linux, two cores under other load; the client is huggingface_hub on the same\n"
            "machine, and its own work is in every figure. A commit is synced to the disk before it is answered. The\n"
            "server reads and writes a large file in pieces, whatever its size.\n\n"
        )
        args.out.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
