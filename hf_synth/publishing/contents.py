"""What the files of an export hold, read as a program that loads them would: every string of JSON, YAML and parquet.

Escapes are resolved, repeated keys all count, and the pieces of a tokenizer are read as the words that they stand for.
Text in the raw bytes of a file is not enough: `\\u00e4` in a JSON file is an umlaut to whoever loads it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from hf_synth.errors import PublishError

_HEADER = re.compile(r"---\n(.*?)\n---\n(.*)", re.DOTALL)
_MARKS = str.maketrans({"\u2581": " ", "\u0120": " ", "\u010a": " "})  # how tokenizers write a space or a new line
_SPIECES, _SPIECE_TEXT = 1, 1  # fields of sentencepiece's ModelProto, and of a piece in it
_SPECIAL = ("added_tokens", "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens")
_CHUNK = 1 << 22  # bytes of a file in memory at once
_TEXT = re.compile(rb"[\t\n\r -~]{24,}")  # among the bytes of tensors; shorter ones occur by chance
_PRINTABLE = bytes([9, 10, 13, *range(32, 127)])
_RECORDED = (b"hf_synth", b"huggingface")  # metadata of a parquet file that an export has


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that a repeated key hides nothing."""


def strings_in(file: Path) -> list[str]:
    """Return every string of a file of an export, in order; the rows of a parquet file are not among them.

    JSON and YAML: keys and values. Markdown: the strings of its header, and each line. Sentencepiece models: their
    pieces and settings. Parquet: names of fields, and metadata. Safetensors: names of tensors, and what stands in them
    as text. Any other file: its lines.

    Raises:
        PublishError: the file is not what its name says.
    """
    try:
        return list(_strings(file))
    except (ValueError, LookupError, RecursionError, OSError, TypeError):
        raise PublishError(f"{file.name} has another kind of content than its name says: save it again") from None


def _strings(file: Path) -> Iterator[str]:
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        yield from _parquet_strings(file)
    elif suffix == ".safetensors":
        header, begin = safetensors_header(file)
        yield from _walk(header)
        yield from _texts_of_tensors(file, begin)
    elif suffix == ".model":
        yield from _sentencepiece(file.read_bytes())
    else:
        text = file.read_text(encoding="utf-8")
        if suffix == ".json":
            yield from _walk(_parsed(text))
        elif suffix in (".yaml", ".yml"):
            yield from _walk(_yaml(text))
        else:
            card = _HEADER.match(text) if suffix == ".md" else None
            if card is not None:
                yield from _walk(_yaml(card[1]))
            yield from (text if card is None else card[2]).splitlines()


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_Pairs)


