"""What `docs/pages.py` writes: the pages that follow from the code."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))  # the hf_synth of this tree, whatever is installed
NOTE = "<!-- written by `python docs/pages.py`: change the code, not this page -->"
