"""From disagreement to error: a split-conformal factor that turns a deviation into a bound on the true error.

The scores ``error / deviation`` of n labels that no member was trained on are sorted; the k-th smallest,
``k = ceil((n + 1) * nominal)``, is the factor. For a further label of the same kind (exchangeable with the n), the
chance that its error stays below ``factor * deviation`` is then at least `nominal`, whatever the distribution
(Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World, 2005; Lei et al., JASA 113, 1094, 2018). Frames of a
newer, hotter or longer MD are not exchangeable with the old ones: there coverage is measured, never promised.

One factor belongs to one quantity (force of an atom, largest force error of a frame, energy per atom) and, where data
allow, one element: see `quantities`. Atoms of one frame are no independent labels; the frames are what is exchangeable. With
one atom drawn at random from each of n frames, the rule above holds for an atom drawn from a further frame (Dunn,
Wasserman & Ramdas, arXiv:1809.07441). Rather than one draw, which would be left to chance, all of them decide: the factor is
their median. It is the rule above where the scores of a frame are alike, and covers up to 3 % more where they are independent.
"""

import math
from bisect import bisect_left
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from al_leignn.config import SelectConfig
from al_leignn.core import CommitteePrediction, Labels
from al_leignn.shapes import Float, Int

FORCE_FLOOR = 1e-4
"""Deviations of forces below this (eV/Å) are numerical noise and count as this."""

ENERGY_FLOOR = 1e-6
"""The same for energies per atom, eV/atom."""

ALARM = 0.025
"""Chance of a false drift alarm, at most, when nothing has drifted."""

PRIOR_FACTOR = 1.5
"""Used before there is a valid calibration. Committees are overconfident as a rule (Kahle & Zipoli, Phys. Rev. E 105,
015311, 2022), so their spread may not be taken at its word; the first calibration replaces this guess."""

FACTOR_LIMITS = (0.5, 10.0)
"""Trust levels use factors within these only: a tiny factor from old, easy labels must not wave everything through, and
a huge one means that the deviation says nothing about the error, where a trust level near zero would not help."""

NORM_PER_COMPONENT = 2.0
"""Mean norm of a force error over its mean absolute component, for isotropic Gaussian errors of width s:
s * sqrt(8 / pi) over s * sqrt(2 / pi)."""

WORST_PER_MEAN = 2.0
"""Worst atom's error norm over the mean norm, for 10 to 100 Gaussian atoms (1.7 to 2.2)."""

FAILED_PER_ACCURATE = 5.0
"""trust_hi over trust_lo: five times the wanted error is as far as a label still teaches the neighbourhood of the MD."""

FAILED_PER_TYPICAL = 3.0
"""trust_hi over the median deviation of the labels calibrated on, at least. A young committee deviates by more than five times
the wanted error on every frame of a healthy MD; without this, its walkers would stop at their first steps."""


@dataclass(frozen=True)
class FrameErrors:
    """True errors of the committee mean on one labelled frame, matched with `Deviation`."""

    per_atom: Float[np.ndarray, " n_atoms"]
    """Norm of the error of the force vector, eV/Å."""
    energy: float
    """Absolute error of the energy per atom, eV/atom."""

    @property
    def max(self) -> float:
        """Largest per-atom force error, eV/Å: what the frame's model deviation should bound."""
        return float(self.per_atom.max())


def frame_errors(prediction: CommitteePrediction, reference: Labels) -> FrameErrors:
    """Errors of the committee mean against the reference labels of the same frame."""
    mean = prediction.mean()
    forces = np.asarray(mean.forces, dtype=np.float64) - reference.forces
    return FrameErrors(
        per_atom=np.linalg.norm(forces, axis=-1),
        energy=abs(mean.energy - reference.energy) / len(reference.forces),
    )


