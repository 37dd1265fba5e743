"""Gold clinical notes in; label-corrected synthetic notes and a better fine-tuned encoder out.

    gold -> generate -> correct -> augment -> train -> evaluate -> publish

Every stage takes a `datasets.Dataset` and returns one with more columns. The names below are loaded on first use:
importing hf_synth loads no torch, no openai and no datasets.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_synth.correction.audited import Audited as Audited
    from hf_synth.correction.audited import audit_sample as audit_sample
    from hf_synth.correction.augmentation import augment as augment
    from hf_synth.correction.correction import correct as correct
    from hf_synth.correction.correction import fit_policy as fit_policy
    from hf_synth.correction.description import describe as describe
    from hf_synth.correction.judging import LLMJudge as LLMJudge
    from hf_synth.correction.judging import judge as judge
    from hf_synth.correction.judging import label_notes as label_notes
    from hf_synth.correction.policy import Policy as Policy
    from hf_synth.correction.regeneration import regenerate as regenerate
    from hf_synth.correction.transform import GenerateAndCorrect as GenerateAndCorrect
    from hf_synth.errors import HfSynthError as HfSynthError
    from hf_synth.evaluation.baselines import frequency_baseline as frequency_baseline
    from hf_synth.evaluation.baselines import zero_shot_baseline as zero_shot_baseline
    from hf_synth.evaluation.evaluation import Scores as Scores
    from hf_synth.evaluation.evaluation import compare as compare
    from hf_synth.evaluation.evaluation import evaluate as evaluate
    from hf_synth.evaluation.metric_modules import metric as metric
    from hf_synth.evaluation.statistics import hierarchical_bootstrap as hierarchical_bootstrap
    from hf_synth.evaluation.subgroups import Subgroup as Subgroup
    from hf_synth.evaluation.subgroups import find_subgroups as find_subgroups
    from hf_synth.evaluation.subgroups import flips_by_subgroup as flips_by_subgroup
    from hf_synth.evaluation.subgroups import score_subgroups as score_subgroups
    from hf_synth.evaluation.subgroups import swap_counterfactual as swap_counterfactual
    from hf_synth.experiments.assessment import Assessment as Assessment
    from hf_synth.experiments.assessment import assess as assess
    from hf_synth.experiments.equivalence import gold_equivalence as gold_equivalence
    from hf_synth.experiments.experiment import experiment as experiment
    from hf_synth.experiments.grid import Grid as Grid
    from hf_synth.generation.exemplars import choose_exemplars as choose_exemplars
    from hf_synth.generation.generation import estimate as estimate
    from hf_synth.generation.generation import generate as generate
    from hf_synth.gold.gold import adopt as adopt
    from hf_synth.gold.gold import as_streaming_dataset as as_streaming_dataset
    from hf_synth.gold.gold import load_gold as load_gold
    from hf_synth.gold.gold import register as register
    from hf_synth.gold.gold import subset as subset
    from hf_synth.llm.batch import BatchLLM as BatchLLM
    from hf_synth.llm.llm import LLM as LLM
    from hf_synth.llm.llm import Attestation as Attestation
    from hf_synth.llm.local import LocalLLM as LocalLLM
    from hf_synth.models.base_models import suggest_base_model as suggest_base_model
    from hf_synth.models.training import train as train
    from hf_synth.models.training import trainer_fit as trainer_fit
    from hf_synth.privacy.audit import audit as audit
    from hf_synth.privacy.canaries import Canaries as Canaries
    from hf_synth.privacy.canaries import make_canaries as make_canaries
    from hf_synth.privacy.canaries import plant as plant
    from hf_synth.privacy.findings import Findings as Findings
    from hf_synth.privacy.findings import with_findings as with_findings
    from hf_synth.privacy.membership import exposure as exposure
    from hf_synth.privacy.membership import membership as membership
    from hf_synth.privacy.report import audit_page as audit_page
    from hf_synth.publishing.publishing import Verdict as Verdict
    from hf_synth.publishing.publishing import publish_dataset as publish_dataset
    from hf_synth.publishing.publishing import publish_model as publish_model
    from hf_synth.publishing.withdrawal import withdraw as withdraw
    from hf_synth.task.task import Fact as Fact
    from hf_synth.task.task import Facts as Facts
    from hf_synth.task.task import Prompt as Prompt
    from hf_synth.task.task import Task as Task
    from hf_synth.task.task import list_tasks as list_tasks
    from hf_synth.task.task import load_task as load_task

__version__ = "0.1.0"

_ROOM = {
    "Assessment": "experiments.assessment",
    "Attestation": "llm.llm",
    "Audited": "correction.audited",
    "BatchLLM": "llm.batch",
    "Canaries": "privacy.canaries",
    "Fact": "task.task",
    "Facts": "task.task",
    "Findings": "privacy.findings",
    "GenerateAndCorrect": "correction.transform",
    "Grid": "experiments.grid",
    "HfSynthError": "errors",
    "LLM": "llm.llm",
    "LLMJudge": "correction.judging",
    "LocalLLM": "llm.local",
    "Policy": "correction.policy",
    "Prompt": "task.task",
    "Scores": "evaluation.evaluation",
    "Subgroup": "evaluation.subgroups",
    "Task": "task.task",
    "Verdict": "publishing.publishing",
    "adopt": "gold.gold",
    "as_streaming_dataset": "gold.gold",
    "assess": "experiments.assessment",
    "audit": "privacy.audit",
    "audit_page": "privacy.report",
    "audit_sample": "correction.audited",
    "augment": "correction.augmentation",
    "choose_exemplars": "generation.exemplars",
    "compare": "evaluation.evaluation",
    "correct": "correction.correction",
    "describe": "correction.description",
    "estimate": "generation.generation",
    "evaluate": "evaluation.evaluation",
    "experiment": "experiments.experiment",
    "exposure": "privacy.membership",
    "find_subgroups": "evaluation.subgroups",
    "fit_policy": "correction.correction",
    "flips_by_subgroup": "evaluation.subgroups",
    "frequency_baseline": "evaluation.baselines",
    "zero_shot_baseline": "evaluation.baselines",
    "generate": "generation.generation",
    "gold_equivalence": "experiments.equivalence",
    "judge": "correction.judging",
    "label_notes": "correction.judging",
    "hierarchical_bootstrap": "evaluation.statistics",
    "list_tasks": "task.task",
    "load_gold": "gold.gold",
    "load_task": "task.task",
    "make_canaries": "privacy.canaries",
    "membership": "privacy.membership",
    "metric": "evaluation.metric_modules",
    "plant": "privacy.canaries",
    "publish_dataset": "publishing.publishing",
    "publish_model": "publishing.publishing",
    "regenerate": "correction.regeneration",
    "register": "gold.gold",
    "score_subgroups": "evaluation.subgroups",
    "subset": "gold.gold",
    "suggest_base_model": "models.base_models",
    "swap_counterfactual": "evaluation.subgroups",
    "train": "models.training",
    "trainer_fit": "models.training",
    "with_findings": "privacy.findings",
    "withdraw": "publishing.withdrawal",
}

__all__ = [*_ROOM, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _ROOM:
        raise AttributeError(f"module 'hf_synth' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hf_synth.{_ROOM[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
