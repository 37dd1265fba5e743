"""Routes of repositories: create, configure, move, delete, list; branches, tags, commits; users and organisations."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from collections.abc import Iterator
from typing import Any

from starlette.responses import JSONResponse, Response

from hf_synth.hub.cards import Heads, card_tags
from hf_synth.hub.names import HubError, check_name
from hf_synth.hub.request import HubRequest, address, find_repo, number, text
from hf_synth.hub.store import Store
from hf_synth.hub.tree import Commit, Repo, sibling

PAGE = 50  # commits in one answer
LIST = 1000  # repositories in one answer
_ORDERS = ("createdAt", "lastModified")
_HEADS = Heads()


def whoami(request: HubRequest) -> Response:
    """Return the user of the token."""
    user = request.signed_in()
    orgs = [
        {"type": "org", "name": o, "fullname": o, "roleInOrg": role}
        for o, role in request.hub.users.orgs_of(user).items()
    ]
    access = {"displayName": request.token_name or "token", "role": "write" if request.writes else "read"}
    token = {"type": "access_token", "accessToken": access}
    return JSONResponse(
        {"type": "user", "id": user, "name": user, "fullname": user, "isPro": False, "orgs": orgs, "auth": token}
    )


def create(request: HubRequest) -> Response:
    """Create a repository; a namespace that nobody has becomes the user's."""
    user, body = request.signed_in(write=True), request.json()
    kind = _kind(body)
    namespace, name = text(body, "organization", user) or user, check_name(text(body, "name"))
    request.hub.users.claim(user, namespace)  # first: the answer must not reveal what others have
    id = f"{namespace}/{name}"
    url = request.origin + address(Repo(kind, id, False, False, 0))
    try:
        repo = request.store.create(kind, id, user, private=_wants_private(body) or False)
    except HubError as error:
        if error.status != 409:
            raise
        return JSONResponse({"error": error.message, "url": url, "id": id}, 409)
    return JSONResponse({"url": url, "id": repo.id, "name": repo.id})


def delete(request: HubRequest) -> Response:
    """Delete a repository and its content."""
    user, body = request.signed_in(write=True), request.json()
    request.path.update(type=_kind(body), org=text(body, "organization", user) or user, name=text(body, "name"))
    request.store.delete(find_repo(request, write=True))
    return Response()


def move(request: HubRequest) -> Response:
    """Rename a repository, or move it to another namespace."""
    user, body = request.signed_in(write=True), request.json()
    (org, name), (new_org, new_name) = (_split_id(text(body, field)) for field in ("fromRepo", "toRepo"))
    request.path.update(type=_kind(body), org=org, name=name)
    repo = find_repo(request, write=True)
    check_name(new_name)
    request.hub.users.claim(user, new_org)
    request.store.move(repo, f"{new_org}/{new_name}")
    return Response()


def _split_id(id: str) -> tuple[str, str]:
    org, slash, name = id.partition("/")
    if not slash:
        raise HubError(400, "A repository must be named NAMESPACE/NAME")
    return org, name


def settings(request: HubRequest) -> Response:
    """Change visibility and gating of a repository."""
    repo, body = find_repo(request, write=True), request.json()
    gated = body.get("gated")
    if not (gated is None or gated is False or gated in ("auto", "manual")):
        raise HubError(400, "gated must be auto, manual or false")
    repo = request.store.update(repo, private=_wants_private(body), gated=gated)
    return JSONResponse({"private": repo.private, "gated": repo.gated})


def _kind(body: dict[str, Any]) -> str:
    kind = text(body, "type", "model")
    if kind not in ("model", "dataset"):
        raise HubError(400, "Only models and datasets are supported")
    return kind + "s"


def _wants_private(body: dict[str, Any]) -> bool | None:
    visibility, private = body.get("visibility"), body.get("private")
    if visibility not in (None, "private", "public") or private not in (None, True, False):
        raise HubError(400, "visibility must be private or public")
    return private if visibility is None else visibility == "private"


def visible(request: HubRequest, kind: str) -> list[Repo]:
    """Return the repositories of a type that the user may see."""
    role = request.hub.users.role
    return [r for r in request.store.repos(kind) if not r.private or role(request.user, r.namespace)]


def listing(request: HubRequest) -> Response:
    """List the repositories that the user may see."""
    author, word = request.query.get("author"), request.query.get("search", "").lower()
    wanted, order = set(request.query.getlist("filter")), request.query.get("sort")
    repos = [
        r for r in visible(request, request.path["type"]) if author in (None, "", r.namespace) and word in r.id.lower()
    ]
    start = number(request.query.get("cursor"), 0)
    stop = start + min(max(1, number(request.query.get("limit"), LIST)), LIST)
    if wanted or order in _ORDERS:  # needs the facts of all
        matching = [facts for facts in _all_facts(request.store, repos) if wanted <= set(facts["tags"])]
        if order in _ORDERS:
            matching.sort(key=lambda facts: str(facts[order]), reverse=True)
        page, count = matching[start:stop], len(matching)
    else:
        page, count = list(_all_facts(request.store, repos[start:stop])), len(repos)
    return JSONResponse(page, headers=request.next_page(stop) if stop < count else {})


