"""Are two simulations equivalent in one observable? An answer with an error rate: yes, no, or so much more data is needed.

"No significant difference" is no evidence of equality: bad data always pass. Here both claims must be earned. *Equivalent*
means that a difference as large as the tolerance is rejected; *different*, that one as small as the tolerance is.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from al_leignn.shapes import Float
from al_leignn.validate.statistics import MIN_BLOCKS, Blocks, controlled, unexplained

DRAWS = 5_000
"""Resampled differences behind each p-value."""

POWER = 0.8
"""Chance of a decision that the advice on how much more data is needed aims at."""

CHEAP = 10.0
"""More MD alone is asked for unless it must grow this many times more than if AIMD grew with it."""

MOST_MORE = 100.0
"""Times the present length; advice ends here."""


Errors = tuple[Float[np.ndarray, "draws bins"], Float[np.ndarray, "draws bins"]]
"""Of the means of reference and MD."""


class Measure(StrEnum):
    """How a difference between two means f and g is measured."""

    OVERLAP = "overlap"
    """Σ|f - g| / (Σ|f| + Σ|g|): the share of two distributions that is in different places, from 0 to 1."""
    RELATIVE = "relative"
    """Σ|f - g| / Σ|f|, f the reference."""
    ABSOLUTE = "absolute"
    """Mean |f - g| of the bins, in the unit of the observable."""


@dataclass(frozen=True)
class Tolerance:
    """Differences below it do not matter to the user."""

    measure: Measure
    value: float
    floor: float = 0.0
    """With `RELATIVE`: differences (mean over bins, in the unit of the observable) below it do not matter either."""


class Observable(NamedTuple):
    """A quantity of one trajectory: the mean over time of a series of numbers or functions."""

    name: str
    """What and of what: "g(r) O-H"."""
    kind: str
    """What tolerances go by: "rdf"."""
    series: Float[np.ndarray, "samples bins"]
    interval_ps: float
    """Between samples."""
    unit: str
    grid: Float[np.ndarray, " bins"]
    """Where the function is sampled; one zero for a number."""
    axis: str = ""
    """What the grid is, with its unit; empty for a number."""


class Outcome(StrEnum):
    EQUIVALENT = "equivalent"
    DIFFERENT = "different"
    UNDECIDED = "undecided"


class Need(NamedTuple):
    """What would probably decide."""

    ps: float
    of: str
    """"AIMD" (with as much more MD, relative to what there is) or "MD" alone."""


@dataclass(frozen=True)
class Curve:
    """A mean function or number, with its standard error (not a number where there is too little data)."""

    mean: Float[np.ndarray, " bins"]
    error: Float[np.ndarray, " bins"]
    length_ps: float
    blocks: int


@dataclass(frozen=True)
class Comparison:
    """One observable in two simulations."""

    name: str
    kind: str
    unit: str
    axis: str
    grid: Float[np.ndarray, " bins"]
    reference: Curve
    md: Curve
    measure: Measure
    difference: float
    """In the measure; noise adds to it."""
    noise: float
    """What noise alone would give, on average."""
    tolerance: float
    """In the measure."""
    p_equivalent: float
    """Of a difference this small, were the true one as large as the tolerance."""
    p_different: float
    """Of a difference this large, were the true one as small as the tolerance."""
    outcome: Outcome
    need: Need | None

    @property
    def verdict(self) -> str:
        """`equivalent`, `different` or `undecided: needs N ps more …`."""
        if self.need is None:
            return self.outcome.value
        return f"{self.outcome.value}: needs {_rounded(self.need.ps)} ps more {self.need.of}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: numbers that are not finite become null."""
        curves = {
            name: {
                "mean": _json(curve.mean),
                "standard_error": _json(curve.error),
                "length_ps": curve.length_ps,
                "blocks": curve.blocks,
            }
            for name, curve in (("reference", self.reference), ("md", self.md))
        }
        return {
            "name": self.name,
            "kind": self.kind,
            "verdict": self.verdict,
            "outcome": self.outcome.value,
            "need": None if self.need is None else self.need._asdict(),
            "measure": self.measure.value,
            "difference": _json(np.array([self.difference]))[0],
            "noise": _json(np.array([self.noise]))[0],
            "tolerance": self.tolerance,
            "p_equivalent": self.p_equivalent,
            "p_different": self.p_different,
            "unit": self.unit,
            "axis": self.axis,
            "grid": self.grid.tolist() if self.axis else None,
            **curves,
        }


