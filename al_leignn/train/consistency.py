"""Whether the labels of a set agree with one another: one unit, one sign, one level of theory.

Forces and stress are derivatives of the energy, so between near frames they foretell how the energy changes. Per system (same
species in the same order) a minimum spanning tree joins frames to their nearest neighbours; along each of its edges

    E₂ - E₁  ≈  -½ (F₁ + F₂)·Δx  +  ½ (V₁σ₁ + V₂σ₂):ε

by the trapezoidal rule, whose error is of the order of ½ |F₂ - F₁|·|Δx| + ½ |V₂σ₂ - V₁σ₁|·|ε|: an edge on which that is too
large says nothing. Where edges do speak, wrong signs and units show as their slope, and energies of another level of theory
as a step. Energies per composition tell units apart where no two frames are near.

Thresholds were set on 30 published sets of molecules, liquids, crystals, alloys and surfaces (5000 edges); none is refused.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from ase import units
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.stats import spearmanr

from al_leignn.core import LabelledFrame
from al_leignn.errors import DataError
from al_leignn.shapes import Bool, Float, Int
from al_leignn.userdata import frame_name, listed

MAX_GROUP = 200
"""Frames of one system that are compared, evenly drawn: the cost grows with their square."""

STIFFNESS, MODULUS = 1.0, 0.5
"""eV/Å^2 per atom and eV/Å^3: soft, but no less than what bends between two symmetric frames, whose forces and stress agree."""

EVIDENCE = 0.5
"""A change counts as evidence from this share of its error bound on; median slopes of published sets are then 0.98 to 1.1."""

STEP = 3.0
"""An edge is broken if it misses by this many times its bound and noise; one published edge is at 2, the rest below 0.9."""

ODD_STEP = 1.5
"""The same where single frames are set aside for a person to look at."""

ENERGY_NOISE = 0.01
"""eV/atom. Smaller steps in energy are left to the fit: convergence, dispersion corrections, rounding."""

FEW = 5
"""Fewer edges, or frames of another unit or level, are no evidence against a whole set."""

SLOPES = (0.5, 2.0)
"""Slopes between these pass."""

VOLUMES, TREND = 0.02, -0.3
"""Least spread of ln V that tells the sign of the stress, and the rank correlation below which it is wrong (usual: 0.5 to 1)."""

UNITS = {
    "kcal/mol": units.kcal / units.mol,
    "kJ/mol": units.kJ / units.mol,
    "Hartree": units.Hartree,
    "Rydberg": units.Rydberg,
}
"""Energies in eV of what users' files may hold instead."""

ODD = "energy does not follow from the forces of the nearest frames"

BINDING = (-15.0, 5.0)
"""Believable median energy per atom relative to isolated atoms, eV; the strongest crystal (tungsten) has -9."""

SIGNS = {
    "forces": "they are -dE/dx, not gradients",
    "stress": "it is dE/dε / V, positive under tension; pressures and virials have the opposite sign",
}

_NONE_KNOWN: Mapping[int, float] = MappingProxyType({})


def check_labels(frames: Sequence[LabelledFrame], e0s: Mapping[int, float] = _NONE_KNOWN) -> list[tuple[int, str]]:
    """Refuse sets whose labels contradict one another; needs finite labels.

    Parameters
    ----------
    e0s
        Energies of isolated atoms by atomic number, eV, that the user gave.

    Returns
    -------
    list
        Index and reason of single frames whose energy does not follow from the forces of their neighbours.

    Raises
    ------
    DataError
        Mixed units, mixed levels of theory, a wrong sign of forces or stress, or reference energies that do not fit.
    """
    _check_reference(frames, e0s)
    _check_units(frames)
    edges = neighbours(frames)
    _check_slope(edges.change - edges.strain_work, edges.force_work, edges.bound + np.abs(edges.strain_work), "forces")
    _check_slope(edges.change - edges.force_work, edges.strain_work, edges.bound + np.abs(edges.force_work), "stress")
    aside = _check_levels(frames, edges)
    _check_pressure(frames)
    return aside


def odd_energies(frames: Sequence[LabelledFrame]) -> list[int]:
    """Indices of frames whose energy does not follow from the forces of their neighbours, however many; ascending.

    Stricter than `check_labels`, since whoever asks sets single frames aside and refuses no set.
    """
    edges = neighbours(frames)
    broken = _steps(edges, ODD_STEP)[1]
    return sorted(i for part in _smaller_parts(edges, broken, len(frames)) for i in part) if broken.any() else []


# --- energies -----------------------------------------------------------------------------------------------


