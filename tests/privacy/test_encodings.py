"""Encoded text: what it stands for, and what is no encoded text."""

from __future__ import annotations

import base64
import textwrap
import time
from collections.abc import Callable

import pytest

from hf_synth.privacy.encodings import decoded
from hf_synth.privacy.overlap import Index

NOTE = (
    "Mrs Quillby fell from the orchard ladder last Tuesday and bruised her left shoulder badly. She denies numbness, "
    "sleeps poorly since then, and asks whether the kayak tour in August must be cancelled over this."
)
ENCODINGS: dict[str, Callable[[bytes], str]] = {
    "base64": lambda b: base64.b64encode(b).decode(),
    "lines": lambda b: "attached:\n" + textwrap.fill(base64.b64encode(b).decode(), 50) + "\nthanks",
    "address": lambda b: base64.urlsafe_b64encode(b).decode().rstrip("="),
    "hex": lambda b: b.hex(),
    "upper hex, spaces": lambda b: b.hex(" ").upper(),
    "decimal": lambda b: ", ".join(map(str, b)),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_an_encoded_copy_is_found(name: str) -> None:
    row = ENCODINGS[name](NOTE.encode())
    assert NOTE[:150] in decoded(row)
    index = Index.of([("a", (NOTE,)), ("b", ("Another note of some other person, who is well and comes for advice.",))])
    reach = index.reach([(row,), ("Quite another note about a runny nose.",), (f"See below. {row} Regards.",)])
    held = reach.same | reach.spans() | reach.near()
    assert held.tolist() == [True, False, True]
    assert decoded(f"{NOTE} {row}").strip().startswith(NOTE[:150])


@pytest.mark.parametrize(
    "text",
    [
        NOTE,
        NOTE.replace(" ", ""),
        "https://example.org/a/path/that/is/longer/than/twenty/letters?and=more",
        "Na 138, K 41, Cl 102, 98 97 99 96 95 94 13 12 17 18 200 201 202 203 204 205 206 207 208",
        "pneumonoultramicroscopicsilicovolcanoconiosis",
        "0123456789abcdef",
        "",
    ],
)
def test_plain_text_is_not_decoded(text: str) -> None:
    assert decoded(text) == ""


def test_time_is_linear() -> None:
    began = time.process_time()
    for text in ("A" * 19 + " ", "ab ", "12 ", "a" * 21 + " ", "ab:", "-"):
        decoded(text * 20_000)
    assert time.process_time() - began < 3