def _yaml(text: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError("no YAML") from None


def _walk(value: Any) -> Iterator[str]:
    """Yield the strings of a value that was parsed, keys before their values."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, _Pairs | dict):
        for key, inside in value.items() if isinstance(value, dict) else value:
            yield str(key)
            yield from _walk(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from _walk(inside)


# --- parquet and safetensors ----------------------------------------------------------------------------------------
def _parquet_strings(file: Path) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(file)
        kept = (pq.read_metadata(file).metadata or {}).get(b"ARROW:schema")  # as it was before it was written
        written = [] if kept is None else pa.ipc.read_schema(pa.py_buffer(base64.b64decode(kept)))
    except pa.ArrowException:
        raise ValueError("no parquet") from None
    yield from dict.fromkeys([*_field_strings(schema), *_field_strings(written)])
    for name, value in (schema.metadata or {}).items():
        if name not in _RECORDED:
            raise ValueError("metadata of its own")
        yield from _walk(_parsed(value.decode("utf-8")))


def _field_strings(fields: Any) -> Iterator[str]:
    """Yield the names and the metadata of fields, and of the fields inside them, e.g. of the items of a list."""
    for field in fields:
        yield field.name
        for key, value in (field.metadata or {}).items():
            if not key.startswith(b"PARQUET:"):  # pyarrow's own number of the field
                yield from (part.decode("utf-8", "replace") for part in (key, value))
        yield from _field_strings([field.type.field(i) for i in range(field.type.num_fields)])


def safetensors_header(file: Path) -> tuple[dict[str, Any], int]:
    """Read the header of a safetensors file and the number of bytes before its tensors.

    Raises:
        ValueError: it is no safetensors file, or a name occurs twice in its header.
    """
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = _parsed(stream.read(size).decode("utf-8")) if size <= 100_000_000 else None
    if not isinstance(header, _Pairs) or len(dict(header)) != len(header):
        raise ValueError("no safetensors")
    plain = {name: dict(v) if isinstance(v, _Pairs) else v for name, v in header}
    return plain, 8 + size


def _texts_of_tensors(file: Path, begin: int) -> Iterator[str]:
    """Yield the stretches of printable bytes among the numbers of a safetensors file; weights have next to none.

    Args:
        begin: where the numbers begin.
    """
    rest = b""
    with file.open("rb") as stream:
        stream.seek(begin)
        while chunk := stream.read(_CHUNK):
            chunk = rest + chunk
            rest = chunk[len(chunk.rstrip(_PRINTABLE)) :][-_CHUNK:]  # text may go on in the next chunk
            yield from (found.decode() for found in _TEXT.findall(chunk, 0, len(chunk) - len(rest)))
    yield from (found.decode() for found in _TEXT.findall(rest))


# --- tokenizers -----------------------------------------------------------------------------------------------------
def piece_as_text(piece: str) -> str:
    """Return what a piece of a vocabulary stands for: marks of spaces as spaces, bytes of byte-level BPE as letters."""
    letters = _byte_of()
    if not piece.isascii() and all(c in letters for c in piece):
        piece = bytes(letters[c] for c in piece).decode("utf-8", "replace")
    return piece.translate(_MARKS).removeprefix("##")


@cache
def _byte_of() -> dict[str, int]:
    """Return the byte for which each letter stands in byte-level BPE (Radford et al. 2019)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return {chr(b): b for b in shown} | {chr(256 + n): b for n, b in enumerate(hidden)}


def added_tokens(file: Path) -> list[str]:
    """Return the tokens that a file adds to a tokenizer's vocabulary, special ones among them.

    Raises:
        PublishError: the file is not what its name says.
    """
    try:
        facts = _plain(_parsed(file.read_text(encoding="utf-8")))
    except (ValueError, RecursionError):
        raise PublishError(f"{file.name} has another kind of content than its name says: save it again") from None
    if not isinstance(facts, dict):
        return []
    if file.name == "added_tokens.json":
        return list(facts)
    named = facts.values() if file.name == "special_tokens_map.json" else ()
    found = [*named, *(facts.get(key) for key in _SPECIAL), *(v for k, v in facts.items() if k.endswith("_token"))]
    return list(dict.fromkeys(_contents(found)))


def _contents(value: Any) -> Iterator[str]:
    """Yield tokens: strings, or the `content` of their descriptions."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        if "content" in value:
            yield from _contents(value["content"])
        else:
            for inside in value.values():
                yield from _contents(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from _contents(inside)


def _plain(value: Any) -> Any:
    if isinstance(value, _Pairs):
        return {key: _plain(inside) for key, inside in value}
    return [_plain(inside) for inside in value] if isinstance(value, list) else value


def _sentencepiece(data: bytes) -> Iterator[str]:
    """Yield the pieces of a sentencepiece model, then every other string of it.

    Raises:
        ValueError: it is no such model, or has no piece.
    """
    pieces, others = [], []
    for number, value in _fields(data):
        if number == _SPIECES and isinstance(value, bytes):
            pieces += [v.decode("utf-8") for n, v in _fields(value) if n == _SPIECE_TEXT and isinstance(v, bytes)]
        elif isinstance(value, bytes):
            others += [v.decode("utf-8", "replace") for _, v in _fields(value) if isinstance(v, bytes)]
    if not pieces:
        raise ValueError("no sentencepiece model")
    yield from pieces
    yield from others


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a message in protobuf's wire format: an integer, or bytes.

    Raises:
        ValueError: it is no such message.
    """
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                break
            byte, at = data[at], at + 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("no number")

    while at < len(data):
        key = varint()
        kind, size = key & 7, {1: 8, 5: 4}.get(key & 7, 0)
        if kind == 0:
            yield key >> 3, varint()
            continue
        if kind == 2:
            size = varint()
        if kind not in (1, 2, 5) or at + size > len(data):
            raise ValueError("no message")
        yield key >> 3, data[at : at + size]
        at += size
