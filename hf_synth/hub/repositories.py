"""Routes about repositories as wholes: making, settings, deleting, finding, branches and tags."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import Iterator
from typing import Any

from starlette.responses import JSONResponse, Response

from hf_synth.hub.asking import Ask, address, asked_repo, number, text
from hf_synth.hub.cards import Heads, card_tags
from hf_synth.hub.names import HubError, check_name
from hf_synth.hub.store import Store
from hf_synth.hub.tree import Commit, Repo, sibling

PAGE = 50  # commits that one answer shows
LIST = 1000  # repositories
_ORDERS = ("createdAt", "lastModified")
_HEADS = Heads()


def whoami(ask: Ask) -> Response:
    """Say whose the token is."""
    user = ask.signed_in()
    orgs = [
        {"type": "org", "name": o, "fullname": o, "roleInOrg": role} for o, role in ask.hub.users.orgs_of(user).items()
    ]
    shown = {"displayName": ask.token_name or "token", "role": "write" if ask.writes else "read"}
    token = {"type": "access_token", "accessToken": shown}
    return JSONResponse(
        {"type": "user", "id": user, "name": user, "fullname": user, "isPro": False, "orgs": orgs, "auth": token}
    )


def create(ask: Ask) -> Response:
    """Make a repository; its namespace becomes the user's when nobody has it."""
    user, body = ask.signed_in(write=True), ask.json()
    kind = _kind(body)
    namespace, name = text(body, "organization", user) or user, check_name(text(body, "name"))
    ask.hub.users.claim(user, namespace)  # before looking: what is another's must not be told apart from what is not
    id = f"{namespace}/{name}"
    url = ask.origin + address(Repo(kind, id, False, False, 0))
    try:
        repo = ask.hub.store.create(kind, id, user, private=_wants_private(body) or False)
    except HubError as error:
        if error.status != 409:
            raise
        return JSONResponse({"error": error.message, "url": url, "id": id}, 409)
    return JSONResponse({"url": url, "id": repo.id, "name": repo.id})


def delete(ask: Ask) -> Response:
    """Delete a repository and its content."""
    user, body = ask.signed_in(write=True), ask.json()
    ask.path.update(type=_kind(body), org=text(body, "organization", user) or user, name=text(body, "name"))
    ask.hub.store.delete(asked_repo(ask, write=True))
    return Response()


def move(ask: Ask) -> Response:
    """Give a repository another name, or another namespace."""
    user, body = ask.signed_in(write=True), ask.json()
    (org, name), (new_org, new_name) = (_halves(text(body, field)) for field in ("fromRepo", "toRepo"))
    ask.path.update(type=_kind(body), org=org, name=name)
    repo = asked_repo(ask, write=True)
    check_name(new_name)
    ask.hub.users.claim(user, new_org)
    ask.hub.store.move(repo, f"{new_org}/{new_name}")
    return Response()


def _halves(id: str) -> tuple[str, str]:
    org, slash, name = id.partition("/")
    if not slash:
        raise HubError(400, "A repository is called NAMESPACE/NAME")
    return org, name


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
    role = ask.hub.users.role
    return [r for r in ask.hub.store.repos(kind) if not r.private or role(ask.user, r.namespace)]


def listing(ask: Ask) -> Response:
    """List the repositories that who asks may see."""
    author, word = ask.query.get("author"), ask.query.get("search", "").lower()
    wanted, order = set(ask.query.getlist("filter")), ask.query.get("sort")
    repos = [r for r in visible(ask, ask.path["type"]) if author in (None, "", r.namespace) and word in r.id.lower()]
    start = number(ask.query.get("cursor"), 0)
    stop = start + min(max(1, number(ask.query.get("limit"), LIST)), LIST)
    if wanted or order in _ORDERS:  # then all have to be looked into
        found = [facts for facts in _all_facts(ask.hub.store, repos) if wanted <= set(facts["tags"])]
        if order in _ORDERS:
            found.sort(key=lambda facts: str(facts[order]), reverse=True)
        shown, count = found[start:stop], len(found)
    else:
        shown, count = list(_all_facts(ask.hub.store, repos[start:stop])), len(repos)
    return JSONResponse(shown, headers=ask.next_page(stop) if stop < count else {})


def _all_facts(store: Store, repos: list[Repo]) -> Iterator[dict[str, Any]]:
    for repo in repos:
        with contextlib.suppress(FileNotFoundError, HubError):  # deleted meanwhile
            yield _facts(store, repo, store.commit(repo, "main"))


