"""The verdict by simulation: how often it is wrong where the truth is known, and that enough data decide."""

import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import binom, norm

from al_leignn.validate.equivalence import Comparison, Measure, Observable, Outcome, Tolerance, holm_level, weigh

DECAY = 0.7
EDGES = np.linspace(-4, 4, 33)
ATOMS = 16


def ar1(rng: np.random.Generator, n: int, bins: int = 1) -> NDArray[np.float64]:
    noise = np.sqrt(1 - DECAY**2) * rng.standard_normal((n, bins))
    noise[0] /= np.sqrt(1 - DECAY**2)
    return np.asarray(lfilter([1], [1, -DECAY], noise, axis=0))


def number(values: NDArray[np.float64]) -> Observable:
    return Observable("x", "energy", values, 0.1, "eV", np.zeros(1))


def distribution(values: NDArray[np.float64]) -> Observable:
    """Histogram of the coordinates of some oscillators, frame by frame: a pair function in small."""
    bins = np.digitize(np.clip(values, -3.99, 3.99), EDGES) - 1
    series = np.zeros((len(values), len(EDGES) - 1))
    np.add.at(series, (np.arange(len(values))[:, None], bins), 1 / values.shape[1])
    return Observable("p(x)", "rdf", series, 0.1, "", EDGES[:-1], "x")


def overlap_lost(stretch: float) -> float:
    """Share of a normal distribution that is elsewhere when it is stretched."""
    return float(np.abs(np.diff(norm.cdf(EDGES)) - np.diff(norm.cdf(EDGES / stretch))).sum() / 2)


def compare(reference: Observable, md: Observable, tolerance: Tolerance, *, level: float, rng: np.random.Generator) -> Comparison:
    """One observable alone, both claims at one level."""
    return weigh(reference, md, tolerance, rng=rng).decide(level, level)


def outcomes(
    make: Callable[[np.random.Generator], tuple[Observable, Observable]], tolerance: Tolerance, level: float, repeats: int
) -> Counter[Outcome]:
    rng = np.random.default_rng(0)
    return Counter(compare(*make(rng), tolerance, level=level, rng=rng).outcome for _ in range(repeats))


def not_above(count: int, repeats: int, level: float) -> bool:
    """Whether so many events are likely enough (1 in 1000) where each happens with a probability of `level`."""
    return bool(count <= binom.ppf(0.999, repeats, level))


@pytest.mark.parametrize(("frames", "decided"), [(400, 0.0), (8000, 0.9)])
def test_two_halves_of_one_process_pass(frames: int, decided: float) -> None:
    """Equal processes: never `different` more often than stated, and `equivalent` as soon as data allow."""

    def halves(rng: np.random.Generator) -> tuple[Observable, Observable]:
        whole = ar1(rng, 2 * frames)
        return number(whole[:frames]), number(whole[frames:])

    found = outcomes(halves, Tolerance(Measure.ABSOLUTE, 0.15), 0.05, 100)
    assert not_above(found[Outcome.DIFFERENT], 100, 0.05)
    assert found[Outcome.EQUIVALENT] >= decided * 100


@pytest.mark.parametrize("wrong", [Outcome.EQUIVALENT, Outcome.DIFFERENT])
def test_wrong_claims_about_a_number_are_as_rare_as_stated(wrong: Outcome) -> None:
    """At the tolerance itself either claim is wrong, and this is where it is made most often."""

    def make(rng: np.random.Generator) -> tuple[Observable, Observable]:
        return number(ar1(rng, 2000)), number(ar1(rng, 1000) + 0.3)

    found = outcomes(make, Tolerance(Measure.ABSOLUTE, 0.3), 0.05, 200)
    assert not_above(found[wrong], 200, 0.05)
    assert found[wrong] > 1


