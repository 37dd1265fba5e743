"""The identity of what decides synthetic rows, by content and not by place; whether a policy is of its corrector."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from hf_synth.correction.correction import CROSS_FITTED, corrector_identity
from hf_synth.correction.judging import LLMJudge
from hf_synth.correction.mapped import GOLD
from hf_synth.correction.policy import Policy
from hf_synth.errors import HfSynthError, TaskError
from hf_synth.llm.batch import BatchLLM
from hf_synth.llm.llm import LLM
from hf_synth.llm.questions import access_of_llm
from hf_synth.models.loading import model_folder
from hf_synth.models.record import FACTS, weights_sha256
from hf_synth.task.columns import MANIFEST, RUN_CONFIG
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".gguf")
_IDLE = (FACTS, MANIFEST, RUN_CONFIG, "trainer_state.json", ".gitattributes", ".gitignore", "LICENSE", "LICENSE.txt")

Stamp = tuple[tuple[str, int, int], ...]


def llm_identity(llm: Any) -> dict[str, Any]:
    """Return what an LLM's answers follow from, beside the question; where it is asked is not among it.

    A `LocalLLM` is known by the digest of its files; where they cannot be found yet, by its name and revision. Other
    types are known by their model's name, and by a text `identity` if they have one.
    """
    state = {"model": str(llm.model)}
    if not isinstance(llm, LLM | BatchLLM):  # one model under one key, whichever of these asks
        state["type"] = type(llm).__qualname__
    try:
        own = getattr(llm, "identity", None)
    except HfSynthError:  # no such model here: neither can it be asked
        own, state["revision"] = None, str(getattr(llm, "revision", None))
        state["limits"] = str(getattr(llm, "max_new_tokens", None))
    if isinstance(own, str):
        state = {"identity": own} | ({"type": state["type"]} if "type" in state else {"model": state["model"]})
    try:
        access = access_of_llm(llm)
    except HfSynthError:
        return state
    return state if access == "open" else state | {"access": access}  # rows of a cached map have it


def judge_identity(judge: Any) -> dict[str, Any]:
    """Return what a judge's opinion follows from."""
    state: dict[str, Any] = {"judge": corrector_identity(judge)}
    if hasattr(judge, "llm") and hasattr(judge.llm, "model"):
        state["llm"] = llm_identity(judge.llm)
    if not isinstance(judge, LLMJudge):
        state["content"] = _content_hash(judge)
    return state


def model_digest(model: str | Path) -> str:
    """Hash a model's weights and every other file that decides its output: config, tokenizer, vocabulary (hex sha256).

    Raises:
        ModelError: there is no such model, or it has no weights.
    """
    digest = hashlib.sha256(weights_sha256(model).encode())
    for file in sorted(model_folder(model).iterdir()):
        idle = file.name in _IDLE or file.suffix in (*_WEIGHTS, ".md") or file.name.startswith("training_args")
        if file.is_file() and not idle:
            digest.update(f"{file.name}\x00{file.stat().st_size}\x00".encode() + file.read_bytes())
    return digest.hexdigest()


def model_stamp(model: str | Path) -> Stamp:
    """Return name, size and time of a model's files: a quick sign that nothing has changed."""
    stats = [(f.name, f.stat()) for f in sorted(model_folder(model).iterdir()) if f.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def parser_digest(parse: Callable[..., Any] | None) -> str | None:
    """Hash the code of a task's parser: the file that defines it, else the function itself (hex sha256)."""
    if parse is None:
        return None
    code = getattr(parse, "__code__", None)
    if code is None or getattr(parse, "__closure__", None):
        return _content_hash(parse)
    file = Path(inspect.getsourcefile(parse) or "")
    if file.is_file():
        return hashlib.sha256(file.read_bytes() + f"\x00{parse.__qualname__}".encode()).hexdigest()
    return hashlib.sha256(repr(_code(code)).encode()).hexdigest()


def gold_digest(task: Task, rows: Dataset) -> str:
    """Hash ids, groups, accesses, texts and labels of gold rows (hex sha256), wherever and however they are stored."""
    total = hashlib.sha256()
    names = [c for c in (*GOLD, *task.text_columns, task.label_column) if c in rows.column_names]
    total.update(json.dumps([names, str(rows.features[task.label_column])]).encode())
    for row in zip(*(rows[c] for c in names), strict=True):
        total.update(json.dumps(row).encode())
    return total.hexdigest()


def check_judge(task: Task, judge: LLMJudge, corrector: str | Path | None, policy: Policy | None) -> None:
    """Check that a judge stands alone, with a policy, and is of the task.

    Raises:
        TaskError: it does not.
    """
    if corrector is not None:
        raise TaskError("a judge and a corrector exclude each other: give one of them")
    if policy is None:
        raise TaskError(
            "a judge needs a policy: give the policy that was fitted with it, "
            'fit_policy(task, pilot, judge, gold=gold, method="llm_judge")'
        )
    if judge.task.fingerprint() != task.fingerprint():
        raise TaskError(f"the judge is one of task {judge.task.full_name!r}, the rows are of {task.full_name!r}")


def check_bound(policy: Policy, corrector: Any) -> None:
    """Check that a policy was fitted for a corrector: its matrices and cuts are of that one's probabilities.

    Raises:
        TaskError: it was fitted for another one, or needs labels of LLMs that new rows do not have.
    """
    if policy.method == "none":
        return
    if policy.method == "gold_only":
        raise TaskError("policy 'gold_only' drops every row: nothing is generated for it; train on the gold alone")
    if policy.annotators:
        raise TaskError(
            f"policy {policy.method!r} joins labels of LLMs that new rows do not have: fit one by another method"
        )
    if policy.corrector and policy.corrector != corrector_identity(corrector):
        made = "models that were trained in folds" if policy.corrector == CROSS_FITTED else "another corrector"
        raise TaskError(
            f"the policy was fitted for {made}: fit one for this corrector, "
            "fit_policy(task, pilot, corrector, gold=gold)"
        )


def _code(code: CodeType) -> tuple[Any, ...]:
    """Return what a function does, without the place of its lines."""
    constants = [_code(c) if isinstance(c, CodeType) else c for c in code.co_consts]
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


def _content_hash(thing: Any) -> str:
    """Hash an object by its content, as `datasets` hashes the functions of a map; random where that is impossible."""
    from datasets.fingerprint import Hasher

    try:
        return str(Hasher.hash(thing))
    except Exception:  # what cannot be pickled: nothing may be found in a cache
        import uuid

        return uuid.uuid4().hex
