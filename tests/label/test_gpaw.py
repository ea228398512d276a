"""GPAW for real, on cells that take a second or two; and what it is asked, without it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from al_leignn.config import GpawConfig
from al_leignn.core import Frame, LabelFailure, Labels, LabelVerdict, Origin, Reason
from al_leignn.errors import LabellerError
from al_leignn.label.base import LabelOutcome, label_frame, make_labeller
from al_leignn.label.box import in_box
from al_leignn.label.checks import Expectation
from al_leignn.label.gpaw import GpawLabeller, gpaw_parameters
from al_leignn.label.rescue import LADDER
from al_leignn.labelstore import LabelStore
from al_leignn.store import Stopwatch


def frame_of(atoms: Atoms, rattle: float = 0.0) -> Frame:
    atoms = atoms.copy()
    if rattle:
        atoms.rattle(rattle, seed=5)
    return Frame.of(atoms, Origin("given"))


def cheap(**keys: Any) -> GpawConfig:
    return GpawConfig.model_validate({"ecut": 150.0, "vacuum": 2.5, "time_limit_s": 120.0} | keys)


SILICON = frame_of(bulk("Si"), rattle=0.1)
HYDROGEN = frame_of(molecule("H2"))


def label(config: GpawConfig, frame: Frame, folder: Path, rung: int = 0) -> Labels | LabelFailure:
    scratch = folder / f"attempt-{len(list(folder.iterdir()))}"
    scratch.mkdir()
    return GpawLabeller(config).label(frame, scratch, rung)


def labels(config: GpawConfig, frame: Frame, folder: Path, rung: int = 0) -> Labels:
    result = label(config, frame, folder, rung)
    assert isinstance(result, Labels), result
    return result


def fake_python(folder: Path, script: str) -> str:
    """A stand-in for a Python whose GPAW breaks in ways that cannot be had on demand; it serves nobody."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\ntest "$2" != serve || exit 1\n{script}\n')
    path.chmod(0o755)
    return str(path)


# --- what GPAW is asked --------------------------------------------------------------------------------------


def random_atoms(seed: int, pbc: tuple[bool, bool, bool], celled: bool) -> Atoms:
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(4, 9, 3)) + rng.uniform(-1, 1, (3, 3))
    cell[~np.array(pbc)] *= celled
    return Atoms("H4", positions=rng.uniform(-6, 6, (4, 3)), cell=cell, pbc=pbc)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.booleans(), st.booleans(), st.booleans()), st.booleans(), st.floats(1, 8))
def test_box_leaves_room_and_moves_nothing_but_the_whole(
    seed: int, pbc: tuple[bool, bool, bool], celled: bool, vacuum: float
) -> None:
    atoms = random_atoms(seed, pbc, celled)
    boxed = in_box(atoms, vacuum)
    np.testing.assert_array_equal(boxed.pbc, atoms.pbc)
    np.testing.assert_array_equal(np.asarray(boxed.cell)[atoms.pbc], np.asarray(atoms.cell)[atoms.pbc])
    shifts = boxed.positions - atoms.positions
    np.testing.assert_allclose(shifts, shifts[:1].repeat(4, axis=0), atol=1e-12)
    assert boxed.cell.rank == 3
    for axis in np.flatnonzero(~atoms.pbc):
        normal = boxed.cell[axis] / np.linalg.norm(boxed.cell[axis])
        others = [i for i in range(3) if i != axis]
        np.testing.assert_allclose(np.asarray(boxed.cell)[others] @ normal, 0.0, atol=1e-9)
        heights = boxed.positions @ normal
        assert heights.min() >= vacuum - 1e-9
        assert np.linalg.norm(boxed.cell[axis]) - heights.max() >= vacuum - 1e-9


def test_a_cell_with_room_keeps_its_size() -> None:
    slab = bulk("Al", cubic=True)
    slab.center(vacuum=8.0, axis=2)
    slab.pbc = (True, True, False)
    assert in_box(slab, 6.0).cell[2, 2] == pytest.approx(slab.cell[2, 2])
    assert in_box(slab, 10.0).cell[2, 2] > slab.cell[2, 2]


