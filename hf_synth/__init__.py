"""Gold clinical notes in; label-corrected synthetic notes and a better fine-tuned encoder out.

    gold -> generate -> correct -> augment -> train -> evaluate -> publish

Every stage takes a `datasets.Dataset` and returns one with more columns. The public names stand in `__init__.pyi` and
are loaded on first use: importing hf_synth loads no torch, no openai and no datasets.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Any

import lazy_loader

__version__ = "0.1.0"

# The libraries send no telemetry, unless the environment sets these variables otherwise. They read them when they are
# imported; what was imported before hf_synth is changed here.
_SILENT = {
    "HF_HUB_DISABLE_TELEMETRY": ("1", ("huggingface_hub.constants",), True),
    "HF_UPDATE_DOWNLOAD_COUNTS": ("0", ("datasets.config", "evaluate.config"), False),
    "DO_NOT_TRACK": ("1", (), True),
}
for _name, (_value, _modules, _setting) in _SILENT.items():
    if _name not in os.environ:
        os.environ[_name] = _value
        for _module in _modules:
            if _module in sys.modules:
                setattr(sys.modules[_module], _name, _setting)

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]

# Names that were public here before; they work for one release.
_MOVED = {
    "correction.audited": "Audited audit_sample",
    "correction.description": "describe",
    "correction.judging": "judge label_notes",
    "correction.policy": "Policy",
    "evaluation.baselines": "frequency_baseline zero_shot_baseline",
    "evaluation.evaluation": "Scores",
    "evaluation.metric_modules": "metric",
    "evaluation.statistics": "hierarchical_bootstrap",
    "evaluation.subgroups": "Subgroup find_subgroups flips_by_subgroup score_subgroups swap_counterfactual",
    "experiments.assessment": "Assessment",
    "experiments.equivalence": "gold_equivalence",
    "generation.exemplars": "choose_exemplars",
    "generation.generation": "estimate",
    "gold.gold": "as_streaming_dataset",
    "models.base_models": "suggest_base_model",
    "models.training": "trainer_fit",
    "privacy.canaries": "Canaries make_canaries plant",
    "privacy.findings": "Findings with_findings",
    "privacy.membership": "exposure membership",
    "privacy.report": "audit_page",
    "publishing.gate": "Verdict",
    "task.facts": "Fact Facts",
    "task.task": "Prompt",
}
_MODULE_OF = {name: module for module, names in _MOVED.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        return _load(name)
    module = f"hf_synth.{_MODULE_OF[name]}"
    warnings.warn(f"hf_synth.{name} has moved: import it from {module}", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(module), name)