def _all_facts(store: Store, repos: list[Repo]) -> Iterator[dict[str, Any]]:
    for repo in repos:
        with contextlib.suppress(FileNotFoundError, HubError):  # deleted meanwhile
            yield _facts(store, repo, store.commit(repo, "main"))


def info(request: HubRequest) -> Response:
    """Return the facts and files of a repository at a revision."""
    repo, store = find_repo(request), request.store
    commit = store.commit(repo, request.path.get("revision", "main"))
    facts = _facts(store, repo, commit, whole=True)
    blobs = "blobs" in request.query
    facts["siblings"] = [sibling(path, file, blobs=blobs) for path, file in commit.files.items()]
    facts["usedStorage"] = sum(file.size for file in commit.files.values())
    return JSONResponse(facts)


def _facts(store: Store, repo: Repo, commit: Commit, *, whole: bool = False) -> dict[str, Any]:
    card = commit.files.get("README.md")
    data = {} if card is None else _HEADS.of(card.sha256, store.blob(repo, card.sha256), whole=whole)
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
    """Format a time as the public Hub does."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def auth_check(request: HubRequest) -> Response:
    """Check that the user may read the files."""
    find_repo(request, content=True)
    return JSONResponse({})


def auth_check_write(request: HubRequest) -> Response:
    """Check that the user may write."""
    find_repo(request, content=True, write=True)
    return JSONResponse({})


def refs(request: HubRequest) -> Response:
    """List branches and tags."""
    repo = find_repo(request)
    heads, tags = (
        [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": c} for n, c in request.store.refs(repo, kind).items()]
        for kind in ("heads", "tags")
    )
    return JSONResponse({"branches": heads, "tags": tags, "converts": [], "pullRequests": []})


def tag(request: HubRequest) -> Response:
    """Create a tag (.../tag/REVISION) or delete one (.../tag/NAME)."""
    repo, revision = find_repo(request, write=True), request.path["revision"]
    if request.method == "DELETE":
        request.store.delete_ref(repo, "tags", revision)
    else:
        name = text(request.json(), "tag")
        request.store.add_ref(repo, "tags", name, request.store.commit(repo, revision).oid)
    return Response()


def branch(request: HubRequest) -> Response:
    """Create or delete a branch (.../branch/NAME)."""
    repo, name = find_repo(request, write=True), request.path["revision"]
    if request.method == "DELETE":
        request.store.delete_ref(repo, "heads", name)
    else:
        start = text(request.json(), "startingPoint", "main")
        request.store.add_ref(repo, "heads", name, request.store.commit(repo, start).oid)
    return Response()


def squash(request: HubRequest) -> Response:
    """Squash the history of a branch into one commit."""
    repo, message = find_repo(request, write=True), text(request.json(), "message", "Super-squash")
    new = request.store.squash(repo, request.path["revision"], request.signed_in(write=True), message)
    return JSONResponse({"commitOid": new.oid})


def list_owned(request: HubRequest) -> Response:
    """List the repositories of the user, or of one of their organisations, with their size."""
    user, namespace = request.signed_in(), request.path.get("org", request.user)
    if request.hub.users.role(user, str(namespace)) is None:
        raise HubError(404, "Organization not found")
    store, owned = request.store, []
    for repo in (r for kind in ("models", "datasets") for r in store.repos(kind) if r.namespace == namespace):
        with contextlib.suppress(FileNotFoundError, HubError):  # deleted meanwhile
            commit = store.commit(repo, "main")
            size = sum(file.size for file in commit.files.values())
            visibility = "private" if repo.private else "public"
            owned.append({"id": repo.id, "type": repo.type[:-1], "updatedAt": show_time(commit.created),
                          "visibility": visibility, "storage": size, "storagePercent": 0})  # fmt: skip
    return JSONResponse(owned)


def members(request: HubRequest) -> Response:
    """List the members of an organisation, to its members."""
    org = request.path["org"]
    roles = request.hub.users.orgs().get(org, {})
    if request.hub.users.role(request.user, org) is None or not roles:
        raise HubError(401 if request.user is None else 404, "Organization not found")
    return JSONResponse([{"user": user, "fullname": user, "type": "user", "avatarUrl": ""} for user in sorted(roles)])


def commits(request: HubRequest) -> Response:
    """List the commits of a revision, newest first."""
    repo, store = find_repo(request), request.store
    commit: Commit | None = store.commit(repo, request.query.get("cursor") or request.path["revision"])
    page: list[dict[str, Any]] = []
    while commit is not None and len(page) < PAGE:
        body = commit.message.partition("\n\n")[2]
        page.append(show_commit(commit) | {"message": body, "authors": [{"user": commit.author}]})
        commit = store.parent(repo, commit)
    return JSONResponse(page, headers={} if commit is None else request.next_page(commit.oid))


def show_commit(commit: Commit) -> dict[str, Any]:
    """Return id, title and date of a commit."""
    return {"id": commit.oid, "title": commit.message.split("\n")[0], "date": show_time(commit.created)}
