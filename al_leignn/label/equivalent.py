"""The same structure said otherwise: a label of it must be the same, which no wrong order, stale file or loose grid survives."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from al_leignn.core import Frame, Labels
from al_leignn.shapes import Int


@dataclass(frozen=True)
class Equivalent:
    """A frame inverted through a point, shifted, its atoms in another order.

    Inversion keeps the cell and every k-point grid (k and -k are equivalent), which rotations do not.
    """

    frame: Frame
    order: Int[np.ndarray, " n_atoms"]
    """`order[i]` is the atom of the original that atom i here stands for."""

    @classmethod
    def of(cls, frame: Frame, rng: np.random.Generator) -> "Equivalent":
        order = rng.permutation(len(frame.atoms))
        atoms = frame.atoms[order]
        shift = rng.uniform(-0.5, 0.5, 3) @ np.asarray(atoms.cell)
        atoms.positions = shift - atoms.positions
        return cls(Frame.of(atoms, frame.origin), order)

    def labels_of_original(self, labels: Labels) -> Labels:
        """Labels of the frame it was made from, given its own: forces change sign, energy and stress stay."""
        forces = np.empty_like(labels.forces)
        forces[self.order] = -labels.forces
        return dataclasses.replace(labels, forces=forces)
