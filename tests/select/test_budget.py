"""Laws of selection: every frame has one fate, budgets hold, order does not matter, and the loop never starves."""

from collections import Counter

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from al_leignn.config import SelectConfig
from al_leignn.core import Frame, Origin
from al_leignn.select.budget import draw_fresh, select_frames, select_seeds
from al_leignn.select.fate import Fate, Selection

LO, HI = 0.1, 0.5


def frame(walker: int, step: int, bond: float = 2.5, kind: str = "md") -> Frame:
    # The step leaves a trace in the geometry, so that frames differ as those of an MD do.
    atoms = Atoms("Cu3", [[0, 0, 0], [bond + 1e-4 * step, 0, 0], [0, 2.6 + 0.01 * walker, 0]])
    return Frame.of(atoms, Origin(kind, 1, walker, step, 300.0))


def choose(frames: list[Frame], deviations: list[float], seed: int = 0, **options: object) -> Selection:
    arguments = {"config": SelectConfig(), "training": [], "known_uids": frozenset(), "budget_left": 100} | options
    return select_frames(frames, np.array(deviations), lo=LO, hi=HI, rng=np.random.default_rng(seed), **arguments)  # type: ignore[arg-type]


def walkers(n: int, steps: int, stride: int = 10) -> list[Frame]:
    return [frame(w, stride * s) for w in range(n) for s in range(steps)]


values = st.one_of(st.floats(0, 1), st.just(0.0), st.just(float("nan")), st.just(float("inf")))
entries = st.tuples(st.integers(0, 3), st.integers(0, 60).map(lambda s: 10 * s), st.sampled_from([2.5, 0.5, 1e6]), values)
pools = st.lists(entries, max_size=30, unique_by=lambda e: e[:2])
configs = st.builds(SelectConfig, budget=st.integers(1, 10), fresh=st.integers(1, 8))


