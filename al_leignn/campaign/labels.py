"""The label store of a campaign as people handle it: `al-leignn labels`."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from al_leignn.campaign.layout import CONFIG, Layout
from al_leignn.campaign.lock import holding
from al_leignn.campaign.state import label_verdict, published_items
from al_leignn.core import LabelVerdict, Stage, StageRequest
from al_leignn.errors import DataError, InputError
from al_leignn.label.base import make_labeller
from al_leignn.labelstore import Entry, LabelStore
from al_leignn.store import read_manifest, write_frames


class LabelRow(NamedTuple):
    """One label of the store."""

    uid: str
    formula: str
    level: str
    """Digest of the level of theory."""
    energy: float
    """eV/atom."""
    max_force: float
    """Largest force component, eV/Å."""
    core_s: float
    """What it cost, core-seconds."""
    rung: int
    """Rung of the rescue ladder that gave it."""
    verdict: str
    reason: str
    detail: str


def store_of(layout: Layout) -> LabelStore:
    return LabelStore(layout.label_store(layout.config()))


def rows(store: LabelStore, *, quarantined: bool = False) -> list[LabelRow]:
    """The labels of a store, or only those in quarantine."""
    return [_row(entry) for entry in store if entry.quarantined or not quarantined]


def _row(entry: Entry) -> LabelRow:
    frame, labels, doubt = entry.labelled.frame, entry.labelled.labels, entry.doubt
    verdict = LabelVerdict.QUARANTINED if entry.quarantined else LabelVerdict.ACCEPTED
    return LabelRow(
        uid=frame.uid,
        formula=frame.atoms.get_chemical_formula(),
        level=entry.labelled.level,
        energy=labels.energy / len(frame.atoms),
        max_force=float(np.abs(labels.forces).max()),
        core_s=entry.meta.get("cpu_s", 0.0),
        rung=int(entry.meta.get("rung", 0)),
        verdict=verdict.value + " (released)" * entry.released,
        reason="" if doubt is None else doubt.reason.value,
        detail="" if doubt is None else doubt.detail,
    )


def export(layout: Layout, out: Path, level: str = "") -> int:
    """Write the accepted labels of one level of theory as extended XYZ; returns their number.

    Parameters
    ----------
    level
        Beginning of the digest of the level; empty: the campaign's own.

    Raises
    ------
    InputError
        If the store has no such level, or more than one.
    """
    store = store_of(layout)
    wanted = level or make_labeller(layout.labeller(layout.config())).level
    entries = [entry for entry in store if entry.labelled.level.startswith(wanted) and not entry.quarantined]
    found = sorted({entry.labelled.level for entry in entries})
    if len(found) != 1:
        known = sorted({entry.labelled.level[:12] for entry in store})
        fix = f"--level with one of: {', '.join(known)}" if known else "the store is empty: run the campaign first"
        what = f"{len(found)} levels of theory" if found else "no accepted label of a level of theory"
        raise InputError(f"{what} begin with {wanted[:12]!r}", where=str(store.root), fix=fix)
    write_frames(out, [entry.labelled for entry in entries])
    return len(entries)


def take_in(layout: Layout, sources: Sequence[Path], *, same_level: bool) -> dict[str, int]:
    """Take labels into the campaign's store: from other stores, campaigns, or files of labelled frames.

    Parameters
    ----------
    same_level
        The user says that frames in files are of this campaign's level of theory, code and version.

    Returns
    -------
    dict
        Labels taken in, by source; those already there are not counted.

    Raises
    ------
    DataError
        If a source holds no labels, or a file is of a level of theory that nobody vouches for.
    """
    store = store_of(layout)
    return {str(source): _take_in_one(layout, store, source, same_level=same_level) for source in sources}


def _take_in_one(layout: Layout, store: LabelStore, source: Path, *, same_level: bool) -> int:
    if (source / CONFIG).is_file():
        return store.take_in(store_of(Layout.open(source)))
    if source.is_dir() and len(LabelStore(source)):
        return store.take_in(LabelStore(source))
    if not same_level:
        raise DataError(
            "whether these labels are of the campaign's level of theory cannot be told from a file",
            where=str(source),
            fix="if code, version and settings are those of campaign.toml, add --same-level; or name a label store",
        )
    from al_leignn.train.screening import set_aside
    from al_leignn.userdata import read_user_data

    level = make_labeller(layout.labeller(layout.config()))
    usable, _ = set_aside(read_user_data(source, level.level))
    store.describe_level(level.level, level.describe())
    new = [labelled for labelled in usable if store.find(labelled.frame, labelled.level) is None]
    for labelled in new:
        store.put(labelled, {})
    return len(new)


def retry(layout: Layout) -> int:
    """Ask again for the rejected labels of the current iteration, once its labeller has been mended; returns their number.

    Raises
    ------
    CampaignLockedError
        If a runner works on the campaign.
    InputError
        If the labels of the current iteration have been collected already.
    """
    with holding(layout.lock, "al-leignn labels retry"):
        index = len(list(layout.iterations.glob(f"*/{CONFIG}"))) - 1
        if index < 0 or read_manifest(layout.item(StageRequest(Stage.COLLECT, index, 0))) is not None:
            raise InputError(
                "the labels of the last iteration have been collected",
                where=str(layout.root),
                fix="rejected labels cost nothing but themselves; run on, later iterations choose new frames",
            )
        folder = layout.stage(index, Stage.LABEL)
        rejected = []
        for n in published_items(folder):
            manifest = read_manifest(layout.item(StageRequest(Stage.LABEL, index, n)))
            if manifest is not None and label_verdict(manifest.result) is LabelVerdict.REJECTED:
                rejected.append(layout.item(StageRequest(Stage.LABEL, index, n)))
        for item in rejected:
            shutil.rmtree(item)
        return len(rejected)


def summary(found: Sequence[LabelRow], store: LabelStore) -> dict[str, Any]:
    """Counts and levels of theory, JSON-safe."""
    return {
        "store": str(store.root),
        "labels": len(found),
        "quarantined": sum(row.verdict == LabelVerdict.QUARANTINED.value for row in found),
        "core_s": sum(row.core_s for row in found),
        "levels": store.descriptions(),
    }