def test_distributions() -> None:
    """A stretch of 5 % that costs exactly the tolerance is rarely passed or failed; one of 15 % is found; none passes."""
    tolerance = Tolerance(Measure.OVERLAP, overlap_lost(1.05))
    repeats = 80

    def stretched(by: float, frames: int) -> Callable[[np.random.Generator], tuple[Observable, Observable]]:
        return lambda rng: (distribution(ar1(rng, frames, ATOMS)), distribution(by * ar1(rng, frames, ATOMS)))

    border = outcomes(stretched(1.05, 800), tolerance, 0.05, repeats)
    assert not_above(border[Outcome.EQUIVALENT], repeats, 0.05)
    assert not_above(border[Outcome.DIFFERENT], repeats, 0.05)
    assert outcomes(stretched(1.15, 800), tolerance, 0.05, 20)[Outcome.DIFFERENT] == 20
    assert outcomes(stretched(1.0, 6000), tolerance, 0.05, 15)[Outcome.EQUIVALENT] >= 12
    assert outcomes(stretched(1.0, 60), tolerance, 0.05, 30)[Outcome.UNDECIDED] == 30


def test_five_percent_of_a_frequency_is_found() -> None:
    """An oscillator's mean square displacement 10 % up, as from a force constant 5 % down twice over; tolerance 5 %."""
    rng = np.random.default_rng(5)
    reference = number(1.0 + 0.3 * ar1(rng, 6000))
    distorted = number(1.1 * (1.0 + 0.3 * ar1(rng, 6000)))
    found = compare(reference, distorted, Tolerance(Measure.RELATIVE, 0.05), level=0.005, rng=rng)
    assert found.verdict == "different"
    assert found.difference == pytest.approx(0.1, abs=0.03)
    assert found.p_different < 0.005 < found.p_equivalent


def test_short_data_say_how_much_is_needed() -> None:
    """Advice on an equal process, followed, decides in most cases; its size does not depend on luck by orders."""
    rng = np.random.default_rng(6)
    tolerance = Tolerance(Measure.ABSOLUTE, 0.15)
    decided, asked = [], []
    for _ in range(40):
        first = compare(number(ar1(rng, 1000)), number(ar1(rng, 1000)), tolerance, level=0.05, rng=rng)
        if first.need is None:
            continue
        assert first.outcome is Outcome.UNDECIDED
        assert first.verdict.startswith("undecided: needs ")
        assert first.verdict.endswith(" ps more AIMD")
        frames = round(1000 + first.need.ps / 0.1)
        asked.append(frames)
        second = compare(number(ar1(rng, frames)), number(ar1(rng, frames)), tolerance, level=0.05, rng=rng)
        decided.append(second.outcome is Outcome.EQUIVALENT)
    assert len(decided) > 20
    assert np.mean(decided) > 0.6
    assert max(asked) < 15 * min(asked)


def test_cheap_md_is_asked_for_before_aimd() -> None:
    rng = np.random.default_rng(7)
    found = compare(number(ar1(rng, 20000)), number(ar1(rng, 700)), Tolerance(Measure.ABSOLUTE, 0.1), level=0.05, rng=rng)
    assert found.verdict.endswith(" ps more MD")
    found = compare(number(ar1(rng, 30)), number(ar1(rng, 20000)), Tolerance(Measure.ABSOLUTE, 0.15), level=0.05, rng=rng)
    assert found.verdict.endswith(" ps more AIMD")
    assert np.isnan(found.noise)


def test_numbers_without_scatter_are_decided() -> None:
    rng = np.random.default_rng(8)
    four = number(np.full((100, 1), 4.0))
    tolerance = Tolerance(Measure.RELATIVE, 0.02)
    assert compare(four, four, tolerance, level=1e-3, rng=rng).outcome is Outcome.EQUIVALENT
    assert compare(four, number(np.full((100, 1), 4.05)), tolerance, level=1e-3, rng=rng).outcome is Outcome.EQUIVALENT
    assert compare(four, number(np.full((100, 1), 4.2)), tolerance, level=1e-3, rng=rng).outcome is Outcome.DIFFERENT
    nothing = number(np.zeros((100, 1)))
    assert compare(nothing, nothing, tolerance, level=1e-3, rng=rng).outcome is Outcome.EQUIVALENT
    assert compare(nothing, four, Tolerance(Measure.RELATIVE, 0.02, floor=5.0), level=1e-3, rng=rng).outcome is Outcome.EQUIVALENT