@dataclass(frozen=True)
class Evidence:
    """What one observable of two simulations says, before the levels are known at which claims are made."""

    measured: Comparison
    """Undecided as yet."""
    found: "_Found"
    missing: Need | None
    """What there must be more of before anything is decided."""
    noise: "_Noise | None"
    """None where something is missing."""

    @property
    def p_equivalent(self) -> float:
        return self.measured.p_equivalent

    @property
    def p_different(self) -> float:
        return self.measured.p_different

    def decide(self, equivalent: float, different: float) -> Comparison:
        """The verdict: each of the two claims, if wrong, is made with this probability at most."""
        if self.noise is None:
            return replace(self.measured, need=self.missing)
        if self.p_equivalent <= equivalent:
            return replace(self.measured, outcome=Outcome.EQUIVALENT)
        if self.p_different <= different:
            return replace(self.measured, outcome=Outcome.DIFFERENT)
        return replace(self.measured, need=self.found.need_for_power(self.noise, equivalent, different))


def weigh(
    reference: Observable,
    md: Observable,
    tolerance: Tolerance,
    *,
    rng: np.random.Generator,
    memories_ps: tuple[float, float] = (0.0, 0.0),
    controls: tuple[Float[np.ndarray, "n controls"], Float[np.ndarray, "m controls"]] | None = None,
) -> Evidence:
    """p-values of the two claims about one observable.

    Both tests resample the difference of the two means under the constraint that the true difference is exactly the
    tolerance: it points where the measured one points, and noise is added to it as the blocks of either trajectory show it
    (Dette, Möllenhoff, Volgushev and Bretz, J. Am. Stat. Assoc. 113, 711 (2018)). For a number, these are two one-sided
    tests (Schuirmann, J. Pharmacokinet. Biopharm. 15, 657 (1987)).

    Noise that may be as large as the tolerance never passes for equivalence, not even where the measured difference happens to
    be small. With fewer than `MIN_BLOCKS` blocks in either series, nothing can be claimed.

    Parameters
    ----------
    memories_ps
        Of reference and MD: time that one independent sample takes at the least.
    controls
        Of reference and MD, over the same times: numbers with the same expectation in both. What goes with them is left out
        of difference and noise (`statistics.controlled`).
    """
    series = reference.series, md.series
    rest = series if controls is None else unexplained(series, controls)
    blocks = (
        Blocks.of(series[0], memories_ps[0] / reference.interval_ps, like=rest[0]),
        Blocks.of(series[1], memories_ps[1] / md.interval_ps, like=rest[1]),
    )
    means = reference.series.mean(axis=0), md.series.mean(axis=0)
    if controls is not None and all(part.enough for part in blocks):
        raw, blocks = blocks, controlled(blocks, controls)
        shifts = [new.means.mean(axis=0) - old.means.mean(axis=0) for new, old in zip(blocks, raw, strict=True)]
        means = means[0] + shifts[0], means[1] + shifts[1]
    difference = means[1] - means[0]
    unit = _unit(means, tolerance)
    limit = max(tolerance.value * unit, tolerance.floor * len(difference))
    lengths = len(reference.series) * reference.interval_ps, len(md.series) * md.interval_ps
    found = _Found(float(np.abs(difference).sum()), limit, lengths)
    missing = found.need_for_blocks(blocks)
    noise, p_equivalent, p_different = None, 1.0, 1.0
    if missing is None:
        errors = blocks[0].resample(DRAWS, rng), blocks[1].resample(DRAWS, rng)
        noise = _Noise.of(errors, np.sign(difference))
        p_equivalent, p_different = _p_values(difference, errors[1] - errors[0], limit)
        p_equivalent = max(p_equivalent, float(np.mean(noise.sizes >= limit)))
    curves = [
        Curve(mean, part.error(), length, len(part.means)) for mean, part, length in zip(means, blocks, lengths, strict=True)
    ]
    measured = Comparison(
        name=reference.name,
        kind=reference.kind,
        unit=reference.unit,
        axis=reference.axis,
        grid=reference.grid,
        reference=curves[0],
        md=curves[1],
        measure=tolerance.measure,
        difference=found.distance / unit,
        noise=math.nan if noise is None else float(noise.sizes.mean()) / unit,
        tolerance=limit / unit,
        p_equivalent=p_equivalent,
        p_different=p_different,
        outcome=Outcome.UNDECIDED,
        need=None,
    )
    return Evidence(measured, found, missing, noise)


def holm_level(p_values: Iterable[float], rate: float) -> float:
    """The level at which several claims may be made so that all are right but for this rate of error.

    Holm's procedure (Scand. J. Stat. 6, 65 (1979)), whatever the claims have to do with each other: the smallest of m p-values
    must be below rate / m, the next one below rate / (m - 1), and so on to the first that is not. All that are below the last
    bound are the claims that may be made.
    """
    ordered = sorted(p_values)
    left = next((len(ordered) - n for n, p in enumerate(ordered) if p > rate / (len(ordered) - n)), 1)
    return rate / left


