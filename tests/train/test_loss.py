from collections.abc import Callable

import pytest
import torch

from al_leignn.config import TrainConfig
from al_leignn.core import LabelledFrame
from al_leignn.model.leignn import Output
from al_leignn.train.batches import Batch, join, make_examples
from al_leignn.train.loss import Tally, Units, Weights, measure

Maker = Callable[..., list[LabelledFrame]]
UNITS = Units.of(1.0)
EVEN = Weights(1.0, 1.0, 1.0)


@pytest.fixture
def batch(copper: Maker, carbon_monoxide: Maker) -> Batch:
    return join(make_examples([*copper(2, 1), *carbon_monoxide(1, 2)], 4.0, [6, 8, 29], torch.float64, torch.device("cpu")))


def _prediction(batch: Batch, energy: float = 0.0, force: float = 0.0, stress: float = 0.0) -> Output:
    """The labels, off by constants."""
    return Output(
        energy=batch.energy + energy,
        node_energy=torch.zeros(len(batch.forces), dtype=batch.energy.dtype),
        forces=batch.forces + force,
        stress=batch.stress + stress,
    )


def test_perfect_predictions_cost_nothing(batch: Batch) -> None:
    loss, tally = measure(_prediction(batch), batch, UNITS, EVEN)
    assert float(loss) == 0.0
    assert tally.means() == {"loss": 0.0, "energy_mae": 0.0, "force_mae": 0.0, "stress_mae": 0.0}


def test_errors_are_reported_in_physical_units_per_atom_and_component(batch: Batch) -> None:
    _, tally = measure(_prediction(batch, 0.8, 0.02, 0.003), batch, UNITS, EVEN)
    means = (tally + tally).means()
    assert means["energy_mae"] == pytest.approx((0.8 / 4 + 0.8 / 4 + 0.8 / 2) / 3)
    assert means["force_mae"] == pytest.approx(0.02)
    assert means["stress_mae"] == pytest.approx(0.003)


def test_stress_of_a_molecule_is_ignored(batch: Batch) -> None:
    stress = batch.stress.clone()
    stress[2] += 7.0  # the molecule's
    out = _prediction(batch)
    out.stress = stress
    assert float(measure(out, batch, UNITS, EVEN)[0]) == 0.0


def test_the_loss_does_not_depend_on_orientation(batch: Batch) -> None:
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    losses = []
    for turn in (torch.eye(3, dtype=torch.float64), rotation):
        out = _prediction(batch)
        out.forces = batch.forces + torch.tensor([0.1, 0.2, -0.3], dtype=torch.float64) @ turn
        out.stress = batch.stress + turn.T @ torch.diag(torch.tensor([0.01, -0.02, 0.03], dtype=torch.float64)) @ turn
        losses.append(float(measure(out, batch, UNITS, EVEN)[0]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_units_follow_the_forces_so_that_energy_units_cancel(batch: Batch) -> None:
    loss = float(measure(_prediction(batch, 0.1, 0.1, 0.1), batch, Units.of(1.0), EVEN)[0])
    # The same data in units of meV: all labels and errors a thousand times larger.
    thousand = Batch(
        batch.graph, batch.n_atoms, batch.energy * 1e3, batch.forces * 1e3, batch.stress * 1e3, batch.has_stress, True
    )
    assert float(measure(_prediction(thousand, 100.0, 100.0, 100.0), thousand, Units.of(1e3), EVEN)[0]) == pytest.approx(loss)


def test_the_energy_weight_rises_at_the_end_only() -> None:
    config = TrainConfig()
    energies = [Weights.at(p, config).energy for p in (0.0, 0.3, 0.5, 0.8, 0.9, 1.0)]
    assert energies[0] == energies[1] == energies[2] == config.energy_weight
    assert energies[2] < energies[3] < energies[4] < energies[5]
    assert Weights.at(1.0, config).force == config.force_weight


def test_nothing_counted_has_no_mean() -> None:
    assert Tally.empty().means() == {}
