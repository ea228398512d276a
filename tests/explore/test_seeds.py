"""Seed frames: counts, physics and identity."""

from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.geometry import get_distances

from al_leignn.config import SeedConfig
from al_leignn.core import Frame
from al_leignn.errors import StructureError
from al_leignn.explore.seeds import SHORTEST_CONTACT, make_seeds
from al_leignn.geometry import closest_contact
from al_leignn.units import KB

CONFIG = SeedConfig(rattled=3, strained=4, hot=5)


def seeds(*structures: Atoms, config: SeedConfig = CONFIG, seed: int = 0, temperature: float = 600.0) -> list[Frame]:
    return make_seeds(structures, config, temperature=temperature, rng=np.random.default_rng(seed))


def silicon() -> Atoms:
    return bulk("Si", cubic=True)


def water() -> Atoms:
    atoms: Atoms = molecule("H2O")
    return atoms


def slab() -> Atoms:
    atoms: Atoms = fcc111("Al", (2, 2, 3), vacuum=6.0)
    return atoms


def kinds(frames: list[Frame]) -> list[str]:
    return [f.origin.kind for f in frames]


def test_given_structures_come_first_then_each_kind_in_its_number() -> None:
    frames = seeds(silicon(), slab())
    expected = ["rattle"] * 3 + ["strain"] * 4 + ["hot-md"] * 5
    assert kinds(frames) == ["given"] * 2 + expected + expected
    assert [f.origin.walker for f in frames[:2]] == [0, 1]
    assert np.allclose(frames[0].atoms.positions, silicon().positions, atol=1e-6)


def test_only_hot_frames_share_blocks_and_no_block_spans_two_structures() -> None:
    frames = seeds(silicon(), slab())
    single = [f.origin.block for f in frames if f.origin.kind != "hot-md"]
    assert len(set(single)) == len(single)
    hot = [f for f in frames if f.origin.kind == "hot-md"]
    sizes: dict[str, set[int]] = {}
    for f in hot:
        sizes.setdefault(f.origin.block, set()).add(len(f.atoms))
    assert len(sizes) == 4  # two runs (3 + 2 frames) for each structure
    assert all(len(s) == 1 for s in sizes.values())
    for block in sizes:
        steps = [f.origin.step for f in hot if f.origin.block == block]
        assert steps == sorted(set(steps))
        assert steps[0] > 0


def test_same_seed_gives_the_same_frames_and_another_seed_others() -> None:
    first, again, other = ([f.uid for f in seeds(silicon(), water(), seed=s)] for s in (1, 1, 2))
    assert first == again
    assert not set(first[2:]) & set(other[2:])
    assert len(set(first)) == len(first)


@pytest.mark.parametrize("atoms", [silicon(), water(), slab(), bulk("NaCl", "rocksalt", a=5.64), bulk("Ar", cubic=True)])
def test_no_seed_has_short_contacts_and_periodicity_is_kept(atoms: Atoms) -> None:
    for f in seeds(atoms, config=SeedConfig(rattled=6, rattle_std=0.3, strained=4, hot=4)):
        assert closest_contact(f.atoms, SHORTEST_CONTACT) is None
        assert (f.atoms.pbc == atoms.pbc).all()
        assert (f.atoms.numbers == atoms.numbers).all()


def test_slab_is_strained_in_its_plane_only() -> None:
    atoms = slab()
    strained = [f.atoms for f in seeds(atoms) if f.origin.kind == "strain"]
    for s in strained:
        assert np.allclose(s.cell[2], atoms.cell[2], atol=1e-6)
        assert np.allclose(s.cell[:2, 2], 0.0)
        assert not np.allclose(s.cell[:2], atoms.cell[:2], atol=1e-3)
        # Heights of the layers move by the small rattle alone.
        assert np.abs(s.positions[:, 2] - atoms.positions[:, 2]).max() < 5 * 0.1 / 4


