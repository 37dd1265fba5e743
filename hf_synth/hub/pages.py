"""HTML pages: list of repositories, one repository with its card and files, first rows, login, errors.

No script runs and nothing is loaded from elsewhere: there is a content security policy, Jinja escapes every value, and
Markdown is rendered without HTML.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.responses import HTMLResponse, RedirectResponse, Response

from hf_synth.hub.access import requests
from hf_synth.hub.cards import parse_head, split_card
from hf_synth.hub.names import HubError
from hf_synth.hub.repositories import show_time, visible
from hf_synth.hub.request import HubRequest, address, find_repo, number
from hf_synth.hub.tree import Commit, Repo

CARD_LIMIT = 2**20  # bytes of a card on a page
REPOS, FILES, ROWS_FILES = 200, 1000, 50  # on one page
FACT = 60  # characters: a column of longer cells is shown as text
_READERS = threading.BoundedSemaphore(2)  # processes that read rows at once
_STYLE = (
    ":root{color-scheme:light dark;--ink:#1c2126;--paper:#fff;--quiet:#5b646d;--line:#d4d9de;--soft:#f4f6f8;"
    "--link:#0b5cad}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e4e7ea;--paper:#15191d;--quiet:#9aa4ad;--line:#363d44;--soft:#1e2429;"
    "--link:#7db7f5}}"
    "*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:1.5rem auto;padding:0 1rem;"
    "color:var(--ink);background:var(--paper);overflow-wrap:anywhere}"
    "a{color:var(--link)}small{color:var(--quiet);font-size:.875rem}h1,h2,h3{line-height:1.25}h1{font-size:1.6rem}"
    "h2{font-size:1.25rem}h3{font-size:1rem}code,pre{background:var(--soft);border-radius:4px;overflow-wrap:normal}"
    "pre{overflow:auto;padding:.7rem;border:1px solid var(--line)}"
    "table{display:block;max-width:100%;overflow:auto;border-collapse:collapse;overflow-wrap:normal}"
    "td,th{border:1px solid var(--line);padding:.25rem .5rem;text-align:left;vertical-align:top}"
    "details td{overflow-wrap:anywhere;min-width:8rem}"
    "blockquote{margin:1rem 0;padding-left:1rem;border-left:3px solid var(--line)}"
    "nav{margin-bottom:1.5rem}article{border-top:1px solid var(--line);border-bottom:1px solid var(--line)}"
    "section{border-top:1px solid var(--line);padding:.5rem 0}section p{margin:.3rem 0}"
    "section blockquote{white-space:pre-wrap;margin:.3rem 0}"
    "ul{padding-left:1.2rem}li{margin:.25rem 0}input:not([type=checkbox]){max-width:100%}"
    "input,button{font:inherit;color:inherit;background:var(--soft);border:1px solid var(--line);border-radius:4px;"
    "padding:.3rem .6rem}"
)
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LAYOUT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>{{ style|safe }}</style></head><body>
<nav><a href="/">Repositories</a> · {% if user %}{{ user }}{% else %}<a href="/login">Sign in</a>{% endif %}</nav>
<h1>{{ title }}</h1>
{% block body %}{% endblock %}
</body></html>
"""
_HOME = """{% extends "layout" %}{% block body %}
<form action="/"><input name="search" value="{{ search }}" aria-label="Search"> <button>Search</button></form>
{% for kind, repos in found %}<h2>{{ kind }}</h2><ul>
{% for repo in repos %}<li><a href="{{ address(repo) }}">{{ repo.id }}</a>
<small>{% if repo.private %}private{% endif %} {% if repo.gated %}gated{% endif %}</small></li>
{% else %}<li>None that you may see.</li>{% endfor %}</ul>{% endfor %}
{% if more %}<p><a href="/?search={{ search|urlencode }}&amp;cursor={{ more }}">More</a></p>{% endif %}
{% endblock %}"""
_ROWS = """{% extends "layout" %}{% block body %}
<p><a href="{{ address(repo) }}/tree/{{ revision|quote }}">{{ repo.id }}</a> at {{ revision }}:
{% for path in files %}{% if path == file %}<strong>{{ path }}</strong>{% else %}
<a href="?file={{ path|quote }}">{{ path }}</a>{% endif %} {% endfor %}</p>
{% for column, values in labels.items() %}<p>{{ column }}:
<a href="?file={{ file|quote }}">all</a>{% for value in values %} ·
{% if column == chosen[0] and value == chosen[1] %}<strong>{{ value }}</strong>{% else %}
<a href="?file={{ file|quote }}&amp;column={{ column|quote }}&amp;value={{ value|quote }}">{{ value }}</a>{% endif %}
{% endfor %}</p>{% endfor %}
{% if problem %}<p>{{ problem }}</p>{% else %}
<p><small>{{ rows|length }} rows{% if chosen[0] %} with {{ chosen[0] }} {{ chosen[1] }} of the first
{{ "{:,}".format(looked_at) }} that were looked at{% endif %}; the file has {{ "{:,}".format(total) }}.</small></p>
{% for number, facts, texts in rows %}<section><h3>{{ number }}</h3>
{% if facts %}<p><small>{% for name, cell in facts %}{{ name }} <strong>{{ cell }}</strong>
{%- if not loop.last %} · {% endif %}{% endfor %}</small></p>{% endif %}
{% for name, cell in texts %}<p><small>{{ name }}</small></p><blockquote>{{ cell }}</blockquote>{% endfor %}
</section>{% endfor %}
{% endif %}{% endblock %}"""
_REPO = """{% extends "layout" %}{% block body %}
<p>{{ repo.type[:-1] }}, {{ "private" if repo.private else "public" }}{% if repo.gated %}, gated{% endif %}.
<small>Commit {{ commit.oid[:10] }} of {{ when }}: {{ commit.message.split("\\n")[0] }}</small></p>
{% if refs %}<p>{% for ref in refs %}<a href="{{ address(repo) }}/tree/{{ ref|quote }}">{{ ref }}</a> {% endfor %}</p>
{% endif %}
{% if gate == "open" %}{% elif gate == "ask" %}
<form method="post" action="{{ address(repo) }}/ask-access"><p>{{ prompt }}</p>
{% for field, kind in fields %}<p><label>{{ field }} <input name="{{ field }}"
{% if kind == "checkbox" %}type="checkbox" value="true" {% endif %}required></label></p>{% endfor %}
<button>Ask for access</button></form>
{% elif gate == "sign in" %}<p>The files are gated: <a href="/login">sign in</a> to ask for access.</p>
{% else %}<p>Your request for access: {{ gate }}.</p>{% endif %}
{% if facts %}<details><summary>Metadata</summary><table>
{% for key, value in facts %}<tr><th>{{ key }}</th><td>{{ value }}</td></tr>{% endfor %}</table></details>{% endif %}
<article>{{ card|safe }}</article>
<h2>Files</h2>
{% if rows and gate == "open" %}<p><a href="{{ address(repo) }}/viewer/{{ commit.oid }}">First rows</a></p>{% endif %}
<ul>
{% for path, file in files %}<li><a href="{{ address(repo) }}/resolve/{{ commit.oid }}/{{ path|quote }}">{{ path }}</a>
<small>{{ "{:,}".format(file.size) }} bytes</small></li>{% endfor %}</ul>
{% if left_out %}<p>And {{ "{:,}".format(left_out) }} more.</p>{% endif %}
{% endblock %}"""


