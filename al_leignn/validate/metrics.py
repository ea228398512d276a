"""Errors of predictions against labels that were never trained on."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from scipy.stats import t as student_t

from al_leignn.core import Labels
from al_leignn.shapes import Float, Int


@dataclass(frozen=True)
class Metrics:
    """Errors over a set of frames. Forces are per Cartesian component, energies per atom."""

    n_frames: int
    n_atoms: int
    energy_mae: float
    """eV/atom."""
    energy_rmse: float
    """eV/atom."""
    force_mae: float
    """eV/Å."""
    force_rmse: float
    """eV/Å."""
    force_mae_low: float | None
    """Lower end of the 95 % interval over frames; None for a single frame."""
    force_mae_high: float | None
    force_rms: float
    """Root mean square of the reference force components, eV/Å: what the errors are to be measured against."""
    force_mae_by_element: dict[str, float]
    """eV/Å, by chemical symbol."""
    stress_mae: float | None
    """eV/Å^3, per Voigt component; None where no frame has both a predicted and a reference stress."""
    n_stress: int
    """Frames with a stress on both sides."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe: numbers that are not finite become null."""
        return {
            key: {k: _finite(v) for k, v in value.items()} if isinstance(value, dict) else _finite(value)
            for key, value in asdict(self).items()
        }


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def errors(
    predictions: Sequence[Labels],
    references: Sequence[Labels],
    numbers: Sequence[Int[np.ndarray, " _"]],
) -> Metrics:
    """Compare predictions with reference labels, frame by frame.

    Parameters
    ----------
    predictions
        For a committee, the means of its members.
    references
        Labels of the same frames in the same order.
    numbers
        Atomic numbers of each frame.

    Raises
    ------
    ValueError
        If there is no frame or the three sequences do not match.
    """
    if not len(predictions) == len(references) == len(numbers) > 0:
        raise ValueError(f"{len(predictions)} predictions, {len(references)} references, {len(numbers)} frames")
    sizes = np.array([len(z) for z in numbers])
    energy = np.array([p.energy - r.energy for p, r in zip(predictions, references, strict=True)]) / sizes
    per_frame = [np.asarray(p.forces, float) - r.forces for p, r in zip(predictions, references, strict=True)]
    force = np.concatenate(per_frame)
    stress = [
        p.stress - r.stress for p, r in zip(predictions, references, strict=True) if p.stress is not None and r.stress is not None
    ]
    low, high = _interval(np.array([np.abs(f).sum() for f in per_frame]), 3 * sizes)
    elements = np.concatenate(numbers)
    return Metrics(
        n_frames=len(sizes),
        n_atoms=int(sizes.sum()),
        energy_mae=_mae(energy),
        energy_rmse=_rms(energy),
        force_mae=_mae(force),
        force_rmse=_rms(force),
        force_mae_low=low,
        force_mae_high=high,
        force_rms=_rms(np.concatenate([r.forces for r in references])),
        force_mae_by_element={chemical_symbols[z]: _mae(force[elements == z]) for z in sorted(set(elements.tolist()))},
        stress_mae=_mae(np.array(stress)) if stress else None,
        n_stress=len(stress),
    )


def _mae(x: Float[np.ndarray, "..."]) -> float:
    return float(np.abs(x).mean())


def _rms(x: Float[np.ndarray, "..."]) -> float:
    return float(np.sqrt(np.square(x).mean()))


def _interval(sums: Float[np.ndarray, " n"], weights: Int[np.ndarray, " n"]) -> tuple[float | None, float | None]:
    """95 % interval of sum(sums) / sum(weights), by Student's t on the linearised ratio.

    Cochran, Sampling Techniques, section 6.4. Frames are the units, because the atoms of a frame are correlated. For the
    handful of fresh frames of one iteration this covers better than the percentile bootstrap, and it needs no random numbers.
    """
    n = len(sums)
    if n < 2:
        return None, None
    ratio = sums.sum() / weights.sum()
    error = math.sqrt(n / (n - 1) * float(np.square(sums - ratio * weights).sum())) / weights.sum()
    half = float(student_t.ppf(0.975, n - 1)) * error
    return float(max(ratio - half, 0.0)), float(ratio + half)
