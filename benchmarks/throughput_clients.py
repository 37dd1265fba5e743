"""One run of one client in its own process, which `throughput.py` starts and measures."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "OPENAI_API_KEY": "none"}
SYSTEM = "You write synthetic clinic notes as JSON with the keys note and label."


def messages(i: int) -> list[dict[str, str]]:
    case = f"Case {i}: a patient in week {i % 7} of thoracic radiotherapy, esophagitis grade_{i % 4}."
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": case}]


async def bare(args: argparse.Namespace, transport: str) -> int:
    """Ask with openai's client and a semaphore alone."""
    import openai

    http = openai.DefaultAioHttpClient() if transport == "aiohttp" else None
    async with openai.AsyncOpenAI(base_url=args.url, max_retries=args.retries, http_client=http) as client:
        gate = asyncio.Semaphore(args.concurrency)

        async def one(i: int) -> bool:
            async with gate:
                try:
                    reply = await client.chat.completions.create(model="m", messages=messages(i), max_tokens=512)
                except openai.APIError:
                    return False
                return bool(reply.choices[0].message.content)

        return sum(await asyncio.gather(*(one(i) for i in range(args.n))))


def chat(args: argparse.Namespace) -> int:
    """Ask with `LLM.chat` and its journal."""
    from hf_synth.llm.llm import LLM

    llm = LLM(
        "m", base_url=args.url, journal=args.folder / "journal.sqlite", concurrency=args.concurrency or None, **args.llm
    )
    answers = llm.chat([messages(i) for i in range(args.n)], access="open", max_tokens=512)
    return sum(a.status == "ok" for a in answers)


def generate(args: argparse.Namespace) -> int:
    """Generate n notes with `generate`, one label a call."""
    from dataclasses import replace

    import aiohttp  # noqa: F401  imports of the first call count as start-up here

    from hf_synth.generation.generation import generate as make
    from hf_synth.gold.gold import load_gold
    from hf_synth.llm.llm import LLM
    from hf_synth.task.scripts import load_task

    task = load_task("clinic")
    prompt = replace(task.prompt, asks_for="one_label", exemplars="same_label", rows=1)
    gold = load_gold(task, args.folder.parent / "gold")["train"].select(range(200))
    (args.folder / "ready").write_text(str(time.time()))
    llm = LLM(
        "m", base_url=args.url, journal=args.folder / "journal.sqlite", concurrency=args.concurrency or None, **args.llm
    )
    rows = make(task, gold, llm, args.n, prompt=prompt)
    (args.folder / "made").write_text(str(time.time()))
    return sum(status == "kept" for status in rows["label_status"])


def main() -> None:
    """Run one client and print its figures as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=("chat", "generate", "bare-httpx", "bare-aiohttp"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--n", type=int, default=2_000)
    parser.add_argument("--concurrency", type=int, default=64, help="0: none is given")
    parser.add_argument("--retries", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--llm", type=json.loads, default={}, help="more arguments of LLM, as JSON")
    args: Any = parser.parse_args()
    if args.client.startswith("bare"):
        good = asyncio.run(bare(args, args.client.removeprefix("bare-")))
    else:
        good = {"chat": chat, "generate": generate}[args.client](args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"good": good, "peak_mb": round(peak, 1)}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
