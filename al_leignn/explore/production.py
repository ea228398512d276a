"""`al-leignn md`: one long trajectory, written as it goes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import write

from al_leignn.config import ExploreConfig
from al_leignn.errors import DataError
from al_leignn.explore.driver import Potential
from al_leignn.explore.md import Sample, Walker, run_md


def write_trajectory(
    potential: Potential,
    atoms: Atoms,
    config: ExploreConfig,
    out: Path,
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Run MD from `atoms` under `config` and append every sample to `out` (extended XYZ) as it comes.

    Each frame has the potential energy (eV), the kinetic temperature (K), the time (fs), and on every atom the committee's
    force deviation (eV/Å).

    Returns
    -------
    dict
        JSON-safe: steps done, why it stopped (empty: it did not), mean temperature (K), drift (eV/atom/ps), and the
        median and largest frame deviation (eV/Å).

    Raises
    ------
    DataError
        If `out` exists, or its folder does not.
    """
    if out.exists():
        raise DataError("the output file exists", where=str(out), fix="choose another name, or remove it yourself")
    if not out.parent.is_dir():
        raise DataError("there is no such folder", where=str(out.parent), fix="make it first, or choose another")
    deviations: list[float] = []

    def keep(sample: Sample) -> None:
        frame = sample.frame.atoms.copy()
        step = sample.frame.origin.step
        frame.info = {"energy": sample.energy, "temperature": sample.temperature, "md_step": step}
        frame.info["time_fs"] = step * config.timestep_fs
        frame.info["max_force_deviation"] = sample.deviation.max
        frame.new_array("force_deviation", np.asarray(sample.deviation.per_atom))
        write(out, frame, format="extxyz", append=True)
        deviations.append(sample.deviation.max)

    walker = Walker(index=0, atoms=atoms, temperature=config.temperatures[0], pressure=config.pressure)
    report = run_md(potential, walker, config, seed=np.random.SeedSequence(seed), on_sample=keep, progress=progress)
    return {
        "trajectory": str(out),
        "frames": len(deviations),
        "steps": report.steps_done,
        "stopped": report.stop_reason,
        "mean_temperature": report.mean_temperature,
        "energy_drift": report.energy_drift,
        "median_deviation": float(np.median(deviations)) if deviations else None,
        "max_deviation": max(deviations, default=None),
    }
