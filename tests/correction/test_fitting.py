"""Fitting of policies: what is measured, what is estimated and for how much, and what each method learns from gold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.corrections import annotated, blurred
from support.toy_experiment import simulated

from hf_synth.correction import fitting
from hf_synth.correction.fitting import fit, generator_accuracy, is_weaker
from hf_synth.correction.noise import issue_margins, label_issues
from hf_synth.correction.policy import GENERATOR, Annotations, Policy, apply
from hf_synth.errors import ColumnError, TaskError
from hf_synth.evaluation.calibration import apply_temperature, conformal_sets
from hf_synth.evaluation.statistics import wilson


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("corrector", "right"), [(0.85, 0.8), (0.6, 0.8), (0.85, 0.95), (0.5, 0.7), (0.9, 0.6), (0.4, 0.9)]
)
def test_posterior_never_makes_labels_worse_and_argmax_does(corrector: float, right: float, seed: int) -> None:
    truth, given = simulated(seed, right=right, corrector=corrector)
    labels = {}
    for method in ("none", "argmax", "posterior"):
        done = apply(fit(method, **given), given["llm_label"], given["pred_probs"])
        labels[method] = float(np.mean(done.label == truth))
    assert labels["posterior"] >= labels["none"] - 0.01
    if corrector < right - 0.05:
        assert labels["argmax"] < labels["none"] - 0.03
        assert not any("weaker" in w for w in fit("argmax", **given).warnings), (
            "a generator not measured proves nothing"
        )
        audited = {i: int(truth[i]) for i in range(400)}
        assert any("weaker" in w for w in fit("argmax", **given, audited=audited).warnings)
    if corrector > right + 0.05:
        assert labels["posterior"] > labels["none"] + 0.05


def test_audited_rows_are_counted_with_their_interval() -> None:
    truth, given = simulated(0, right=0.7, corrector=0.6)
    figures = fit("posterior", **given, audited={i: int(truth[i]) for i in range(50)}).figures
    low, high = figures["generator_accuracy_audited_ci95"]
    assert low < figures["generator_accuracy_audited"] < high
    assert low < 0.7 < high


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pred_probs": np.ones((3, 2))}, "sum to 1"),
        ({"llm_label": [0, 1]}, "2 labels for 3 rows"),
        ({"llm_label": [0, 1, 7]}, "outside"),
        ({"llm_label": [0.5, 1, 1]}, "indices"),
        ({"pred_probs": np.ones(3)}, "shape"),
    ],
)
def test_bad_input_is_one_sentence(change: dict[str, object], says: str) -> None:
    half = np.full((3, 2), 0.5)
    given = {"llm_label": [0, 1, 1], "pred_probs": half, "gold_label": [0, 1, 1], "gold_probs": half}
    with pytest.raises(ColumnError, match=says):
        fit("posterior", **(given | change))  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="unknown method"):
        fit("magic", **given)  # type: ignore[arg-type]


def both_err(seed: int, *, together: float, n: int = 1_500, m: int = 300, k: int = 4):  # type: ignore[no-untyped-def]
    """Make rows of which some are hard for generator and corrector alike; give their truth and what `fit` takes.

    Args:
        together: share of hard rows on which both name the same wrong label.
    """
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(k) * 3)  # the mix of labels is another one than gold's
    truth, gold = rng.choice(k, n, p=shares), rng.integers(0, k, m)

    def say(labels: np.ndarray, hard: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        return np.where(hard & (rng.random(len(labels)) < 0.8), wrong, labels)

    hard, of_gold = rng.random(n) < 0.35, rng.random(m) < 0.35
    wrong = (truth + rng.integers(1, k, n)) % k
    same = np.where(rng.random(n) < together, wrong, (truth + rng.integers(1, k, n)) % k)
    meant, said = say(truth, hard, wrong), say(truth, hard, same)
    guess = say(gold, of_gold, (gold + rng.integers(1, k, m)) % k)
    probs, held = (0.6 * np.eye(k)[labels] + 0.1 for labels in (said, guess))
    return truth, {"llm_label": meant, "pred_probs": probs, "gold_label": gold, "gold_probs": held}


@pytest.mark.parametrize("together", [0.0, 0.5, 1.0])
def test_bounds_hold_where_errors_go_together_and_the_estimate_does_not(
    together: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, beyond = [], []
    for seed in range(60):
        truth, given = both_err(seed, together=together)
        monkeypatch.setattr(fitting, "WIDE", 1.0)  # with the estimate, however wide the range
        figures = fit("posterior", **given).figures
        low, high = figures["generator_accuracy_bounds"]
        right = float(np.mean(given["llm_label"] == truth))
        inside.append(low <= right <= high)
        beyond.append(figures["generator_accuracy_estimated"] - right)
    assert np.mean(inside) >= 0.95
    if together == 1:
        assert np.mean(beyond) > 0.1  # what bounds are for: the estimate takes shared errors for agreement on the truth


def test_where_nothing_fits_no_bounds_are_told() -> None:
    """On gold the corrector always says the first label; on synthetic rows it never does."""
    gold = np.tile([0, 1], 200)
    first, second = np.tile([0.9, 0.1], (400, 1)), np.tile([0.1, 0.9], (400, 1))
    policy = fit("posterior", llm_label=gold, pred_probs=second, gold_label=gold, gold_probs=first)
    assert "generator_accuracy_bounds" not in policy.figures
    assert any("no accuracy of the generator fits" in line for line in policy.warnings)


@pytest.mark.parametrize(
    ("bounds", "estimated", "said"),
    [((0.25, 0.25), 0.49, "cannot be trusted"), ((0.0, 0.61), 0.7, "of one of the two"), ((0.4, 0.8), 0.7, "")],
)
def test_bounds_are_a_check_of_the_estimate_and_not_more(
    bounds: tuple[float, float], estimated: float, said: str
) -> None:
    """A range narrower than gold's own interval means that what was seen barely fits together."""
    figures = fit("posterior", **blurred()[1]).figures | {
        "gold_rows": 200, "corrector_accuracy_on_held_out_gold": 0.6, "corrector_balanced_accuracy_on_held_out_gold": 1,
        "generator_accuracy_bounds": bounds, "generator_accuracy_estimated": estimated,
    }  # fmt: skip
    told = fitting._warnings(figures, ())
    assert [said in line for line in told] == [True] if said else told == ()