def _check_reference(frames: Sequence[LabelledFrame], e0s: Mapping[int, float]) -> None:
    known = [f for f in frames if len(f.frame.atoms) > 1 and set(f.frame.atoms.numbers.tolist()) <= set(e0s)]
    if not known:
        return
    sizes = np.array([len(f.frame.atoms) for f in known])
    given = np.array([f.labels.energy for f in known]) / sizes
    atoms = np.array([sum(e0s[z] for z in f.frame.atoms.numbers.tolist()) for f in known]) / sizes
    binding = float(np.median(given - atoms))
    if BINDING[0] <= binding <= BINDING[1]:
        return
    if BINDING[0] <= float(np.median(given)) <= BINDING[1]:
        what, fix = "the frames look like energies of atomisation already", "leave the isolated-atom energies out"
    else:
        what, fix = (
            "energies and isolated-atom energies do not belong together",
            "give those of the same code, functional and unit",
        )
    raise DataError(f"{what}: the median frame has {binding:.4g} eV/atom relative to its isolated atoms", fix=fix)


def _check_units(frames: Sequence[LabelledFrame]) -> None:
    """Energies per atom that fall into place among the others when taken for those of another unit."""
    several = [f for f in frames if len(f.frame.atoms) > 1]
    if len(several) < 2 * FEW:
        return
    energy, usual = _composition_fit(several)
    off = energy - usual
    far = np.abs(off) > 0.5 * np.abs(usual)
    candidates = []
    for name, size in UNITS.items():
        for factor in (size, 1.0 / size):
            miss = np.abs(energy * factor - usual)
            found = far & (miss < 0.2 * np.abs(usual)) & (np.abs(usual) > 1.0)
            # A tail of high energies is no other unit: nothing may lie between the two.
            if found.sum() >= max(FEW, 0.01 * len(several)) and (far & ~found).sum() <= 0.2 * found.sum():
                candidates.append((float(np.median(miss[found])), name, factor, found))
    if candidates:
        best, _, factor, found = min(candidates, key=lambda c: c[0])
        # Energies that spread by a tenth cannot tell kcal/mol from Hartree.
        name = " or ".join(sorted({other for miss, other, *_ in candidates if miss < 4.0 * best + 1e-6}))
        names = [frame_name(f) for f, odd in zip(several, found, strict=True) if odd]
        raise DataError(
            f"energies of {len(names)} of {len(frames)} frames are {max(factor, 1 / factor):.5g} times "
            f"{'smaller' if factor > 1.0 else 'larger'} than the others', as if {name} and eV were mixed",
            where=listed(names),
            fix="convert energies to eV, forces to eV/Å, stress to eV/Å^3",
        )


def _composition_fit(frames: Sequence[LabelledFrame]) -> tuple[Float[np.ndarray, " frames"], Float[np.ndarray, " frames"]]:
    """Energies per atom, and what compositions explain of them by least absolute deviations: minorities do not count."""
    species = sorted({z for f in frames for z in f.frame.atoms.numbers.tolist()})
    design = np.array([[np.mean(f.frame.atoms.numbers == z) for z in species] for f in frames])
    energy = np.array([f.labels.energy / len(f.frame.atoms) for f in frames])
    fit = np.full(len(frames), float(np.median(energy)))
    for _ in range(50):
        weight = 1.0 / np.sqrt(np.maximum(np.abs(energy - fit), 1e-3))
        fit = design @ np.linalg.lstsq(design * weight[:, None], energy * weight, rcond=1e-6)[0]
    return energy, fit


def _check_levels(frames: Sequence[LabelledFrame], edges: "Edges") -> list[tuple[int, str]]:
    """Cut the trees at steps that forces do not explain: many, or large parts, are levels of theory; single frames are odd."""
    miss, broken = _steps(edges, STEP)
    if not broken.any():
        return []
    odd = _smaller_parts(edges, broken, len(frames))
    if broken.sum() >= max(FEW, 0.02 * len(miss)) or any(len(part) >= FEW for part in odd):
        step = float(np.median(miss[broken] / edges.n_atoms[broken]))
        raise DataError(
            f"energies step by {step:.3g} eV/atom between near frames, which their forces do not explain "
            f"({int(broken.sum())} of {len(miss)} pairs)",
            where=listed([f"{frame_name(frames[i])} to {frame_name(frames[j])}" for i, j in _pairs(edges, broken)]),
            fix="train on one level of theory, one code and one unit",
        )
    return [(i, ODD) for part in odd for i in part]


def _steps(edges: "Edges", limit: float) -> tuple[Float[np.ndarray, " edges"], Bool[np.ndarray, " edges"]]:
    """How far the energy is, along each edge, from what forces and stress foretell, and whether that is too far."""
    miss = np.abs(edges.change - edges.force_work - edges.strain_work)
    return miss, miss > limit * (edges.bound + ENERGY_NOISE * edges.n_atoms)


