"""Structure against systems whose structure is known: ideal gas, crystals, tetrahedra, molecules; and published AIMD."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from al_leignn.validate.structure import first_minimum, neighbourhood, pair_functions, shells
from al_leignn.validate.trajectory import Trajectory, trajectory


def crystal(name: str, structure: str | None = None, *, a: float, repeat: int, rattle: float, frames: int = 25) -> Trajectory:
    """A crystal whose atoms shake independently (Å, standard deviation)."""
    rng = np.random.default_rng(0)
    images = [bulk(name, structure, a=a, cubic=True).repeat(repeat) for _ in range(frames)]
    for atoms in images:
        atoms.positions += rattle * rng.standard_normal(atoms.positions.shape)
    return trajectory(images, name, interval_fs=1.0)


def test_an_ideal_gas_has_g_of_one() -> None:
    """In a sheared cell smaller than twice the cutoff, with two species and few atoms: g = 1, unlike and like pairs alike."""
    rng = np.random.default_rng(1)
    cell = np.array([[8.0, 0, 0], [2.0, 9.0, 0], [-1.0, 1.0, 7.5]])
    gas = Trajectory(
        name="gas",
        numbers=np.array([1] * 3 + [8] * 9),
        pbc=np.array([True] * 3),
        cells=np.tile(cell, (1000, 1, 1)),
        positions=rng.random((1000, 12, 3)) @ cell,
        interval_fs=1.0,
    )
    found = pair_functions(gas, cutoff=6.0, width=0.5)
    assert list(found) == [(1, 1), (1, 8), (8, 8)]
    for g in found.values():
        mean, error = g.series.mean(axis=0), g.series.std(axis=0) / np.sqrt(1000)
        assert mean[4:] == pytest.approx(1.0, abs=0.1)
        assert (np.abs(mean - 1)[2:] < 4 * error[2:]).all()


@pytest.mark.parametrize(
    ("name", "structure", "a", "distance", "coordination"),
    [("Al", "fcc", 4.05, 4.05 / np.sqrt(2), 12), ("Si", "diamond", 5.43, 5.43 * np.sqrt(3) / 4, 4), ("Po", "sc", 3.3, 3.3, 6)],
)
def test_shells_of_crystals(name: str, structure: str, a: float, distance: float, coordination: int) -> None:
    found = crystal(name, structure, a=a, repeat=2, rattle=0.05)
    (g,) = pair_functions(found).values()
    inside = shells(found)
    edge = next(iter(inside.values()))
    r, mean = g.grid, g.series.mean(axis=0)
    assert r[np.where(r < edge, mean, 0).argmax()] == pytest.approx(distance, abs=0.06)
    number = next(o for o in neighbourhood(found, inside) if o.kind == "coordination")
    assert (number.series == coordination).all()
    density = (len(found.numbers) - 1) / found.frame(0).get_volume()
    integral = density * np.sum((4 * np.pi * r**2 * mean * 0.05)[r < edge])
    assert integral == pytest.approx(coordination, rel=0.01)


def test_a_tetrahedral_network_has_tetrahedral_angles() -> None:
    found = crystal("Si", "diamond", a=5.43, repeat=2, rattle=0.02)
    angles = next(o for o in neighbourhood(found, shells(found)) if o.kind == "adf")
    mean = angles.series.mean(axis=0)
    assert np.sum(mean) * 3.0 == pytest.approx(1.0)
    assert np.sum(mean * angles.grid) * 3.0 == pytest.approx(np.degrees(np.arccos(-1 / 3)), abs=0.3)
    assert mean[np.abs(angles.grid - 109.47) > 9].max() < 1e-3


def test_angles_of_a_cubic_crystal() -> None:
    """Six neighbours: twelve right angles for every three straight ones."""
    found = crystal("Po", "sc", a=3.3, repeat=2, rattle=0.01)
    angles = next(o for o in neighbourhood(found, shells(found)) if o.kind == "adf")
    mean = angles.series.mean(axis=0) * 3.0
    assert mean[angles.grid > 150].sum() == pytest.approx(0.2)
    assert mean[np.abs(angles.grid - 90) < 10].sum() == pytest.approx(0.8)


def test_a_molecule_without_a_cell() -> None:
    """h(r) is a distribution of distances; each species sees its own first shell only (H-O-H, but no H-H-O)."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(40):
        atoms = molecule("H2O")
        atoms.positions += 0.01 * rng.standard_normal((3, 3))
        images.append(atoms)
    water = trajectory(images, "water", interval_fs=0.5)
    found = pair_functions(water)
    assert {h.name: round(float(h.series.mean(axis=0).sum() * 0.05), 9) for h in found.values()} == {"h(r) H-H": 1, "h(r) H-O": 1}
    near = {o.name: o for o in neighbourhood(water, shells(water))}
    assert {name for name, o in near.items() if o.kind == "adf"} == {"angles at O"}
    angle = near["angles at O"]
    assert np.sum(angle.series.mean(axis=0) * angle.grid) * 3.0 == pytest.approx(104.0, abs=1.5)
    assert near["coordination O by H"].series.mean() == 2
    assert "coordination H by O" not in near


