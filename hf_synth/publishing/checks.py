"""Offline checks before an export leaves: cards as the Hub reads them, gold, canaries, tokens and paths in files.

`check_folder` reads every file as what it is (`contents`), and lets rows pass that the audit let pass and no others;
`gold_in_files` searches a model's files before they are copied, and `widget_texts` chooses texts that a model's page
may show.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import PublishError
from hf_synth.privacy.audit import FindIdentifiers, audit, index_gold
from hf_synth.privacy.canaries import Canaries, note_columns
from hf_synth.privacy.identifiers import DATES_AND_AGES, identifiers_in
from hf_synth.privacy.overlap import MAX_RUN, WINDOW, Index
from hf_synth.publishing.card_checks import check_card, language_problem, split_card
from hf_synth.publishing.card_schema import schema_problems
from hf_synth.publishing.contents import added_tokens, piece_as_text, strings_in
from hf_synth.publishing.croissant import croissant_problems
from hf_synth.publishing.export import EXPORTED, view_rows
from hf_synth.publishing.local_paths import has_local_path
from hf_synth.publishing.model_files import TOKENIZER_FILES
from hf_synth.publishing.release import CROISSANT
from hf_synth.publishing.sealed import exported_files
from hf_synth.task.access import overall_access
from hf_synth.task.columns import Access, strictest
from hf_synth.task.labels import column_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_TOKENS = {
    "a token of the Hub": r"\bhf_[A-Za-z0-9]{16,}",
    "a key of an LLM's endpoint": r"\bsk-[A-Za-z0-9_-]{16,}",
    "an access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bghp_[A-Za-z0-9]{20,}|\bxox[abpr]-[A-Za-z0-9-]{10,}",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}
_WORD = re.compile(r"[^\W_]+")
_BATCH = 10_000  # rows in memory as text at once
_FEW_WORDS = 4  # a string of fewer words is no note
_PHRASE_GROUPS = 3  # a phrase of so many patients or notes of gold is nobody's own
# Identifiers whose form no piece of a common vocabulary has.
_IN_PIECES = frozenset({"email", "ssn", "phone", "mac_address", "health_plan", "birth_date", "street_address"})
_COUNTING = "0123456789" * 2
_PUBLIC_ID = re.compile(r"[a-z][a-z0-9_]*-[0-9a-f]{16}(?:-\d+)?")
_ROW_COLUMNS = frozenset(
    {"id", "source", "task", "task_version", "access", "generator", "llm_label", "label_status", "reason"}
    | {"label_probs", "label_confidence", "weight"}
)


# --- exports --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Watched:
    """What an export may not hold, and which rows it may hold.

    Args:
        gold: index of the gold's texts, if any.
        run: number of words in a row that a card may not share with gold.
        secrets: strings that no file may hold, e.g. the token in use.
        canaries: planted in gold, if any.
        find_identifiers: a finder of the user's own, for tokens.
        strict: whether dates and ages count as identifiers, as they do where the access is not open.
        names: that leave beside the files: of the repository and the tag.
        columns: of a dataset: the columns of its texts, and its label column.
        rows: digests (`row_keys`) of the rows that the audit let pass; None for an export without rows.
        language: of the texts, as the task states it; "" where it states none.
    """

    gold: Index | None = None
    run: int = MAX_RUN
    secrets: tuple[str | None, ...] = ()
    canaries: Canaries | None = None
    find_identifiers: FindIdentifiers | None = None
    strict: bool = True
    names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: frozenset[bytes] | None = None
    language: str = ""


def watched(
    task: Task,
    gold: Sequence[Dataset],
    access: Access,
    *,
    token: str | None = None,
    canaries: Canaries | None = None,
    find_identifiers: FindIdentifiers | None = None,
    names: Sequence[str | None] = (),
    rows: Iterable[bytes] | None = None,
) -> Watched:
    """Return what the check of an export looks for.

    Only cards of open data show rows, which may share phrases with gold; others may not share eight words in a row.

    Args:
        names: that leave beside the files, if any.
        rows: digests of the rows that the audit let pass; None for a model.
    """
    from huggingface_hub import get_token  # of the environment, or as `hf auth login` stored it

    return Watched(
        gold=index_gold(task, *gold) if gold else None,
        run=MAX_RUN if access == "open" else WINDOW,
        secrets=(token, get_token(), os.environ.get("OPENAI_API_KEY")),
        canaries=canaries,
        find_identifiers=find_identifiers,
        strict=access != "open",
        names=tuple(filter(None, names)),
        columns=tuple(dict.fromkeys((*note_columns(task), task.label_column))),
        rows=None if rows is None else frozenset(rows),
        language=task.language,
    )


def row_keys(task: Task, rows: Dataset, at: Iterable[int] | None = None) -> Iterator[bytes]:
    """Digest what the audit reads of each row: its texts, and for text2text its target.

    Args:
        at: numbers of the rows; all when None.
    """
    table = rows.select_columns(note_columns(task))
    for batch in (table if at is None else table.select(list(at))).with_format("arrow").iter(batch_size=_BATCH):
        yield from map(_row_key, zip(*(batch[c].to_pylist() for c in note_columns(task)), strict=True))


def _row_key(texts: Sequence[str | None]) -> bytes:
    return hashlib.sha256(json.dumps(texts, ensure_ascii=True).encode()).digest()


def content_check(seen: Watched) -> Callable[[Path], None]:
    """Return the check of an export folder, which raises PublishError if a file must not leave."""

    def check(folder: Path) -> None:
        problems = check_folder(folder, seen)
        if problems:
            raise PublishError(f"the export failed its check: {'; '.join(problems[:5])}; nothing was exported")

    return check


def check_folder(folder: Path, seen: Watched) -> list[str]:
    """Check the card and every file of an export folder; return each problem as a sentence.

    Raises:
        PublishError: the folder holds a link.
    """
    card = (folder / "README.md").read_text(encoding="utf-8")
    problems = [f"README.md: {p}" for p in (*check_card(card), *_check_files(card, folder, seen))]
    problems += [f"{CROISSANT}: {p}" for p in croissant_problems(split_card(card)[0], folder)]
    problems += [f"the name of repository or tag: {p}" for p in _gold_in(seen.names, seen, seen.run, near=True)]
    hidden = [s.encode() for s in seen.secrets if s and len(s) >= 8]
    for name in exported_files(folder):
        file, shown = folder / name, name
        if not EXPORTED.fullmatch(name):
            shown = "a file" if len(name.split()) > 1 or len(name) > 40 else name  # the name itself may be text
            problems.append(f"{shown}: it is no file of an export")
        if any(_holds(file, secret) for secret in hidden):
            problems.append(f"{shown}: it holds the token in use")
        problems += [f"{shown}: {p}" for p in dict.fromkeys(_check_file(file, name, seen))]
    return problems


def _check_file(file: Path, name: str, seen: Watched) -> Iterator[str]:
    """Yield what is wrong with one file."""
    try:
        strings = strings_in(file)
    except PublishError:
        strings = None
    text = "" if file.suffix in (".parquet", ".safetensors", ".model") else file.read_bytes().decode("utf-8", "replace")
    if strings is None:
        yield "it is not what its name says"
        strings = text.splitlines()
    card, vocabulary = name == "README.md", file.stem in ("tokenizer", "vocab", "added_tokens")
    for words in (text, "\n".join(strings)):
        yield from _secrets_in(words, seen, paths=not vocabulary)
    yield from _gold_in(strings, seen, seen.run if card else MAX_RUN, near=not card)
    if text and seen.gold is not None and seen.gold.reach([(text,)]).spans()[0]:
        yield "it holds text of gold"
    if TOKENIZER_FILES.fullmatch(name):
        yield from _identifiers_in_tokens(file, strings, seen)
    if file.suffix == ".parquet":
        yield from _check_rows(file, seen)


def _check_files(card: str, folder: Path, seen: Watched) -> list[str]:
    """Check that the files of all configs exist, that every parquet file belongs to a config, and that the card's
    schema and language are theirs.
    """
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
    texts = chain.from_iterable(_sample(file, seen.columns) for file in sorted(folder.glob("*/*.parquet"))[:1])
    if language := language_problem(card, seen.language, texts):
        problems.append(language)
    return [*problems, *schema_problems(header, folder)]


def _sample(file: Path, columns: Sequence[str]) -> Iterator[str]:
    """Yield the first texts of a table."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as table:
        known = [c for c in columns if c in table.schema_arrow.names][:1]
        for batch in table.iter_batches(_BATCH, columns=known) if known else ():
            yield from (text for text in batch.column(0).to_pylist() if isinstance(text, str))


