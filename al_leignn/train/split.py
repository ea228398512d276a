"""Which frames a member leaves out of its fit to choose its best weights: whole trajectory blocks, never parts."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from al_leignn.core import LabelledFrame
from al_leignn.errors import DataError
from al_leignn.userdata import frame_name, listed

MAX_SHARE = 0.2
"""No member gives up more than this share of the frames, so blocks larger than it are always trained on."""


def refuse_shared(sets: Mapping[str, Sequence[LabelledFrame]]) -> None:
    """Refuse frames that are in more than one set, under whatever name: same species, cell and positions to 1e-6 Å.

    Raises
    ------
    DataError
        Counting and naming the frames of the first two sets that share any.
    """
    for (first, ours), (second, theirs) in combinations(sets.items(), 2):
        names = {f.frame.uid: frame_name(f) for f in ours}
        if shared := [f"{frame_name(f)} = {names[f.frame.uid]}" for f in theirs if f.frame.uid in names]:
            raise DataError(
                f"{len(shared)} {second} frame(s) are {first} frames too: errors on them say nothing",
                where=listed(shared),
                fix="remove them from one of the sets",
            )


def leave_out(frames: Sequence[LabelledFrame], *, share: float, member: int) -> tuple[list[LabelledFrame], list[LabelledFrame]]:
    """Part the frames into a member's training set and its holdout, along trajectory blocks.

    The blocks are shuffled (by the digest of their names, so every member sees one order) and dealt into groups of
    about `share` of the frames (no less than half of it); member k leaves out group k, modulo the number of groups.
    With too few blocks for one group the holdout is empty.

    Parameters
    ----------
    share
        Wanted size of the holdout relative to all frames; the result stays below `MAX_SHARE`.
    member
        Index of the member, from 0.

    Returns
    -------
    training, holdout
        Frames in their given order; no block has frames in both.
    """
    groups = _groups(Counter(f.frame.origin.block for f in frames), share)
    left_out = groups[member % len(groups)] if groups else frozenset()
    training = [f for f in frames if f.frame.origin.block not in left_out]
    holdout = [f for f in frames if f.frame.origin.block in left_out]
    return training, holdout


def _groups(sizes: Counter[str], share: float) -> list[frozenset[str]]:
    total = sizes.total()
    if share <= 0.0 or total == 0:
        return []
    groups: list[frozenset[str]] = []
    current: list[str] = []
    held = 0

    def close() -> None:
        nonlocal held
        if held >= 0.5 * share * total:  # much smaller ones would pick weights by chance
            groups.append(frozenset(current))
        current.clear()
        held = 0

    for block in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if sizes[block] > MAX_SHARE * total:
            continue
        if held + sizes[block] > MAX_SHARE * total:
            close()
        current.append(block)
        held += sizes[block]
        if held >= share * total:
            close()
    close()
    return groups
