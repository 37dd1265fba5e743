"""Checks of a card as the Hub reads it, without the Hub: its YAML header, its configs, and what is left in its text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from hf_synth.publishing.card_text import CATEGORIES, CREATORS, LARGEST, LICENSES, SIZES, TAGS, TASK_IDS
from hf_synth.publishing.languages import CODES, contradicts, recognised

_EMPTY_TEXT = re.compile(r"(?:[:(=]\s*|\s)(?:nan|NaN|None|Undefined)(?=\s*(?:$|[,.)]))", re.MULTILINE)
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_SIZES = (*SIZES, LARGEST)
_FIELDS = {  # of a header: what the Hub takes in them
    "annotations_creators": re.compile("|".join(CREATORS)),
    "language_creators": re.compile("|".join(set(CREATORS) - {"no-annotation"})),
    "task_ids": re.compile("|".join(TASK_IDS)),
    "source_datasets": re.compile(r"original|extended\|(?:other|[\w.-]+(?:/[\w.-]+)?)"),
    "multilinguality": re.compile("monolingual|multilingual|translation"),
}


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


@lru_cache(maxsize=4)  # each check asks anew, and YAML is slow
def split_card(text: str) -> tuple[Mapping[str, Any], str | list[str]]:
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
    for field, known in _FIELDS.items():
        values = header.get(field) or []
        if not isinstance(values, list) or not all(isinstance(v, str) and known.fullmatch(v) for v in values):
            problems.append(f"{field} {values} are not among the Hub's")
    languages = header.get("language")
    named = [languages] if isinstance(languages, str) else languages or []
    if not all(isinstance(n, str) and _LANGUAGE.fullmatch(n) and (len(n) > 2 or n in CODES) for n in named):
        problems.append(f"language {languages!r} is no ISO 639 code")
    return problems


def language_problem(card: str, stated: str, texts: Iterable[str] = ()) -> str:
    """Return why the language in a card's header is not the one that its task states, or not that of its texts.

    Args:
        stated: the task's; "" where none is stated: then the header has none.
        texts: a sample of the rows.
    """
    header, _ = split_card(card)
    named = header.get("language") or ""
    if named != stated:
        return f"the header's language is {named or 'missing'!r}, the task states {stated or 'none'!r}"
    if contradicts(stated, seen := recognised(texts)):
        looks = "letters that are not Latin" if seen == "other" else f"{seen!r}"
        return f"the header's language is {stated!r}, the texts look like {looks}"
    return ""


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
