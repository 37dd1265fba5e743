"""One repository on one Hub: the only room that writes to a Hub.

What is published goes into a private repository in one commit on top of what was seen, is read back byte for byte, and
only then may become public and gets its tag. A commit is one unit, so a repository is never half new; whatever goes
wrong is one `PublishError`, and the repository is then as it was, or private.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hf_synth.errors import PublishError
from hf_synth.publishing.export import file_oids
from hf_synth.publishing.gate import Gated, Kind, Visible, is_institution
from hf_synth.task.folders import work_folder

_OURS = {"dataset": (".parquet",), "model": (".safetensors",)}
# What earlier pushes by other tools may have left, and what we never put beside it: pickles, tables, archives, logs.
_FOREIGN = re.compile(
    r"(?i).*\.(?:bin|pt|pth|ckpt|pkl|pickle|joblib|np[yz]|h5|msgpack|csv|tsv|jsonl|xlsx?|arrow|zip|t?gz|tar|7z|sqlite|db|log)"
)
_NUMBERED = re.compile(r"v(\d+)")


@dataclass(frozen=True)
class Published:
    """What a push made of a repository.

    Args:
        url: of its page.
        commit, tag: under which it can be loaded.
        gated: how it is gated.
        changed: whether anything was uploaded.
    """

    url: str
    commit: str
    tag: str
    gated: Gated
    changed: bool


@dataclass(frozen=True)
class Repository:
    """One repository on one Hub."""

    kind: Kind
    repo_id: str
    endpoint: str
    token: str | None = field(repr=False)

    @property
    def url(self) -> str:
        """Give the address of its page."""
        return f"{self.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo_id}"

    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self.token)

    @property
    def _where(self) -> dict[str, str]:
        return {"repo_id": self.repo_id, "repo_type": self.kind}

    def visible(self) -> Visible | None:
        """Ask how the repository can be seen; None when there is none (or none that we may see).

        Raises:
            PublishError: the Hub cannot be asked.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        with clear_errors(self.repo_id, "looking it up"), client(self.endpoint):
            try:
                info = self._api().repo_info(**self._where)
            except RepositoryNotFoundError:
                return None
        return "private" if info.private else "public"

    def push(
        self, folder: Path, *, private: bool, gated: Gated, keep_gate: bool, tag: str | None, note: str
    ) -> Published:
        """Push an export folder in one commit, read it back, and only then show it to whoever may see it.

        Args:
            keep_gate: leave a gate that is there already, rather than take it away.
            tag: None for the next number, v1, v2, ...; what is tagged already and did not change keeps its tag.
            note: description of the commit.

        Raises:
            PublishError: the Hub did not take it, or holds something else than what was sent.
        """
        api, here = self._api(), file_oids(folder)
        with client(self.endpoint):
            with clear_errors(self.repo_id, "pushing"):
                api.create_repo(**self._where, private=True, exist_ok=True)
                info = api.repo_info(**self._where)
                if private and not info.private:
                    raise PublishError(f"{self.repo_id} is public although it should be private; nothing was sent")
                there, tags = self._files(api, info.sha), self._tags(api)
                stale, changed = self._difference(here, there)
                if tag in tags and (stale or changed or tags[tag] != info.sha):
                    raise PublishError(f"{self.repo_id} has a tag {tag!r} already: choose another; nothing was sent")
            wanted = gated or (info.gated if keep_gate else False) or False
            if wanted and not info.private and info.gated != wanted:  # what anybody sees already is shut first
                with clear_errors(self.repo_id, "access to it could not be gated; nothing was sent"):
                    api.update_repo_settings(**self._where, gated=wanted)
            with clear_errors(self.repo_id, "pushing"):
                commit = self._commit(api, folder, info.sha, stale, changed, note)
            with clear_errors(self.repo_id, "it is there, but access to it could not be gated"):
                if (info.gated or False) != wanted:
                    api.update_repo_settings(**self._where, gated=wanted)
            with clear_errors(self.repo_id, "reading it back"):
                self._compare(api, folder, here, commit)
            with clear_errors(self.repo_id, "it is there, but who may see it could not be set"):
                if bool(info.private) != private:
                    api.update_repo_settings(**self._where, private=private)
                self._settled(api, private, wanted)
            with clear_errors(self.repo_id, "it is there, but could not be tagged"):
                name = self._tagged(api, tag, tags, commit)
        return Published(self.url, commit, name, wanted, bool(stale or changed))

    def _settled(self, api: Any, private: bool, gated: Gated) -> None:
        info = api.repo_info(**self._where)
        if (bool(info.private), info.gated or False) != (private, gated):
            raise PublishError(f"{self.repo_id} is not as private or gated as asked: check its settings now")

    def _files(self, api: Any, revision: str | None) -> dict[str, tuple[int, str]]:
        """Give size and oid of each remote file: sha256 of a large file, git's own of a small one."""
        from huggingface_hub import RepoFile

        if revision is None:
            return {}
        tree = api.list_repo_tree(**self._where, recursive=True, revision=revision)
        return {f.path: (f.size, f.lfs.sha256 if f.lfs else f.blob_id) for f in tree if isinstance(f, RepoFile)}

    def _tags(self, api: Any) -> dict[str, str]:
        return {t.name: t.target_commit for t in api.list_repo_refs(**self._where).tags}

    def _difference(
        self, here: Mapping[str, tuple[int, tuple[str, str]]], there: Mapping[str, tuple[int, str]]
    ) -> tuple[list[str], list[str]]:
        """Give the remote files that are no longer ours, and ours that are not there as they are here."""
        foreign = [p for p in there if p not in here and _FOREIGN.fullmatch(p)]
        if foreign:
            raise PublishError(
                f"{self.repo_id} holds files that this gate lets nobody publish ({', '.join(foreign[:3])}): take them "
                "out, or choose another name; nothing was sent"
            )
        stale = [p for p in there if p not in here and p.endswith(_OURS[self.kind])]
        return stale, [p for p, told in here.items() if not _same(told, there.get(p))]

    def _commit(
        self, api: Any, folder: Path, head: str | None, stale: Sequence[str], changed: Sequence[str], note: str
    ) -> str:
        """Commit what differs, as one unit on top of what was seen; nothing when nothing differs."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        if head is not None and not stale and not changed:
            return head
        done = api.create_commit(
            **self._where,
            operations=[
                *(CommitOperationDelete(path_in_repo=p) for p in stale),
                *(CommitOperationAdd(path_in_repo=p, path_or_fileobj=str(folder / p)) for p in changed),
            ],
            commit_message=f"Publish {self.kind} with hf_synth",
            commit_description=note,
            parent_commit=head,
        )
        return str(done.oid)

    def _compare(self, api: Any, folder: Path, here: Mapping[str, tuple[int, tuple[str, str]]], commit: str) -> None:
        """Fetch each file of the commit as anybody would, and compare its bytes with those that were sent."""
        there = self._files(api, commit)
        wrong = [p for p, told in here.items() if not _same(told, there.get(p))]
        for name in here if not wrong else ():
            with tempfile.TemporaryDirectory(prefix="back-", dir=work_folder(folder.parent)) as back:
                # neither a cache of this machine nor what an earlier call left may answer in place of the Hub
                fetched = api.hf_hub_download(
                    **self._where, filename=name, revision=commit, local_dir=back, cache_dir=Path(back) / ".cache",
                    force_download=True,
                )  # fmt: skip
                if not _equal(Path(fetched), folder / name):
                    wrong.append(name)
        if wrong:
            raise PublishError(f"{self.repo_id} does not hold what was sent ({', '.join(wrong[:3])}): publish again")

    def _tagged(self, api: Any, tag: str | None, tags: Mapping[str, str], commit: str) -> str:
        """Tag a commit; what has a number already gets no second one."""
        mine = [
            name for name, target in tags.items() if target == commit and (name == tag or _NUMBERED.fullmatch(name))
        ]
        if mine and tag in (None, *mine):
            return tag or max(mine, key=_number)
        name = tag or f"v{max((_number(t) for t in tags), default=0) + 1}"
        api.create_tag(**self._where, tag=name, revision=commit)
        return name

    def withdraw(self, card: str, tag: str | None, done: dict[str, Any], left: list[str]) -> None:
        """Take a release back: the whole repository, or one tag of it.

        Without a tag the repository becomes private first; then one commit leaves nothing but a card that says so, and
        all tags go. With one, that tag goes, and the content only where the branch still stands at it.

        Args:
            card: what the card says then.
            tag: of the release; None is all of the repository.
            done: is filled with what was done, step by step: private, tags, files, commit.
            left: is filled with the steps, each of which leaves it when it was done.

        Raises:
            PublishError: there is no such repository or tag, or the Hub did not do it.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        api = self._api()
        gone_tags: list[str] = []
        done |= {"private": False, "tags": gone_tags, "files": 0, "commit": None}
        with client(self.endpoint):
            with clear_errors(self.repo_id, "looking it up"):
                info, tags = api.repo_info(**self._where), self._tags(api)
                if tag is not None and tag not in tags:
                    raise PublishError(f"{self.repo_id} has no tag {tag!r}; it has {', '.join(sorted(tags)) or 'none'}")
            emptied = tag is None or tags[tag] == info.sha
            gone = sorted(tags) if tag is None else [tag]
            left += [*(["make it private"] if tag is None else []), *(["empty it"] if emptied else [])]
            left += [f"delete tag {name}" for name in gone]
            if tag is None:
                with clear_errors(self.repo_id, "making it private"):
                    if not info.private:
                        api.update_repo_settings(**self._where, private=True)
                    if not api.repo_info(**self._where).private:
                        raise PublishError(f"{self.repo_id} is still public: check its settings now")
                    done["private"] = True
                    left.remove("make it private")
            if emptied:
                with clear_errors(self.repo_id, "emptying it"):
                    there = self._files(api, info.sha)
                    out = [p for p in there if p not in ("README.md", ".gitattributes")]
                    note = CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=card.encode())
                    commit = api.create_commit(
                        **self._where, operations=[*(CommitOperationDelete(path_in_repo=p) for p in out), note],
                        commit_message="Withdraw this release", parent_commit=info.sha,
                    )  # fmt: skip
                    done |= {"files": len(out), "commit": commit.oid}
                    left.remove("empty it")
            with clear_errors(self.repo_id, "deleting its tags"):
                for name in gone:
                    api.delete_tag(**self._where, tag=name)
                    gone_tags.append(name)
                    left.remove(f"delete tag {name}")


