"""Withdraw a release from a Hub, and list the releases that derive from it.

The history is withdrawn with it: no branch or tag leads to an earlier commit any more. A Hub may go on serving a commit
to whoever knows its id, until it removes what nothing leads to; a withdrawal says so where it does. The publishing log
remembers the name: a repository that was withdrawn does not become public again. Copies that were pulled and exports
that were handed on cannot be undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hf_synth.errors import PublishError
from hf_synth.publishing import release
from hf_synth.publishing.client import endpoint_of
from hf_synth.publishing.gate import Kind
from hf_synth.publishing.release import DONE, derived_releases, names_release
from hf_synth.publishing.remote import Repository

_CARD = """---
tags:
- withdrawn
---

# Withdrawn

This {kind} was withdrawn by its owners{what}. Please delete copies of it, and what was made from them.
"""


@dataclass(frozen=True)
class Withdrawal:
    """A withdrawal, planned or done.

    Args:
        kind, repo_id: of the repository.
        tag: of the release; None is the whole repository.
        derives: releases of this site that derive from it, by the publishing log.
        done: results of the steps on the Hub; empty if only planned.
        endpoint: URL of the Hub.
        unknown_to: the folder whose publishing log does not name the repository, so that `derives` is not known; "" if
            it does.
    """

    kind: Kind
    repo_id: str
    tag: str | None
    derives: tuple[dict[str, Any], ...]
    done: dict[str, Any]
    endpoint: str = ""
    unknown_to: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def __str__(self) -> str:
        what = f"{self.kind} {self.repo_id}" + (f", tag {self.tag}" if self.tag else "") + f" on {self.endpoint}"
        lines = [f"{'withdrawn' if self.done else 'to be withdrawn'}: {what}"]
        if self.done:
            lines += ["  it is private now"] if self.done["private"] else []
            lines += [f"  {self.done['files']:,} files removed, the card says so"] if self.done["commit"] else []
            lines += [f"  tags deleted: {', '.join(self.done['tags']) or 'none'}; its history is squashed"]
            if served := self.done.get("served"):
                lines.append(f"  the Hub still serves {served:,} earlier commits to whoever knows their ids")
        nothing = "nothing that was published from here"
        if self.unknown_to:
            nothing = f"not known: no publishing log in {self.unknown_to} names it; name its export with --records"
        lines.append("  derives from it: " + (nothing if not self.derives else ""))
        lines = [line.rstrip() for line in lines]
        lines += [f"    {d['kind']} {d['repo_id']} ({d['tag'] or 'not pushed'})" for d in self.derives]
        lines.append("  not undone: copies that were pulled or handed on")
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
    """Withdraw a release; without a tag a whole repository, which becomes private and keeps only a card that says so.

    Its history is squashed: no branch or tag leads to the release any more.

    Args:
        kind: "dataset" or "model"; None looks it up in the publishing log, or else on the Hub.
        tag: of one release: the tag is deleted, and the content if it is the newest. Other releases stay, on new
            commits where the old ones led to it.
        records: the export that it was published from, or the folder of exports with the publishing log.
        dry_run: only return the plan, with the releases that derive from it.

    Raises:
        PublishError: there is no such repository or tag, or the Hub failed, wholly or in part: the publishing log
            records what was done and what was not.
        OutputError: the publishing log is broken or cannot be written.

    Example:
        >>> plan = withdraw("org/synth-notes", dry_run=True)  # without dry_run the repository is emptied
        >>> print(plan.repo_id)
        org/synth-notes
    """
    records = Path(records)
    if (records / release.RELEASE).is_file() and not names_release(release.entries(records), repo_id):
        records = records.parent  # it is an export; the log lies beside it
    log = release.entries(records)
    endpoint = endpoint_of(endpoint)
    kind = kind or _kind(repo_id, log, endpoint, token)
    unknown_to = "" if names_release(log, repo_id, kind) else str(records)
    planned = Withdrawal(kind, repo_id, tag, tuple(derived_releases(log, repo_id, kind)), {}, endpoint, unknown_to)
    if dry_run:
        return planned
    note = _CARD.format(kind=kind, what=f" (release {tag})" if tag else "")
    done: dict[str, Any] = {}
    left: list[str] = []
    facts = {"kind": kind, "repo_id": repo_id, "endpoint": endpoint, "tag": tag, "done": done}
    try:
        Repository(kind, repo_id, endpoint, token).withdraw(note, tag, done, left)
    except BaseException as error:  # an interrupt, too, leaves steps done
        if left:
            message = str(error) if isinstance(error, PublishError) else type(error).__name__
            release.record(records, "withdraw failed", **facts, left=left, error=message)
        if left and isinstance(error, PublishError):
            raise PublishError(f"{error}; not done: {', '.join(left)}: withdraw it again") from None
        raise
    release.record(records, "withdraw", **facts, derives=list(planned.derives))
    return replace(planned, done=done)


def _kind(repo_id: str, log: Sequence[dict[str, Any]], endpoint: str, token: str | None) -> Kind:
    """Return the kind of a repository by the publishing log, or else by the Hub."""
    logged = {e["kind"] for e in log if e["action"] in DONE and e["repo_id"] == repo_id}
    both: tuple[Kind, ...] = ("dataset", "model")
    kinds = [k for k in both if k in logged] or [
        k for k in both if Repository(k, repo_id, endpoint, token).visible() is not None
    ]
    if not kinds:
        raise PublishError(f"there is no repository {repo_id}, or the token may not see it")
    if len(kinds) > 1:
        raise PublishError(f"{repo_id} is both a dataset and a model: name the kind")
    return kinds[0]
