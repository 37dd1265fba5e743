"""The verb `doctor`: check this machine, the LLM and the Hub; each thing that is wrong comes with its cure.

It works offline. Every check has a short deadline, and no note is read or sent. The exit code is 1 when a check finds
what would stop a journey.
"""

from __future__ import annotations

import json
import math
import os
import socket
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cli.options import LLM_HELP, SIMULATOR, Result
from hf_synth.cli.terminal import one_line
from hf_synth.errors import HfSynthError, LLMError

if TYPE_CHECKING:
    from hf_synth.cli.machine import Check
    from hf_synth.llm.llm import LLM

_SECONDS = 5.0  # for each check but the question to the LLM
_ANSWER = 1_000  # tokens of an answer with several notes, about
_SIGNS = {"ok": ("\u2713", "ok"), "warning": ("!", "!"), "failed": ("\u2717", "x")}
_MOST_NAMES = 8
_UNREACHABLE = 0  # stands for a status where there is no answer
_PROXY_NAME = "HTTPS_PROXY"


def add_doctor_options(parser: ArgumentParser) -> None:
    """Add the options of `doctor`."""
    add = parser.add_argument
    add("--llm", metavar="MODEL", help=LLM_HELP)
    add("--base-url", metavar="URL", help="address of the LLM's server (default: OPENAI_BASE_URL)")
    add("--work", type=Path, default=Path("work"), metavar="DIR", help="the folder of the journey (default: work)")
    add("--wait", type=float, default=20.0, metavar="S", help="seconds to wait for an answer of the LLM (default: 20)")
    add("--endpoint", metavar="URL", help="address of the Hub (default: HF_ENDPOINT, else huggingface.co)")


def doctor(args: Namespace) -> tuple[Result, int]:
    """Check all that a journey needs; exit code 1 when something would stop it."""
    from hf_synth.cli.machine import machine_checks

    if not args.wait > 0:
        raise LLMError("--wait takes a number of seconds above 0")
    checks: list[Check] = []
    for found in (machine_checks(args.work), _llm_checks(args), _hub_checks(args)):
        for check in found:
            checks.append(check)
            _print(check)
    failed = sum(check.mark == "failed" for check in checks)
    warned = sum(check.mark == "warning" for check in checks)
    if failed:
        print(f"\n{failed} of {len(checks)} would stop a journey")
    else:
        print(f"\nnothing would stop a journey{f'; {warned} warnings' if warned else ''}")
    return {"ok": not failed, "checks": [vars(check) for check in checks]}, 1 if failed else 0


def _print(check: Check) -> None:
    sign, plain = _SIGNS[check.mark]
    try:
        sign.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        sign = plain
    print(one_line(f"{sign} {check.name}: {check.text}" + (f" -> {check.cure}" if check.cure else "")))


# --- the LLM --------------------------------------------------------------------------------------------------------
def _llm_checks(args: Namespace) -> Iterator[Check]:
    """Yield the checks of the LLM: where its notes may go, its models, its slots and its speed."""
    from hf_synth.cli.machine import Check
    from hf_synth.llm.gguf_files import find_weights, is_gguf

    url = args.base_url or os.environ.get("OPENAI_BASE_URL")
    if args.llm and not args.base_url and args.llm == SIMULATOR:
        yield Check("LLM", "warning", "the simulator runs here, and only stands in for an LLM",
                    "name one with --llm MODEL --base-url URL")  # fmt: skip
        return
    if args.llm and not args.base_url and is_gguf(args.llm):
        try:
            yield Check("LLM", "ok", f"{find_weights(args.llm).name} runs on this machine")
        except HfSynthError as error:
            yield Check("LLM", "failed", str(error), "give the path of a .gguf file")
        return
    if not url:
        cure = "add --base-url URL, e.g. http://127.0.0.1:8000/v1"
        if args.llm:
            yield Check("LLM", "failed", f"{args.llm} needs an endpoint, and none is named", cure)
        else:
            yield Check("LLM", "warning", "none is named", "add --base-url URL --llm MODEL")
        return
    yield from _endpoint_checks(args, url)


