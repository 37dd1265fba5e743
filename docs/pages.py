"""Write the pages that follow from the code: `python docs/pages.py`; with --check, name those that are out of date.

- `docs/messages.md`: every error message, with what to do
- `docs/api.md`: every public name, from its docstring
- `docs/recipes.md`: the table of providers in it
- `docs/scale.md`: the table of costs in it, from the pages of measured results
- `SKILL.md`: the command line for agents, from the parser
- `llms.txt`: the index of the pages

The code is read, and of it only the parser is run: no other module of hf_synth is imported.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from written import DOCS, NOTE, ROOT
from written.api import api_page
from written.costs import scale_page
from written.messages import messages_page
from written.skill import ABOUT, skill_page


def recipes_page() -> str:
    """Return the recipes with the table of providers as the code has it."""
    from hf_synth.llm.providers import PROVIDERS

    rows = ["| provider | address | environment variable of the key | note |", "|---|---|---|---|"]
    for one in PROVIDERS:
        address = ", ".join(f"`{host}`" for host in one.hosts) if one.hosts else f"port {one.port} of any host"
        keys = " or ".join(f"`{name}`" for name in one.key_variables)
        rows.append(f"| {one.name} | {address} | {keys} | {one.note} |")
    text = (DOCS / "recipes.md").read_text(encoding="utf-8")
    begin, end = "<!-- providers: begin -->\n", "\n<!-- providers: end -->"
    before, _, rest = text.partition(begin)
    return before + begin + "\n".join(rows) + end + rest.partition(end)[2]


def llms_page() -> str:
    """Return llms.txt: every page with its first sentence."""
    lines = ["# hf_synth", "", f"> {ABOUT}", "", "## Pages", ""]
    lines += [_entry(page) for page in sorted(DOCS.glob("*.md")) if page.name != "index.md"]
    lines += ["", "## Measured results", ""]
    lines += [_entry(page) for page in sorted((DOCS / "results").glob("*.md"))]
    return "\n".join(lines) + "\n"


def _entry(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    title = re.search(r"^# (.+)$", text, re.MULTILINE)
    plain = re.sub(r"^```.*?^```$", "", text.replace(NOTE, ""), flags=re.DOTALL | re.MULTILINE)
    prose = (p for p in re.split(r"\n\s*\n", plain) if re.match(r"[A-Za-z`*\[]", p))
    about = re.split(r"(?<=[.:])\s", " ".join(next(prose, "").split()))[0].rstrip(":")
    name = title[1] if title else page.stem.replace("_", " ")
    return f"- [{name.replace('`', '')}](docs/{page.relative_to(DOCS).as_posix()})" + (f": {about}" if about else "")


PAGES = {
    "docs/messages.md": messages_page,
    "docs/api.md": api_page,
    "docs/recipes.md": recipes_page,
    "docs/scale.md": scale_page,
    "SKILL.md": skill_page,
    "llms.txt": llms_page,  # last: it reads the others
}


def main() -> int:
    """Write the pages, or with --check name those that are out of date."""
    check, stale = "--check" in sys.argv[1:], []
    for name, page in PAGES.items():
        file, text = ROOT / name, page().rstrip("\n") + "\n"
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                file.write_text(text, encoding="utf-8")
    if stale:
        print(("out of date: " if check else "written: ") + ", ".join(stale))
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
