"""Real labels pass; labels with a part or a sign turned are refused, with a message that says what it is."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT

from al_leignn.core import Frame, LabelledFrame, Labels, Origin
from al_leignn.errors import DataError
from al_leignn.train.consistency import check_labels
from al_leignn.userdata import read_user_data

Turn = Callable[[LabelledFrame], LabelledFrame]

KCAL, HARTREE = units.kcal / units.mol, units.Hartree


def turned(
    *, energy: float = 1.0, forces: float = 1.0, stress: float = 1.0, offset: float = 0.0
) -> Callable[[LabelledFrame], LabelledFrame]:
    """A frame whose labels are multiplied, and whose energy is moved by `offset` eV/atom."""

    def turn(item: LabelledFrame) -> LabelledFrame:
        labels = item.labels
        size = len(item.frame.atoms)
        changed = Labels(
            labels.energy * energy + offset * size,
            labels.forces * forces,
            None if labels.stress is None else labels.stress * stress,
        )
        return replace(item, labels=changed)

    return turn


UNITS = {
    "kcal/mol": turned(energy=1 / KCAL, forces=1 / KCAL, stress=1 / KCAL),
    "Hartree": turned(energy=1 / HARTREE, forces=units.Bohr / HARTREE, stress=units.Bohr**3 / HARTREE),
}


def _label(atoms: Atoms, step: int) -> LabelledFrame:
    frame = Frame.of(atoms, Origin("data:walk.extxyz", walker=step // 5, step=step))
    teacher = frame.atoms.copy()
    teacher.calc = EMT()
    # EMT counts from bulk metal; 4 eV/atom of binding make energies per atom what codes print.
    energy = teacher.get_potential_energy() - 4.0 * len(teacher)
    return LabelledFrame(frame, Labels(energy, teacher.get_forces(), teacher.get_stress()), "emt")


@pytest.fixture(scope="module")
def walk() -> list[LabelledFrame]:
    """A rattled copper cell whose atoms swing by 0.1 Å, a fifth of a radian a step, as MD does."""
    rng = np.random.default_rng(1)
    atoms = bulk("Cu", "fcc", a=3.6, cubic=True) * (2, 1, 1)
    rest = atoms.positions + rng.normal(0.0, 0.1, atoms.positions.shape)
    phase = rng.uniform(0.0, 2 * np.pi, rest.shape)
    frames = []
    for step in range(30):
        atoms.positions = rest + 0.1 * np.sin(0.2 * step + phase)
        frames.append(_label(atoms, step))
    return frames


@pytest.fixture(scope="module")
def strained() -> list[LabelledFrame]:
    """A cell at thirty lengths, as for an equation of state."""
    cells = [bulk("Cu", "fcc", a=a, cubic=True) for a in np.linspace(3.4, 3.9, 30)]
    return [_label(atoms, n) for n, atoms in enumerate(cells)]


def refused(frames: list[LabelledFrame], pattern: str, e0s: dict[int, float] | None = None) -> None:
    with pytest.raises(DataError) as caught:
        check_labels(frames, e0s or {})
    assert re.search(pattern, str(caught.value)), str(caught.value)


def test_labels_of_one_potential_agree(walk: list[LabelledFrame], strained: list[LabelledFrame]) -> None:
    for frames in (walk, strained, [*walk, *strained], walk[:1], walk[:2]):
        assert check_labels(frames) == []


@pytest.mark.parametrize("unit", UNITS)
def test_a_part_in_another_unit_is_named(walk: list[LabelledFrame], unit: str) -> None:
    for part in (range(20, 30), range(0, 30, 3)):
        mixed = [UNITS[unit](f) if n in part else f for n, f in enumerate(walk)]
        refused(mixed, rf"energies of 10 of 30 frames(.|\n)*{unit}(.|\n)*walk\.extxyz #{part[0]}")


def test_gradients_given_as_forces_are_told(walk: list[LabelledFrame]) -> None:
    refused([turned(forces=-1.0)(f) for f in walk], "turn the sign of the forces")


def test_energies_in_another_unit_than_forces_are_told(walk: list[LabelledFrame]) -> None:
    refused([turned(energy=1 / KCAL)(f) for f in walk], "forces in eV/Å|forces do not explain")


def test_pressure_given_as_stress_is_told(strained: list[LabelledFrame]) -> None:
    refused([turned(stress=-1.0)(f) for f in strained], "turn the sign of the stress")
    thermal = []
    rng = np.random.default_rng(2)
    for n, item in enumerate(strained):  # so far apart that only the trend of stress with volume is left
        atoms = item.frame.atoms.copy() * (2, 1, 1)
        atoms.positions += rng.normal(0.0, 0.15, atoms.positions.shape)
        thermal.append(_label(atoms, n))
    assert check_labels(thermal) == []
    refused([turned(stress=-1.0)(f) for f in thermal], "stress falls when the volume grows")


def test_two_levels_of_theory_are_told(walk: list[LabelledFrame]) -> None:
    for part in (range(15, 30), range(0, 30, 2)):
        mixed = [turned(offset=0.5)(f) if n in part else f for n, f in enumerate(walk)]
        refused(mixed, r"step by 0\.5 eV/atom(.|\n)*one level of theory")


def test_one_odd_energy_is_named_and_left_out(walk: list[LabelledFrame]) -> None:
    mixed = [turned(offset=0.5)(f) if n == 29 else f for n, f in enumerate(walk)]
    assert check_labels(mixed) == [(29, "energy does not follow from the forces of the nearest frames")]


def test_reference_energies_must_fit(walk: list[LabelledFrame]) -> None:
    assert check_labels(walk, {29: 0.0}) == []
    refused(walk, "energies of atomisation already(.|\n)*leave the isolated-atom energies out", {29: -1300.0})
    refused([turned(offset=-1304.0)(f) for f in walk], "do not belong together", {29: 0.0})


# --- published sets ----------------------------------------------------------------------------------------

SETS = ["3bpa/train_300K", "mlearn_si/train", "mlearn_mo/train", "lips20/Li2S", "ch4_dpgen/all", "ta_snap/all", "inp_snap/all"]


@pytest.mark.parametrize("name", SETS)
def test_published_sets_pass_and_parts_in_other_units_do_not(reference_data: Path, name: str) -> None:
    frames = [f for f in read_user_data(reference_data / f"{name}.extxyz.xz", "x") if np.abs(f.labels.forces).max() < 50.0][:150]
    assert check_labels(frames) == []
    chosen = np.random.default_rng(0).random(len(frames)) < 0.3
    for unit, turn in UNITS.items():
        refused([turn(f) if odd else f for f, odd in zip(frames, chosen, strict=True)], unit)


@pytest.mark.parametrize("name", ["mlearn_si/train", "mlearn_mo/train", "mlearn_li/train", "mapbi3_scan/all", "inp_snap/all"])
def test_the_sign_of_published_stress_is_told(reference_data: Path, name: str) -> None:
    frames = read_user_data(reference_data / f"{name}.extxyz.xz", "x")[:200]
    assert check_labels(frames) == []
    refused([turned(stress=-1.0)(f) for f in frames], "sign of the stress")
