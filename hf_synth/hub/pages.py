"""Two plain pages for people: what is here, and one repository's card. Everything shown is escaped; no script runs."""

from __future__ import annotations

from html import escape

from starlette.responses import HTMLResponse, Response

from hf_synth.hub.asking import Ask, asked_repo
from hf_synth.hub.cards import split_card
from hf_synth.hub.repositories import visible

CARD_LIMIT = 2**20  # bytes of a card that a page shows
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}"
    "pre{white-space:pre-wrap;font:inherit}small{opacity:.7}"
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def home(ask: Ask) -> Response:
    """Show the repositories that who asks may see."""
    rows = []
    for repo in (*visible(ask, "datasets"), *visible(ask, "models")):
        place = "/datasets/" if repo.type == "datasets" else "/"
        marks = "".join(f" · {mark}" for mark, on in (("private", repo.private), ("gated", repo.gated)) if on)
        name = escape(repo.id)
        rows.append(f'<li><a href="{place}{name}">{name}</a> <small>{repo.type[:-1]}{marks}</small></li>')
    return _page("Repositories", f"<ul>{''.join(rows)}</ul>" if rows else "<p>None that you may see.</p>")


def page(ask: Ask) -> Response:
    """Show a repository's card and the names of its files."""
    repo = asked_repo(ask)
    commit = ask.hub.store.commit(repo, "main")
    text = "No card."
    if (card := commit.files.get("README.md")) is not None:
        with ask.hub.store.blob(repo, card.sha256).open("rb") as file:
            text = split_card(file.read(CARD_LIMIT).decode("utf-8", "replace"))[1]
    files = "".join(f"<li>{escape(p)} <small>{f.size:,} bytes</small></li>" for p, f in commit.files.items())
    return _page(repo.id, f"<pre>{escape(text)}</pre><h2>Files</h2><ul>{files}</ul>")


def _page(title: str, body: str) -> Response:
    title = escape(title)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return HTMLResponse(f"{head}<h1>{title}</h1>{body}</html>", headers=_HEADERS)
