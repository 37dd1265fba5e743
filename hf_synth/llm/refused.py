"""What an endpoint refuses in a request, read from its own error.

`read_refused` turns the body of an error into rules for the next request: leave a field out, write it under another
name, keep a number within bounds, ask for another structure of the answer, put the system message into the user's.
Providers write such errors in many forms: a `param`, pydantic's list of places, a sentence, a body inside a body.

A message may repeat the prompt, and notes speak of temperatures. Only names of fields that were sent are taken from it,
nothing after the first words of the prompt is read, and no part of it is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# By the name of a field: None leaves it out, a text is its name at this endpoint, {"most": x} and {"least": x} are
# bounds. "response_format" is "strict", "json_object" or None; "system" is "user".
Rules = Mapping[str, Any]

STRUCTURE, SYSTEM = "response_format", "system"
LIMITS = ("max_tokens", "max_completion_tokens")  # two names of the same limit
_STATUSES = (400, 403, 404, 405, 415, 422, 500, 501)
_LONGEST = 4_000  # characters of a message that are read
_NAME_KEYS = ("param", "parameter", "field", "property", "loc", "name")
_TEXT_KEYS = ("message", "msg", "detail", "error", "raw", "description", "reason", "error_msg", "title", "type", "code")
_ALIASES = {
    "maxoutputtokens": "max_tokens", "maxnewtokens": "max_tokens", "numpredict": "max_tokens", "topk": "top_k",
    "topp": "top_p", "toplogprobs": "top_logprobs", "responselogprobs": "logprobs", "jsonschema": STRUCTURE,
    "responsemimetype": STRUCTURE, "responseschema": STRUCTURE, "responsejsonschema": STRUCTURE,
    "guidedjson": STRUCTURE, "outputformat": STRUCTURE, "outputconfig": STRUCTURE, "structuredoutputs": STRUCTURE,
    "grammar": STRUCTURE, "format": STRUCTURE,
}  # fmt: skip
_CONTEXT = re.compile(
    r"context.?length|context.?window|maximum context|prompt is too long|input is too long|reduce the length|"
    r"input tokens?\b.{0,40}exceed|exceeds? .{0,40}\binput tokens?",
    re.IGNORECASE,
)
_AT_MOST_TOKENS = re.compile(
    r"(?:at most|maximum of|limit of|up to|\d >) (\d+)(?: (?:completion|output) tokens|, which is the maximum)",
    re.IGNORECASE,
)
_REFUSES = (
    r"(?:not (?:be )?(?:\w+ )?(?:supported|permitted|allowed|available|enabled|compatible|valid|implemented)|"
    r"unsupported|not recogni[sz]ed|unrecogni[sz]ed|unknown|unexpected|n[o'’]t support|deprecated|"
    r"not support|extra inputs?|extra_forbidden|forbidden|only the default|cannot (?:both )?be|can't be|"
    r"must (?:not )?be|should be|invalid|unavailable|disallowed|out of range|no such|required for|failed to parse|"
    r"too (?:large|small|high|low)|exceeds?|greater than|less than|request logprobs|cannot find field)"
)
_CHOICES = re.compile(
    r"(?i)expected one of|(?<![a-z])supported (?:parameters|fields|values)|valid (?:parameters|fields)|allowed:"
)
_BOTH = re.compile(
    r"\bboth\b|only one|one of (?:them|the two)|not .{0,20}together|mutually exclusive|either .{0,40}\bor\b",
    re.IGNORECASE,
)
_MOST = re.compile(
    r"(?:less than or equal to|at most|max(?:imum)?(?: value)?(?: allowed)?(?: is| of|:)?|<=|≤|"
    r"(?:greater|more|higher) than|exceeds?|up to)\s*(\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
_LEAST = re.compile(
    r"(?:greater than or equal to|at least|min(?:imum)?(?: value)?(?: is| of|:)?|>=|≥|less than)\s*(\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
_RANGE = re.compile(
    r"(?:between|range(?: of| is)?:?|in|from)\s*[\[(]?(\d+(?:\.\d+)?)\s*(?:and|to|,|-|\.\.\.?)\s*(\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
_SYSTEM_REFUSED = re.compile(
    r"system[ _'\"`]*(?:role|message|prompt|instruction)s?\b.{0,60}?(?:not|n't|un)[ \w]{0,12}(?:support|allow|enabl|"
    r"permit|accept)|(?:not|n't) support\b.{0,40}\bsystem\b|roles? must alternate|must alternate between|"
    r"developer instruction is not enabled|\brole\b.{0,60}\bsystem\b.{0,40}(?:not|invalid|unsupported)|"
    r"(?:unknown|invalid|unsupported|unexpected)\b.{0,30}\brole\b.{0,30}\bsystem|"
    r"only .?user.?,? (?:and|or) .?(?:assistant|model).? roles?|first message must .{0,30}\buser\b",
    re.IGNORECASE,
)
_NO_ROUTE = re.compile(
    r"(?:handle|support)\w* (?:all )?(?:of )?(?:the )?requested parameters|no endpoints? found that support",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"\b[a-z]+(?:[A-Z][a-z]+)+\b")


def read_refused(status: int, body: bytes, sent: Mapping[str, Any]) -> dict[str, Any]:
    """Read which fields of a request an endpoint refuses.

    Args:
        sent: the body of the request.

    Returns:
        Rules for the next request; none where the error is about something else, or does not say.
    """
    if status not in _STATUSES:
        return {}
    try:
        data = json.loads(body[: 16 * _LONGEST])
    except (ValueError, RecursionError):
        data = body[:_LONGEST].decode("utf-8", "replace")
    pairs = [(names, _unquoted(text, sent)) for names, text in _parts(data, 0)]
    said = "\n".join(dict.fromkeys(text for _, text in pairs))[:_LONGEST]
    if most := _AT_MOST_TOKENS.search(said):
        return {name: {"most": int(most[1])} for name in LIMITS if _number(sent, name) > int(most[1])}
    if _CONTEXT.search(said):
        return {}
    if status == 404 and not _NO_ROUTE.search(said):
        return {}
    system = any(message.get("role") == "system" for message in sent.get("messages", ()))
    if system and (found := _SYSTEM_REFUSED.search(said)) and not _is_quoted(found[0], sent):
        return {SYSTEM: "user"}
    rules: dict[str, Any] = {}
    for names, text in pairs:
        for name in names:
            if (field := _field(name, sent)) is not None and re.search(_REFUSES + "|missing|unsupp|valid", text, re.I):
                rules |= _rule(field, text, sent)
    rules = rules or _read_sentence(said, sent)
    unnamed = status in (404, 415, 501) or _NO_ROUTE.search(said)
    if not rules and unnamed and STRUCTURE in sent and status != 403:
        return {STRUCTURE: None}
    return rules


def names_model(status: int, body: bytes) -> bool:
    """Check whether an error is about the name of the model: some servers say so with 400 in the place of 404."""
    if status not in (400, 422):
        return False
    try:
        error = json.loads(body)["error"]
        return error.get("param") == "model" or error.get("code") in ("model_not_found", "invalid_model")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _parts(value: Any, depth: int) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (names of fields, text) of each part of an error's body."""
    if depth > 6:
        return
    if isinstance(value, str):
        if value.lstrip()[:1] in ("{", "["):  # a body inside a body
            try:
                yield from _parts(json.loads(value), depth + 1)
                return
            except (ValueError, RecursionError):
                pass
        yield (), value[:_LONGEST]
    elif isinstance(value, list):
        for item in value[:50]:
            yield from _parts(item, depth + 1)
    elif isinstance(value, Mapping):
        names: list[str] = []
        for key in _NAME_KEYS:
            places = value.get(key)
            names += [str(place) for place in (places if isinstance(places, list) else [places]) if place is not None]
        texts = [str(value[key]) for key in _TEXT_KEYS if isinstance(value.get(key), str)]
        if names and texts:
            yield tuple(names), " ".join(texts)[:_LONGEST]
        for key, item in value.items():
            if isinstance(item, Mapping | list) or (key in _TEXT_KEYS and isinstance(item, str)):
                yield from _parts(item, depth + 1)


