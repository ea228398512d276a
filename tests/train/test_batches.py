from collections.abc import Callable

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from al_leignn.core import LabelledFrame
from al_leignn.train.batches import epochs, join, make_examples, pack

Maker = Callable[..., list[LabelledFrame]]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 64))
def test_packing_loses_no_frame_and_stops_at_the_mark(sizes: list[int], batch_atoms: int) -> None:
    runs = pack(sizes, range(len(sizes)), batch_atoms)
    assert [i for run in runs for i in run] == list(range(len(sizes)))
    assert all(sum(sizes[i] for i in run[:-1]) < batch_atoms for run in runs)
    assert all(sum(sizes[i] for i in run) >= batch_atoms for run in runs[:-1])


def test_each_epoch_visits_every_frame_once_in_a_new_order() -> None:
    stream = epochs([4] * 8, 8, np.random.SeedSequence(1))
    visited = [[i for _ in range(4) for i in next(stream)] for _ in range(3)]
    assert all(sorted(epoch) == list(range(8)) for epoch in visited)
    assert visited[0] != visited[1] != visited[2]
    again = epochs([4] * 8, 8, np.random.SeedSequence(1))
    assert visited[0] == [i for _ in range(4) for i in next(again)]


def test_joining_keeps_labels_with_their_frames(copper: Maker, carbon_monoxide: Maker) -> None:
    frames = [*copper(1, 1), *carbon_monoxide(1, 2), *copper(1, 3, repeat=2)]
    batch = join(make_examples(frames, 4.0, [6, 8, 29], torch.float64, torch.device("cpu")))
    assert batch.energy.tolist() == [f.labels.energy for f in frames]
    np.testing.assert_array_equal(batch.forces, np.concatenate([f.labels.forces for f in frames]))
    assert batch.n_atoms.tolist() == [4.0, 2.0, 8.0]
    assert batch.has_stress.tolist() == [True, False, True]
    assert frames[2].labels.stress is not None
    xx, yy, zz, yz, xz, xy = frames[2].labels.stress
    np.testing.assert_array_equal(batch.stress[2], [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    assert not batch.stress[1].any()
