"""What a server says of itself: noted with the journal, so that another model under the same name is noticed.

A local server answers to any name ("default", "local-model"), and its weights can be swapped behind one name. The key
of an answer holds the name alone. What `/v1/models` and the answers say is therefore noted beside the answers, and a
change is logged. Servers outside the own network are not asked for it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_synth.llm.gguf_files import names_file
from hf_synth.llm.journal import Journal

_LOG = logging.getLogger(__name__)
_STABLE = ("id", "root", "parent", "owned_by", "max_model_len", "max_context_length", "quantization", "arch")
_WEIGHTS = ("n_params", "n_ctx_train", "n_vocab", "size")  # of llama.cpp's "meta"
_ANY_PORT = ("simulator",)  # the offline simulator has another port each time
_SECONDS = 5.0  # for each thing that a server says of itself
_LONGEST, _MOST = 200, 20  # characters of a value, names that are kept
Get = Callable[[str], Awaitable[Any]]


@dataclass
class Server:
    """What is known of a server in one run.

    Args:
        says: facts of the model by `/v1/models`; empty where it was not asked.
        slots: requests that it works on at once; None where it does not say.
        served: names of the model in its answers, as the keys.
        fingerprints: `system_fingerprint` of its answers, as the keys.
    """

    says: dict[str, str] = field(default_factory=dict)
    slots: int | None = None
    served: dict[str, None] = field(default_factory=dict)
    fingerprints: dict[str, None] = field(default_factory=dict)


async def introduce(get: Get, model: str) -> tuple[dict[str, str], int | None]:
    """Ask a server for its models, and llama.cpp's for its slots.

    Args:
        get: sends GET to a path beside base_url ("models") or beside its "/v1" ("/props"); None for no JSON.
        model: the model's name in requests.

    Returns:
        `says` and `slots` of a `Server`.
    """
    listed = await _within_deadline(get, "models")
    models = listed.get("data") if isinstance(listed, dict) else None
    own = [one for one in models if isinstance(one, dict)] if isinstance(models, list) else []
    named = [one for one in own if one.get("id") == model] or (own if len(own) == 1 else [])
    if not named:
        return {}, None
    entry = named[0]
    meta: Any = entry.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    facts = {name: entry.get(name) for name in _STABLE} | {name: meta.get(name) for name in _WEIGHTS}
    says = {name: _plain(value) for name, value in facts.items() if isinstance(value, str | int) and value != ""}
    slots = None
    if entry.get("owned_by") == "llamacpp":
        props = await _within_deadline(get, "/props")
        slots = props.get("total_slots") if isinstance(props, dict) else None
    return says, slots if isinstance(slots, int) and 0 < slots < 10_000 else None


async def _within_deadline(get: Get, path: str) -> Any:
    """Return what a server says at a path; None where it takes long: a byte now and then ends no single read."""
    try:
        async with asyncio.timeout(_SECONDS):
            return await get(path)
    except TimeoutError:
        return None


def note_server(journal: Journal, model: str, url: str, server: Server, *, cached: int = 0) -> None:
    """Note what a server says of itself, and log what changed since the journal's earlier answers under that name.

    Args:
        url: address of the endpoint, without secrets.
        cached: number of answers of this call that came from the journal.
    """
    name = f"server {model}"
    before = _read(journal.recorded().get(name))
    now: dict[str, Any] = {"url": url, "says": dict(server.says), "served": _names(server.served)}
    now["fingerprints"] = _names(server.fingerprints)
    if before:
        _compare(before, now, model, cached)
    if len(now["served"]) > 1 and not set(now["served"]) <= set(before.get("served", [])):
        _LOG.warning(
            "%s: answers of model %r name several models (%s): the server changed it, or shares the questions out",
            url,
            model,
            ", ".join(now["served"]),
        )
    for kept in ("served", "fingerprints"):
        now[kept] = list(dict.fromkeys([*before.get(kept, []), *now[kept]]))[-_MOST:]
    if before and not server.says:
        now["says"] = before["says"]
    if (server.says or server.served) and now != before:
        journal.note(name, json.dumps(now, sort_keys=True))


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], model: str, cached: int) -> None:
    changes = [
        f"{key}: {before['says'][key]} -> {value}"
        for key, value in now["says"].items()
        if key in before["says"] and before["says"][key] != value
    ]
    if now["served"] and before["served"] and not set(now["served"]) & set(before["served"]):
        changes.append(f"name in its answers: {before['served'][-1]} -> {now['served'][0]}")
    if changes:
        _LOG.warning(
            "%s: the server says something else of model %r than when earlier answers were made (%s); if it is another "
            "model, give it a journal of its own with --journal",
            now["url"],
            model,
            "; ".join(changes),
        )
    elif cached and before["url"] != now["url"] and not now["served"] and not (model in _ANY_PORT or names_file(model)):
        _LOG.warning(
            "%d answers of model %r came from the journal: they were made at %s, and %s was not asked; if that is "
            "another model, give it a journal of its own with --journal",
            cached,
            model,
            before["url"],
            now["url"],
        )
    new = set(now["fingerprints"]) - set(before["fingerprints"])
    if new and before["fingerprints"]:
        _LOG.info("%s: model %r has a new system_fingerprint: %s", now["url"], model, ", ".join(sorted(new)))


def _read(value: str | None) -> dict[str, Any]:
    """Read a note; one of another form is none."""
    try:
        note = json.loads(value or "")
    except ValueError:
        return {}
    kinds = {"url": str, "says": dict, "served": list, "fingerprints": list}
    whole = isinstance(note, dict) and all(isinstance(note.get(key), kind) for key, kind in kinds.items())
    return note if whole else {}


def _names(values: Iterable[str]) -> list[str]:
    return [_plain(value) for value in dict.fromkeys(values) if value][:_MOST]


def _plain(value: object) -> str:
    return "".join(c if c.isprintable() else "?" for c in str(value)[:_LONGEST])
