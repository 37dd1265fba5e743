"""`croissant.json` of an export of rows: MLCommons Croissant 1.0 with the fields of Croissant RAI 1.0.

Files, digests and fields are read from the parquet files; statements on collection, labels, limits and privacy come
from the facts of the card. No text of a row is in it. The check compares files and fields with the folder again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_synth.publishing.card_schema import config_files, features_of
from hf_synth.publishing.card_text import LOOKS_LIKE, METHOD, TAGS
from hf_synth.publishing.release import CROISSANT
from hf_synth.publishing.sealed import sealed_file

_CONFORMS = ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"]
_CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/", "samplingRate": "cr:samplingRate",
    "data": {"@id": "cr:data", "@type": "@json"}, "equivalentProperty": "cr:equivalentProperty",
    "dataBiases": "cr:dataBiases", "dataCollection": "cr:dataCollection",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field",
    "fileProperty": "cr:fileProperty", "fileObject": "cr:fileObject", "fileSet": "cr:fileSet", "format": "cr:format",
    "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key",
    "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path",
    "personalSensitiveInformation": "cr:personalSensitiveInformation",
    "rai": "http://mlcommons.org/croissant/RAI/", "recordSet": "cr:recordSet", "references": "cr:references",
    "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace", "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
_LABELS = "labels"  # the record set with the names of the labels
_SPDX = {
    "apache-2.0": "Apache-2.0", "mit": "MIT", "cc0-1.0": "CC0-1.0", "cc-by-4.0": "CC-BY-4.0", "cc-by-3.0": "CC-BY-3.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0", "cc-by-sa-3.0": "CC-BY-SA-3.0", "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0", "cc-by-nc-nd-4.0": "CC-BY-NC-ND-4.0", "cc-by-nd-4.0": "CC-BY-ND-4.0",
    "odc-by": "ODC-By-1.0", "odbl": "ODbL-1.0", "pddl": "PDDL-1.0", "bsd-3-clause": "BSD-3-Clause",
}  # fmt: skip


def croissant(facts: Mapping[str, Any], folder: Path, url: str | None) -> str:
    """Return the text of `croissant.json`.

    Args:
        facts: of the card (`cards.dataset_facts`).
        folder: the export, its parquet files written.
        url: of the repository's page; None for an export that is not pushed.
    """
    rows, unit = facts["rows"], facts["unit"]
    plain = {
        "@context": _CONTEXT, "@type": "sc:Dataset", "conformsTo": _CONFORMS, "name": facts["title"],
        "description": f"{rows:,} synthetic {unit} for the task {facts['task']}, written by a program"
                       + (f": {facts['description']}" if facts["description"] else "."),
        "license": _license(facts), "keywords": [*TAGS, *(["simulated"] if facts["simulated"] else [])],
        "conditionsOfAccess": f"{facts['access']}: {facts['access_meaning']}",
        "isAccessibleForFree": facts["access"] == "open",
        "creator": {"@type": "sc:Organization", "name": facts["repo_id"].partition("/")[0]} if "/" in facts["repo_id"]
                   else None,
        "inLanguage": facts["language"] or None, "url": url, "citeAs": facts["citation"] or METHOD,
        **_responsible(facts), **_of_files(folder),
    }  # fmt: skip
    return json.dumps({key: value for key, value in plain.items() if value not in (None, [])}, indent=1) + "\n"


def _license(facts: Mapping[str, Any]) -> str:
    name = facts["license_data"]["license"]
    return f"https://spdx.org/licenses/{_SPDX[name]}.html" if name in _SPDX else facts["source_url"] or facts["license"]


def _responsible(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of Croissant RAI; each restates what the card says."""
    default, plain = facts["config_columns"][0][0], str.maketrans({"`": None})
    shares = ", ".join(f"{label['name']} {label[default]:,}" for label in facts["labels"])
    made = (
        f"Texts were written by {facts['generators']}, with {facts['prompts']:,} different prompts in which "
        f"{facts['exemplars']:,} different gold rows were shown. {facts['audited']}"
    )
    return {
        "rai:dataCollection": " ".join(filter(None, [made, facts["simulated"], *facts["edited"]])).translate(plain),
        "rai:dataCollectionType": "Others",
        "rai:dataCollectionMissingData": f"Rows left out of the gold: {left}."
        if (left := facts["gold_left_out"].translate(plain))
        else None,
        "rai:dataPreprocessingProtocol": "Answers that were refused, malformed, repeated or copied are left out. So "
        "are rows that the audit withheld.",
        "rai:dataAnnotationProtocol": f"Labels: {facts['correction']}.".translate(plain),
        "rai:annotationsPerItem": "1",
        "rai:machineAnnotationTools": [f"hf_synth policy {facts['policy']}"] if facts["policy"] else None,
        "rai:dataBiases": "Texts carry the biases of their generator and of the gold that was shown to it."
        + (f" Rows by label: {shares}." if shares else ""),
        "rai:dataUseCases": "Research on training clinical text models and on label correction.",
        "rai:dataLimitations": "Not for the care of patients, and not for learning medical facts: texts may be "
        "wrong. Labels come from models, and nobody has checked them one by one. Test what is trained on the rows on "
        "gold of your own site.",
        "rai:dataSocialImpact": "Nobody may try to identify people or institutions with the rows.",
        "rai:personalSensitiveInformation": _sensitive(facts),
    }


