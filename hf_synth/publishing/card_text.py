"""Markdown and YAML of dataset and model cards: templates of `model_cards/`, filled with the facts of `cards`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

TAGS = ("synthetic", "clinical", "hf_synth")
LOOKS_LIKE = "rows with what looks like: "  # begins the audit's counts of identifiers
METHOD = "Improving Clinical NLP Performance through Language Model-Generated Synthetic Clinical Data, arXiv:2403.19511"
# Licences of likely tasks by their identifiers on the Hub; any other is `other` with a name.
LICENSES = ("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-3.0", "cc-by-sa-4.0", "cc-by-sa-3.0", "cc-by-nc-4.0",
            "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0", "odc-by", "odbl", "pddl", "bsd-3-clause", "gpl-3.0",
            "agpl-3.0", "lgpl-3.0", "unknown", "other")  # fmt: skip
_NO_LICENCE = ("", "unknown", "other")
SIZES = {"n<1K": 1_000, "1K<n<10K": 10_000, "10K<n<100K": 100_000, "100K<n<1M": 1_000_000, "1M<n<10M": 10_000_000}
LARGEST = "10M<n<100M"
CATEGORIES = {
    "single_label": "text-classification",
    "multi_label": "text-classification",
    "text2text": "text-generation",
}

# Terms of the Hub's fields, as its documentation of dataset cards lists them.
CREATORS = ("crowdsourced", "expert-generated", "found", "machine-generated", "no-annotation", "other")
TASK_IDS = ("multi-class-classification", "multi-label-classification", "natural-language-inference")

ACCESS_MEANING = {
    "open": "The gold behind it is openly licensed or artificial; this may be passed on under the licence below.",
    "restricted": "The gold behind it belongs to one site. Whoever was given access may use this for research, may not "
    "pass it on, and may not try to identify people or institutions.",
    "credentialed": "The gold behind it is under a data use agreement (PhysioNet, n2c2) that covers derivatives too: "
    "use and sharing only under that agreement, never on a public Hub. PhysioNet takes derived sets under the "
    "source's agreement, with -Ext- in their names. A gate is not a data use agreement.",
}

METRICS = {  # name: (label in tables, metric type on the Hub)
    "macro_f1": ("macro-F1", "f1"),
    "accuracy": ("accuracy", "accuracy"),
    "micro_f1": ("micro-F1", "f1"),
    "weighted_f1": ("weighted F1", "f1"),
    "macro_f1_min10": ("macro-F1 of labels with 10 test rows or more", "f1"),
    "macro_precision": ("macro precision", "precision"),
    "macro_recall": ("macro recall", "recall"),
    "auroc": ("area under the ROC curve, one label against the others", "roc_auc"),
    "auprc": ("area under the precision-recall curve, one label against the others", "average_precision"),
    "patient_macro_f1": ("macro-F1 of each patient's worst grade", "f1"),
    "patient_accuracy": ("accuracy of each patient's worst grade", "accuracy"),
    "mcc": ("Matthews correlation", "matthews_correlation"),
    "ece": ("expected calibration error", "ece"),
    "exact_match": ("exact match", "exact_match"),
    "horizontal_phrase_f1": ("F of phrases in their entries", "f1"),
    "token_f1": ("token F1", "f1"),
    "rouge1": ("ROUGE-1, without stemming", "rouge"),
    "rouge2": ("ROUGE-2, without stemming", "rouge"),
    "rougeL": ("ROUGE-L, without stemming", "rouge"),
    "rouge1_stemmed": ("ROUGE-1, with stemming", "rouge"),
    "rouge2_stemmed": ("ROUGE-2, with stemming", "rouge"),
    "rougeL_stemmed": ("ROUGE-L, with stemming", "rouge"),
}

FIGURES = {
    "copies_of_gold": "rows whose text is a text of gold",
    "copied_spans": "rows with a long verbatim span of gold",
    "near_copies": "rows near to a text of gold, or that hold much of one in pieces or disguised",
    "longest_run_words": "longest verbatim run shared with gold, in words (set phrases left out)",
    "containment_mean": "mean share of a text's 8-word windows that are in gold",
    "containment_p95": "95th percentile of that share",
    "held_out_longest_run_words": "control: longest run that held-out gold shares with gold",
    "held_out_containment_p95": "control: 95th percentile of the share for held-out gold",
    "closeness_auc": "chance that a row is nearer to gold than held-out gold is (.5 = neither)",
    "closeness_auc_low": "lower end of its 95% interval",
    "closeness_auc_high": "upper end",
    "exemplar_echoes": "rows that follow what their own prompt showed",
    "canaries_planted": "canaries that were planted in gold",
    "canaries_found": "of those, found in the rows",
    "refusals": "rows in which the generator refuses",
    "duplicates": "rows that repeat an earlier one",
    "near_duplicates": "rows that nearly repeat an earlier one",
    "label_leaks": "rows that name their own label",
}


def access_meaning(access: str, license: str) -> str:
    """Return what an access level means for whoever reads the card of data or a model under a licence."""
    if access == "open" and license.lower() in _NO_LICENCE:
        return (
            "The gold behind it is openly licensed or artificial, but its task states no licence: ask the publisher "
            "before you pass this on."
        )
    return ACCESS_MEANING[access]


def dataset_card(facts: Mapping[str, Any]) -> str:
    """Render the card of a dataset, with its YAML header, from `cards.dataset_facts`."""
    from huggingface_hub import DatasetCardData

    rows = facts["rows"]
    header = DatasetCardData(
        pretty_name=facts["title"], language=facts["language"] or None, task_categories=[CATEGORIES[facts["kind"]]],
        multilinguality=["monolingual"] if facts["language"] else None, annotations_creators=facts["annotated_by"],
        language_creators=facts["written_by"], task_ids=facts["task_ids"] or None, source_datasets=facts["sources"],
        size_categories=[next((size for size, top in SIZES.items() if rows < top), LARGEST)],
        tags=[*TAGS, *(["simulated"] if facts["simulated"] else [])],
        configs=[_config(c) for c in facts["configs"]], dataset_info=facts.get("dataset_info"),
        **_gate_prompt(facts), **facts["license_data"],
    )  # fmt: skip
    return _render("dataset_card.md", facts, header)


def model_card(facts: Mapping[str, Any]) -> str:
    """Render a model's card from `card_models.model_card_facts`; the header repeats its scores as a model-index."""
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=CATEGORIES[facts["kind"]],
            dataset_type=facts["hub_dataset"] or "unknown",
            dataset_name=f"{facts['task']}: gold test rows" + ("" if facts["hub_dataset"] else ", on no Hub"),
            dataset_split="test",
            metric_type=s["hub_metric"],
            metric_name=s["label"],
            metric_value=s["number"],
            metric_args={"ci95": s["ci95"]} if s["ci95"] else None,
        )
        for s in facts["scores"]
    ]
    header = ModelCardData(
        model_name=facts["title"], language=facts["language"] or None, library_name="transformers",
        pipeline_tag=CATEGORIES[facts["kind"]],
        base_model=facts["base_model"], tags=[*TAGS, *(["simulated"] if facts["simulated"] else [])],
        datasets=facts["datasets"] or None, widget=[{"text": t} for t in facts["widget"]] or None,
        metrics=sorted({s["hub_metric"] for s in facts["scores"]}) or None, eval_results=results or None,
        **_gate_prompt(facts), **facts["license_data"],
    )  # fmt: skip
    return _render("model_card.md", facts, header)


