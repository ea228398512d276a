"""Which labelled frames may be trained on: unusable ones are named and set aside before a fit begins."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from al_leignn.core import LabelledFrame
from al_leignn.errors import DataError
from al_leignn.userdata import frame_name, listed

MAX_FORCE = 100.0
"""Largest believable force, eV/Å: about what two atoms at half their bond length feel."""

MAX_STRESS = 10.0
"""Largest believable stress component, eV/Å^3 (1600 GPa); values given in GPa or kbar land above it."""


def set_aside(frames: Sequence[LabelledFrame]) -> tuple[list[LabelledFrame], list[tuple[str, str]]]:
    """Part the frames into those fit for training and those that are not.

    Returns
    -------
    good
        Usable frames, in their order. All have the level of theory most frames have (the first one in a tie).
    aside
        Frame uid and reason, one for each frame that is not in `good`.

    Raises
    ------
    DataError
        If nothing is left; the message counts the reasons.
    """
    if not frames:
        raise DataError("there are no labelled frames to train on")
    levels = Counter(f.level for f in frames)
    level = levels.most_common(1)[0][0]
    good: list[LabelledFrame] = []
    aside: list[tuple[str, str]] = []
    seen: set[str] = set()
    for labelled in frames:
        uid = labelled.frame.uid
        reason = _fault(labelled)
        if not reason and labelled.level != level:
            reason = f"level of theory {labelled.level!r} differs from the others' {level!r}"
        if not reason and uid in seen:
            reason = "the same structure is there already"
        if reason:
            aside.append((uid, reason))
        else:
            seen.add(uid)
            good.append(labelled)
    if not good:
        counts = Counter(reason.split(":")[0] for _, reason in aside)
        shown = "; ".join(f"{n} x {reason}" for reason, n in counts.most_common(3))
        raise DataError(
            f"none of the {len(frames)} labelled frames can be trained on", where=shown, fix="check units and keys of the labels"
        )
    return good, aside


def finite(frames: Sequence[LabelledFrame]) -> list[LabelledFrame]:
    """The frames, if every label is a finite number: errors against others would be none.

    Raises
    ------
    DataError
        Counting and naming the frames with other labels.
    """
    bad = [frame_name(f) for f in frames if "not a finite number" in _fault(f)]
    if bad:
        raise DataError(f"labels of {len(bad)} frame(s) are not finite numbers", where=listed(bad), fix="remove these frames")
    return list(frames)


def _fault(labelled: LabelledFrame) -> str:
    """What is wrong with one frame by itself; empty if nothing is."""
    labels, n_atoms = labelled.labels, len(labelled.frame.atoms)
    if n_atoms == 0:
        return "no atoms"
    if np.shape(labels.forces) != (n_atoms, 3):
        return f"shape of the forces: {np.shape(labels.forces)} for {n_atoms} atoms"
    for name, value in (("energy", labels.energy), ("force", labels.forces), ("stress", labels.stress)):
        if value is not None and not np.isfinite(value).all():
            return f"{name} is not a finite number"
    largest = float(np.linalg.norm(labels.forces, axis=1).max())
    if largest > MAX_FORCE:
        return f"force beyond {MAX_FORCE:g} eV/Å: {largest:.4g}"
    if labels.stress is not None and float(np.abs(labels.stress).max()) > MAX_STRESS:
        return f"stress beyond {MAX_STRESS:g} eV/Å^3: {float(np.abs(labels.stress).max()):.4g}"
    return ""