def test_where_the_molecule_is_does_not_matter() -> None:
    moved = molecule("H2O")
    moved.positions += [100.0, -3.0, 0.5]
    np.testing.assert_allclose(in_box(moved, 6.0).positions, in_box(molecule("H2O"), 6.0).positions, atol=1e-9)


@pytest.mark.parametrize("mode", ["pw", "lcao", "fd"])
def test_rescue_changes_the_route_never_the_theory(mode: str) -> None:
    config = GpawConfig.model_validate({"mode": mode, "kpts": (2, 2, 2)})
    asked = [gpaw_parameters(config, SILICON.atoms, rung) for rung in LADDER]
    for route in ("mixer", "maxiter", "nbands"):
        for parameters in asked:
            parameters.pop(route, None)
    assert all(parameters == asked[0] for parameters in asked)


def test_one_kpoint_along_vacuum() -> None:
    slab = bulk("Al", cubic=True)
    slab.pbc = (True, True, False)
    assert gpaw_parameters(GpawConfig(kpts=(3, 3, 3)), slab, LADDER[0])["kpts"] == {"size": [3, 3, 1], "gamma": True}


def test_level_is_theory_and_version_not_route() -> None:
    level = GpawLabeller(GpawConfig()).level
    for route in (
        {"launch": ["nice"]},
        {"time_limit_s": 1.0},
        {"max_scf": 7},
        {"mixer_beta": 0.1},
        {"spacing": 0.1},
        {"basis": "sz"},
    ):
        assert GpawLabeller(GpawConfig.model_validate(route)).level == level, route
    theories = (
        {"xc": "LDA"},
        {"ecut": 301.0},
        {"kpts": (2, 1, 1)},
        {"spin": True},
        {"smearing_ev": 0.2},
        {"mode": "fd"},
        {"vacuum": 7.0},
        {"dispersion": "d3"},
        {"hubbard_u": {"Si": 1.0}},
        {"kpt_spacing": 0.3},
    )
    assert len({GpawLabeller(GpawConfig.model_validate(theory)).level for theory in theories} | {level}) == len(theories) + 1


def test_level_depends_on_the_data_sets_that_are_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = GpawLabeller(GpawConfig()).level
    monkeypatch.setenv("GPAW_SETUP_PATH", str(tmp_path))
    own_python = fake_python(tmp_path, f'exec {sys.executable} "$@"')  # a new name: nothing is remembered about it
    assert GpawLabeller(GpawConfig(python=own_python)).level != before


# --- what is missing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("python", ["/usr/bin/env", "/no/such/python"])
def test_no_gpaw(python: str) -> None:
    labeller = GpawLabeller(GpawConfig(python=python))
    (problem,) = labeller.check([14])
    assert python in problem
    assert "pip install" in problem
    assert labeller.describe()["code"] == "not installed"
    with pytest.raises(LabellerError, match="has no GPAW"):
        _ = labeller.level


def test_check_names_elements_without_data_set() -> None:
    problems = GpawLabeller(GpawConfig()).check([14, 43, 84])
    assert [problem.split(":")[0] for problem in problems] == ["PAW data set Tc.PBE", "PAW data set Po.PBE"]
    assert GpawLabeller(GpawConfig()).check([14, 8, 14]) == []


def test_check_names_a_launcher_of_ranks_that_gpaw_cannot_use() -> None:
    problems = GpawLabeller(GpawConfig(launch=["mpirun", "-np", "2"])).check([14])
    probe = subprocess.run(
        [sys.executable, "-c", "from gpaw.cgpaw import have_mpi; print(have_mpi)"], capture_output=True, text=True
    )
    assert [("MPI" in problem) for problem in problems] == ([] if probe.stdout.strip() == "True" else [True])


