"""Grids of k-points, counted or by density, the same in every code."""

import math

from ase import Atoms

from al_leignn.config import KpointsSection


def grid_of(config: KpointsSection, atoms: Atoms) -> tuple[int, int, int]:
    """Numbers of k-points along the cell's vectors; 1 along directions that are not periodic."""
    counts = list(config.kpts)
    if config.kpt_spacing is not None:
        lengths = (2 * math.pi * (atoms.cell.reciprocal() ** 2).sum(axis=1) ** 0.5).tolist()
        # Distances a hair above a whole number of spacings are rounding.
        counts = [max(1, math.ceil(length / config.kpt_spacing - 1e-6)) for length in lengths]
    a, b, c = (n if periodic else 1 for n, periodic in zip(counts, atoms.pbc, strict=True))
    return a, b, c


def shift_of(config: KpointsSection, grid: tuple[int, int, int]) -> tuple[int, int, int]:
    """1 along directions where the Monkhorst-Pack grid lies half a step beside Gamma, else 0."""
    if config.gamma_centred:
        return 0, 0, 0
    a, b, c = (int(n % 2 == 0) for n in grid)
    return a, b, c


def words(config: KpointsSection) -> str:
    """The grid for people."""
    kind = "Gamma-centred" if config.gamma_centred else "Monkhorst-Pack"
    if config.kpt_spacing is not None:
        return f"k-points {config.kpt_spacing:g} 1/Å apart or less, {kind}"
    return f"{' x '.join(map(str, config.kpts))} {kind} k-points"
