"""What the watchdog is shown: contacts and lone atoms, found without looking at every distance in every step."""

from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk

from al_leignn.config import ExploreConfig
from al_leignn.explore.batch import Walker, initial_state
from al_leignn.explore.driver import Driver


def gas(seed: int, side: float) -> Atoms:
    """Nine atoms of argon; the larger the box, the lonelier, the smaller, the closer they come."""
    positions = np.random.default_rng(seed).uniform(0.0, side, (9, 3))
    return Atoms("Ar9", positions=positions, cell=[side] * 3, pbc=True)


def driver_of(potential: Any, structures: list[Atoms]) -> Driver:
    return Driver.of(potential, structures, member=None, stress=False, contact=0.5)


def test_contacts_and_lone_atoms_are_those_of_a_fresh_look_at_every_step(lennard_jones: Any) -> None:
    potential, rng = lennard_jones(), np.random.default_rng(0)
    structures = [gas(1, 9.0), gas(2, 22.0), gas(3, 14.0)]
    driver = driver_of(potential, structures)
    walkers = [Walker(n, atoms, 50.0) for n, atoms in enumerate(structures)]
    state = initial_state(walkers, ExploreConfig(), driver.neighbours.cells, np.random.SeedSequence(0))
    contacts = lonely = 0
    for _ in range(200):
        state.positions += torch.from_numpy(rng.normal(scale=0.03, size=state.positions.shape))
        found = driver.evaluate(state, everyone=True)
        now = [
            Atoms(a.numbers, state.positions[9 * n : 9 * n + 9].numpy(), cell=a.cell, pbc=True) for n, a in enumerate(structures)
        ]
        fresh = driver_of(potential, now).evaluate(state, everyone=True)
        torch.testing.assert_close(found.contact, fresh.contact, rtol=1e-9, atol=1e-9)
        assert torch.equal(found.alone, fresh.alone)
        contacts += int(torch.isfinite(found.contact).sum())
        lonely += int(found.alone.sum())
    assert contacts > 10
    assert lonely > 10


def test_in_a_crystal_hardly_any_step_looks(lennard_jones: Any, monkeypatch: Any) -> None:
    crystal = bulk("Ar", cubic=True) * (2, 2, 2)
    driver = driver_of(lennard_jones(), [crystal])
    looks = 0
    look = driver.neighbours.pairs

    def counted(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return look(*arguments)

    monkeypatch.setattr(driver.neighbours, "pairs", counted)
    state = initial_state([Walker(0, crystal, 50.0)], ExploreConfig(), driver.neighbours.cells, np.random.SeedSequence(0))
    rest, rng = state.positions.clone(), np.random.default_rng(0)
    for _ in range(100):
        state.positions = rest + torch.from_numpy(rng.normal(scale=0.05, size=rest.shape))
        driver.evaluate(state, everyone=True)
    assert looks == 1