def test_classes_are_covered_one_by_one_where_that_is_asked() -> None:
    """The corrector is bad at one class of four: sets of one level miss it, sets of its own level do not."""
    covered: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth, gold = rng.integers(0, 4, 1_000), rng.integers(0, 4, 400)

        def opinions(labels: np.ndarray, rng: np.random.Generator = rng) -> np.ndarray:
            pull = np.where(labels == 3, 0.3, 3.0)[:, None] * np.eye(4)[labels]
            raised = np.exp(pull + rng.normal(size=(len(labels), 4)))
            return raised / raised.sum(1, keepdims=True)

        given = {"llm_label": truth, "pred_probs": opinions(truth), "gold_label": gold, "gold_probs": opinions(gold)}
        for by_class, found in covered.items():
            policy = fit("posterior", **given, coverage=0.9, coverage_by_class=by_class)
            sets = conformal_sets(apply_temperature(given["pred_probs"], policy.temperature), np.asarray(policy.level))
            found.append(sets[truth == 3, 3].mean())
    assert np.mean(covered[False]) < 0.75
    assert 0.88 <= np.mean(covered[True]) <= 0.93


def test_gold_too_small_for_a_coverage_leaves_every_row_alone() -> None:
    _, given = simulated(0, right=0.7, corrector=0.6, m=40)
    policy = fit("argmax", **given, coverage=0.99)  # 41 rows would have to hold the truth, of 40
    done = apply(Policy.from_json(policy.to_json()), given["llm_label"], given["pred_probs"])
    assert (done.label == given["llm_label"]).all()
    assert done.ratio("relabelled") == 0
    assert any("gold is too small for sets" in line for line in policy.warnings)
    by_class = fit("argmax", **given, coverage=0.95, coverage_by_class=True)  # some ten rows a class
    assert any("too small to cover 4 of 4 labels" in line for line in by_class.warnings)
    assert apply(by_class, given["llm_label"], given["pred_probs"]).ratio("relabelled") == 0