@dataclass(frozen=True)
class Calibration:
    """``factor * deviation`` bounds the error of a share `nominal` of exchangeable labels."""

    factor: float
    """Dimensionless; infinite without labels and where a prediction was NaN."""
    nominal: float
    n: int
    """Labelled frames it rests on."""
    floor: float
    """Deviations below this count as this (units of the deviation)."""
    blind: int
    """Frames (of atoms: shares of frames, added) whose deviation lay on the floor although their error did not: identical
    members look like this."""
    typical: float = 0.0
    """Median of the deviations (0: not known)."""

    @property
    def degenerate(self) -> bool:
        """More labels are blind than the bound may miss: the factor measures the floor, not the committee."""
        return self.blind > (1 - self.nominal) * self.n

    @property
    def valid(self) -> bool:
        """The guarantee holds: enough labels, a finite factor, a committee whose members differ."""
        return self.n >= labels_needed(self.nominal) and math.isfinite(self.factor) and not self.degenerate

    def bound(self, deviations: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Upper bound on the error for each deviation, in the unit of the deviation."""
        return np.asarray(self.factor * np.maximum(deviations, self.floor))

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe; an infinite factor becomes null."""
        factor = self.factor if math.isfinite(self.factor) else None
        return {
            "factor": factor,
            "nominal": self.nominal,
            "n": self.n,
            "floor": self.floor,
            "blind": self.blind,
            "typical": self.typical,
            "valid": self.valid,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        factor = math.inf if value["factor"] is None else float(value["factor"])
        typical = float(value.get("typical", 0.0))  # manifests of earlier versions do not have it
        return cls(factor, float(value["nominal"]), int(value["n"]), float(value["floor"]), int(value["blind"]), typical)


def labels_needed(nominal: float) -> int:
    """Fewest labels for which the guarantee can hold: nominal / (1 - nominal), 9 for 90 %."""
    return math.ceil(nominal / (1 - nominal) - 1e-9)


def _rank(n: int, nominal: float) -> int:
    # Rounding of the product must not push an exact 9.0 to 10.
    return min(math.ceil((n + 1) * nominal - 1e-9), n)


def calibrate(
    errors: Float[np.ndarray, " n"],
    deviations: Float[np.ndarray, " n"],
    nominal: float = 0.9,
    floor: float = FORCE_FLOOR,
    frame: Int[np.ndarray, " n"] | None = None,
) -> Calibration:
    """Split-conformal factor from labels that were never trained on.

    With fewer frames than `labels_needed(nominal)` the largest score (of one a frame) is taken and the result is not `valid`;
    without any the factor is infinite. NaN in either array counts as an error that no bound covers.

    Parameters
    ----------
    frame
        The frame that each entry belongs to, as any whole number; None: each is a frame of its own.

    Raises
    ------
    ValueError
        If the nominal coverage is outside (0, 1).
    """
    if not 0 < nominal < 1:
        raise ValueError(f"nominal coverage must lie between 0 and 1, not {nominal}")
    if len(errors) == 0:
        return Calibration(factor=math.inf, nominal=nominal, n=0, floor=floor, blind=0)
    which, sizes = _frames(len(errors), frame)
    scores = np.nan_to_num(errors / np.maximum(deviations, floor), nan=np.inf)
    rank = _rank(len(sizes), nominal)
    ordered = np.sort(scores)

    def likely(factor: float) -> bool:
        """Whether one score of each frame, drawn at random, makes a factor no larger than this at even odds or better."""
        below = np.bincount(which, weights=scores <= factor) / sizes
        return _at_least(rank, below) >= 0.5 - 1e-9

    factor = ordered[rank - 1] if len(sizes) == len(scores) else ordered[bisect_left(ordered, True, key=likely)]
    share = np.bincount(which, weights=(deviations <= floor) & ~(errors <= floor)) / sizes
    finite = deviations[np.isfinite(deviations)]
    typical = float(np.median(finite)) if len(finite) else 0.0
    return Calibration(float(factor), nominal, len(sizes), floor, round(float(share.sum())), typical)


def _frames(count: int, frame: Int[np.ndarray, " n"] | None) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " frames"]]:
    """Number of the frame of each entry, counted from 0, and how many entries each has."""
    _, which, sizes = np.unique(np.arange(count) if frame is None else frame, return_inverse=True, return_counts=True)
    return which, sizes


def _at_least(k: int, chances: Float[np.ndarray, " n"]) -> float:
    """Chance that k or more of n independent events happen (Poisson's binomial distribution)."""
    happened = np.ones(1)
    for chance in chances:
        happened = np.convolve(happened, (1 - chance, chance))
    return float(happened[k:].sum())


