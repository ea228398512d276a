"""MD that can be compared with a reference trajectory: the same start, temperature, ensemble and times."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator
from pydantic import ValidationError

from al_leignn.campaign.derive import timestep
from al_leignn.config import AseConfig, ConvergeConfig, ExploreConfig, checked_explore, config_error
from al_leignn.core import Labels
from al_leignn.errors import ConfigError, DataError, LabellerError, RunError
from al_leignn.explore.ab_initio import AbInitioRun
from al_leignn.explore.driver import Potential
from al_leignn.explore.production import write_trajectory
from al_leignn.label.ase_calc import AseLabeller, stress_of
from al_leignn.model.committee import Committee
from al_leignn.units import FS
from al_leignn.validate.agreement import ERROR_RATE, Agreement, agree, tolerances_of
from al_leignn.validate.equivalence import Tolerance
from al_leignn.validate.trajectory import Trajectory, read_trajectory

LENGTH = 4.0
"""MD is so many times as long as its reference: its own noise then hardly counts."""

SETTLING = 0.1
"""Share of the MD that is left out at its start."""

FRICTION = 0.5
"""Of the Langevin thermostat, 1/ps, where the reference does not tell its own: a tenth of what explores, since friction slows
diffusion and broadens spectra."""

FINEST_FS = 10.0
"""Frames are saved at least this often, or atoms could not be followed and vibrations not seen."""

STRONG_FRICTION = 20.0
"""1/ps, where only two committees are compared: energies are forgotten within 0.1 ps or so, and tens of ps decide."""

BATCH = 100
"""Frames evaluated at once."""


@dataclass(frozen=True)
class Conditions:
    """What the user may say of the MD; the reference says the rest."""

    ps: float | None = None
    """Length; by default four times that of the reference."""
    ensemble: str | None = None
    """By default npt if the reference's cell changes, nvt otherwise."""
    pressure: float = 0.0
    """GPa, for npt."""


