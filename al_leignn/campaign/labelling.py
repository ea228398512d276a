"""Stages label and collect: one label an item, then everything that was accepted joins the data set."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from al_leignn.campaign.history import History, load_arrays
from al_leignn.campaign.item import Item, Outcome
from al_leignn.campaign.layout import EXPECTED, SELECTED
from al_leignn.campaign.ledger import allowance
from al_leignn.campaign.state import label_verdict
from al_leignn.core import Doubt, Frame, LabelledFrame, Labels, LabelVerdict, Purpose, Reason, Stage
from al_leignn.dataset import Dataset, fresh_share, write_block
from al_leignn.errors import RunError
from al_leignn.label.base import label_frame, make_labeller
from al_leignn.label.checks import FAR_ENERGY, Expectation
from al_leignn.labelstore import LabelStore
from al_leignn.store import read_frame, read_frames, read_labelled, write_frames
from al_leignn.train.screening import set_aside
from al_leignn.userdata import read_user_data

LABEL = "label.extxyz"

FEW_LABELS = 4
"""Fewer labels asked for say nothing about the labeller: the campaign is not stopped for them."""

SAME_DISTANCE = 1e-4
"""Å. Structures whose distances agree to this may well have equal labels: shifted or mirrored, they are the same."""

SPREADS = 20.0
"""Median spreads that an energy may be off against the committee's; frames far outside the training set are off by a few."""

LEAST_NEIGHBOURS = 50
"""Earlier frames that new energies are compared with, at the least."""


def label(item: Item) -> Outcome:
    """Label one selected frame, from the label store if it has been paid for before. A failure is a result too."""
    selection = item.result(Stage.SELECT)
    frame = read_frame(item.folder(Stage.SELECT) / SELECTED, item.request.item)
    labeller = make_labeller(item.layout.labeller(item.config))
    store = LabelStore(item.layout.label_store(item.config))
    result = {
        "uid": frame.uid,
        "purpose": selection["purposes"][item.request.item],
        "level": labeller.level,
        "atoms": len(frame.atoms),
    }
    limit = item.config.budget.core_hours
    allowed = None if limit is None else allowance(History(item.layout), limit, item.iteration, len(frame.atoms))
    if limit is not None and allowed is None and store.find(frame, labeller.level) is None:
        times = {"paid": 0.0, "computed": 0.0, "label_wall_s": 0.0, "label_cpu_s": 0.0}
        detail = f"it may cost more than its share of what is left of {limit:g} core-hours"
        return Outcome(result | {"verdict": LabelVerdict.REJECTED.value, "reason": Reason.BUDGET.value, "detail": detail}, times)
    item.report(0, 1, "label")
    rng = np.random.default_rng(item.seed)
    outcome = label_frame(
        labeller,
        frame,
        store,
        item.scratch,
        checks=item.config.checks,
        expectation=_expectation(item),
        repeat=rng if rng.random() < item.config.checks.repeat_share else None,
        allowance=allowed,
    )
    item.report(1, 1, "label")
    times = {
        "paid": float(not outcome.from_store),
        "computed": float(outcome.computed),
        "label_wall_s": outcome.wall_s,
        "label_cpu_s": outcome.cpu_s,
    } | ({} if allowed is None else {"allowed_s": allowed.core_s})
    against = outcome.against
    if against is not None:
        verdict = against.reason.verdict.value
        return Outcome(result | {"verdict": verdict, "reason": against.reason.value, "detail": against.detail}, times)
    assert isinstance(outcome.result, Labels)
    write_frames(item.scratch / LABEL, [LabelledFrame(frame, outcome.result, labeller.level)])
    return Outcome(result | {"verdict": LabelVerdict.ACCEPTED.value, "reason": "", "detail": ""}, times)


def _expectation(item: Item) -> Expectation | None:
    """What the committee that chose the frame says of it; None for seeds."""
    if item.iteration == 0:
        return None
    expected = load_arrays(item.folder(Stage.SELECT) / EXPECTED)
    n = item.request.item
    start = int(expected["atoms"][:n].sum())
    forces = expected["forces"][start : start + int(expected["atoms"][n])]
    return Expectation(float(expected["energy"][n]), forces, float(expected["force_bound"][n]))


# --- collect ---------------------------------------------------------------------------------------------


@dataclass
class _Asked:
    """A label that was asked for, and what is held against it so far."""

    frame: Frame
    purpose: Purpose
    labelled: LabelledFrame | None
    against: Doubt | None


