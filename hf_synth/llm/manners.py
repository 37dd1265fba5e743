"""What an endpoint takes of a request: known of its provider, learnt from its refusals, and remembered.

The sampling that a question asks for is a part of its key in the journal. What an endpoint refuses of it is left out,
renamed or bounded by rules (`refused.py`), which change no key: answers are found again whatever the rules are. Each
answer in the journal says what was sent otherwise than its key says, and so does column `sampling` of its rows.

A rule that is learnt costs one refused request. It is kept beside the journal, in `endpoints/`, one small file for an
endpoint and a model. It holds no text of notes, and is forgotten after 30 days, since servers change; delete the file
to forget it now.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hf_synth.llm.refused import LIMITS, STRUCTURE, SYSTEM, Rules, read_refused
from hf_synth.llm.replies import Failure

_LOG = logging.getLogger(__name__)
CONNECTION = "one question a connection"  # a rule that is of no field of a request
_DAYS = 30.0  # until a rule is tried anew
_GRACE, _NEAR = 0.5, 0.2  # seconds that questions wait for the first one; on this machine
MOST_RULES = 12  # rules learnt for one question
_DOUBTS = 3  # questions that fail with what was taken before, until it is taken for refused


@dataclass(frozen=True)
class Refusal:
    """A failure for which fields of the request may be the cause, with the rules for another attempt."""

    rules: Rules
    failure: Failure
    sure: bool = True


class Manners:
    """The rules of one endpoint and model; shared by threads.

    Args:
        where: the endpoint in messages.
        url, model: what the rules are of.
        known: rules of the provider.
        folder: where rules are remembered; None for nowhere.
    """

    def __init__(self, where: str, url: str, model: str, known: Rules, folder: Path | None) -> None:
        self._where, self._lock = where, threading.Lock()
        self._url, digest = url, sha256(f"{url}\n{model}".encode()).hexdigest()
        # a path or query can hold a secret of the endpoint: the file says which host it is of, and the rest as a digest
        parts = urlsplit(url)
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else url
        self._facts = {"endpoint": host, "model": model, "of": digest}
        self._path = None if folder is None else folder / f"{digest[:16]}.json"
        self._learnt = self._read()
        self.rules: dict[str, Any] = {**known, **self._learnt}
        self.settled = bool(self._learnt.keys() - {CONNECTION})  # whether a question was answered by these rules
        self._taken: set[str] = set()  # fields of requests that were answered
        self._unsure: set[str] = set()  # fields that may have been refused
        self._doubts: Counter[str] = Counter()  # questions for which a field was left out
        self._written = dict(self._learnt)

    def _read(self) -> dict[str, Any]:
        """Read the rules that are remembered; a file that cannot be read is none."""
        try:
            facts = json.loads(self._path.read_text(encoding="utf-8")) if self._path else {}
            earlier = facts.get("endpoint") == self._url and facts.get("model") == self._facts["model"]
            if facts.get("of") != self._facts["of"] and not earlier:
                return {}
            fresh = 0 <= time.time() - float(facts["learnt"]) < 86_400 * _DAYS
            return {str(name): rule for name, rule in facts["rules"].items() if _is_rule(rule)} if fresh else {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    def learn(self, refused: Rules, body: Mapping[str, Any], alone: Rules, *, sure: bool = True) -> Rules | None:
        """Learn what was refused.

        A field that the endpoint took before is left out of this one question, until it is refused several times. One
        that may not be the cause is learnt from a second question.

        Args:
            body: the request that was refused.
            alone: rules of this question alone.

        Returns:
            The rules of this question alone; None where there is nothing to change, so that the failure stands.
        """
        with self._lock:
            before = {**self.rules, **alone}
            news = {name: rule for name, rule in refused.items() if name not in before or before[name] != rule}
            if not news:  # another question has learnt it since this request was made, or it helped nothing
                return alone if any(_precedes_rule(body, name, before[name]) for name in refused) else None
            for name, rule in news.items():
                self._doubts[name] += 1
                if not sure:
                    self._unsure.add(name)
                if self._doubts[name] < (_DOUBTS if name in self._taken else 1 if sure else 2):
                    alone = {**alone, name: rule}
                    continue
                self.rules = {**self.rules, name: rule}
                self._learnt[name] = rule
                _LOG.info("%s %s, from now on", self._where, _describe(name, rule))
            return alone

    @property
    def reuse(self) -> bool:
        """Whether a connection may carry several questions."""
        return CONNECTION not in self.rules

    def isolate(self) -> None:
        """Remember that each question is to have a connection of its own."""
        with self._lock:
            self.rules = {**self.rules, CONNECTION: "one"}
            self._written = self._learnt = {**self._learnt, CONNECTION: "one"}
        self._write({**self._facts, "rules": self._written, "learnt": time.time()})

    def suspect(self, failure: Failure, status: int, body: bytes, sent: Mapping[str, Any]) -> Refusal | Failure:
        """Return a refusal with the rules by which to ask again, or the failure where no field is its cause.

        A server error that says nothing may be a system message that a template does not know. It is tried without one
        until a system message was taken: afterwards the same error is an outage.
        """
        if rules := read_refused(status, body, sent):
            return Refusal(rules, failure)
        system = any(message.get("role") == "system" for message in sent["messages"])
        if status == 500 and system and SYSTEM not in self._taken:
            return Refusal({SYSTEM: "user"}, failure, sure=False)
        return failure

    def accept(self, body: Mapping[str, Any]) -> None:
        """Note that a request was answered, and remember what was learnt for it."""
        fields = {*body, *([SYSTEM] if any(m.get("role") == "system" for m in body["messages"]) else [])}
        if self.settled and fields <= self._taken and not self._doubts and self._learnt == self._written:
            return
        with self._lock:
            self._taken |= fields
            self.settled = self._unsure <= self._taken | self.rules.keys()
            for name in [name for name in self._doubts if name in fields and name not in self.rules]:
                del self._doubts[name]
            if self._learnt == self._written:
                return
            self._written = dict(self._learnt)
        self._write({**self._facts, "rules": self._written, "learnt": time.time()})

    def _write(self, facts: Mapping[str, Any]) -> None:
        """Write the rules whole or not at all; a folder that cannot be written only costs a request next time."""
        if self._path is None:
            return
        draft = self._path.with_suffix(f".{uuid.uuid4().hex[:8]}.draft")
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as out:
                json.dump(facts, out, indent=1)
            os.replace(draft, self._path)
        except OSError:
            with suppress(OSError):
                draft.unlink(missing_ok=True)


class FirstQuestion:
    """Has one question go first while it is not known what an endpoint takes; belongs to one event loop."""

    def __init__(self, timeout: float, *, near: bool = False) -> None:
        self._grace = min(_NEAR if near else _GRACE, timeout / 4)
        self._changed = asyncio.Event()
        self._busy = False
        self._since = 0.0

    async def enter(self, manners: Manners) -> bool:
        """Return whether this question goes first; others wait for it, or until it takes as long as an answer does."""
        loop = asyncio.get_running_loop()
        while not manners.settled:
            if not self._busy:
                self._busy = True
                self.sent()
                return True
            left = self._since + self._grace - loop.time()
            if left <= 0:
                return False
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)
        return False

    def sent(self) -> None:
        """Note that the first question is sent once more."""
        self._since = asyncio.get_running_loop().time()

    def leave(self) -> None:
        """Let the others go."""
        self._busy = False
        self._changed.set()
        self._changed = asyncio.Event()


def request(
    rules: Rules, messages: Sequence[Mapping[str, Any]], sampling: Mapping[str, Any], schema: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the fields of a request as an endpoint takes them."""
    body: dict[str, Any] = {"messages": _fold_system_messages(messages) if rules.get(SYSTEM) == "user" else messages}
    for name, value in sampling.items():
        if (field := _sent_as(rules, name, value)) is not None:
            body[field[0]] = field[1]
    if schema is not None:
        structure = rules.get(STRUCTURE, "json_schema")
        if structure == "json_object":
            body[STRUCTURE] = {"type": "json_object"}
        elif structure is not None:
            strict = {"strict": True} if structure == "strict" else {}
            body[STRUCTURE] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, **strict}}
    return body