def own_words(body: bytes, sent: Mapping[str, Any]) -> bytes:
    """Return what the body of an error says by itself: its names and texts, each cut where it repeats the prompt."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = body.decode("utf-8", "replace")
    return "\n".join(_cut(text, sent) for text in _texts(data, 0)).encode("utf-8", "replace")


def _texts(value: Any, depth: int) -> Iterator[str]:
    """Yield every name and text of a body."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list) and depth < 12:
        for item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield str(item[0])
            yield from _texts(item[1], depth + 1)


def _unquoted(text: str, sent: Mapping[str, Any]) -> str:
    """Cut a message where it begins to repeat the prompt, and write names of fields as they were sent."""
    return _CAMEL.sub(lambda name: _field(name[0], sent) or name[0], _cut(text, sent))


def _cut(text: str, sent: Mapping[str, Any]) -> str:
    for message in sent.get("messages", ()):
        for line in str(message.get("content", "")).splitlines():
            line = line.strip()
            if len(line) >= 12 and (place := text.find(line[:40])) >= 0:
                text = text[:place]
    return text


def _is_quoted(said: str, sent: Mapping[str, Any]) -> bool:
    """Check whether words of a message are words of the prompt."""
    return any(said.lower() in str(message.get("content", "")).lower() for message in sent.get("messages", ()))