def home(request: HubRequest) -> Response:
    """List the repositories that the user may see."""
    search, start = request.query.get("search", ""), number(request.query.get("cursor"), 0)
    kinds = {k: [r for r in visible(request, k) if search.lower() in r.id.lower()] for k in ("datasets", "models")}
    lists = [(kind.capitalize(), repos[start : start + REPOS]) for kind, repos in kinds.items()]
    more = start + REPOS if any(len(repos) > start + REPOS for repos in kinds.values()) else None
    return _page("home", request.user, title="Repositories", search=search, found=lists, more=more)


def login(request: HubRequest) -> Response:
    """Have the browser ask for a token, as the password of any user, and send it from then on."""
    request.signed_in()
    return RedirectResponse(f"{request.origin}/", 303)


def page(request: HubRequest) -> Response:
    """Show a repository's card and its list of files."""
    repo = find_repo(request)
    commit = request.store.commit(repo, request.path.get("revision", "main"))
    head, text = _card(request, repo, commit)
    files = list(commit.files.items())
    refs = [name for kind in ("heads", "tags") for name in request.store.refs(repo, kind)]
    fields = head.get("extra_gated_fields")
    return _page(
        "repo", request.user, title=repo.id, repo=repo, commit=commit, when=show_time(commit.created)[:10],
        refs=list(dict.fromkeys(refs)), card=_markdown().render(text) if text.strip() else "<p>No card.</p>",
        facts=[(key, _short(value)) for key, value in head.items()], files=files[:FILES],
        left_out=max(0, len(files) - FILES), gate=_gate(request, repo),
        prompt=_short(head.get("extra_gated_prompt") or "The files are gated: ask for access to them."),
        fields=list(fields.items())[:20] if isinstance(fields, dict) else [], rows=_parquet(repo, commit),
    )  # fmt: skip


