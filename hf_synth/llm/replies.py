"""Parsing of HTTP responses of chat endpoints: replies, failures, rate limits, log-probabilities."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Literal, Protocol

from hf_synth.llm.endpoints import MAX_BODY
from hf_synth.llm.journal import Entry
from hf_synth.llm.questions import Messages
from hf_synth.llm.thoughts import THINKING

_LONGEST_TEXT = 1_000_000  # characters of one answer
_MOST_TOKENS = 2_000_000  # of one prompt, or of one answer
_LOGPROBS = 16  # tokens whose alternatives are kept
# What failures of an endpoint mean, by kind and by code, and what to do.
CAUSES = {
    "page": "it answers with a web page: a login or a proxy stands before it, or base_url is wrong",
    "loading": "it is still loading its model: wait, then run again",
    "malformed": "its answer is not a chat completion: check base_url, which usually ends in /v1",
    "timeout": "raise --timeout (timeout=...), or lower --concurrency so that each answer comes sooner",
    "http_429": "it is overloaded and refuses requests: lower --concurrency, or give --rpm",
    "http_503": "it is overloaded, or still loading its model: wait, then run again",
    "http_402": "its credits are spent: top them up, then run again to go on",
    "http_405": "base_url's path takes no chat requests: it usually ends in /v1",
}
# Why there is no connection, by the code of a `LineError`, and what to do.
UNREACHED = {
    "unreachable": "nothing answers there; start the server or check base_url",
    "connect_timeout": "no connection came about in time: the host is down, or a firewall stands before it",
    "certificate": "this machine does not trust its certificate, or it is of another host; put the path of your "
    "organization's CA file into SSL_CERT_FILE, or check base_url",
    "no_tls": "it does not speak https there; check the port, or use its http address",
}
OUTAGES = (*UNREACHED, "connection", "timeout", "malformed", "http_429")  # and every http_5xx
# what servers say of a model that is not there yet, and of a prompt that a filter stopped
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
_LINE_END = re.compile(r"\r\n|\n|\r")  # of a stream of events; a text may hold other ones
_LOADING = re.compile(
    rb"(?i)\bloading (the )?model|\bis (currently |still )?(being )?load(ing|ed)\b|estimated_time|warming up|"
    rb"starting up|model.{0,40}not (yet )?ready|model_loading"
)
_MODERATED = re.compile(
    rb"(?i)content_filter|content_policy|content management policy|moderation|flagged|responsibleai|safety_|"
    rb"data_inspection_failed|prohibited_content"
)
_STREAM = (b"data:", b"event:", b":")  # how a body begins that is a stream of events
# Reasons of an end: what a filter stopped, and what was cut at the token limit, by any provider's name.
_REFUSALS = (
    "content_filter", "refusal", "safety", "prohibited_content", "blocklist", "recitation", "spii", "image_safety",
    "language", "sensitive", "guardrail_intervened", "content_filtered",
)  # fmt: skip
_CUTS = (
    "length",
    "max_tokens",
    "model_length",
    "max_length",
    "max_new_tokens",
    "limit",
    "model_context_window_exceeded",
)
_BROKEN = (
    "error",
    "abort",
    "aborted",
    "cancel",
    "cancelled",
    "canceled",
    "interrupted",
    "insufficient_system_resource",
)
_OVERLOADS = (  # words of an error that came with status 200, and the status that says the same
    (re.compile(r"rate.?limit|too many requests", re.IGNORECASE), 429),
    (re.compile(r"overloaded|unavailable|at capacity|try again", re.IGNORECASE), 503),
)
_AMOUNT = re.compile(r"\d{1,12}(\.\d{1,6})?")
_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")

FailureKind = Literal["", "refusal", "loading", "page"]


def why_unreached(code: str, where: str) -> str:
    """Return why there is no connection to a host, and what to do."""
    proxy = any(os.environ.get(name) for name in _PROXIES) and not where.startswith(("127.", "localhost", "[::1]"))
    direct = "; an LLM is asked directly, never through the proxy that the environment names"
    return UNREACHED[code] + (direct if proxy and code in ("unreachable", "connect_timeout") else "")


def advice_on(name: str) -> str:
    """Return what a failure means and what to do, by its kind or code; "" where there is nothing to say."""
    if name in CAUSES or not name.startswith(("http_4", "http_5")):
        return CAUSES.get(name, "")
    long = name in ("http_400", "http_413", "http_422")
    more = "; one cause is a prompt longer than what its model reads" if long else ""
    return f"the server's own log says why{more}"


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
    sent: str = ""  # what was sent otherwise than was asked for, as JSON
    fingerprint: str = ""  # what the server says of its build or weights

    def entry(self, key: str, cost: float | None) -> Entry:
        """Return the reply to a question as a journal entry of this moment."""
        facts: dict[str, Any] = {
            "prompt_tokens": self.prompt_tokens or 0,
            "completion_tokens": self.completion_tokens or 0,
        }
        facts |= {"cost": cost, "model": self.model, "created": time.time()}
        return Entry(key, self.text, self.status, self.code, **facts, logprobs=self.logprobs, sent=self.sent)


@dataclass(frozen=True)
class Failure:
    """Why there is no answer.

    Args:
        code: a key of `UNREACHED`, "connection", "timeout", "malformed", "too_large", "budget" or "http_<status>".
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
        return self.code in ("http_429", "http_503", "http_529", "timeout", "connect_timeout")

    @property
    def outage(self) -> bool:
        """Whether the failure is the endpoint's, not the question's."""
        return self.code in OUTAGES or self.code.startswith("http_5")


