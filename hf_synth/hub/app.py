"""The routes that Hugging Face clients use, over a `Store`. What is not known answers 404."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import html
import json
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from hf_synth.hub.store import Commit, File, HubError, Repo, RepoType, Store, check_path, is_large

BODY_LIMIT = 256 * 2**20  # bytes of one JSON or commit body
FILE_LIMIT = 64 * 2**30  # bytes of one large file

Reply = Callable[[Request], Awaitable[Response]]


def create_app(root: Path, *, tokens: dict[str, str] | None = None) -> Starlette:
    """Make the app of a Hub whose repositories lie in a folder.

    Args:
        tokens: further users, {name: token}; user "local" with the token in ROOT/token is always there.
    """
    store = Store(root)
    store.default_token()
    for name, token in (tokens or {}).items():
        store.add_user(name, token)
    routes = _Routes(store)
    table: list[tuple[str, str, Reply]] = [
        ("GET", "/api/whoami-v2", routes.whoami),
        ("POST", "/api/repos/create", routes.create),
        ("DELETE", "/api/repos/delete", routes.delete),
        ("POST", "/api/validate-yaml", routes.validate),
        ("GET", "/api/{type}", routes.listing),
        ("GET", "/api/{type}/{org}/{name}", routes.info),
        ("GET", "/api/{type}/{org}/{name}/revision/{revision:path}", routes.info),
        ("PUT", "/api/{type}/{org}/{name}/settings", routes.settings),
        ("GET", "/api/{type}/{org}/{name}/refs", routes.refs),
        ("GET", "/api/{type}/{org}/{name}/commits/{revision}", routes.commits),
        ("GET", "/api/{type}/{org}/{name}/tree/{revision}", routes.tree),
        ("GET", "/api/{type}/{org}/{name}/tree/{revision}/{path:path}", routes.tree),
        ("POST", "/api/{type}/{org}/{name}/paths-info/{revision}", routes.paths_info),
        ("POST", "/api/{type}/{org}/{name}/preupload/{revision}", routes.preupload),
        ("POST", "/api/{type}/{org}/{name}/commit/{revision}", routes.commit),
        ("POST", "/api/{type}/{org}/{name}/tag/{revision}", routes.tag),
        ("DELETE", "/api/{type}/{org}/{name}/tag/{revision}", routes.tag),
        ("POST", "/api/{type}/{org}/{name}/branch/{revision}", routes.branch),
        ("DELETE", "/api/{type}/{org}/{name}/branch/{revision}", routes.branch),
        ("POST", "/{org}/{name}.git/info/lfs/objects/batch", routes.lfs_batch),
        ("POST", "/datasets/{org}/{name}.git/info/lfs/objects/batch", routes.lfs_batch),
        ("PUT", "/lfs/{type}/{org}/{name}/{sha}", routes.lfs_put),
        ("POST", "/lfs/{type}/{org}/{name}/{sha}/verify", routes.lfs_verify),
        ("GET", "/datasets/{org}/{name}/resolve/{revision}/{path:path}", routes.resolve),
        ("GET", "/{org}/{name}/resolve/{revision}/{path:path}", routes.resolve),
        ("GET", "/", routes.home),
        ("GET", "/datasets/{org}/{name}", routes.page),
        ("GET", "/{org}/{name}", routes.page),
    ]
    app = Starlette(routes=[Route(path, _guarded(run), methods=[method]) for method, path, run in table])
    app.add_exception_handler(HTTPException, _not_found)
    return app


def _guarded(run: Reply) -> Reply:
    async def guarded(request: Request) -> Response:
        try:
            return await run(request)
        except HubError as error:
            said = re.sub(r"[^ -~]", "?", error.message)  # a path may hold what a header must not
            headers = {"X-Error-Message": said} | ({"X-Error-Code": error.code} if error.code else {})
            return JSONResponse({"error": error.message}, error.status, headers=headers)
        except (ClientDisconnect, UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return JSONResponse({"error": "The request is malformed"}, 400)

    return guarded


async def _not_found(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": "Not found"}, getattr(error, "status_code", 404))


class _Routes:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.secret = secrets.token_bytes(32)

    # --- who and what -------------------------------------------------------------------------------------------

    def _user(self, request: Request) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return self.store.user_of(token.strip() if scheme.lower() == "bearer" else None)

    def _signed_in(self, request: Request) -> str:
        user = self._user(request)
        if user is None:
            raise HubError(401, "Invalid credentials in Authorization header")
        return user

    def _repo(self, request: Request, *, write: bool = False, content: bool = False) -> Repo:
        """Give the repository of a path, if the caller may do this with it."""
        kind = request.path_params.get("type") or (
            "datasets" if request.url.path.startswith("/datasets/") else "models"
        )
        id = f"{request.path_params['org']}/{request.path_params['name']}"
        user = self._user(request)
        repo = self.store.repo(kind, id)
        if repo is None or (repo.private and user != repo.owner):
            raise HubError(401 if user is None else 404, "Repository not found", "RepoNotFound")
        if write and user != repo.owner:
            raise HubError(401 if user is None else 403, "You have no right to write to this repository")
        if content and repo.gated and user != repo.owner:
            raise HubError(401 if user is None else 403, "Access to this repository is restricted", "GatedRepo")
        return repo

    async def whoami(self, request: Request) -> Response:
        user = self._signed_in(request)
        orgs = sorted({r.id.split("/")[0] for r in self.store.repos() if r.owner == user} - {user})
        return JSONResponse({"type": "user", "id": user, "name": user, "fullname": user, "isPro": False, "orgs": [
            {"type": "org", "name": o, "roleInOrg": "admin"} for o in orgs],
            "auth": {"type": "access_token", "accessToken": {"displayName": "local", "role": "write"}}})  # fmt: skip

    # --- repositories -------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        user, body = self._signed_in(request), await _json(request)
        kind: RepoType = "datasets" if body.get("type") == "dataset" else "models"
        if body.get("type") not in (None, "model", "dataset"):
            raise HubError(400, "Only models and datasets are kept here")
        id = f"{body.get('organization') or user}/{body['name']}"
        private = body.get("visibility") == "private" or bool(body.get("private"))
        url = str(request.base_url).rstrip("/") + ("/datasets/" if kind == "datasets" else "/") + id
        try:
            repo = await run_in_threadpool(self.store.create, kind, id, user, private=private)
        except HubError as error:
            if error.status == 409:
                return JSONResponse({"error": error.message, "url": url, "id": id}, 409)
            raise
        return JSONResponse({"url": url, "id": repo.id, "name": repo.id})

    async def delete(self, request: Request) -> Response:
        user, body = self._signed_in(request), await _json(request)
        request.path_params.update(
            type="datasets" if body.get("type") == "dataset" else "models", org=body.get("organization") or user,
            name=body["name"],
        )  # fmt: skip
        await run_in_threadpool(self.store.delete, self._repo(request, write=True))
        return Response(status_code=200)

    async def settings(self, request: Request) -> Response:
        repo, body = self._repo(request, write=True), await _json(request)
        private = body.get("private")
        if "visibility" in body:
            private = body["visibility"] == "private"
        gated = body.get("gated")
        if gated not in (None, False, "auto", "manual") or not isinstance(private, bool | None):
            raise HubError(400, "gated is auto, manual or false; private is true or false")
        await run_in_threadpool(self.store.update, repo, private=private, gated=gated)
        return JSONResponse({"gated": gated, "private": private})

    async def listing(self, request: Request) -> Response:
        kind, user = request.path_params["type"], self._user(request)
        if kind not in ("models", "datasets"):
            raise HubError(404, "Not found")
        seen = [r for r in self.store.repos() if r.type == kind and (not r.private or r.owner == user)]
        author, word = request.query_params.get("author"), request.query_params.get("search", "")
        seen = [r for r in seen if (not author or r.id.split("/")[0] == author) and word.lower() in r.id.lower()]
        return JSONResponse([self._facts(r, self.store.commit(r, "main"), files=False) for r in seen])

    async def info(self, request: Request) -> Response:
        repo = self._repo(request)
        commit = self.store.commit(repo, request.path_params.get("revision", "main"))
        return JSONResponse(self._facts(repo, commit, files=True, blobs="blobs" in request.query_params))

    def _facts(self, repo: Repo, commit: Commit, *, files: bool, blobs: bool = False) -> dict[str, Any]:
        facts: dict[str, Any] = {
            "_id": hashlib.sha1(repo.id.encode(), usedforsecurity=False).hexdigest()[:24], "id": repo.id,
            "author": repo.id.split("/")[0], "sha": commit.oid, "lastModified": _time(commit.created),
            "createdAt": _time(repo.created), "private": repo.private, "gated": repo.gated, "disabled": False,
            "downloads": 0, "likes": 0, "tags": [], "siblings": [],
        }  # fmt: skip
        if repo.type == "models":
            facts["modelId"] = repo.id
        if files:
            facts["siblings"] = [{"rfilename": p} | (_size(f) if blobs else {}) for p, f in commit.files.items()]
        return facts

    async def refs(self, request: Request) -> Response:
        refs = self.store.refs(self._repo(request))
        return JSONResponse({
            "branches": [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in refs["heads"].items()],
            "tags": [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in refs["tags"].items()],
            "converts": [], "pullRequests": [],
        })  # fmt: skip

    async def commits(self, request: Request) -> Response:
        repo = self._repo(request)
        return JSONResponse([
            {"id": c.oid, "title": c.message.split("\n")[0], "message": c.message, "date": _time(c.created),
             "authors": [{"user": repo.owner}]}
            for c in self.store.history(repo, request.path_params["revision"])
        ])  # fmt: skip

    async def tag(self, request: Request) -> Response:
        return await self._ref(request, "tags")

    async def branch(self, request: Request) -> Response:
        return await self._ref(request, "heads")

    async def _ref(self, request: Request, kind: str) -> Response:
        repo, name = self._repo(request, write=True), request.path_params["revision"]
        if request.method == "DELETE":
            await run_in_threadpool(self.store.set_ref, repo, kind, name, None)
            return Response(status_code=200)
        body = await _json(request)
        if kind == "tags":  # .../tag/REVISION {tag: NAME}, but .../branch/NAME {startingPoint: REVISION}
            start, name = name, str(body["tag"])
        else:
            start = str(body.get("startingPoint") or "main")
        commit = self.store.commit(repo, start)
        await run_in_threadpool(self.store.set_ref, repo, kind, name, commit.oid)
        return Response(status_code=200)

    # --- trees --------------------------------------------------------------------------------------------------

    async def tree(self, request: Request) -> Response:
        repo = self._repo(request)
        commit = self.store.commit(repo, request.path_params["revision"])
        inside = request.path_params.get("path", "").strip("/")
        deep = request.query_params.get("recursive", "").lower() in ("1", "true")
        entries = _entries(commit, inside, deep)
        if inside and not entries:
            raise HubError(404, f"{inside} does not exist on this revision", "EntryNotFound")
        start, limit = (
            int(request.query_params.get("cursor") or 0),
            max(1, int(request.query_params.get("limit") or 1000)),
        )
        headers = {}
        if start + limit < len(entries):
            url = request.url.include_query_params(cursor=start + limit)
            headers["Link"] = f'<{url}>; rel="next"'
        return JSONResponse(entries[start : start + limit], headers=headers)

    async def paths_info(self, request: Request) -> Response:
        repo = self._repo(request)
        commit = self.store.commit(repo, request.path_params["revision"])
        if "json" in request.headers.get("content-type", ""):
            paths = (await _json(request)).get("paths", [])
        else:
            paths = (await request.form()).getlist("paths")
        found = []
        for path in paths if isinstance(paths, list) else [paths]:
            path = str(path).strip("/")
            if path in commit.files:
                found.append(_file_entry(path, commit.files[path]))
            elif any(p.startswith(path + "/") for p in commit.files):
                found.append(_folder_entry(path))
        return JSONResponse(found)

    # --- writing ------------------------------------------------------------------------------------------------

    async def validate(self, request: Request) -> Response:
        await _json(request)
        return JSONResponse({"errors": [], "warnings": []})

    async def preupload(self, request: Request) -> Response:
        repo = self._repo(request, write=True)
        commit = self.store.commit(repo, request.path_params["revision"])
        answers = []
        for asked in (await _json(request))["files"]:
            path = check_path(str(asked["path"]))
            there = commit.files.get(path)
            oid = None if there is None else there.sha256 if there.lfs else there.oid
            mode = "lfs" if is_large(path, int(asked.get("size", 0))) else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return JSONResponse({"files": answers})

    async def commit(self, request: Request) -> Response:
        repo, body = self._repo(request, write=True), await _body(request)
        head: dict[str, Any] = {}
        files: dict[str, File] = {}
        deleted: list[str] = []
        for line in body.splitlines():
            if not line.strip():
                continue
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                head = value
            elif key == "file":
                if value.get("encoding", "base64") != "base64":
                    raise HubError(400, "Only base64 is understood")
                data = base64.b64decode(value["content"], validate=True)
                files[check_path(value["path"])] = await run_in_threadpool(self.store.add_small, data)
            elif key == "lfsFile":
                files[check_path(value["path"])] = self.store.large(value["oid"], int(value["size"]))
            elif key in ("deletedFile", "deletedFolder"):
                deleted.append(check_path(value["path"].rstrip("/")))
            else:
                raise HubError(400, "Only files and deletions are understood in a commit")
        made = await run_in_threadpool(
            self.store.push,
            repo,
            request.path_params["revision"],
            head.get("parentCommit"),
            str(head.get("summary", "")),
            files,
            deleted,
        )
        place = "datasets/" if repo.type == "datasets" else ""
        url = f"{str(request.base_url).rstrip('/')}/{place}{repo.id}/commit/{made.oid}"
        return JSONResponse({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})

    async def lfs_batch(self, request: Request) -> Response:
        repo, body = self._repo(request, write=True), await _json(request)
        place = f"{str(request.base_url).rstrip('/')}/lfs/{repo.type}/{repo.id}"
        objects = []
        for asked in body["objects"]:
            sha, size = str(asked["oid"]), int(asked["size"])
            blob = self.store.blob(sha)
            known: dict[str, Any] = {"oid": sha, "size": size}
            if not (blob.is_file() and blob.stat().st_size == size):
                known["actions"] = {
                    "upload": {"href": f"{place}/{sha}?key={self._signed(repo, sha)}"},
                    "verify": {"href": f"{place}/{sha}/verify"},
                }
            objects.append(known)
        return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")

    def _signed(self, repo: Repo, sha: str) -> str:
        """Sign an upload: clients put large files without their token, as to a presigned address."""
        return hmac.new(self.secret, f"{repo.type}/{repo.id}/{sha}".encode(), hashlib.sha256).hexdigest()

    async def lfs_put(self, request: Request) -> Response:
        kind: RepoType = "datasets" if request.path_params["type"] == "datasets" else "models"
        sha = request.path_params["sha"]
        repo = self.store.repo(kind, f"{request.path_params['org']}/{request.path_params['name']}")
        if repo is None or not hmac.compare_digest(request.query_params.get("key", ""), self._signed(repo, sha)):
            raise HubError(403, "This upload was not asked for")
        self.store.blob(sha)
        handle, name = tempfile.mkstemp(dir=self.store.root / "tmp")
        draft, digest, size = Path(name), hashlib.sha256(), 0
        try:
            with os.fdopen(handle, "wb") as out:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > FILE_LIMIT:
                        raise HubError(413, "The file is too large")
                    digest.update(chunk)
                    out.write(chunk)
                out.flush()
                await run_in_threadpool(os.fsync, out.fileno())
            await run_in_threadpool(self.store.accept, sha, draft, digest.hexdigest())
        finally:
            draft.unlink(missing_ok=True)
        return Response(status_code=200)

    async def lfs_verify(self, request: Request) -> Response:
        self._repo(request, write=True)
        body = await _json(request)
        self.store.large(request.path_params["sha"], int(body["size"]))
        return JSONResponse({})

    # --- reading ------------------------------------------------------------------------------------------------

    async def resolve(self, request: Request) -> Response:
        repo = self._repo(request, content=True)
        commit = self.store.commit(repo, request.path_params["revision"])
        file = commit.files.get(request.path_params["path"])
        if file is None:
            raise HubError(404, "Entry not found", "EntryNotFound")
        etag = f'"{file.sha256 if file.lfs else file.oid}"'
        headers = {"X-Repo-Commit": commit.oid, "ETag": etag, "Accept-Ranges": "bytes"}
        if file.lfs:
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(file.size)}
        name = quote(request.path_params["path"].rsplit("/", 1)[-1], safe="")
        headers["Content-Disposition"] = f"inline; filename*=UTF-8''{name}"
        return FileResponse(self.store.blob(file.sha256), headers=headers, media_type="application/octet-stream")

    # --- pages --------------------------------------------------------------------------------------------------

    async def home(self, request: Request) -> Response:
        user = self._user(request)
        rows = []
        for repo in self.store.repos():
            if not repo.private or repo.owner == user:
                place = "/datasets/" if repo.type == "datasets" else "/"
                marks = "".join(f" · {m}" for m, on in (("private", repo.private), ("gated", repo.gated)) if on)
                rows.append(f'<li><a href="{place}{repo.id}">{repo.id}</a> <small>{repo.type[:-1]}{marks}</small></li>')
        return HTMLResponse(
            _page("Repositories", f"<ul>{''.join(rows)}</ul>" if rows else "<p>None that you may see.</p>")
        )

    async def page(self, request: Request) -> Response:
        repo = self._repo(request)
        commit = self.store.commit(repo, "main")
        files = "".join(f"<li>{html.escape(p)} <small>{f.size:,} bytes</small></li>" for p, f in commit.files.items())
        card = commit.files.get("README.md")
        text = self.store.blob(card.sha256).read_text(encoding="utf-8", errors="replace") if card else "No card."
        text = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
        return HTMLResponse(_page(repo.id, f"<pre>{html.escape(text)}</pre><h2>Files</h2><ul>{files}</ul>"))


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "pre{white-space:pre-wrap;font:inherit}small{opacity:.7}"
)


def _page(title: str, body: str) -> str:
    title = html.escape(title)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f"{head}<h1>{title}</h1>{body}</html>"


# --- small things ---------------------------------------------------------------------------------------------------


async def _body(request: Request) -> bytes:
    chunks: list[bytes] = []
    size = 0
    stream: AsyncIterator[bytes] = request.stream()
    async for chunk in stream:
        size += len(chunk)
        if size > BODY_LIMIT:
            raise HubError(413, "The request is too large")
        chunks.append(chunk)
    return b"".join(chunks)


async def _json(request: Request) -> dict[str, Any]:
    body = json.loads(await _body(request) or b"{}")
    if not isinstance(body, dict):
        raise HubError(400, "Not a JSON object")
    return body


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _size(file: File) -> dict[str, Any]:
    large = {"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {}
    return {"size": file.size, "blobId": file.oid, **large}


def _file_entry(path: str, file: File) -> dict[str, Any]:
    large = {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 134}} if file.lfs else {}
    return {"type": "file", "path": path, "oid": file.oid, "size": file.size, **large}


def _folder_entry(path: str) -> dict[str, Any]:
    return {
        "type": "directory",
        "path": path,
        "size": 0,
        "oid": hashlib.sha1(path.encode(), usedforsecurity=False).hexdigest(),
    }


def _entries(commit: Commit, inside: str, deep: bool) -> list[dict[str, Any]]:
    """List what lies in a folder of a commit; with all below it when deep."""
    prefix = f"{inside}/" if inside else ""
    entries: dict[str, dict[str, Any]] = {}
    for path, file in commit.files.items():
        if not path.startswith(prefix):
            continue
        parts = path[len(prefix) :].split("/")
        for depth in range(1, len(parts)):
            folder = prefix + "/".join(parts[:depth])
            if deep or depth == 1:
                entries.setdefault(folder, _folder_entry(folder))
        if deep or len(parts) == 1:
            entries[path] = _file_entry(path, file)
    return list(entries.values())
