"""Routes of gated repositories: request access; for writers: list, grant, accept and reject requests."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, RedirectResponse, Response

from hf_synth.hub import access
from hf_synth.hub.access import STATUSES, AccessRequest
from hf_synth.hub.names import HubError
from hf_synth.hub.repositories import show_time
from hf_synth.hub.request import HubRequest, address, find_repo, number, text

PAGE = 100  # requests in one answer
_FIELDS, _LONGEST = 20, 1000  # fields of a request, and characters of each


def request_access(request: HubRequest) -> Response:
    """Request access to the files of a gated repository."""
    repo, user = find_repo(request), request.signed_in()
    if not repo.gated:
        raise HubError(400, "This repository is not gated: no request is needed")
    fields = {name: values[0] for name, values in request.form().items() if values}
    if len(fields) > _FIELDS or any(len(name) + len(value) > _LONGEST for name, value in fields.items()):
        raise HubError(400, "The form is too long")
    entry = access.request_access(request.store, repo, user, fields)
    if request.wants_page:
        return RedirectResponse(request.origin + address(repo), 303)
    return JSONResponse({"status": entry.status})


def listing(request: HubRequest) -> Response:
    """List the requests with a status."""
    repo, status = find_repo(request, write=True), request.path["status"]
    if status not in STATUSES:
        raise HubError(404, "Not found")
    all_requests = access.requests(request.store, repo).items()
    matching = [_show(user, entry) for user, entry in all_requests if entry.status == status]
    start = number(request.query.get("cursor"), 0)
    stop = start + PAGE
    return JSONResponse(matching[start:stop], headers=request.next_page(stop) if stop < len(matching) else {})


def _show(user: str, entry: AccessRequest) -> dict[str, Any]:
    who = {"user": user, "fullname": user, "email": None}
    facts = {"requestId": entry.id, "user": who, "status": entry.status, "timestamp": show_time(entry.asked)}
    return facts | ({"fields": entry.fields} if entry.fields else {})


def handle(request: HubRequest) -> Response:
    """Accept or reject a request, or make it pending again."""
    repo, body = find_repo(request, write=True), request.json()
    status, reason = text(body, "status"), text(body, "rejectionReason", "")
    if status not in STATUSES or len(reason) > _LONGEST:
        raise HubError(400, "status must be pending, accepted or rejected, and the reason short")
    if body.get("user") is not None:
        user = text(body, "user")
    else:
        id = text(body, "requestId")
        user = next((name for name, r in access.requests(request.store, repo).items() if r.id == id), "")
    answered = access.answer_request(request.store, repo, user, status, reason)
    return JSONResponse({"status": answered.status})


def grant_access(request: HubRequest) -> Response:
    """Grant a user access, with or without a request."""
    repo, user = find_repo(request, write=True), text(request.json(), "user")
    if user not in request.hub.users.names():
        raise HubError(404, "There is no such user")
    return JSONResponse({"status": access.grant_access(request.store, repo, user).status})