def _same(here: tuple[int, tuple[str, str]], there: tuple[int, str] | None) -> bool:
    return there is not None and there[0] == here[0] and there[1] in here[1]


def _equal(one: Path, other: Path) -> bool:
    with one.open("rb") as a, other.open("rb") as b:
        while True:
            first, second = a.read(1 << 20), b.read(1 << 20)
            if first != second:
                return False
            if not first:
                return True


def _number(tag: str) -> int:
    found = _NUMBERED.fullmatch(tag)
    return int(found[1]) if found else 0


# --- the client -----------------------------------------------------------------------------------------------------


def endpoint_of(endpoint: str | None) -> str:
    """Give the URL of a Hub: as asked, or HF_ENDPOINT, or the public one."""
    from huggingface_hub import constants

    return (endpoint or str(constants.ENDPOINT)).rstrip("/")


_TURN = threading.RLock()


@contextlib.contextmanager
def client(endpoint: str) -> Iterator[None]:
    """Set the Hub's client up for one Hub, for a while.

    Only the public Hub speaks Xet. What goes to the institution's own Hub goes past proxies and to no other
    host, wherever a redirect or an upload address may point: only there may credentialed data go. The client is one for
    the process, so two publishings in threads take turns: the end of one must not take the guard from the other.
    """
    import httpx2
    from huggingface_hub.utils import _http

    def stay(request: Any) -> None:
        if request.url.netloc.decode() != urlsplit(endpoint).netloc and not is_institution(str(request.url)):
            raise PublishError("the Hub wanted to send data on to another host; nothing was sent there")

    def direct() -> Any:
        hooks = {"request": [_http.hf_request_event_hook, stay]}
        return httpx2.Client(event_hooks=hooks, follow_redirects=True, timeout=None, trust_env=False)

    with _TURN:
        yield from _one_client(endpoint, direct if is_institution(endpoint) else None)