def test_namesakes_are_what_gpaw_calls_its_data_sets() -> None:
    """The worker answers for these functionals without asking GPAW."""
    names = ["LDA", "PBE", "revPBE", "RPBE"]
    ask = "import sys; from gpaw.xc import XC; print([XC(name).get_setup_name() for name in sys.argv[1:]])"
    done = subprocess.run([sys.executable, "-c", ask, *names], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(names)


def test_check_names_an_unknown_functional() -> None:
    (problem,) = GpawLabeller(GpawConfig(xc="PEB")).check([14])
    assert "PEB" in problem


# --- GPAW itself ---------------------------------------------------------------------------------------------


def test_forces_and_stress_of_a_crystal_are_derivatives_of_the_energy(tmp_path: Path) -> None:
    config = cheap(density_convergence=1e-6)
    centre = labels(config, SILICON, tmp_path)
    step = 0.02

    def slope(change: Callable[[Atoms, float], None]) -> float:
        energies = []
        for size in (step, -step):
            atoms = SILICON.atoms.copy()
            change(atoms, size)
            energies.append(labels(config, Frame("x", atoms, Origin("given")), tmp_path).energy)
        return (energies[0] - energies[1]) / (2 * step)

    def move(atoms: Atoms, size: float) -> None:
        atoms.positions[0, 1] += size

    def shear(atoms: Atoms, size: float) -> None:
        strain = np.eye(3)
        strain[0, 1] = strain[1, 0] = size / 2
        atoms.set_cell(np.asarray(atoms.cell) @ strain, scale_atoms=True)

    assert -slope(move) == pytest.approx(centre.forces[0, 1], abs=0.01)
    assert centre.stress is not None
    assert slope(shear) / SILICON.atoms.get_volume() == pytest.approx(centre.stress[5], abs=0.001)


STRETCHED = frame_of(Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.9]]))
ZINC = frame_of(Atoms("Zn2", positions=[[0, 0, 0], [0.1, 1.5, 2.2]], cell=[2.7, 2.9, 4.6], pbc=True))
ALUMINIUM = frame_of(Atoms("Al2", positions=[[0, 0, 0], [1.5, 1.4, 2.3]], cell=[2.9, 2.9, 4.2], pbc=True))
HOT = {"smearing_ev": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "frame"),
    [
        pytest.param({"mode": "lcao", "spacing": 0.2}, STRETCHED, id="lcao"),
        pytest.param({"mode": "fd", "spacing": 0.2}, STRETCHED, id="fd"),
        pytest.param(
            {"spin": True, "initial_moments": {"H": 0.5}, "charge": 1.0, "ecut": 300.0}, STRETCHED, id="spin and charge"
        ),
        pytest.param({"hubbard_u": {"Zn": 5.0}, "ecut": 350.0}, ZINC, id="U"),
        pytest.param({"dispersion": "d3"}, SILICON, id="d3"),
        pytest.param({"dispersion": "d4"}, SILICON, id="d4"),
        pytest.param({"xc": "r2SCAN", "ecut": 250.0}, SILICON, id="r2SCAN"),
        pytest.param(HOT, ALUMINIUM, id="hot metal"),
    ],
)
def test_forces_are_derivatives_of_the_energy_whatever_the_settings(tmp_path: Path, keys: dict[str, Any], frame: Frame) -> None:
    config = cheap(density_convergence=1e-6, **keys)
    force = labels(config, frame, tmp_path).forces[1, 2]
    free, zero = [], []
    for size in (0.02, -0.02):
        atoms = frame.atoms.copy()
        atoms.positions[1, 2] += size
        free.append(labels(config, Frame("x", atoms, frame.origin), tmp_path).energy)
        (found,) = (json.loads(path.read_text()) for path in tmp_path.glob(f"attempt-{len(free)}/result.json"))
        zero.append(found["energy_zero"])
    slope, other = ((up - down) / 0.04 for up, down in (free, zero))
    tolerance = 0.02 + 0.01 * abs(force)
    assert abs(force) > 5 * tolerance, "a force that says something"
    assert -slope == pytest.approx(force, abs=tolerance)
    if keys == HOT:
        assert abs(other - slope) > 2 * tolerance, "the energy at zero smearing is not the one that forces belong to"


