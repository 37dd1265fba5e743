"""Push to and withdraw from a repository on a Hub, with huggingface_hub: the only module that writes to a Hub.

An export is pushed to a private repository as one commit on top of the known head: a private copy of the files that its
checks saw, and no others. It is read back byte for byte, and only then made public, if nothing else can be reached in
the repository (`history`), and tagged. A commit is applied as a whole, so a repository is never half new; every failure
is one `PublishError`, and leaves the repository as it was, or private.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hf_synth.errors import PublishError
from hf_synth.publishing.changes import Changes, Present, changes_of, is_compared
from hf_synth.publishing.client import clear_errors, client, endpoint_of
from hf_synth.publishing.gate import Gated, Kind, Request, Verdict, Visible
from hf_synth.publishing.history import (
    ATTRIBUTES,
    Commit,
    Reach,
    Releases,
    differing_files,
    is_plain,
    unreleased_contents,
)
from hf_synth.publishing.sealed import Seal, copy_sealed, sealed_file
from hf_synth.reports.progress import stage
from hf_synth.task.folders import work_folder
from hf_synth.task.task import Task

_OURS = {"dataset": (".parquet",), "model": (".safetensors",)}
# Files that other tools may have pushed, beside which nothing is published: pickles, tables, archives, logs.
_FOREIGN = re.compile(
    r"(?i).*\.(?:bin|pt|pth|ckpt|pkl|pickle|joblib|np[yz]|h5|msgpack|csv|tsv|jsonl|xlsx?|arrow|zip|t?gz|tar|7z|sqlite|db|log)"
)
_NUMBERED = re.compile(r"v(\d+)")
_HIDE, _EMPTY, _SQUASH = "make it private", "empty it", "squash its history"  # steps of a withdrawal
_WITHDRAWN = "Withdraw this release"
_BRANCH = "hf-synth-squash"  # exists while the history of a tag is squashed


@dataclass(frozen=True)
class Published:
    """Result of a push.

    Args:
        url: of the repository's page.
        commit, tag: revisions to load it by.
        gated: how the repository is gated.
        changed: whether anything was uploaded.
    """

    url: str
    commit: str
    tag: str
    gated: Gated
    changed: bool


@dataclass(frozen=True)
class _Before:
    """A repository before a push.

    Args:
        info: as its Hub describes it.
        tags: the commit of each tag.
        stale: remote files that are deleted.
        changed: files to send.
    """

    info: Any
    tags: Mapping[str, str]
    stale: Sequence[str]
    changed: Sequence[str]


@dataclass(frozen=True)
class Repository:
    """One repository on one Hub."""

    kind: Kind
    repo_id: str
    endpoint: str
    token: str | None = field(repr=False)

    @property
    def url(self) -> str:
        """The address of the repository's page."""
        return f"{self.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo_id}"

    def _api(self) -> Any:
        """Return the client; a token that was stored for one Hub is not sent to another."""
        from huggingface_hub import HfApi

        stored = self.endpoint == endpoint_of(None) or "HF_TOKEN" in os.environ
        return HfApi(endpoint=self.endpoint, token=self.token if self.token or stored else False)

    @property
    def _where(self) -> dict[str, str]:
        return {"repo_id": self.repo_id, "repo_type": self.kind}

    def visible(self) -> Visible | None:
        """Return whether the repository is public or private; None if there is none (or none that we may see).

        Raises:
            PublishError: the Hub cannot be reached.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        with clear_errors(self.repo_id, "looking it up"), client(self.endpoint):
            try:
                info = self._api().repo_info(**self._where)
            except RepositoryNotFoundError:
                return None
        return "private" if info.private else "public"

    def changes(self, task: Task, folder: Path, seal: Seal, verdict: Verdict, request: Request) -> Changes:
        """Compare an export with what the repository holds now; nothing is sent.

        Raises:
            PublishError: the Hub cannot be reached, or the repository holds files that are never published.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        wanted: dict[str, Any] = {"private": verdict.private, "gated": verdict.gated, "tag": request.tag or "v1"}
        work = tempfile.TemporaryDirectory(prefix="present-", dir=work_folder(folder.parent))
        with work as place, clear_errors(self.repo_id, "looking at what it holds"), client(self.endpoint):
            api, to = self._api(), Path(place)
            try:
                info = api.repo_info(**self._where)
            except RepositoryNotFoundError:
                return changes_of(task, None, folder, seal, (), wanted)
            files, tags = self._files(api, info.sha), self._tags(api)
            for name in (n for n, (size, _) in files.items() if is_compared(n, size)):
                api.hf_hub_download(
                    **self._where, filename=name, revision=info.sha, local_dir=to, cache_dir=to / ".cache",
                    force_download=True,
                )  # fmt: skip
            present = Present(bool(info.private), info.gated or False, files, list(tags), str(info.sha or ""), to)
            stale, changed = self._difference(seal, files, everything=request.squash)
            if request.gated is None and not verdict.gated:  # a gate stays that nobody asked to open
                wanted["gated"] = info.gated or False
            if request.tag is None:
                wanted["tag"] = self._next_tag(tags, None if stale or changed else info.sha)
            return changes_of(task, present, folder, seal, stale, wanted)

    def reach(self, known: Releases) -> Reach:
        """Return what the repository can reach: the commits of every ref, and what else would be shown.

        Args:
            known: releases of the repository; the files of commits that were pushed by us are not listed again.

        Raises:
            PublishError: the Hub cannot be reached.
        """
        with clear_errors(self.repo_id, "looking at its history"), client(self.endpoint):
            return self._reach(self._api(), known)

    def _reach(self, api: Any, known: Releases) -> Reach:
        refs = api.list_repo_refs(**self._where, include_pull_requests=True)
        pulls = refs.pull_requests or []
        heads = dict.fromkeys(ref.target_commit for ref in (*refs.branches, *refs.tags))
        places = [*heads, *(ref.ref for ref in (*refs.converts, *pulls))]
        said: dict[str, tuple[str, str]] = {}
        for place in places:
            listed = api.list_repo_commits(**self._where, revision=place)
            said |= {c.commit_id: (c.title, c.message or "") for c in listed}
        commits, plain = [], {}
        for oid, (title, message) in said.items():
            files = {} if oid in known.pushed else self._files(api, oid)
            if ATTRIBUTES in files and files[ATTRIBUTES][1] not in plain:
                plain[files[ATTRIBUTES][1]] = self._has_plain_attributes(api, oid)
            is_usual = plain.get(files.get(ATTRIBUTES, (0, ""))[1], True)
            commits.append(Commit(oid, title, files, is_usual, message))
        counts = {"pull requests": len(pulls), "discussions": self._discussions(api)}
        return Reach(tuple(commits), tuple(f"{n:,} {what}" for what, n in counts.items() if n))

    def _has_plain_attributes(self, api: Any, oid: str) -> bool:
        with tempfile.TemporaryDirectory(prefix="hf-synth-attributes-") as back:
            fetched = api.hf_hub_download(
                **self._where, filename=ATTRIBUTES, revision=oid, local_dir=back, force_download=True
            )
            return is_plain(Path(fetched).read_text(encoding="utf-8", errors="replace"))

    def _discussions(self, api: Any) -> int:
        """Return the number of discussions, whose comments become public with a repository; a Hub may have none."""
        from huggingface_hub.errors import HfHubHTTPError

        try:
            return sum(not d.is_pull_request for d in api.get_repo_discussions(**self._where))
        except HfHubHTTPError as error:
            if getattr(error.response, "status_code", None) in (403, 404, 410):  # not known, or switched off
                return 0
            raise

    def push(
        self,
        folder: Path,
        seal: Seal,
        *,
        private: bool,
        gated: Gated,
        keep_gate: bool,
        tag: str | None,
        note: str,
        known: Releases | None = None,
        content: str = "",
        squash: bool = False,
        head: str = "",
    ) -> Published:
        """Push an export folder in one commit, read it back, and only then set who may see it.

        Args:
            seal: the files of the folder as its checks saw them; any difference stops the push.
            keep_gate: whether an existing gate stays.
            tag: None is the next of v1, v2, ...; an unchanged release keeps its tag.
            note: description of the commit.
            known: releases of the repository, by the publishing log.
            content: digest of the export's content.
            squash: whether everything else that the repository holds is deleted: files, earlier commits, branches and
                tags.
            head: the commit that the release was compared with (`changes`); "" is any.

        Raises:
            PublishError: the export changed after it was checked; the Hub does not accept it, or holds something else
                than was sent, or would show something else with it.
        """
        api, known = self._api(), known or Releases()
        work = tempfile.TemporaryDirectory(prefix="push-", dir=work_folder(folder.parent))
        with work as copy, client(self.endpoint):
            copy_sealed(folder, seal, Path(copy))
            with clear_errors(self.repo_id, "pushing"):
                before = self._begin(api, seal, private, tag, squash)
                if head and before.info.sha != head:
                    raise PublishError(
                        "somebody else changed the repository after its changes were shown; nothing was sent: publish "
                        "again"
                    )
            wanted = gated or (before.info.gated if keep_gate else False) or False
            commit = self._send(api, Path(copy), before, wanted, note)
            with clear_errors(self.repo_id, "reading it back"), stage(f"reading {self.repo_id} back"):
                self._compare(api, Path(copy), seal, commit)
            if squash:
                with clear_errors(self.repo_id, "it was pushed, but what it held before could not be deleted"):
                    commit = self._squash(api)
            with clear_errors(self.repo_id, "it was pushed, but who may see it could not be set"):
                if bool(before.info.private) != private:
                    if not private:
                        self._check_reach(api, known, seal, content)
                    api.update_repo_settings(**self._where, private=private)
                self._check_settings(api, private, wanted)
            with clear_errors(self.repo_id, "it was pushed, but could not be tagged"):
                name = self._tag(api, tag, before.tags, commit)
        return Published(self.url, commit, name, wanted, bool(before.stale or before.changed))

    def _begin(self, api: Any, seal: Seal, private: bool, tag: str | None, squash: bool) -> _Before:
        """Create the repository if there is none, privately, and look at what it holds."""
        api.create_repo(**self._where, private=True, exist_ok=True)
        info = api.repo_info(**self._where)
        if private and not info.private:
            raise PublishError(f"{self.repo_id} is public although it should be private; nothing was sent")
        remote, tags = self._files(api, info.sha), self._tags(api)
        stale, changed = self._difference(seal, remote, everything=squash)
        if not squash and tag in tags and (stale or changed or tags[tag] != info.sha):
            raise PublishError(f"{self.repo_id} has a tag {tag!r} already: choose another; nothing was sent")
        return _Before(info, tags, stale, changed)

    def _send(self, api: Any, folder: Path, before: _Before, wanted: Gated, note: str) -> str:
        """Commit the differences, and gate the repository: a public one first."""
        info = before.info
        if wanted and not info.private and info.gated != wanted:
            with clear_errors(self.repo_id, "access to it could not be gated; nothing was sent"):
                api.update_repo_settings(**self._where, gated=wanted)
        with clear_errors(self.repo_id, "pushing"):
            commit = self._commit(api, folder, info.sha, before.stale, before.changed, note)
        with clear_errors(self.repo_id, "it was pushed, but access to it could not be gated"):
            if (info.gated or False) != wanted:
                api.update_repo_settings(**self._where, gated=wanted)
        return commit

    def _check_reach(self, api: Any, known: Releases, seal: Seal, content: str) -> None:
        """Check, at the last moment, that nothing but releases becomes public with the repository."""
        if shown := unreleased_contents(self._reach(api, known), known, seal=seal, content=content):
            raise PublishError(
                f"{self.repo_id} was pushed and stays private, since it would also show {', '.join(shown)}: choose "
                "another name, or squash its history (squash=True, --squash)"
            )

    def _squash(self, api: Any) -> str:
        """Leave one commit with the files of the main branch, and no other branch or tag; return its id."""
        refs = api.list_repo_refs(**self._where)
        before = self._commits(api, *(ref.target_commit for ref in (*refs.branches, *refs.tags)))
        for ref in refs.tags:
            api.delete_tag(**self._where, tag=ref.name)
        for ref in refs.branches:
            if ref.name != "main":
                api.delete_branch(**self._where, branch=ref.name)
        api.super_squash_history(**self._where, commit_message=_title(self.kind))
        oid = str(api.repo_info(**self._where).sha)
        if served := self._served(api, before - {oid}):
            raise PublishError(
                f"{self.repo_id} was squashed, but its Hub still serves {len(served):,} earlier commits by their ids: "
                "choose another name, or have the Hub remove them"
            )
        return oid

    def _served(self, api: Any, oids: Iterable[str]) -> list[str]:
        """Return the commits that the Hub still serves by their ids."""
        from huggingface_hub.errors import RevisionNotFoundError

        served = []
        for oid in sorted(oids):
            with contextlib.suppress(RevisionNotFoundError):
                api.repo_info(**self._where, revision=oid)
                served.append(oid)
        return served

    def _check_settings(self, api: Any, private: bool, gated: Gated) -> None:
        info = api.repo_info(**self._where)
        if (bool(info.private), info.gated or False) != (private, gated):
            raise PublishError(f"{self.repo_id} is not as private or gated as asked: check its settings now")

    def _files(self, api: Any, revision: str | None) -> dict[str, tuple[int, str]]:
        """Return size and oid of each remote file: sha256 of a large file, git's blob id of a small one."""
        from huggingface_hub import RepoFile

        if revision is None:
            return {}
        tree = api.list_repo_tree(**self._where, recursive=True, revision=revision)
        return {f.path: (f.size, f.lfs.sha256 if f.lfs else f.blob_id) for f in tree if isinstance(f, RepoFile)}

    def _tags(self, api: Any) -> dict[str, str]:
        return {t.name: t.target_commit for t in api.list_repo_refs(**self._where).tags}

    def _difference(
        self, seal: Seal, remote: Mapping[str, tuple[int, str]], *, everything: bool
    ) -> tuple[list[str], list[str]]:
        """Return the remote files that are deleted, those of earlier exports or everything, and the files to send."""
        foreign = [p for p in remote if p not in seal and _FOREIGN.fullmatch(p)]
        if everything:
            return [p for p in remote if p not in seal and p != ATTRIBUTES], list(differing_files(remote, seal))
        if foreign:
            raise PublishError(
                f"{self.repo_id} holds files that are never published ({', '.join(foreign[:3])}): remove them, or "
                "choose another name; nothing was sent"
            )
        stale = [p for p in remote if p not in seal and p.endswith(_OURS[self.kind])]
        return stale, list(differing_files(remote, seal))

    def _commit(
        self, api: Any, folder: Path, head: str | None, stale: Sequence[str], changed: Sequence[str], note: str
    ) -> str:
        """Commit all differences at once on top of the known head, if there are any."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        if head is not None and not stale and not changed:
            return head
        size = sum((folder / p).stat().st_size for p in changed)
        with stage(f"pushing {len(changed):,} files, {size / 1e6:,.1f} MB, to {self.repo_id}"):
            commit = api.create_commit(
                **self._where,
                operations=[
                    *(CommitOperationDelete(path_in_repo=p) for p in stale),
                    *(CommitOperationAdd(path_in_repo=p, path_or_fileobj=str(folder / p)) for p in changed),
                ],
                commit_message=_title(self.kind),
                commit_description=note,
                parent_commit=head,
            )
        return str(commit.oid)

    def _compare(self, api: Any, folder: Path, seal: Seal, commit: str) -> None:
        """Download each file of the commit, and compare its bytes with those that the checks saw."""
        remote = self._files(api, commit)
        wrong = list(differing_files(remote, seal))
        for name in seal if not wrong else ():
            with tempfile.TemporaryDirectory(prefix="back-", dir=folder.parent) as back:
                # no cache may answer in place of the Hub
                fetched = api.hf_hub_download(
                    **self._where, filename=name, revision=commit, local_dir=back, cache_dir=Path(back) / ".cache",
                    force_download=True,
                )  # fmt: skip
                if sealed_file(Path(fetched)) != seal[name]:
                    wrong.append(name)
        if wrong:
            raise PublishError(f"{self.repo_id} does not hold what was sent ({', '.join(wrong[:3])}): publish again")

    def _tag(self, api: Any, tag: str | None, tags: Mapping[str, str], commit: str) -> str:
        """Tag a commit, unless it has a tag that fits, and return the tag."""
        name = tag or self._next_tag(tags, commit)
        if tags.get(name) != commit:
            api.create_tag(**self._where, tag=name, revision=commit)
        return name

    def _next_tag(self, tags: Mapping[str, str], commit: str | None) -> str:
        """Return the newest of v1, v2, ... that a commit has, or else the next one."""
        mine = [name for name, target in tags.items() if target == commit and _NUMBERED.fullmatch(name)]
        return max(mine, key=_number) if mine else f"v{max((_number(t) for t in tags), default=0) + 1}"

    def withdraw(self, card: str, tag: str | None, done: dict[str, Any], left: list[str]) -> None:
        """Withdraw a release with its history: the whole repository, or one tag of it.

        Without a tag the repository first becomes private; then one commit leaves only a card, all tags and other
        branches are deleted, and the history is squashed. With a tag, that tag is deleted, the content too if the
        branch is still at it, and no other branch or tag reaches its commit any more.

        Args:
            card: text of the new card.
            tag: of the release; None is the whole repository.
            done: is filled with the results of the steps: private, tags, files, commit, branches, squashed, and the
                number of earlier commits that the Hub still serves by their ids.
            left: is filled with the steps; each is removed once it is done.

        Raises:
            PublishError: there is no such repository or tag, or the Hub failed.
        """
        api = self._api()
        done |= {"private": False, "tags": [], "files": 0, "commit": None, "branches": [], "squashed": False}
        with client(self.endpoint):
            with clear_errors(self.repo_id, "looking it up"):
                info, tags = api.repo_info(**self._where), self._tags(api)
                if tag is not None and tag not in tags:
                    raise PublishError(f"{self.repo_id} has no tag {tag!r}; it has {', '.join(sorted(tags)) or 'none'}")
                refs = api.list_repo_refs(**self._where)
                branches = [ref.name for ref in refs.branches if ref.name != "main"] if tag is None else []
                before = self._commits(api, *(ref.target_commit for ref in refs.branches), *tags.values())
            withdrawn = None if tag is None else tags[tag]
            empty = withdrawn in (None, info.sha)
            deleted = sorted(tags) if tag is None else [tag]
            left += [*([_HIDE] if tag is None else []), *([_EMPTY] if empty else [])]
            left += [
                *(f"delete tag {name}" for name in deleted),
                *(f"delete branch {name}" for name in branches),
                _SQUASH,
            ]
            if tag is None:
                with clear_errors(self.repo_id, "making it private"):
                    self._hide(api, info)
                    done["private"] = True
                    left.remove(_HIDE)
            if empty:
                with clear_errors(self.repo_id, "emptying it"):
                    done |= self._empty(api, info.sha, card)
                    left.remove(_EMPTY)
            self._delete_refs(api, {"tag": deleted, "branch": branches}, done, left)
            with clear_errors(self.repo_id, "squashing its history"):
                self._forget(api, withdrawn, _WITHDRAWN if empty else _title(self.kind))
                done["squashed"] = True
                left.remove(_SQUASH)
                gone = before if withdrawn is None else {withdrawn}
                done["served"] = len(self._served(api, gone - self._commits(api, api.repo_info(**self._where).sha)))

    def _hide(self, api: Any, info: Any) -> None:
        """Make the repository private, and check that it is."""
        if not info.private:
            api.update_repo_settings(**self._where, private=True)
        if not api.repo_info(**self._where).private:
            raise PublishError(f"{self.repo_id} is still public: check its settings now")

    def _delete_refs(self, api: Any, refs: Mapping[str, Sequence[str]], done: dict[str, Any], left: list[str]) -> None:
        """Delete tags and branches by name; each is noted in `done` and removed from `left` once it is deleted."""
        for what, delete, several in (("tag", api.delete_tag, "tags"), ("branch", api.delete_branch, "branches")):
            with clear_errors(self.repo_id, f"deleting its {several}"):
                for name in refs[what]:
                    delete(**self._where, **{what: name})
                    done[several].append(name)
                    left.remove(f"delete {what} {name}")

    def _empty(self, api: Any, head: str | None, card: str) -> dict[str, Any]:
        """Leave only a card at the head of the main branch; return the number of files deleted and the commit."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        paths = [p for p in self._files(api, head) if p not in ("README.md", ATTRIBUTES)]
        edits: list[Any] = [CommitOperationDelete(path_in_repo=p) for p in paths]
        edits.append(CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=card.encode()))
        how = {"commit_message": _WITHDRAWN, "parent_commit": head}
        commit = api.create_commit(**self._where, operations=edits, **how)
        return {"files": len(paths), "commit": commit.oid}

    def _commits(self, api: Any, *revisions: str | None) -> set[str]:
        """Return the ids of the commits that revisions lead to."""
        named = dict.fromkeys(r for r in revisions if r is not None)
        return {c.commit_id for r in named for c in api.list_repo_commits(**self._where, revision=r)}

    def _forget(self, api: Any, withdrawn: str | None, title: str) -> None:
        """Squash the main branch, and each tag that still leads to a withdrawn commit.

        Args:
            withdrawn: the commit; None squashes the main branch whatever it leads to.
            title: of the squashed commit of the main branch.
        """
        head = api.repo_info(**self._where).sha
        tags: dict[str, list[str]] = {}
        for name, target in self._tags(api).items():
            if withdrawn is not None and target != withdrawn and withdrawn in self._commits(api, target):
                tags.setdefault(target, []).append(name)
        if withdrawn is None or withdrawn in self._commits(api, head):
            api.super_squash_history(**self._where, commit_message=title)
        for target, names in tags.items():
            squashed = api.repo_info(**self._where).sha
            if target != head:
                api.create_branch(**self._where, branch=_BRANCH, revision=target)
                api.super_squash_history(**self._where, branch=_BRANCH, commit_message=_title(self.kind))
                squashed = api.repo_info(**self._where, revision=_BRANCH).sha
            for name in names:
                api.delete_tag(**self._where, tag=name)
                api.create_tag(**self._where, tag=name, revision=squashed)
            if target != head:
                api.delete_branch(**self._where, branch=_BRANCH)


def _title(kind: Kind) -> str:
    return f"Publish {kind} with hf_synth"


def _number(tag: str) -> int:
    match = _NUMBERED.fullmatch(tag)
    return int(match[1]) if match else 0
