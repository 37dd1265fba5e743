"""The code blocks of README and docs: read, parsed, and run in the order of the page."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hf_synth.cli import cli

ROOT = Path(__file__).resolve().parent.parent.parent
WRITTEN = ("messages.md", "api.md")  # from the code, by docs/pages.py
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name not in WRITTEN),
    *sorted((ROOT / "examples").rglob("*.md")),
]
PROGRAMS = {  # of others: the block has to say that it needs them, but for the first line
    *("make", "pip", "export", "python3.11", ".venv/bin/pip"),
    *("ollama", "llama-server", "vllm", "hf", "curl", "git", "cd", "eval", "python", "source"),
}
_REVIEW = re.compile(r"^(hf-synth review (?!.*--export).*)$", re.M)
_FENCE = re.compile(r"(?:<!-- needs: (?P<needs>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block; `needs` says what a machine may lack, "" where it runs anywhere."""

    page: Path
    language: str
    code: str
    needs: str

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a bash block, as words."""
        lines = self.code.replace("\\\n", " ").splitlines()
        split = (shlex.split(line, comments=True) for line in lines)
        ends = (">", "&", "|")
        return [
            words[: min((words.index(end) for end in ends if end in words), default=None)] for words in split if words
        ]

    @property
    def is_run(self) -> bool:
        """Whether the slow tests run it: Python, or commands of hf-synth alone, with nothing that may be missing."""
        ours = all(words[0] in ("hf-synth", "export") for words in self.commands) if self.language == "bash" else True
        return self.language in ("bash", "python") and not self.needs and ours


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = [Block(page, m["language"], m["code"], m["needs"] or "") for m in _FENCE.finditer(text)]
    assert 2 * len(found) == len(re.findall("^ *(?:```|~~~)", text, re.M)), (
        f"{page.name}: a block is not closed, or indented"
    )
    return found


def wrong_with(words: list[str], config: Path | None = None) -> str:
    """Return what is wrong with a command; "" for one that its own parser takes.

    Args:
        config: a configuration in the current folder, as `hf-synth init` writes it.
    """
    if words[0] == "make":
        made = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
        return "" if set(words[1:]) <= made else f"the Makefile has no {words[1:]}"
    if "pip" in words[0]:
        extras = set(re.findall(r"hf_synth\[(\w+)\]", " ".join(words)))
        known = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M))
        return "" if extras <= known else f"pyproject.toml has no extra {extras - known}"
    if words[0] != "hf-synth":
        return "" if words[0] in PROGRAMS else f"{words[0]} is no program that these pages name"
    if len(words) < 2 or words[1] in ("--help", "--help-all", "--version"):
        return ""
    if words[1] not in cli.VERBS:
        return f"there is no verb {words[1]!r}"
    if "--config" in words:  # a file that an earlier command wrote
        at = words.index("--config")
        words = words[:at] + words[at + 2 :]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.parse_command([*words[1:], *(["--config", str(config)] if config and words[1] != "init" else [])])
        except SystemExit as stop:
            return "" if stop.code in (0, None) else said.getvalue().strip().splitlines()[-1]
    return ""


def run_page(page: Path, folder: Path, here: Mapping[str, str]) -> Iterator[str]:
    """Run the blocks of a page one after the other; yield each as it was run.

    Args:
        here: regular expressions and what replaces them on this machine.
    """
    ours = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))  # this tree's hf_synth
    environment = {**os.environ, "PYTHONPATH": ours, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    for block in blocks(page):
        if not block.is_run:
            continue
        code = re.sub(r" *\\\n *", " ", block.code)  # one command, one line
        for old, new in here.items():
            code = re.sub(old, new, code, flags=re.M)
        for part in _REVIEW.split(code) if block.language == "bash" else [code]:
            if block.language == "python":
                asked = [sys.executable, "-c", part]
            elif _REVIEW.fullmatch(part):  # a server that waits for people
                from support.review_rows import answer_notes

                assert answer_notes(folder, environment, *shlex.split(part, comments=True)[2:])
                continue
            else:
                asked = [
                    "bash",
                    "-e",
                    "-c",
                    re.sub("^hf-synth ", f"{sys.executable} -m hf_synth.cli ", part, flags=re.M),
                ]
            done = subprocess.run(asked, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
            assert done.returncode == 0, f"{page.name}:\n{part}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        yield code
