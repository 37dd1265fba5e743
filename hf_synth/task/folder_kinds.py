"""The error of a folder that holds no rows: it names the kind of the folder, and where rows probably lie."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from hf_synth.errors import MissingGoldError
from hf_synth.task.columns import MANIFEST

_KINDS = {"train": "a model", "encoder": "a base model", "audit": "an audit", "gold": "a folder of gold"}
_OF_ROWS = ("corrected", "synthetic", "training", "gold")  # names that verbs give their folders, the likeliest first
_MOST_NAMED = 3
_MOST_LOOKED_AT = 200  # folders


def no_rows_error(path: Path) -> MissingGoldError:
    """Return the error of a folder without rows: what it is, what is asked for, and where that probably lies."""
    kind = folder_kind(path)
    near = ", ".join(str(folder) for folder in folders_of_rows(path))
    what = f"{path} is {kind}, without rows of its own" if kind else f"{path} holds no rows (no .parquet file)"
    return MissingGoldError(
        f"{what}: name a folder of rows, as `generate` or `correct` writes it"
        + (f"; rows lie in {near}" if near else "; `hf-synth status DIR` shows which folders hold rows")
    )


def folder_kind(path: Path) -> str:
    """Return what a folder is, in words; "" where that is not known."""
    if (path / "release.json").is_file():
        return "an export of `publish`"
    stage = _stage_of(path)
    if stage:
        return _KINDS.get(stage, f"a folder of `{stage}`" if stage.isalpha() else "")
    if (path / "config.json").is_file():
        return "a model"
    if (path / "results" / MANIFEST).is_file():
        return "the folder of an experiment"
    if (path / "scores.json").is_file() and (path / "report.html").is_file():
        return "the folder of a run"
    return "a folder of other folders" if any(_below(path)) else ""


def folders_of_rows(path: Path) -> list[Path]:
    """Return folders below a folder, or beside it, that hold rows: the likeliest first, three at most."""
    found = [folder for folder in _below(path) if _has_rows(folder)]
    found += [below for folder in _below(path) for below in _below(folder) if _has_rows(below)] if not found else []
    found = found or [folder for folder in _below(path.absolute().parent) if _has_rows(folder)]
    order = {name: place for place, name in enumerate(_OF_ROWS)}
    found.sort(key=lambda folder: (order.get(folder.name, len(order)), str(folder)))
    here = Path.cwd()
    return [f.relative_to(here) if f.is_absolute() and f.is_relative_to(here) else f for f in found[:_MOST_NAMED]]


def _below(path: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        folders = (one for one in sorted(path.iterdir())[:_MOST_LOOKED_AT] if not one.name.startswith("."))
        yield from (one for one in folders if one.is_dir())


def _has_rows(folder: Path) -> bool:
    return bool(_stage_of(folder)) and any(folder.glob("*.parquet"))


def _stage_of(path: Path) -> str:
    """Return the stage that a manifest names; "" where there is none."""
    with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
        stage = json.loads((path / MANIFEST).read_text(encoding="utf-8")).get("stage")
        return stage if isinstance(stage, str) else ""
    return ""
