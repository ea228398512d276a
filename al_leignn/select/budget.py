"""Spend the labels of one iteration: a random control arm first, then the frames that teach most.

Every frame of the pool ends with exactly one `Fate`, so counts always sum and each refusal has its reason. All choices
are made in an order fixed by walker, step and identity: shuffling the pool shuffles the answer and nothing else.
"""

import math
from collections.abc import Sequence, Set

import numpy as np

from al_leignn.calibration import FORCE_FLOOR
from al_leignn.config import SelectConfig
from al_leignn.core import Frame, Verdict
from al_leignn.select.classify import classify
from al_leignn.select.diversity import descriptors, farthest_points
from al_leignn.select.fate import NOVEL, TRAINED, Fate, Selection
from al_leignn.select.geometry import is_unphysical
from al_leignn.select.novelty import novelty
from al_leignn.shapes import Float

SPACING_STEPS = 50
"""Frames of one walker nearer in time than this many MD steps count as one: about half a lattice vibration, since the
time step follows the lightest atom."""

SPACING_SHARE = 0.125
"""Walkers shorter than 400 steps use this share of their length instead: after an early stop, similar frames beat none."""

NOVELTY_SHARE = 0.25
"""This share of the training budget is a guard against overconfidence: so much of it goes to frames that are novel although
the committee is content, and so much is spent even where nothing is novel, on the accurate frames that are most so."""

NEAR, FAR = 0.01, 10.0
"""Limits of the novelty that weighs accurate frames against one another; of an element never seen it is infinite."""

SEED_FRESH_SHARE = 0.18
SEED_FRESH_LEAST = 4
"""Seeds held back to measure the first committee: the larger of the two, but never more than a third."""

_OF_VERDICT = {
    Verdict.ACCURATE: Fate.ACCURATE,
    Verdict.CANDIDATE: Fate.SURPLUS,
    Verdict.FAILED: Fate.FAILED,
}