# --- what is printed of the generator -------------------------------------------------------------------------------
def test_an_estimate_stands_only_beside_a_narrow_range() -> None:
    names = ("generator_accuracy_estimated", "generator_accuracy_assumes")
    truth, given = simulated(0, right=0.8, corrector=0.97, m=800)
    figures = fit("posterior", **given).figures
    low, high = figures["generator_accuracy_bounds"]
    assert high - low <= 0.3
    assert low <= figures["generator_accuracy_estimated"] <= high
    assert figures["generator_accuracy_estimated"] == pytest.approx(np.mean(given["llm_label"] == truth), abs=0.05)
    wide = fit("posterior", **simulated(0, right=0.8, corrector=0.6)[1]).figures
    low, high = wide["generator_accuracy_bounds"]
    assert high - low > 0.3
    assert not set(names) & set(wide)
    assert np.isnan(generator_accuracy(wide))
    gold = np.tile([0, 1], 200)
    first, second = np.tile([0.9, 0.1], (400, 1)), np.tile([0.1, 0.9], (400, 1))
    nothing = fit("posterior", llm_label=gold, pred_probs=second, gold_label=gold, gold_probs=first).figures
    assert not {*names, "generator_accuracy_bounds"} & set(nothing), "no accuracy fits"
    assert set(names) <= set(fit("posterior", **simulated(0, right=0.8, corrector=0.6)[1], bounds=False).figures)


def test_labels_of_gold_measure_the_generator() -> None:
    _, given = simulated(0, right=0.8, corrector=0.9)
    gold = given["gold_label"]
    own = np.where(np.arange(200) % 10 < 7, gold, (gold + 1) % 4)
    own[:20] = -1  # no usable answer: 126 of 180 are right
    told = annotated(given)
    of_gold = Annotations(told[0].names, own[:, None])
    policy = fit("posterior", **given, annotations=(of_gold, told[1]))
    assert policy.figures["generator_accuracy_on_gold"] == 0.7
    assert policy.figures["generator_labelled_gold_rows"] == 180
    assert policy.figures["generator_accuracy_on_gold_ci95"] == [round(v, 4) for v in wilson(126, 180)]
    assert generator_accuracy(policy.figures) == 0.7
    audited = fit("posterior", **given, annotations=(of_gold, told[1]), audited={0: 0}).figures
    assert generator_accuracy(audited) in (0.0, 1.0), "people's labels of the rows themselves come first"
    other = fit("posterior", **given, annotations=(Annotations(("llm_label_b",), own[:, None]), told[1]))
    assert "generator_accuracy_on_gold" not in other.figures, "another LLM did not write the rows"


@pytest.mark.parametrize(
    ("corrector", "measured", "expected"),
    [
        (0.5, {"generator_accuracy_audited": 0.8, "generator_accuracy_audited_ci95": [0.7, 0.9]}, True),
        (0.5, {"generator_accuracy_on_gold": 0.8, "generator_accuracy_on_gold_ci95": [0.7, 0.9]}, True),
        (
            0.5,
            {"generator_accuracy_audited": 0.6, "generator_accuracy_audited_ci95": [0.5, 0.7]},
            False,
        ),  # .402 to .598
        (0.5, {"generator_accuracy_estimated": 0.99}, False),
        (0.5, {}, False),
    ],
)
def test_weaker_is_what_two_measured_intervals_say(corrector: float, measured: dict[str, Any], expected: bool) -> None:
    figures = {"gold_rows": 100, "corrector_accuracy_on_held_out_gold": corrector, **measured}
    assert is_weaker(figures) is expected


