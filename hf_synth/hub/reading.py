"""Routes that read a repository: trees, information on paths, files and byte ranges of them."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from starlette.responses import FileResponse, JSONResponse, Response

from hf_synth.hub.names import HubError
from hf_synth.hub.repositories import show_commit
from hf_synth.hub.request import HubRequest, find_repo, number
from hf_synth.hub.store import Store
from hf_synth.hub.tree import Commit, Repo, entries, file_entry, folder_entry, parents

PAGE, EXPANDED_PAGE = 1000, 50  # entries in one answer; with the last commit of each
BACK, LOOKED_AT = 1_000, 1_000_000  # commits that one answer may search, and files in them


class _InPieces(FileResponse):
    """A file sent in pieces of 1 MB: each piece passes through a thread, which costs more than to read it."""

    chunk_size = 1 << 20


def tree(request: HubRequest) -> Response:
    """List a folder of a revision, a page at a time."""
    repo = find_repo(request)
    commit = request.store.commit(repo, request.path["revision"])
    deep, expand = (request.query.get(name, "").lower() in ("1", "true") for name in ("recursive", "expand"))
    listed = entries(commit.files, request.path.get("path", "").strip("/"), deep=deep)
    most = EXPANDED_PAGE if expand else PAGE
    start = number(request.query.get("cursor"), 0)
    stop = start + min(max(1, number(request.query.get("limit"), most)), most)
    page = listed[start:stop]
    if expand:
        _add_last_commits(request.store, repo, commit, page)
    return JSONResponse(page, headers=request.next_page(stop) if stop < len(listed) else {})


def _add_last_commits(store: Store, repo: Repo, commit: Commit, page: list[dict[str, Any]]) -> None:
    """Add to each entry the commit that last changed it, searching backwards from one commit.

    The search is limited: entries that were last changed before get none, which clients accept.
    """
    n_commits = n_files = 0
    pending = {entry["path"]: entry for entry in page}
    now: Commit = commit
    while pending and n_commits < BACK and n_files < LOOKED_AT:
        n_commits, n_files = n_commits + 1, n_files + len(now.files)
        before = store.parent(repo, now)
        old = {} if before is None else before.files
        touched = {p for p in now.files.keys() | old.keys() if now.files.get(p) != old.get(p)}
        touched |= {folder for path in touched for folder in parents(path)}
        for path in pending.keys() if before is None else touched & pending.keys():
            pending[path]["lastCommit"] = show_commit(now)
        if before is None:
            return
        pending = {path: entry for path, entry in pending.items() if path not in touched}
        now = before


def paths_info(request: HubRequest) -> Response:
    """Describe files and folders by path; missing ones are left out."""
    repo = find_repo(request)
    commit = request.store.commit(repo, request.path["revision"])
    folders = {folder for path in commit.files for folder in parents(path)}
    body = request.form("paths", "expand")
    listed: list[dict[str, Any]] = []
    for path in (p.strip("/") for p in body["paths"]):
        if path in commit.files:
            listed.append(file_entry(path, commit.files[path]))
        elif path in folders:
            listed.append(folder_entry(path))
    if "true" in (word.lower() for word in body["expand"]):
        _add_last_commits(request.store, repo, commit, listed)
    return JSONResponse(listed)


def resolve(request: HubRequest) -> Response:
    """Send a file, or a byte range of it."""
    repo = find_repo(request, content=True)
    commit = request.store.commit(repo, request.path["revision"])
    path = request.path["path"]
    file = commit.files.get(path)
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound")
    blob = request.store.blob(repo, file.sha256)
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.etag}"', "X-Content-Type-Options": "nosniff"}
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
    if f'"{file.etag}"' in (part.strip().removeprefix("W/") for part in request.if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    # a browser must never show it as a page of this origin
    headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(path.rsplit('/', 1)[-1], safe='')}"
    return _InPieces(blob, headers=headers, media_type="application/octet-stream", stat_result=blob.stat())