def _unit(means: tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]], tolerance: Tolerance) -> float:
    """Sum of absolute differences that counts as 1 in the measure."""
    match tolerance.measure:
        case Measure.OVERLAP:
            size = float(np.abs(means[0]).sum() + np.abs(means[1]).sum())
        case Measure.RELATIVE:
            size = float(np.abs(means[0]).sum())
        case Measure.ABSOLUTE:
            size = float(len(means[0]))
    return size or 1.0


class _Noise(NamedTuple):
    """What the resampled errors of the means come to."""

    sizes: Float[np.ndarray, " draws"]
    """Of their difference."""
    of_each: tuple[float, float]
    """Mean size for reference and MD alone."""
    along: tuple[float, float]
    """Scatter for reference and MD along the measured difference."""

    @classmethod
    def of(cls, errors: Errors, signs: Float[np.ndarray, " bins"]) -> "_Noise":
        one, other = (float(np.abs(e).sum(axis=1).mean()) for e in errors)
        this, that = (float(np.std(e @ signs)) for e in errors)
        return cls(np.abs(errors[1] - errors[0]).sum(axis=1), (one, other), (this, that))


def _p_values(
    difference: Float[np.ndarray, " bins"], errors: Float[np.ndarray, "draws bins"], limit: float
) -> tuple[float, float]:
    """p-values of both claims; 1 for the one that the measured difference speaks against."""
    distance = float(np.abs(difference).sum())
    direction = difference / distance if distance > 0 else np.full(len(difference), 1.0 / len(difference))
    resampled = np.abs(limit * direction + errors).sum(axis=1)
    # A hair's breadth, lest numbers without any scatter be decided by rounding.
    hair = 1e-9 * (limit + distance)
    if distance < limit:
        return float(np.mean(resampled <= distance + hair)), 1.0
    return 1.0, float(np.mean(resampled >= distance - hair))


class _Found(NamedTuple):
    """What the advice on more data starts from."""

    distance: float
    limit: float
    lengths: tuple[float, float]
    """Of reference and MD, ps."""

    def need_for_blocks(self, blocks: tuple[Blocks, Blocks]) -> Need | None:
        """How much longer until there are blocks enough; none if there are."""
        for part, length, of in zip(blocks, self.lengths, ("AIMD", "MD"), strict=True):
            if not part.enough:
                # A series shorter than a block hides how slow it is: it is then asked for at least as much again.
                block = max(length / len(part.means), length / MIN_BLOCKS)
                return Need(max(MIN_BLOCKS * block - length, block), of)
        return None

    def need_for_power(self, noise: _Noise, equivalent: float, different: float) -> Need:
        """How much longer until the nearer claim would probably be made at its level.

        The true difference is taken for what is measured less the noise, but for clearer than half or twice the tolerance:
        how close it comes to the tolerance is what nobody knows yet. MD is cheap: it is asked for alone if not too
        much of it is enough (`CHEAP`).
        """
        size, scatter = noise.of_each, noise.along
        true = math.sqrt(max(0.0, self.distance**2 - size[0] ** 2 - size[1] ** 2))
        alike = true < self.limit
        true = min(true, self.limit / 2) if alike else max(true, 2 * self.limit)
        level = equivalent if alike else different
        loudness = float(np.quantile(noise.sizes, 1 - level)) / (float(noise.sizes.mean()) or 1.0)
        margin = NormalDist().inv_cdf(1 - level) + NormalDist().inv_cdf(POWER)

        def decides(reference: float, md: float) -> bool:
            remaining = size[0] ** 2 / reference + size[1] ** 2 / md
            spread = math.sqrt(scatter[0] ** 2 / reference + scatter[1] ** 2 / md)
            apart = abs(math.sqrt(true**2 + remaining) - math.sqrt(self.limit**2 + remaining))
            return apart >= margin * spread and (not alike or loudness * math.sqrt(remaining) < self.limit)

        times = np.geomspace(1.1, MOST_MORE, 100).tolist()
        both = next((more for more in times if decides(more, more)), MOST_MORE)
        alone = next((more for more in times if decides(1.0, more)), math.inf)
        if alone <= CHEAP * both:
            return Need((alone - 1) * self.lengths[1], "MD")
        return Need((both - 1) * self.lengths[0], "AIMD")


def _rounded(ps: float) -> str:
    """Two digits, rounded up: advice, not a measurement."""
    digits = 1 - math.floor(math.log10(ps)) if ps > 0 else 0
    return f"{math.ceil(ps * 10**digits) / 10**digits:g}"


def _json(values: Float[np.ndarray, " n"]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]
