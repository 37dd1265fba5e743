"""Hooks of mkdocs: each page as plain Markdown at its own name, and llms.txt at the root of the site."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def on_post_build(config: Any, **_: Any) -> None:
    """Copy every page as Markdown to the site, and the index of the pages."""
    docs, site = Path(config["docs_dir"]), Path(config["site_dir"])
    for page in docs.rglob("*.md"):
        target = site / page.relative_to(docs)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(page.read_bytes())
    index = (docs.parent / "llms.txt").read_text(encoding="utf-8")
    (site / "llms.txt").write_text(re.sub(r"\]\(docs/", "](", index), encoding="utf-8")