def test_strains_stay_within_the_limit_and_cover_both_signs_of_volume() -> None:
    atoms = silicon()
    config = SeedConfig(rattled=0, strained=8, hot=0, max_strain=0.05)
    cells = [f.atoms.cell.array for f in seeds(atoms, config=config)[1:]]
    strains = np.array([np.linalg.solve(atoms.cell.array, c) - np.eye(3) for c in cells])
    assert np.abs(strains).max() <= 0.05 + 1e-6
    assert np.allclose(strains, strains.transpose(0, 2, 1), atol=1e-6)
    isotropic = strains[::2, 0, 0]
    assert (np.diff(isotropic) > 0).all()
    assert isotropic[0] < -0.02 < 0.02 < isotropic[-1]
    assert np.abs(strains[1::2, 0, 1]).max() > 1e-3


def test_molecules_are_not_strained() -> None:
    assert set(kinds(seeds(water()))) == {"given", "rattle", "hot-md"}


def test_one_atom_cell_has_only_strains() -> None:
    atoms = bulk("Al")
    assert kinds(seeds(atoms)) == ["given"] + ["strain"] * 4
    assert kinds(seeds(Atoms("Ar"))) == ["given"]


def test_hot_frames_are_thermal_and_keep_their_bonds() -> None:
    """Mean squared bond stretch follows the temperature (equipartition on springs), and nothing melts."""
    atoms = silicon() * (2, 2, 2)
    config = SeedConfig(rattled=0, strained=0, hot=6, hot_factor=1.0)

    def stretch(temperature: float) -> float:
        frames = seeds(atoms, config=config, temperature=temperature)[1:]
        bonds = []
        for f in frames:
            distance = get_distances(atoms.positions, cell=atoms.cell, pbc=True)[1]
            moved = get_distances(f.atoms.positions, cell=atoms.cell, pbc=True)[1]
            bonded = (distance > 0.1) & (distance < 2.5)
            bonds.append((moved - distance)[bonded])
        return float(np.mean(np.square(bonds)))

    cold, hot = stretch(300.0), stretch(1200.0)
    assert hot / cold == pytest.approx(4.0, rel=0.15)
    assert 0.1 * KB * 300 / 6.2 < cold < KB * 300 / 6.2  # each spring holds part of a degree of freedom's kT
    assert np.sqrt(hot) < 0.3


def test_a_molecule_neither_flies_away_nor_falls_apart() -> None:
    atoms = molecule("CH3CH2OH")
    frames = [f.atoms for f in seeds(atoms, config=SeedConfig(rattled=0, hot=6))[1:]]
    for f in frames:
        assert np.linalg.norm(f.positions - atoms.positions, axis=1).max() < 2.0
        assert abs(f.get_distance(0, 1) - atoms.get_distance(0, 1)) < 0.4


def test_overlapping_atoms_are_refused_with_their_structure_named() -> None:
    atoms = Atoms("SiSi", [[0, 0, 0], [0, 0, 0.01]], cell=[5, 5, 5], pbc=True)
    with pytest.raises(StructureError, match=r"structure 1 \(Si2\)"):
        seeds(silicon(), atoms, config=SeedConfig(rattle_std=0.01))


# --- other neighbourhoods --------------------------------------------------------------------------------

RICH = SeedConfig(
    rattled=0, strained=0, hot=0, vibrations=2, vacancies=2, interstitials=2, antisites=2, melts=2, contacts=3, dimers=4,
    surfaces=[(1, 0, 0), (1, 1, 1)],
)  # fmt: skip


def of_kind(frames: list[Frame], kind: str) -> list[Atoms]:
    return [f.atoms for f in frames if f.origin.kind == kind]


def rocksalt() -> Atoms:
    atoms: Atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    return atoms


def test_each_kind_comes_where_the_structure_allows_it() -> None:
    counts = Counter(kinds(seeds(rocksalt(), config=RICH)))
    assert counts == {
        "given": 1, "vacancy": 2, "interstitial": 2, "antisite": 2, "melt": 2, "contact": 3, "surface": 2, "dimer": 12
    }  # fmt: skip
    assert Counter(kinds(seeds(silicon(), config=RICH))) == counts - Counter(antisite=2, dimer=8)
    assert Counter(kinds(seeds(water(), config=RICH))) == {
        "given": 1, "vibration": 2, "vacancy": 2, "antisite": 2, "contact": 3, "dimer": 12
    }  # fmt: skip
    assert Counter(kinds(seeds(Atoms("Ar"), config=RICH))) == {"given": 1, "dimer": 4}


