"""Uncertainty of means over correlated samples: autocorrelation, blocks, resampling of blocks.

Every observable here is the mean over time of a series of vectors (histograms, spectra, numbers), so that one set of
estimators serves them all.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from al_leignn.shapes import Float

BLOCK = 2.5
"""Length of a block in statistical inefficiencies: what means of neighbouring blocks have in common can then be corrected."""

MIN_BLOCKS = 12
"""Fewer say too little of their own scatter."""

MOST_BLOCKS = 64
"""More would say little more; the blocks are made longer instead."""

WINDOW = 5.0
"""The sum over autocorrelations ends after this many correlation times (Sokal's rule)."""

GAIN = 3.0
"""Independent samples more by leaving out the start that are no accident."""

MODES = 3
"""Principal components of a series whose own correlation times are looked at."""


def inefficiency(series: Float[np.ndarray, "samples bins"]) -> float:
    """Statistical inefficiency g = 1 + 2 Σ ρ(t): as many successive samples are worth one independent sample.

    The largest of the values for all bins together (weighted by variance) and for each of the leading principal components,
    since one slow mode is easily lost among many noisy bins. The sum is cut by Sokal's automatic window (A. D. Sokal, in
    Functional Integration, Plenum 1997, section 3). At least 1.
    """
    centred = series - series.mean(axis=0)
    n = len(centred)
    # Means of constants are rounded: what is left is no scatter.
    if n < 4 or np.abs(centred).max() <= 1e-12 * np.abs(series).max():
        return 1.0
    modes = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -MODES:]
    curves = [_autocovariance(centred).sum(axis=1), *_autocovariance(modes).T]
    return max(_inefficiency(curve / curve[0]) for curve in curves if curve[0] > 1e-12 * curves[0][0])


def cautious(g: float, samples: int) -> float:
    """An inefficiency and one standard error more (Sokal, section 3).

    Where a short series understates it, blocks would be too short and, worse, seem to be enough.
    """
    return g * (1.0 + math.sqrt(2.0 * (WINDOW * g + 1.0) / samples))


def _autocovariance(centred: Float[np.ndarray, "samples bins"]) -> Float[np.ndarray, "samples bins"]:
    n = len(centred)
    power = np.abs(np.fft.rfft(centred, n=2 * n, axis=0)) ** 2
    return np.asarray(np.fft.irfft(power, axis=0)[:n])


def _inefficiency(correlation: Float[np.ndarray, " lags"]) -> float:
    sums = 2.0 * np.cumsum(correlation) - 1.0
    lags = np.arange(len(sums))
    closed = np.flatnonzero(lags >= WINDOW * sums / 2)
    return max(1.0, float(sums[closed[0] if len(closed) else -1]))


