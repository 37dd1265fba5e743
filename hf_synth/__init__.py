"""Gold clinical notes in; label-corrected synthetic notes and a better fine-tuned encoder out.

    gold -> generate -> correct -> augment -> train -> evaluate -> publish

Every stage takes a `datasets.Dataset` and returns one with more columns. The names below are loaded on first use:
importing hf_synth loads no torch, no openai and no datasets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_synth.assessment import Assessment as Assessment
    from hf_synth.assessment import assess as assess
    from hf_synth.audit_report import audit_page as audit_page
    from hf_synth.audited import Audited as Audited
    from hf_synth.audited import audit_sample as audit_sample
    from hf_synth.augmentation import augment as augment
    from hf_synth.base_models import suggest_base_model as suggest_base_model
    from hf_synth.baselines import frequency_baseline as frequency_baseline
    from hf_synth.baselines import zero_shot_baseline as zero_shot_baseline
    from hf_synth.batch import BatchLLM as BatchLLM
    from hf_synth.canaries import Canaries as Canaries
    from hf_synth.canaries import make_canaries as make_canaries
    from hf_synth.canaries import plant as plant
    from hf_synth.correction import Policy as Policy
    from hf_synth.description import describe as describe
    from hf_synth.equivalence import gold_equivalence as gold_equivalence
    from hf_synth.errors import HfSynthError as HfSynthError
    from hf_synth.evaluation import Scores as Scores
    from hf_synth.evaluation import compare as compare
    from hf_synth.evaluation import evaluate as evaluate
    from hf_synth.exemplars import choose_exemplars as choose_exemplars
    from hf_synth.findings import Findings as Findings
    from hf_synth.findings import with_findings as with_findings
    from hf_synth.generation import estimate as estimate
    from hf_synth.generation import generate as generate
    from hf_synth.gold import adopt as adopt
    from hf_synth.gold import as_streaming_dataset as as_streaming_dataset
    from hf_synth.gold import load_gold as load_gold
    from hf_synth.gold import register as register
    from hf_synth.gold import subset as subset
    from hf_synth.grid import Grid as Grid
    from hf_synth.judging import LLMJudge as LLMJudge
    from hf_synth.judging import judge as judge
    from hf_synth.judging import label_notes as label_notes
    from hf_synth.llm import LLM as LLM
    from hf_synth.llm import Attestation as Attestation
    from hf_synth.local_llm import LocalLLM as LocalLLM
    from hf_synth.memorisation import exposure as exposure
    from hf_synth.memorisation import membership as membership
    from hf_synth.metric_modules import metric as metric
    from hf_synth.pipeline import correct as correct
    from hf_synth.pipeline import fit_policy as fit_policy
    from hf_synth.privacy import audit as audit
    from hf_synth.publishing import Verdict as Verdict
    from hf_synth.publishing import publish_dataset as publish_dataset
    from hf_synth.publishing import publish_model as publish_model
    from hf_synth.regeneration import regenerate as regenerate
    from hf_synth.statistics import hierarchical_bootstrap as hierarchical_bootstrap
    from hf_synth.study import experiment as experiment
    from hf_synth.subgroups import Subgroup as Subgroup
    from hf_synth.subgroups import find_subgroups as find_subgroups
    from hf_synth.subgroups import flips_by_subgroup as flips_by_subgroup
    from hf_synth.subgroups import score_subgroups as score_subgroups
    from hf_synth.subgroups import swap_counterfactual as swap_counterfactual
    from hf_synth.task import Fact as Fact
    from hf_synth.task import Facts as Facts
    from hf_synth.task import Prompt as Prompt
    from hf_synth.task import Task as Task
    from hf_synth.task import list_tasks as list_tasks
    from hf_synth.task import load_task as load_task
    from hf_synth.training import train as train
    from hf_synth.training import trainer_fit as trainer_fit
    from hf_synth.transform import GenerateAndCorrect as GenerateAndCorrect
    from hf_synth.withdrawal import withdraw as withdraw

__version__ = "0.1.0"

_ROOM = {
    "Assessment": "assessment",
    "Attestation": "llm",
    "Audited": "audited",
    "BatchLLM": "batch",
    "Canaries": "canaries",
    "Fact": "task",
    "Facts": "task",
    "Findings": "findings",
    "GenerateAndCorrect": "transform",
    "Grid": "grid",
    "HfSynthError": "errors",
    "LLM": "llm",
    "LLMJudge": "judging",
    "LocalLLM": "local_llm",
    "Policy": "correction",
    "Prompt": "task",
    "Scores": "evaluation",
    "Subgroup": "subgroups",
    "Task": "task",
    "Verdict": "publishing",
    "adopt": "gold",
    "as_streaming_dataset": "gold",
    "assess": "assessment",
    "audit": "privacy",
    "audit_page": "audit_report",
    "audit_sample": "audited",
    "augment": "augmentation",
    "choose_exemplars": "exemplars",
    "compare": "evaluation",
    "correct": "pipeline",
    "describe": "description",
    "estimate": "generation",
    "evaluate": "evaluation",
    "experiment": "study",
    "exposure": "memorisation",
    "find_subgroups": "subgroups",
    "fit_policy": "pipeline",
    "flips_by_subgroup": "subgroups",
    "frequency_baseline": "baselines",
    "zero_shot_baseline": "baselines",
    "generate": "generation",
    "gold_equivalence": "equivalence",
    "judge": "judging",
    "label_notes": "judging",
    "hierarchical_bootstrap": "statistics",
    "list_tasks": "task",
    "load_gold": "gold",
    "load_task": "task",
    "make_canaries": "canaries",
    "membership": "memorisation",
    "metric": "metric_modules",
    "plant": "canaries",
    "publish_dataset": "publishing",
    "publish_model": "publishing",
    "regenerate": "regeneration",
    "register": "gold",
    "score_subgroups": "subgroups",
    "subset": "gold",
    "suggest_base_model": "base_models",
    "swap_counterfactual": "subgroups",
    "train": "training",
    "trainer_fit": "training",
    "with_findings": "findings",
    "withdraw": "withdrawal",
}

__all__ = [*_ROOM, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _ROOM:
        raise AttributeError(f"module 'hf_synth' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hf_synth.{_ROOM[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
