"""How objects show themselves at a prompt and in a notebook: a title and at most four lines."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

LINES = 4  # below the title
_WIDTH = 160  # characters of a line
_MOST = 12  # items of a list


class Displayed:
    """An object that shows itself in five lines; a subclass says which by `summary`.

    A dataclass needs `repr=False`, since it would write all its fields otherwise.
    """

    def summary(self) -> tuple[str, list[tuple[str, str]]]:
        """Return the title, and names and values of the lines below it; no text of a note."""
        raise NotImplementedError

    def __repr__(self) -> str:
        title, lines = self.summary()
        known = [(name, value) for name, value in lines if value][:LINES]
        return "\n".join([f"{type(self).__name__}: {_cut(title)}", *(f"  {n}: {_cut(v)}" for n, v in known)])

    def _repr_html_(self) -> str:
        title, lines = self.summary()
        cells = "".join(
            f'<tr><th scope="row" style="text-align:left;vertical-align:top">{html.escape(name)}</th>'
            f'<td style="text-align:left">{html.escape(_cut(value))}</td></tr>'
            for name, value in lines
            if value
        )
        head = f"<strong>{html.escape(type(self).__name__)}</strong>: {html.escape(_cut(title))}"
        return f"<div>{head}<table>{cells}</table></div>"


def listed(items: Iterable[object]) -> str:
    """Return items in one line, the first ones where there are many."""
    texts = [str(item) for item in items]
    more = f", and {len(texts) - _MOST:,} more" if len(texts) > _MOST else ""
    return ", ".join(texts[:_MOST]) + more


def counted(counts: Mapping[str, int]) -> list[str]:
    """Return counts in words; those of the reasons "withheld: identifier" stand in brackets after "withheld"."""
    words = []
    for what, n in counts.items():
        whole, mark, _ = what.partition(": ")
        if mark and whole in counts:
            continue
        why = {name[len(what) + 2 :]: m for name, m in counts.items() if name.startswith(f"{what}: ")}
        listed_why = ", ".join(why if list(why.values()) == [n] else [f"{name} {m:,}" for name, m in why.items()])
        words.append(f"{n:,} {what}" + (f" ({listed_why})" if why else ""))
    return words


def _cut(text: str) -> str:
    """Return a text in one line without control characters, cut where it is long."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return plain if len(plain) <= _WIDTH else plain[: _WIDTH - 3] + "..."