def _endpoint_checks(args: Namespace, url: str) -> Iterator[Check]:
    from hf_synth.cli.machine import Check
    from hf_synth.llm.llm import LLM
    from hf_synth.llm.probe import list_models

    try:
        llm = LLM(args.llm or "any", base_url=url)
        yield _rules_check(llm)
        listing = list_models(llm, _SECONDS)
    except HfSynthError as error:
        yield Check("LLM", "failed", str(error), "check --base-url and the key")
        return
    where = llm.origin.url
    if listing.problem:
        text, _, cure = listing.problem.partition(": ")
        if text == "cannot be reached" and not llm.origin.host.startswith("127.") and _proxy_of(where):
            cure += "; an LLM is asked directly, never through a proxy"
        yield Check("LLM", "failed", f"{where} {text}", cure)
        return
    names = ", ".join(listing.models[:_MOST_NAMES]) + (", ..." if len(listing.models) > _MOST_NAMES else "")
    if not args.llm:
        yield Check("LLM", "warning" if listing.models else "failed", f"{where} serves: {names or 'it lists no model'}",
                    "name one with --llm")  # fmt: skip
        return
    if listing.models and args.llm not in listing.models:
        near = _near(args.llm, listing.models)
        yield Check("LLM", "failed", f"{where} has no model {args.llm!r}; it serves {names}",
                    f"--llm {near}" if near else "name one of them")  # fmt: skip
        return
    yield Check("LLM", "ok", f"{where} serves {args.llm}" + ("" if listing.models else " (it lists no models)"))
    yield _speed_check(args, llm, listing.slots)


def _near(name: str, models: tuple[str, ...]) -> str:
    """Return the model whose name is most like a name, or the only one; "" for none."""
    import difflib

    found = difflib.get_close_matches(name, models, n=1, cutoff=0.6)
    return found[0] if found else models[0] if len(models) == 1 else ""


def _rules_check(llm: LLM) -> Check:
    """Return whether notes that are not open may be sent to an endpoint, by the rules of access."""
    from hf_synth.cli.machine import Check
    from hf_synth.llm.endpoints import check_endpoint
    from hf_synth.llm.probe import call_within

    where = llm.origin.url
    try:
        addresses = call_within(_SECONDS, lambda: check_endpoint(llm.origin, "restricted") or ("",))
    except HfSynthError:
        text = f"open notes only may be sent to {where}; others need a local endpoint, or an attestation (in Python)"
        return Check("LLM's access", "ok", text)
    if addresses is None:
        return Check("LLM's access", "warning", f"the name of {where} is not found within {_SECONDS:g} s",
                     "check --base-url, or give an address")  # fmt: skip
    return Check("LLM's access", "ok", f"restricted and credentialed notes may be sent to {where}: it is local")


def _speed_check(args: Namespace, llm: LLM, slots: int | None) -> Check:
    """Ask one short question, and return its speed with advice on --concurrency and --timeout."""
    from hf_synth.cli.machine import Check
    from hf_synth.llm.probe import measure

    speed = measure(llm, args.wait)
    if speed.problem:
        slow = "within" in speed.problem or "timeout" in speed.problem
        cure = "ask the endpoint with another client"
        if slow:
            cure = "is it busy, or loading its model? Look again with --wait 300, and give generate --timeout 1200"
        return Check("LLM's speed", "failed", speed.problem, cure)
    advice = []
    if slots is not None:
        advice.append(f"{slots} {'slot' if slots == 1 else 'slots'}: --concurrency is taken from that")
    else:
        advice.append("leave --concurrency out: it is learnt")
    if speed.tokens >= 8 and speed.seconds > 0:
        rate = speed.tokens / speed.seconds
        expected = _ANSWER / rate
        text = f"{speed.tokens} tokens in {speed.seconds:.1f} s ({rate:,.0f} a second)"
        if expected > 30:
            advice.append(
                f"--timeout {math.ceil(4 * expected / 60) * 60}: {_ANSWER:,} tokens take about {expected:,.0f} s"
            )
        else:
            advice.append("the usual --timeout of 120 s is enough")
    else:
        text = f"a short answer in {speed.seconds:.1f} s; it does not count its tokens"
    return Check("LLM's speed", "ok", f"{text}; {'; '.join(advice)}")


# --- the Hub --------------------------------------------------------------------------------------------------------
def _hub_checks(args: Namespace) -> Iterator[Check]:
    """Yield the checks of the Hub: which one, who am I there, and what may be published there."""
    from hf_synth.cli.machine import Check
    from hf_synth.publishing.client import endpoint_of
    from hf_synth.publishing.gate import INSTITUTION_HUBS, is_institution

    hub = endpoint_of(args.endpoint)
    own = is_institution(hub)
    if own:
        text = f"{hub} is your institution's own: data of any access may be published there in a private repository"
    else:
        text = (
            f"{hub} is no Hub of your institution ({INSTITUTION_HUBS} lists them): no credentialed data may be "
            "published there, and restricted data in a private repository only, unless somebody attests that it may"
        )
    yield Check("Hub's access", "ok", text)
    yield _who_check(hub, own, args.endpoint)


