"""Routes about repositories as wholes: making, settings, deleting, finding, branches and tags."""

from __future__ import annotations

import datetime
import hashlib
from typing import Any

from starlette.responses import JSONResponse, Response

from hf_synth.hub.asking import Ask, asked_repo, text
from hf_synth.hub.cards import card_data
from hf_synth.hub.names import HubError, check_name
from hf_synth.hub.store import Commit, Repo
from hf_synth.hub.tree import sibling

PAGE = 50  # commits that one answer shows


def whoami(ask: Ask) -> Response:
    """Say whose the token is."""
    user = ask.signed_in()
    orgs = [{"type": "org", "name": o, "roleInOrg": "write"} for o in ask.hub.users.orgs_of(user)]
    token = {"type": "access_token", "accessToken": {"displayName": "local", "role": "write"}}
    return JSONResponse(
        {"type": "user", "id": user, "name": user, "fullname": user, "isPro": False, "orgs": orgs, "auth": token}
    )


def create(ask: Ask) -> Response:
    """Make a repository; its namespace becomes the user's when nobody has it."""
    user, body = ask.signed_in(), ask.json()
    kind = _kind(body)
    namespace, name = text(body, "organization", user) or user, check_name(text(body, "name"))
    ask.hub.users.claim(user, namespace)  # before looking: what is another's must not be told apart from what is not
    id = f"{namespace}/{name}"
    url = ask.origin + ("/datasets/" if kind == "datasets" else "/") + id
    try:
        repo = ask.hub.store.create(kind, id, user, private=_wants_private(body) or False)
    except HubError as error:
        if error.status != 409:
            raise
        return JSONResponse({"error": error.message, "url": url, "id": id}, 409)
    return JSONResponse({"url": url, "id": repo.id, "name": repo.id})


def delete(ask: Ask) -> Response:
    """Delete a repository and its content."""
    user, body = ask.signed_in(), ask.json()
    ask.path.update(type=_kind(body), org=text(body, "organization", user) or user, name=text(body, "name"))
    ask.hub.store.delete(asked_repo(ask, write=True))
    return Response()


def settings(ask: Ask) -> Response:
    """Change who may see a repository."""
    repo, body = asked_repo(ask, write=True), ask.json()
    gated = body.get("gated")
    if not (gated is None or gated is False or gated in ("auto", "manual")):
        raise HubError(400, "gated must be auto, manual or false")
    now = ask.hub.store.update(repo, private=_wants_private(body), gated=gated)
    return JSONResponse({"private": now.private, "gated": now.gated})


def _kind(body: dict[str, Any]) -> str:
    kind = text(body, "type", "model")
    if kind not in ("model", "dataset"):
        raise HubError(400, "Only models and datasets are kept here")
    return kind + "s"


def _wants_private(body: dict[str, Any]) -> bool | None:
    visibility, private = body.get("visibility"), body.get("private")
    if visibility not in (None, "private", "public") or private not in (None, True, False):
        raise HubError(400, "visibility must be private or public")
    return private if visibility is None else visibility == "private"


def visible(ask: Ask, kind: str) -> list[Repo]:
    """Give the repositories of a type that who asks may see."""
    member = ask.hub.users.is_member
    return [r for r in ask.hub.store.repos(kind) if not r.private or member(ask.user, r.namespace)]


def listing(ask: Ask) -> Response:
    """List the repositories that who asks may see."""
    author, word = ask.query.get("author"), ask.query.get("search", "").lower()
    found = [r for r in visible(ask, ask.path["type"]) if author in (None, "", r.namespace) and word in r.id.lower()]
    return JSONResponse([_facts(r, ask.hub.store.commit(r, "main")) for r in found])


def info(ask: Ask) -> Response:
    """Say all there is to say about a repository at a revision."""
    repo, store = asked_repo(ask), ask.hub.store
    commit = store.commit(repo, ask.path.get("revision", "main"))
    facts = _facts(repo, commit)
    blobs = "blobs" in ask.query
    facts["siblings"] = [sibling(path, file, blobs=blobs) for path, file in commit.files.items()]
    facts["usedStorage"] = sum(file.size for file in commit.files.values())
    if (card := commit.files.get("README.md")) is not None:
        facts["cardData"] = card_data(store.blob(repo, card.sha256))
    return JSONResponse(facts)


def _facts(repo: Repo, commit: Commit) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "_id": hashlib.sha256(f"{repo.type}/{repo.id}".encode()).hexdigest()[:24], "id": repo.id,
        "author": repo.namespace, "sha": commit.oid, "lastModified": show_time(commit.created),
        "createdAt": show_time(repo.created), "private": repo.private, "gated": repo.gated, "disabled": False,
        "downloads": 0, "likes": 0, "tags": [],
    }  # fmt: skip
    return facts | ({"modelId": repo.id} if repo.type == "models" else {})


def show_time(seconds: float) -> str:
    """Write a time as the Hub does."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def auth_check(ask: Ask) -> Response:
    """Say whether who asks may read the files, or write them."""
    asked_repo(ask, content=True, write=ask.url.path.endswith("/write"))
    return JSONResponse({})


def refs(ask: Ask) -> Response:
    """List branches and tags."""
    repo = asked_repo(ask)
    heads, tags = (
        [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in ask.hub.store.refs(repo, kind).items()]
        for kind in ("heads", "tags")
    )
    return JSONResponse({"branches": heads, "tags": tags, "converts": [], "pullRequests": []})


def tag(ask: Ask) -> Response:
    """Make a tag (.../tag/REVISION) or delete one (.../tag/NAME)."""
    repo, revision = asked_repo(ask, write=True), ask.path["revision"]
    if ask.method == "DELETE":
        ask.hub.store.delete_ref(repo, "tags", revision)
    else:
        name = text(ask.json(), "tag")
        ask.hub.store.add_ref(repo, "tags", name, ask.hub.store.commit(repo, revision).oid)
    return Response()


def branch(ask: Ask) -> Response:
    """Make or delete a branch (.../branch/NAME)."""
    repo, name = asked_repo(ask, write=True), ask.path["revision"]
    if ask.method == "DELETE":
        ask.hub.store.delete_ref(repo, "heads", name)
    else:
        start = text(ask.json(), "startingPoint", "main")
        ask.hub.store.add_ref(repo, "heads", name, ask.hub.store.commit(repo, start).oid)
    return Response()


def commits(ask: Ask) -> Response:
    """List the commits of a revision, newest first."""
    repo, store = asked_repo(ask), ask.hub.store
    commit: Commit | None = store.commit(repo, ask.query.get("cursor") or ask.path["revision"])
    shown: list[dict[str, Any]] = []
    while commit is not None and len(shown) < PAGE:
        title = commit.message.split("\n")[0]
        shown.append({"id": commit.oid, "title": title, "message": commit.message.partition("\n\n")[2],
                      "date": show_time(commit.created), "authors": [{"user": commit.author}]})  # fmt: skip
        commit = store.commit(repo, commit.parent) if commit.parent else None
    headers = {}
    if commit is not None:
        headers["Link"] = f'<{ask.url.include_query_params(cursor=commit.oid)}>; rel="next"'
    return JSONResponse(shown, headers=headers)