def test_measures() -> None:
    rng = np.random.default_rng(9)
    left, right = np.tile([1.0, 0.0, 0.0], (100, 1)), np.tile([0.0, 1.0, 0.0], (100, 1))
    one, two = (Observable("f", "rdf", series, 0.1, "", np.arange(3.0), "x") for series in (left, right))

    def difference(measure: Measure) -> Comparison:
        return compare(one, two, Tolerance(measure, 0.1), level=0.01, rng=rng)

    assert difference(Measure.OVERLAP).difference == pytest.approx(1.0)
    assert difference(Measure.RELATIVE).difference == pytest.approx(2.0)
    assert difference(Measure.ABSOLUTE).difference == pytest.approx(2 / 3)


def test_json_and_the_same_seed() -> None:
    a, b = number(ar1(np.random.default_rng(0), 500)), number(ar1(np.random.default_rng(1), 10))
    found = [compare(a, b, Tolerance(Measure.ABSOLUTE, 0.5), level=0.01, rng=np.random.default_rng(2)) for _ in range(2)]
    written = [json.dumps(one.to_dict(), allow_nan=False) for one in found]
    assert written[0] == written[1]
    assert json.loads(written[0])["noise"] is None


def test_holm_level() -> None:
    assert holm_level([0.2], 0.05) == 0.05
    assert holm_level([0.2, 0.3, 0.4], 0.06) == pytest.approx(0.02)  # none
    assert holm_level([0.4, 0.001, 0.03], 0.06) == pytest.approx(0.06)  # 0.02 and 0.03 are passed, 0.06 is not
    assert holm_level([0.06, 0.001, 0.03], 0.06) == pytest.approx(0.06)  # all


def test_claims_of_a_family_are_right_together() -> None:
    """Six independent p-values, three of true hypotheses: how often is one of these rejected?"""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(4000):
        true, false = rng.uniform(size=3), rng.beta(0.3, 8.0, size=3)
        wrong += bool((true <= holm_level([*true, *false], 0.05)).any())
    assert not_above(wrong, 4000, 0.05)
    assert wrong > 0.02 * 4000  # and the rate is made use of


@pytest.mark.parametrize("true", [0.0, 0.3])
def test_what_goes_with_a_control_is_no_noise(true: float) -> None:
    """A number that follows a control of known mean: decided from a fraction of the data, and not more often wrongly."""
    tolerance, repeats = Tolerance(Measure.ABSOLUTE, 0.3), 100

    def verdicts(*, known: bool) -> Counter[Outcome]:
        rng = np.random.default_rng(11)
        found: Counter[Outcome] = Counter()
        for _ in range(repeats):
            controls = ar1(rng, 400), ar1(rng, 1600)
            one, other = (2.0 * c + 0.5 * ar1(rng, len(c)) for c in controls)
            evidence = weigh(number(one), number(other + true), tolerance, rng=rng, controls=controls if known else None)
            found[evidence.decide(0.05, 0.05).outcome] += 1
        return found

    blind, informed = verdicts(known=False), verdicts(known=True)
    if true == 0.0:
        assert informed[Outcome.EQUIVALENT] > 0.9 * repeats > 0.3 * repeats > blind[Outcome.EQUIVALENT]
        assert not informed[Outcome.DIFFERENT]
    else:
        assert not_above(informed[Outcome.EQUIVALENT], repeats, 0.05)
        assert not_above(informed[Outcome.DIFFERENT], repeats, 0.05)


@pytest.mark.parametrize("count", [1, 5])
def test_controls_that_say_nothing_cost_little(count: int) -> None:
    rng = np.random.default_rng(12)
    sizes = []
    for _ in range(50):
        one, other = number(ar1(rng, 1000, 5)), number(ar1(rng, 4000, 5))
        controls = ar1(rng, 1000, count), ar1(rng, 4000, count)
        with_it, without = (weigh(one, other, Tolerance(Measure.ABSOLUTE, 1.0), rng=rng, controls=c) for c in (controls, None))
        sizes.append(with_it.measured.noise / without.measured.noise)
    assert np.mean(sizes) == pytest.approx(1.0, abs=0.05 * count**0.5)
