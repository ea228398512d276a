"""Structure in a trajectory: pair functions, first shells, coordination numbers, angles.

Each is a series over frames whose mean is the observable (see `equivalence.Observable`).
"""

import itertools

import numpy as np
from ase.data import chemical_symbols

from al_leignn.geometry import neighbour_vectors, neighbours
from al_leignn.shapes import Float, Int
from al_leignn.validate.equivalence import Observable
from al_leignn.validate.trajectory import Trajectory

SAMPLES = 1000
"""Frames looked at, evenly spread; more are correlated anyway."""

CUTOFF = 6.0
"""Å."""

BIN = 0.05
"""Å."""

ANGLE_BIN = 3.0
"""Degrees."""

SHELL_REACH = 1.7
"""The first minimum is looked for up to this many distances of the first maximum (the second shell of diamond is at 1.63)."""

INNERMOST = 1.3
"""Neighbours of all kinds whose shells end within this many of the smallest shell are an atom's first shell together."""

Pair = tuple[int, int]
"""Atomic numbers, ascending."""


def pair_functions(
    trajectory: Trajectory, *, cutoff: float = CUTOFF, width: float = BIN, samples: int = SAMPLES
) -> dict[Pair, Observable]:
    """Partial pair functions of all pairs of species, over distances up to `cutoff` Å in bins of `width` Å.

    In three-dimensional crystals and liquids the radial distribution function

        g_AB(r) = n_AB(r) V / (N_A (N_B - δ_AB) v(r)),

    n_AB the number of ordered pairs in a bin, v the volume of its spherical shell: 1 for atoms that know nothing of one
    another. All periodic images of other atoms count, but not an atom's own, which keep their distance whatever happens.
    Elsewhere, for want of a density, the distribution h(r) of distances between atoms,
    1/Å (as in Fu et al., Trans. Mach. Learn. Res. 2023).
    """
    edges = width * np.arange(round(cutoff / width) + 1)
    pairs = _pairs(trajectory)
    chosen = _chosen(trajectory, samples)
    series = {pair: np.zeros((len(chosen), len(edges) - 1)) for pair in pairs}
    periodic = bool(trajectory.pbc.all())
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    for row, n in enumerate(chosen):
        atoms = trajectory.frame(n)
        first, second, distances = neighbours(atoms, float(edges[-1]))
        other = first != second
        first, second, distances = first[other], second[other], distances[other]
        a, b = trajectory.numbers[first], trajectory.numbers[second]
        for pair, counts in series.items():
            found = distances[(a == pair[0]) & (b == pair[1])]
            scale = atoms.get_volume() / shells if periodic else np.full(len(shells), 1.0 / width)
            counts[row] = np.histogram(found, edges)[0] * scale / _ordered_pairs(trajectory, pair)
    letter, unit = ("g", "") if periodic else ("h", "1/Å")
    return {
        pair: Observable(
            name=f"{letter}(r) {_names(pair)}",
            kind="rdf",
            series=values,
            interval_ps=_interval(trajectory, samples),
            unit=unit,
            grid=0.5 * (edges[1:] + edges[:-1]),
            axis="r (Å)",
        )
        for pair, values in series.items()
    }


