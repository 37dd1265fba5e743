"""LoRA through peft: small matrices are trained beside the frozen weights, and merged into them when training ends.

What is saved is a plain transformers model. New weights, which no pretraining has seen, are trained in full.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

from hf_synth.errors import HfSynthError

DEFAULTS: dict[str, Any] = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"}
LEARNING_RATE = 3e-4  # ten times that of full training (Biderman et al. 2024, arXiv:2405.09673)


def with_lora(network: Any, options: bool | Mapping[str, Any], new: Collection[str], kind: str) -> Any:
    """Wrap a network so that only LoRA matrices and its new parts are trained.

    Args:
        options: True for DEFAULTS, or fields of peft's `LoraConfig` over them.
        new: names of the weights that the pretrained files lack.
        kind: of the task.

    Raises:
        HfSynthError: peft is not installed, or refuses an option.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise HfSynthError("LoRA needs peft: pip install 'hf_synth[lora]'") from None
    own = dict(options) if isinstance(options, Mapping) else {}
    parts = sorted({name.rpartition(".")[0] for name in new if "." in name})
    task_type = "SEQ_2_SEQ_LM" if kind == "text2text" else "SEQ_CLS"
    try:
        config = LoraConfig(**{**DEFAULTS, "modules_to_save": parts or None, "task_type": task_type, **own})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that will go
            return get_peft_model(network, config)
    except (TypeError, ValueError) as error:
        raise HfSynthError(f"LoRA options: {str(error).splitlines()[0]}") from None


def merged(network: Any) -> Any:
    """Merge what LoRA learnt into the plain network, and give that."""
    return network.merge_and_unload()
