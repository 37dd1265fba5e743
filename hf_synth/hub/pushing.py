"""Routes that write: what a client asks before a commit, the commit, and large files (git LFS)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from hf_synth.hub.asking import Ask, Hub, address, asked_repo, inner, number, objects, parts, text, whole
from hf_synth.hub.cards import parse_head, split_card
from hf_synth.hub.names import HubError, check_path, check_sha256
from hf_synth.hub.tree import Change, Repo, is_large

_UPLOAD_SECONDS = 86_400  # for which an address to put a large file to is good


def validate(ask: Ask) -> Response:
    """Say whether the metadata of a card can be read."""
    head, _ = split_card(text(ask.json(), "content"))
    try:
        parse_head(head)
    except ValueError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    return JSONResponse({"errors": [], "warnings": []})


def preupload(ask: Ask) -> Response:
    """Say how each file is to travel, and what is there already."""
    repo = asked_repo(ask, write=True)
    _refuse_pull_request(ask)
    files = ask.hub.store.commit(repo, ask.path["revision"]).files
    answers = []
    for asked in objects(ask.json(), "files"):
        path = check_path(text(asked, "path"))
        there = files.get(path)
        mode = "lfs" if is_large(path, whole(asked, "size")) else "regular"
        oid = None if there is None else there.etag
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return JSONResponse({"files": answers})


def _refuse_pull_request(ask: Ask) -> None:
    # else what somebody only proposes would go straight to the branch
    if ask.query.get("create_pr", "").lower() not in ("", "0", "false"):
        raise HubError(400, "Pull requests are not kept here: push to a branch")


def commit(ask: Ask) -> Response:
    """Add a commit to a branch."""
    repo = asked_repo(ask, write=True)
    _refuse_pull_request(ask)
    head: dict[str, Any] | None = None
    change = Change()
    for line in ask.lines():
        value = inner(line.get("value"), "value")
        if line.get("key") == "header":
            head = value
        else:
            _add(ask.hub, repo, change, line.get("key"), value)
    if head is None:
        raise HubError(400, "The commit has no header")
    message = f"{text(head, 'summary', '')}\n\n{text(head, 'description', '')}".strip()
    parent = text(head, "parentCommit") if head.get("parentCommit") is not None else None
    made = ask.hub.store.push(repo, ask.path["revision"], parent, ask.signed_in(write=True), message, change)
    url = f"{ask.origin}{address(repo)}/commit/{made.oid}"
    return JSONResponse({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


def _add(hub: Hub, repo: Repo, change: Change, key: object, value: dict[str, Any]) -> None:
    """Add one line of a commit to its change."""
    path = text(value, "path")
    if key == "file":
        if text(value, "encoding", "base64") != "base64":
            raise HubError(400, "Only base64 is understood")
        try:
            data = base64.b64decode(text(value, "content"), validate=True)
        except (binascii.Error, ValueError):
            raise HubError(400, "The content of a file is not base64") from None
        change.added[check_path(path)] = hub.store.add_small(repo, data)
    elif key == "lfsFile":
        size = None if value.get("size") is None else whole(value, "size")  # a copy of a large file names no size
        change.added[check_path(path)] = hub.store.large(repo, text(value, "oid"), size)
    elif key == "deletedFile":
        change.deleted_files.append(check_path(path))
    elif key == "deletedFolder":
        change.deleted_folders.append(check_path(path.rstrip("/")))
    else:
        raise HubError(400, "Only files and deletions are understood in a commit")


def lfs_batch(ask: Ask) -> Response:
    """Say where each large file is to be put; one that this repository has needs no upload."""
    repo, body = asked_repo(ask, write=True), ask.json()
    if text(body, "operation", "upload") != "upload":
        raise HubError(400, "Large files are read at /resolve/")
    place = f"{ask.origin}/lfs/{repo.type}/{repo.id}"
    answers = []
    for asked in objects(body, "objects"):
        sha, size = check_sha256(text(asked, "oid")), whole(asked, "size")
        known: dict[str, Any] = {"oid": sha, "size": size}
        if size > ask.hub.limits.file:
            known["error"] = {"code": 413, "message": "The file is too large for this Hub"}
        elif not ask.hub.store.has(repo, sha):
            until = int(time.time()) + _UPLOAD_SECONDS
            key = _signed(ask.hub, repo, sha, size, until)
            known["actions"] = {
                "upload": {"href": f"{place}/{sha}/{size}?until={until}&key={key}"},
                "verify": {"href": f"{place}/{sha}/verify"},
            }
        answers.append(known)
    return JSONResponse({"transfer": "basic", "objects": answers}, media_type="application/vnd.git-lfs+json")


def _signed(hub: Hub, repo: Repo, sha: str, size: int, until: int) -> str:
    """Sign an upload: clients put large files without their token, as to a presigned address."""
    return hmac.new(hub.secret, f"{repo.type}/{repo.id}/{sha}/{size}/{until}".encode(), hashlib.sha256).hexdigest()


async def lfs_put(hub: Hub, path: dict[str, str], request: Request) -> Response:
    """Take a large file in as it comes, if it was asked for and is what was promised."""
    repo = hub.store.repo(path["type"], f"{path['org']}/{path['name']}")
    sha, size, until = path["sha"], number(path["size"], 0), number(request.query_params.get("until"), 0)
    key = request.query_params.get("key", "").encode()
    if repo is None or not hmac.compare_digest(key, _signed(hub, repo, sha, size, until).encode()):
        raise HubError(403, "This upload was not asked for")
    if until < time.time():
        raise HubError(403, "This upload was asked for too long ago; ask again")
    handle, name = tempfile.mkstemp(dir=hub.store.tmp)
    draft, digest, found = Path(name), hashlib.sha256(), 0
    try:
        with os.fdopen(handle, "wb") as out:
            async for chunk in parts(request, hub.limits.idle):
                found += len(chunk)
                if found > size:
                    raise HubError(413, "The content is longer than was promised")
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            await run_in_threadpool(os.fsync, out.fileno())
        if found != size or digest.hexdigest() != sha:
            raise HubError(400, "The content is not what was promised")
        await run_in_threadpool(hub.store.take_upload, repo, sha, draft)
    finally:
        draft.unlink(missing_ok=True)
    return Response()


def lfs_verify(ask: Ask) -> Response:
    """Say whether a large file arrived."""
    ask.hub.store.large(asked_repo(ask, write=True), ask.path["sha"], whole(ask.json(), "size"))
    return JSONResponse({})