@dataclass(frozen=True)
class Blocks:
    """Means of successive parts of a series."""

    means: Float[np.ndarray, "blocks bins"]
    samples: int
    """In a block, about."""
    inflation: float
    """Times which the scatter of the block means understates that of the mean."""

    @property
    def enough(self) -> bool:
        return len(self.means) >= MIN_BLOCKS

    @classmethod
    def of(
        cls,
        series: Float[np.ndarray, "samples bins"],
        memory: float = 0.0,
        like: Float[np.ndarray, "samples bins"] | None = None,
    ) -> "Blocks":
        """Blocks as long as the autocorrelation of the series demands, or that of one `like` it; at least one.

        `memory` is the least inefficiency that it may have, in samples: that of something slow which the series depends on, and
        may be too short or too noisy to show.

        Block means of an exponential autocorrelation scatter less than the mean of the whole would make them; by how much is
        known, and `inflation` makes it good.
        """
        g = max(cautious(inefficiency(series if like is None else like), len(series)), memory)
        samples = 1 + math.ceil(BLOCK * (g - 1.0))
        count = min(max(1, len(series) // samples), MOST_BLOCKS)
        samples = max(samples, len(series) // MOST_BLOCKS)
        means = _means(series, count)
        decay = (g - 1.0) / (g + 1.0)
        low = 1.0 - (g * g - 1.0) / (2.0 * g * samples) * (1.0 - decay**samples)
        return cls(means, samples, 1.0 / math.sqrt(low))

    def error(self) -> Float[np.ndarray, " bins"]:
        """Standard error of the mean; not a number for a single block."""
        count = len(self.means)
        if count < 2:
            return np.full(self.means.shape[1], np.nan)
        return np.asarray(self.inflation * self.means.std(axis=0, ddof=1) / math.sqrt(count))

    def resample(self, draws: int, rng: np.random.Generator) -> Float[np.ndarray, "draws bins"]:
        """Errors that the mean may have: draws from the distribution of (estimate - truth).

        A block bootstrap with normal multipliers in place of resampled blocks, divided by the chi of their number: for a
        single bin and independent normal blocks that is Student's t exactly, where the ordinary bootstrap is too narrow for
        few blocks. (Multipliers: Bücher and Kojadinovic, Bernoulli 22, 927 (2016).)
        """
        count = len(self.means)
        scatter = self.inflation * (self.means - self.means.mean(axis=0)) / math.sqrt(count * (count - 1))
        chi = np.sqrt(rng.chisquare(count - 1, size=(draws, 1)) / (count - 1))
        return np.asarray(rng.standard_normal((draws, count)) @ scatter / chi)


def equilibrated(series: Float[np.ndarray, " samples"]) -> int:
    """Samples to leave out at the start, lest a relaxation pass for a slow fluctuation; 0 where there is none to be seen.

    As many as leave the most independent samples (Chodera, J. Chem. Theory Comput. 12, 1799 (2016)), if these are more than
    `GAIN` times those of the whole series.
    """
    n = len(series)
    starts = [round(share * n) for share in np.linspace(0.0, 0.5, 21)]
    independent = [(n - start) / inefficiency(series[start:, None]) for start in starts]
    best = int(np.argmax(independent))
    return starts[best] if independent[best] > GAIN * independent[0] else 0


Both = tuple[Float[np.ndarray, "_ _"], Float[np.ndarray, "_ _"]]
"""Of reference and MD: samples or blocks, and bins or controls."""


def controlled(blocks: tuple[Blocks, Blocks], controls: Both) -> tuple[Blocks, Blocks]:
    """The same blocks without what controls explain of them: numbers that have one expectation in both simulations.

    That their means differ is noise then, and so is what goes with it. Linear functions of the controls, of the same slopes for
    both series, are fitted to the block means, and both series are brought to one value of the controls (analysis of covariance;
    control variates). Each block is also given what its noise does to the slopes, so that `resample` has the errors of the
    corrected difference.

    Parameters
    ----------
    controls
        Over the same times as the two series, in samples of their own.
    """
    parts = _means(controls[0], len(blocks[0].means)), _means(controls[1], len(blocks[1].means))
    fit = _Regression.of((blocks[0].means, blocks[1].means), parts)
    if fit is None:
        return blocks
    means = [part.mean(axis=0) for part in parts]
    middle, between = 0.5 * (means[0] + means[1]), means[1] - means[0]
    found = []
    for sign, b, mean, part, pull in zip((-1.0, 1.0), blocks, means, parts, fit.pulls, strict=True):
        mine = b.means.mean(axis=0)
        rest = b.means - mine - (part - mean) @ fit.slopes
        rest *= (1.0 - sign * len(part) * pull @ between)[:, None]
        shifted = mine - (mean - middle) @ fit.slopes + rest - rest.mean(axis=0)
        found.append(replace(b, means=shifted, inflation=b.inflation * fit.inflation))
    return found[0], found[1]


def unexplained(series: Both, controls: Both) -> Both:
    """What controls leave of the two series, sample by sample: how this is correlated says how long blocks must be."""
    counts = [min(MOST_BLOCKS, len(one) // 2, len(control) // 2) for one, control in zip(series, controls, strict=True)]
    if min(counts) < MIN_BLOCKS:
        return series
    one, other = ((_means(s, n), _means(control, n)) for s, control, n in zip(series, controls, counts, strict=True))
    fit = _Regression.of((one[0], other[0]), (one[1], other[1]))
    if fit is None:
        return series
    at = [np.arange(len(s)) * len(control) // len(s) for s, control in zip(series, controls, strict=True)]
    return series[0] - controls[0][at[0]] @ fit.slopes, series[1] - controls[1][at[1]] @ fit.slopes


def _means(series: Float[np.ndarray, "samples bins"], count: int) -> Float[np.ndarray, "blocks bins"]:
    return np.array([part.mean(axis=0) for part in np.array_split(series, count)])


class _Regression(NamedTuple):
    """Two series of block means on those of their controls, with the same slopes."""

    slopes: Float[np.ndarray, "controls bins"]
    pulls: Both
    """By how much each block mean moves the slopes."""
    inflation: float
    """Times which residuals are smaller than errors."""

    @classmethod
    def of(cls, means: Both, parts: Both) -> "_Regression | None":
        """None where no control varies, or there are too few blocks for so many."""
        scatter = [part.var(axis=0, ddof=1) for part in parts]
        telling = (scatter[0] > 0.0) & (scatter[1] > 0.0)
        freedom = sum(len(part) - 1 for part in parts)
        if not telling.any() or freedom <= len(telling) + 1:
            return None
        scale = np.where(telling, 1.0 / np.sqrt(np.where(telling, scatter[0], 1.0)), 0.0)
        # Blocks of the two series may be of different lengths: those that scatter less weigh more.
        ratio = float(np.exp(np.mean(np.log(scatter[1][telling] / scatter[0][telling]))))
        apart = [scale * (part - part.mean(axis=0)) for part in parts]
        squares = apart[0].T @ apart[0] + apart[1].T @ apart[1] / ratio
        inverse, rank = np.linalg.pinv(squares, hermitian=True), int(np.linalg.matrix_rank(squares, hermitian=True))
        pulls = apart[0] @ inverse * scale, apart[1] @ inverse * scale / ratio
        slopes = pulls[0].T @ means[0] + pulls[1].T @ means[1]
        return cls(slopes, pulls, math.sqrt(freedom / (freedom - rank)))