def test_a_gas_has_no_shell() -> None:
    rng = np.random.default_rng(2)
    images = [Atoms("Ar20", 12 * rng.random((20, 3)), cell=[12.0] * 3, pbc=True) for _ in range(300)]
    positions = np.array([a.positions for a in images])
    gas = Trajectory("gas", images[0].numbers, np.array([True] * 3), np.tile(12.0 * np.eye(3), (300, 1, 1)), positions, 1.0)
    (g,) = pair_functions(gas, width=0.5).values()
    assert first_minimum(g) is None


def published(folder: Path, name: str, frames: slice) -> Trajectory:
    from al_leignn.userdata import read_parts

    if not (folder / name).exists():
        pytest.skip(f"no {name} in {folder}")
    (part,) = read_parts(folder / name)
    images = part.images[frames]
    positions = np.array([a.positions for a in images])
    cells = np.array([np.asarray(a.cell) for a in images])
    return Trajectory(name, images[0].numbers, np.array([True] * 3), cells, positions, 1.0)


def test_first_peaks_of_published_water(reference_data: Path) -> None:
    """Numbers of its README; frames are snapshots, not evenly spaced in time."""
    water = published(reference_data, "water_pbe0ts/train.extxyz.xz", slice(None, None, 8))
    g = {o.name: o for o in pair_functions(water).values()}
    r = g["g(r) O-O"].grid
    oxygen, bonds = (g[name].series.mean(axis=0) for name in ("g(r) O-O", "g(r) H-O"))
    assert r[oxygen.argmax()] == pytest.approx(2.78, abs=0.06)
    assert oxygen.max() == pytest.approx(2.9, abs=0.25)
    hydrogen_bond = (r > 1.4) & (r < 2.3)
    assert r[hydrogen_bond][bonds[hydrogen_bond].argmax()] == pytest.approx(1.76, abs=0.08)
    assert bonds[hydrogen_bond].max() == pytest.approx(1.52, abs=0.15)
    assert r[bonds.argmax()] == pytest.approx(0.98, abs=0.05)


def test_first_peaks_of_a_published_electrolyte(reference_data: Path) -> None:
    lips = published(reference_data, "lips/train.extxyz.xz", slice(None, None, 16))
    for name, peak in (("P-S", 2.03), ("Li-S", 2.43)):
        g = next(o for o in pair_functions(lips).values() if o.name == f"g(r) {name}")
        assert g.grid[g.series.mean(axis=0).argmax()] == pytest.approx(peak, abs=0.06)
    near = {o.name: o.series.mean() for o in neighbourhood(lips, shells(lips))}
    assert near["coordination P by S"] == pytest.approx(4.0, abs=0.15)