@pytest.mark.slow
def test_what_does_not_converge_at_once_converges_on_a_later_rung_to_the_same(tmp_path: Path) -> None:
    store, easy = LabelStore(tmp_path / "labels"), labels(cheap(density_convergence=1e-5), SILICON, tmp_path)
    hasty = GpawLabeller(cheap(density_convergence=1e-5, max_scf=6, mixer_beta=0.9))
    outcome = label_frame(hasty, SILICON, store, tmp_path / "scratch")
    assert isinstance(outcome.result, Labels), outcome.result
    assert outcome.rung > 0
    assert outcome.result.energy == pytest.approx(easy.energy, abs=1e-3)
    np.testing.assert_allclose(outcome.result.forces, easy.forces, atol=5e-3)
    assert [entry.meta["rung"] for entry in store] == [outcome.rung]
    assert not list((tmp_path / "scratch").iterdir()), "nothing to restart from is left"


LOOSE = {"density_convergence": 0.1, "energy_convergence": 0.1, "eigenstates_convergence": 0.1}
"""An SCF that ends after three steps: in silicon with forces 0.2 eV/Å beside those of ten."""


@pytest.mark.slow
def test_far_from_the_committee_a_true_label_stays_and_a_loose_one_is_found_out(tmp_path: Path) -> None:
    """The residual check with real labels: a committee that is right, and one that is wrong by 1 eV/Å on each atom."""
    usual, loose = (GpawLabeller(cheap(kpts=(2, 2, 2), **keys)) for keys in ({}, LOOSE))
    truth = labels(cheap(kpts=(2, 2, 2), density_convergence=1e-6), SILICON, tmp_path)
    shifted = truth.forces + np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    right, wrong = (Expectation(truth.energy, forces, force_bound=0.05) for forces in (truth.forces, shifted))

    def outcome(name: str, labeller: GpawLabeller, committee: Expectation) -> LabelOutcome:
        return label_frame(labeller, SILICON, LabelStore(tmp_path / name), tmp_path / "scratch", expectation=committee)

    as_expected = outcome("as expected", usual, right)
    assert (as_expected.computed, as_expected.against) == (1, None)
    surprise = outcome("surprise", usual, wrong)
    assert (surprise.computed, surprise.against) == (2, None)
    np.testing.assert_allclose(surprise.numbers("", "").forces, truth.forces, atol=0.01)
    bad = outcome("bad", loose, right)
    assert bad.computed == 2
    assert bad.against is not None
    assert (bad.against.reason, bad.against.reason.verdict) == (Reason.IRREPRODUCIBLE, LabelVerdict.QUARANTINED)
    assert right.force_error(bad.numbers("", "")) > 3 * right.force_bound


def test_equal_frames_get_equal_numbers_computed_or_found(tmp_path: Path) -> None:
    labeller = make_labeller(cheap())
    stores = [LabelStore(tmp_path / name) for name in ("first", "second", "first")]
    outcomes = [label_frame(labeller, SILICON, store, tmp_path / "scratch") for store in stores]
    assert [outcome.from_store for outcome in outcomes] == [False, False, True]
    results = [outcome.result for outcome in outcomes]
    for result in results:
        assert isinstance(result, Labels)
        assert isinstance(results[0], Labels)
        assert result.energy == results[0].energy
        np.testing.assert_array_equal(result.forces, results[0].forces)
        assert result.stress is not None
        assert results[0].stress is not None
        np.testing.assert_array_equal(result.stress, results[0].stress)


