"""What a repository can reach besides its newest commit: earlier commits, other branches, tags, discussions.

Visibility belongs to a repository, not to a commit. Before a private repository becomes public, every commit of every
ref must therefore be a release of ours that may be public, by the publishing log; anything else would be shown too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hf_synth.publishing.sealed import Seal, Sealed

ATTRIBUTES = ".gitattributes"  # a Hub makes it with the repository
_BORN = "initial commit"  # how a Hub calls the first commit of a repository
_ATTRIBUTE = re.compile(  # "*.zip filter=lfs diff=lfs merge=lfs -text", "# Audio files - compressed"
    r"|[\w*./-]{1,40}(?: -?(?:text|binary|filter=lfs|diff=lfs|merge=lfs|eol=lf))+"
    r"|# [A-Z][a-z]+ files(?: - [a-z]{1,12})?"
)
_NOTE = re.compile(r"(?:Access: [a-z]{1,20})?")  # what a release of ours says below its title
TITLES = frozenset(f"Publish {kind} with hf_synth" for kind in ("dataset", "model"))


@dataclass(frozen=True)
class Commit:
    """One commit that a repository can reach.

    Args:
        oid: its id.
        title: the first line of its message.
        files: size and id of each file by its path; the id is the sha256 of a large file, git's blob id of a small one.
        plain: whether its .gitattributes, if any, is as a Hub makes it.
        message: the rest of its message.
    """

    oid: str
    title: str
    files: Mapping[str, tuple[int, str]]
    plain: bool = True
    message: str = ""


@dataclass(frozen=True)
class Reach:
    """What a repository can reach.

    Args:
        commits: of every branch, tag, pull request and converted copy.
        others: what else would be shown, in words: "2 pull requests", "1 discussion".
    """

    commits: tuple[Commit, ...] = ()
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Releases:
    """Releases of one repository by the publishing log.

    Args:
        seals: the files of each, with the digest of its content, and whether it was decided to be public or open.
        pushed: ids of the commits that were pushed, with the same.
        withdrawn: whether the whole repository was withdrawn.
        taken_back: ids of commits and digests of content whose release was withdrawn.
    """

    seals: tuple[tuple[Seal, str, bool], ...] = ()
    pushed: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    withdrawn: bool = False
    taken_back: frozenset[str] = frozenset()


def releases_of(log: Sequence[Mapping[str, Any]], kind: str, repo_id: str, endpoint: str) -> Releases:
    """Collect the releases of a repository from the publishing log, oldest entry first."""
    seals: list[tuple[Seal, str, bool]] = []
    pushed: dict[str, tuple[str, bool]] = {}
    withdrawn, taken = False, set()
    tags: dict[str, tuple[str, str]] = {}
    for entry in log:
        if (entry.get("kind"), entry.get("repo_id"), entry.get("endpoint")) != (kind, repo_id, endpoint):
            continue
        action, content = entry["action"], str(entry.get("content"))
        asked = entry.get("asked") or {}
        # a model of open data may have been kept private for what it knows by heart
        is_open = entry.get("access") == "open" and "exposure" not in entry
        fit = is_open or (entry.get("private") is False and bool(asked.get("push")))
        if action == "export" and "files" in entry:
            seals.append(({name: Sealed(*facts) for name, facts in entry["files"].items()}, content, fit))
        elif action == "push":
            pushed[entry["commit"]] = (content, fit)
            tags[entry["tag"]] = (entry["commit"], content)
            taken.discard(content)  # it was published again on purpose
        elif action in ("withdraw", "withdraw failed"):
            withdrawn = withdrawn or entry.get("tag") is None
            taken |= set(tags.get(entry.get("tag") or "", ()))
    return Releases(tuple(seals), pushed, withdrawn, frozenset(taken))


def unreleased_contents(
    reach: Reach, known: Releases, *, seal: Seal | None = None, content: str | None = None
) -> list[str]:
    """Describe what a repository would show if it became public, except the releases that may be public.

    Args:
        known: releases of the repository by the publishing log.
        seal: the files of the release that is being published, if it was written already.
        content: the digest of its rows or weights: an earlier release of the same content may be shown with it. None
            lets every release of ours pass, since the content is not known yet.
    """
    foreign, private, taken = 0, 0, 0
    for commit in reach.commits:
        release = _release(commit, known, seal, content)
        if release is None:
            foreign += not _is_birth(commit)
        elif commit.oid in known.taken_back or release[0] in known.taken_back:
            taken += 1
        elif not release[1] and content is not None and release[0] != content:
            private += 1
    counts = (
        (foreign, "commits that are no releases of ours"),
        (private, "earlier releases that were published in private only"),
        (taken, "commits of a withdrawn release"),
    )
    return [f"{n:,} {what}" for n, what in counts if n] + list(reach.others)


def _release(commit: Commit, known: Releases, seal: Seal | None, content: str | None) -> tuple[str, bool] | None:
    """Return content and fitness of the release that a commit is; None if it is none of ours."""
    if seal is not None and _holds(commit, seal):
        return str(content), True
    if commit.oid in known.pushed:
        return known.pushed[commit.oid]
    matches = [(c, fit) for files, c, fit in known.seals if _holds(commit, files)]
    return max(matches, key=lambda match: match[1], default=None)


def _holds(commit: Commit, seal: Seal) -> bool:
    """Return whether a commit by us holds exactly the files of an export."""
    files = {name: file for name, file in commit.files.items() if name != ATTRIBUTES}
    ours = commit.title in TITLES and commit.plain and _NOTE.fullmatch(commit.message.strip()) is not None
    return ours and set(files) == set(seal) and all(seal[name].is_at(*file) for name, file in files.items())


def _is_birth(commit: Commit) -> bool:
    silent = commit.title.strip().lower() in ("", _BORN) and not commit.message.strip()
    return set(commit.files) <= {ATTRIBUTES} and silent and commit.plain


def is_plain(attributes: str) -> bool:
    """Return whether a .gitattributes file is as a Hub makes it: patterns of large files, and known remarks."""
    return all(_ATTRIBUTE.fullmatch(line.strip()) for line in attributes.splitlines())


def differing_files(files: Mapping[str, tuple[int, str]], seal: Seal) -> Iterator[str]:
    """Yield the names of sealed files that a commit lacks or holds otherwise."""
    return (name for name, file in seal.items() if name not in files or not file.is_at(*files[name]))
