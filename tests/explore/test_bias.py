"""The bias is a force of an energy, bounded in both, blind to constants, and asleep when it is hot."""

from typing import Any

import numpy as np
import pytest
import torch
from ase.build import bulk

from al_leignn.config import ExploreConfig
from al_leignn.explore.batch import Batch, Settings, Walker
from al_leignn.explore.watchdog import Limits

STRENGTH, WIDTH = 0.05, 0.002


def started(potential: Any, *, bias: float = STRENGTH, seed: int = 0) -> Batch:
    """Argon that has moved away from its start."""
    atoms = bulk("Ar", cubic=True, a=5.4) * (2, 1, 1)
    config = ExploreConfig(driver="mean", bias_ev=bias, bias_width_ev=WIDTH, timestep_fs=5.0)
    batch = Batch.start(potential, [Walker(0, atoms, 60.0)], Settings(config, 0, Limits()), np.random.SeedSequence(seed))
    batch.state.positions += torch.from_numpy(np.random.default_rng(1).normal(scale=0.1, size=(8, 3)))
    batch.state.velocities *= 0.0
    batch.evaluate(everyone=True)
    return batch


def parts(potential: Any, move: np.ndarray | None = None) -> tuple[float, np.ndarray]:
    """Bias energy and bias force at displaced positions."""
    biased, plain = started(potential), started(potential, bias=0.0)
    for batch in (biased, plain):
        if move is not None:
            batch.state.positions += torch.from_numpy(move)
        batch.evaluate(everyone=True)
    return float(biased.sight.bias[0]), (biased.state.forces - plain.state.forces).numpy()


def test_the_force_is_the_gradient_of_the_energy(lennard_jones: Any) -> None:
    potential = lennard_jones(strengths=(0.95, 1.0, 1.05))
    energy, force = parts(potential)
    assert -STRENGTH < energy < -1e-4
    direction = np.random.default_rng(2).normal(size=(8, 3))
    up, down = (parts(potential, sign * 1e-4 * direction)[0] for sign in (1.0, -1.0))
    assert -(up - down) / 2e-4 == pytest.approx(float((force * direction).sum()), rel=1e-4)


def test_it_draws_towards_disagreement_and_is_bounded(lennard_jones: Any) -> None:
    """Members that disagree wildly saturate the energy; no bias force is larger than the mean force."""
    energy, force = parts(lennard_jones(strengths=(0.2, 1.8)))
    mean = started(lennard_jones(strengths=(0.2, 1.8)), bias=0.0).state.forces.numpy()
    assert energy >= -STRENGTH
    assert np.linalg.norm(force) <= np.linalg.norm(mean) * (1 + 1e-9)


def test_constants_by_which_members_differ_do_not_matter(lennard_jones: Any) -> None:
    class Shifted(lennard_jones):  # type: ignore[misc]
        def evaluate(self, graph: Any, members: Any = None, *, stress: bool = False) -> Any:
            output = super().evaluate(graph, members, stress=stress)
            output.energy += 100.0 * torch.arange(len(output.energy)).view(-1, 1)
            return output

    energy, force = parts(lennard_jones(strengths=(0.9, 1.1)))
    shifted_energy, shifted_force = parts(Shifted(strengths=(0.9, 1.1)))
    assert shifted_energy == pytest.approx(energy, abs=1e-10)
    np.testing.assert_allclose(shifted_force, force, atol=1e-10)


def test_it_rests_while_the_walker_is_too_hot(lennard_jones: Any) -> None:
    batch = started(lennard_jones(strengths=(0.9, 1.1)))
    cold = batch.state.forces.clone()
    batch.state.velocities += 0.1
    batch.evaluate(everyone=True)
    plain = started(lennard_jones(strengths=(0.9, 1.1)), bias=0.0)
    torch.testing.assert_close(batch.state.forces, plain.state.forces)
    assert float((cold - plain.state.forces).abs().max()) > 1e-5


def test_it_needs_all_members_and_a_thermostat() -> None:
    for settings in ({"driver": "member"}, {"driver": "mean", "ensemble": "nve"}):
        with pytest.raises(ValueError, match="bias_ev needs"):
            ExploreConfig(bias_ev=0.1, **settings)
