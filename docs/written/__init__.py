"""What `docs/pages.py` writes: the pages that follow from the code."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent
ROOT = DOCS.parent
NOTE = "<!-- written by `python docs/pages.py`: change the code, not this page -->"
