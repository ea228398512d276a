"""Reading trajectories: what files say of time and temperature, followed atoms, and refusals that say what to do."""

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from al_leignn.errors import DataError
from al_leignn.units import FS, KB
from al_leignn.validate.trajectory import check_comparable, read_trajectory, trajectory


def frames(n: int = 40, *, seed: int = 0) -> list[Atoms]:
    """Silicon whose atoms shake."""
    rng = np.random.default_rng(seed)
    images = [bulk("Si", cubic=True) for _ in range(n)]
    for atoms in images:
        atoms.positions += 0.05 * rng.standard_normal((8, 3))
    return images


@pytest.mark.parametrize(("key", "unit"), [("time_fs", 1.0), ("time_ps", 1e-3)])
@pytest.mark.parametrize("suffix", ["", ".xz"])
def test_extended_xyz_says_its_time(tmp_path: Path, key: str, unit: float, suffix: str) -> None:
    images = frames()
    for n, atoms in enumerate(images):
        atoms.info = {key: 2.5 * n * unit, "temperature": 290 + 20 * (n * n % 3 == 0)}
        atoms.wrap()
    write(tmp_path / f"md.extxyz{suffix}", images)
    found = read_trajectory(tmp_path / f"md.extxyz{suffix}")
    assert found.interval_fs == pytest.approx(2.5)
    assert found.temperature == pytest.approx(297)
    assert 0 < found.temperature_error < 100
    assert (np.abs(np.diff(found.positions, axis=0)) < 1).all()
    assert found.energies is None
    assert (found.formula, len(found)) == ("Si8", 40)
    assert found.length_ps == pytest.approx(0.1)
    later = read_trajectory(tmp_path / f"md.extxyz{suffix}", skip_ps=0.05)
    assert len(later) == 20
    assert np.allclose(np.diff(later.positions, axis=0), np.diff(found.positions[20:], axis=0))