def eval_results(facts: Mapping[str, Any]) -> str:
    """Return a model's first score as the YAML of `.eval_results/<task>.yaml`, for the leaderboard of a dataset.

    Return "" if the gold is no dataset of the Hub: without an id scores are only in the card's model-index.
    """
    if not facts["hub_dataset"]:
        return ""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    entries = [
        EvalResultEntry(
            dataset_id=facts["hub_dataset"],
            task_id=facts["task"].partition(":")[2] or "default",
            value=s["number"],
            notes=f"{s['label']} on {facts['n']} gold test rows, 95% interval {s['interval']}",
        )
        for s in facts["scores"][:1]
    ]
    return str(yaml_dump(eval_result_entries_to_yaml(entries)))


def license_data(name: str) -> dict[str, str]:
    """Return a header's licence fields: the identifier on the Hub, or `other` with a name."""
    name = name.lower()
    if name in LICENSES:
        return {"license": name}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name).strip("-") or "not-stated"}


def _config(config: Mapping[str, Any]) -> dict[str, Any]:
    files = [{"split": "train", "path": f"{config['name']}/train-*.parquet"}]
    return {"config_name": config["name"], **({"default": True} if config["default"] else {}), "data_files": files}


def _gate_prompt(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the header's fields for users who request access to a gated repository."""
    if facts["access"] == "open":
        return {}
    asked = f" Questions: {facts['contact']}." if facts["contact"] else ""
    return {
        "extra_gated_prompt": facts["access_meaning"] + asked,
        "extra_gated_fields": {"I will not try to identify people or institutions": "checkbox"},
    }


def _render(template: str, facts: Mapping[str, Any], header: Any) -> str:
    text: str = _environment().get_template(template).render({**facts, "header": header.to_yaml().strip()})
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def _environment() -> Any:
    from jinja2 import DictLoader, Environment, StrictUndefined

    folder = resources.files("hf_synth.model_cards")
    names = ("dataset_card.md", "model_card.md")
    environment = Environment(
        loader=DictLoader({n: folder.joinpath(n).read_text(encoding="utf-8") for n in names}),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters |= {"table": _table, "plain": plain, "code": code}
    return environment


# Characters that Markdown, HTML or the Hub's formulas give a meaning to, as entities; "_" has none inside a word.
_MARKUP = re.compile(r"[<\\`*\[\]~$|]|&(?=#?\w+;)|(?<!\w)_|_(?!\w)|(?<=\{)[{%#]|[%#}](?=\})")
_PLACEHOLDER = re.compile(r"(?<=\{)(?=[{%#])|(?<=[}%#])(?=\})")  # where two characters look like a placeholder
_ADDRESS = re.compile(r"(?i)(?<=http):(?=//)|(?<=https):(?=//)|(?<=www)\.|@(?=\w)")
_ENTITIES = {"<": "&lt;", "&": "&amp;", "|": "\\|"}


def plain(text: Any, *, addresses: bool = False) -> str:
    """Return a text that is not ours as Markdown in one line that shows its characters as they are.

    Args:
        addresses: whether web addresses may become links.
    """
    shown = _MARKUP.sub(lambda m: _ENTITIES.get(m[0], f"&#{ord(m[0])};"), " ".join(str(text).split()))
    return shown if addresses else _ADDRESS.sub(lambda m: f"&#{ord(m[0])};", shown)


def code(text: Any) -> str:
    """Return a text as a code span of Markdown; a backtick in it becomes an apostrophe."""
    shown = " ".join(str(text).split()).replace("`", "'")
    return f"`{_PLACEHOLDER.sub(' ', shown)}`"


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table of columns (header, key of the row), numbers to the right."""

    def cell(value: Any) -> str:
        if value is None or value != value:
            return ""
        return f"{value:,}" if isinstance(value, int) else plain(value)

    right = [all(isinstance(row[key], int) for row in rows) for _, key in columns]
    lines = [[cell(header) for header, _ in columns], ["---:" if r else "---" for r in right]]
    lines += [[cell(row[key]) for _, key in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