def _sensitive(facts: Mapping[str, Any]) -> str:
    whose = "No text is about a person." if facts["simulated"] else (
        "The texts are synthetic, but gold that holds personal information may have been shown to the generator."
    )  # fmt: skip
    found = [
        f"{row['meaning']}: {row['value']}." for row in facts["audit_rows"] if row["meaning"].startswith(LOOKS_LIKE)
    ]
    access = f"Access of the gold: {facts['access']}."
    return " ".join([whose, access, *found, "Patterns do not find names: this is not de-identification."])


# --- files ----------------------------------------------------------------------------------------------------------
def _of_files(folder: Path) -> dict[str, Any]:
    """Return the files of an export with their digests, and a record set for each config."""
    import pyarrow.parquet as pq

    distribution, records, names = [], [], None
    for config, files in config_files(folder).items():
        for file in files:
            path, seal = file.relative_to(folder).as_posix(), sealed_file(file)
            distribution.append({
                "@type": "cr:FileObject", "@id": path, "name": path.replace("/", "-").removesuffix(".parquet"),
                "contentUrl": path, "contentSize": f"{seal.size} B", "encodingFormat": "application/x-parquet",
                "sha256": seal.sha256,
            })  # fmt: skip
        features = features_of(pq.read_schema(files[0]))
        fields = [_field(config, column, feature, distribution[-1]["@id"]) for column, feature in features.items()]
        names = next((n for f in features.values() if (n := _names(f))), names)
        records.append({"@type": "cr:RecordSet", "@id": config, "name": config, "field": fields})
    if names:
        records.append(_label_records(names))
    return {"distribution": distribution, "recordSet": records}


def _names(feature: Any) -> list[str] | None:
    return getattr(getattr(feature, "feature", feature), "names", None)


def _field(config: str, column: str, feature: Any, file: str) -> dict[str, Any]:
    inner = getattr(feature, "feature", feature)
    kind = "sc:Text" if inner.dtype == "string" else "sc:Integer" if inner.dtype.startswith("int") else "sc:Float"
    field: dict[str, Any] = {
        "@type": "cr:Field", "@id": f"{config}/{column}", "name": column, "dataType": kind,
        "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
    }  # fmt: skip
    if inner is not feature:
        field["repeated"] = True
    if _names(feature):
        field |= {"dataType": [kind, "cr:Label"], "description": f"Index of the label; `{_LABELS}` has its name."}
    return field


def _label_records(names: list[str]) -> dict[str, Any]:
    """Return the record set that names the numbers of the labels."""
    kinds = {"index": "sc:Integer", "name": "sc:Text"}
    return {
        "@type": "cr:RecordSet", "@id": _LABELS, "name": _LABELS, "dataType": "sc:Enumeration",
        "key": {"@id": f"{_LABELS}/index"},
        "field": [{"@type": "cr:Field", "@id": f"{_LABELS}/{k}", "name": k, "dataType": t} for k, t in kinds.items()],
        "data": [{f"{_LABELS}/index": i, f"{_LABELS}/name": name} for i, name in enumerate(names)],
    }  # fmt: skip


def croissant_problems(header: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Yield how `croissant.json` differs from its files and its card; nothing for an export without it."""
    file = folder / CROISSANT
    if not file.is_file():
        return
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or facts.get("@type") != "sc:Dataset" or facts.get("conformsTo") != _CONFORMS:
        yield "it is no Croissant description of a dataset"
        return
    for part, found in _of_files(folder).items():
        if facts.get(part) != found:
            yield f"its {part} is not that of the files"
    if facts.get("inLanguage") != header.get("language"):
        yield "its language is not that of the card"