def _secrets_in(text: str, seen: Watched, *, paths: bool) -> Iterator[str]:
    yield from (f"it holds {what}" for what, pattern in _TOKENS.items() if re.search(pattern, text))
    if any(s in text for s in seen.secrets if s and len(s) >= 8):
        yield "it holds the token in use"
    if paths and has_local_path(text):
        yield "it holds a path of this machine"


def _gold_in(strings: Sequence[str], seen: Watched, run: int, *, near: bool) -> Iterator[str]:
    """Yield whether strings hold gold or canaries: one by one, and all of them in their order.

    Args:
        run: number of words in a row that they may not share with gold.
        near: whether a string may not be nearly a text of gold; the rows that a card shows were audited as a whole.
    """
    plain = [piece_as_text(s) for s in strings]
    if seen.canaries is not None and (seen.canaries.found_in(strings) or seen.canaries.found_in(plain)):
        yield "it holds a canary that was planted in gold"
    if seen.gold is None:
        return
    whole = dict.fromkeys([" ".join(strings), " ".join(plain)])
    reach = seen.gold.reach([(text,) for text in whole])
    found = bool(((reach.runs >= run) | reach.spans()).any())
    cells = [cell for text in dict.fromkeys([*strings, *plain]) for cell in {text, *text.split("|")}]
    notes = [cell for cell in cells if len(_WORD.findall(cell)) >= _FEW_WORDS]
    if not found and notes:
        reach = seen.gold.reach([(note,) for note in notes])
        found = bool((reach.same | reach.spans() | (reach.near() & near)).any())
    if found:
        yield "it holds text of gold"


