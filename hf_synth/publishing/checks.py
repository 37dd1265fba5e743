"""The content of what leaves, looked through once more: gold in files, words in exports, texts that a page may show."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import PublishError
from hf_synth.privacy.audit import MAX_RUN, audit, index_gold
from hf_synth.privacy.canaries import Canaries
from hf_synth.privacy.overlap import WINDOW
from hf_synth.publishing.export import view_rows
from hf_synth.publishing.gate import joined_access
from hf_synth.publishing.validation import check_folder
from hf_synth.task.task import Access, Task, strictest

if TYPE_CHECKING:
    from datasets import Dataset


def gold_in_files(
    task: Task, folder: Path, names: Sequence[str], gold: Sequence[Dataset], canaries: Canaries | None = None
) -> list[str]:
    """Look for gold, and for canaries that were planted in it, in the text files of a model, whatever their names."""
    if not gold and canaries is None:
        return []
    texts = [n for n in names if not n.endswith((".safetensors", ".model"))]
    found = [(folder / n).read_text(encoding="utf-8", errors="replace") for n in texts]
    spans = index_gold(task, *gold).reach([(t,) for t in found]).spans() if gold else [False] * len(found)
    problems = [f"{name} holds text of gold" for name, span in zip(texts, spans, strict=True) if span]
    betrayed = [n for n, t in zip(texts, found, strict=True) if canaries is not None and canaries.found_in([t])]
    return problems + [f"{name} holds a canary that was planted in gold" for name in betrayed]


def architecture(folder: Path) -> str:
    """Read what kind of network a model is.

    Raises:
        PublishError: its config cannot be read.
    """
    try:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or ["An encoder"]
    except (ValueError, OSError):
        raise PublishError(f"config.json of {folder} cannot be read") from None
    return str(named[0])


def widget_texts(task: Task, rows: Dataset | None, gold: Sequence[Dataset], access: Access, **look: Any) -> list[str]:
    """Give texts for the widget of a model's page: of open synthetic rows that the audit lets pass, the first three.

    Args:
        look: `canaries` and `find_identifiers` for the audit.
    """
    if rows is None or len(task.text_columns) > 1 or strictest(access, joined_access(task, rows)) != "open":
        return []
    findings = audit(task, rows, gold[0] if gold else None, **look)
    leaving = next(iter(view_rows(task, rows, findings.refused).values()))
    sources = rows["source"] if "source" in rows.column_names else [None] * len(rows)
    shown = [rows[i][task.text_columns[0]] for i in leaving if sources[i] == "synthetic"]
    return [text for text in shown if len(text) <= 600][:3] if findings.verdict == "ok" else []


def content_check(task: Task, gold: Sequence[Dataset], access: Access, token: str | None) -> Callable[[Path], None]:
    """Give the check of an export; a problem is a bug or an odd name, and nothing leaves with it.

    Only cards of open data show rows, which may share phrases with gold; in no other may a window of eight words stand.
    """
    from huggingface_hub import get_token  # of the environment, or as `hf auth login` stored it

    secrets = (token, get_token(), os.environ.get("OPENAI_API_KEY"))

    def check(folder: Path) -> None:
        index = index_gold(task, *gold) if gold else None
        run = MAX_RUN if access == "open" else WINDOW
        problems = check_folder(folder, gold=index, run=run, secrets=secrets)
        if problems:
            raise PublishError(f"the export is not fit to be published: {'; '.join(problems[:5])}; nothing left")

    return check
