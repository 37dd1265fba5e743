"""Offline checks before an export leaves: cards as the Hub reads them, gold, canaries, tokens and paths in files.

`check_card` and `check_folder` validate what was written; `gold_in_files` searches a model's files before they are
copied, and `widget_texts` chooses texts that a model's page may show.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import PublishError
from hf_synth.privacy.audit import audit, index_gold
from hf_synth.privacy.canaries import Canaries
from hf_synth.privacy.overlap import MAX_RUN, WINDOW, Index
from hf_synth.publishing.card_text import CATEGORIES, LARGEST, LICENSES, SIZES, TAGS
from hf_synth.publishing.export import view_rows
from hf_synth.publishing.gate import overall_access
from hf_synth.task.columns import Access, strictest
from hf_synth.task.labels import column_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_TEXT_FILES = (".md", ".json", ".yaml", ".txt", ".yml")
_LONGEST = 64 << 20  # bytes; longer files are not searched for text
_TOKENS = {
    "a token of the Hub": r"\bhf_[A-Za-z0-9]{16,}",
    "a key of an LLM's endpoint": r"\bsk-[A-Za-z0-9_-]{16,}",
    "an access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bghp_[A-Za-z0-9]{20,}|\bxox[abpr]-[A-Za-z0-9-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
_LOCAL_PATH = re.compile(
    r"(?<![\w/.:])(?:/(?:home|Users|root|mnt|scratch|tmp|var|secure|work|data)/[\w.-]+|[A-Z]:\\\\?[\w.-]+\\)"
)

_EMPTY_TEXT = re.compile(r"(?:[:(=]\s*|\s)(?:nan|NaN|None|Undefined)(?=\s*(?:$|[,.)]))", re.MULTILINE)
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_SIZES = (*SIZES, LARGEST)


# --- exports --------------------------------------------------------------------------------------------------------
def content_check(task: Task, gold: Sequence[Dataset], access: Access, token: str | None) -> Callable[[Path], None]:
    """Return the check of an export folder, which raises PublishError if a file must not leave.

    Only cards of open data show rows, which may share phrases with gold; others may not share eight words in a row.
    """
    from huggingface_hub import get_token  # of the environment, or as `hf auth login` stored it

    secrets = (token, get_token(), os.environ.get("OPENAI_API_KEY"))

    def check(folder: Path) -> None:
        index = index_gold(task, *gold) if gold else None
        run = MAX_RUN if access == "open" else WINDOW
        problems = check_folder(folder, gold=index, run=run, secrets=secrets)
        if problems:
            raise PublishError(f"the export failed its check: {'; '.join(problems[:5])}; nothing was exported")

    return check


def check_folder(folder: Path, *, gold: Index | None, run: int, secrets: Iterable[str | None] = ()) -> list[str]:
    """Check the card and all text files of an export folder; return each problem as a sentence.

    Args:
        gold: index of the gold's texts, if any.
        run: number of words in a row that a card may not share with gold.
        secrets: strings that no file may hold, e.g. the token in use.
    """
    card = (folder / "README.md").read_text(encoding="utf-8")
    problems = [f"README.md: {p}" for p in (*check_card(card), *_check_files(card, folder))]
    hidden = [s.encode() for s in secrets if s and len(s) >= 8]
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        name = file.relative_to(folder).as_posix()
        if any(_holds(file, secret) for secret in hidden):
            problems.append(f"{name}: it holds the token in use")
        if file.suffix in _TEXT_FILES and file.stat().st_size <= _LONGEST:
            text = file.read_text(encoding="utf-8", errors="replace")
            vocabulary = name != "README.md" and file.stem in ("tokenizer", "vocab", "added_tokens")
            limit = run if name == "README.md" else MAX_RUN  # a vocabulary may hold eight words of a note in a row
            problems += [f"{name}: {p}" for p in _check_words(text, gold, limit, paths=not vocabulary)]
    return problems


def _check_files(card: str, folder: Path) -> list[str]:
    """Check that the files of all configs exist, and that every parquet file belongs to a config."""
    header, _ = split_card(card)
    patterns = [
        str(f.get("path"))
        for c in header.get("configs") or ()
        if isinstance(c, dict)
        for f in c.get("data_files") or ()
        if isinstance(f, dict)
    ]
    problems = [f"config file {p!r} does not exist" for p in patterns if ".." in p or not list(folder.glob(p))]
    named = {f for p in patterns if ".." not in p for f in folder.glob(p)}
    if any(f not in named for f in folder.rglob("*.parquet")):
        problems.append("there are rows in a file that no config names")
    return problems


def _check_words(text: str, gold: Index | None, run: int, *, paths: bool) -> list[str]:
    problems = [f"it holds {what}" for what, pattern in _TOKENS.items() if re.search(pattern, text)]
    own = [p for p in (os.path.expanduser("~"), os.getcwd()) if len(p) > 5]
    if paths and (_LOCAL_PATH.search(text) or any(p in text for p in own)):
        problems.append("it holds a path of this machine")
    if gold is not None:
        reach = gold.reach([(text,)])
        if reach.runs[0] >= run or reach.spans()[0]:
            problems.append("it holds text of gold")
    return problems


def _holds(file: Path, secret: bytes) -> bool:
    """Search the bytes of a file for a secret, across chunk borders."""
    before = b""
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            if secret in before + chunk:
                return True
            before = chunk[-len(secret) :]
    return False


# --- cards ----------------------------------------------------------------------------------------------------------
def check_card(text: str) -> list[str]:
    """Check a card without the Hub; return each problem as a sentence."""
    header, body = split_card(text)
    if isinstance(body, list):
        return body
    problems = [*_check_terms(header), *_check_configs(header.get("configs") or [])]
    if not set(TAGS) <= set(header.get("tags") or []):
        problems.append(f"the tags lack one of {', '.join(TAGS)}")
    # notes among the examples may hold any word
    plain = re.sub(r"\n## Examples\n.*?(?=\n## |\Z)", "\n", text, flags=re.DOTALL)
    if re.search(r"\{\{|\{%|%\}|\}\}|\{#", text):
        problems.append("a placeholder of the template is left in the text")
    if re.search(r"\b(?:TODO|FIXME|XXX|lorem ipsum)\b", plain):
        problems.append("a note to the author is left in the text")
    if _is_empty(header):
        problems.append("the header holds an empty value")
    if _EMPTY_TEXT.search(re.sub(r"```.*?```|`[^`\n]*`", "", plain, flags=re.DOTALL)):
        problems.append("an empty value is left in the text")
    if "this is not de-identification" not in body:
        problems.append("the card does not say that patterns do not find names")
    if re.search(r"!\[[^\]]*\]\(|<img|<script|<iframe", text):
        problems.append("the card would load something from elsewhere")
    return problems


def split_card(text: str) -> tuple[dict[str, Any], str | list[str]]:
    """Split a card into header and text; in place of the text a list with the problem if it cannot be parsed."""
    import yaml  # type: ignore[import-untyped]

    parts = re.match(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL)
    if parts is None:
        return {}, ["the card does not begin with a YAML header"]
    try:
        header = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return {}, ["the header is not valid YAML"]
    if not isinstance(header, dict):
        return {}, ["the header is not a mapping"]
    return header, parts[2]


def _check_terms(header: Mapping[str, Any]) -> list[str]:
    """Check the fields of a header for which the Hub has a list of values."""
    problems = []
    license = header.get("license")
    if license not in LICENSES:
        problems.append(f"license {license!r} is not one of the Hub's identifiers")
    if license == "other" and not re.fullmatch(r"[a-z0-9.-]+", str(header.get("license_name") or "")):
        problems.append("license 'other' needs a license_name of small letters, digits, '-' and '.'")
    sizes = header.get("size_categories") or []
    if not isinstance(sizes, list) or any(s not in _SIZES for s in sizes):
        problems.append(f"size_categories {sizes} are not among the Hub's")
    tasks = [*(header.get("task_categories") or []), *filter(None, [header.get("pipeline_tag")])]
    if not tasks or any(t not in CATEGORIES.values() for t in tasks):
        problems.append(f"task categories {tasks} are not among {', '.join(sorted(set(CATEGORIES.values())))}")
    languages = header.get("language")
    named = [languages] if isinstance(languages, str) else languages or []
    if not named or not all(isinstance(n, str) and _LANGUAGE.fullmatch(n) for n in named):
        problems.append(f"language {languages!r} is no ISO 639 code")
    return problems


def _check_configs(configs: Any) -> list[str]:
    complete = isinstance(configs, list) and all(
        isinstance(c, dict) and c.get("config_name") and isinstance(c.get("data_files"), list) and c["data_files"]
        for c in configs
    )
    if not complete:
        return ["a config lacks its name or its files"]
    names = [c["config_name"] for c in configs]
    if len(set(names)) != len(names) or sum(bool(c.get("default")) for c in configs) > 1:
        return ["two configs have one name, or are both the default"]
    return []


def _is_empty(value: Any) -> bool:
    """Return whether a value, or any value inside it, is empty."""
    if isinstance(value, Mapping):
        return any(map(_is_empty, value.values()))
    if isinstance(value, list):
        return any(map(_is_empty, value))
    return value is None or value != value or value in ("", "None", "nan", "Undefined")


# --- models ---------------------------------------------------------------------------------------------------------
def gold_in_files(
    task: Task, folder: Path, names: Sequence[str], gold: Sequence[Dataset], canaries: Canaries | None = None
) -> list[str]:
    """Search the text files of a model for gold and planted canaries; return each problem as a sentence."""
    if not gold and canaries is None:
        return []
    files = [n for n in names if not n.endswith((".safetensors", ".model"))]
    texts = [(folder / n).read_text(encoding="utf-8", errors="replace") for n in files]
    spans = index_gold(task, *gold).reach([(t,) for t in texts]).spans() if gold else [False] * len(texts)
    problems = [f"{name} holds text of gold" for name, span in zip(files, spans, strict=True) if span]
    leaking = [n for n, t in zip(files, texts, strict=True) if canaries is not None and canaries.found_in([t])]
    return problems + [f"{name} holds a canary that was planted in gold" for name in leaking]


def architecture(folder: Path) -> str:
    """Read the class name of a model's network.

    Raises:
        PublishError: its config cannot be read.
    """
    try:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or ["An encoder"]
    except (ValueError, OSError):
        raise PublishError(f"config.json of {folder} cannot be read") from None
    return str(named[0])


def widget_texts(
    task: Task, rows: Dataset | None, gold: Sequence[Dataset], access: Access, **options: Any
) -> list[str]:
    """Return up to three texts for the widget of a model's page: open synthetic rows that pass the audit.

    Args:
        options: `canaries` and `find_identifiers` for the audit.
    """
    if rows is None or len(task.text_columns) > 1 or strictest(access, overall_access(task, rows)) != "open":
        return []
    findings = audit(task, rows, gold=gold[0] if gold else None, **options)
    first_view = next(iter(view_rows(task, rows, findings.refused).values()))
    sources = column_of(rows, "source")
    texts = [rows[i][task.text_columns[0]] for i in first_view if sources[i] == "synthetic"]
    return [text for text in texts if len(text) <= 600][:3] if findings.verdict == "ok" else []