def _identifiers_in_tokens(file: Path, strings: Sequence[str], seen: Watched) -> Iterator[str]:
    """Yield whether pieces or added tokens of a tokenizer look like identifiers of a person."""
    tokens = added_tokens(file) if file.suffix == ".json" else []
    kinds = {kind for token in tokens for kind in names_in(token, seen)}
    for piece in {piece_as_text(s).strip() for s in strings}:
        if any(c.isdigit() or c == "@" for c in piece):
            found = identifiers_in(piece)
            kinds |= found & _IN_PIECES
            if seen.strict and "record_number" in found and len(set(piece)) > 2 and piece not in _COUNTING:
                kinds.add("record_number")
    if kinds:
        yield f"it holds a token that looks like an identifier of a person ({', '.join(sorted(kinds))})"


def names_in(text: str, seen: Watched) -> set[str]:
    """Return the kinds of identifiers in a short string, by the patterns and by the user's own finder."""
    kinds = identifiers_in(text) - (frozenset() if seen.strict else frozenset(DATES_AND_AGES))
    if seen.find_identifiers is not None:
        try:
            kinds |= {"one of your own kinds"} if list(seen.find_identifiers(text)) else set()
        except Exception as error:  # its message may hold the text
            raise PublishError(f"find_identifiers failed ({type(error).__name__}); nothing was exported") from None
    return kinds


