"""The simulator: an offline stand-in for an LLM, which answers our real prompts through the real openai client.

It is a program with phrase tables, not a language model. For the grades of esophagitis it writes notes in a style of
its own from facts that it plans; about 30% of its labels are wrong, because the writing slips: a planned fact is left
out, only considered, or contradicted, most often in borderline cases. The label it returns is the one it was asked
for, as with a real LLM. For any other task it recombines the exemplars of the prompt. Everything follows from the
messages and a seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hf_synth.demo import simulator_language as say
from hf_synth.demo.clinic import Facts, grade_of

if TYPE_CHECKING:
    from starlette.applications import Starlette

MODEL = "simulator"
_STATED = {"admitted": say.ADMITTED, "tube": say.TUBE, "fluids": say.FLUIDS, "changed": say.SOFT,
           "supplements": say.SUPPLEMENT, "felt": say.MILD, "finding": say.FINDING}  # fmt: skip


@dataclass(frozen=True)
class Faults:
    """How often the simulator misbehaves.

    Args:
        slips: factor on the odds that a written fact goes wrong; 1 makes about 30% of the labels wrong, 0 none.
        refusal: share of answers that decline.
        broken: share of answers cut in the middle of their JSON.
        chatter: share of answers with words or a fence around the JSON.
        duplicate: share of entries that repeat the one before.
        latency: seconds before each answer of the server.
    """

    slips: float = 1.0
    refusal: float = 0.01
    broken: float = 0.02
    chatter: float = 0.05
    duplicate: float = 0.02
    latency: float = 0.0


# --- answering ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Question:
    """What a prompt asks for, read back from its text."""

    columns: tuple[str, ...]  # text columns, then the label column
    labels: tuple[str, ...]  # all of the task
    asked: tuple[str, ...]
    rows: int
    exemplars: list[dict[str, str]]


def answer(messages: Sequence[Mapping[str, str]], *, seed: int = 0, faults: Faults | None = None) -> str:
    """Answer a prompt of `generation.render`; the same messages and seed give the same answer."""
    faults = faults or Faults()
    prompt = "\n".join(m["content"] for m in messages)
    rng = random.Random(hashlib.sha256(f"{seed}\x1f{prompt}".encode()).hexdigest())
    if rng.random() < faults.refusal:
        return rng.choice(
            ("I'm sorry, but I can't help with writing medical records.", "I cannot assist with this request.")
        )
    question = _read(messages[-1]["content"])
    entries: list[dict[str, str]] = []
    for _ in range(question.rows):
        for label in question.asked or ("",):
            if entries and rng.random() < faults.duplicate:
                entries.append(dict(entries[-1]))
            else:
                entries.append(_entry(rng, question, label, faults))
    text = json.dumps({"entries": entries}, ensure_ascii=False)
    if rng.random() < faults.broken:
        return text[: rng.randint(len(text) // 4, len(text) - 2)]
    if rng.random() < faults.chatter:
        return rng.choice(
            (f"```json\n{text}\n```", f"Here are the entries you asked for:\n\n{text}\n\nLet me know if you need more.")
        )
    return text


def _read(prompt: str) -> _Question:
    form = re.findall(r'\{"entries": \[\{(.*?)\}, \.\.\.\]\}', prompt)
    columns = tuple(re.findall(r'"([^"]+)": "', form[-1])) if form else ("text", "label")
    labels = tuple(re.findall(r"(?m)^- ([^:\n]+): ", prompt.split("Examples:")[0]))
    exemplars = []
    for line in prompt.splitlines():
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                exemplars.append(json.loads(line))
    ask = re.search(r"(?m)^Write (\d+) new entr(?:y|ies)(?: for (?:this label|each of these labels): (.+))?\.$", prompt)
    asked = tuple(ask[2].split(", ")) if ask and ask[2] else ()
    return _Question(columns, labels, asked, int(ask[1]) if ask else 1, exemplars)


def _entry(rng: random.Random, question: _Question, label: str, faults: Faults) -> dict[str, str]:
    grades = _grades(question.labels, label)
    if grades and len(question.columns) == 2:
        text, _ = write(rng, rng.choice(grades), slips=faults.slips)
        return {question.columns[0]: text, question.columns[1]: label}
    return _recombined(rng, question, label)


def _grades(labels: Sequence[str], label: str) -> list[int]:
    """Give the grades that a label of an esophagitis task stands for; none for any other task."""
    if set(labels) == {"none", "esophagitis"}:
        return [0] if label == "none" else [1, 2, 3]
    if labels and all(name.startswith("grade_") for name in labels):
        return [int(g) for g in re.findall(r"\d", label)]
    return []


# --- notes with a grade ---------------------------------------------------------------------------------------------


def write(rng: random.Random, grade: int, *, slips: float = 1.0) -> tuple[str, int]:
    """Write a note that is meant to have a grade; give the text and the grade that it really states."""
    planned = _plan(rng, grade)
    late = rng.random() < 0.4
    crowded = rng.randint(2, 7)  # the more a note says, the likelier a fact gets lost in it
    sentences, stated = _state(rng, planned, slips * (0.5 + 0.14 * crowded) * (1.2 if late else 0.9))
    story = sentences + rng.sample(say.SIDE, min(crowded, len(say.SIDE)) // 2)
    rng.shuffle(story)
    opening = rng.choice(say.OPENING).format(
        week=rng.randint(1, 7), after=rng.randint(1, 9), fraction=rng.randint(5, 33)
    )
    rest = (
        rng.sample(say.MEDS, rng.randint(0, 2))
        + rng.sample(say.EXAM, rng.randint(0, 2))
        + rng.sample(say.PLAN, rng.randint(1, 2))
    )
    parts = [opening, " ".join(story), " ".join(rest)]
    text = rng.choice((" ", "\n", "\n\n")).join(p for p in parts if p)
    return text, grade_of(stated)


def _plan(rng: random.Random, grade: int) -> Facts:
    if grade == 0:
        return Facts()
    if grade == 1:
        return Facts(finding=True) if rng.random() < 0.2 else Facts(felt=True)
    if grade == 2:
        kind = rng.random()
        return Facts(felt=True, changed=kind < 0.75, supplements=kind > 0.5)
    what = rng.choice(("fluids", "tube", "admitted"))
    return Facts(
        felt=True, changed=rng.random() < 0.5, fluids=what == "fluids", tube=what == "tube", admitted=what == "admitted"
    )


def _pick(rng: random.Random, ways: Sequence[str]) -> str:
    """Draw a way of saying something: like a language model it has its favourites."""
    return rng.choices(ways, [1 / (rank + 1) for rank in range(len(ways))])[0]


def _state(rng: random.Random, planned: Facts, hazard: float) -> tuple[list[str], Facts]:
    """Put facts into sentences; each may slip: be left out, be only considered, or be overtaken by another."""
    said: list[str] = []
    true: dict[str, bool] = {}
    for fact in ("admitted", "tube", "fluids", "changed", "supplements"):
        if not getattr(planned, fact):
            continue
        odds = {"fluids": 0.34, "admitted": 0.27, "tube": 0.22, "changed": 0.3, "supplements": 0.26}[fact]
        if rng.random() < odds * hazard:
            if fact in say.CONSIDERED and rng.random() < 0.75:
                said.append(_pick(rng, say.CONSIDERED[fact]))
            if fact in ("admitted", "tube", "fluids") and rng.random() < 0.6:
                said.append(_pick(rng, say.SOFT))  # the milder thing is what ends up on the page
                true["changed"] = True
        else:
            said.append(_pick(rng, _STATED[fact]))
            true[fact] = True
    if planned.finding:
        if rng.random() < 0.22 * hazard:
            said.append(_pick(rng, say.REGULAR))
        else:
            said.append(_pick(rng, say.FINDING))
            true["finding"] = True
    if planned.felt and not any(true.values()):
        said.append(_pick(rng, say.MILD))
        true["felt"] = True
    if planned == Facts(felt=True) and rng.random() < 0.36 * hazard:
        said = [_pick(rng, say.SOFT)] if rng.random() < 0.55 else [_pick(rng, say.REGULAR)]
        true = {"changed": said[0] in say.SOFT}
    if planned == Facts():
        if rng.random() < 0.22 * hazard:
            said.append(_pick(rng, say.MILD if rng.random() < 0.65 else say.SOFT))
            true = {"felt": said[-1] in say.MILD, "changed": said[-1] in say.SOFT}
        else:
            said.append(_pick(rng, rng.choices((say.REGULAR, say.HISTORY, say.ELSEWHERE), (6, 2, 2))[0]))
    return list(dict.fromkeys(said)), Facts(**true)


_FACT_OF = {sentence: fact for fact, sentences in _STATED.items() for sentence in sentences}
_ANY_FACT = re.compile("|".join(re.escape(s) for s in sorted(_FACT_OF, key=len, reverse=True)))


def true_label(text: str) -> int:
    """Read the grade that a simulated note really states: for judging a simulation, since only there it can be known.

    The simulator's sentences stand in its tables whole, so its facts are read back exactly; any other text gives 0.
    """
    return grade_of(Facts(**{_FACT_OF[sentence]: True for sentence in _ANY_FACT.findall(text)}))


# --- any other task -------------------------------------------------------------------------------------------------


def _recombined(rng: random.Random, question: _Question, label: str) -> dict[str, str]:
    """Cross the sentences of exemplars of a label; now and then one of another label slips in."""
    *columns, target = question.columns
    pool = question.exemplars or [dict.fromkeys(question.columns, "Nothing of note was found today.")]
    own = [e for e in pool if e.get(target) == label] or pool
    entry = {}
    for column in columns:
        sentences: list[str] = []
        for source in rng.choices(own, k=2) + ([rng.choice(pool)] if rng.random() < 0.3 else []):
            sentences += re.split(r"(?<=[.!?;])\s+|\n+", source.get(column, ""))
        kept = [s for s in dict.fromkeys(sentences) if s.strip()]
        rng.shuffle(kept)
        text = " ".join(kept[: max(1, rng.randint(len(kept) // 2, len(kept)))]) if kept else ""
        entry[column] = f"{rng.choice(_LEADS)} {text}".strip()
    entry[target] = label or rng.choice(pool).get(target, "")
    return entry


_LEADS = (
    "Today:",
    "As reported,",
    "Seen again.",
    "Briefly:",
    "Reviewed in clinic.",
    "On this visit:",
    "In summary,",
    "By history:",
)


# --- the server -----------------------------------------------------------------------------------------------------


def create_app(*, seed: int = 0, faults: Faults | None = None) -> Starlette:
    """Make an app that speaks the OpenAI protocol: POST /v1/chat/completions and GET /v1/models."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def chat(request: Request) -> JSONResponse:
        try:
            body = await request.json()
            messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in body["messages"]]
            number = int(body.get("seed") or 0)
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": {"message": "not a chat request", "type": "invalid_request_error"}}, 400)
        text = await run_in_threadpool(_slow_answer, messages, seed * 1_000_003 + number, faults or Faults())
        counts = (sum(len(m["content"].split()) for m in messages) * 4 // 3, len(text.split()) * 4 // 3)
        return JSONResponse(_completion(text, *counts))

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "hf_synth"}]})

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/v1/models", models)])


def _slow_answer(messages: list[dict[str, str]], seed: int, faults: Faults) -> str:
    if faults.latency:
        time.sleep(faults.latency)
    return answer(messages, seed=seed, faults=faults)


def _completion(text: str, asked: int, said: int) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
    return {
        "id": "chatcmpl-simulated",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "choices": [choice],
        "usage": usage,
    }


@contextlib.contextmanager
def running_simulator(*, port: int = 0, seed: int = 0, faults: Faults | None = None) -> Iterator[str]:
    """Serve the simulator on loopback in a thread; give its base_url, "http://127.0.0.1:PORT/v1"."""
    import socket

    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", port))
    config = uvicorn.Config(
        create_app(seed=seed, faults=faults), log_level="critical", access_log=False, lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), name="hf_synth-simulator", daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
