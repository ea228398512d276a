"""Isolated-atom energies (E0s): the part of the energy that depends on composition alone.

The network learns what remains, so that its target is small and does not grow with the number of atoms.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from al_leignn.core import LabelledFrame
from al_leignn.errors import DataError
from al_leignn.shapes import Float

SAME_COMPOSITION = 1e-3
"""Compositions that vary by less than this share of their mean count as one: the fit would only amplify noise."""

_NONE_KNOWN: Mapping[int, float] = MappingProxyType({})


def fit_e0s(frames: Sequence[LabelledFrame], *, known: Mapping[int, float] = _NONE_KNOWN) -> dict[int, float]:
    """Energy of each species that explains the energies best, as least squares per atom.

    What the compositions leave undetermined is resolved towards equal energies of all fitted species, by
    dropping the small singular values: frames of one composition give every species the mean energy per atom.

    Parameters
    ----------
    frames
        Labelled frames, all of one level of theory.
    known
        Energies to keep as they are, by atomic number, eV.

    Returns
    -------
    dict
        Energy by atomic number, eV, of every species in `frames` and in `known`, in ascending order.

    Raises
    ------
    DataError
        If there are no frames and nothing is known.
    """
    if not frames and not known:
        raise DataError(
            "isolated-atom energies cannot be fitted without frames", fix="give labelled frames or the energies themselves"
        )
    numbers = sorted({int(z) for f in frames for z in f.frame.atoms.numbers} - set(known))
    fitted = _least_squares(frames, numbers, known) if numbers else {}
    merged = {int(z): float(e) for z, e in known.items()} | fitted
    return dict(sorted(merged.items()))


def _least_squares(frames: Sequence[LabelledFrame], numbers: Sequence[int], known: Mapping[int, float]) -> dict[int, float]:
    rows, targets = [], []
    for labelled in frames:
        z = labelled.frame.atoms.numbers
        counts = np.array([np.count_nonzero(z == number) for number in numbers], dtype=float)
        if not counts.any():
            continue
        # Dividing by the number of atoms makes small and large cells weigh the same.
        rows.append(counts / len(z))
        targets.append((labelled.labels.energy - sum(known.get(int(a), 0.0) for a in z)) / len(z))
    design: Float[np.ndarray, "frames species"] = np.array(rows)
    energy: Float[np.ndarray, " frames"] = np.array(targets)
    centre = float(energy.sum() / design.sum())
    deviation, *_ = np.linalg.lstsq(design, energy - centre * design.sum(axis=1), rcond=SAME_COMPOSITION)
    return {number: centre + float(d) for number, d in zip(numbers, deviation, strict=True)}
