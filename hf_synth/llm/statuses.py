"""What an HTTP status other than success means, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_synth.llm.endpoints import Origin
from hf_synth.llm.providers import Provider, next_step
from hf_synth.llm.refused import names_model, own_words
from hf_synth.llm.replies import Failure, failure_kind, read_limits, retry_after

_SPENT = {b"insufficient_quota", b"insufficient_user_quota", b"billing_hard_limit_reached"}  # codes or types of a 429


def read_failure(
    where: Origin, provider: Provider, status: int, headers: Mapping[str, str], body: bytes, sent: Mapping[str, Any]
) -> Failure:
    """Classify a status; what of the endpoint's message repeats the prompt is not read.

    Args:
        sent: the request.
    """
    messages = {
        402: f"the credits at {where} are spent (402); top them up, then run again to go on: every answer is kept",
        401: f"{where} refuses the key (401); {next_step(provider)}",
        403: f"{where} does not allow this (403); check the key's rights and the model",
        404: f"{where} does not know model {sent.get('model')!r} or base_url's path ({status})"
        + ("" if where.path else "; it usually ends in /v1"),
    }
    said = own_words(body, sent)
    kind = failure_kind(status, said)
    fatal = messages.get(404 if names_model(status, body) else status) if not kind else None
    if 300 <= status < 400:
        fatal = f"{where} redirects elsewhere ({status}), which is not followed; check base_url"
    if status == 429 and _SPENT & set(said.split(b"\n")):
        fatal = f"{where} says that the account's quota is spent (429); raise it or use another key"
    again = status in (408, 409, 429) or status >= 500
    return Failure(f"http_{status}", again, retry_after(headers), fatal, read_limits(headers), kind)
