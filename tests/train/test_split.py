import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from al_leignn.core import Frame, LabelledFrame, Labels, Origin
from al_leignn.errors import DataError
from al_leignn.train.split import MAX_SHARE, leave_out, refuse_shared


def _blocks(sizes: list[int]) -> list[LabelledFrame]:
    frames = []
    for walker, size in enumerate(sizes):
        for step in range(size):
            atoms = Atoms("H", [[walker, step, 0.0]])
            frames.append(LabelledFrame(Frame.of(atoms, Origin("md", 0, walker, step)), Labels(0.0, np.zeros((1, 3))), "x"))
    return frames


@given(st.lists(st.integers(1, 12), min_size=1, max_size=15), st.floats(0.0, 0.4), st.integers(0, 9))
def test_blocks_are_whole_and_most_frames_are_trained_on(sizes: list[int], share: float, member: int) -> None:
    frames = _blocks(sizes)
    training, holdout = leave_out(frames, share=share, member=member)
    assert {f.frame.origin.block for f in training}.isdisjoint(f.frame.origin.block for f in holdout)
    assert sorted(f.frame.uid for f in (*training, *holdout)) == sorted(f.frame.uid for f in frames)
    assert len(holdout) <= MAX_SHARE * len(frames)


def test_members_leave_out_different_blocks() -> None:
    frames = _blocks([3] * 12)
    left_out = [frozenset(f.frame.origin.block for f in leave_out(frames, share=0.1, member=m)[1]) for m in range(4)]
    assert all(left_out)
    assert all(a.isdisjoint(b) for i, a in enumerate(left_out) for b in left_out[:i])


def test_a_block_near_the_wanted_size_is_enough() -> None:
    for member in range(4):
        assert len(leave_out(_blocks([2] * 6), share=0.2, member=member)[1]) == 2


@pytest.mark.parametrize("sizes", [[20], [10, 10], [8, 6, 10]])
def test_blocks_too_large_to_give_up_are_all_trained_on(sizes: list[int]) -> None:
    training, holdout = leave_out(_blocks(sizes), share=0.1, member=0)
    assert len(training) == sum(sizes)
    assert holdout == []


def test_new_blocks_do_not_depend_on_the_order_of_the_frames() -> None:
    frames = _blocks([2, 3, 4, 2, 3, 4, 2, 3, 4])
    uids = {f.frame.uid for f in leave_out(frames, share=0.1, member=1)[1]}
    assert uids == {f.frame.uid for f in leave_out(frames[::-1], share=0.1, member=1)[1]}


def test_shared_frames_are_refused_under_whatever_name() -> None:
    frames = _blocks([3, 3])
    moved = frames[1].frame.atoms.copy()
    moved.positions += 1e-8
    same = LabelledFrame(Frame.of(moved, Origin("data:other.extxyz", step=7)), Labels(0.0, np.zeros((1, 3))), "x")
    refuse_shared({"training": frames[:3], "validation": frames[3:]})
    with pytest.raises(DataError) as caught:
        refuse_shared({"training": frames[:3], "validation": frames[3:], "test": [same, frames[4]]})
    assert "1 test frame(s) are training frames too" in str(caught.value)
    assert "other.extxyz #7" in str(caught.value)