def test_next_frame_goes_on_from_the_density_before(tmp_path: Path) -> None:
    """The same label in fewer SCF steps; the very same after a fresh start; and what fails is not gone on from."""
    labeller = GpawLabeller(cheap())
    moved = SILICON.atoms.copy()
    moved.rattle(0.01, seed=1)

    def follow(frame: Frame, name: str, *, fresh: bool) -> Labels | LabelFailure:
        (tmp_path / name).mkdir()
        return labeller.follow(frame, tmp_path / name, fresh=fresh)

    def steps(name: str) -> int:
        return int(json.loads((tmp_path / name / "result.json").read_text())["scf_steps"])

    first, second = follow(SILICON, "first", fresh=True), follow(frame_of(moved), "second", fresh=False)
    failed = follow(frame_of(bulk("Tc")), "failed", fresh=False)
    third, fourth = follow(frame_of(moved), "third", fresh=False), follow(SILICON, "fourth", fresh=True)
    assert isinstance(failed, LabelFailure)
    assert "Tc.PBE" in failed.detail
    assert isinstance(first, Labels)
    assert isinstance(second, Labels)
    assert isinstance(third, Labels)
    assert isinstance(fourth, Labels)
    assert steps("second") < steps("third")  # which had to start anew
    assert second.energy == pytest.approx(third.energy, abs=1e-3)
    np.testing.assert_allclose(second.forces, third.forces, atol=0.01)
    assert first.energy == fourth.energy
    np.testing.assert_array_equal(first.forces, fourth.forces)


def test_every_rung_finds_the_same_ground_state(tmp_path: Path) -> None:
    config = cheap(density_convergence=1e-5)
    easy, *gentle = (labels(config, SILICON, tmp_path, rung) for rung in range(len(LADDER)))
    for result in gentle:
        assert result.energy == pytest.approx(easy.energy, abs=1e-4)
        np.testing.assert_allclose(result.forces, easy.forces, atol=2e-3)


@pytest.mark.parametrize(
    "mode", [{"mode": "pw"}, {"mode": "lcao", "spacing": 0.3}, {"mode": "fd", "spacing": 0.3}], ids=lambda m: m["mode"]
)
def test_molecule_without_a_cell(tmp_path: Path, mode: dict[str, Any]) -> None:
    result = labels(cheap(**mode), HYDROGEN, tmp_path)
    assert result.stress is None
    np.testing.assert_allclose(result.forces[0], -result.forces[1], atol=1e-3)
    np.testing.assert_allclose(result.forces[:, :2], 0.0, atol=1e-3)  # along the bond, which is along z
    assert not HYDROGEN.atoms.cell.any()


def test_slab(tmp_path: Path) -> None:
    slab = Atoms("Al2", positions=[[0, 0, 0], [1.43, 1.43, 2.0]], cell=[2.86, 2.86, 0], pbc=(True, True, False))
    result = labels(cheap(kpts=(2, 2, 5)), frame_of(slab), tmp_path)
    assert result.stress is None
    np.testing.assert_allclose(result.forces[0], -result.forces[1], atol=0.02)


def test_cell_of_one_atom_keeps_the_symmetry_of_its_lattice(tmp_path: Path) -> None:
    result = labels(cheap(kpts=(2, 2, 2)), frame_of(bulk("Al")), tmp_path)
    np.testing.assert_allclose(result.forces, 0.0, atol=1e-3)
    assert result.stress is not None
    np.testing.assert_allclose(result.stress[3:], 0.0, atol=1e-3)
    np.testing.assert_allclose(result.stress[:3], result.stress[0], atol=1e-3)


def test_spin_and_charge_are_heard(tmp_path: Path) -> None:
    atom = frame_of(Atoms("H", cell=[4, 4, 4], pbc=True))
    paired, polarised = (labels(cheap(spin=spin), atom, tmp_path).energy for spin in (False, True))
    assert polarised < paired - 0.3  # a free hydrogen atom has one unpaired electron
    assert labels(cheap(charge=1.0), atom, tmp_path).energy != pytest.approx(paired, abs=0.5)


