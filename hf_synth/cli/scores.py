"""The scores that a card shows: those of --scores, or those that `run` or `evaluate` left beside a model or notes."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hf_synth.errors import HfSynthError, MissingGoldError, RowError

if TYPE_CHECKING:
    from hf_synth.evaluation.evaluation import Scores


def scores_of_model(args: Namespace) -> Scores | None:
    """Return the scores of the model that is published, found by the digest of its weights; None where there are none.

    Without --scores they are looked for in the run that the model belongs to, and beside the model.

    Raises:
        MissingGoldError: --scores is no file.
        RowError: --scores holds no scores, or those of other models.
    """
    from hf_synth.evaluation.evaluation import Scores
    from hf_synth.models.record import weights_sha256

    weights = weights_sha256(args.folder)
    if _typed_scores(args):
        found = _read_scores(args.scores)
        if isinstance(found, Scores):  # `publish_model` checks the weights
            return found
        for scores in found.values():
            if scores.model.get("weights_sha256") == weights:
                return scores
        where = "holds scores of other models only"
        raise RowError(str(args.scores), None, f"{where}; score this one with `hf-synth evaluate --out FILE`")
    configured = [args.scores] if args.scores is not None else []
    folder = args.folder.absolute()
    for file in dict.fromkeys(
        (*configured, folder.parent.parent / "scores.json", *sorted(folder.parent.glob("*.json")))
    ):
        with suppress(HfSynthError, OSError):
            found = _read_scores(file)
            for scores in [found] if isinstance(found, Scores) else found.values():
                if scores.model.get("weights_sha256") == weights:
                    print(f"scores of this model: {file}")
                    return scores
    return None


def scores_of_rows(args: Namespace, edited: bool) -> Scores | Mapping[str, Scores] | None:
    """Return the scores of models trained with the rows: those of --scores, or of the run that the rows belong to.

    Args:
        edited: whether a person edited the rows after the run.
    """
    if _typed_scores(args):
        return _named_as_in_reports(_read_scores(args.scores))
    folder = args.folder.absolute().parent
    beside = folder / "scores.json"
    if not edited and args.folder.name == "corrected" and beside.is_file():
        with suppress(HfSynthError):
            found = _named_as_in_reports(_read_scores(beside))
            if isinstance(found, dict):
                print(f"scores of models trained with these notes: {beside}")
                return found
    # those of the configuration are of the notes that lie beside them, and notes may be published before there are any
    configured = not edited and args.scores is not None and args.scores.is_file()
    configured = configured and args.scores.absolute().parent == folder
    return _named_as_in_reports(_read_scores(args.scores)) if configured else None


def _named_as_in_reports(scores: Scores | dict[str, Scores]) -> Scores | dict[str, Scores]:
    """Return the scores of a run by the names that its report uses: "40 gold + corrected"."""
    from hf_synth.experiments.names import arm_name

    return {arm_name(name): of for name, of in scores.items()} if isinstance(scores, dict) else scores


def _typed_scores(args: Namespace) -> bool:
    """Return whether --scores is on the command line, and not in the configuration, where `init` writes it."""
    return any(word.partition("=")[0] == "--scores" for word in args.argv)


def _read_scores(path: Path) -> Scores | dict[str, Scores]:
    """Read the scores of a model, or those of the models of a run by name.

    Raises:
        MissingGoldError: there is no such file.
        RowError: it holds no scores.
    """
    from hf_synth.evaluation.evaluation import Scores

    if not path.is_file():
        raise MissingGoldError(f"{path} is no file: `hf-synth evaluate --out FILE` writes one")
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(plain, dict) and plain and all(isinstance(v, dict) and "values" in v for v in plain.values()):
            return {name: Scores.from_json(values) for name, values in plain.items()}
        return Scores.from_json(plain)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, HfSynthError):
        raise RowError(str(path), None, "holds no scores; write it with `hf-synth evaluate --out FILE`") from None
