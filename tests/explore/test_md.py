"""Walkers in batches: independent of one another, stopped for the right reason, the same as other engines."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.md.verlet import VelocityVerlet

from al_leignn.config import ExploreConfig, ModelConfig
from al_leignn.core import CommitteePrediction, Deviation
from al_leignn.deviation import deviation
from al_leignn.errors import ConfigError, StructureError
from al_leignn.explore.md import Exploration, Sample, Walker, WalkerReport, explore, run_md
from al_leignn.explore.watchdog import StopReason
from al_leignn.model.committee import Committee
from al_leignn.model.leignn import LEIGNN
from al_leignn.units import FS, KB


def argon(n: int = 1, temperature: float = 60.0, index: int = 0) -> Walker:
    return Walker(index, bulk("Ar", cubic=True, a=5.4) * (n, 1, 1), temperature)


def run(
    potential: Any,
    walkers: Sequence[Walker],
    *,
    trust_hi: float = np.inf,
    force_scale: float | None = None,
    iteration: int = 1,
    seed: int = 0,
    **settings: Any,
) -> Exploration:
    config = ExploreConfig(**({"steps": 40, "stride": 10, "timestep_fs": 5.0} | settings))
    drawn_from = np.random.SeedSequence(seed)
    return explore(potential, walkers, config, iteration=iteration, trust_hi=trust_hi, force_scale=force_scale, seed=drawn_from)


def of_walker(found: Exploration, index: int) -> list[Sample]:
    return [s for s in found.samples if s.frame.origin.walker == index]


def report_of(found: Exploration, index: int) -> WalkerReport:
    return next(w for w in found.walkers if w.index == index)


def assert_same_path(a: list[Sample], b: list[Sample]) -> None:
    assert [s.frame.origin for s in a] == [s.frame.origin for s in b]
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one.frame.atoms.positions, other.frame.atoms.positions, atol=1.1e-6)
        np.testing.assert_allclose(one.frame.atoms.cell.array, other.frame.atoms.cell.array, atol=1.1e-6)
        assert one.energy == pytest.approx(other.energy, abs=1e-10)
        np.testing.assert_allclose(one.deviation.per_atom, other.deviation.per_atom, atol=1e-10)


# --- samples and reports ---------------------------------------------------------------------------------


def test_samples_come_every_stride_with_their_origin_in_order(lennard_jones: Any) -> None:
    found = run(lennard_jones(strengths=(0.9, 1.1)), [argon(index=7), argon(2, 30.0, index=3)], iteration=4, steps=35)
    assert [(s.frame.origin.walker, s.frame.origin.step) for s in found.samples] == [
        (3, 10), (3, 20), (3, 30), (7, 10), (7, 20), (7, 30)
    ]  # fmt: skip
    origin = found.samples[0].frame.origin
    assert (origin.kind, origin.iteration, origin.temperature) == ("md", 4, 30.0)
    assert [(w.index, w.steps_done, w.stop_reason) for w in found.walkers] == [(7, 35, ""), (3, 35, "")]
    for walker in found.walkers:
        assert 0.3 < walker.mean_temperature / walker.temperature < 1.7
        assert abs(walker.energy_drift or np.inf) < 1e-3


def test_deviations_are_those_of_the_sampled_frame(lennard_jones: Any) -> None:
    """With members that differ by a factor, the deviation is the spread of the factors times the mean force."""
    found = run(lennard_jones(strengths=(0.9, 1.0, 1.1)), [argon(2)], driver="mean")
    spread = np.std([0.9, 1.0, 1.1])
    for sample in found.samples:
        [again] = run(lennard_jones(), [Walker(0, sample.frame.atoms, 1e-9)], steps=1, stride=1, timestep_fs=1e-9).samples
        assert again.energy == pytest.approx(sample.energy, abs=1e-6)
    assert all(s.deviation.energy == pytest.approx(spread * abs(s.energy) / 8, rel=1e-6) for s in found.samples)


def test_one_member_drives_and_the_others_look_at_samples_only(lennard_jones: Any) -> None:
    potential = lennard_jones(strengths=(0.5, 1.0, 2.0))
    found = run(potential, [argon()], iteration=5, steps=20)
    assert potential.asked == [3] + ([1] * 9 + [3]) * 2
    alone = run(lennard_jones(strengths=(2.0,)), [argon()], iteration=5, steps=20)
    assert [s.energy for s in found.samples] == pytest.approx([s.energy for s in alone.samples])
    everyone = lennard_jones(strengths=(0.5, 1.0, 2.0))
    run(everyone, [argon()], driver="mean", steps=20)
    assert everyone.asked == [3] * 21


def test_progress_counts_walker_steps_up_to_the_total(lennard_jones: Any) -> None:
    seen: list[tuple[int, int]] = []
    explore(
        lennard_jones(),
        [argon(), argon(index=1)],
        ExploreConfig(steps=20),
        iteration=0,
        trust_hi=np.inf,
        seed=np.random.SeedSequence(0),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(2 * n, 40) for n in range(1, 21)]


def test_no_walkers_is_no_work(lennard_jones: Any) -> None:
    assert run(lennard_jones(), []) == Exploration([], [])


# --- independence and determinism ------------------------------------------------------------------------


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_a_walker_does_not_depend_on_its_company(lennard_jones: Any, ensemble: str) -> None:
    walkers = [argon(1, 40.0, 0), argon(2, 80.0, 1), argon(3, 20.0, 2)]
    together = run(lennard_jones(strengths=(0.9, 1.1)), walkers, ensemble=ensemble, steps=60)
    for walker in walkers:
        alone = run(lennard_jones(strengths=(0.9, 1.1)), [walker], ensemble=ensemble, steps=60)
        assert_same_path(of_walker(together, walker.index), alone.samples)


def test_same_seed_same_frames_other_seed_or_walker_others(lennard_jones: Any) -> None:
    def uids(seed: int, index: int = 0) -> list[str]:
        return [s.frame.uid for s in run(lennard_jones(), [argon(index=index)], seed=seed).samples]

    assert uids(1) == uids(1)
    assert not set(uids(1)) & set(uids(2))
    assert not set(uids(1)) & set(uids(1, index=1))


def test_a_walker_that_stops_leaves_the_others_undisturbed(lennard_jones: Any) -> None:
    """The hot one passes trust_hi on its way; the cold one never notices."""
    potential = lennard_jones(strengths=(0.9, 1.1))
    cold, hot = argon(2, 5.0, 0), argon(1, 150.0, 1)
    found = run(potential, [hot, cold], trust_hi=0.008, steps=200)
    stopped, through = found.walkers
    assert stopped.stop_reason == StopReason.DEVIATION
    assert 0 < stopped.steps_done < 200
    assert through.steps_done == 200
    assert_same_path(of_walker(found, 0), run(lennard_jones(strengths=(0.9, 1.1)), [cold], steps=200).samples)


# --- the watchdog on the walk ----------------------------------------------------------------------------


def test_the_stopping_frame_is_kept_and_earlier_ones_are_below_the_limit(lennard_jones: Any) -> None:
    found = run(lennard_jones(strengths=(0.9, 1.1)), [argon(1, 150.0)], trust_hi=0.008, steps=200, stride=5)
    last = found.samples[-1]
    assert last.frame.origin.step == found.walkers[0].steps_done
    assert last.deviation.max > 0.008
    assert all(s.deviation.max <= 0.008 for s in found.samples[:-1])


def test_under_the_relative_criterion_a_walker_stops_where_its_deviation_is_large_for_the_force(lennard_jones: Any) -> None:
    """The limit holds for deviation / (1 + force / scale); as an absolute one it would stop the same walker earlier."""

    def walk(force_scale: float | None) -> Exploration:
        potential = lennard_jones(strengths=(0.9, 1.1))
        return run(potential, [argon(1, 150.0)], trust_hi=0.003, force_scale=force_scale, steps=200, stride=5)

    def largest(sample: Sample, scale: float) -> float:
        seen = sample.deviation
        return float((seen.per_atom / (1.0 + seen.mean_force / scale)).max())

    found = walk(0.05)
    assert found.walkers[0].stop_reason == StopReason.DEVIATION
    assert largest(found.samples[-1], 0.05) > 0.003
    assert all(largest(sample, 0.05) <= 0.003 for sample in found.samples[:-1])
    assert any(sample.deviation.max > 0.003 for sample in found.samples[:-1])
    assert walk(None).walkers[0].steps_done < found.walkers[0].steps_done
    # Members that differ by a tenth deviate by less than a tenth of the scale, whatever the force.
    assert not walk(0.03).walkers[0].stop_reason


def test_mean_driver_looks_at_every_step(lennard_jones: Any) -> None:
    found = run(lennard_jones(strengths=(0.9, 1.1)), [argon(1, 150.0)], trust_hi=0.008, steps=200, stride=100, driver="mean")
    assert found.walkers[0].stop_reason == StopReason.DEVIATION
    assert [s.frame.origin.step for s in found.samples] == [found.walkers[0].steps_done]


def test_atoms_that_collapse_are_stopped_at_contact(springs: Any) -> None:
    potential = springs(species=(14,), length=0.0, stiffness=0.1)
    found = run(potential, [Walker(0, Atoms("Si2", [[0, 0, 0], [2.2, 0, 0]]), 2000.0)], timestep_fs=1.0, steps=600)
    assert found.walkers[0].stop_reason == StopReason.CONTACT
    final = found.samples[-1].frame.atoms
    assert 0.9 < final.get_distance(0, 1) < 0.5 * 2 * 1.11


def test_runaway_heat_is_stopped_before_it_spreads(springs: Any) -> None:
    potential = springs(species=(14,), length=2.2, stiffness=0.5, cutoff=4.0)
    hot = Atoms("Si8", np.argwhere(np.ones((2, 2, 2))) * 3.0)
    found = run(potential, [Walker(0, hot, 10.0)], ensemble="nve", timestep_fs=1.0, steps=300)
    assert found.walkers[0].stop_reason == StopReason.TEMPERATURE
    assert 0 < found.walkers[0].steps_done < 100


def test_an_atom_that_leaves_is_evaporation_and_one_that_was_alone_is_not(springs: Any) -> None:
    repelling = springs(species=(14,), stiffness=1e-3, length=12.0)
    pair = Atoms("Si2", [[0, 0, 0], [5.0, 0, 0]])
    found = run(repelling, [Walker(0, pair, 300.0), Walker(1, Atoms("Si"), 300.0)], steps=200, friction_per_ps=0.1)
    assert [w.stop_reason for w in found.walkers] == [StopReason.EVAPORATION, ""]
    assert found.samples[-1].frame.origin.walker == 1


def test_a_cell_that_is_torn_apart_is_stopped(lennard_jones: Any) -> None:
    torn = Walker(0, argon(2).atoms, 60.0, pressure=-20.0)
    found = run(lennard_jones(), [torn, argon(2, index=1)], ensemble="npt", steps=120, stride=20)
    assert [w.stop_reason for w in found.walkers] == [StopReason.CELL, ""]
    start = torn.atoms.get_volume()
    assert of_walker(found, 0)[-1].frame.atoms.get_volume() > 1.5 * start
    assert all(0.8 < s.frame.atoms.get_volume() / start < 1.2 for s in of_walker(found, 1))


def test_forces_that_are_not_numbers_stop_only_their_walker(lennard_jones: Any) -> None:
    class Broken(lennard_jones):  # type: ignore[misc]
        """Predicts NaN for whatever has more than four atoms, from the 25th evaluation on."""

        def evaluate(self, graph: Any, members: Any = None, *, stress: bool = False) -> Any:
            output = super().evaluate(graph, members, stress=stress)
            crowded = torch.bincount(graph.structure)[graph.structure] > 4
            if len(self.asked) >= 25:
                output.forces[:, crowded] = torch.nan
            return output

    found = run(Broken(), [argon(2, index=0), argon(1, index=1)])
    assert [(w.stop_reason, w.steps_done) for w in found.walkers] == [(StopReason.NAN, 24), ("", 40)]
    assert [s.frame.origin.step for s in of_walker(found, 0)] == [10, 20]
    assert_same_path(of_walker(found, 1), run(lennard_jones(), [argon(1, index=1)]).samples)


def test_a_walker_that_is_blown_to_pieces_stops_alone(lennard_jones: Any, springs: Any) -> None:
    """One step takes its atoms farther than numbers can tell apart, where some end in one place."""
    tame = Walker(1, bulk("Ar", cubic=True, a=5.4), 20.0)
    wild = Walker(0, bulk("Ar", cubic=True, a=5.4) * (2, 1, 1), 20.0)
    wild.atoms.set_velocities(np.random.default_rng(0).normal(scale=1e25, size=(8, 3)))
    found = run(lennard_jones(), [wild, tame])
    assert found.walkers[0].stop_reason
    assert found.walkers[0].steps_done <= 1
    assert report_of(found, 1).steps_done == 40
    assert_same_path(of_walker(found, 1), run(lennard_jones(), [tame]).samples)


def test_all_walkers_failing_at_once_end_the_run_with_their_frames(lennard_jones: Any) -> None:
    found = run(lennard_jones(strengths=(0.5, 1.5)), [argon(2, 300.0), argon(2, 300.0, index=1)], trust_hi=1e-9)
    assert {w.stop_reason for w in found.walkers} == {StopReason.DEVIATION}
    assert len(found.samples) == 2


# --- what is refused -------------------------------------------------------------------------------------


def test_doubt_about_the_start_alone_stops_nobody_so_every_walker_finds_a_new_frame(lennard_jones: Any) -> None:
    walker = argon(2, 300.0)
    found = run(lennard_jones(strengths=(0.5, 1.5)), [walker], trust_hi=1e-9)
    assert report_of(found, 0).stop_reason == StopReason.DEVIATION
    assert report_of(found, 0).steps_done > 0
    assert (
        np.abs(found.samples[0].frame.atoms.get_distances(0, 1, mic=True) - walker.atoms.get_distances(0, 1, mic=True)).max()
        > 1e-3
    )


def test_forces_without_an_energy_may_not_run_where_energy_matters(lennard_jones: Any) -> None:
    for ensemble in ("nve", "npt"):
        with pytest.raises(ConfigError, match="not a gradient"):
            run(lennard_jones(conservative=False), [argon()], ensemble=ensemble)
    assert run(lennard_jones(conservative=False), [argon()]).samples


@pytest.mark.parametrize("direct_forces", [False, True])
def test_the_published_network_may_run_with_a_thermostat_only(direct_forces: bool) -> None:
    model = committee(preset="paper", direct_forces=direct_forces)
    walkers = [Walker(0, bulk("Si", cubic=True), 300.0)]
    for ensemble in ("nve", "npt"):
        with pytest.raises(ConfigError, match="not a gradient" if direct_forces else "virtual node"):
            run(model, walkers, ensemble=ensemble)
        with pytest.raises(ConfigError, match=r"model\.(preset|direct_forces)"):
            run_md(
                model,
                walkers[0],
                ExploreConfig(ensemble=ensemble, steps=1),
                seed=np.random.SeedSequence(0),
                on_sample=pytest.fail,  # type: ignore[arg-type]
            )
    assert run(model, walkers, steps=1, stride=1, timestep_fs=0.1).samples


@pytest.mark.parametrize("temperature", [0.0, -5.0, np.nan, np.inf])
def test_temperatures_must_be_temperatures(lennard_jones: Any, temperature: float) -> None:
    with pytest.raises(ConfigError, match="walker 0"):
        run(lennard_jones(), [argon(1, temperature)])


def test_pressure_on_what_has_no_cell_is_refused(lennard_jones: Any) -> None:
    slab = fcc111("Ar", (2, 2, 2), a=5.4, vacuum=6.0)
    with pytest.raises(StructureError, match="periodic in three directions"):
        run(lennard_jones(), [Walker(0, slab, 30.0)], ensemble="npt")


def test_an_unknown_element_is_named(lennard_jones: Any) -> None:
    with pytest.raises(StructureError, match="Kr"):
        run(lennard_jones(), [Walker(0, bulk("Kr", cubic=True), 30.0)])


# --- geometry --------------------------------------------------------------------------------------------


def test_slab_and_molecule_stay_in_their_box(springs: Any) -> None:
    slab = fcc111("Al", (2, 2, 2), vacuum=6.0)
    slab.pbc = (True, True, False)
    dimer = Atoms("Al2", [[4, 4, 3], [4, 4, 5.5]], cell=[8, 8, 8])
    potential = springs(species=(13,), cutoff=3.5, length=2.86, stiffness=10.0)
    found = run(potential, [Walker(0, slab, 900.0), Walker(1, dimer, 900.0)], steps=400, stride=50, friction_per_ps=2.0)
    assert [w.stop_reason for w in found.walkers] == ["", ""]
    for sample in found.samples:
        start = (slab, dimer)[sample.frame.origin.walker]
        atoms = sample.frame.atoms
        assert (atoms.pbc == start.pbc).all()
        assert abs((atoms.positions - start.positions).mean(axis=0)[2]) < 1.0


def test_velocities_that_come_with_the_structure_are_kept(lennard_jones: Any) -> None:
    atoms = argon(2).atoms
    rng = np.random.default_rng(0)
    velocities = rng.normal(0, 1e-3, (8, 3))
    velocities -= velocities.mean(axis=0)
    atoms.set_velocities(velocities)
    [sample] = run(lennard_jones(), [Walker(0, atoms, 100.0)], ensemble="nve", steps=1, stride=1, timestep_fs=0.01).samples
    kinetic = 0.5 * (atoms.get_masses()[:, None] * velocities**2).sum()
    assert sample.temperature == pytest.approx(2 * kinetic / (21 * KB), rel=1e-3)


# --- the committee itself --------------------------------------------------------------------------------


def committee(dtype: torch.dtype = torch.float64, **settings: Any) -> Committee:
    """Untrained members with weak forces: not silicon, but as smooth as a potential should be."""
    config = ModelConfig(features=4, radial=4, cutoff=4.0, **settings)
    members = [
        LEIGNN(config, [1, 8, 14], e0s={1: 0, 8: 0, 14: 0}, energy_scale=0.2, mean_neighbours=16.0, seed=k).to(dtype)
        for k in range(3)
    ]
    return Committee(members)


def test_a_committee_moves_atoms_as_ase_does() -> None:
    atoms = bulk("Si", cubic=True)
    rng = np.random.default_rng(0)
    atoms.set_velocities(rng.normal(0, 0.02, (8, 3)))
    atoms.set_velocities(atoms.get_velocities() - atoms.get_velocities().mean(axis=0))
    model = committee()
    found = run(model, [Walker(0, atoms, 300.0)], ensemble="nve", driver="mean", steps=30, timestep_fs=1.0)
    reference = atoms.copy()
    reference.calc = model.calculator()
    dynamics = VelocityVerlet(reference, 1.0 * FS)
    for sample in found.samples:
        dynamics.run(10)
        apart = sample.frame.atoms.positions - reference.positions
        apart -= np.round(apart / atoms.cell[0, 0]) * atoms.cell[0, 0]
        np.testing.assert_allclose(apart, 0.0, atol=2e-6)
        assert sample.energy == pytest.approx(reference.get_potential_energy(), abs=1e-6)


@pytest.mark.parametrize("driver", ["mean", "member"])
def test_a_committee_drives_crystals_and_molecules_side_by_side(driver: str) -> None:
    model = committee(torch.float32)
    walkers = [Walker(0, bulk("Si", cubic=True), 100.0), Walker(1, molecule("H2O"), 50.0)]
    found = run(model, walkers, driver=driver, steps=20, timestep_fs=0.5)
    for sample in found.samples:
        [prediction] = model.predict([sample.frame.atoms])
        assert isinstance(prediction, CommitteePrediction)
        expected: Deviation = deviation(prediction)
        np.testing.assert_allclose(sample.deviation.per_atom, expected.per_atom, rtol=1e-3, atol=1e-6)
    again = run(model, walkers, driver=driver, steps=20, timestep_fs=0.5)
    assert [s.frame.uid for s in again.samples] == [s.frame.uid for s in found.samples]


def test_pressure_and_committee_stress_agree_in_sign() -> None:
    """High pressure shrinks the cell and tension stretches it, whatever the untrained potential is."""
    model = committee()
    walkers = [Walker(n, bulk("Si", cubic=True), 300.0, pressure=p) for n, p in enumerate((60.0, -60.0))]
    found = run(model, walkers, ensemble="npt", steps=40, stride=40, timestep_fs=1.0)
    small, large = (s.frame.atoms.get_volume() for s in found.samples[:2])
    assert small < bulk("Si", cubic=True).get_volume() < large


# --- production ------------------------------------------------------------------------------------------


def test_production_hands_over_samples_as_they_come(lennard_jones: Any) -> None:
    samples: list[Sample] = []
    report = run_md(
        lennard_jones(strengths=(1.0, 1.1)),
        argon(2),
        ExploreConfig(steps=30, timestep_fs=5.0),
        seed=np.random.SeedSequence(3),
        on_sample=samples.append,
    )
    assert [s.frame.origin.step for s in samples] == [10, 20, 30]
    assert (report.steps_done, report.stop_reason) == (30, "")