def info(ask: Ask) -> Response:
    """Say all there is to say about a repository at a revision."""
    repo, store = asked_repo(ask), ask.hub.store
    commit = store.commit(repo, ask.path.get("revision", "main"))
    facts = _facts(store, repo, commit)
    blobs = "blobs" in ask.query
    facts["siblings"] = [sibling(path, file, blobs=blobs) for path, file in commit.files.items()]
    facts["usedStorage"] = sum(file.size for file in commit.files.values())
    return JSONResponse(facts)


def _facts(store: Store, repo: Repo, commit: Commit) -> dict[str, Any]:
    card = commit.files.get("README.md")
    data = {} if card is None else _HEADS.of(card.sha256, store.blob(repo, card.sha256))
    facts: dict[str, Any] = {
        "_id": hashlib.sha256(f"{repo.type}/{repo.id}".encode()).hexdigest()[:24], "id": repo.id,
        "author": repo.namespace, "sha": commit.oid, "lastModified": show_time(commit.created),
        "createdAt": show_time(repo.created), "private": repo.private, "gated": repo.gated, "disabled": False,
        "downloads": 0, "likes": 0, "tags": card_tags(data),
    } | ({} if card is None else {"cardData": data})  # fmt: skip
    if repo.type == "models":
        facts |= {"modelId": repo.id} | {key: data[key] for key in ("pipeline_tag", "library_name") if key in data}
    return facts


def show_time(seconds: float) -> str:
    """Write a time as the Hub does."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def auth_check(ask: Ask) -> Response:
    """Say whether who asks may read the files, or write them."""
    asked_repo(ask, content=True)
    return JSONResponse({})


def auth_check_write(ask: Ask) -> Response:
    """Say whether who asks may write."""
    asked_repo(ask, content=True, write=True)
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


def squash(ask: Ask) -> Response:
    """Let a branch begin anew with its files as they are."""
    repo, message = asked_repo(ask, write=True), text(ask.json(), "message", "Super-squash")
    made = ask.hub.store.squash(repo, ask.path["revision"], ask.signed_in(write=True), message)
    return JSONResponse({"commitOid": made.oid})


def owned(ask: Ask) -> Response:
    """List the repositories of who asks, or of an organisation that they belong to, with what they take."""
    user, namespace = ask.signed_in(), ask.path.get("org", ask.user)
    if ask.hub.users.role(user, str(namespace)) is None:
        raise HubError(404, "Organization not found")
    store, shown = ask.hub.store, []
    for repo in (r for kind in ("models", "datasets") for r in store.repos(kind) if r.namespace == namespace):
        with contextlib.suppress(FileNotFoundError, HubError):  # deleted meanwhile
            commit = store.commit(repo, "main")
            size = sum(file.size for file in commit.files.values())
            seen = "private" if repo.private else "public"
            shown.append({"id": repo.id, "type": repo.type[:-1], "updatedAt": show_time(commit.created),
                          "visibility": seen, "storage": size, "storagePercent": 0})  # fmt: skip
    return JSONResponse(shown)


def members(ask: Ask) -> Response:
    """List the members of an organisation, to its members."""
    org, found = ask.path["org"], ask.hub.users.orgs().get(ask.path["org"], {})
    if ask.hub.users.role(ask.user, org) is None or not found:
        raise HubError(401 if ask.user is None else 404, "Organization not found")
    return JSONResponse([{"user": user, "fullname": user, "type": "user", "avatarUrl": ""} for user in sorted(found)])


def commits(ask: Ask) -> Response:
    """List the commits of a revision, newest first."""
    repo, store = asked_repo(ask), ask.hub.store
    commit: Commit | None = store.commit(repo, ask.query.get("cursor") or ask.path["revision"])
    shown: list[dict[str, Any]] = []
    while commit is not None and len(shown) < PAGE:
        body = commit.message.partition("\n\n")[2]
        shown.append(show_commit(commit) | {"message": body, "authors": [{"user": commit.author}]})
        commit = store.commit(repo, commit.parent) if commit.parent else None
    return JSONResponse(shown, headers={} if commit is None else ask.next_page(commit.oid))


def show_commit(commit: Commit) -> dict[str, Any]:
    """Show a commit in short."""
    return {"id": commit.oid, "title": commit.message.split("\n")[0], "date": show_time(commit.created)}
