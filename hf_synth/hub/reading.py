"""Routes that read a repository: trees, paths, and files whole or in part."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from starlette.responses import FileResponse, JSONResponse, Response

from hf_synth.hub.asking import Ask, asked_repo, number
from hf_synth.hub.names import HubError
from hf_synth.hub.repositories import show_commit
from hf_synth.hub.store import Store
from hf_synth.hub.tree import Commit, Repo, entries, file_entry, folder_entry, parents

PAGE, EXPANDED_PAGE = 1000, 50  # entries that one answer shows; with the last commit of each
BACK, LOOKED_AT = 1_000, 1_000_000  # commits that one answer goes back, and files in them


def tree(ask: Ask) -> Response:
    """List a folder of a revision, a page at a time."""
    repo = asked_repo(ask)
    commit = ask.hub.store.commit(repo, ask.path["revision"])
    deep, expand = (ask.query.get(name, "").lower() in ("1", "true") for name in ("recursive", "expand"))
    found = entries(commit.files, ask.path.get("path", "").strip("/"), deep=deep)
    most = EXPANDED_PAGE if expand else PAGE
    start = number(ask.query.get("cursor"), 0)
    stop = start + min(max(1, number(ask.query.get("limit"), most)), most)
    shown = found[start:stop]
    if expand:
        _add_last_commits(ask.hub.store, repo, commit, shown)
    return JSONResponse(shown, headers=ask.next_page(stop) if stop < len(found) else {})


def _add_last_commits(store: Store, repo: Repo, commit: Commit, shown: list[dict[str, Any]]) -> None:
    """Add to each entry the commit that last changed it, by going back from one commit.

    An entry that was changed longer ago than one answer goes back gets none: clients know such entries.
    """
    steps = looked_at = 0
    open_ = {entry["path"]: entry for entry in shown}
    now: Commit = commit
    while open_ and steps < BACK and looked_at < LOOKED_AT:
        steps, looked_at = steps + 1, looked_at + len(now.files)
        before = store.commit(repo, now.parent) if now.parent else None
        old = {} if before is None else before.files
        touched = {p for p in now.files.keys() | old.keys() if now.files.get(p) != old.get(p)}
        touched |= {folder for path in touched for folder in parents(path)}
        for path in open_.keys() if before is None else touched & open_.keys():
            open_[path]["lastCommit"] = show_commit(now)
        if before is None:
            return
        open_ = {path: entry for path, entry in open_.items() if path not in touched}
        now = before


def paths_info(ask: Ask) -> Response:
    """Say what some paths are; those that are not there are left out."""
    repo = asked_repo(ask)
    commit = ask.hub.store.commit(repo, ask.path["revision"])
    folders = {folder for path in commit.files for folder in parents(path)}
    body = ask.form("paths", "expand")
    found: list[dict[str, Any]] = []
    for path in (p.strip("/") for p in body["paths"]):
        if path in commit.files:
            found.append(file_entry(path, commit.files[path]))
        elif path in folders:
            found.append(folder_entry(path))
    if "true" in (word.lower() for word in body["expand"]):
        _add_last_commits(ask.hub.store, repo, commit, found)
    return JSONResponse(found)


def resolve(ask: Ask) -> Response:
    """Give a file, or a range of it."""
    repo = asked_repo(ask, content=True)
    commit = ask.hub.store.commit(repo, ask.path["revision"])
    path = ask.path["path"]
    file = commit.files.get(path)
    if file is None:
        raise HubError(404, "Entry not found", "EntryNotFound")
    blob = ask.hub.store.blob(repo, file.sha256)
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.etag}"', "X-Content-Type-Options": "nosniff"}
    if file.lfs:
        headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(file.size)}
    if f'"{file.etag}"' in (part.strip().removeprefix("W/") for part in ask.if_none_match.split(",")):
        return Response(status_code=304, headers=headers)
    # never shown as a page of this origin, whatever it holds
    headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(path.rsplit('/', 1)[-1], safe='')}"
    return FileResponse(blob, headers=headers, media_type="application/octet-stream", stat_result=blob.stat())
