"""Questions to an LLM, as messages."""

from __future__ import annotations


def ask(*texts: str) -> list[list[dict[str, str]]]:
    """Return a question of each text."""
    return [[{"role": "user", "content": text}] for text in texts]


def questions(n: int, start: int = 0) -> list[list[dict[str, str]]]:
    """Return "question 0" and so on, up to n, from `start`."""
    return ask(*(f"question {i}" for i in range(start, n)))
