"""The options of `experiment` and `assess`; light, so that --help is quick."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

GRIDS = "paper, clinic, ablations, policies, generators, correctors"


def add_study_verbs(
    verb: Callable[..., argparse.ArgumentParser],
    gold: Callable[[argparse.ArgumentParser], None],
    synthetic: Callable[[argparse.ArgumentParser], None],
    llm: Callable[..., None],
    votes: Callable[[argparse.ArgumentParser], None],
) -> None:
    """Add both verbs.

    Args:
        verb: makes the parser of a verb of a name and a help text.
        gold, synthetic, llm, votes: add the options that other verbs have, too.
    """
    _experiment(verb, gold, synthetic, llm, votes)
    _assess(verb, gold, synthetic)


def _experiment(verb: Any, gold: Any, synthetic: Any, llm: Any, votes: Any) -> None:
    made = verb("experiment", "train and score every mixture of a grid; goes on where it ended")
    made.set_defaults(room="cli.experiments")
    gold(made)
    made.add_argument("--synthetic", type=Path, metavar="POOL", help="rows made elsewhere, in place of an LLM")
    synthetic(made)
    llm(made, required=False)
    add = made.add_argument
    add("--judge", metavar="A,B", help="LLMs that judge, for --labels llm_judge and --strategies zero-shot")
    votes(made)
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the experiment")
    add("--grid", default="paper", metavar="NAME", help=f"{GRIDS}, or a .json or .toml file")
    add("--processes", type=int, default=1, metavar="N", help="trainings at the same time (default: 1)")
    add("--dry-run", action="store_true", help="list the cells and what they would take; ask nothing")
    cells = made.add_argument_group("in the place of what the grid says")
    for name, kind, text in (
        ("sizes", int, "gold sizes (0: all)"), ("curve", int, "further sizes of gold alone"),
        ("ratios", float, "synthetic rows a gold row"), ("seeds", int, "seeds"),
        ("strategies", str, "gold, synthetic, replace, augment, frequency, zero-shot"),
        ("labels", str, "raw, auto, llm_judge, or methods"),
        ("correctors", str, "base models that correct (default: the cell's own)"),
    ):  # fmt: skip
        cells.add_argument(f"--{name}", type=kind, nargs="+", metavar=name[0].upper(), help=text)
    text = 'encoders; "linear": a linear head on frozen features; "tiny": one made on the spot (default: linear)'
    cells.add_argument("--base-model", nargs="+", metavar="MODEL", dest="base_models", help=text)
    add = made.add_argument_group("how").add_argument
    add("--set", action="append", default=[], metavar="NAME=VALUE", help="a field of TrainingArguments")
    add("--splits", nargs="+", default=["test"], metavar="S", help="splits of gold that are scored (default: test)")
    add("--validation", type=float, default=0.0, metavar="S", help="share of own gold to stop training early by")
    add("--audited", type=Path, metavar="FILE", help="labels that a person gave to synthetic rows: id, label")
    add("--swaps", action="store_true", help="also score test notes whose patient's sex, age or race words are swapped")
    add("--drop-seen", action="store_true", help="leave test rows out that stand in train, too, instead of refusing")
    for name, text in (
        ("minutes-per-note", "that labelling takes (assumed: 3)"), ("hourly-usd", "of who labels (assumed: 60)"),
        ("compute-usd", "of an hour of one core (assumed: 0.05)"), ("gpu-usd", "of an hour of one GPU (assumed: 2)"),
    ):  # fmt: skip
        add(f"--{name}", type=float, metavar="N", help=text)


def _assess(verb: Any, gold: Any, synthetic: Any) -> None:
    made = verb("assess", "say whether synthetic notes are worth making, or labels are the better buy")
    made.set_defaults(room="cli.experiments")
    gold(made)
    made.add_argument("--synthetic", type=Path, metavar="PILOT", help="some hundred synthetic rows as generated")
    synthetic(made)
    made.add_argument("--audited", type=Path, metavar="FILE", help="labels that a person gave to some: id, label")
    made.add_argument("--label", type=int, default=50, metavar="N", dest="more", help="notes that could be labelled")
