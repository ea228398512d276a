"""`al-leignn md`: one long trajectory, written as it goes."""

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from al_leignn.config import ExploreConfig
from al_leignn.core import structure_digest
from al_leignn.errors import DataError
from al_leignn.explore.batch import Settings, Walker
from al_leignn.explore.checkpoint import Checkpoint
from al_leignn.explore.driver import Potential
from al_leignn.explore.md import run_recorded
from al_leignn.explore.watchdog import Limits
from al_leignn.store import digest_json

SAMPLES_PER_CHECKPOINT = 20


def write_trajectory(
    potential: Potential,
    atoms: Atoms,
    config: ExploreConfig,
    out: Path,
    *,
    seed: int,
    progress: Callable[[int, int], None],
    resume: bool = False,
    model: str = "",
) -> dict[str, Any]:
    """Run MD from `atoms` under `config`, writing every sample to `out` (extended XYZ, also .xz or .gz) as it comes.

    Each frame has the potential energy (eV), the kinetic temperature (K), the time (fs), and on every atom the committee's
    force deviation (eV/Å). The state of the run is kept beside it, in a file named `out` + ".restart".

    Parameters
    ----------
    resume
        Go on from the state of an interrupted run, or of one that ended after fewer steps. On a CPU, frames are the same to the
        last digit as those of a run that was never interrupted.
    model
        Names the potential: a run is not resumed with another one.

    Returns
    -------
    dict
        JSON-safe: steps done, why it stopped (empty: it did not), mean temperature (K), drift (eV/atom/ps), and of the frames
        written now their number and their median and largest deviation (eV/Å).

    Raises
    ------
    DataError
        If `out` exists and is not to be resumed, cannot be, or its folder does not exist.
    """
    walker = Walker(index=0, atoms=atoms, temperature=config.temperatures[0], pressure=config.pressure)
    settings = Settings(config, 0, Limits())
    checkpoint = Checkpoint(
        path=out.with_name(f"{out.name}.restart"),
        every=SAMPLES_PER_CHECKPOINT * config.stride,
        fingerprint=_fingerprint(atoms, config, seed, model),
    )
    _check_files(out, checkpoint, resume=resume)
    deviations = array("f")
    reports = run_recorded(
        potential,
        [walker],
        settings,
        np.random.SeedSequence(seed),
        out,
        checkpoint,
        progress,
        lambda sample: deviations.append(sample.deviation.max),
    )
    return {
        "trajectory": str(out),
        "frames": len(deviations),
        "steps": reports[0].steps_done,
        "stopped": reports[0].stop_reason,
        "mean_temperature": reports[0].mean_temperature,
        "energy_drift": reports[0].energy_drift,
        "median_deviation": float(np.median(deviations)) if deviations else None,
        "max_deviation": max(deviations, default=None),
    }


def _fingerprint(atoms: Atoms, config: ExploreConfig, seed: int, model: str) -> str:
    """Of all that a run depends on, but for its number of steps."""
    momenta = atoms.get_momenta().tolist() if atoms.has("momenta") else None
    return digest_json([structure_digest(atoms), momenta, config.model_dump(mode="json", exclude={"steps"}), seed, model])


def _check_files(out: Path, checkpoint: Checkpoint, *, resume: bool) -> None:
    if not out.parent.is_dir():
        raise DataError("there is no such folder", where=str(out.parent), fix="make it first, or choose another")
    if not resume:
        if out.exists():
            raise DataError(
                "the output file exists", where=str(out), fix="go on from it with --resume, or choose another name, or remove it"
            )
        checkpoint.path.unlink(missing_ok=True)
    elif out.exists() and not checkpoint.matches():
        raise DataError(
            "this trajectory cannot be resumed: the state beside it is missing, damaged, or of a run with other settings",
            where=str(checkpoint.path),
            fix="give the structure, model and options of the first run (only --steps may differ), or start anew",
        )