# --- cuts and counts ------------------------------------------------------------------------------------------------
def calibrated_rows(rng: np.random.Generator, n: int, right: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw truth, calibrated opinions of three labels, and generated labels that are right at a rate."""
    truth, sure = rng.integers(3, size=n), rng.uniform(0.34, 1, n)
    said = np.where(rng.random(n) < sure, truth, (truth + rng.integers(1, 3, n)) % 3)
    probs = np.tile(((1 - sure) / 2)[:, None], 3)
    probs[np.arange(n), said] = sure
    return truth, probs, np.where(rng.random(n) < right, truth, (truth + rng.integers(1, 3, n)) % 3)


@pytest.mark.parametrize("right", [0.6, 0.75, 0.9])
def test_threshold_is_cut_where_the_gain_is_greatest(right: float) -> None:
    """The opinions are calibrated: from the generator's accuracy on the corrector is the better one, and no sooner."""
    rng = np.random.default_rng(0)
    gold, held, _ = calibrated_rows(rng, 4_000, right)
    truth, probs, meant = calibrated_rows(rng, 20_000, right)
    audited = {int(i): int(truth[i]) for i in rng.permutation(20_000)[:2_000]}
    policy = fit("threshold", llm_label=meant, pred_probs=probs, gold_label=gold, gold_probs=held, audited=audited)
    done = apply(policy, meant, probs)
    cuts = np.linspace(0.3, 1, 71)
    best = max(float(np.mean(np.where(probs.max(1) >= cut, probs.argmax(1), meant) == truth)) for cut in cuts)
    share = float(np.mean(done.label == truth))
    assert share >= best - 0.004
    assert policy.threshold == pytest.approx(right, abs=0.06)
    if right == 0.75:
        assert share >= 0.79, "where the two were as often right in sum, .75 of the labels were"


def test_threshold_by_hand() -> None:
    """Gains from the surest row on: +1, -1, +1, +1 and, of two rows alike, -1 and -1: best after the fourth row."""
    held = np.array([[p, 1 - p] for p in (0.95, 0.9, 0.85, 0.8, 0.7, 0.7)])
    gold, own = np.array([0, 1, 0, 0, 1, 1]), np.array([1, 1, 1, 1, 1, 1])
    told = Annotations((GENERATOR,), own[:, None])
    given = {"llm_label": own, "pred_probs": held, "gold_label": gold, "gold_probs": held, "calibrate": False}
    assert fit("threshold", **given, annotations=(told, told)).threshold == pytest.approx(0.8, abs=1e-6)
    right = Annotations((GENERATOR,), gold[:, None])
    assert fit("threshold", **given, annotations=(right, right)).threshold > 1, "no row gains"


def test_loss_rank_keeps_as_many_rows_of_a_label_as_are_right() -> None:
    """Gold says that two in four of the LLM's 0 are right: (2 + .5) / (4 + 1), two of four rows; of its 1 all."""
    held = np.full((6, 2), 0.5)
    gold, own = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 0, 1, 1])
    meant = np.array([0, 0, 0, 0, 1, 1, 1])
    probs = np.array([[p, 1 - p] for p in (0.9, 0.8, 0.7, 0.2, 0.6, 0.4, 0.3)])
    told = Annotations((GENERATOR,), own[:, None]), Annotations((GENERATOR,), meant[:, None])
    policy = fit(
        "loss_rank", llm_label=meant, pred_probs=probs, gold_label=gold, gold_probs=held, annotations=told,
        calibrate=False,
    )  # fmt: skip
    assert policy.floors == pytest.approx((0.8, 0.4))  # of label 1: (2 + .5) / (2 + 1), three rows of three
    done = apply(policy, meant, probs)
    assert done.status.tolist() == ["kept"] * 2 + ["dropped"] * 2 + ["kept"] * 3
    assert set(done.reason[2:4]) == {"label_issue"}