def _field(name: str, sent: Mapping[str, Any]) -> str | None:
    """Return the field of a request that a name in an error means."""
    for part in re.split(r"[.\[\]/]", name):
        if part in sent and part not in ("model", "messages"):
            return part
        plain = re.sub(r"[\W_]", "", part).lower()
        for field in sent:
            if plain and plain == field.replace("_", "") and field not in ("model", "messages"):
                return str(field)
        alias = _ALIASES.get(plain)
        if alias == "max_tokens":
            alias = next((limit for limit in LIMITS if limit in sent), None)
        if alias in sent:
            return alias
    return None


def _read_sentence(said: str, sent: Mapping[str, Any]) -> dict[str, Any]:
    """Read a sentence that names what it refuses."""
    said = re.split(_CHOICES, said, maxsplit=1)[0]
    fields = [name for name in sent if name not in ("model", "messages")]
    found = [name for name in fields if re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", said)]
    if len(found) > 1 and _BOTH.search(said):
        return {"top_p" if "top_p" in found else found[-1]: None}
    aliases = "|".join(re.escape(a) for a in ("json_schema", "structured output", "guided_json", "grammar", "format"))
    places: list[tuple[int, str, str]] = []
    for name in fields:
        word = rf"(?:{re.escape(name)}\b" + (rf"|{aliases}" if name == STRUCTURE else "") + ")"
        for pattern in (
            rf"{_REFUSES}\b[^.\n]{{0,60}}?(?<![\w.]){word}",
            rf"(?<![\w]){word}[^.\n]{{0,100}}?{_REFUSES}",
        ):
            if (match := re.search(pattern, said, re.IGNORECASE)) and not _is_quoted(match[0], sent):
                places.append((match.start(), name, said[match.start() :]))
                break
    listed = re.search(
        r"(?i)(?:parameters|fields|keys)(?: in the request)?:?\s*[\[{]([^\]}]{1,300})[\]}]", said
    )  # LiteLLM lists them all
    if listed and (named := [name for name in fields if re.search(rf"\b{re.escape(name)}\b", listed[1])]):
        return dict.fromkeys(named)
    if not places:
        return {}
    _, name, text = min(places, key=lambda place: place[0])
    return _rule(name, text, sent)


def _rule(name: str, text: str, sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rule for a refused field: bounds or another name where the error states them, else to leave it out."""
    if name == STRUCTURE:
        return {STRUCTURE: _structure(text, sent[STRUCTURE])}
    if name in LIMITS:
        other = LIMITS[name == LIMITS[0]]
        bound = _bounds(name, text, sent)
        return {name: bound or (other if other not in sent else None)}
    if name == "logprobs":
        return {"logprobs": None, "top_logprobs": None}
    return {name: _bounds(name, text, sent)}


def _structure(text: str, asked: Mapping[str, Any]) -> str | None:
    """Return the structure of answers to ask for next."""
    if asked.get("type") != "json_schema":
        return None
    if "strict" in text and re.search(r"(?i)missing|required|must be (?:set to )?true", text):
        return None if asked["json_schema"].get("strict") else "strict"
    return "json_object" if "json_object" in text and "json_schema" not in text.split("json_object")[0][-40:] else None


def _bounds(name: str, text: str, sent: Mapping[str, Any]) -> dict[str, float] | None:
    """Read the bounds of a number that lies outside of them."""
    value = _number(sent, name)
    if value != value or "only the default" in text.lower():
        return None
    ranges = [(float(low), float(high)) for low, high in _RANGE.findall(text)]
    most = [high for _, high in ranges] + [float(x) for x in _MOST.findall(text)]
    least = [low for low, _ in ranges] + [float(x) for x in _LEAST.findall(text)]
    for bound in most:
        if 0 < bound < value:
            return {"most": int(bound) if bound.is_integer() else bound}
    for bound in least:
        if bound > value:
            return {"least": int(bound) if bound.is_integer() else bound}
    return None


def _number(sent: Mapping[str, Any], name: str) -> float:
    value = sent.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
