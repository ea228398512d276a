"""Distributions of energies and volumes, judged by the physical-validation package (Merz et al., PLoS ONE 13, e0202764, 2018).

Numbers are in units of their standard error: how far a measured temperature, width or slope is from what the ensemble demands.
"""

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import physical_validation as pv
import pytest
from ase.build import bulk
from pymbar.timeseries import statistical_inefficiency_multiple

from al_leignn.config import ExploreConfig
from al_leignn.explore.batch import Batch, Settings, Walker
from al_leignn.explore.watchdog import Limits
from al_leignn.units import GPA, KB

EV = 96.4853321
"""One electronvolt in kJ/mol."""
UNITS = pv.data.UnitData(
    kb=KB,
    energy_str="eV",
    energy_conversion=EV,
    length_str="Å",
    length_conversion=0.1,
    volume_str="Å^3",
    volume_conversion=1e-3,
    temperature_str="K",
    temperature_conversion=1.0,
    pressure_str="eV/Å^3",
    pressure_conversion=1602176.634,
    time_str="fs",
    time_conversion=1e-3,
)
WALKERS = 16


class Series(NamedTuple):
    """What was seen of all walkers, one after another."""

    kinetic: np.ndarray
    potential: np.ndarray
    volume: np.ndarray


def states(potential: Any, temperature: float, pressure: float, config: ExploreConfig) -> Iterator[Batch]:
    """The batch after every `stride` steps, from a fifth of the run on."""
    atoms = bulk("Ar", cubic=True, a=5.1) * (2, 2, 2)
    walkers = [Walker(n, atoms, temperature, pressure / GPA) for n in range(WALKERS)]
    batch = Batch.start(potential, walkers, Settings(config, 0, Limits()), np.random.SeedSequence(7))
    for step in range(1, config.steps + 1):
        batch.step(step, everyone=False)
        if step % config.stride == 0 and 5 * step > config.steps:
            yield batch


def simulated(
    potential: Any, temperature: float, pressure: float = 0.0, *, thin: bool = True, **settings: Any
) -> pv.data.SimulationData:
    """Runs of all walkers; `thin` leaves out frames until those that stay are independent."""
    config = ExploreConfig(**({"timestep_fs": 5.0, "friction_per_ps": 10.0, "stride": 50, "driver": "mean"} | settings))
    seen = [
        (b.state.kinetic(), b.state.energy.clone(), b.state.volume()) for b in states(potential, temperature, pressure, config)
    ]
    series = [np.array([t.numpy() for t in column]).T for column in zip(*seen, strict=True)]
    every = correlated(series) if thin else 1
    kinetic, energy, volume = (values[:, ::every].ravel() for values in series)
    ensemble = {"volume": volume[0]} if config.ensemble == "nvt" else {"pressure": pressure}
    moving = 3 if config.thermostat == "csvr" else 0
    return pv.data.SimulationData(
        units=UNITS,
        ensemble=pv.data.EnsembleData(config.ensemble.upper(), natoms=32, temperature=temperature, **ensemble),
        system=pv.data.SystemData(natoms=32, nconstraints=0, ndof_reduction_tra=moving, ndof_reduction_rot=0),
        observables=pv.data.ObservableData(
            kinetic_energy=kinetic, potential_energy=energy, total_energy=kinetic + energy, volume=volume
        ),
    )


def correlated(series: list[np.ndarray]) -> int:
    """Frames of a walker that count as one: the statistical inefficiency of its slowest quantity, rounded up."""
    changing = [values for values in series if np.ptp(values) > 1e-9 * np.abs(values).max()]
    return max(int(np.ceil(statistical_inefficiency_multiple(list(values)))) for values in changing)


def kinetic_deviations(found: pv.data.SimulationData) -> tuple[float, float]:
    """Of mean and width of the kinetic energy, in standard errors."""
    mean, width = pv.kinetic_energy.distribution(
        found, strict=False, verbosity=0, bs_repetitions=100, bootstrap_seed=1, data_is_uncorrelated=True
    )
    return mean, width


@pytest.mark.parametrize(("ensemble", "thermostat"), [("nvt", "langevin"), ("nvt", "csvr"), ("npt", "langevin")])
def test_kinetic_energies_follow_their_distribution(lennard_jones: Any, ensemble: str, thermostat: str) -> None:
    cell = "full" if ensemble == "npt" else "isotropic"
    settings = {"ensemble": ensemble, "thermostat": thermostat, "steps": 400, "stride": 40, "cell": cell}
    # Every 200 fs: kinetic energies, renewed within 50 fs, are independent as they are.
    found = simulated(lennard_jones(cutoff=5.0), 60.0, GPA, thin=False, **settings)
    p = pv.kinetic_energy.distribution(found, strict=True, verbosity=0, data_is_uncorrelated=True)
    assert p > 0.01
    assert max(map(abs, kinetic_deviations(found))) < 3.0


@pytest.mark.slow
@pytest.mark.parametrize("thermostat", ["langevin", "csvr"])
def test_energies_at_two_temperatures_have_the_ratio_of_boltzmann(lennard_jones: Any, thermostat: str) -> None:
    potential = lennard_jones(cutoff=5.0)
    pair = [simulated(potential, t, thermostat=thermostat, steps=1500) for t in (56.0, 64.0)]
    report(f"NVT {thermostat}", pair)
    assert quantiles(pair)[0] < 3.0
    assert max(abs(x) for found in pair for x in kinetic_deviations(found)) < 3.0


@pytest.mark.slow
@pytest.mark.parametrize("thermostat", ["langevin", "csvr"])
@pytest.mark.parametrize("cell", ["isotropic", "anisotropic", "full"])
def test_volumes_at_two_pressures_have_the_ratio_of_boltzmann(lennard_jones: Any, cell: str, thermostat: str) -> None:
    potential = lennard_jones(cutoff=5.0)
    pair = [simulated(potential, 60.0, p * GPA, ensemble="npt", cell=cell, thermostat=thermostat, steps=1500) for p in (2.0, 2.2)]
    report(f"NPT {cell} {thermostat}", pair)
    assert quantiles(pair)[0] < 3.0
    assert max(abs(x) for found in pair for x in kinetic_deviations(found)) < 3.0


def quantiles(pair: list[pv.data.SimulationData]) -> list[float]:
    """Deviation of the slope of ln(P2/P1) from the one demanded, in standard errors."""
    found = pv.ensemble.check(*pair, verbosity=0, bootstrap_repetitions=100, bootstrap_seed=1, data_is_uncorrelated=True)
    return [float(abs(x)) for x in found]


def report(name: str, pair: list[pv.data.SimulationData]) -> None:
    kinetic = ", ".join(f"{mean:.1f}/{width:.1f}" for mean, width in map(kinetic_deviations, pair))
    frames = len(pair[0].observables.kinetic_energy)
    logging.getLogger(__name__).info(
        f"{name}: {frames} frames, slope off by {quantiles(pair)} standard errors; kinetic mean/width off by {kinetic}"
    )
