"""Withdrawal: a release is taken back, and what derives from it is named.

What this cannot undo: copies that were pulled stay where they are, and so do exports that were handed on. Earlier
commits stay in the repository's history for those who may read it, who are its members alone once it is private; only
deleting the repository removes them. With a tag the visibility stays: whoever noted the commit can still read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_synth.errors import PublishError
from hf_synth.publishing import release
from hf_synth.publishing.gate import Kind
from hf_synth.publishing.release import DONE, derived
from hf_synth.publishing.remote import Repository, endpoint_of

_NOTE = """---
tags:
- withdrawn
---

# Withdrawn

This {kind} was withdrawn by its owners{what}. Please delete copies of it, and what was made from them.
"""


@dataclass(frozen=True)
class Withdrawal:
    """What was taken back, or would be.

    Args:
        kind, repo_id: of the repository.
        tag: the release; None is all of the repository.
        derives: releases of this site that derive from it, as the audit log knows them.
        done: what was done on the Hub; empty before.
    """

    kind: Kind
    repo_id: str
    tag: str | None
    derives: tuple[dict[str, Any], ...]
    done: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)

    def __str__(self) -> str:
        what = f"{self.kind} {self.repo_id}" + (f", tag {self.tag}" if self.tag else "")
        lines = [f"{'withdrawn' if self.done else 'to be withdrawn'}: {what}"]
        if self.done:
            lines += ["  it is private now"] if self.done["private"] else []
            lines += [f"  {self.done['files']:,} files taken out, the card says so"] if self.done["commit"] else []
            lines += [f"  tags deleted: {', '.join(self.done['tags']) or 'none'}"]
        lines.append("  derives from it: " + ("nothing that was published from here" if not self.derives else ""))
        lines = [line.rstrip() for line in lines]
        lines += [f"    {d['kind']} {d['repo_id']} ({d['tag'] or 'not pushed'})" for d in self.derives]
        lines.append(
            "  not undone: copies that were pulled or handed on; earlier commits, until the repository is deleted"
        )
        return "\n".join(lines)


def withdraw(
    repo_id: str,
    *,
    kind: Kind | None = None,
    tag: str | None = None,
    records: str | Path = "export",
    endpoint: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> Withdrawal:
    """Take a release back: without a tag all of a repository, which becomes private and keeps only a card that says so.

    Args:
        kind: "dataset" or "model"; as the audit log, or else the Hub, knows it when None.
        tag: one release: its tag goes, and its content where it is the newest. The others stay as they are.
        records: the folder of exports that it was published from; its audit log says what derives from it.
        dry_run: only say what would be done and what derives from it.

    Raises:
        PublishError: there is no such repository or tag, or the Hub did not do it, or not all of it: the audit log says
            what was done and what was not.
        OutputError: the audit log is broken or cannot be written.
    """
    log = release.entries(Path(records))
    where = endpoint_of(endpoint)
    kind = kind or _kind(repo_id, log, where, token)
    planned = Withdrawal(kind, repo_id, tag, tuple(derived(log, repo_id, kind)), {})
    if dry_run:
        return planned
    note = _NOTE.format(kind=kind, what=f" (release {tag})" if tag else "")
    done: dict[str, Any] = {}
    left: list[str] = []
    facts = {"kind": kind, "repo_id": repo_id, "endpoint": where, "tag": tag, "done": done}
    try:
        Repository(kind, repo_id, where, token).withdraw(note, tag, done, left)
    except BaseException as error:  # an interrupted one, too, has done what it has done
        if left:
            said = str(error) if isinstance(error, PublishError) else type(error).__name__
            release.record(Path(records), "withdraw failed", **facts, left=left, error=said)
        if left and isinstance(error, PublishError):
            raise PublishError(f"{error}; not done: {', '.join(left)}: withdraw it again") from None
        raise
    release.record(Path(records), "withdraw", **facts, derives=list(planned.derives))
    return Withdrawal(kind, repo_id, tag, planned.derives, done)


def _kind(repo_id: str, log: Sequence[dict[str, Any]], endpoint: str, token: str | None) -> Kind:
    """Find out what a repository is: the last time it was published, or the one kind that the Hub has of this name."""
    known = [e["kind"] for e in log if e["action"] in DONE and e["repo_id"] == repo_id]
    kinds: tuple[Kind, ...] = ("dataset", "model")
    there = [k for k in kinds if k in known] or [
        k for k in kinds if Repository(k, repo_id, endpoint, token).visible() is not None
    ]
    if len(there) != 1:
        raise PublishError(
            f"{repo_id} is both a dataset and a model: say which"
            if there
            else f"there is no repository {repo_id}, or the token may not see it"
        )
    return there[0]
