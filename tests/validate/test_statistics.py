"""Error bars against processes whose error is known: AR(1) series, alone and hidden in vectors."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from al_leignn.validate.statistics import MIN_BLOCKS, MOST_BLOCKS, Blocks, equilibrated, inefficiency


def ar1(rng: np.random.Generator, n: int, decay: float, bins: int = 1) -> NDArray[np.float64]:
    """Stationary series of variance 1 with autocorrelation decay**t."""
    noise = np.sqrt(1 - decay**2) * rng.standard_normal((n, bins))
    noise[0] /= np.sqrt(1 - decay**2)
    return np.asarray(lfilter([1], [1, -decay], noise, axis=0))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_inefficiency_of_ar1(decay: float) -> None:
    rng = np.random.default_rng(0)
    found = np.mean([inefficiency(ar1(rng, 5000, decay)) for _ in range(20)])
    assert found == pytest.approx((1 + decay) / (1 - decay), rel=0.08)


def test_a_slow_mode_is_found_among_noise() -> None:
    """One slow mode in 40 bins that otherwise are white noise with ten times its variance in all."""
    rng = np.random.default_rng(1)
    shape = np.zeros(40)
    shape[7:9] = 1.0
    series = np.sqrt(0.5) * rng.standard_normal((5000, 40)) + ar1(rng, 5000, 0.9) * shape
    assert inefficiency(series) > 12  # of 19; all bins together have about 3


def test_constants_have_no_error() -> None:
    blocks = Blocks.of(np.full((100, 3), 0.7))
    assert blocks.enough
    assert np.abs(blocks.error()).max() < 1e-15
    assert np.abs(blocks.resample(10, np.random.default_rng(0))).max() < 1e-15
    assert np.isnan(Blocks.of(np.ones((3, 2))).error()).all()


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.8])
def test_error_bars_cover_the_truth(decay: float) -> None:
    """95 % intervals miss in 5 % of series that are 40 to 800 inefficiencies long, and blocks are never too many."""
    rng = np.random.default_rng(2)
    g = (1 + decay) / (1 - decay)
    missed = []
    for size in np.exp(rng.uniform(np.log(40), np.log(800), 400)):
        blocks = Blocks.of(ar1(rng, round(size * g), decay))
        assert len(blocks.means) <= MOST_BLOCKS
        if blocks.enough:
            errors = blocks.resample(1000, rng)[:, 0]
            missed.append(np.mean(np.abs(errors) >= abs(blocks.means.mean())) < 0.05)
    assert len(missed) > 350
    assert 0.02 <= np.mean(missed) <= 0.09


def test_short_series_do_not_pass_for_long_ones() -> None:
    """What is shorter than ten inefficiencies, and so looks less correlated than it is, has too few blocks."""
    rng = np.random.default_rng(3)
    enough = [Blocks.of(ar1(rng, 190, 0.9)).enough for _ in range(300)]
    assert np.mean(enough) < 0.01
    assert MIN_BLOCKS == 12


def test_resampled_errors_keep_the_correlation_of_bins() -> None:
    rng = np.random.default_rng(4)
    series = ar1(rng, 4000, 0.5) * np.array([1.0, -2.0]) + 0.01 * rng.standard_normal((4000, 2))
    errors = Blocks.of(series).resample(2000, rng)
    assert np.corrcoef(errors.T)[0, 1] < -0.99
    assert errors.std(axis=0) == pytest.approx(np.sqrt(3 / 4000) * np.array([1, 2]), rel=0.3)


@pytest.mark.parametrize("decay", [0.3, 0.95])
def test_relaxation_is_found_and_not_imagined(decay: float) -> None:
    rng = np.random.default_rng(5)
    g = (1 + decay) / (1 - decay)
    imagined, found = [], []
    for size in np.exp(rng.uniform(np.log(30), np.log(500), 200)):
        series = ar1(rng, round(size * g), decay)[:, 0]
        imagined.append(equilibrated(series) > 0)
        times = np.arange(len(series)) / len(series)
        found.append(0.1 <= equilibrated(series + 20 * np.exp(-times / 0.05)) / len(series) <= 0.5)
    assert np.mean(imagined) < 0.03
    assert np.mean(found) > 0.9