def rows(request: HubRequest) -> Response:
    """Show the first rows of a file of a dataset, or the first ones with a label."""
    repo = find_repo(request, content=True)
    revision = request.path["revision"]
    commit = request.store.commit(repo, revision)
    files = _parquet(repo, commit)
    if not files:
        raise HubError(404, "This revision has no rows to show: rows are shown of parquet files", "EntryNotFound")
    file = request.query.get("file") or next((path for path in files if "train" in path), files[0])
    if file not in files:
        raise HubError(404, "Entry not found", "EntryNotFound")
    chosen = request.query.get("column", ""), request.query.get("value", "")
    shown, problem = _first_rows(request.store.blob(repo, commit.files[file].sha256), *chosen), ""
    if shown is None:
        shown, problem = {"columns": [], "rows": [], "numbers": []}, "The rows of this file cannot be shown."
    if chosen[0] not in shown.get("labels", {}):
        chosen = "", ""
    long = [any(len(row[i]) > FACT or "\n" in row[i] for row in shown["rows"]) for i, _ in enumerate(shown["columns"])]
    cells = [list(zip(shown["columns"], row, long, strict=True)) for row in shown["rows"]]
    parts = [
        [[(name, cell) for name, cell, is_text in row if is_text is text and cell] for text in (False, True)]
        for row in cells
    ]
    listed = [(number, *part) for number, part in zip(shown["numbers"], parts, strict=True)]
    return _page(
        "rows", request.user, title="First rows", repo=repo, revision=revision, file=file, files=files[:ROWS_FILES],
        chosen=chosen, labels=shown.get("labels", {}), looked_at=shown.get("looked_at", 0), total=shown.get("total", 0),
        rows=listed, problem=problem,
    )  # fmt: skip


def _parquet(repo: Repo, commit: Commit) -> list[str]:
    """Return the files of a dataset that rows are shown of."""
    return [path for path in commit.files if path.endswith(".parquet")] if repo.type == "datasets" else []


def _first_rows(file: Path, column: str, value: str) -> dict[str, Any] | None:
    """Read rows by a process of its own; None where they cannot be read within its limits."""
    question = json.dumps({"file": str(file), "column": column, "value": value})
    with _READERS:
        try:
            done = subprocess.run(
                [sys.executable, "-P", str(Path(__file__).with_name("preview.py"))],
                input=question, capture_output=True, text=True, timeout=30, check=True,
            )  # fmt: skip
            shown: dict[str, Any] = json.loads(done.stdout)
            return shown
        except (subprocess.SubprocessError, ValueError):
            return None


def _card(request: HubRequest, repo: Repo, commit: Commit) -> tuple[dict[str, Any], str]:
    """Return metadata and text of a card."""
    if (card := commit.files.get("README.md")) is None:
        return {}, ""
    with request.store.blob(repo, card.sha256).open("rb") as file:
        head, text = split_card(file.read(CARD_LIMIT).decode("utf-8", "replace"))
    try:
        return parse_head(head), text
    except ValueError:
        return {}, text


def _gate(request: HubRequest, repo: Repo) -> str:
    """Return the state of the user's access to a repository, for the template."""
    if not repo.gated or request.hub.users.role(request.user, repo.namespace):
        return "open"
    if request.user is None:
        return "sign in"
    entry = requests(request.store, repo).get(request.user)
    return "ask" if entry is None else "open" if entry.status == "accepted" else entry.status


def _short(value: Any) -> str:
    """Format a value of a card's metadata."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:2000]


def refusal(error: HubError) -> Response:
    """Show an error; on status 401 the browser asks for a token."""
    answer = _page("layout", None, title=error.message)
    answer.status_code = error.status
    if error.status == 401:
        answer.headers["WWW-Authenticate"] = 'Basic realm="Hub (password: a token)", charset="UTF-8"'
    return answer


@functools.cache
def _markdown() -> Any:
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    markdown.disable("image")  # nothing is loaded from elsewhere
    return markdown


@functools.cache
def _templates() -> Any:
    from jinja2 import DictLoader, Environment

    pages = {"layout": _LAYOUT, "home": _HOME, "repo": _REPO, "rows": _ROWS}
    environment = Environment(autoescape=True, loader=DictLoader(pages), trim_blocks=True)
    environment.filters["quote"] = lambda text: quote(text, safe="")
    environment.globals.update(address=lambda repo: quote(address(repo)), style=_STYLE)
    return environment


def _page(name: str, user: str | None, **values: Any) -> Response:
    return HTMLResponse(_templates().get_template(name).render(user=user, **values), headers=_HEADERS)
