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
SETTLED = 0.4
"""Of a run: volumes take 2 ps to find their place."""


class Run(NamedTuple):
    """What was seen of walkers: arrays of walkers and frames, eV and Å^3."""

    config: ExploreConfig
    temperature: float
    pressure: float
    """eV/Å^3."""
    kinetic: np.ndarray
    potential: np.ndarray
    volume: np.ndarray

    @classmethod
    def of(cls, potential: Any, temperature: float, pressure: float = 0.0, **settings: Any) -> "Run":
        config = ExploreConfig(**({"timestep_fs": 5.0, "friction_per_ps": 10.0, "stride": 50, "driver": "mean"} | settings))
        seen = [
            (b.state.kinetic(), b.state.energy.clone(), b.state.volume())
            for b in states(potential, temperature, pressure, config)
        ]
        return cls(
            config, temperature, pressure, *(np.array([t.numpy() for t in column]).T for column in zip(*seen, strict=True))
        )

    def correlated(self) -> int:
        """Frames of a walker that count as one: the statistical inefficiency of its slowest quantity, rounded up."""
        slow = [self.potential] if self.config.ensemble == "nvt" else [self.potential, self.volume]
        return max(int(np.ceil(statistical_inefficiency_multiple(list(values)))) for values in slow)

    def data(self) -> pv.data.SimulationData:
        """Frames of all walkers, one walker after another."""
        kinetic, energy, volume = (values.ravel() for values in (self.kinetic, self.potential, self.volume))
        ensemble = {"volume": volume[0]} if self.config.ensemble == "nvt" else {"pressure": self.pressure}
        moving = 3 if self.config.thermostat == "csvr" else 0
        return pv.data.SimulationData(
            units=UNITS,
            ensemble=pv.data.EnsembleData(self.config.ensemble.upper(), natoms=32, temperature=self.temperature, **ensemble),
            system=pv.data.SystemData(natoms=32, nconstraints=0, ndof_reduction_tra=moving, ndof_reduction_rot=0),
            observables=pv.data.ObservableData(
                kinetic_energy=kinetic, potential_energy=energy, total_energy=kinetic + energy, volume=volume
            ),
        )


def states(potential: Any, temperature: float, pressure: float, config: ExploreConfig) -> Iterator[Batch]:
    """The batch after every `stride` steps, from `SETTLED` of the run on."""
    atoms = bulk("Ar", cubic=True, a=5.1) * (2, 2, 2)
    walkers = [Walker(n, atoms, temperature, pressure / GPA) for n in range(WALKERS)]
    seed = np.random.SeedSequence([7, round(temperature), round(1e6 * pressure)])  # runs that are compared share no noise
    batch = Batch.start(potential, walkers, Settings(config, 0, Limits()), seed)
    for step in range(1, config.steps + 1):
        batch.step(step, everyone=False)
        if step % config.stride == 0 and step > SETTLED * config.steps:
            yield batch


def kinetic_deviations(run: Run) -> tuple[float, float]:
    """Of mean and width of the kinetic energy, in standard errors.

    From all frames: kinetic energies are renewed within 50 fs, frames are 200 fs apart.
    """
    mean, width = pv.kinetic_energy.distribution(
        run.data(), strict=False, verbosity=0, bs_repetitions=100, bootstrap_seed=1, data_is_uncorrelated=True
    )
    return mean, width


@pytest.mark.parametrize(("ensemble", "thermostat"), [("nvt", "langevin"), ("nvt", "csvr"), ("npt", "langevin")])
def test_kinetic_energies_follow_their_distribution(lennard_jones: Any, ensemble: str, thermostat: str) -> None:
    cell = "full" if ensemble == "npt" else "isotropic"
    settings = {"ensemble": ensemble, "thermostat": thermostat, "steps": 400, "stride": 40, "cell": cell}
    run = Run.of(lennard_jones(cutoff=5.0), 60.0, GPA, **settings)
    p = pv.kinetic_energy.distribution(run.data(), strict=True, verbosity=0, data_is_uncorrelated=True)
    assert p > 1e-3
    assert max(map(abs, kinetic_deviations(run))) < 3.0


@pytest.mark.slow
@pytest.mark.parametrize("thermostat", ["langevin", "csvr"])
def test_energies_at_two_temperatures_have_the_ratio_of_boltzmann(lennard_jones: Any, thermostat: str) -> None:
    potential = lennard_jones(cutoff=5.0)
    judge(f"NVT {thermostat}", [Run.of(potential, t, thermostat=thermostat, steps=2000) for t in (56.0, 64.0)])


@pytest.mark.slow
@pytest.mark.parametrize("thermostat", ["langevin", "csvr"])
@pytest.mark.parametrize("cell", ["isotropic", "anisotropic", "full"])
def test_volumes_at_two_pressures_have_the_ratio_of_boltzmann(lennard_jones: Any, cell: str, thermostat: str) -> None:
    potential = lennard_jones(cutoff=5.0)
    settings = {"ensemble": "npt", "cell": cell, "thermostat": thermostat, "steps": 2000}
    judge(f"NPT {cell} {thermostat}", [Run.of(potential, 60.0, p * GPA, **settings) for p in (2.0, 2.2)])


def judge(name: str, pair: list[Run]) -> None:
    """The slope of ln(P2/P1) is the one demanded, and so are mean and width of the kinetic energies.

    Frames are correlated, so the standard error of the slope, as the package finds it from all frames, is too small by the
    square root of the statistical inefficiency.
    """
    data, every = [run.data() for run in pair], max(run.correlated() for run in pair)
    found = pv.ensemble.check(*data, verbosity=0, bootstrap_repetitions=100, bootstrap_seed=1, data_is_uncorrelated=True)
    slope = float(abs(found[0])) / np.sqrt(every)
    kinetic = [round(float(x), 1) for run in pair for x in kinetic_deviations(run)]
    frames = len(data[0].observables.kinetic_energy)
    logging.getLogger(__name__).info(f"{name}: {frames} frames, {every} count as one; slope {slope:.1f}, kinetic {kinetic}")
    assert slope < 3.0
    assert max(map(abs, kinetic)) < 3.0
