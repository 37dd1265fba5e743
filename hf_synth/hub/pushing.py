"""Routes that write: preupload, commits, large files (git LFS), validation of cards."""

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

from hf_synth.hub.cards import parse_head, split_card
from hf_synth.hub.names import HubError, check_path, check_sha256
from hf_synth.hub.request import Hub, HubRequest, address, byte_count, chunks, find_repo, mapping, number, objects, text
from hf_synth.hub.tree import Change, Repo, is_large

_PIECE = 1 << 20  # bytes of a large file that are hashed at once
_UPLOAD_SECONDS = 86_400  # for which the upload URL of a large file is valid


def validate(request: HubRequest) -> Response:
    """Validate the metadata of a card, for a user: YAML takes time, and strangers cannot make the Hub work.

    `RepoCard.push_to_hub` asks without the token that it pushes with, and for plain text. So that it goes on, it gets
    an answer which says that nothing was checked.

    Raises:
        HubError: 401, there is no token.
    """
    if request.user is None and request.accept == "text/plain":
        unchecked = {"message": "The metadata was not checked: send a token"}
        return JSONResponse({"errors": [], "warnings": [unchecked]})
    request.signed_in()
    head, _ = split_card(text(request.json(), "content"))
    try:
        parse_head(head)
    except ValueError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    return JSONResponse({"errors": [], "warnings": []})


def preupload(request: HubRequest) -> Response:
    """Return for each file of a commit how to upload it, and the id of the existing file."""
    repo = find_repo(request, write=True)
    _refuse_pull_request(request)
    files = request.store.commit(repo, request.path["revision"]).files
    answers = []
    for file in objects(request.json(), "files"):
        path = check_path(text(file, "path"))
        mode = "lfs" if is_large(path, byte_count(file, "size")) else "regular"
        oid = files[path].etag if path in files else None
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return JSONResponse({"files": answers})


def _refuse_pull_request(request: HubRequest) -> None:
    # otherwise a proposed change would go straight to the branch
    if request.query.get("create_pr", "").lower() not in ("", "0", "false"):
        raise HubError(400, "Pull requests are not supported: push to a branch")


def commit(request: HubRequest) -> Response:
    """Add a commit to a branch."""
    repo = find_repo(request, write=True)
    _refuse_pull_request(request)
    header: dict[str, Any] | None = None
    change = Change()
    for line in request.lines():
        value = mapping(line.get("value"), "value")
        if line.get("key") == "header":
            header = value
        else:
            _add(request.hub, repo, change, line.get("key"), value)
    if header is None:
        raise HubError(400, "The commit has no header")
    message = f"{text(header, 'summary', '')}\n\n{text(header, 'description', '')}".strip()
    parent = text(header, "parentCommit") if header.get("parentCommit") is not None else None
    new = request.store.push(repo, request.path["revision"], parent, request.signed_in(write=True), message, change)
    url = f"{request.origin}{address(repo)}/commit/{new.oid}"
    return JSONResponse({"success": True, "commitOid": new.oid, "commitUrl": url, "hookOutput": ""})


def _add(hub: Hub, repo: Repo, change: Change, key: object, value: dict[str, Any]) -> None:
    """Add one line of a commit to its change."""
    path = text(value, "path")
    if key == "file":
        if text(value, "encoding", "base64") != "base64":
            raise HubError(400, "The encoding of a file must be base64")
        try:
            data = base64.b64decode(text(value, "content"), validate=True)
        except (binascii.Error, ValueError):
            raise HubError(400, "The content of a file is not base64") from None
        change.added[check_path(path)] = hub.store.add_small(repo, data)
    elif key == "lfsFile":
        size = None if value.get("size") is None else byte_count(value, "size")  # a copy of a large file has no size
        change.added[check_path(path)] = hub.store.large(repo, text(value, "oid"), size)
    elif key == "deletedFile":
        change.deleted_files.append(check_path(path))
    elif key == "deletedFolder":
        change.deleted_folders.append(check_path(path.rstrip("/")))
    else:
        raise HubError(400, "A commit can only add files and delete files or folders")


def lfs_batch(request: HubRequest) -> Response:
    """Return an upload URL for each large file that the repository lacks."""
    repo, body = find_repo(request, write=True), request.json()
    if text(body, "operation", "upload") != "upload":
        raise HubError(400, "Download large files at /resolve/")
    place = f"{request.origin}/lfs/{repo.type}/{repo.id}"
    answers = []
    for file in objects(body, "objects"):
        sha, size = check_sha256(text(file, "oid")), byte_count(file, "size")
        answer: dict[str, Any] = {"oid": sha, "size": size}
        if size > request.hub.limits.file:
            answer["error"] = {"code": 413, "message": "The file is too large for this Hub"}
        elif not request.store.has(repo, sha):
            until = int(time.time()) + _UPLOAD_SECONDS
            key = _signature(request.hub, repo, sha, size, until)
            answer["actions"] = {
                "upload": {"href": f"{place}/{sha}/{size}?until={until}&key={key}"},
                "verify": {"href": f"{place}/{sha}/verify"},
            }
        answers.append(answer)
    return JSONResponse({"transfer": "basic", "objects": answers}, media_type="application/vnd.git-lfs+json")


def _signature(hub: Hub, repo: Repo, sha: str, size: int, until: int) -> str:
    """Sign an upload: clients send large files without their token, as to a presigned URL."""
    return hmac.new(hub.secret, f"{repo.type}/{repo.id}/{sha}/{size}/{until}".encode(), "sha256").hexdigest()


async def lfs_put(hub: Hub, path: dict[str, str], request: Request) -> Response:
    """Receive a large file; its URL must be signed, and its size and hash as announced.

    Pieces of 1 MB are hashed and written in a thread, so that other requests are answered meanwhile.
    """
    repo = hub.store.repo(path["type"], f"{path['org']}/{path['name']}")
    sha, size, until = path["sha"], number(path["size"], 0), number(request.query_params.get("until"), 0)
    key = request.query_params.get("key", "").encode()
    if repo is None or not hmac.compare_digest(key, _signature(hub, repo, sha, size, until).encode()):
        raise HubError(403, "The upload URL is not valid")
    if until < time.time():
        raise HubError(403, "The upload URL has expired; request a new one")
    handle, name = tempfile.mkstemp(dir=hub.store.tmp)
    draft, digest, received, piece = Path(name), hashlib.sha256(), 0, bytearray()
    try:
        with os.fdopen(handle, "wb") as out:

            def keep() -> None:
                digest.update(piece)
                out.write(piece)

            async for chunk in chunks(request, hub.limits.idle):
                received += len(chunk)
                if received > size:
                    raise HubError(413, "The content is larger than announced")
                piece += chunk
                if len(piece) >= _PIECE:
                    await run_in_threadpool(keep)
                    piece.clear()
            await run_in_threadpool(keep)
            out.flush()
            await run_in_threadpool(os.fsync, out.fileno())
        if received != size or digest.hexdigest() != sha:
            raise HubError(400, "The content does not have the announced size and hash")
        await run_in_threadpool(hub.store.add_upload, repo, sha, draft)
    finally:
        draft.unlink(missing_ok=True)
    return Response()


def lfs_verify(request: HubRequest) -> Response:
    """Check that a large file was uploaded."""
    request.store.large(find_repo(request, write=True), request.path["sha"], byte_count(request.json(), "size"))
    return JSONResponse({})