def changes(rules: Rules, sampling: Mapping[str, Any], schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what of a request is sent otherwise than it was asked for, by field; None stands for left out."""
    changed: dict[str, Any] = {}
    for name, value in sampling.items():
        sent = _sent_as(rules, name, value)
        if sent != (name, value):
            changed[name] = None if sent is None else {sent[0]: sent[1]}
    if schema is not None and rules.get(STRUCTURE, "json_schema") not in ("json_schema", "strict"):
        changed[STRUCTURE] = rules[STRUCTURE]
    return changed | ({SYSTEM: "user"} if rules.get(SYSTEM) == "user" else {})


def changes_as_json(rules: Rules, sampling: Mapping[str, Any], schema: Mapping[str, Any] | None) -> str:
    """Return `changes` as JSON, for the journal; "" for none."""
    changed = changes(rules, sampling, schema) if rules else {}
    return json.dumps(changed, sort_keys=True) if changed else ""


def _sent_as(rules: Rules, name: str, value: Any) -> tuple[str, Any] | None:
    """Return the name and the value of a field at an endpoint; None where it is left out."""
    seen = set()
    while name in rules:
        rule = rules[name]
        seen.add(name)
        if isinstance(rule, str) and rule not in seen:
            name = rule
            continue
        if isinstance(rule, Mapping) and isinstance(value, int | float) and not isinstance(value, bool):
            low, high = rule.get("least", value), rule.get("most", value)
            return name, min(max(value, low), high)
        return None
    return name, value


def _fold_system_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Put system messages before the first message of the user, as models without a system role take them."""
    system = [str(m["content"]) for m in messages if m["role"] == "system"]
    rest = [dict(m) for m in messages if m["role"] != "system"]
    if system and rest:
        rest[0]["content"] = "\n\n".join([*system, str(rest[0]["content"])])
    return rest or [{"role": "user", "content": "\n\n".join(system)}]


def _precedes_rule(body: Mapping[str, Any], name: str, rule: Any) -> bool:
    """Check whether a request that was refused was made before a rule was learnt."""
    if name == SYSTEM:
        return any(m.get("role") == "system" for m in body["messages"])
    if name == STRUCTURE and name in body:
        kind = body[name]["type"]
        return bool(rule is None or (rule == "json_object") != (kind == "json_object"))
    if isinstance(rule, Mapping) and isinstance(body.get(name), int | float):
        return bool(_sent_as({name: rule}, name, body[name]) != (name, body[name]))
    return name in body and not isinstance(rule, Mapping)


def _is_rule(rule: Any) -> bool:
    bounds = isinstance(rule, Mapping) and rule.keys() <= {"most", "least"}
    return rule is None or isinstance(rule, str) or (bounds and all(isinstance(x, int | float) for x in rule.values()))


def _describe(name: str, rule: Any) -> str:
    """Return what a rule does, in words."""
    if name == STRUCTURE:
        how = {"json_object": "JSON is asked for without one", "strict": "it is marked as strict"}
        if rule in how:
            return f"does not accept a JSON schema as it was sent: {how[rule]}"
        return "does not accept a JSON schema; its answers are parsed without one"
    if name == SYSTEM:
        return "takes no system message: it is put into the user's"
    if isinstance(rule, str):
        return f"takes {rule} in the place of {name}"
    if isinstance(rule, Mapping):
        return f"bounds {name}: " + ", ".join(f"at {side} {value:g}" for side, value in rule.items())
    return f"refuses {name}: it is left out"


def provided_limit(sampling: Mapping[str, Any]) -> int | None:
    """Return the most tokens of an answer that a question asks for, under any name."""
    bound = next((sampling[name] for name in reversed(LIMITS) if sampling.get(name)), None)
    return int(bound) if bound else None