def _pairs(edges: "Edges", chosen: Bool[np.ndarray, " edges"]) -> list[tuple[int, int]]:
    return list(zip(edges.first[chosen].tolist(), edges.second[chosen].tolist(), strict=True))


def _smaller_parts(edges: "Edges", broken: Bool[np.ndarray, " edges"], n: int) -> list[list[int]]:
    """What falls off each tree when its broken edges are cut: all parts but the largest."""
    everything = np.ones_like(broken)
    system, part = (
        connected_components(coo_matrix((np.ones(int(kept.sum())), (edges.first[kept], edges.second[kept])), shape=(n, n)))[1]
        for kept in (everything, ~broken)
    )
    parts: list[list[int]] = []
    for cut in np.unique(system[edges.first[broken]]):
        members = np.flatnonzero(system == cut)
        pieces = [members[part[members] == p].tolist() for p in np.unique(part[members])]
        parts += sorted(pieces, key=len, reverse=True)[1:]
    return parts


# --- forces and stress --------------------------------------------------------------------------------------


def _check_slope(
    change: Float[np.ndarray, " edges"], work: Float[np.ndarray, " edges"], bound: Float[np.ndarray, " edges"], name: str
) -> None:
    """Whether the change that forces or stress foretell comes, in size and sign."""
    telling = (np.maximum(np.abs(work), np.abs(change)) > EVIDENCE * bound) & (np.abs(work) > 0.1 * EVIDENCE * bound)
    if telling.sum() < FEW:
        return
    low, slope, high = np.quantile(change[telling] / work[telling], [0.25, 0.5, 0.75]).tolist()
    # A wrong unit or sign is the same everywhere; ratios that scatter have another reason.
    if SLOPES[0] <= slope <= SLOPES[1] or high - low > abs(slope):
        return
    what = f"energies change by {slope:.3g} times what the {name} foretell ({int(telling.sum())} pairs of near frames)"
    if -SLOPES[1] <= slope <= -SLOPES[0]:
        raise DataError(what, fix=f"turn the sign of the {name}: {SIGNS[name]}")
    raise DataError(what, fix=f"are energies in eV and {name} in {'eV/Å' if name == 'forces' else 'eV/Å^3'}?")