@settings(max_examples=150, deadline=None)
@given(pools, configs, st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_laws(pool: list[tuple[int, int, float, float]], config: SelectConfig, left: int, seed: int) -> None:
    frames = [frame(w, s, bond) for w, s, bond, _ in pool]
    deviations = [d for *_, d in pool]
    known = frozenset(f.uid for f in frames[::5])
    training = [frame(w, 7 + 50 * s) for w in range(2) for s in range(seed % 4)]  # none at all in a quarter of the cases
    found = choose(frames, deviations, seed, config=config, known_uids=known, budget_left=left, training=training)

    assert sum(found.counts.values()) == sum(found.verdict_counts.values()) == len(frames)
    assert not set(found.train) & set(found.fresh)
    assert len(found.train) + len(found.fresh) <= left
    assert len(found.train) <= config.budget
    assert len(found.fresh) <= config.fresh
    chosen = [frames[i].uid for i in (*found.train, *found.fresh)]
    assert len(chosen) == len(set(chosen))
    assert not known & set(chosen)
    for i in (*found.train, *found.fresh):
        assert pool[i][2] == 2.5
        assert np.isfinite(deviations[i])

    usable = len({f.uid for f, (_, _, bond, d) in zip(frames, pool, strict=True) if bond == 2.5 and np.isfinite(d)} - known)
    if usable and left >= config.budget + config.fresh:
        assert found.train, "something must be learnt while there is anything to label"

    order = np.random.default_rng(seed).permutation(len(frames))
    shuffled, moved = [frames[i] for i in order], [deviations[i] for i in order]
    again = choose(shuffled, moved, seed, config=config, known_uids=known, budget_left=left, training=training)
    assert [found.fates[i] for i in order] == list(again.fates)


def test_two_frames_of_one_structure_are_labelled_once() -> None:
    one = frame(0, 0)
    copies = [Frame.of(one.atoms, Origin("md", 1, w, 10 * w)) for w in range(6)]
    found = choose(copies, [0.3] * 6)
    assert found.counts["duplicate"] == 5
    assert len(found.train) + len(found.fresh) == 1


def test_fresh_is_an_unbiased_sample() -> None:
    frames = [frame(w, 10 * s) for w, n in ((0, 5), (1, 20), (2, 11)) for s in range(n)]
    usable = list(range(len(frames)))
    rng = np.random.default_rng(0)
    rounds, k = 3000, 4
    drawn = Counter(i for _ in range(rounds) for i in draw_fresh(frames, usable, k, rng))
    expected = rounds * k / len(frames)
    assert set(drawn) == set(usable)
    assert max(abs(drawn[i] - expected) for i in usable) < 5 * np.sqrt(expected)


def test_fresh_spreads_over_walkers_and_time() -> None:
    frames = walkers(4, 100)
    for seed in range(20):
        fresh = draw_fresh(frames, range(len(frames)), 8, np.random.default_rng(seed))
        assert Counter(frames[i].origin.walker for i in fresh) == {0: 2, 1: 2, 2: 2, 3: 2}


def test_fresh_does_not_depend_on_the_deviation() -> None:
    frames = walkers(4, 50)
    rng = np.random.default_rng(0)
    quiet, loud = choose(frames, [0.01] * 200, 3), choose(frames, list(rng.uniform(0, 1, 200)), 3)
    assert quiet.fresh == loud.fresh


def test_training_prefers_candidates_and_keeps_its_distance_in_time() -> None:
    frames = walkers(2, 100)
    deviations = [0.3 if 300 <= f.origin.step < 900 else 0.05 for f in frames]
    found = choose(frames, deviations)
    assert {found.fates[i] for i in found.train} == {Fate.TRAIN}
    assert len(found.train) == SelectConfig().budget
    taken = [frames[i].origin for i in (*found.train, *found.fresh)]
    for a in [frames[i].origin for i in found.train]:
        near = [b for b in taken if b.walker == a.walker and abs(a.step - b.step) < 50]
        assert near == [a]


def test_frames_unlike_the_training_set_come_first() -> None:
    training = [frame(0, 10 * s) for s in range(10)]
    familiar = [frame(1, 100 * s) for s in range(10)]
    strange = [frame(2, 100 * s, bond=3.2 + 0.05 * s) for s in range(4)]
    config = SelectConfig(budget=1, fresh=1)
    for seed in range(5):
        (taken,) = choose(familiar + strange, [0.3] * 14, seed, config=config, training=training).train
        assert taken >= 10


def test_among_equally_different_frames_the_uncertain_come_first() -> None:
    frames = [frame(0, 100 * s) for s in range(10)]
    found = choose(frames, [0.11] * 5 + [0.45] + [0.11] * 4, config=SelectConfig(budget=1, fresh=1), training=[], seed=1)
    assert 5 in (*found.train, *found.fresh)


def test_when_everything_failed_the_least_deviating_sane_frames_are_labelled() -> None:
    """The first committee's walkers all go astray: early frames are the ones to learn from."""
    frames = walkers(4, 20)
    deviations = [0.6 + 0.01 * f.origin.step for f in frames]
    found = choose(frames, deviations)
    assert len(found.train) == SelectConfig().budget
    assert found.counts["train, failed"] == len(found.train)
    left = [d for i, d in enumerate(deviations) if i not in found.train and i not in found.fresh]
    assert np.mean([deviations[i] for i in found.train]) < np.mean(left)


def test_where_candidates_are_few_the_first_failed_frame_of_a_walker_helps() -> None:
    frames = walkers(1, 60)
    deviations = [0.05] * 40 + [0.3] * 5 + [0.9] * 15
    found = choose(frames, deviations, config=SelectConfig(budget=6, fresh=1), seed=2)
    rescued = [i for i in found.train if found.fates[i] is Fate.RESCUED]
    assert len(rescued) <= 1
    assert all(i in (45, 46) for i in rescued)
    assert len(found.train) < 6  # a ceiling, not a quota


def test_identical_members_still_trigger_labels() -> None:
    found = choose(walkers(4, 50), [0.0] * 200)
    assert found.counts["train, novel"] == SelectConfig().budget
    assert len(found.fresh) == SelectConfig().fresh


def test_a_content_committee_gets_a_few_novel_frames() -> None:
    found = choose(walkers(4, 50), [0.01] * 200)
    assert found.counts["train, novel"] == SelectConfig().budget // 4


def test_frames_that_are_novel_against_the_committee_s_word_are_labelled() -> None:
    """The committee trusts walker 3, which is unlike anything trained on; candidates would take the whole budget."""
    training = [frame(w, 100 * s, bond=2.5 + 0.01 * w) for w in range(3) for s in range(10)]
    uncertain = [frame(1, 30 * s + 5, bond=2.51) for s in range(30)]
    strange = [frame(3, 60 * s, bond=3.4) for s in range(30)]
    found = choose(uncertain + strange, [0.3] * 30 + [0.01] * 30, training=training)
    guard = SelectConfig().budget // 4
    assert found.counts["train, novel"] == guard
    assert found.counts["train"] == SelectConfig().budget - guard
    assert found.disagreements == {"accurate but novel": 30, "uncertain but familiar": 30}
    assert found.novelty is not None
    assert found.novelty[30:].min() > 1 > found.novelty[:30].max()


def test_no_stretch_of_the_md_stays_unlabelled_however_quiet() -> None:
    """Of every n / k frames in a row one is drawn, so no long quiet stretch goes unchecked."""
    frames = walkers(3, 100)
    for seed in range(5):
        found = choose(frames, [0.01] * 300, seed, config=SelectConfig(budget=1, fresh=6))
        steps = sorted((frames[i].origin.walker, frames[i].origin.step // 10) for i in found.fresh)
        for walker in range(3):
            mine = [step for w, step in steps if w == walker]
            gaps = np.diff([-1, *mine, 100])
            assert len(mine) == 2
            assert gaps.max() <= 100


def test_small_cells_are_preferred_where_labels_of_large_ones_cost_more() -> None:
    small = [frame(0, 100 * s) for s in range(12)]
    large = []
    for f in small:
        second = f.atoms.copy()
        second.positions += (20, 0, 0)
        large.append(Frame.of(f.atoms + second, Origin("md", 1, 1, f.origin.step, 300.0)))

    def share(exponent: float) -> float:
        config = SelectConfig(budget=6, fresh=1, cost_exponent=exponent)
        found = choose(small + large, [0.3] * 24, config=config)
        return float(np.mean([len(([*small, *large])[i].atoms) == 6 for i in found.train]))

    assert share(3.0) < share(0.0)


def test_short_walkers_still_give_frames() -> None:
    """Stopped after 30 steps each: the usual spacing would leave one frame a walker."""
    found = choose(walkers(4, 4), [0.3] * 16)
    assert len(found.train) >= 8


def test_the_budget_of_the_campaign_is_shared_out() -> None:
    found = choose(walkers(4, 50), [0.3] * 200, budget_left=6)
    assert (len(found.train), len(found.fresh)) == (4, 2)
    assert not choose(walkers(1, 5), [0.3] * 5, budget_left=0).train


def test_an_empty_pool_is_an_empty_answer() -> None:
    found = choose([], [])
    assert (found.train, found.fresh, sum(found.counts.values())) == ([], [], 0)


# --- seeds -----------------------------------------------------------------------------------------------


def seed_frames(rattled: int = 8, strained: int = 6, runs: int = 4) -> list[Frame]:
    frames = [frame(0, 0, kind="given")]
    frames += [frame(w, 0, 2.4 + 0.01 * w, "rattle") for w in range(rattled)]
    frames += [frame(w, 0, 2.7 + 0.01 * w, "strain") for w in range(strained)]
    return frames + [frame(w, 100 * s, 3.0, "hot-md") for w in range(runs) for s in range(1, 4)]


@pytest.mark.parametrize("seed", range(10))
def test_seeds_are_divided_by_whole_blocks(seed: int) -> None:
    frames = seed_frames()
    found = select_seeds(frames, SelectConfig(), np.random.default_rng(seed), budget_left=100)
    assert len(found.train) + len(found.fresh) == len(frames)
    assert len(found.fresh) == 5  # 18 % of 27
    assert 0 in found.train  # the user's structure
    blocks = {frames[i].origin.block for i in found.fresh}
    assert not blocks & {frames[i].origin.block for i in found.train}


def test_seeds_keep_to_the_budget_and_to_geometry() -> None:
    frames = [*seed_frames(), frame(9, 0, 0.3, "rattle")]
    found = select_seeds(frames, SelectConfig(), np.random.default_rng(0), budget_left=9)
    assert len(found.train) + len(found.fresh) == 9
    assert len(found.fresh) <= 3
    assert found.counts["unphysical"] == 1
    assert sum(found.counts.values()) == len(frames)


def test_seeds_do_not_depend_on_their_order() -> None:
    frames = seed_frames()
    one = select_seeds(frames, SelectConfig(), np.random.default_rng(5), budget_left=20)
    back = select_seeds(frames[::-1], SelectConfig(), np.random.default_rng(5), budget_left=20)
    assert one.fates == back.fates[::-1]


def test_a_lone_seed_is_trained_on() -> None:
    found = select_seeds([frame(0, 0, kind="given")], SelectConfig(), np.random.default_rng(0), budget_left=5)
    assert (found.train, found.fresh) == ([0], [])
