"""Parsing of HTTP responses of chat endpoints: replies, failures, rate limits, log-probabilities."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from hf_synth.llm.endpoints import MAX_BODY
from hf_synth.llm.journal import Entry

_LONGEST_TEXT = 1_000_000  # characters of one answer
_LOGPROBS = 16  # tokens whose alternatives are kept
OUTAGES = ("unreachable", "connection", "timeout", "malformed", "http_429")  # and every http_5xx
# what servers say of a model that is not there yet, and of a prompt that a filter stopped
_LOADING = re.compile(
    rb"(?i)\bloading (the )?model|\bis (currently |still )?(being )?load(ing|ed)\b|estimated_time|warming up|"
    rb"starting up|model.{0,40}not (yet )?ready|model_loading"
)
_MODERATED = re.compile(
    rb"(?i)content_filter|content_policy|content management policy|moderation|flagged|responsibleai|safety_|"
    rb"data_inspection_failed|prohibited_content"
)
_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,6})?")
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")

FailureKind = Literal["", "refusal", "loading", "page"]


@dataclass(frozen=True)
class Limit:
    """The state of a quota from `x-ratelimit-*` headers.

    Args:
        requests: whether it counts requests; else tokens.
        remaining: the rest of the quota.
        reset: seconds until the quota is full again.
        most: the full quota; None where the header is missing.
    """

    requests: bool
    remaining: float
    reset: float
    most: float | None = None


@dataclass(frozen=True)
class Reply:
    """The answer of an endpoint; tokens are None where it does not count them."""

    text: str
    status: str
    code: str
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str
    limits: tuple[Limit, ...] = ()
    logprobs: str = ""
    fingerprint: str = ""  # what the server says of its build or weights

    def entry(self, key: str, cost: float | None) -> Entry:
        """Return the reply to a question as a journal entry of this moment."""
        read, written = self.prompt_tokens or 0, self.completion_tokens or 0
        return Entry(
            key, self.text, self.status, self.code, read, written, cost, self.model, time.time(), self.logprobs
        )


@dataclass(frozen=True)
class Failure:
    """Why there is no answer.

    Args:
        code: "unreachable", "connection", "timeout", "malformed", "too_large", "budget" or "http_<status>".
        again: whether a retry may help.
        after: seconds to wait before the next request (Retry-After).
        fatal: an error message, when no other question can be answered either.
        limits: the state of its quotas.
        kind: what the code alone does not say. "refusal": the endpoint declined this prompt (moderation, a content
            filter), which is kept as a refusal. "loading": the server is loading its model, which is waited for.
            "page": it answered with a web page. "" for all else.
    """

    code: str
    again: bool = False
    after: float | None = None
    fatal: str | None = None
    limits: tuple[Limit, ...] = ()
    kind: FailureKind = ""

    @property
    def overload(self) -> bool:
        """Whether the endpoint is overloaded."""
        return self.code in ("http_429", "http_503", "http_529", "timeout")

    @property
    def outage(self) -> bool:
        """Whether the failure is the endpoint's, not the question's."""
        return self.code in OUTAGES or self.code.startswith("http_5")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read Retry-After in its three forms: milliseconds, seconds, a date."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif (value := headers.get("retry-after")) is None:
            return None
        elif value.replace(".", "", 1).strip().isdigit():
            seconds = float(value)
        else:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, seconds) if seconds == seconds else None


def read_limits(headers: Mapping[str, str]) -> tuple[Limit, ...]:
    """Read the `x-ratelimit-*` headers of requests and tokens; malformed ones are left out."""
    limits = []
    for name in ("requests", "tokens"):
        remaining, reset, most = (
            headers.get(f"x-ratelimit-{what}-{name}", "").strip() for what in ("remaining", "reset", "limit")
        )
        seconds = _seconds(reset[:40])
        if seconds is not None and _AMOUNT.fullmatch(remaining):
            whole = float(most) if _AMOUNT.fullmatch(most) else None
            limits.append(Limit(name == "requests", float(remaining), seconds, whole))
    return tuple(limits)


def _seconds(span: str) -> float | None:
    """Read a duration such as "1s", "6m0s", "20ms" or "1.5"; a Unix time is taken relative to now."""
    if re.fullmatch(r"\d{1,13}(\.\d{1,9})?", span):
        return float(span) if float(span) < 1e9 else max(0.0, float(span) - time.time())
    parts = _SPAN.fullmatch(span) if span else None
    if parts is None or not any(parts.groups()):
        return None
    return sum(float(p or 0) * f for p, f in zip(parts.groups(), (86_400, 3_600, 60, 1, 0.001), strict=True))


def error_code(body: bytes) -> str | None:
    """Read the code of an error, a word of the protocol; its message, which may quote the prompt, is not read."""
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return code if isinstance(code, str) else None


def failure_kind(status: int, body: bytes) -> FailureKind:
    """Classify a refused request by the words of its body, none of which is kept."""
    if body.lstrip()[:1] == b"<" and status < 500:
        return "page"
    if status in (500, 502, 503) and _LOADING.search(body):
        return "loading"
    return "refusal" if status in (400, 403, 422, 451) and _MODERATED.search(body) else ""


def read_reply(body: bytes, model: str) -> Reply | Failure:
    """Read the body of a successful response; a malformed or too large one is a failure."""
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
        served_by = str(data.get("model") or model)
        logprobs = read_logprobs(choice.get("logprobs"))
        fingerprint = str(data.get("system_fingerprint") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        page = body.lstrip()[:1] == b"<"
        return Failure("malformed", again=True, kind="page" if page else "")
    if len(text) > _LONGEST_TEXT:
        return Failure("too_large")
    # lone surrogates are not valid text
    text, served_by, finish, fingerprint = (
        s.encode("utf-8", "replace").decode() for s in (text, served_by, finish, fingerprint)
    )
    status = "refusal" if refused or finish == "content_filter" else "truncated" if finish == "length" else "ok"
    tokens = [int(c) if isinstance(c, int | float) and 0 <= c < 1e9 else None for c in counts]
    reply = Reply(text, status, finish[:40], tokens[0], tokens[1], served_by[:200])
    return replace(reply, logprobs=logprobs, fingerprint=fingerprint[:200])


def read_logprobs(logprobs: Any) -> str:
    """Read the log-probabilities of an answer's first tokens: JSON of [token, [[alternative, log-probability], ...]].

    Returns:
        "" where there are none, or where they have another form.
    """
    try:
        tokens = [
            [str(one["token"]), [[str(o["token"]), round(float(o["logprob"]), 6)] for o in one["top_logprobs"]]]
            for one in logprobs["content"][:_LOGPROBS]
        ]
        return json.dumps(tokens, allow_nan=False) if tokens else ""  # as ASCII: a token may be a part of a character
    except (KeyError, TypeError, ValueError):
        return ""