def _one_client(endpoint: str, make: Callable[[], Any] | None) -> Iterator[None]:
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import _http

    before = constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY, _http._GLOBAL_CLIENT_FACTORY
    host = urlsplit(endpoint).hostname or ""
    constants.HF_HUB_DISABLE_XET = before[0] or not (host == "huggingface.co" or host.endswith(".huggingface.co"))
    constants.HF_HUB_DISABLE_TELEMETRY = True
    if make is not None:
        set_client_factory(make)
    try:
        with warnings.catch_warnings():  # huggingface_hub 2.4 uploads in a way that httpx2 calls old
            warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
            yield
    finally:
        constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY = before[:2]
        set_client_factory(before[2])


_STATUS = {
    401: "the token is missing or wrong",
    403: "the token has no right to write there",
    404: "there is no such repository, or the token may not see it",
    409: "it exists already in another form",
    412: "somebody else changed the repository meanwhile; nothing was published, publish again",
    413: "a file is too large for the Hub",
    429: "the Hub asks to slow down; publish again later",
}


@contextlib.contextmanager
def clear_errors(repo_id: str, doing: str) -> Iterator[None]:
    """Turn whatever a Hub or its client says into one sentence without its words, which may repeat ours."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except PublishError:
        raise
    except HFValidationError:
        raise PublishError(
            "the repository's name is not valid: use ORG/NAME with letters, digits, '-', '_', '.'"
        ) from None
    except Exception as error:
        told = error if isinstance(error, HfHubHTTPError) else error.__cause__  # an upload wraps what went wrong
        if isinstance(told, PublishError):
            raise told from None
        if not isinstance(told, HfHubHTTPError):
            raise PublishError(f"{repo_id}, {doing}: the Hub cannot be reached ({type(error).__name__})") from None
        status = getattr(told.response, "status_code", None)
        raise PublishError(
            f"{repo_id}, {doing}: {_STATUS.get(status or 0, 'the Hub failed')} (status {status})"
        ) from None
