"""Publishing: gate, audit, card, export folder, one commit, read back. The only writer to a Hub.

A refusal is a `Verdict` with `allowed=False`: nothing was written then, and nothing was sent. An error (`PublishError`)
is a Hub that did not take what was allowed; a commit is one unit, so a repository is never half new.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from hf_synth import cards, export
from hf_synth.errors import PublishError
from hf_synth.evaluation import Scores
from hf_synth.gate import Kind, Verdict, Visible, gate, gold_parts, is_institution, joined_access
from hf_synth.modeling import FACTS, model_facts, model_folder
from hf_synth.privacy import MAX_RUN, Findings, audit, index_gold, refusals
from hf_synth.task import Access, Task, strictest

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

__all__ = ["Verdict", "gate", "publish_dataset", "publish_model"]


def publish_dataset(
    task: Task,
    dataset: Dataset,
    repo_id: str,
    *,
    gold: Dataset | DatasetDict | None = None,
    scores: Scores | Mapping[str, Scores] | None = None,
    private: bool | None = None,
    gated: bool | Literal["auto", "manual"] | None = None,
    push: bool = True,
    export_dir: str | Path | None = None,
    token: str | None = None,
    attestation: str | None = None,
    endpoint: str | None = None,
    policy: str | None = None,
) -> Verdict:
    """Publish synthetic rows: check, describe, write an export folder, push it in one commit, read it back.

    Rows that the audit refuses are withheld and counted. With `load_dataset(repo_id)` anyone gets the corrected rows.

    Args:
        dataset: rows of `generate` or `correct`; rejected ones are told of in the card and stay here.
        gold: all gold, as a Dataset or its splits; a split "test" is taken as the control. Needed unless all is open.
        scores: of models trained with the rows, for the card.
        private: None is private; only open data, and restricted data with an attestation, can be public.
        gated: whether access is asked for; None gates what is not open.
        push: False writes the export folder only.
        export_dir: the export folder; "export/<name>" when None.
        attestation: who allows a public repository of restricted data, and when; stands in the card.
        endpoint: URL of the Hub; HF_ENDPOINT or the public one when None.
        policy: the method of correction, for the card.

    Raises:
        ColumnError: a dataset lacks columns.
        PublishError: the Hub did not take it, or what it took is not what was sent.
        OutputError: the folder cannot be written.
    """
    known, held_out = gold_parts(gold)
    parts = [p for p in (known, held_out) if p is not None]
    findings = audit(task, dataset, known, held_out=held_out)
    access = joined_access(task, dataset, *parts)
    views = export.dataset_views(task, dataset, access, set(findings.refused))
    counts = {**{f"rows of {name}": len(rows) for name, rows in views.items()}, **_withheld(dataset, findings)}
    asked: dict[str, Any] = {
        "access": access, "findings": findings, "gold_given": bool(parts), "push": push, "private": private,
        "gated": gated, "attestation": attestation, "counts": counts,
    }  # fmt: skip
    hub = _Hub("dataset", repo_id, _endpoint(endpoint), token)
    verdict = _decide(task, hub, asked, _also_refused(dataset, parts, access, views))
    if not verdict.allowed:
        return verdict
    path = Path(export_dir) if export_dir else Path("export") / repo_id.split("/")[-1]
    facts = cards.dataset_facts(
        task, dataset, scores=scores, findings=findings, repo_id=repo_id, policy=policy, access=access,
        attestation=attestation,
    )  # fmt: skip
    card = _checked(task, cards.dataset_card(facts), parts)
    export.write_dataset(task, views, path, card=card, access=access, physionet_name=_physionet_name(task, repo_id))
    export.write_map(task, dataset, path)
    return _finished(task, hub, replace(verdict, export=path), push, gated)


def publish_model(
    task: Task,
    model: str | Path,
    scores: Scores | None,
    repo_id: str,
    *,
    gold: Dataset | DatasetDict | None = None,
    private: bool | None = None,
    gated: bool | Literal["auto", "manual"] | None = None,
    push: bool = True,
    export_dir: str | Path | None = None,
    token: str | None = None,
    attestation: str | None = None,
    endpoint: str | None = None,
) -> Verdict:
    """Publish a trained model: weights, tokenizer, config, card and scores; nothing else of its folder.

    Its facts decide its access: a model without facts may have seen anything, and counts as credentialed.

    Args:
        model: folder (or repo id) of a model; other arguments as for `publish_dataset`.
        gold: what files and card are compared with. Needed unless all is open.

    Raises:
        ModelError: there is no such model.
        PublishError: the model or the Hub is not as it should be.
        OutputError: the folder cannot be written.
    """
    parts = [p for p in gold_parts(gold) if p is not None]
    folder, trained = model_folder(model), model_facts(model)
    access = strictest(trained["access"], joined_access(task, *parts))
    names = export.model_files(folder)
    left = [f for f in folder.iterdir() if f.name not in (*names, FACTS)]
    asked: dict[str, Any] = {
        "access": access, "findings": None, "gold_given": bool(parts), "push": push, "private": private,
        "gated": gated, "attestation": attestation, "counts": {"files": len(names), "files left behind": len(left)},
    }  # fmt: skip
    hub = _Hub("model", repo_id, _endpoint(endpoint), token)
    verdict = _decide(task, hub, asked, _gold_in_files(task, folder, names, parts))
    if not verdict.allowed:
        return verdict
    facts = cards.model_card_facts(
        task, trained, scores, repo_id=repo_id, access=access, attestation=attestation,
        architecture=_architecture(folder),
    )  # fmt: skip
    path = Path(export_dir) if export_dir else Path("export") / repo_id.split("/")[-1]
    export.write_model(
        task, folder, path, card=_checked(task, cards.model_card(facts), parts),
        eval_results=cards.eval_results(facts) if scores else "", facts=trained, access=access,
        physionet_name=_physionet_name(task, repo_id),
    )  # fmt: skip
    return _finished(task, hub, replace(verdict, export=path), push, gated)


# --- what the gate is told ------------------------------------------------------------------------------------------


def _also_refused(dataset: Dataset, gold: Sequence[Dataset], access: Access, views: Mapping[str, Any]) -> list[str]:
    no = []
    if not len(next(iter(views.values()))):
        no.append("no row is left to publish")
    if access != "open" and gold and "seed_ids" in dataset.column_names:
        shown = {s for ids in dataset["seed_ids"] if ids for s in ids}
        there = {i for part in gold if "id" in part.column_names for i in part["id"]}
        if shown - there:
            no.append(
                f"the gold lacks {len(shown - there):,} of the {len(shown):,} rows that were shown to the generator"
            )
    return no


def _withheld(dataset: Dataset, findings: Findings) -> dict[str, int]:
    counts = {f"withheld: {flag}": n for flag, n in refusals(findings, findings.refused).items()}
    statuses = list(dataset["label_status"]) if "label_status" in dataset.column_names else []
    return {"withheld": len(findings.refused), **counts, "rejected": statuses.count("rejected")}


def _gold_in_files(task: Task, folder: Path, names: Sequence[str], gold: Sequence[Dataset]) -> list[str]:
    """Look for gold in the text files of a model, whatever their names."""
    if not gold:
        return []
    index = index_gold(task, *gold)
    texts = [n for n in names if not n.endswith((".safetensors", ".model"))]
    found = [(folder / n).read_text(encoding="utf-8", errors="replace") for n in texts]
    runs = index.reach([(t,) for t in found]).runs
    return [f"{name} holds text of gold" for name, run in zip(texts, runs, strict=True) if run >= MAX_RUN]


def _checked(task: Task, card: str, gold: Sequence[Dataset]) -> str:
    """Check a card offline, also for text of gold; a card with a problem is a bug, and nothing leaves with it."""
    problems = cards.check_card(card)
    if gold and index_gold(task, *gold).reach([(card,)]).runs[0] >= MAX_RUN:
        problems.append("it holds text of gold")
    if problems:
        raise PublishError(f"the card is not fit to be published: {'; '.join(problems)}")
    return card


def _architecture(folder: Path) -> str:
    try:
        named = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or ["An encoder"]
    except (ValueError, OSError):
        raise PublishError(f"config.json of {folder} cannot be read") from None
    return str(named[0])


def _physionet_name(task: Task, repo_id: str) -> str:
    """Suggest a name as PhysioNet asks for derived sets: source, -Ext-, what it is."""
    return f"{task.name}-Ext-{repo_id.split('/')[-1]}"


def _decide(task: Task, hub: _Hub, asked: Mapping[str, Any], more: Sequence[str]) -> Verdict:
    """Ask the gate; the Hub is asked about the repository only when nothing else speaks against it."""
    more_asked = {**asked, "institution": is_institution(hub.endpoint), "repo_id": hub.repo_id}
    verdict = gate(task, hub.kind, **more_asked)
    if more:
        no = (*more, *(() if verdict.allowed else verdict.reasons))
        verdict = replace(verdict, allowed=False, reasons=no)
    if verdict.allowed and asked["push"]:
        verdict = gate(task, hub.kind, **more_asked, visible=hub.visible())
    return verdict


def _finished(task: Task, hub: _Hub, verdict: Verdict, push: bool, gated: Any) -> Verdict:
    if push:
        return hub.push(verdict, keep_gate=gated is None)
    if verdict.access == "credentialed":
        hint = f"for PhysioNet: submit it as a derived project, e.g. {_physionet_name(task, hub.repo_id)!r}"
        return replace(verdict, reasons=(*verdict.reasons, hint))
    return verdict


# --- the Hub --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Hub:
    """One repository on one Hub."""

    kind: Kind
    repo_id: str
    endpoint: str
    token: str | None = field(repr=False)

    def _api(self) -> Any:
        from huggingface_hub import HfApi

        return HfApi(endpoint=self.endpoint, token=self.token)

    def visible(self) -> Visible | None:
        """Ask how the repository can be seen; None when there is none (or none that we may see)."""
        from huggingface_hub.errors import RepositoryNotFoundError

        with _clear_errors(self.repo_id, "looking it up"), _client(self.endpoint):
            try:
                info = self._api().repo_info(self.repo_id, repo_type=self.kind)
            except RepositoryNotFoundError:
                return None
        return "private" if info.private else "public"

    def push(self, verdict: Verdict, *, keep_gate: bool) -> Verdict:
        """Push an export folder in one commit and read it back.

        Raises:
            PublishError: the Hub did not take it, or holds something else than what was sent.
        """
        folder = verdict.export
        assert folder is not None
        api, where = self._api(), {"repo_id": self.repo_id, "repo_type": self.kind}
        with _client(self.endpoint):
            with _clear_errors(self.repo_id, "pushing"):
                api.create_repo(**where, private=True, exist_ok=True)
                info = api.repo_info(**where)
                if verdict.private and not info.private:
                    raise PublishError(f"{self.repo_id} is public although it should be private; nothing was sent")
                commit = self._commit(api, where, folder, info.sha, verdict)
            wanted = verdict.gated or (info.gated if keep_gate else False) or False
            with _clear_errors(self.repo_id, "the files are there, but who may see them could not be set"):
                if (bool(info.private), info.gated or False) != (verdict.private, wanted):
                    api.update_repo_settings(**where, gated=wanted, private=verdict.private)
            with _clear_errors(self.repo_id, "reading it back"):
                info = api.repo_info(**where)
                if (bool(info.private), info.gated or False) != (verdict.private, wanted):
                    raise PublishError(f"{self.repo_id} is not as private or gated as asked: check its settings now")
                _compare(export.file_oids(folder), self._files(api, where, commit), self.repo_id)
        place = "datasets/" if self.kind == "dataset" else ""
        return replace(verdict, url=f"{self.endpoint}/{place}{self.repo_id}", commit=commit, gated=wanted)

    def _files(self, api: Any, where: Mapping[str, str], revision: str | None) -> dict[str, tuple[int, str]]:
        """Give size and oid of each remote file: sha256 of a large file, git's own of a small one."""
        from huggingface_hub import RepoFile

        if revision is None:
            return {}
        tree = api.list_repo_tree(**where, recursive=True, revision=revision)
        return {f.path: (f.size, f.lfs.sha256 if f.lfs else f.blob_id) for f in tree if isinstance(f, RepoFile)}

    def _commit(self, api: Any, where: Mapping[str, str], folder: Path, head: str | None, verdict: Verdict) -> str:
        """Commit what differs, as one unit on top of what was seen; nothing when nothing differs."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        there, here = self._files(api, where, head), export.file_oids(folder)
        ours = (".parquet",) if self.kind == "dataset" else (".safetensors",)
        stale = [p for p in there if p.endswith(ours) and p not in here]
        changed = [
            p for p, (size, oids) in here.items() if p not in there or there[p][0] != size or there[p][1] not in oids
        ]
        if head is not None and not stale and not changed:
            return head
        done = api.create_commit(
            **where,
            operations=[
                *(CommitOperationDelete(path_in_repo=p) for p in stale),
                *(CommitOperationAdd(path_in_repo=p, path_or_fileobj=str(folder / p)) for p in changed),
            ],
            commit_message=f"Publish {self.kind} with hf_synth",
            commit_description=f"Access: {verdict.access}",
            parent_commit=head,
        )
        return str(done.oid)


def _endpoint(endpoint: str | None) -> str:
    from huggingface_hub import constants

    return (endpoint or str(constants.ENDPOINT)).rstrip("/")


def _compare(
    here: Mapping[str, tuple[int, tuple[str, str]]], there: Mapping[str, tuple[int, str]], repo_id: str
) -> None:
    wrong = [p for p, (size, oids) in here.items() if p not in there or there[p][0] != size or there[p][1] not in oids]
    if wrong:
        raise PublishError(f"{repo_id} does not hold what was sent ({', '.join(wrong[:3])}): publish again")


@contextlib.contextmanager
def _client(endpoint: str) -> Iterator[None]:
    """Set the Hub's client up for one Hub, for a while.

    Only the public Hub speaks Xet. What goes to the institution's own Hub goes past proxies and to no other
    host, wherever a redirect or an upload address may point: only there may credentialed data go.
    """
    import httpx2
    from huggingface_hub import constants, set_client_factory
    from huggingface_hub.utils import _http

    def stay(request: Any) -> None:
        if request.url.netloc.decode() != urlsplit(endpoint).netloc and not is_institution(str(request.url)):
            raise PublishError("the Hub wanted to send data on to another host; nothing was sent there")

    def direct() -> Any:
        hooks = {"request": [_http.hf_request_event_hook, stay]}
        return httpx2.Client(event_hooks=hooks, follow_redirects=True, timeout=None, trust_env=False)

    before = constants.HF_HUB_DISABLE_XET, constants.HF_HUB_DISABLE_TELEMETRY, _http._GLOBAL_CLIENT_FACTORY
    host = urlsplit(endpoint).hostname or ""
    constants.HF_HUB_DISABLE_XET = before[0] or not (host == "huggingface.co" or host.endswith(".huggingface.co"))
    constants.HF_HUB_DISABLE_TELEMETRY = True
    if is_institution(endpoint):
        set_client_factory(direct)
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
def _clear_errors(repo_id: str, doing: str) -> Iterator[None]:
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