def _check_rows(file: Path, seen: Watched) -> Iterator[str]:
    """Yield whether a table holds rows that the audit did not let pass, or strings that no export has."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if seen.rows is None:
        return
    texts = [c for c in seen.columns if pa.types.is_string(_type(pq.read_schema(file), c))]
    words: set[str] = set()
    with pq.ParquetFile(file) as table:
        fields = [f for f in table.schema_arrow if f.name not in texts]
        if other := sum(f.name not in {*_ROW_COLUMNS, *seen.columns} or not _is_plain(f.type) for f in fields):
            yield f"it has {other:,} columns that no export has"
        for batch in table.iter_batches(_BATCH):
            values = [batch.column(c).to_pylist() for c in texts]
            if any(_row_key(row) not in seen.rows for row in zip(*values, strict=True)):
                yield "it holds rows that the audit did not let pass"
            for name in set(batch.schema.names) - set(texts):
                if pa.types.is_string(batch.schema.field(name).type):
                    words |= set(batch.column(name).unique().to_pylist())
    named = sorted(w for w in words if w is not None and not _PUBLIC_ID.fullmatch(w))
    yield from _gold_in(named, seen, WINDOW, near=True)


def _is_plain(kind: Any) -> bool:
    """Return whether a column beside the texts is of a type that an export has: words, numbers, or lists of numbers."""
    import pyarrow as pa

    numbers = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_integer(numbers) or pa.types.is_floating(numbers))


def _type(schema: Any, column: str) -> Any:
    import pyarrow as pa

    return schema.field(column).type if column in schema.names else pa.null()


def _holds(file: Path, secret: bytes) -> bool:
    """Search the bytes of a file for a secret, across chunk borders."""
    before = b""
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            if secret in before + chunk:
                return True
            before = chunk[-len(secret) :]
    return False


# --- models ---------------------------------------------------------------------------------------------------------
def gold_in_files(folder: Path, names: Sequence[str], seen: Watched, gold: Sequence[Dataset], task: Task) -> list[str]:
    """Search the files of a model for gold, planted canaries and identifiers; return each problem as a sentence.

    Args:
        names: of the files that are exported.
        gold: its parts, in which phrases that are added to the vocabulary are looked up.
    """
    problems = []
    for name in names:
        if name.endswith(".safetensors"):
            continue
        try:
            strings = strings_in(folder / name)
        except PublishError as error:
            problems.append(str(error))
            continue
        found = [*_gold_in(strings, seen, MAX_RUN, near=True)]
        if TOKENIZER_FILES.fullmatch(name):
            found += _identifiers_in_tokens(folder / name, strings, seen)
        problems += [f"{name} {p.removeprefix('it ')}" for p in dict.fromkeys(found)]
    tokens = {t for name in names if name.endswith(".json") for t in _phrases(folder / name)}
    if rare := _rare_in_gold(task, tokens, gold):
        problems.append(f"{rare:,} tokens that were added to the vocabulary are phrases of one or two notes of gold")
    return problems


def _phrases(file: Path) -> list[str]:
    """Return the added tokens of a file that are several words, folded."""
    tokens = added_tokens(file) if TOKENIZER_FILES.fullmatch(file.name) else []
    return [" ".join(words) for t in tokens if len(words := t.casefold().split()) > 1]


def _rare_in_gold(task: Task, phrases: set[str], gold: Sequence[Dataset]) -> int:
    """Count the phrases that occur in gold, but in fewer groups of it than make a phrase common."""
    groups: dict[str, set[Any]] = {phrase: set() for phrase in phrases}
    for p, part in enumerate(gold if phrases else ()):
        texts = part.select_columns(note_columns(task))
        for i, (row, group) in enumerate(zip(texts, column_of(part, "group"), strict=True)):
            words = " ".join(" ".join(str(v).casefold().split()) for v in row.values())
            for phrase in phrases:
                if phrase in words:
                    groups[phrase].add((p, i) if group is None else group)
    return sum(0 < len(found) < _PHRASE_GROUPS for found in groups.values())


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
