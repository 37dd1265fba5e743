"""Look at an endpoint before it is used: its models, its slots, and how fast it writes.

No note is sent: the one question is ours. Every look has a deadline of its own, which holds also for a server that
sends a byte now and then, or a name that is looked up for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from hf_synth.errors import HfSynthError
from hf_synth.llm.endpoints import LineError
from hf_synth.llm.identity import introduce
from hf_synth.llm.llm import LLM, Wire
from hf_synth.llm.replies import UNREACHED

QUESTION = "Write the numbers from 1 to 40 in words, separated by commas."
_TOKENS = 128  # most tokens of its answer
_MOST_MODELS, _LONGEST_NAME = 1_000, 120
_T = TypeVar("_T")


@dataclass(frozen=True)
class Listing:
    """What a server says of itself.

    Args:
        models: names of its models; empty where it lists none.
        slots: requests that it works on at once; None where it does not say.
        problem: why it cannot be used, with what to do; "" where nothing is against it.
    """

    models: tuple[str, ...] = ()
    slots: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class Speed:
    """How fast a server answered one short question.

    Args:
        seconds: until the whole answer was there.
        tokens: that it wrote; 0 where it does not count them.
        problem: why there was no answer, with what to do; "" for an answer.
    """

    seconds: float = 0.0
    tokens: int = 0
    problem: str = ""


def call_within(seconds: float, look: Callable[[], _T]) -> _T | None:
    """Return what a function returns; None if it takes longer, in which case it is left to itself.

    Raises:
        HfSynthError: from the function.
    """
    results: list[_T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(look())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="hf_synth-probe")
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    return results[0] if results else None


def list_models(llm: LLM, seconds: float = 5.0) -> Listing:
    """Ask a server for its models, and llama.cpp's for its slots.

    Raises:
        LLMError: there is no key for a provider that needs one.
    """
    import aiohttp  # noqa: F401 - it takes long once, before the clock runs

    found = call_within(seconds, lambda: asyncio.run(_listing(llm, seconds / 2)))
    silent = f"does not answer within {seconds:g} s: is it running, or is it still loading its model?"
    return Listing(problem=silent) if found is None else found


async def _listing(llm: LLM, seconds: float) -> Listing:
    """Return the models of a server; its slots are left out where it does not name them within these seconds."""
    wire = Wire(llm, "open", {})
    try:
        status, body = await wire.fetch("models")
        if problem := _problem(status, body):
            return Listing(problem=problem)
        slots = None
        if wire.is_local:
            with contextlib.suppress(TimeoutError):
                slots = (await asyncio.wait_for(introduce(wire.get, llm.model), seconds))[1]
    except LineError as error:
        return Listing(problem=_no_line(error.code))
    finally:
        await wire.close()
    data = _json(body)
    listed = data.get("data") if isinstance(data, dict) else None
    names = [one.get("id") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    plain = [name[:_LONGEST_NAME] for name in names if isinstance(name, str) and name][:_MOST_MODELS]
    return Listing(tuple(plain), slots)


def _no_line(code: str) -> str:
    """Return why a server says nothing of itself."""
    if code == "timeout":
        return "does not answer in time: is it still loading its model?"
    if code == "unreachable":
        return "cannot be reached: start the server, or check base_url"
    return f"cannot be reached: {UNREACHED[code]}" if code in UNREACHED else "breaks the connection off: check base_url"


_STATUS = {
    401: "refuses the key (401): set OPENAI_API_KEY together with OPENAI_BASE_URL, or the provider's own variable",
    403: "does not allow this (403): check the key's rights",
    503: "is overloaded, or still loading its model (503): wait, then look again",
}


def _problem(status: int, body: bytes) -> str:
    """Return what is wrong with the answer to a request for the models; a server may have no such list (404)."""
    if body.lstrip()[:1] == b"<" and status < 500:
        return "answers with a web page: a login or a proxy stands before it, or base_url lacks its /v1"
    if status in _STATUS:
        return _STATUS[status]
    if 300 <= status < 400:
        return f"redirects elsewhere ({status}), which is not followed: check base_url"
    if status >= 500:
        return f"fails ({status}): look into its log"
    if status == 200 and _json(body) is None:
        return "answers with something that is no JSON: check base_url, which usually ends in /v1"
    return ""


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def measure(llm: LLM, seconds: float = 20.0) -> Speed:
    """Ask one short question of ours, and measure how long the answer takes; nothing of it is kept."""
    with tempfile.TemporaryDirectory(prefix="hf_synth-", ignore_cleanup_errors=True) as folder:
        asked = replace(llm, journal=Path(folder) / "journal.sqlite", max_retries=0, timeout=seconds, concurrency=1)
        began = time.perf_counter()
        try:
            messages = [{"role": "user", "content": QUESTION}]
            answers = call_within(seconds, lambda: asked.chat([messages], access="open", max_tokens=_TOKENS))
        except HfSynthError as error:
            return Speed(problem=str(error))
        passed = time.perf_counter() - began
    if answers is None:
        return Speed(passed, problem=f"gave no answer to a short question within {seconds:g} s")
    answer = answers[0]
    if answer.status == "error":
        return Speed(passed, problem=f"gave no answer to a short question ({answer.code})")
    return Speed(passed, answer.completion_tokens or 0)