@dataclass(frozen=True)
class Coverage:
    """How many of `n` later labels the bound of an earlier calibration covered."""

    covered: int
    n: int
    frames: int
    """Labelled frames that the n belong to."""
    share: float
    """Covered share, every frame weighing the same: what the calibration promises. ``covered / n`` where each is a frame of
    its own or frames are equally large."""
    low: float
    high: float
    """95 % Clopper-Pearson limits of the covered share."""
    drift: bool
    """Fewer were covered than chance explains: the labels are no longer of the kind that was calibrated on."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def coverage(
    calibration: Calibration,
    errors: Float[np.ndarray, " n"],
    deviations: Float[np.ndarray, " n"],
    frame: Int[np.ndarray, " n"] | None = None,
) -> Coverage:
    """Check a calibration on labels that it has not seen.

    Atoms of one frame tend to be covered together, so the limits are those of as many independent labels as have the same
    variance (Korn & Graubard, Survey Methodology 24, 193, 1998).

    The drift alarm allows for the scatter of the calibration set as well as of the check: without drift the number
    covered is beta-binomial, with the rank k of the factor and n + 1 - k as parameters (Vovk, JMLR W&CP 25, 475, 2012),
    so the alarm is false in at most 2.5 % of the checks however few labels there were.

    Parameters
    ----------
    frame
        The frame that each entry belongs to, as any whole number; None: each is a frame of its own.

    Raises
    ------
    ValueError
        Without labels to check on.
    """
    from scipy.stats import beta, betabinom  # half a second, which commands that only look need not spend

    n = len(errors)
    if n == 0:
        raise ValueError("coverage needs at least one label")
    inside = errors <= calibration.bound(deviations)
    which, sizes = _frames(n, frame)
    of_frame = np.bincount(which, weights=inside) / sizes
    share, covered = float(of_frame.mean()), int(inside.sum())
    independent = _independent(of_frame, n)
    hits = independent * share
    low = 0.0 if covered == 0 else float(beta.ppf(0.025, hits, independent - hits + 1))
    high = 1.0 if covered == n else float(beta.ppf(0.975, hits + 1, independent - hits))
    rank = _rank(calibration.n, calibration.nominal)
    # An empty calibration promised nothing.
    chance = 1.0 if rank == 0 else float(betabinom.cdf(round(hits), round(independent), rank, calibration.n + 1 - rank))
    return Coverage(covered, n, len(sizes), share, low, high, drift=chance < ALARM)


def _independent(of_frame: Float[np.ndarray, " frames"], n: int) -> float:
    """Number of independent labels whose covered share would scatter as much as the mean share of these frames.

    Lowered by the squared ratio of Student quantiles, since the scatter is estimated from few frames. At most the number n of
    atoms; that of frames where all or none are covered, which tells nothing of the scatter.
    """
    from scipy.stats import t as student_t

    frames, share = len(of_frame), of_frame.mean()
    binomial = share * (1 - share)
    if frames < 2 or binomial == 0 or frames == n:
        return float(frames)
    variance = of_frame.var(ddof=1) / frames
    few = (student_t.ppf(0.975, n - 1) / student_t.ppf(0.975, frames - 1)) ** 2
    return float(min(few * binomial / variance, n)) if variance > 0 else float(frames)


def trust_levels(calibration: Calibration | None, config: SelectConfig, target_force_error: float) -> tuple[float, float]:
    """trust_lo and trust_hi as model deviations, eV/Å.

    A frame counts as known while the bound on its worst atom stays below what the wanted accuracy implies for a worst
    atom: ``trust_lo * factor = NORM_PER_COMPONENT * WORST_PER_MEAN * target``, the target being a mean absolute error per
    component; ``trust_hi = max(FAILED_PER_ACCURATE * trust_lo, FAILED_PER_TYPICAL * typical)``. Levels fixed by the user win,
    and an automatic one beside a fixed one follows it.

    Parameters
    ----------
    calibration
        Of frame maxima (`Deviation.max` against `FrameErrors.max`). Without a valid one `PRIOR_FACTOR` is used, or the
        factor from too few labels where that is more cautious.
    target_force_error
        Wanted force MAE per component, eV/Å.
    """
    factor = PRIOR_FACTOR
    if calibration is not None and calibration.valid:
        factor = calibration.factor
    elif calibration is not None and calibration.n > 0 and not calibration.degenerate:
        factor = max(PRIOR_FACTOR, calibration.factor)
    auto = NORM_PER_COMPONENT * WORST_PER_MEAN * target_force_error / float(np.clip(factor, *FACTOR_LIMITS))
    if not isinstance(config.trust_lo, str):
        lo = config.trust_lo
    else:
        lo = auto if isinstance(config.trust_hi, str) else min(auto, config.trust_hi / FAILED_PER_ACCURATE)
    if not isinstance(config.trust_hi, str):
        return lo, config.trust_hi
    typical = 0.0 if calibration is None else calibration.typical
    return lo, max(FAILED_PER_ACCURATE * lo, FAILED_PER_TYPICAL * typical)