def select_frames(
    frames: Sequence[Frame],
    max_deviations: Float[np.ndarray, " n"],
    config: SelectConfig,
    lo: float,
    hi: float,
    rng: np.random.Generator,
    *,
    training: Sequence[Frame],
    known_uids: Set[str],
    budget_left: int,
) -> Selection:
    """Choose the frames to label from the pool of one iteration.

    Frames without a finite prediction, with unphysical geometry, seen twice or already labelled are out. From the rest,
    failed ones included, the control arm is drawn at random (`draw_fresh`). Training frames are candidates thinned in
    time, then farthest-point selection from the training set weighted by deviation over expected cost. The budget is a
    ceiling: where candidates run short, the first failed frame of each walker is added; where there are none at all, the
    failed frames that deviate least, so that an early committee whose walkers all go astray still learns. Frames that are
    novel although the committee is content take up to `NOVELTY_SHARE` of the budget first, and identical members
    (deviations of zero) give all of it to novelty.

    Parameters
    ----------
    frames, max_deviations
        The pool and its model deviations, eV/Å.
    lo, hi
        Trust levels, eV/Å.
    training
        Frames the committee was trained on, for distances in descriptor space.
    known_uids
        Frames labelled for any purpose.
    budget_left
        Labels the campaign may still ask for.
    """
    verdicts = classify(max_deviations, lo, hi)
    pool = _Pool(frames, max_deviations, [_OF_VERDICT[v] for v in verdicts], training)
    usable = pool.screen(config.min_distance_factor, known_uids)
    pool.novelty[usable] = novelty([frames[i] for i in usable], training)

    total = min(max(budget_left, 0), config.fresh + config.budget)
    n_fresh = round(total * config.fresh / (config.fresh + config.budget))
    pool.take(draw_fresh(frames, usable, min(n_fresh, len(usable) // 3), rng), Fate.FRESH)
    pool.fill_training(total - n_fresh, config.cost_exponent)
    return Selection(tuple(pool.fates), tuple(verdicts), lo, hi, pool.novelty)


def draw_fresh(frames: Sequence[Frame], usable: Sequence[int], k: int, rng: np.random.Generator) -> list[int]:
    """Systematic random sample of k of the `usable` frames.

    The frames are laid out walker by walker (walkers in random order) and every (n / k)-th is taken from a random start:
    each has the same chance k / n, and the sample spreads over walkers and over time by itself (Cochran, Sampling
    Techniques, chapter 8).
    """
    blocks = sorted({frames[i].origin.block for i in usable})
    place = dict(zip(blocks, rng.permutation(len(blocks)), strict=True))
    layout = sorted(usable, key=lambda i: (place[frames[i].origin.block], frames[i].origin.step, frames[i].uid))
    positions = (rng.random() + np.arange(k)) * len(layout) / max(k, 1)
    return [layout[min(int(p), len(layout) - 1)] for p in positions]  # rounding may reach the end


class _Pool:
    """The pool while it is being divided; indices refer to the given order of frames."""

    def __init__(
        self,
        frames: Sequence[Frame],
        deviations: Float[np.ndarray, " n"],
        fates: list[Fate],
        training: Sequence[Frame],
    ) -> None:
        self.frames = frames
        self.deviations = deviations
        self.fates = fates
        self.training = training
        self.novelty = np.full(len(frames), np.nan)
        self.usable: list[int] = []

    def screen(self, min_distance_factor: float, known_uids: Set[str]) -> list[int]:
        """Set aside what may not be labelled; returns the rest by walker and step."""
        seen: set[str] = set()
        for i in sorted(range(len(self.frames)), key=self._canonical):
            frame = self.frames[i]
            if is_unphysical(frame.atoms, min_distance_factor):
                self.fates[i] = Fate.UNPHYSICAL
            elif not math.isfinite(self.deviations[i]):
                self.fates[i] = Fate.UNPREDICTED
            elif frame.uid in known_uids:
                self.fates[i] = Fate.KNOWN
            elif frame.uid in seen:
                self.fates[i] = Fate.DUPLICATE
            else:
                seen.add(frame.uid)
                self.usable.append(i)
        return self.usable

    def _canonical(self, i: int) -> tuple[str, int, str, float]:
        origin = self.frames[i].origin
        return origin.block, origin.step, self.frames[i].uid, float(self.deviations[i])

    def take(self, indices: Sequence[int], fate: Fate) -> None:
        for i in indices:
            self.fates[i] = fate

    def fill_training(self, budget: int, cost_exponent: float) -> None:
        """Divide `budget` among candidates, failed frames and frames that only novelty asks for."""
        guard = math.ceil(NOVELTY_SHARE * budget)
        quiet = self._open(Fate.ACCURATE)
        contested = self._thin(sorted((i for i in quiet if self.novelty[i] >= NOVEL), key=lambda i: -self.novelty[i]))
        reserved = min(len(contested), guard)

        candidates = self._open(Fate.SURPLUS)
        spread = self._thin(sorted(candidates, key=lambda i: -self.deviations[i]))
        self.take(candidates, Fate.CORRELATED)
        self.take(spread, Fate.SURPLUS)
        worth = self.deviations[spread] / self._expected_cost(spread, cost_exponent)
        self.take(self._most_different(spread, worth, budget - reserved), Fate.TRAIN)
        self._rescue(budget - reserved - self._trained, first_of_walker=bool(candidates))

        blind = all(self.deviations[i] < FORCE_FLOOR for i in self.usable)
        wanted = budget if blind else max(guard, min(self._trained + reserved, budget))
        quiet = self._thin(sorted(quiet, key=lambda i: -self.novelty[i]))
        weights = np.clip(self.novelty[quiet], NEAR, FAR)
        self.take(self._most_different(quiet, weights, wanted - self._trained), Fate.NOVEL)

    def _rescue(self, k: int, *, first_of_walker: bool) -> None:
        """Train on up to k failed frames: the first of each walker, or those that deviate least."""
        failed = self._open(Fate.FAILED)
        if first_of_walker:
            first = {self.frames[i].origin.block: i for i in reversed(failed)}
            failed = [i for i in failed if first[self.frames[i].origin.block] == i]
        else:
            failed = sorted(failed, key=lambda i: self.deviations[i])
        self.take(self._thin(failed)[: max(k, 0)], Fate.RESCUED)

    def _expected_cost(self, indices: Sequence[int], exponent: float) -> Float[np.ndarray, " n"]:
        """Cost of a label relative to the others', over the forces that it gives."""
        atoms = np.array([len(self.frames[i].atoms) for i in indices], dtype=float)
        return (atoms / atoms.mean()) ** exponent if len(atoms) else atoms

    @property
    def _trained(self) -> int:
        return sum(fate in TRAINED for fate in self.fates)

    def _open(self, fate: Fate) -> list[int]:
        return [i for i in self.usable if self.fates[i] is fate]

    def _thin(self, ranked: Sequence[int]) -> list[int]:
        """Keep each frame of `ranked` that is not too close in time to a chosen or better one; at least the first."""
        steps: dict[str, list[int]] = {}
        taken: dict[str, list[int]] = {}
        for i in self.usable:
            origin = self.frames[i].origin
            steps.setdefault(origin.block, []).append(origin.step)
            if self.fates[i] is Fate.FRESH or self.fates[i] in TRAINED:
                taken.setdefault(origin.block, []).append(origin.step)
        kept = []
        for i in ranked:
            block, step = self.frames[i].origin.block, self.frames[i].origin.step
            spacing = min(SPACING_STEPS, SPACING_SHARE * (steps[block][-1] - steps[block][0]))
            if all(abs(step - other) >= spacing for other in taken.setdefault(block, [])):
                taken[block].append(step)
                kept.append(i)
        return kept or list(ranked[:1])

    def _most_different(self, indices: Sequence[int], weights: Float[np.ndarray, " n"], k: int) -> list[int]:
        """Farthest-point choice among `indices` from the training set and the frames chosen for it so far."""
        if k <= 0 or not indices:
            return []
        if len(indices) <= k:
            return list(indices)
        offered = [self.frames[i] for i in indices]
        known = [*self.training, *(self.frames[i] for i in self.usable if self.fates[i] in TRAINED)]
        species = sorted({int(z) for frame in (*offered, *known) for z in frame.atoms.numbers})
        chosen = farthest_points(descriptors(offered, species), descriptors(known, species), weights, k)
        return [indices[c] for c in chosen]


def select_seeds(frames: Sequence[Frame], config: SelectConfig, rng: np.random.Generator, *, budget_left: int) -> Selection:
    """Divide the seeds of iteration 0: all are labelled, a random share is held back as fresh.

    Frames of one trajectory block stay together. The user's own structures always train. Beyond `budget_left` labels, seeds
    are dropped at random.
    """
    pool = _Pool(frames, np.zeros(len(frames)), [Fate.SURPLUS] * len(frames), [])
    usable = pool.screen(config.min_distance_factor, frozenset())
    given = [i for i in usable if frames[i].origin.kind == "given"]
    made = [i for i in usable if frames[i].origin.kind != "given"]
    made = [made[j] for j in rng.permutation(len(made))]
    labelled = (given + made)[: max(budget_left, 0)]
    pool.take(labelled, Fate.TRAIN)

    blocks: dict[str, list[int]] = {}
    for i in labelled[len(given) :]:
        blocks.setdefault(frames[i].origin.block, []).append(i)
    room = min(max(SEED_FRESH_LEAST, round(SEED_FRESH_SHARE * len(labelled))), len(labelled) // 3)
    for block in blocks.values():
        if len(block) <= room:
            pool.take(block, Fate.FRESH)
            room -= len(block)
    return Selection(tuple(pool.fates))
