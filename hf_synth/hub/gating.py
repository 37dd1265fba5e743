"""Routes of gated repositories: asking for access, and for who may write: listing, granting, accepting, rejecting."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from hf_synth.hub.access import STATUSES, Request, answer, ask_access, grant, requests
from hf_synth.hub.asking import Ask, address, asked_repo, number, text
from hf_synth.hub.names import HubError
from hf_synth.hub.repositories import show_time

PAGE = 100  # requests that one answer shows
_FIELDS, _LONGEST = 20, 1000  # answers that a request may carry, and characters of each


def ask(ask: Ask) -> Response:
    """Ask for access to the files of a gated repository."""
    repo, user = asked_repo(ask), ask.signed_in()
    if not repo.gated:
        raise HubError(400, "This repository is not gated: its files are there for whoever sees it")
    fields = {name: values[0] for name, values in ask.form().items() if values}
    if len(fields) > _FIELDS or any(len(name) + len(value) > _LONGEST for name, value in fields.items()):
        raise HubError(400, "The form is too long")
    made = ask_access(ask.hub.store, repo, user, fields)
    if ask.wants_page:
        return RedirectResponse(ask.origin + address(repo), 303)
    return JSONResponse({"status": made.status})


def listing(ask: Ask) -> Response:
    """List the requests of a status."""
    repo, status = asked_repo(ask, write=True), ask.path["status"]
    if status not in STATUSES:
        raise HubError(404, "Not found")
    found = [(user, r) for user, r in requests(ask.hub.store, repo).items() if r.status == status]
    start = number(ask.query.get("cursor"), 0)
    stop = start + PAGE
    shown = [_show(user, request) for user, request in found[start:stop]]
    return JSONResponse(shown, headers=ask.next_page(stop) if stop < len(found) else {})


def _show(user: str, request: Request) -> dict[str, Any]:
    who = {"user": user, "fullname": user, "email": None}
    shown: dict[str, Any] = {
        "requestId": request.id,
        "user": who,
        "status": request.status,
        "timestamp": show_time(request.asked),
    }
    return shown | ({"fields": request.fields} if request.fields else {})


def handle(ask: Ask) -> Response:
    """Accept or reject a request, or put it back among those that wait."""
    repo, body = asked_repo(ask, write=True), ask.json()
    status, reason = text(body, "status"), text(body, "rejectionReason", "")
    if status not in STATUSES or len(reason) > _LONGEST:
        raise HubError(400, "status must be pending, accepted or rejected, and a reason short")
    if body.get("user") is not None:
        user = text(body, "user")
    else:
        id = text(body, "requestId")
        user = next((name for name, r in requests(ask.hub.store, repo).items() if r.id == id), "")
    made = answer(ask.hub.store, repo, user, status, reason)
    return JSONResponse({"status": made.status})


def give(ask: Ask) -> Response:
    """Let a user in who may not have asked."""
    repo, user = asked_repo(ask, write=True), text(ask.json(), "user")
    if user not in ask.hub.users.names():
        raise HubError(404, "There is no such user")
    return JSONResponse({"status": grant(ask.hub.store, repo, user).status})
