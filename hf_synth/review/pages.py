"""The pages of a review as HTML: one note a screen, or what was found when no note is left.

Every value is escaped by Jinja. Script and style are files of this package; nothing is loaded from elsewhere.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

from hf_synth.reports.page import clean
from hf_synth.review.session import LONGEST_COMMENT, Session
from hf_synth.review.view import AGAIN, DIFFERENT, View

FILES = {"/page.css": "text/css", "/page.js": "text/javascript", "/icon.svg": "image/svg+xml"}
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#0a4a86"/>'
    '<path d="M4 8.5l3 3 5-7" fill="none" stroke="#fff" stroke-width="2"/></svg>'
)
_DIGITS = "1234567890"
_SCALE = ((1, "not at all"), (2, "hardly"), (3, "partly"), (4, "mostly"), (5, "fully"))


def page(session: Session, view: View, command: str = "", alert: str = "") -> str:
    """Return a whole page.

    Args:
        command: what comes next, shown when no note is left.
        alert: a sentence that says what went wrong.
    """
    return _render("page.html", session, view, command, alert)


def card(session: Session, view: View, command: str = "", alert: str = "") -> str:
    """Return the part of a page that changes with each answer."""
    return _render("card.html", session, view, command, alert)


def file(path: str) -> str:
    """Return the script, the style or the icon."""
    return _ICON if path == "/icon.svg" else _text(path[1:])


def _render(name: str, session: Session, view: View, command: str, alert: str) -> str:
    task, realism = session.task, session.kind == "realism"
    meanings = task.label_meanings or ("",) * len(task.labels)
    keys = [*_DIGITS[: len(task.labels)], *[""] * (len(task.labels) - len(_DIGITS))]
    texts = [] if view.item is None else zip(task.text_columns, map(clean, view.item.texts), strict=True)
    return str(
        _templates()
        .get_template(name)
        .render(
            view=view, task=task.full_name, reviewer=session.reviewer, title=_title(view), texts=list(texts),
            labels=list(zip(keys, task.labels, meanings, strict=True)), has_meanings=any(meanings), realism=realism,
            scale=_SCALE, keys=_keys(realism, session.shows == "before"), longest=LONGEST_COMMENT,
            command=command, alert=alert, closing=_closing(session, view),
        )
    )  # fmt: skip


def _title(view: View) -> str:
    if view.item is None:
        return {AGAIN: "No note is unsure", DIFFERENT: "No disagreement is open"}.get(
            view.queue, "All notes are answered"
        )
    if view.queue == AGAIN:
        return f"Look again: {view.unsure:,} unsure"
    if view.queue == DIFFERENT:
        return f"Settle a disagreement: {view.differ:,} left"
    return f"Note {view.answered + 1:,} of {view.asked:,}"


def _closing(session: Session, view: View) -> list[str]:
    """Return the sentences of the page when no note is left."""
    lines = [f"{view.answered:,} of {view.asked:,} notes have an answer."]
    if view.unsure:
        lines.append(f"Unsure: {view.unsure:,}. Look again, or leave them without a label.")
    lines += [f"{pair}." for pair in view.agreements]
    if view.differ:
        lines.append(
            f"Disagreements: {view.differ:,}. They have no label until somebody settles them: a third person, or both "
            "together."
        )
    lines.append(f"The answers are in {session.table}.")
    return lines


def _keys(realism: bool, shown: bool) -> list[tuple[str, str]]:
    """Return the keys and what they do."""
    if realism:
        keys = [("1–5", "how plausible the note is"), ("r", "it is real"), ("s", "it is synthetic")]
    else:
        keys = [("1–9, 0", "the label with this number"), ("x", "reject: no usable note"), ("u", "unsure: look again")]
        keys = [("k", "keep the label that is shown"), *keys] if shown else keys
    return [*keys, ("c", "comment; Esc leaves it"), ("z", "undo the last answer"), ("?", "this list")]


@functools.cache
def _text(name: str) -> str:
    return resources.files("hf_synth.review").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _templates() -> Any:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    return Environment(
        autoescape=True, loader=FunctionLoader(_text), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
