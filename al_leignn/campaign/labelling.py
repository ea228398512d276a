"""Stages label and collect: one label an item, then everything that was accepted joins the data set."""

import numpy as np

from al_leignn.campaign.item import Item, Outcome
from al_leignn.campaign.layout import SELECTED
from al_leignn.core import LabelFailure, LabelledFrame, Purpose, Stage
from al_leignn.dataset import fresh_share, write_block
from al_leignn.label.base import label_frame, make_labeller
from al_leignn.labelstore import LabelStore
from al_leignn.store import read_frame, read_labelled, write_frames
from al_leignn.train.screening import set_aside
from al_leignn.userdata import read_user_data

LABEL = "label.extxyz"


def label(item: Item) -> Outcome:
    """Label one selected frame, from the label store if it has been paid for before. A failure is a result too."""
    selection = item.result(Stage.SELECT)
    frame = read_frame(item.folder(Stage.SELECT) / SELECTED, item.request.item)
    labeller = make_labeller(item.config.labeller)
    store = LabelStore(item.layout.label_store(item.config))
    item.report(0, 1, "label")
    outcome = label_frame(labeller, frame, store, item.scratch)
    item.report(1, 1, "label")
    times = {"paid": float(not outcome.from_store), "label_wall_s": outcome.wall_s, "label_cpu_s": outcome.cpu_s}
    result = {"uid": frame.uid, "purpose": selection["purposes"][item.request.item], "level": labeller.level}
    if isinstance(outcome.result, LabelFailure):
        failure = outcome.result
        return Outcome(result | {"accepted": False, "reason": failure.reason, "detail": failure.detail}, times)
    write_frames(item.scratch / LABEL, [LabelledFrame(frame, outcome.result, labeller.level)])
    return Outcome(result | {"accepted": True, "reason": "", "detail": ""}, times)


def collect(item: Item) -> Outcome:
    """Add this iteration's accepted labels to the data set; iteration 0 also takes in the user's own data."""
    labels = int(item.result(Stage.SELECT)["labels"])
    blocks: dict[str, list[LabelledFrame]] = {purpose.value: [] for purpose in Purpose}
    reasons: dict[str, int] = {}
    for n in range(labels):
        result = item.result(Stage.LABEL, item=n)
        if result["accepted"]:
            blocks[result["purpose"]] += read_labelled(item.folder(Stage.LABEL, item=n) / LABEL)
        else:
            reasons[result["reason"]] = reasons.get(result["reason"], 0) + 1
    if item.iteration == 0 and item.config.data:
        # The user's own frames are taken to be of the campaign's level of theory, since the user put them there.
        level = make_labeller(item.config.labeller).level
        given = [labelled for path in item.layout.inside(item.config.data) for labelled in read_user_data(path, level)]
        given, aside = set_aside(given)
        for _, reason in aside:
            reasons[reason] = reasons.get(reason, 0) + 1
        train, fresh = fresh_share(given, np.random.default_rng(item.seed))
        blocks[Purpose.TRAIN] += train
        blocks[Purpose.FRESH] += fresh
    known = item.dataset(item.iteration)
    counts = write_block(item.scratch, blocks[Purpose.TRAIN], blocks[Purpose.FRESH], known.uids)
    total = {"train_total": len(known.train) + counts["train"], "fresh_total": len(known.fresh) + counts["fresh"]}
    return Outcome({"labels": labels, "failed": reasons} | counts | total, {})