def test_measured_takes_out_a_confusion_that_was_counted_on_gold() -> None:
    """The LLM names the next label in nine of ten rows."""
    rng = np.random.default_rng(0)
    truth, given = simulated(1, right=0.1, corrector=0.6)
    gold = given["gold_label"]

    def next_label(labels: np.ndarray) -> np.ndarray:
        return np.where(rng.random(len(labels)) < 0.9, (labels + 1) % 4, labels)

    given["llm_label"] = next_label(truth)
    told = Annotations((GENERATOR,), next_label(gold)[:, None]), Annotations((GENERATOR,), given["llm_label"][:, None])
    policy = fit("measured", **given, annotations=told)
    assert policy.confusions[0] == policy.noise
    assert np.array(policy.noise)[0, 1] == pytest.approx(0.9, abs=0.07)
    right = np.mean(apply(policy, given["llm_label"], given["pred_probs"], annotations=told[1]).label == truth)
    assert right > 0.88
    assert np.mean(given["llm_label"] == truth) < 0.15
    alone = fit("measured", **given, annotations=told, audited={0: int(truth[0])})
    assert alone.noise == policy.noise, "counted on gold alone"


def test_counted_by_hand() -> None:
    gold, own = np.array([0] * 10 + [1] * 10), np.array([0] * 8 + [1] * 2 + [0] * 4 + [1] * 6)
    half = np.full((20, 2), 0.5)
    told = Annotations((GENERATOR,), own[:, None])
    given = {"llm_label": own, "pred_probs": half, "gold_label": gold, "gold_probs": half}
    policy = fit("measured", **given, annotations=(told, told))
    assert np.array(policy.noise) == pytest.approx(np.array([[8.5, 2.5], [4.5, 6.5]]) / 11, abs=1e-6)
    done = apply(policy, own, half)
    assert done.probs[0, 0] == pytest.approx(8.5 / 13, abs=1e-5)
    assert done.probs[8, 0] == pytest.approx(2.5 / 9, abs=1e-5)


def test_llms_that_repeat_each_other_count_less_than_llms_that_do_not() -> None:
    rng = np.random.default_rng(0)
    gold = rng.integers(0, 3, 150)
    given = {"llm_label": gold, "pred_probs": np.full((150, 3), 1 / 3), "gold_label": gold}
    given["gold_probs"] = given["pred_probs"]

    def say() -> np.ndarray:
        return np.where(rng.random(150) < 0.6, gold, rng.integers(0, 3, 150))

    one = say()
    names = tuple(f"llm_label_{i}" for i in range(13))
    repeated = Annotations(names, np.stack([np.where(rng.random(150) < 0.95, one, say()) for _ in names], axis=1))
    apart = Annotations(names, np.stack([say() for _ in names], axis=1))
    single = Annotations((GENERATOR,), one[:, None])
    powers = [fit("measured", **given, annotations=(a, a)).power for a in (repeated, apart, single)]
    assert powers[0] <= 0.35
    assert powers[1:] == [1.0, 1.0]
    done = apply(
        fit("measured", **given, annotations=(repeated, repeated)), gold, given["pred_probs"], annotations=repeated
    )
    share = done.probs[np.arange(150), gold].mean()
    assert share == pytest.approx(np.mean(done.label == gold), abs=0.12), "beliefs are about as sure as they are right"


