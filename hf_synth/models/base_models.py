"""Known good base models as one table: what they read, how large they are, what they were pretrained on.

Any other repo id or folder works as well. The table rests on the models' own cards and papers; what nobody could check
there is said in `unverified`. A model that was pretrained on MIMIC notes has read the source of tasks made from MIMIC
(MedNLI among them): cards must say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hf_synth.task.columns import Access
from hf_synth.task.task import Task

LONG_SHARE = 0.05  # of notes beyond a model's length: where more are, being cut is no small matter
_ENCODED = ("single_label", "multi_label")
_WRITTEN = ("text2text",)


@dataclass(frozen=True)
class Pretrained:
    """One pretrained model to start from.

    Args:
        repo_id: of the Hub; of a model that is not there, the name of its folder.
        millions: parameters, in millions.
        max_tokens: of one input.
        architecture: transformers' `model_type`.
        licence: as its card names it; "" where the card names none.
        pretrained_on: which text, in a few words.
        mimic: whether notes of MIMIC were among it.
        kinds: of tasks that it suits.
        access: "open", or "credentialed" where the weights themselves may not be passed on.
        source: where it is to be had, if not on the Hub.
        unverified: what of this could not be checked.
    """

    repo_id: str
    millions: int
    max_tokens: int
    architecture: str
    licence: str
    pretrained_on: str
    mimic: bool
    kinds: tuple[str, ...] = _ENCODED
    access: Access = "open"
    source: str = ""
    unverified: str = ""


# In the order in which they are suggested: of those that fit a task and its notes, the first.
BASE_MODELS = (
    Pretrained(
        "emilyalsentzer/Bio_ClinicalBERT", 108, 512, "bert", "mit",
        "all notes of MIMIC-III, from BioBERT (PubMed and PMC)", True,
    ),
    Pretrained(
        "thomas-sounack/BioClinical-ModernBERT-base", 150, 8192, "modernbert", "mit",
        "PubMed, PMC and 20 sets of clinical text, MIMIC among them, from ModernBERT", True,
        unverified="that MIMIC is among the 20 sets",
    ),
    Pretrained(
        "thomas-sounack/BioClinical-ModernBERT-large", 396, 8192, "modernbert", "mit",
        "PubMed, PMC and 20 sets of clinical text, MIMIC among them, from ModernBERT", True,
        unverified="that MIMIC is among the 20 sets",
    ),
    Pretrained(
        "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext", 109, 512, "bert", "mit",
        "abstracts of PubMed and articles of PMC, from scratch (formerly PubMedBERT)", False,
    ),
    Pretrained(
        "yikuan8/Clinical-Longformer", 149, 4096, "longformer", "",
        "notes of MIMIC-III, from Longformer", True,
    ),
    Pretrained(
        "UFNLP/gatortron-base", 345, 512, "megatron-bert", "apache-2.0",
        "notes of UF Health, PubMed, WikiText and notes of MIMIC-III", True,
        unverified="max_tokens",
    ),
    Pretrained(
        "nlpie/clinical-distilbert", 65, 512, "distilbert", "mit",
        "notes of MIMIC-III, from a distilled BioBERT", True,
    ),
    Pretrained(
        "answerdotai/ModernBERT-base", 149, 8192, "modernbert", "apache-2.0",
        "text and code of the web, no clinical notes", False,
        unverified="pretrained_on",
    ),
    Pretrained(
        "allenai/longformer-base-4096", 149, 4096, "longformer", "apache-2.0",
        "long documents of general text, from RoBERTa", False,
        unverified="pretrained_on",
    ),
    Pretrained(
        "google/flan-t5-base", 248, 512, "t5", "apache-2.0",
        "the web (C4), then instructions", False, _WRITTEN,
        unverified="millions, pretrained_on",
    ),
    Pretrained(
        "google/flan-t5-large", 783, 512, "t5", "apache-2.0",
        "the web (C4), then instructions", False, _WRITTEN,
        unverified="millions, pretrained_on",
    ),
    Pretrained(
        "Clinical-T5-Base", 223, 512, "t5", "PhysioNet Credentialed Health Data License",
        "notes of MIMIC-III and MIMIC-IV, from T5", True, _WRITTEN, "credentialed",
        "https://physionet.org/content/clinical-t5/1.0.0/",
        unverified="millions, licence, the name of its folder",
    ),
)  # fmt: skip


def known_model(base_model: str) -> Pretrained | None:
    """Find a model in the table by its repo id, or by the name of a folder that is called as it is."""
    asked = str(base_model).strip().strip("/").lower()
    for model in BASE_MODELS:
        if asked in (model.repo_id.lower(), model.repo_id.lower().rpartition("/")[2]):
            return model
    return None


def pretraining_note(base_model: str | None) -> str:
    """Give the sentence on pretraining that a card of a model made from this one must carry; "" where there is none.

    Args:
        base_model: repo id, or name of a folder, as a model's facts hold it.
    """
    if not base_model:
        return ""
    found = known_model(base_model)
    if found is None:
        return (
            f"What {base_model} was pretrained on is not known here: if notes of MIMIC were among it, scores on tasks "
            "made from MIMIC are too high."
        )
    said = f"{found.repo_id} was pretrained on {found.pretrained_on}"
    if not found.mimic:
        return f"{said}."
    return (
        f"{said}: it has read the source notes of tasks made from MIMIC (MedNLI, ProbSumm, A/P Reasoning), whose "
        "scores may be too high."
    )


def suggest_base_model(task: Task, lengths: Sequence[int] = (), *, mimic: bool = True) -> Pretrained:
    """Suggest a base model for a task: the first of the table that suits its kind and the length of its notes.

    Args:
        lengths: tokens of each note, of any tokenizer; words times 1.5 are near enough. Where more than LONG_SHARE of
            them are beyond a model's length, a longer one is suggested, if there is one that writes what the task asks.
        mimic: False leaves out models pretrained on MIMIC, so that scores on tasks made from it mean more.

    Returns:
        One that may be had by anybody.
    """
    fit = [m for m in BASE_MODELS if task.kind in m.kinds and m.access == "open" and (mimic or not m.mimic)]
    for model in fit:
        if sum(n > model.max_tokens for n in lengths) <= LONG_SHARE * len(lengths):
            return model
    return max(fit, key=lambda m: m.max_tokens)
