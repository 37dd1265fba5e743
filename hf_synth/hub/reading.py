"""Routes that read a repository: trees, paths, and files whole or in part."""

from __future__ import annotations

from urllib.parse import quote

from starlette.responses import FileResponse, JSONResponse, Response

from hf_synth.hub.asking import Ask, asked_repo
from hf_synth.hub.names import HubError
from hf_synth.hub.tree import entries, file_entry, folder_entry, parents

PAGE = 1000  # entries that one answer shows


def tree(ask: Ask) -> Response:
    """List a folder of a revision, a page at a time."""
    commit = ask.hub.store.commit(asked_repo(ask), ask.path["revision"])
    deep = ask.query.get("recursive", "").lower() in ("1", "true")
    found = entries(commit.files, ask.path.get("path", "").strip("/"), deep=deep)
    start = _number(ask.query.get("cursor"), 0)
    stop = start + max(1, _number(ask.query.get("limit"), PAGE))
    headers = {}
    if stop < len(found):
        headers["Link"] = f'<{ask.url.include_query_params(cursor=stop)}>; rel="next"'
    return JSONResponse(found[start:stop], headers=headers)


def _number(value: str | None, default: int) -> int:
    if not value:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 16):
        raise HubError(400, "cursor and limit must be whole numbers")
    return int(value)


def paths_info(ask: Ask) -> Response:
    """Say what some paths are; those that are not there are left out."""
    commit = ask.hub.store.commit(asked_repo(ask), ask.path["revision"])
    folders = {folder for path in commit.files for folder in parents(path)}
    found = []
    for path in (p.strip("/") for p in ask.form("paths")):
        if path in commit.files:
            found.append(file_entry(path, commit.files[path]))
        elif path in folders:
            found.append(folder_entry(path))
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
    # never shown as a page of this origin, whatever it holds
    headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(path.rsplit('/', 1)[-1], safe='')}"
    return FileResponse(blob, headers=headers, media_type="application/octet-stream", stat_result=blob.stat())