@pytest.mark.parametrize("kind", ["d3", "d4"])
def test_dispersion_is_added_to_energy_forces_and_stress(tmp_path: Path, kind: str) -> None:
    module = pytest.importorskip(f"dft{kind}.ase")
    plain, corrected = (labels(cheap(dispersion=word), SILICON, tmp_path) for word in ("", kind))
    atoms = SILICON.atoms.copy()
    atoms.calc = module.DFTD3(method="PBE", damping="d3bj") if kind == "d3" else module.DFTD4(method="PBE")
    assert corrected.energy - plain.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(corrected.forces - plain.forces, atoms.get_forces(), atol=1e-6)
    assert plain.stress is not None
    assert corrected.stress is not None
    np.testing.assert_allclose(corrected.stress - plain.stress, atoms.get_stress(), atol=1e-6)


def test_hubbard_u_is_heard_on_the_right_shell(tmp_path: Path) -> None:
    config = cheap(hubbard_u={"Fe": 4.0, "Ce": 5.0})
    assert gpaw_parameters(config, SILICON.atoms, LADDER[0])["setups"] == {"Fe": ":d,4", "Ce": ":f,5"}
    zinc = frame_of(Atoms("Zn", cell=[3.2, 3.2, 3.2], pbc=True))
    plain, corrected = (labels(cheap(hubbard_u=u), zinc, tmp_path).energy for u in ({}, {"Zn": 6.0}))
    assert corrected != pytest.approx(plain, abs=0.05)


def test_kpoints_by_density_follow_the_cell() -> None:
    config = GpawConfig(kpts=(9, 9, 9), kpt_spacing=0.4)
    for factor in (1.0, 2.0):
        atoms = Atoms("Si", cell=[4.0 * factor, 6.0, 9.0], pbc=(True, True, False))
        a, b, c = gpaw_parameters(config, atoms, LADDER[0])["kpts"]["size"]
        assert (a, b, c) == (4 if factor == 1.0 else 2, 3, 1)


def test_tight_is_the_same_theory_to_a_smaller_tolerance() -> None:
    usual, tight = (gpaw_parameters(GpawConfig(), SILICON.atoms, LADDER[0], tight=tight) for tight in (False, True))
    assert tight["convergence"] == {name: pytest.approx(value / 10) for name, value in usual["convergence"].items()}
    assert {k: v for k, v in tight.items() if k not in ("convergence", "maxiter")} == {
        k: v for k, v in usual.items() if k not in ("convergence", "maxiter")
    }