def collect(item: Item) -> Outcome:
    """Look at all labels of the iteration together, and add those that stand to the data set.

    Iteration 0 also takes in the user's own data; every iteration takes in what has been released from quarantine.

    Raises
    ------
    RunError
        If so many labels are refused that the labeller must be broken.
    """
    known = item.dataset(item.iteration)
    store = LabelStore(item.layout.label_store(item.config))
    level = make_labeller(item.layout.labeller(item.config)).level
    asked = [_asked(item, n, store) for n in range(int(item.result(Stage.SELECT)["labels"]))]
    _compare(asked, known, level)
    _compare_with_committee(asked, item)
    for one in asked:
        if one.against is not None and one.labelled is not None and one.against.reason.verdict is LabelVerdict.QUARANTINED:
            store.doubt(one.frame, level, one.against)
    verdicts = Counter(LabelVerdict.ACCEPTED if a.against is None else a.against.reason.verdict for a in asked)
    _stop_if_broken(item, asked)
    blocks: dict[Purpose, list[LabelledFrame]] = {purpose: [] for purpose in Purpose}
    for one in asked:
        if one.against is None and one.labelled is not None:
            blocks[one.purpose].append(one.labelled)
    released = _released(item, store, known)
    blocks[Purpose.TRAIN] += released
    given: dict[str, int] = {}
    if item.iteration == 0 and item.config.data:
        train, fresh, given = _given(item, level)
        blocks[Purpose.TRAIN] += train
        blocks[Purpose.FRESH] += fresh
    counts = write_block(item.scratch, blocks[Purpose.TRAIN], blocks[Purpose.FRESH], known.uids)
    result: dict[str, Any] = {
        "labels": len(asked),
        "verdicts": {verdict.value: verdicts[verdict] for verdict in LabelVerdict},
        "refused": dict(Counter(a.against.reason.value for a in asked if a.against is not None)),
        "given_refused": given,
        "quarantined": [
            {"uid": a.frame.uid, "reason": a.against.reason.value, "detail": a.against.detail}
            for a in asked
            if a.against is not None and a.against.reason.verdict is LabelVerdict.QUARANTINED
        ],
        "released": [labelled.frame.uid for labelled in released],
        "train_total": len(known.train) + counts["train"],
        "fresh_total": len(known.fresh) + counts["fresh"],
    }
    return Outcome(result | counts, {})


def _asked(item: Item, n: int, store: LabelStore) -> _Asked:
    """What became of label `n` so far; one that was released from quarantine meanwhile counts as accepted."""
    result = item.result(Stage.LABEL, item=n)
    purpose = Purpose(result["purpose"])
    verdict = label_verdict(result)
    if verdict is LabelVerdict.ACCEPTED:
        (labelled,) = read_labelled(item.folder(Stage.LABEL, item=n) / LABEL)
        return _Asked(labelled.frame, purpose, labelled, None)
    frame = read_frame(item.folder(Stage.SELECT) / SELECTED, n)
    if verdict is LabelVerdict.QUARANTINED:
        entry = store.find(frame, result["level"])
        if entry is not None and entry.released:
            return _Asked(frame, purpose, entry.labelled, None)
    return _Asked(frame, purpose, None, Doubt(Reason(result["reason"]), result["detail"]))


def _compare(asked: Sequence[_Asked], known: Dataset, level: str) -> None:
    """Hold against labels what only shows beside others: another level, numbers of another frame, an odd energy."""
    from al_leignn.train.consistency import MAX_GROUP, ODD, odd_energies  # half a second, which labels need not spend

    seen: dict[bytes, Frame] = {}
    for earlier in (*known.train, *known.fresh):
        seen.setdefault(_numbers(earlier), earlier.frame)
    for one in asked:
        if one.labelled is None:
            continue
        twin = seen.setdefault(_numbers(one.labelled), one.frame)
        if one.labelled.level != level:
            one.against = Doubt(Reason.WRONG_LEVEL, f"its level of theory is {one.labelled.level[:12]}, not {level[:12]}")
        elif not _congruent(twin.atoms, one.frame.atoms):
            one.against = Doubt(Reason.DUPLICATE, f"energy and forces are those of frame {twin.uid}, another structure")
    standing = [one for one in asked if one.labelled is not None and one.against is None]
    others = _thinned([f for f in (*known.train, *known.fresh) if f.level == level], MAX_GROUP - len(standing))
    for index in odd_energies([*others, *(one.labelled for one in standing if one.labelled is not None)]):
        if index >= len(others):
            standing[index - len(others)].against = Doubt(Reason.ENERGY, ODD)


