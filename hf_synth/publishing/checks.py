"""The content of what leaves, looked through once more: gold in files, words in exports, texts that a page may show."""

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
from hf_synth.publishing.gate import joined_access
from hf_synth.task.columns import Access, strictest
from hf_synth.task.labels import column_of
from hf_synth.task.task import Task

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
    findings = audit(task, rows, gold=gold[0] if gold else None, **look)
    leaving = next(iter(view_rows(task, rows, findings.refused).values()))
    sources = column_of(rows, "source")
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


_WORDS = (".md", ".json", ".yaml", ".txt", ".yml")  # files that hold words
_LONGEST = 64 << 20  # bytes of a file that are looked through
_TOKENS = {
    "a token of the Hub": r"\bhf_[A-Za-z0-9]{16,}",
    "a key of an LLM's endpoint": r"\bsk-[A-Za-z0-9_-]{16,}",
    "an access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bghp_[A-Za-z0-9]{20,}|\bxox[abpr]-[A-Za-z0-9-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
_LOCAL_PATH = re.compile(
    r"(?<![\w/.:])(?:/(?:home|Users|root|mnt|scratch|tmp|var|secure|work|data)/[\w.-]+|[A-Z]:\\\\?[\w.-]+\\)"
)
_LEFT_EMPTY = re.compile(r"(?:[:(=]\s*|\s)(?:nan|NaN|None|Undefined)(?=\s*(?:$|[,.)]))", re.MULTILINE)
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_SIZES = (*SIZES, LARGEST)


def check_card(text: str) -> list[str]:
    """Check a card without the Hub: give each problem as a sentence; none when it is fine."""
    header, body = split_card(text)
    if isinstance(body, list):
        return body
    problems = [*_check_terms(header), *_check_configs(header.get("configs") or [])]
    if not set(TAGS) <= set(header.get("tags") or []):
        problems.append(f"the tags lack one of {', '.join(TAGS)}")
    plain = _without_examples(text)
    if re.search(r"\{\{|\{%|%\}|\}\}|\{#", text):
        problems.append("a placeholder of the template is left in the text")
    if re.search(r"\b(?:TODO|FIXME|XXX|lorem ipsum)\b", plain):
        problems.append("a note to the author is left in the text")
    if _empty_value(header):
        problems.append("the header holds an empty value")
    if _LEFT_EMPTY.search(_without_code(plain)):
        problems.append("an empty value is left in the text")
    if "this is not de-identification" not in body:
        problems.append("the card does not say that patterns do not find names")
    if re.search(r"!\[[^\]]*\]\(|<img|<script|<iframe", text):
        problems.append("the card would load something from elsewhere")
    return problems


def split_card(text: str) -> tuple[dict[str, Any], str | list[str]]:
    """Split a card into its header and its text; instead of the text the problem, where that cannot be done."""
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
    """Check the words of a header that the Hub knows a list of."""
    problems = []
    license = header.get("license")
    if license not in LICENSES:
        problems.append(f"license {license!r} is not one of the Hub's identifiers")
    if license == "other" and not re.fullmatch(r"[a-z0-9.-]+", str(header.get("license_name") or "")):
        problems.append("license 'other' needs a license_name of small letters, digits, '-' and '.'")
    sizes = header.get("size_categories") or []
    if not isinstance(sizes, list) or any(s not in _SIZES for s in sizes):
        problems.append(f"size_categories {sizes} are not the Hub's")
    tasks = [*(header.get("task_categories") or []), *filter(None, [header.get("pipeline_tag")])]
    if not tasks or any(t not in CATEGORIES.values() for t in tasks):
        problems.append(f"task categories {tasks} are not ours")
    languages = header.get("language")
    named = [languages] if isinstance(languages, str) else languages or []
    if not named or not all(isinstance(n, str) and _LANGUAGE.fullmatch(n) for n in named):
        problems.append(f"language {languages!r} is no ISO 639 code")
    return problems


def _check_configs(configs: Any) -> list[str]:
    fine = isinstance(configs, list) and all(
        isinstance(c, dict) and c.get("config_name") and isinstance(c.get("data_files"), list) and c["data_files"]
        for c in configs
    )
    if not fine:
        return ["a config lacks its name or its files"]
    names = [c["config_name"] for c in configs]
    if len(set(names)) != len(names) or sum(bool(c.get("default")) for c in configs) > 1:
        return ["two configs have one name, or are both the default"]
    return []


def _empty_value(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_empty_value, value.values()))
    if isinstance(value, list):
        return any(map(_empty_value, value))
    return value is None or value != value or value in ("", "None", "nan", "Undefined")


def _without_examples(text: str) -> str:
    """Leave the section of examples out: notes may hold any word."""
    return re.sub(r"\n## Examples\n.*?(?=\n## |\Z)", "\n", text, flags=re.DOTALL)


def _without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


# --- folders --------------------------------------------------------------------------------------------------------
def check_folder(folder: Path, *, gold: Index | None, run: int, secrets: Iterable[str | None] = ()) -> list[str]:
    """Check every file of an export folder that holds words: give each problem as a sentence; none when it is fine.

    Args:
        gold: index of the gold's texts; None where there is none.
        run: words in a row shared with gold that are too many in a card.
        secrets: strings that must stand in no file at all, e.g. the token in use.
    """
    card = (folder / "README.md").read_text(encoding="utf-8")
    problems = [f"README.md: {p}" for p in (*check_card(card), *_check_files(card, folder))]
    hidden = [s.encode() for s in secrets if s and len(s) >= 8]
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        name = file.relative_to(folder).as_posix()
        if any(_holds(file, secret) for secret in hidden):
            problems.append(f"{name}: it holds the token in use")
        if file.suffix in _WORDS and file.stat().st_size <= _LONGEST:
            text = file.read_text(encoding="utf-8", errors="replace")
            vocabulary = name != "README.md" and file.stem in ("tokenizer", "vocab", "added_tokens")
            few = run if name == "README.md" else MAX_RUN  # a list of words may hold eight of a note in a row
            problems += [f"{name}: {p}" for p in _check_words(text, gold, few, names=not vocabulary)]
    return problems


def _check_files(card: str, folder: Path) -> list[str]:
    """See that configs name files that are there, and that no rows lie outside of them."""
    header, _ = split_card(card)
    patterns = [
        str(f.get("path")) for c in header.get("configs") or () if isinstance(c, dict)
        for f in c.get("data_files") or () if isinstance(f, dict)
    ]  # fmt: skip
    problems = [f"config file {p!r} is not there" for p in patterns if ".." in p or not list(folder.glob(p))]
    named = {f for p in patterns if ".." not in p for f in folder.glob(p)}
    if any(f not in named for f in folder.rglob("*.parquet")):
        problems.append("rows lie in a file that no config names")
    return problems


def _check_words(text: str, gold: Index | None, run: int, *, names: bool) -> list[str]:
    problems = [f"it holds {what}" for what, pattern in _TOKENS.items() if re.search(pattern, text)]
    if names and (_LOCAL_PATH.search(text) or any(p in text for p in _own_paths())):
        problems.append("it holds a path of this machine")
    if gold is not None:
        reach = gold.reach([(text,)])
        if reach.runs[0] >= run or reach.spans()[0]:
            problems.append("it holds text of gold")
    return problems


def _own_paths() -> list[str]:
    return [p for p in {os.path.expanduser("~"), os.getcwd()} if len(p) > 5]


def _holds(file: Path, secret: bytes) -> bool:
    """Look for a secret in the bytes of a file, across the borders of what is read at once."""
    before = b""
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            if secret in before + chunk:
                return True
            before = chunk[-len(secret) :]
    return False
