"""What stored deviations and calibrations say: of a frame, of a walk, of an iteration."""

from typing import Any

import numpy as np

from al_leignn.deviation import relative
from al_leignn.quantities import WORST_ATOM
from al_leignn.shapes import Float, Int


def judged_deviations(samples: dict[str, Any], force_scale: float | None) -> Float[np.ndarray, " frames"]:
    """What is compared with the trust levels: each frame's model deviation, or under the relative criterion its largest value."""
    if force_scale is None or not len(samples["atoms"]):
        return np.asarray(samples["max_deviation"])
    return np.asarray(np.maximum.reduceat(_judged(samples, force_scale), np.cumsum(samples["atoms"]) - samples["atoms"]))


def judged_atoms(samples: dict[str, Any], force_scale: float | None) -> Int[np.ndarray, " frames"]:
    """Index of the atom of each frame that `judged_deviations` comes from."""
    parts = np.split(_judged(samples, force_scale), np.cumsum(samples["atoms"]))[:-1]
    return np.array([np.argmax(part) for part in parts], dtype=int)


def _judged(samples: dict[str, Any], force_scale: float | None) -> Float[np.ndarray, " atoms"]:
    """Deviation of every atom of all frames, in the terms of the criterion."""
    return relative(samples["per_atom"].astype(float), samples["mean_force"].astype(float), force_scale)


def deviation_summary(
    deviations: Float[np.ndarray, " n"], trust: dict[str, float] | None, calibration: dict[str, Any] | None
) -> dict[str, Any]:
    """Quantiles, calibrated bound and verdict shares of some deviations; JSON-safe: None where there is no number."""
    lo, hi = (None, None) if trust is None else (trust["lo"], trust["hi"])
    row: dict[str, Any] = dict.fromkeys(("median", "q90", "max", "bound_90", "accurate", "candidate", "failed"))
    row = {"frames": len(deviations)} | row | {"trust_lo": lo, "trust_hi": hi}
    finite = deviations[np.isfinite(deviations)]
    if len(finite):
        row |= zip(("median", "q90", "max"), np.quantile(finite, (0.5, 0.9, 1.0)).tolist(), strict=True)
        if calibration is not None and calibration["factor"] is not None:
            row["bound_90"] = calibration["factor"] * max(row["q90"], calibration["floor"])
    if len(deviations) and trust is not None:
        row["accurate"] = float(np.mean(deviations < lo))
        row["candidate"] = float(np.mean((deviations >= lo) & (deviations < hi)))
        row["failed"] = float(np.mean(~(deviations < hi)))  # NaN included
    return row


def uncertainty_table(validation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """unit, calibration and coverage by quantity, the worst atom of a frame first, from the results of a validation."""
    if not validation.get("calibration"):
        return {}
    worst = {"unit": "eV/Å", "calibration": validation["calibration"], "coverage": validation["coverage"]}
    return {WORST_ATOM: worst, **validation.get("quantities", {})}
