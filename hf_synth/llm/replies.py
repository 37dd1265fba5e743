"""What comes back from a chat endpoint: a reply, or a failure and what may be done about it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from hf_synth.llm.endpoints import MAX_BODY

_LONGEST_TEXT = 1_000_000  # characters of one answer
_LOGPROBS = 16  # tokens whose alternatives are kept
OUTAGES = ("unreachable", "connection", "timeout", "malformed", "http_429")  # and every http_5xx


@dataclass(frozen=True)
class Limit:
    """What is left of a quota, as `x-ratelimit-*` headers say it.

    Args:
        requests: whether it counts requests; else tokens.
        remaining: what is left.
        reset: seconds until it is whole again.
        most: the whole; None where that is not said.
    """

    requests: bool
    remaining: float
    reset: float
    most: float | None = None


@dataclass(frozen=True)
class Reply:
    """What the endpoint answered; tokens are None where it does not count them."""

    text: str
    status: str
    code: str
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str
    limits: tuple[Limit, ...] = ()
    logprobs: str = ""


@dataclass(frozen=True)
class Failure:
    """Why there is no answer.

    Args:
        code: "unreachable", "connection", "timeout", "malformed", "too_large", "budget" or "http_<status>".
        again: whether asking again may help.
        after: seconds the endpoint wants to be left alone.
        fatal: a sentence, when no other question can be answered either.
        limits: what is left of its quotas.
    """

    code: str
    again: bool = False
    after: float | None = None
    fatal: str | None = None
    limits: tuple[Limit, ...] = ()

    @property
    def overload(self) -> bool:
        """Whether the endpoint has too much to do."""
        return self.code in ("http_429", "http_503", "http_529", "timeout")

    @property
    def outage(self) -> bool:
        """Whether the endpoint failed, and not the question."""
        return self.code in OUTAGES or self.code.startswith("http_5")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After in its three forms: milliseconds, seconds, a date."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif (said := headers.get("retry-after")) is None:
            return None
        elif said.replace(".", "", 1).strip().isdigit():
            seconds = float(said)
        else:
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if seconds == seconds else None


_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,6})?")
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def read_limits(headers: Mapping[str, str]) -> tuple[Limit, ...]:
    """Read `x-ratelimit-remaining-*` and `x-ratelimit-reset-*` of requests and tokens; what is strange is left out."""
    found = []
    for name in ("requests", "tokens"):
        remaining, reset, most = (
            headers.get(f"x-ratelimit-{what}-{name}", "").strip() for what in ("remaining", "reset", "limit")
        )
        seconds = _seconds(reset[:40])
        if seconds is not None and _AMOUNT.fullmatch(remaining):
            whole = float(most) if _AMOUNT.fullmatch(most) else None
            found.append(Limit(name == "requests", float(remaining), seconds, whole))
    return tuple(found)


def _seconds(span: str) -> float | None:
    """Read a span such as "1s", "6m0s", "20ms" or "1.5"; a moment since 1970 counts from now."""
    if re.fullmatch(r"\d{1,13}(\.\d{1,9})?", span):
        return float(span) if float(span) < 1e9 else max(0.0, float(span) - time.time())
    parts = _SPAN.fullmatch(span) if span else None
    if parts is None or not any(parts.groups()):
        return None
    return sum(float(p or 0) * f for p, f in zip(parts.groups(), (86_400, 3_600, 60, 1, 0.001), strict=True))


def error_code(body: bytes) -> str | None:
    """Read the code of an error, which is one of the protocol's own words; its message is left alone."""
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return code if isinstance(code, str) else None


def read_reply(body: bytes, model: str) -> Reply | Failure:
    """Read the body of a 200: an answer, or something that is none."""
    if len(body) > MAX_BODY:
        return Failure("too_large")
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        message, finish = choice["message"], str(choice.get("finish_reason") or "stop")
        usage = data.get("usage") or {}
        text, refused = message.get("content") or "", message.get("refusal")
        counts = [usage.get(n) for n in ("prompt_tokens", "completion_tokens")]
        if not isinstance(text, str):  # a list of parts
            text = "".join(part.get("text") or "" for part in text)
        said_by = str(data.get("model") or model)
        logprobs = read_logprobs(choice.get("logprobs"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return Failure("malformed", again=True)
    if len(text) > _LONGEST_TEXT:
        return Failure("too_large")
    # a lone surrogate is no text
    text, said_by, finish = (s.encode("utf-8", "replace").decode() for s in (text, said_by, finish))
    status = "refusal" if refused or finish == "content_filter" else "truncated" if finish == "length" else "ok"
    tokens = [int(c) if isinstance(c, int | float) and 0 <= c < 1e9 else None for c in counts]
    return Reply(text, status, finish[:40], tokens[0], tokens[1], said_by[:200], logprobs=logprobs)


def read_logprobs(told: Any) -> str:
    """Read the log-probabilities of an answer's first tokens: JSON of [token, [[alternative, log-probability], ...]].

    Returns:
        "" where there are none, or what is there has another form.
    """
    try:
        found = [
            [str(one["token"]), [[str(o["token"]), round(float(o["logprob"]), 6)] for o in one["top_logprobs"]]]
            for one in told["content"][:_LOGPROBS]
        ]
        return json.dumps(found, allow_nan=False) if found else ""  # as ASCII: a part of a character is no text
    except (KeyError, TypeError, ValueError):
        return ""