def test_defects_change_what_they_say() -> None:
    frames, perfect = seeds(rocksalt(), config=RICH), Counter(rocksalt().symbols)
    for atoms in of_kind(frames, "vacancy"):
        assert (perfect - Counter(atoms.symbols)).total() == 1
    for atoms in of_kind(frames, "interstitial"):
        assert (Counter(atoms.symbols) - perfect).total() == 1
        assert np.sort(atoms.get_distances(8, range(8), mic=True))[0] > 1.5  # in a void
    for atoms in of_kind(frames, "antisite"):
        assert Counter(atoms.symbols) == perfect
        assert (atoms.numbers != rocksalt().numbers).sum() == 2


def test_slabs_have_vacuum_across_and_the_density_of_the_crystal_inside() -> None:
    for atoms in of_kind(seeds(silicon(), config=RICH), "surface"):
        assert atoms.pbc.tolist() == [True, True, False]
        thickness = np.ptp(atoms.positions[:, 2])
        assert thickness >= 5.9
        assert atoms.cell.lengths()[2] - thickness > 11.0
        area = np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1]))
        assert len(atoms) / (area * thickness) == pytest.approx(8 / 5.431**3, rel=0.35)


def test_packings_are_dense_disordered_and_touch_nowhere() -> None:
    crystal = silicon() * (2, 2, 2)
    for atoms in of_kind(seeds(crystal, config=RICH), "melt"):
        assert 0.9 <= atoms.get_volume() / crystal.get_volume() <= 1.1
        distances = atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)]
        assert distances.min() > 0.75 * 2 * 1.11
        assert ((distances > 2.6) & (distances < 3.4)).mean() > 0.01  # between the shells of diamond


def test_contacts_and_dimers_reach_into_the_repulsive_wall() -> None:
    frames = seeds(water(), config=RICH)
    for atoms in of_kind(frames, "contact"):
        assert min(atoms.get_distance(0, 1), atoms.get_distance(0, 2)) < 0.9
    lengths: dict[str, list[float]] = {}
    for atoms in of_kind(frames, "dimer"):
        lengths.setdefault(str(atoms.symbols), []).append(atoms.get_distance(0, 1))
    assert sorted(lengths) == ["H2", "HO", "O2"]
    assert lengths["H2"] == pytest.approx(np.linspace(0.7, 1.8, 4) * 0.62)


def test_vibrations_have_the_thermal_amplitude_of_the_network_and_do_not_turn() -> None:
    config = RICH.model_copy(update={"vibrations": 400, "contacts": 0, "vacancies": 0, "antisites": 0, "dimers": 0})
    dimer = Atoms("N2", [[0, 0, 0], [0, 0, 1.1]])
    frames = of_kind(seeds(dimer, config=config, temperature=600.0), "vibration")
    stretch = np.array([atoms.get_distance(0, 1) for atoms in frames]) - 1.1
    stiffness = 80.0 / 1.1**3 + 0.5 / 2  # the bond and, for the relative motion, the anchors
    assert stretch.std() == pytest.approx(np.sqrt(KB * 900.0 / stiffness), rel=0.1)
    for atoms in of_kind(seeds(water(), config=RICH), "vibration"):
        moved = atoms.positions - water().positions
        assert np.abs((water().get_masses()[:, None] * moved).sum(axis=0)).max() < 0.02
        assert np.abs((water().get_masses()[:, None] * np.cross(water().positions, moved)).sum(axis=0)).max() < 0.1


def test_the_users_frames_come_last_with_their_numbers() -> None:
    config = SeedConfig(rattled=0, strained=0, hot=0)
    trajectories = [[(0, silicon()), (7, silicon())], [(3, silicon())]]
    frames = make_seeds([silicon()], config, temperature=300.0, rng=np.random.default_rng(0), trajectories=trajectories)
    assert [(f.origin.walker, f.origin.step) for f in frames if f.origin.kind == "user"] == [(0, 0), (0, 7), (1, 3)]