class Asker(Protocol):
    """What sends the questions of a `Run`; it belongs to the event loop of the run."""

    async def ask(self, key: str, messages: Messages, schema: Mapping[str, Any] | None) -> Reply | Failure:
        """Send one question; never raise for a fault of the endpoint."""

    def halt(self) -> None:
        """Send nothing more; what is under way is answered."""

    async def close(self) -> None:
        """Close every connection."""


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
        data = _assemble_stream(body) if body.lstrip().startswith(_STREAM) else json.loads(body)
        if not data.get("choices") and (data.get("promptFeedback") or data.get("prompt_feedback") or {}).get(
            "blockReason"
        ):
            return Failure("blocked", kind="refusal")  # Gemini: the prompt was blocked
        if status_code := _status_within(data):
            return Failure(f"http_{status_code}", again=status_code in (408, 409, 429) or status_code >= 500)
        choice = data["choices"][0]
        message, finish = choice["message"], str(choice.get("finish_reason") or "stop")
        if finish.lower() in _BROKEN:  # at a gateway, or since the server was stopped
            return Failure("malformed", again=True)
        usage = data.get("usage")
        usage = usage if isinstance(usage, Mapping) else {}
        refused = message.get("refusal") or _is_refused(message.get("content"))
        counts = [usage.get(n) for n in ("prompt_tokens", "completion_tokens")]
        text, thoughts = _text_of(message)
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
    status = "refusal" if refused or finish.lower() in _REFUSALS else "truncated" if finish.lower() in _CUTS else "ok"
    code = THINKING if thoughts and not text.strip() and status != "refusal" else finish[:40]
    # a server that does not count says 0; no model reads or writes more than the most at once
    zeros = (False, not text)
    tokens = [
        int(c) if isinstance(c, int | float) and (0 < c <= _MOST_TOKENS or (c == 0 and zero)) else None
        for c, zero in zip(counts, zeros, strict=True)
    ]
    reply = Reply(text, status, code, tokens[0], tokens[1], served_by[:200])
    return replace(reply, logprobs=logprobs, fingerprint=fingerprint[:200])


def _status_within(data: Mapping[str, Any]) -> int | None:
    """Return the HTTP status of an error that a gateway sent with status 200; None where there is none."""
    error = data.get("error")
    places = [error] if isinstance(error, Mapping) else []
    places += [] if data.get("choices") else [data]
    for place in places:
        for code in (place.get("code"), place.get("status"), place.get("status_code")):
            if re.fullmatch("[45][0-9]{2}", str(code)):
                return int(str(code))
    said = " ".join(map(str, error.values())) if isinstance(error, Mapping) else str(error or "")
    found = (status for words, status in _OVERLOADS if words.search(said))
    return None if data.get("choices") else next(found, None)


def _text_of(message: Mapping[str, Any]) -> tuple[str, bool]:
    """Return what a message says, without parts that are thoughts, and whether it has thoughts in fields of their own.

    Raises:
        TypeError: it is of no known form.
    """
    content = message.get("content")
    thoughts = any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking", "reasoning_details"))
    if isinstance(content, list):
        parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
        texts = [_plain(part.get("text")) for part in parts if _is_text(part)]
        return "".join(texts), thoughts or len(texts) < len(parts)
    if isinstance(content, Mapping):  # JSON that a gateway has read already
        return str(content["text"]) if isinstance(content.get("text"), str) else json.dumps(content), thoughts
    if not content and (calls := message.get("tool_calls")):  # the answer as the arguments of a function
        arguments = calls[0]["function"]["arguments"]
        content = arguments if isinstance(arguments, str) else json.dumps(arguments)
    if not isinstance(content or "", str):
        raise TypeError
    return content or "", thoughts


def _plain(text: Any) -> str:
    """Return the text of a part, which may lie one level deeper."""
    return str((text.get("value") if isinstance(text, Mapping) else text) or "")


def _is_refused(content: Any) -> bool:
    """Check whether a message has parts, and none but refusals among them."""
    parts = content if isinstance(content, list) else []
    return bool(parts) and all(isinstance(part, Mapping) and part.get("type") == "refusal" for part in parts)


def _is_text(part: Mapping[str, Any]) -> bool:
    """Check that a part of a message is text for the reader: no thought, picture or call."""
    return str(part.get("type") or "text") in ("text", "output_text") and not part.get("thought")


def _assemble_stream(body: bytes) -> dict[str, Any]:
    """Assemble a reply that was streamed although no stream was asked for."""
    text = refusal = arguments = ""
    thoughts, finish, ended, answered = False, None, False, False
    whole: dict[str, Any] = {}
    for line in _LINE_END.split(body.decode("utf-8", "replace")):
        said = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        ended = ended or said == "[DONE]"
        if not said or said == "[DONE]":
            continue
        whole |= (chunk := json.loads(said))
        if chunk.get("error"):
            raise ValueError("the stream broke off")
        for choice in (one for one in chunk.get("choices") or [] if not one.get("index")):
            answered = True
            if choice.get("message"):  # the whole of it
                text, arguments, delta = "", "", choice["message"]
            else:
                delta = choice.get("delta") or {}
            for call in delta.get("tool_calls") or ():
                arguments += str((call.get("function") or {}).get("arguments") or "")
            part, thought = _text_of({name: value for name, value in delta.items() if name != "tool_calls"})
            text, thoughts, refusal = text + part, thoughts or thought, refusal + str(delta.get("refusal") or "")
            finish = choice.get("finish_reason") or finish
    if not answered:
        raise ValueError("the stream holds no answer")
    message = {"content": text or arguments, "refusal": refusal, "reasoning_content": thoughts}
    finish = finish or ("stop" if ended else "length")  # without an end the stream was cut
    return whole | {"choices": [{"message": message, "finish_reason": finish}]}


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