def test_stack_learns_whom_to_trust_and_when() -> None:
    """One LLM is right where it is sure and guesses elsewhere; another one always guesses."""
    rng = np.random.default_rng(0)

    def rows(n: int) -> tuple[np.ndarray, Annotations]:
        truth, sure = rng.integers(0, 3, n), rng.random(n) < 0.6
        own = np.where(sure, truth, rng.integers(0, 3, n))
        told = np.stack([own, rng.integers(0, 3, n)], axis=1)
        return truth, Annotations((GENERATOR, "llm_label_b"), told, np.c_[np.where(sure, 0.95, 0.4), np.full(n, 0.9)])

    (gold, of_gold), (truth, of_rows) = rows(300), rows(2_000)
    meant = of_rows.labels[:, 0]

    def opinions(labels: np.ndarray) -> np.ndarray:
        said = np.where(rng.random(len(labels)) < 0.7, labels, rng.integers(0, 3, len(labels)))
        return 0.6 * np.eye(3)[said] + 0.4 / 3

    given = {"llm_label": meant, "pred_probs": opinions(truth), "gold_label": gold, "gold_probs": opinions(gold)}
    policy = fit("stack", **given, annotations=(of_gold, of_rows))
    done = apply(policy, meant, given["pred_probs"], annotations=of_rows)
    best = np.where(of_rows.sure[:, 0] > 0.5, meant, given["pred_probs"].argmax(1))  # type: ignore[index]
    assert np.mean(done.label == truth) >= np.mean(best == truth) - 0.01
    plain = [Annotations(a.names, a.labels) for a in (of_gold, of_rows)]
    without = fit("stack", **given, annotations=(plain[0], plain[1]))
    blind = apply(without, meant, given["pred_probs"], annotations=plain[1])
    assert np.mean(done.label == truth) > np.mean(blind.label == truth) + 0.03
    assert np.array(policy.stack).shape == (3 + 4 * 3 + 1, 3)
    assert np.array(without.stack).shape == (3 + 2 * 3 + 1, 3)


@pytest.mark.parametrize("method", ["measured", "stack"])
def test_without_llm_labels_of_gold_is_one_sentence(method: str) -> None:
    with pytest.raises(TaskError, match=f"'{method}' counts an LLM's errors on gold.*hf-synth label TASK GOLD --gold"):
        fit(method, **simulated(0, right=0.8, corrector=0.9)[1])


def test_margins_of_clean_drop_are_those_of_the_pilot() -> None:
    _, given = blurred()
    policy = fit("clean_drop", **given)
    assert np.array(policy.margins) == pytest.approx(issue_margins(given["llm_label"], given["pred_probs"]))
    done = apply(policy, given["llm_label"], given["pred_probs"])
    assert ((done.status == "dropped") == label_issues(given["llm_label"], given["pred_probs"])).all()
    assert 0.05 < done.ratio("dropped") < 0.5


def test_copies_and_guesses_do_not_weaken_the_best_llm() -> None:
    """Means over draws: five copies of one LLM beside two others, and four LLMs that guess beside one that does not."""
    right: dict[str, list[float]] = {}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        truth = {"gold": rng.integers(0, 3, 100), "rows": rng.integers(0, 3, 600)}

        def say(share: float, truth: dict[str, np.ndarray] = truth, rng: Any = rng) -> dict[str, np.ndarray]:
            return {n: np.where(rng.random(len(t)) < share, t, rng.integers(0, 3, len(t))) for n, t in truth.items()}

        good, others, guesses = say(0.6), [say(0.55), say(0.55)], [say(0.0) for _ in range(4)]
        swapped = {name: (labels + 1) % 3 for name, labels in truth.items()}
        cases = {
            "one": [good],
            "with guesses": [good, *guesses],
            "three": [good, *others],
            "with copies": [good] * 5 + others,
        }
        for case, told in (cases | {"with one swapped": [good, *others, swapped]}).items():
            names = tuple(f"llm_label_{i}" for i in range(len(told)))
            both = [Annotations(names, np.stack([labels[part] for labels in told], axis=1)) for part in truth]
            flat = {part: np.full((len(t), 3), 1 / 3) for part, t in truth.items()}
            none = np.full(600, -1)
            given = {
                "llm_label": none,
                "pred_probs": flat["rows"],
                "gold_label": truth["gold"],
                "gold_probs": flat["gold"],
            }
            policy = fit("measured", **given, annotations=(both[0], both[1]), bounds=False)
            done = apply(policy, none, flat["rows"], annotations=both[1])
            right.setdefault(case, []).append(float((done.label == truth["rows"]).mean()))
    share = {case: float(np.mean(values)) for case, values in right.items()}
    assert share["with guesses"] > share["one"] - 0.015
    assert share["with copies"] > share["three"] - 0.015
    assert share["three"] > share["one"] + 0.01
    assert share["with one swapped"] > 0.98, "an LLM that is always wrong in the same way tells as much as a right one"