def test_velocities_labels_and_temperature_come_along(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = frames(400)
    scale = np.sqrt(KB * 500 / images[0].get_masses())[:, None]
    for n, atoms in enumerate(images):
        atoms.set_velocities(scale * rng.standard_normal((8, 3)))
        atoms.info = {"REF_energy": -1.0 * n, "REF_stress": np.full(6, 0.01), "time_fs": float(n)}
        atoms.new_array("REF_forces", np.full((8, 3), 0.5))
    write(tmp_path / "aimd.extxyz", images)
    found = read_trajectory(tmp_path / "aimd.extxyz")
    assert found.temperature == pytest.approx(500, abs=4 * found.temperature_error)
    assert 1 < found.temperature_error < 20
    assert found.velocities is not None
    assert found.velocities[3] == pytest.approx(images[3].get_velocities() * FS, abs=1e-7)
    assert found.energies is not None
    assert found.forces is not None
    assert found.stresses is not None
    assert found.energies[7] == -7
    assert (found.forces == 0.5).all()
    assert found.stresses.shape == (400, 6)


def test_vasp_xdatcar_must_be_told_its_time(tmp_path: Path) -> None:
    images = frames()
    for atoms in images:
        atoms.wrap()
    write(tmp_path / "XDATCAR", images, format="vasp-xdatcar")
    with pytest.raises(DataError, match="how much time") as refused:
        read_trajectory(tmp_path / "XDATCAR")
    assert "POTIM" in refused.value.fix
    found = read_trajectory(tmp_path / "XDATCAR", interval_fs=1.5, temperature=300)
    assert (found.interval_fs, found.temperature, len(found)) == (1.5, 300, 40)
    assert (np.abs(np.diff(found.positions, axis=0)) < 1).all()


def test_cp2k_says_its_time(tmp_path: Path) -> None:
    blocks = [
        f"2\n i = {n:8d}, time = {0.5 * n:12.3f}, E = -17.1646447508\n H 0 0 0\n H 0 0 {0.74 + 0.001 * n}\n" for n in range(30)
    ]
    (tmp_path / "h2-pos-1.xyz").write_text("".join(blocks))
    found = read_trajectory(tmp_path / "h2-pos-1.xyz")
    assert (found.interval_fs, found.temperature) == (0.5, None)


@pytest.mark.parametrize("n", [1, 5])
def test_uneven_time_is_named(n: int, tmp_path: Path) -> None:
    images = frames()
    for k, atoms in enumerate(images):
        atoms.info = {"time_fs": 2.0 * (k - (k > n))}  # a restart repeated frame n
    write(tmp_path / "md.extxyz", images)
    with pytest.raises(DataError, match="not evenly spaced") as refused:
        read_trajectory(tmp_path / "md.extxyz")
    assert f"frames {n} and {n + 1}" in refused.value.where
    assert "restart" in refused.value.fix


def test_bad_trajectories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few"):
        trajectory(frames(10), "short", interval_fs=1.0)
    with pytest.raises(DataError, match="too few"):
        trajectory(frames(40), "short", interval_fs=1.0, skip_ps=0.03)
    with pytest.raises(DataError, match="-1 fs"):
        trajectory(frames(), "backwards", interval_fs=-1.0)
    with pytest.raises(DataError, match="not of one system") as refused:
        trajectory([*frames(30), *[bulk("Ge", cubic=True)] * 10], "mixed", interval_fs=1.0)
    assert "frame 30" in refused.value.where
    broken = frames()
    broken[3].positions[0, 0] = np.nan
    with pytest.raises(DataError, match="not finite") as refused:
        trajectory(broken, "broken", interval_fs=1.0)
    assert "frame 3" in refused.value.where
    with pytest.raises(DataError, match="no such file"):
        read_trajectory(tmp_path / "nothing.extxyz")
    (tmp_path / "noise.extxyz").write_text("not a trajectory")
    with pytest.raises(DataError, match="cannot be read"):
        read_trajectory(tmp_path / "noise.extxyz")


def test_moves_that_cannot_be_followed_are_named() -> None:
    images = frames()
    images[17].positions[4] += [2.6, 0, 0]
    with pytest.raises(DataError, match="atom 4 moves") as refused:
        trajectory(images, "jump", interval_fs=1.0)
    assert "frames 16 and 17" in refused.value.where
    assert "more often" in refused.value.fix


def test_atoms_are_followed_in_a_cell_that_breathes_and_in_slabs() -> None:
    images = frames(30)
    for n, atoms in enumerate(images):
        atoms.set_cell(atoms.cell * (1 + 0.001 * n), scale_atoms=True)
        atoms.positions += 0.2 * n
    wrapped = [atoms.copy() for atoms in images]
    for atoms in wrapped:
        atoms.wrap()
    found = trajectory(wrapped, "npt", interval_fs=1.0)
    assert not found.fixed_cell
    moved = found.positions - [a.positions for a in images]
    scaled = np.array([m @ np.linalg.inv(np.asarray(a.cell)) for m, a in zip(moved, images, strict=True)])
    assert scaled == pytest.approx(np.broadcast_to(np.rint(scaled[0]), scaled.shape), abs=1e-9)
    slab = [Atoms("Al", [[0.9 * n % 4, 0, 0.5 * n]], cell=[4, 4, 0], pbc=[True, True, False]) for n in range(30)]
    path = trajectory(slab, "slab", interval_fs=1.0).positions[:, 0]
    assert path[:, 0] == pytest.approx(0.9 * np.arange(30))
    assert path[:, 2] == pytest.approx(0.5 * np.arange(30))


def test_what_cannot_be_compared_is_named() -> None:
    reference = trajectory(frames(), "aimd", interval_fs=1.0, temperature=300)
    check_comparable(reference, trajectory(frames(seed=1), "md", interval_fs=2.0, temperature=310))
    check_comparable(reference, trajectory(frames(seed=1), "md", interval_fs=2.0))
    other = {
        "another composition": trajectory([bulk("Ge", cubic=True)] * 30, "md", interval_fs=1.0),
        "another cell": trajectory([bulk("Si", a=5.5, cubic=True)] * 30, "md", interval_fs=1.0),
        "another temperature": trajectory(frames(), "md", interval_fs=1.0, temperature=330),
        "not periodic along": trajectory([Atoms("Si8", np.eye(8, 3) * 3)] * 30, "md", interval_fs=1.0),
        "fixed cell": trajectory([bulk("Si", a=5.43 + 0.001 * n, cubic=True) for n in range(30)], "md", interval_fs=1.0),
    }
    for what, md in other.items():
        with pytest.raises(DataError, match=what) as refused:
            check_comparable(reference, md)
        assert refused.value.fix
        assert "aimd" in refused.value.where


def test_a_molecule_needs_no_cell() -> None:
    found = trajectory([molecule("CO2")] * 30, "gas", interval_fs=1.0)
    check_comparable(found, found)
    assert found.formula in ("CO2", "OCO")