def _who_check(hub: str, own: bool, endpoint: str | None) -> Check:
    import aiohttp  # noqa: F401 - it takes long once, before the clock runs
    from huggingface_hub import constants, get_token

    from hf_synth.cli.machine import Check
    from hf_synth.llm.probe import call_within

    start = "; start it: hf-synth hub serve --root DIR" if own else ""
    if constants.HF_HUB_OFFLINE:
        return Check("Hub", "ok", f"{hub} is not asked (HF_HUB_OFFLINE)")
    token = os.environ.get("HF_TOKEN") or (get_token() if endpoint is None else None)
    if token and not own and not hub.startswith("https:"):
        return Check("Hub", "warning", f"{hub} is not encrypted: no token is sent there", "use its https address")
    try:
        proxy = "" if own else _proxy_of(hub)
        found = call_within(_SECONDS, lambda: _who(hub, token, bool(proxy)))
    except (HfSynthError, ValueError) as error:
        return Check("Hub", "warning", f"{hub}: {error}", "set HF_ENDPOINT to the address of a Hub")
    through = f" through the proxy {proxy}" if proxy else ""
    network = f"check {f'{_PROXY_NAME} and ' if proxy else ''}the network, or HF_ENDPOINT{start}"
    if found is None:
        silent = f"{hub} does not answer within {_SECONDS:g} s{through}; only publishing needs it"
        return Check("Hub", "warning", silent, network)
    status, name = found
    if status == 200 and name:
        return Check("Hub", "ok", f"{hub}, as {name}")
    if status == _UNREACHABLE:
        return Check("Hub", "warning", f"{hub} cannot be reached{through}; only publishing needs it", network)
    if status in (401, 403):
        said = "its token is refused" if token else "without a token"
        return Check("Hub", "warning", f"{hub}, {said}; only publishing needs one", "hf auth login, or set HF_TOKEN")
    if status == 407:
        return Check("Hub", "warning", f"the proxy {proxy} asks for a login; only publishing needs it",
                     f"put the login into {_PROXY_NAME}")  # fmt: skip
    if status == 429 or status >= 500:
        why = "is busy" if status == 429 else "has an error of its own"
        cure = "look into its log" if own else "wait, then look again"
        return Check("Hub", "warning", f"{hub} {why} (HTTP {status}); only publishing needs it", cure)
    answer = "something that is not JSON, such as a login page" if status == 200 else f"HTTP {status}"
    return Check("Hub", "warning", f"{hub} is no Hub: asked who you are, it answers with {answer}",
                 "set HF_ENDPOINT to the address of a Hub")  # fmt: skip


def _proxy_of(hub: str) -> str:
    """Return host and port of the proxy that publishing uses for a Hub; "" for none. It may hold a password."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    target = urlsplit(hub)
    proxies = getproxies()
    named = proxies.get(target.scheme) or proxies.get("all") or ""
    if not named or proxy_bypass(target.netloc):
        return ""
    return urlsplit(named if "://" in named else f"//{named}").netloc.rpartition("@")[2] or "of the environment"


def _who(hub: str, token: str | None, proxied: bool) -> tuple[int, str]:
    """Return the status of "who am I" and the name; `_UNREACHABLE` where there is no answer."""
    import asyncio

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    status, body = _by_proxy(hub, headers) if proxied else asyncio.run(_directly(hub, headers))
    try:
        said: Any = json.loads(body)
        return status, str(said.get("name") or "")[:100] if status == 200 else ""
    except (ValueError, AttributeError, RecursionError):
        return status, ""


def _by_proxy(hub: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """Ask through the proxy of the environment, as huggingface_hub does."""
    import httpx2

    try:
        with httpx2.Client(timeout=_SECONDS) as client:
            reply = client.get(f"{hub}/api/whoami-v2", headers=headers)
            return reply.status_code, reply.content
    except httpx2.ProxyError as error:  # the proxy refuses
        return (407 if "407" in str(error) else _UNREACHABLE), b""
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, ImportError):  # ImportError: a SOCKS proxy
        return _UNREACHABLE, b""


async def _directly(hub: str, headers: dict[str, str]) -> tuple[int, bytes]:
    from hf_synth.llm.endpoints import Line, LineError, parse_origin

    origin = parse_origin(hub)
    try:  # here rather than in a thread of the loop, which would keep the process until the name is found
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return _UNREACHABLE, b""
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    line = Line(origin, addresses, connections=1, connect_timeout=_SECONDS)
    try:
        status, _, body = await line.send("GET", f"{origin.url}/api/whoami-v2", headers, None, _SECONDS)
        return status, body
    except LineError:
        return _UNREACHABLE, b""
    finally:
        await line.close()