def _check_pressure(frames: Sequence[LabelledFrame]) -> None:
    """Stress must rise with volume: no stable material has a negative bulk modulus."""
    groups: dict[tuple[int, ...], list[tuple[float, float]]] = defaultdict(list)
    for f in frames:
        if f.labels.stress is not None and f.frame.atoms.cell.rank == 3 and f.frame.atoms.pbc.all():
            species, counts = np.unique(f.frame.atoms.numbers, return_counts=True)
            formula = (*species.tolist(), *(counts // np.gcd.reduce(counts)).tolist())
            groups[formula].append((np.log(f.frame.atoms.get_volume() / len(f.frame.atoms)), f.labels.stress[:3].mean()))
    centred = [np.array(g) - np.median(g, axis=0) for g in groups.values() if len(g) >= FEW]
    if not centred:
        return
    volume, stress = np.concatenate(centred).T
    if np.ptp(np.quantile(volume, [0.1, 0.9])) < VOLUMES or np.ptp(stress) == 0.0:
        return
    trend = float(spearmanr(volume, stress)[0])
    if len(volume) >= 2 * FEW and trend < TREND:
        raise DataError(
            f"stress falls when the volume grows (rank correlation {trend:.2f}, {len(volume)} frames)",
            fix=f"turn the sign of the stress: {SIGNS['stress']}",
        )


# --- neighbouring frames ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Edges:
    """Neighbouring frames of one system. Energies in eV for the whole cell."""

    first: Int[np.ndarray, " edges"]
    second: Int[np.ndarray, " edges"]
    """Indices of the frames."""
    n_atoms: Int[np.ndarray, " edges"]
    change: Float[np.ndarray, " edges"]
    """Energy of the second less that of the first."""
    force_work: Float[np.ndarray, " edges"]
    strain_work: Float[np.ndarray, " edges"]
    bound: Float[np.ndarray, " edges"]
    """What the trapezoidal rule may be wrong by."""


def neighbours(frames: Sequence[LabelledFrame]) -> Edges:
    """The minimum spanning trees of all systems, each edge with what its frames foretell and tell."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for n, item in enumerate(frames):
        atoms = item.frame.atoms
        groups[atoms.numbers.tobytes() + atoms.pbc.tobytes()].append(n)
    found = [_tree(frames, _thinned(members)) for members in groups.values() if len(members) > 1]
    columns = np.concatenate(found, axis=1) if found else np.zeros((7, 0))
    first, second, n_atoms = columns[:3].astype(int)
    return Edges(first, second, n_atoms, *columns[3:])


def _thinned(members: list[int]) -> list[int]:
    if len(members) <= MAX_GROUP:
        return members
    return [members[n] for n in np.linspace(0, len(members) - 1, MAX_GROUP).round().astype(int)]


def _tree(frames: Sequence[LabelledFrame], members: list[int]) -> Float[np.ndarray, "7 edges"]:
    """Rows of `Edges` for the minimum spanning tree of one system; the length of an edge is its bound."""
    system = _System.of([frames[n] for n in members])
    rows = [system.against_later(i) for i in range(len(members) - 1)]
    first, second = np.triu_indices(len(members), 1)
    values = np.concatenate(rows, axis=1)
    known = np.flatnonzero(np.isfinite(values).all(axis=0))
    cost = coo_matrix((values[3, known] + 1e-9, (first[known], second[known])), shape=(len(members),) * 2)  # zero: no edge
    tree = minimum_spanning_tree(cost).tocoo()
    place = np.zeros((len(members),) * 2, dtype=int)
    place[first, second] = np.arange(len(first))
    chosen = place[tree.row, tree.col]
    ids = np.array(members, dtype=float)
    size = np.full(len(chosen), float(len(frames[members[0]].frame.atoms)))
    return np.concatenate([np.stack([ids[first[chosen]], ids[second[chosen]], size]), values[:, chosen]])


@dataclass(frozen=True)
class _System:
    """Frames of one system as arrays."""

    periodic: bool
    wraps: Bool[np.ndarray, "3"]
    places: Float[np.ndarray, "frames atoms 3"]
    """Scaled coordinates where there is a cell, else Å."""
    cells: Float[np.ndarray, "frames 3 3"]
    volume: Float[np.ndarray, " frames"]
    energy: Float[np.ndarray, " frames"]
    forces: Float[np.ndarray, "frames atoms 3"]
    virial: Float[np.ndarray, "frames 3 3"]
    """V σ, eV; not a number without a stress."""

    @classmethod
    def of(cls, group: Sequence[LabelledFrame]) -> "_System":
        images = [f.frame.atoms for f in group]
        periodic = bool(images[0].pbc.any()) and all(atoms.cell.rank == 3 for atoms in images)
        cells = np.array([atoms.cell.array for atoms in images])
        return cls(
            periodic=periodic,
            wraps=images[0].pbc & periodic,
            places=np.array([atoms.get_scaled_positions(wrap=False) if periodic else atoms.positions for atoms in images]),
            cells=cells,
            volume=np.abs(np.linalg.det(cells)),
            energy=np.array([f.labels.energy for f in group]),
            forces=np.array([f.labels.forces for f in group]),
            virial=np.array([_virial(f) for f in group]),
        )

    def against_later(self, i: int) -> Float[np.ndarray, "4 pairs"]:
        """Change, work of forces, work of strain and bound from frame i to each frame after it."""
        shift = self.places[i + 1 :] - self.places[i]
        shift -= np.where(self.wraps, np.round(shift), 0.0)
        strain = np.zeros((len(shift), 3, 3))
        if self.periodic:
            mean = 0.5 * (self.cells[i + 1 :] + self.cells[i])
            strain = np.linalg.solve(mean, self.cells[i + 1 :] - self.cells[i])
            shift = shift @ mean
        shift -= shift.mean(axis=1, keepdims=True)  # moving everything costs nothing
        # A cell that changes without a stress label leaves the work of the strain unknown: such a pair says nothing.
        strained = (np.abs(strain).max(axis=(1, 2)) > 1e-6)[:, None, None]
        virial, gain = (
            np.where(strained, v, 0.0)
            for v in (0.5 * (self.virial[i + 1 :] + self.virial[i]), self.virial[i + 1 :] - self.virial[i])
        )
        force, rise = self.forces[i + 1 :] + self.forces[i], self.forces[i + 1 :] - self.forces[i]
        stiff = STIFFNESS * (shift**2).sum(axis=(1, 2)) + MODULUS * self.volume[i + 1 :] * (strain**2).sum(axis=(1, 2))
        uneven = (np.linalg.norm(rise, axis=2) * np.linalg.norm(shift, axis=2)).sum(axis=1) + np.abs(gain * strain).sum(
            axis=(1, 2)
        )
        work = -0.5 * (force * shift).sum(axis=(1, 2))
        return np.stack([self.energy[i + 1 :] - self.energy[i], work, (virial * strain).sum(axis=(1, 2)), 0.5 * (uneven + stiff)])


def _virial(item: LabelledFrame) -> Float[np.ndarray, "3 3"]:
    stress = item.labels.stress
    if stress is None:
        return np.full((3, 3), np.nan)
    tensor: Float[np.ndarray, "3 3"] = stress[np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])]
    return float(item.frame.atoms.get_volume()) * tensor
