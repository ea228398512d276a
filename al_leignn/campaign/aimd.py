"""`al-leignn aimd`: reference MD at the campaign's own level of theory, to hold the committee's MD against."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from al_leignn import __version__
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.lock import holding
from al_leignn.campaign.structures import read_starts, read_structures
from al_leignn.config import CampaignConfig, ExploreConfig, MailboxConfig, checked_explore
from al_leignn.core import Frame, Labels, Origin, structure_digest
from al_leignn.errors import CampaignError, ConfigError, DataError, StructureError
from al_leignn.explore.ab_initio import AbInitioRun, Totals
from al_leignn.label.base import Labeller, accepted, label_next, make_labeller
from al_leignn.store import digest_json, write_atomic


@dataclass(frozen=True)
class AimdOptions:
    """What the user says of the trajectory; the campaign says the rest."""

    temperature: float
    """K."""
    ps: float
    """Length after settling."""
    settle_ps: float
    ensemble: str = "nvt"
    thermostat: str = "langevin"
    friction_per_ps: float | None = None
    """By default, as the time step, that of the campaign's exploration."""
    timestep_fs: float | None = None
    stride: int = 1
    """Steps between frames that are written."""
    seed: int = 0


def run_aimd(
    layout: Layout, structure: Path | None, out: Path, options: AimdOptions, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Make a reference trajectory, or go on with one; what it is goes to a JSON file beside it.

    Parameters
    ----------
    structure
        Where it starts; by default the campaign's first structure, repeated as for exploration.
    out
        Extended XYZ; its state is kept beside it in `out` + ".restart".

    Returns
    -------
    dict
        JSON-safe: the trajectory, its level of theory, settings, length, mean temperature (K) and cost (core-seconds).

    Raises
    ------
    ConfigError, StructureError, DataError, CampaignError
        If settings, structure, file or labeller do not allow it; nothing is computed.
    RunError
        If a step gets no label. The same command goes on before it.
    """
    config = layout.config()
    atoms = _start(layout, config, structure)
    explore = _settings(config, options)
    if isinstance(config.labeller, MailboxConfig):
        raise ConfigError(
            "labels that come back later cannot drive MD", where="labeller.type", fix="use the labeller that runs the code itself"
        )
    if not out.parent.is_dir():
        raise DataError("there is no such folder", where=str(out.parent), fix="make it first, or choose another")
    if out.suffix in (".xz", ".gz"):
        raise DataError("a trajectory that can be gone on with is not compressed", where=str(out), fix="compress it afterwards")
    labeller = make_labeller(layout.labeller(config))
    missing = labeller.check(atoms.numbers.tolist())
    if missing:
        raise CampaignError("no AIMD can run here: " + "; ".join(missing), where=str(layout.root))
    scratch = out.with_name(f".{out.name}.scratch")
    run = AbInitioRun(
        atoms=atoms,
        config=explore,
        settling=round(1000.0 * options.settle_ps / explore.timestep_fs),
        label=lambda structure, fresh: _label(labeller, structure, config, scratch, fresh=fresh),
        level=labeller.level,
        seed=options.seed,
        out=out,
        fingerprint=_fingerprint(atoms, explore, options, labeller.level),
    )
    with holding(out.with_name(f".{out.name}.lock"), "al-leignn aimd"):
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            totals = run.go(progress)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        found = _found(run, totals, labeller, options)
        write_atomic(out.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    return found


def _start(layout: Layout, config: CampaignConfig, structure: Path | None) -> Atoms:
    starts = read_starts(layout, config)
    if structure is None:
        return starts[0]
    (atoms, *more) = read_structures(structure)
    if more:
        what = f"the file holds {1 + len(more)} structures instead of one"
        raise StructureError(what, where=str(structure), fix="give the one to start from a file of its own")
    known = sorted({int(z) for start in starts for z in start.numbers})
    if not set(atoms.numbers.tolist()) <= set(known):
        what = f"{atoms.symbols} has elements that the campaign does not know"
        raise StructureError(what, where=str(structure), fix="start from a structure of the campaign's elements")
    return atoms


def _settings(config: CampaignConfig, options: AimdOptions) -> ExploreConfig:
    if options.ensemble not in ("nvt", "nve"):
        raise ConfigError(f"no AIMD with ensemble {options.ensemble!r}", where="--ensemble", fix="allowed: nvt, nve")
    if not (np.isfinite(options.ps) and options.ps > 0 and np.isfinite(options.settle_ps) and options.settle_ps >= 0):
        raise ConfigError("the length is not a positive time", where="--ps, --settle-ps", fix="give picoseconds, like 2")
    timestep = options.timestep_fs or config.explore.timestep_fs
    return checked_explore(
        ensemble=options.ensemble,
        thermostat=options.thermostat,
        temperatures=[options.temperature],
        friction_per_ps=options.friction_per_ps or config.explore.friction_per_ps,
        timestep_fs=timestep,
        steps=max(1, round(1000.0 * options.ps / timestep)),
        stride=options.stride,
    )


def _label(labeller: Labeller, atoms: Atoms, config: CampaignConfig, scratch: Path, *, fresh: bool) -> Labels:
    result = label_next(labeller, Frame.of(atoms, Origin("aimd")), scratch, fresh=fresh, checks=config.checks)
    return accepted(
        result,
        "no label for the next step",
        where=str(scratch.parent),
        fix="the same command tries again from the last 25 steps; if atoms have come too close or forces are absurd, start anew "
        "with a shorter time step (--timestep-fs)",
    )


def _fingerprint(atoms: Atoms, config: ExploreConfig, options: AimdOptions, level: str) -> str:
    """Of all that the trajectory depends on, but for its length."""
    settings = config.model_dump(mode="json", exclude={"steps"})
    return digest_json([structure_digest(atoms), settings, options.settle_ps, options.seed, level])


def _found(run: AbInitioRun, totals: Totals, labeller: Labeller, options: AimdOptions) -> dict[str, Any]:
    config = run.config
    steps = totals.step - run.settling
    return {
        "trajectory": str(run.out),
        "formula": run.atoms.get_chemical_formula("metal"),
        "frames": 1 + steps // config.stride,
        "length_ps": steps * config.timestep_fs / 1000.0,
        "mean_temperature": totals.temperature_sum / steps,
        "core_s": round(totals.core_s, 2),
        "core_s_per_step": round(totals.core_s / (1 + totals.step), 4),
        "ensemble": config.ensemble,
        "thermostat": None if config.ensemble == "nve" else config.thermostat,
        "friction_per_ps": None if config.ensemble == "nve" else config.friction_per_ps,
        "temperature": options.temperature,
        "timestep_fs": config.timestep_fs,
        "settling_ps": options.settle_ps,
        "seed": options.seed,
        "level": labeller.level,
        **labeller.describe(),
        "version": __version__,
    }
