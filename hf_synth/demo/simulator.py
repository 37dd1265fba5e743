"""Simulated LLM: a program with phrase tables behind an OpenAI-compatible endpoint, for use without network or key.

For the grades of esophagitis it plans facts and writes notes in its own style. About 30% of its labels are wrong: a
planned fact is left out, only considered, or contradicted, most often in borderline cases, while the label returned is
the one of the prompt, as with a real LLM. A share of the sentences can be copied from the exemplars of the prompt
(`Faults.copying`), so that a note tells what it was written from. For any other task the simulator recombines the
exemplars. Where such a task has one text, a note is keywords of theirs in another order (`rewording.in_fragments`), in
their language; where it has one label, about 20% of the labels are wrong: the text is made from exemplars of another
label. The answer depends on the messages and a seed alone.
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
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hf_synth.demo import simulator_language as say
from hf_synth.demo.clinic import Facts, grade_of
from hf_synth.demo.clinic_facts import SWALLOWING
from hf_synth.demo.definitions import grades_of, meanings_of, note_of, opinion_of
from hf_synth.demo.rewording import fillers_of, in_fragments, looks_english, reword, sentences_of, with_fillers
from hf_synth.generation.fact_judge import ASKS
from hf_synth.generation.prompts import STATES

if TYPE_CHECKING:
    from starlette.applications import Starlette

MODEL = "simulator"
_WRONG = 0.2  # share of wrong labels of a task without grades
_LEFT_OUT = 0.2  # share of the facts asked for that a note does not state
_STATED = {"admitted": say.ADMITTED, "tube": say.TUBE, "fluids": say.FLUIDS, "changed": say.SOFT,
           "supplements": say.SUPPLEMENT, "felt": say.MILD, "finding": say.FINDING}  # fmt: skip


@dataclass(frozen=True)
class Faults:
    """Error rates of the simulator.

    Args:
        slips: factor on the probability of a wrong fact; 1 makes about 30% of the labels of graded notes wrong, and
            about 20% of those of any other task with one text and one label; 0 none.
        refusal: share of refusals.
        broken: share of answers with truncated JSON.
        chatter: share of answers with words or a fence around the JSON.
        duplicate: share of entries that repeat the one before.
        latency: seconds before each answer of the server.
        copying: share of a graded note's sentences that are copied from exemplars which the prompt shows with the same
            label; `true_label` does not read them. Notes of any other task consist of such sentences anyway.
    """

    slips: float = 1.0
    refusal: float = 0.01
    broken: float = 0.02
    chatter: float = 0.05
    duplicate: float = 0.02
    latency: float = 0.0
    copying: float = 0.0


# --- answering ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Question:
    """The request of a prompt, parsed from its text."""

    columns: tuple[str, ...]  # text columns, then the label column
    labels: tuple[str, ...]  # all labels of the task
    wanted: tuple[str, ...]  # labels of the new entries
    rows: int  # entries for each of them
    exemplars: list[dict[str, Any]]
    sets: bool = False  # whether the label is a list of labels
    facts: tuple[tuple[str, str], ...] = ()  # (name, wording) of the facts that an entry must state
    again: bool = False  # whether an entry is asked for again
    meanings: Mapping[str, str] = field(default_factory=dict)  # of the labels


def answer(messages: Sequence[Mapping[str, str]], *, seed: int = 0, faults: Faults | None = None) -> str:
    """Answer a prompt of `generation.render`, by messages and seed alone."""
    faults = faults or Faults()
    prompt = "\n".join(m["content"] for m in messages)
    rng = random.Random(hashlib.sha256(f"{seed}\x1f{prompt}".encode()).hexdigest())
    if rng.random() < faults.refusal:
        return rng.choice(
            ("I'm sorry, but I can't help with writing medical records.", "I cannot assist with this request.")
        )
    if ASKS in prompt:
        return json.dumps({"answer": opinion_of(rng, prompt)})
    question = _parse(messages[-1]["content"])
    entries: list[dict[str, Any]] = []
    for _ in range(question.rows):
        for label in question.wanted or ("",):
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


def _parse(prompt: str) -> _Question:
    form = re.findall(r'\{"entries": \[\{(.*?)\}, \.\.\.\]\}', prompt)
    shape: dict[str, Any] = {"text": "...", "label": "..."}
    with contextlib.suppress(ValueError, IndexError):
        shape = json.loads("{" + form[-1] + "}")
    listed = re.search(r"(?m)^Labels:\n((?:- .*\n?)+)", prompt)
    labels = tuple(re.findall(r"(?m)^- ([^:\n]+)(?:: |$)", listed[1])) if listed else ()
    exemplars = []
    for line in prompt.splitlines():
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                exemplars.append(json.loads(line))
    ask = re.search(r"(?m)^Write (\d+) new entr(?:y|ies)(?: for (?:this label|each of these labels): (.+))?\.$", prompt)
    wanted = tuple(ask[2].split(", ")) if ask and ask[2] else ()
    sets = isinstance(list(shape.values())[-1], list)
    facts = tuple(re.findall(rf"(?m)^- {re.escape(STATES)} ([^:\n]+): (.+)$", prompt))
    again = "\nWrite it again. " in prompt
    return _Question(
        tuple(shape), labels, wanted, int(ask[1]) if ask else 1, exemplars, sets, facts, again, meanings_of(prompt)
    )


def _entry(rng: random.Random, question: _Question, label: str, faults: Faults) -> dict[str, Any]:
    grades = grades_of(question.labels, label)
    if grades and len(question.columns) == 2 and dict(question.facts).get("swallowing") in SWALLOWING:
        return {question.columns[0]: write_facts(rng, question, faults.slips), question.columns[1]: label}
    if grades and len(question.columns) == 2:
        text, _ = write(rng, rng.choice(grades), slips=faults.slips)
        if faults.copying:  # without it no number is drawn, so that the answers stay the same
            text = _with_copies(rng, text, question, label, faults.copying)
        return {question.columns[0]: text, question.columns[1]: label}
    if label and len(question.columns) == 2 and not question.sets:
        if question.exemplars and not question.facts:
            return _reworded(rng, question, label, faults.slips)
        wordings = [wording for _, wording in question.facts] or [question.meanings.get(label, label)]
        return {question.columns[0]: note_of(rng, wordings, again=question.again), question.columns[1]: label}
    return _recombined(rng, question, label)


# --- notes with a grade ---------------------------------------------------------------------------------------------


def write(rng: random.Random, grade: int, *, slips: float = 1.0) -> tuple[str, int]:
    """Write a note for a grade; return the text and the grade that it states, which may differ."""
    planned = _plan(rng, grade)
    late = rng.random() < 0.4
    crowded = rng.randint(2, 7)  # the longer a note, the likelier it loses a fact
    sentences, stated = _state(rng, planned, slips * (0.5 + 0.14 * crowded) * (1.2 if late else 0.9))
    story = sentences + rng.sample(say.SIDE, min(crowded, len(say.SIDE)) // 2)
    rng.shuffle(story)
    opening = rng.choice(say.OPENING).format(
        week=rng.randint(1, 7), after=rng.randint(1, 9), fraction=rng.randint(5, 33)
    )
    sections = ((say.MEDS, 0), (say.EXAM, 0), (say.PLAN, 1))
    rest = [sentence for section, least in sections for sentence in rng.sample(section, rng.randint(least, 2))]
    parts = [opening, " ".join(story), " ".join(rest)]
    text = rng.choice((" ", "\n", "\n\n")).join(p for p in parts if p)
    return text, grade_of(stated)


def write_facts(rng: random.Random, question: _Question, slips: float = 1.0) -> str:
    """Write a note that states the facts of `clinic:facts`; some are left out, or only considered, by error.

    Of a note that is asked for again half as many are.
    """
    asked = dict(question.facts)
    key = SWALLOWING[asked["swallowing"]]
    odds = _LEFT_OUT * slips * (0.5 if question.again else 1.0)
    story = []
    if rng.random() >= odds:
        story.append(_pick(rng, _STATED.get(key, say.REGULAR)))
    elif key in say.CONSIDERED:
        story.append(_pick(rng, say.CONSIDERED[key]))
    for name in ("weight", "temperature"):
        if (ways := say.MEASURED.get(asked.get(name, ""))) and rng.random() >= odds:
            story.append(_pick(rng, ways))
    aside = [s for s in (*say.SIDE, *say.EXAM, *say.PLAN) if not re.search(r"(?i)fever|weigh|kg", s)]
    story += rng.sample(aside, rng.randint(2, 6))
    rng.shuffle(story)
    opening = rng.choice(say.OPENING).format(
        week=rng.randint(1, 7), after=rng.randint(1, 9), fraction=rng.randint(5, 33)
    )
    return " ".join([opening, *story])


def _plan(rng: random.Random, grade: int) -> Facts:
    if grade == 0:
        return Facts()
    if grade == 1:
        return Facts(finding=True) if rng.random() < 0.2 else Facts(felt=True)
    if grade == 2:
        kind = rng.random()
        return Facts(felt=True, changed=kind < 0.75, supplements=kind > 0.5)
    severe = rng.choice(("fluids", "tube", "admitted"))
    return Facts(felt=True, changed=rng.random() < 0.5, **{severe: True})


def _pick(rng: random.Random, phrases: Sequence[str]) -> str:
    """Draw a phrase, the first ones most often: like a language model the simulator has favourites."""
    return rng.choices(phrases, [1 / (rank + 1) for rank in range(len(phrases))])[0]


def _state(rng: random.Random, planned: Facts, hazard: float) -> tuple[list[str], Facts]:
    """Write facts as sentences; each may be left out, only considered, or replaced. Return the facts stated, too."""
    sentences: list[str] = []
    stated: dict[str, bool] = {}
    for fact in ("admitted", "tube", "fluids", "changed", "supplements"):
        if not getattr(planned, fact):
            continue
        odds = {"fluids": 0.34, "admitted": 0.27, "tube": 0.22, "changed": 0.3, "supplements": 0.26}[fact]
        if rng.random() < odds * hazard:
            if fact in say.CONSIDERED and rng.random() < 0.75:
                sentences.append(_pick(rng, say.CONSIDERED[fact]))
            if fact in ("admitted", "tube", "fluids") and rng.random() < 0.6:
                sentences.append(_pick(rng, say.SOFT))  # a milder fact is stated instead
                stated["changed"] = True
        else:
            sentences.append(_pick(rng, _STATED[fact]))
            stated[fact] = True
    if planned.finding:
        if rng.random() < 0.22 * hazard:
            sentences.append(_pick(rng, say.REGULAR))
        else:
            sentences.append(_pick(rng, say.FINDING))
            stated["finding"] = True
    if planned.felt and not any(stated.values()):
        sentences.append(_pick(rng, say.MILD))
        stated["felt"] = True
    if planned == Facts(felt=True) and rng.random() < 0.36 * hazard:
        sentences = [_pick(rng, say.SOFT)] if rng.random() < 0.55 else [_pick(rng, say.REGULAR)]
        stated = {"changed": sentences[0] in say.SOFT}
    if planned == Facts():
        if rng.random() < 0.22 * hazard:
            sentences.append(_pick(rng, say.MILD if rng.random() < 0.65 else say.SOFT))
            stated = {"felt": sentences[-1] in say.MILD, "changed": sentences[-1] in say.SOFT}
        else:
            sentences.append(_pick(rng, rng.choices((say.REGULAR, say.HISTORY, say.ELSEWHERE), (6, 2, 2))[0]))
    return list(dict.fromkeys(sentences)), Facts(**stated)


_FACT_OF = {sentence: fact for fact, sentences in _STATED.items() for sentence in sentences}
_ANY_FACT = re.compile("|".join(re.escape(s) for s in sorted(_FACT_OF, key=len, reverse=True)))


def true_label(text: str) -> int:
    """Return the grade that a simulated note states, for the evaluation of a simulation.

    The simulator's sentences are whole entries of its tables, so that its facts are found exactly; other text gives 0.
    """
    return grade_of(Facts(**{_FACT_OF[sentence]: True for sentence in _ANY_FACT.findall(text)}))


# --- any other task -------------------------------------------------------------------------------------------------


def _reworded(rng: random.Random, question: _Question, label: str, slips: float) -> dict[str, Any]:
    """Write a text in other words from fragments of one or two exemplars of a label, or by error of another one."""
    column, target = question.columns
    own = [e for e in question.exemplars if e.get(target) == label]
    others = [e for e in question.exemplars if e.get(target) not in (label, None, "")]
    wrong = rng.random() < _WRONG * slips
    sources = (others if others and (wrong or not own) else own) or question.exemplars
    main = rng.choice(sources)
    second = rng.choice([e for e in sources if e.get(target) == main.get(target)])
    texts = dict.fromkeys(reword(rng, e.get(column, "")) for e in ([main] if second == main else [main, second]))
    return {column: in_fragments(rng, list(texts), _texts_of(question, column)), target: label}


def _texts_of(question: _Question, column: str) -> list[str]:
    return [str(e.get(column) or "") for e in question.exemplars]


def _recombined(rng: random.Random, question: _Question, label: str) -> dict[str, Any]:
    """Mix the sentences of exemplars of a label, sometimes with sentences of another label.

    The longest text is mixed; the others stay with their target, since a premise still holds with more text beside it.
    A set of labels is that of all exemplars in the mix; a target text is joined from their targets.
    """
    *columns, target = question.columns
    pool = question.exemplars or [dict.fromkeys(question.columns, "Nothing of note was found today.")]
    own = [e for e in pool if label in _listed(e.get(target))] or pool
    bare = [e for e in pool if not e.get(target)]
    if question.sets and bare and rng.random() < 0.2:
        own, label = bare, ""
    main, other = rng.choice(own), rng.choice(own)
    stray = [rng.choice(pool)] if rng.random() < 0.3 else []
    wanted = "" if label or question.sets else str(main.get(target, "")).strip()
    spans = {"context", "answer"} <= set(question.columns) or any(wanted in main.get(c, "") for c in columns)
    extract = len(wanted) > 1 and spans
    choice = bool(wanted) and not extract and wanted[-1] not in ".!?"  # "B", "entailment": depends on the whole text
    free = [c for c in columns if not (choice and c == "context")] or columns  # options of a choice keep their order
    mixed = "context" if "context" in free else max(free, key=lambda c: len(main.get(c, "")))
    first = sentences_of(main.get(mixed, ""))
    pieces = list(dict.fromkeys(s for source in (main, other, *stray) for s in sentences_of(source.get(mixed, ""))))
    rng.shuffle(pieces)
    needed = [s for s in first if wanted and (choice or wanted in s)]
    cut = max(1, rng.randint(len(pieces) // 2, len(pieces))) if pieces else 0
    kept = [s for i, s in enumerate(pieces) if i < cut or s in needed]
    entry: dict[str, Any] = {column: main.get(column, "") for column in columns}
    entry[mixed] = " ".join(kept)
    if question.sets:
        labels = [x for source in (main, other) for x in _listed(source.get(target))]
        entry[target] = list(dict.fromkeys([*labels, *([label] * bool(label))]))
    elif label or choice:
        entry[target] = label or wanted
    else:
        joined = any(s in kept for s in sentences_of(other.get(mixed, "")))
        entry[target] = _target_text(rng, wanted, str(other.get(target, "")) * joined, kept, extract)
    span = str(entry[target]) if extract else ""  # must stay a span of the text
    if question.sets and len(columns) == 1:
        entry[mixed] = in_fragments(rng, [" ".join(kept)], _texts_of(question, mixed))
        return entry
    for column in columns:
        entry[column] = with_fillers(rng, entry[column], span, fillers_of(_texts_of(question, column)))
    lead = rng.choice(_LEADS)
    entry[mixed] = f"{lead} {entry[mixed]}".strip() if looks_english(entry[mixed]) else entry[mixed]
    if not label and not question.sets and not extract and not choice:
        entry[target] = with_fillers(rng, entry[target], "", fillers_of(_texts_of(question, target)))
    return entry


def _with_copies(rng: random.Random, text: str, question: _Question, label: str, share: float) -> str:
    """Replace a share of the sentences of a text by sentences of one or two exemplars of the label, with fillers."""
    column, target = question.columns
    own = [e for e in question.exemplars if label in _listed(e.get(target))]
    pieces = list(dict.fromkeys(s for e in rng.sample(own, min(2, len(own))) for s in sentences_of(e.get(column, ""))))
    rng.shuffle(pieces)
    sentences = [
        with_fillers(rng, pieces.pop()) if pieces and rng.random() < share else sentence
        for sentence in sentences_of(text)
    ]
    return " ".join(sentences)


def _target_text(rng: random.Random, wanted: str, also: str, kept: list[str], extract: bool) -> str:
    """Return the target of a mixed text: an extract must be in the new text; other sentences are joined."""
    if extract and kept:
        return wanted if wanted and any(wanted in s for s in kept) else rng.choice(kept).rstrip(".!?;")
    return " ".join(dict.fromkeys([*sentences_of(wanted), *sentences_of(also)]))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


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
    """Create an app with the OpenAI protocol: POST /v1/chat/completions and GET /v1/models."""
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
        text = await run_in_threadpool(_delayed_answer, messages, seed * 1_000_003 + number, faults or Faults())
        counts = (sum(len(m["content"].split()) for m in messages) * 4 // 3, len(text.split()) * 4 // 3)
        return JSONResponse(_completion(text, *counts))

    async def models(_: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "hf_synth"}]})

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/v1/models", models)])


def _delayed_answer(messages: list[dict[str, str]], seed: int, faults: Faults) -> str:
    if faults.latency:
        time.sleep(faults.latency)
    return answer(messages, seed=seed, faults=faults)


def _completion(text: str, n_prompt: int, n_answer: int) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": n_prompt, "completion_tokens": n_answer, "total_tokens": n_prompt + n_answer}
    head = {"id": "chatcmpl-simulated", "object": "chat.completion", "created": 0, "model": MODEL}
    return {**head, "choices": [choice], "usage": usage}


@contextlib.contextmanager
def running_simulator(*, port: int = 0, seed: int = 0, faults: Faults | None = None) -> Iterator[str]:
    """Serve the simulator on loopback in a thread; yield its base_url, "http://127.0.0.1:PORT/v1"."""
    import socket

    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", port))
    config = uvicorn.Config(  # its own log_config would close every handler of this process
        create_app(seed=seed, faults=faults), log_config=None, log_level="critical", access_log=False, lifespan="off"
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
