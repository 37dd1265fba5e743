"""What comes back from a chat endpoint: a reply, or a failure and what may be done about it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from hf_synth.endpoints import MAX_BODY

_LONGEST_TEXT = 1_000_000  # characters of one answer
OUTAGES = ("unreachable", "connection", "timeout", "malformed", "http_429")  # and every http_5xx


@dataclass(frozen=True)
class Reply:
    """What the endpoint answered; tokens are None where it does not count them."""

    text: str
    status: str
    code: str
    prompt_tokens: int | None
    completion_tokens: int | None
    model: str


@dataclass(frozen=True)
class Failure:
    """Why there is no answer.

    Args:
        code: "unreachable", "connection", "timeout", "malformed", "too_large", "budget" or "http_<status>".
        again: whether asking again may help.
        after: seconds the endpoint wants to be left alone.
        fatal: a sentence, when no other question can be answered either.
    """

    code: str
    again: bool = False
    after: float | None = None
    fatal: str | None = None

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
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return Failure("malformed", again=True)
    if len(text) > _LONGEST_TEXT:
        return Failure("too_large")
    text, said_by = (s.encode("utf-8", "replace").decode() for s in (text, said_by))  # a lone surrogate is no text
    status = "refusal" if refused or finish == "content_filter" else "truncated" if finish == "length" else "ok"
    tokens = [int(c) if isinstance(c, int | float) and 0 <= c < 1e9 else None for c in counts]
    return Reply(text, status, finish[:40], tokens[0], tokens[1], said_by[:200])