def first_minimum(pair_function: Observable) -> float | None:
    """Where the first shell ends, Å; None where no shell shows.

    The middle of the lowest stretch behind the first maximum, of the function smoothed over a bin or two.
    """
    from scipy.ndimage import gaussian_filter1d  # loads slowly

    r = pair_function.grid
    smooth = gaussian_filter1d(pair_function.series.mean(axis=0), 1.5)
    above = np.flatnonzero(smooth > max(smooth.mean(), 1e-12))
    if not len(above):
        return None
    start = int(above[0])
    peak = start + int(np.argmax(smooth[start : np.searchsorted(r, 1.25 * r[start], side="right")]))
    stop = int(np.searchsorted(r, SHELL_REACH * r[peak], side="right"))
    behind = smooth[peak:stop]
    low = np.flatnonzero(behind <= behind.min() + 0.02 * behind[0])
    end = next((k for k in range(len(low) - 1) if low[k + 1] > low[k] + 1), len(low) - 1)
    if behind.min() > 0.9 * behind[0] or peak + low[0] >= len(r) - 2:
        return None
    return float(r[peak + (low[0] + low[end]) // 2])


def shells(trajectory: Trajectory, *, cutoff: float = CUTOFF, samples: int = SAMPLES) -> dict[Pair, float]:
    """First minima (Å) of the pair functions that have one."""
    found = {pair: first_minimum(g) for pair, g in pair_functions(trajectory, cutoff=cutoff, samples=samples).items()}
    return {pair: radius for pair, radius in found.items() if radius is not None}


def neighbourhood(trajectory: Trajectory, shells: dict[Pair, float], *, samples: int = SAMPLES) -> list[Observable]:
    """Coordination numbers and angular distributions within given first shells (Å).

    The coordination number of A by B is the mean number of B within the shell of the pair, A the rarer species (that of B by A
    says the same). The angular distribution of A is
    that of the angles B-A-B' between the neighbours in its first shell, whatever their species, normalised to 1 over degrees;
    species that have no such angles in any frame are left out.
    """
    chosen = _chosen(trajectory, samples)
    if not shells:
        return []
    edges = ANGLE_BIN * np.arange(round(180.0 / ANGLE_BIN) + 1)
    ordered = sorted({*shells, *(pair[::-1] for pair in shells)})
    sizes = {z: int(np.sum(trajectory.numbers == z)) for z in trajectory.species}
    counts = {(a, b): np.zeros((len(chosen), 1)) for a, b in ordered if (sizes[a], a) <= (sizes[b], b)}
    angles = {z: np.zeros((len(chosen), len(edges) - 1)) for z in sorted({a for a, _ in ordered})}
    reach = np.zeros((max(trajectory.species) + 1,) * 2)
    for (a, b), radius in shells.items():
        reach[a, b] = reach[b, a] = radius
    innermost = {z: float(reach[z][reach[z] > 0].min()) for z in angles}
    for row, n in enumerate(chosen):
        centre, neighbour, vectors = neighbour_vectors(trajectory.frame(n), float(reach.max()))
        lengths = np.linalg.norm(vectors, axis=1)
        a, b = trajectory.numbers[centre], trajectory.numbers[neighbour]
        inside = lengths <= reach[a, b]
        for pair, values in counts.items():
            values[row] = np.sum(inside & (a == pair[0]) & (b == pair[1])) / sizes[pair[0]]
        for z, smallest in innermost.items():
            mine = inside & (a == z) & (reach[a, b] <= INNERMOST * smallest)
            angles[z][row] = np.histogram(_angles(centre[mine], vectors[mine] / lengths[mine, None]), edges)[0]
    interval = _interval(trajectory, samples)
    numbers = [
        Observable(
            f"coordination {chemical_symbols[a]} by {chemical_symbols[b]}", "coordination", values, interval, "", np.zeros(1)
        )
        for (a, b), values in counts.items()
    ]
    middle = 0.5 * (edges[1:] + edges[:-1])
    distributions = [
        Observable(
            f"angles at {chemical_symbols[z]}",
            "adf",
            values / (values.sum(axis=1).mean() * ANGLE_BIN),
            interval,
            "1/°",
            middle,
            "angle (°)",
        )
        for z, values in angles.items()
        if values.any()
    ]
    return numbers + distributions


def _angles(centre: Int[np.ndarray, " bonds"], directions: Float[np.ndarray, "bonds 3"]) -> Float[np.ndarray, " angles"]:
    """Angles between bonds of one centre, degrees."""
    order = np.argsort(centre, kind="stable")
    centre, directions = centre[order], directions[order]
    starts = np.searchsorted(centre, centre, side="left")
    sizes = np.searchsorted(centre, centre, side="right") - starts
    first = np.repeat(np.arange(len(centre)), sizes)
    within = np.arange(len(first)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    second = starts[first] + within
    once = first < second
    cosines = np.einsum("bx,bx->b", directions[first[once]], directions[second[once]])
    return np.asarray(np.degrees(np.arccos(np.clip(cosines, -1.0, 1.0))))


def _pairs(trajectory: Trajectory) -> list[Pair]:
    pairs = itertools.combinations_with_replacement(trajectory.species, 2)
    return [pair for pair in pairs if _ordered_pairs(trajectory, pair)]


def _ordered_pairs(trajectory: Trajectory, pair: Pair) -> int:
    a, b = (int(np.sum(trajectory.numbers == z)) for z in pair)
    return a * (b - (pair[0] == pair[1]))


def _names(pair: Pair) -> str:
    return "-".join(chemical_symbols[z] for z in pair)


def _chosen(trajectory: Trajectory, samples: int) -> range:
    return range(0, len(trajectory), -(-len(trajectory) // samples))


def _interval(trajectory: Trajectory, samples: int) -> float:
    return _chosen(trajectory, samples).step * trajectory.interval_fs / 1000.0