def md_like(
    reference: Trajectory,
    committee: Committee,
    out: Path,
    conditions: Conditions,
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> Trajectory:
    """Run MD from the first frame of the reference at its temperature, and read what it wrote to `out`.

    Frames are as far apart in time as the reference's, or a whole part of that. The thermostat is that of the reference where its
    frames name it, so that it slows the motion of both alike.

    Raises
    ------
    ConfigError
        If the reference does not tell its temperature, or what is asked for cannot be run.
    RunError
        If the MD came to an unphysical frame.
    """
    start, settings = _like(reference, conditions)
    return _md(start, settings, committee, out, seed=seed, progress=progress)


def md_for_comparison(
    start: Atoms,
    explore: ExploreConfig,
    ps: float,
    potential: Potential,
    out: Path,
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> Trajectory:
    """MD of `ps` at the highest temperature explored, to be compared with that of another committee; errors as `md_like`."""
    settings = checked_explore(
        ensemble="nvt",
        temperatures=[explore.hottest],
        steps=max(1, round(1000.0 * ps / explore.timestep_fs)),
        stride=max(1, math.floor(FINEST_FS / explore.timestep_fs)),
        driver="mean",
        timestep_fs=explore.timestep_fs,
        friction_per_ps=STRONG_FRICTION,
    )
    return _md(start, settings, potential, out, seed=seed, progress=progress)


def compare_with_before(md: Trajectory, before: Path, config: ConvergeConfig, *, seed: np.random.SeedSequence) -> Agreement:
    """What `md_for_comparison` made, beside what it wrote to `before` for the committee of the last iteration.

    Raises
    ------
    DataError
        If they are not of one system under the same conditions, as when the configuration was changed in between.
    """
    reference = replace(read_trajectory(before, skip_share=SETTLING), name="the committee before")
    return agree(reference, _named(md), tolerances=_tolerances(config), only=config.observables, seed=seed)


def _md(
    start: Atoms,
    settings: ExploreConfig,
    potential: Potential,
    out: Path,
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> Trajectory:
    found = write_trajectory(potential, start, settings, out, seed=seed, progress=progress)
    if found["stopped"]:
        raise RunError(
            f"the MD became unphysical after {found['steps']} steps ({found['stopped']}): this potential is not equivalent",
            where=str(out),
            fix="look at the last frames, and train on more of the kind",
        )
    return read_trajectory(out, skip_share=SETTLING)


def calculator_at(path: str) -> BaseCalculator:
    """An ASE calculator by its import path; raises `ConfigError` where there is none."""
    try:
        found: BaseCalculator = AseLabeller(AseConfig(calculator=path)).calculator()
    except ValidationError as error:
        raise config_error(error, AseConfig, "--calculator") from None
    except LabellerError as error:
        raise ConfigError(error.what, where="--calculator", fix=error.fix) from None
    return found


def md_by_calculator(
    reference: Trajectory,
    calculator: BaseCalculator,
    out: Path,
    conditions: Conditions,
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> Trajectory:
    """As `md_like`, driven by any ASE calculator, whose energies, forces and stresses the trajectory has.

    Raises
    ------
    ConfigError, DataError
        As `md_like`; for a cell that changes; if `out` exists.
    """
    start, settings = _like(reference, conditions)
    if settings.ensemble == "npt":
        raise ConfigError("MD by an ASE calculator keeps its cell", where="--ensemble", fix="make it elsewhere: --trajectory")

    def label(atoms: Atoms, fresh: bool) -> Labels:
        del fresh
        atoms.calc = calculator
        return Labels(float(atoms.get_potential_energy()), atoms.get_forces(), stress_of(atoms))

    if out.exists():
        raise DataError(
            "the output file exists",
            where=str(out),
            fix="compare it with --trajectory, choose another name with --out, or remove it",
        )
    run = AbInitioRun(start, settings, settling=0, label=label, level="", seed=seed, out=out, fingerprint="")
    run.saved.unlink(missing_ok=True)  # this MD is not gone on with
    run.go(progress)
    run.saved.unlink()
    return read_trajectory(out, skip_share=SETTLING)


def _like(reference: Trajectory, conditions: Conditions) -> tuple[Atoms, ExploreConfig]:
    """Where MD that resembles the reference starts, and how it runs."""
    if reference.temperature is None:
        raise ConfigError(
            "the reference does not tell its temperature", where=reference.name, fix="give it in K with --temperature"
        )
    start = reference.frame(0)
    if reference.velocities is not None:
        start.set_velocities(reference.velocities[0] / FS)
    step, stride = _times(reference, timestep([start]))
    settings = checked_explore(
        ensemble=conditions.ensemble or ("nvt" if reference.fixed_cell else "npt"),
        temperatures=[reference.temperature],
        pressure=conditions.pressure,
        steps=max(1, round(1000.0 * (conditions.ps or LENGTH * reference.length_ps) / step)),
        stride=stride,
        driver="mean",
        timestep_fs=step,
        thermostat=reference.thermostat or "langevin",
        friction_per_ps=reference.friction_per_ps or FRICTION,
    )
    return start, settings


def compare_with_references(
    references: Sequence[Trajectory],
    committee: Committee,
    config: ConvergeConfig,
    folder: Path,
    *,
    seed: np.random.SeedSequence,
    progress: Callable[[int, int], None],
) -> list[Agreement | RunError]:
    """Run MD like each reference and compare; the error that ended it where it became unphysical.

    Each comparison may claim wrongly with a share of `ERROR_RATE`, so that all of them together have that rate. MD is written
    to `folder`.
    """
    tolerances = _tolerances(config)
    found: list[Agreement | RunError] = []
    for n, (reference, child) in enumerate(zip(references, seed.spawn(len(references)), strict=True)):
        out = folder / f"reference-{n}.extxyz"
        try:
            md = md_like(reference, committee, out, Conditions(), seed=int(child.generate_state(1)[0]), progress=progress)
        except RunError as error:
            found.append(error)
            continue
        if reference.forces is not None or reference.stresses is not None:
            md = with_predictions(md, committee, drove=True)
        found.append(
            agree(
                reference,
                _named(md),
                tolerances=tolerances,
                only=config.observables,
                error_rate=ERROR_RATE / len(references),
                seed=child,
            )
        )
    return found


def _named(md: Trajectory) -> Trajectory:
    """Under a name that does not depend on where it was written: what is published is the same for every runner."""
    return replace(md, name="MD of the committee")


def _tolerances(config: ConvergeConfig) -> dict[str, Tolerance]:
    return tolerances_of([f"{kind}={value}" for kind, value in config.tolerances.items()])


def with_predictions(trajectory: Trajectory, committee: Committee, *, drove: bool) -> Trajectory:
    """The same trajectory with the committee's energies, forces and (in three-dimensional cells) stresses.

    `drove` says whether it was the mean of this committee that made it.
    """
    labels = []
    for first in range(0, len(trajectory), BATCH):
        frames = [trajectory.frame(n) for n in range(first, min(first + BATCH, len(trajectory)))]
        labels += [prediction.mean() for prediction in committee.predict(frames)]
    stresses = [x.stress for x in labels if x.stress is not None]
    return replace(
        trajectory,
        energies=np.array([x.energy for x in labels]),
        forces=np.array([x.forces for x in labels]),
        stresses=np.array(stresses) if len(stresses) == len(labels) else None,
        driven=drove,
    )


def _times(reference: Trajectory, longest_step: float) -> tuple[float, int]:
    """Time step (fs) and steps between frames, for frames that fall onto those of the reference.

    The time step is the reference's where its frames name it, so that both have the same error of it; else near `longest_step`.
    """
    interval_fs = reference.interval_fs
    if reference.timestep_fs is not None:
        step = reference.timestep_fs
        between = max(1, round(interval_fs / step))
        return step, next(n for n in range(between, 0, -1) if between % n == 0 and n * step <= max(FINEST_FS, step))
    if interval_fs < longest_step:
        return interval_fs * math.floor(longest_step / interval_fs), 1
    interval = interval_fs / math.ceil(interval_fs / FINEST_FS)
    stride = math.ceil(interval / longest_step)
    return interval / stride, stride