def test_unconverged_is_a_failure_after_the_whole_ladder(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels")
    outcome = label_frame(GpawLabeller(cheap(max_scf=1)), HYDROGEN, store, tmp_path / "scratch")
    assert isinstance(outcome.result, LabelFailure)
    assert (outcome.result.reason, outcome.rung) == ("unconverged", len(LADDER) - 1)
    assert len(store) == 0


def test_element_without_data_set_is_a_failure_that_names_it(tmp_path: Path) -> None:
    result = label(cheap(), frame_of(bulk("Tc")), tmp_path)
    assert isinstance(result, LabelFailure)
    assert result.reason == "crashed"
    assert "Tc.PBE" in result.detail


def test_what_gpaw_refuses_is_a_failure_that_says_why(tmp_path: Path) -> None:
    result = label(cheap(xc="PEB"), HYDROGEN, tmp_path)
    assert isinstance(result, LabelFailure)
    assert result.reason == "crashed"
    assert "PEB" in result.detail


# --- GPAW as a process ---------------------------------------------------------------------------------------

LONG = cheap(ecut=500.0, kpts=(6, 6, 6))  # minutes, if let


def workers_in(folder: Path) -> list[int]:
    """Processes whose working folder is below `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if path.readlink().is_relative_to(folder):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def gone(folder: Path, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while workers_in(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not workers_in(folder)


def test_time_limit_is_a_failure_and_leaves_no_process(tmp_path: Path) -> None:
    result = label(LONG.model_copy(update={"time_limit_s": 2.0}), SILICON, tmp_path)
    assert isinstance(result, LabelFailure)
    assert result.reason == "timeout"
    assert gone(tmp_path)


def test_a_limit_of_cpu_time_ends_the_fork_and_not_the_server(tmp_path: Path) -> None:
    labels(cheap(), HYDROGEN, tmp_path)
    before = servers()
    watch = Stopwatch()
    (tmp_path / "limited").mkdir()
    result = GpawLabeller(LONG).within(2.5).label(SILICON, tmp_path / "limited")
    assert isinstance(result, LabelFailure)
    assert result.reason is Reason.BUDGET
    assert 1.9 < watch.times()["cpu_s"] < 2.5
    assert servers() == before


def servers() -> set[str]:
    """Processes that this one has started to make labels in forks."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {pid for pid in children if b"gpaw_worker.py\0serve" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def test_after_a_time_limit_one_new_process_serves_all_labels(tmp_path: Path) -> None:
    labels(cheap(), HYDROGEN, tmp_path)
    before = servers()
    label(LONG.model_copy(update={"time_limit_s": 2.0}), SILICON, tmp_path)
    assert servers() == set()
    labels(cheap(), HYDROGEN, tmp_path)
    after = servers()
    assert len(before) == len(after) == 1
    assert before != after
    labels(cheap(), HYDROGEN, tmp_path)
    assert servers() == after


def test_gpaw_dies_with_the_runner(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = (
        "import sys; from pathlib import Path; from tests.label import test_gpaw as t; "
        "t.GpawLabeller(t.LONG).label(t.SILICON, Path(sys.argv[1]))"
    )
    runner = subprocess.Popen([sys.executable, "-c", code, str(scratch)], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 60
        while not (scratch / "gpaw.txt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert workers_in(scratch)
        os.kill(runner.pid, signal.SIGKILL)
        runner.wait(10)
        assert gone(scratch)
    finally:
        runner.kill()
        runner.wait()


@pytest.mark.parametrize(
    ("script", "reason", "words"),
    [
        ("exit 0", "no output", ""),
        ('echo \'{"energy": -1.0, "for\' > result.json', "bad output", ""),
        ("echo '{\"energy\": -1.0}' > result.json", "bad output", ""),
        ("echo '[]' > result.json", "bad output", ""),
        ("echo 'Segmentation fault' >&2; exit 139", "crashed", "Segmentation fault"),
        ("kill -9 $$", "killed", "137"),
    ],
)
def test_broken_ends_are_named(tmp_path: Path, script: str, reason: str, words: str) -> None:
    result = label(cheap(python=fake_python(tmp_path, script)), HYDROGEN, tmp_path)
    assert isinstance(result, LabelFailure)
    assert (result.uid, result.reason) == (HYDROGEN.uid, reason), result
    assert words in result.detail


def test_launch_words_come_first(tmp_path: Path) -> None:
    result = label(
        cheap(launch=["env", "--unset=HOME"], python=fake_python(tmp_path, 'test -z "$HOME" && exit 7')), HYDROGEN, tmp_path
    )
    assert isinstance(result, LabelFailure)
    assert "exit 7" in result.detail


def test_other_data_sets(tmp_path: Path) -> None:
    """Sodium with one valence electron: fewer plane waves, much the same forces; a set that is not there is named."""
    config = cheap(datasets={"Na": "1"}, hubbard_u={"Na": 1.0})
    assert gpaw_parameters(config, bulk("Na"), LADDER[0])["setups"] == {"Na": "1:d,1"}
    sodium = frame_of(bulk("Na", cubic=True), rattle=0.1)
    one, seven = (labels(cheap(ecut=ecut, datasets=which), sodium, tmp_path) for ecut, which in ((150, {"Na": "1"}), (400, {})))
    assert np.abs(one.forces - seven.forces).max() < 0.1 * np.abs(seven.forces).max()
    assert one.energy != pytest.approx(seven.energy, abs=1e-3)
    problems = GpawLabeller(cheap(datasets={"Na": "1", "Si": "2"})).check([11, 14])
    assert [problem.split(":")[0] for problem in problems] == ["PAW data set Si.2.PBE"]
    assert GpawLabeller(cheap(datasets={"Na": "1"})).level != GpawLabeller(cheap()).level
