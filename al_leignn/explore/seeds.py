"""Frames of iteration 0: what can be sampled around the user's structures before any potential exists.

Rattles show the potential forces in every direction, strains show it stress, and the hot MD shows it correlated thermal
displacements: bonds and angles stay near their values while atoms move far. Defects, surfaces, packings and dimers
(`variants.py`) show it other neighbourhoods.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, islice, repeat

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from al_leignn.config import SeedConfig
from al_leignn.core import Frame, Origin
from al_leignn.errors import StructureError
from al_leignn.explore import variants
from al_leignn.geometry import closest_contact
from al_leignn.shapes import Float, Int
from al_leignn.units import FS, KB

SHORTEST_CONTACT = 0.6
"""Seeds with two atoms closer than this share of the sum of their covalent radii are drawn again."""

_ATTEMPTS = 100
_FRAMES_PER_RUN = 3
"""Frames of one hot MD run share a trajectory block; short runs leave enough blocks for a split."""

_BOND_FACTOR = 1.25
"""Atoms closer than this times the sum of their covalent radii are bonded (covers metals and ionic crystals)."""
_STIFFNESS = 80.0
"""Spring constant of a bond times the cube of its length, eV Å. Stretching force constants fall off as the inverse cube of the
distance (Badger's rule); 80 gives 6 eV/Å^2 for Si-Si, 5 for Cu-Cu, 10 for Li-F, 22 for C-C and 60 for C-H, within a factor of
about two to three of what vibrational spectra say, on the side of moderate amplitudes."""
_SECOND = 0.3
"""Springs between atoms that share a bonded neighbour, relative to the same rule: they hold the angles."""
_ANCHOR = 0.5
"""Spring to the starting position, eV/Å^2: nothing melts, drifts or rotates, and an atom without bonds has a place."""
_SAMPLE_FS = 100.0
_EQUILIBRATION_FS = 300.0
_FRICTION_PER_FS = 0.02


def make_seeds(
    structures: Sequence[Atoms],
    config: SeedConfig,
    *,
    temperature: float,
    rng: np.random.Generator,
    trajectories: Sequence[Sequence[tuple[int, Atoms]]] = (),
) -> list[Frame]:
    """The structures themselves, what is made of each of them, dimers, and the user's own frames, in this order.

    What a structure does not allow is left out: strains of what is not periodic, rattled or hot frames of one atom (moving it
    is a translation), antisites of one element, interstitials, surfaces and melts of what has no three-dimensional cell.

    Parameters
    ----------
    structures
        Each becomes a frame of kind "given" whose walker is its index.
    temperature
        Highest exploration temperature, K; the hot MD runs at `config.hot_factor` times it.
    rng
        Source of all random numbers.
    trajectories
        The user's frames without labels, file by file, each with its number in the file.

    Returns
    -------
    list of Frame
        Kinds "given", "rattle", "strain", "hot-md", "vibration", "vacancy", "interstitial", "antisite", "melt", "contact",
        "surface", "dimer" and "user". Frames are trajectory blocks of their own, except that hot frames share the block of
        their run (at most three), dimers that of their pair, and the user's that of their file.

    Raises
    ------
    StructureError
        If no frame without short contacts can be drawn.
    """
    frames = [Frame.of(atoms, Origin("given", walker=index)) for index, atoms in enumerate(structures)]
    hot = config.hot_factor * temperature
    numbers: Counter[str] = Counter()

    def add(kind: str, draws: Iterator[tuple[int, Atoms]], where: str, count: int = 1, warm: float = 0.0) -> None:
        for _ in range(count):
            step, sample = _physical(draws, where)
            frames.append(Frame.of(sample, Origin(kind, walker=numbers[kind], step=step, temperature=warm)))
        numbers[kind] += 1

    for index, atoms in enumerate(structures):
        where = f"structure {index} ({atoms.get_chemical_formula()})"
        several = len(atoms) > 1
        rattles = _rattles(atoms, config.rattle_std, rng)
        for _ in range(config.rattled * several):
            add("rattle", rattles, where)
        for n in range(config.strained * bool(atoms.pbc.any())):
            add("strain", _strains(atoms, config, n, rng), where)
        for length in _run_lengths(config.hot * several):
            add("hot-md", _hot_md(atoms, hot, rng), where, length, hot)
        for _ in range(config.vibrations * (several and not atoms.pbc.any())):
            add("vibration", _vibrations(atoms, hot, rng), where, warm=hot)
        for kind, count, draws in _variants(atoms, config, rng):
            for _ in range(count):
                add(kind, _shaken(draws, config, rng), where)
    elements = sorted({int(number) for atoms in structures for number in atoms.numbers})
    for pair, (first, second) in enumerate(combinations_with_replacement(elements, 2)):
        dimers = variants.dimers(first, second, config.dimers)
        frames += [Frame.of(atoms, Origin("dimer", walker=pair, step=n)) for n, atoms in enumerate(dimers)]
    for file, trajectory in enumerate(trajectories):
        frames += [Frame.of(atoms, Origin("user", walker=file, step=n)) for n, atoms in trajectory]
    return frames


def _variants(atoms: Atoms, config: SeedConfig, rng: np.random.Generator) -> list[tuple[str, int, Iterator[Atoms]]]:
    """What can be made of a structure: kind, number of frames, draws."""
    several, bulk = len(atoms) > 1, bool(atoms.pbc.all())
    elements = len(set(atoms.numbers.tolist()))
    return [
        ("vacancy", config.vacancies * several, variants.vacancies(atoms, rng)),
        ("interstitial", config.interstitials * bulk, variants.interstitials(atoms, rng)),
        ("antisite", config.antisites * (elements > 1), variants.antisites(atoms, rng)),
        ("melt", config.melts * (several and bulk), variants.packings(atoms, rng)),
        ("contact", config.contacts * several, variants.pressed(atoms, rng)),
        *(("surface", int(bulk), repeat(variants.slab(atoms, miller))) for miller in config.surfaces if bulk),
    ]


def _shaken(draws: Iterator[Atoms], config: SeedConfig, rng: np.random.Generator) -> Iterator[tuple[int, Atoms]]:
    """Draws with a small rattle, so that forces are not zero by symmetry."""
    for atoms in draws:
        yield next(_rattles(atoms, config.rattle_std / 4.0, rng))


def _physical(draws: Iterator[tuple[int, Atoms]], where: str) -> tuple[int, Atoms]:
    """The next draw (step, atoms) without short contacts."""
    for step, atoms in islice(draws, _ATTEMPTS):
        if closest_contact(atoms, SHORTEST_CONTACT) is None:
            return step, atoms
    raise StructureError(
        f"{_ATTEMPTS} seed frames in a row had atoms closer than {SHORTEST_CONTACT:g} of the sum of their covalent radii",
        where=where,
        fix="check the structure for overlapping atoms, or lower seeds.rattle_std, seeds.max_strain or seeds.hot_factor",
    )


def _run_lengths(frames: int) -> list[int]:
    """Share `frames` out evenly over runs of at most `_FRAMES_PER_RUN`."""
    runs = -(-frames // _FRAMES_PER_RUN)
    return [frames // runs + (run < frames % runs) for run in range(runs)]


# --- rattles and strains ---------------------------------------------------------------------------------


def _rattles(atoms: Atoms, std: float, rng: np.random.Generator) -> Iterator[tuple[int, Atoms]]:
    while True:
        moved = atoms.copy()
        moved.positions += rng.normal(0.0, std, moved.positions.shape)
        yield 0, moved


def _strains(atoms: Atoms, config: SeedConfig, n: int, rng: np.random.Generator) -> Iterator[tuple[int, Atoms]]:
    """The `n`-th strained frame: even ones change the volume, spread evenly over the range; odd ones all six components.

    A small rattle is added, so that forces are not zero by symmetry.
    """
    periodic = np.linalg.qr(atoms.cell.array[atoms.pbc].T)[0]
    projector = periodic @ periodic.T
    volumes = (config.strained + 1) // 2
    while True:
        if n % 2 == 0:
            strain = (2.0 * (n // 2 + rng.random()) / volumes - 1.0) * np.eye(3)
        else:
            strain = rng.uniform(-1.0, 1.0, (3, 3))
            strain = np.tril(strain) + np.tril(strain, -1).T
        deformation = np.eye(3) + config.max_strain * projector @ strain @ projector
        deformed = atoms.copy()
        deformed.set_cell(atoms.cell.array @ deformation, scale_atoms=False)
        deformed.positions = atoms.positions @ deformation
        yield next(_rattles(deformed, config.rattle_std / 4.0, rng))


# --- hot MD on an elastic network ------------------------------------------------------------------------


@dataclass(frozen=True)
class _ElasticNetwork:
    """Springs between atoms near one another in `start`, each listed from both ends, and one to each atom's starting place."""

    start: Float[np.ndarray, "n_atoms 3"]
    i: Int[np.ndarray, " springs"]
    j: Int[np.ndarray, " springs"]
    offset: Float[np.ndarray, "springs 3"]
    """Lattice translation of j, Å."""
    length: Float[np.ndarray, " springs"]
    stiffness: Float[np.ndarray, " springs"]

    @classmethod
    def of(cls, atoms: Atoms) -> "_ElasticNetwork":
        radii = _BOND_FACTOR * covalent_radii[atoms.numbers]
        i, j, shifts = neighbor_list("ijS", atoms, radii)
        bonds = {(int(a), int(b), *map(int, s)) for a, b, s in zip(i, j, shifts, strict=True)}
        partners: dict[int, list[tuple[int, ...]]] = {}
        for a, *rest in bonds:
            partners.setdefault(a, []).append(tuple(rest))
        second = {
            (a, c, s + u, t + v, r + w)
            for a, b, s, t, r in bonds
            for c, u, v, w in partners[b]
            if (a, 0, 0, 0) != (c, s + u, t + v, r + w)
        } - bonds
        springs = np.array(sorted(bonds) + sorted(second), dtype=int).reshape(-1, 5)
        offset = springs[:, 2:] @ atoms.cell.array
        length = np.linalg.norm(atoms.positions[springs[:, 1]] + offset - atoms.positions[springs[:, 0]], axis=1)
        weight = np.where(np.arange(len(springs)) < len(bonds), 1.0, _SECOND)
        return cls(atoms.positions.copy(), springs[:, 0], springs[:, 1], offset, length, weight * _STIFFNESS / length**3)

    def forces(self, positions: Float[np.ndarray, "n_atoms 3"]) -> Float[np.ndarray, "n_atoms 3"]:
        """eV/Å."""
        vector = positions[self.j] + self.offset - positions[self.i]
        distance = np.linalg.norm(vector, axis=1)
        pull = self.stiffness * (1.0 - self.length / distance)
        forces: Float[np.ndarray, "n_atoms 3"] = -_ANCHOR * (positions - self.start)
        np.add.at(forces, self.i, pull[:, None] * vector)
        return forces

    def fastest(self, masses: Float[np.ndarray, " n_atoms"]) -> float:
        """Upper bound on the angular frequencies (Gershgorin), in inverse internal time units."""
        stiffness = _ANCHOR + 2.0 * np.bincount(self.i, self.stiffness, minlength=len(masses))
        return float(np.sqrt((stiffness / masses).max()))


def _hot_md(atoms: Atoms, temperature: float, rng: np.random.Generator) -> Iterator[tuple[int, Atoms]]:
    """Langevin MD (BAOAB, Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34): step and atoms every `_SAMPLE_FS`."""
    network = _ElasticNetwork.of(atoms)
    masses = atoms.get_masses()
    dt = min(2.0 * FS, 0.5 / network.fastest(masses))
    decay = np.exp(-_FRICTION_PER_FS * dt / FS)
    thermal = np.sqrt(KB * temperature / masses)[:, None]
    positions = atoms.positions.copy()
    velocities = thermal * rng.standard_normal(positions.shape)
    kick = 0.5 * dt / masses[:, None]
    forces = network.forces(positions)
    per_sample = int(np.ceil(_SAMPLE_FS * FS / dt))
    step = -int(np.ceil(_EQUILIBRATION_FS * FS / dt))
    while True:
        velocities += kick * forces
        positions += 0.5 * dt * velocities
        velocities = decay * velocities + np.sqrt(1.0 - decay**2) * thermal * rng.standard_normal(positions.shape)
        positions += 0.5 * dt * velocities
        forces = network.forces(positions)
        velocities += kick * forces
        step += 1
        if step > 0 and step % per_sample == 0:
            sample = atoms.copy()
            sample.positions = positions
            yield step, sample


def _vibrations(atoms: Atoms, temperature: float, rng: np.random.Generator) -> Iterator[tuple[int, Atoms]]:
    """Displacements along all normal modes of the network but the softest six, each at random by its thermal amplitude."""
    network = _ElasticNetwork.of(atoms)
    masses = np.repeat(atoms.get_masses(), 3)
    step = 1e-4
    moves = step * np.eye(len(masses)).reshape(-1, len(atoms), 3)
    forces = [(network.forces(atoms.positions - move) - network.forces(atoms.positions + move)).ravel() for move in moves]
    stiffness = np.array(forces) / (2.0 * step) / np.sqrt(np.outer(masses, masses))
    squares, modes = np.linalg.eigh((stiffness + stiffness.T) / 2.0)
    skipped = 5 if len(atoms) == 2 else 6
    amplitudes = np.sqrt(KB * temperature / squares[skipped:])
    while True:
        normal = amplitudes * rng.standard_normal(len(amplitudes))
        moved = atoms.copy()
        moved.positions += (modes[:, skipped:] @ normal / np.sqrt(masses)).reshape(-1, 3)
        yield 0, moved