def _compare_with_committee(asked: Sequence[_Asked], item: Item) -> None:
    """Energies that are off against the committee's, when those of the other labels are not: a constant offset is nobody's."""
    if item.iteration == 0:
        return
    expected = load_arrays(item.folder(Stage.SELECT) / EXPECTED, "energy")["energy"]
    off = {
        n: (one.labelled.labels.energy - float(expected[n])) / len(one.frame.atoms)
        for n, one in enumerate(asked)
        if one.labelled is not None and one.against is None
    }
    if len(off) < FEW_LABELS:
        return
    usual = float(np.median(list(off.values())))
    spread = float(np.median([abs(value - usual) for value in off.values()]))
    for n, value in off.items():
        if abs(value - usual) > max(FAR_ENERGY, SPREADS * spread):
            detail = f"{value - usual:+.3g} eV/atom against the committee, where the others have {spread:.2g}"
            asked[n].against = Doubt(Reason.ENERGY, detail)


def _numbers(labelled: LabelledFrame) -> bytes:
    return np.append(labelled.labels.forces.ravel(), labelled.labels.energy).tobytes()


def _congruent(a: Atoms, b: Atoms) -> bool:
    """Whether all distances, and the volumes, are the same."""
    if len(a) != len(b) or abs(a.cell.volume - b.cell.volume) > SAME_DISTANCE * len(a):
        return False
    first, second = (np.sort(atoms.get_all_distances(mic=True), axis=None) for atoms in (a, b))
    return bool(np.abs(first - second).max() <= SAME_DISTANCE)


def _thinned(frames: Sequence[LabelledFrame], most: int) -> list[LabelledFrame]:
    """At most so many frames, evenly drawn."""
    most = max(most, LEAST_NEIGHBOURS)
    if len(frames) <= most:
        return list(frames)
    return [frames[n] for n in np.linspace(0, len(frames) - 1, most).round().astype(int)]


def _stop_if_broken(item: Item, asked: Sequence[_Asked]) -> None:
    # What the budget forbids says nothing of the labeller.
    reasons = Counter(one.against.reason for one in asked if one.against is not None and one.against.reason is not Reason.BUDGET)
    refused = reasons.total()
    if len(asked) < FEW_LABELS or refused <= item.config.checks.max_refused * len(asked):
        return
    (commonest, _), *_ = reasons.most_common(1)
    detail = next(one.against.detail for one in asked if one.against is not None and one.against.reason is commonest)
    shown = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    raise RunError(
        f"{refused} of {len(asked)} labels of iteration {item.iteration} are refused: {shown}; e.g. {commonest}: {detail}",
        where=str(item.layout.stage(item.iteration, Stage.LABEL)),
        fix="mend the labeller, then `al-leignn labels retry` and run again; `al-leignn labels list --quarantined` shows what "
        "can be released",
    )


def _released(item: Item, store: LabelStore, known: Dataset) -> list[LabelledFrame]:
    """Labels that earlier iterations put into quarantine and a person has released since.

    They join the training set: what was drawn as fresh is no random sample once a person has chosen from it.
    """
    found = []
    for i in range(item.iteration):
        uids = {one["uid"] for one in item.result(Stage.COLLECT, i).get("quarantined", [])} - known.uids
        if not uids:
            continue
        for n, frame in enumerate(read_frames(item.folder(Stage.SELECT, i) / SELECTED)):
            if frame.uid in uids:
                entry = store.find(frame, str(item.result(Stage.LABEL, i, n)["level"]))
                if entry is not None and entry.released:
                    found.append(entry.labelled)
    return found


def _given(item: Item, level: str) -> tuple[list[LabelledFrame], list[LabelledFrame], dict[str, int]]:
    """The user's own frames for training and held back, and how many were set aside for which reason.

    They are taken to be of the campaign's level of theory, since the user put them there.
    """
    frames = [labelled for path in item.layout.inside(item.config.data) for labelled in read_user_data(path, level)]
    usable, aside = set_aside(frames)
    train, fresh = fresh_share(usable, np.random.default_rng(item.seed))
    return train, fresh, dict(Counter(reason for _, reason in aside))
