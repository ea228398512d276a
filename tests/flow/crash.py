"""Campaigns that are killed: how they are made, what must be the same afterwards, and who paid for which label."""

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ase.build import bulk
from ase.io import write

from al_leignn.campaign.layout import Layout
from al_leignn.labelstore import LabelStore
from al_leignn.store import MANIFEST, read_manifest, verify

LEDGER = "PAIR_CODE_LEDGER"
CODE = Path(__file__).with_name("pair_code.py")

CONFIG = """
name = "killed"
seed = 5
structures = ["Cu.extxyz"]
[labeller]
type = "external"
command = {command}
[checks]
residual_factor = 1e9  # no label is computed a second time to confirm it
repeat_share = 0.0
[model]
cutoff = 4.0
features = 4
layers = 1
radial = 4
[train]
members = 2
steps = {steps}
warm_steps = 40
device = "cpu"
[seeds]
rattled = 4
strained = 2
hot = 2
[converge]
stability_ps = 0
[explore]
temperatures = [100.0, 200.0]
walkers = 1
batch = 1
steps = 40
stride = 5
[select]
budget = 3
fresh = 2
[budget]
iterations = 2
"""


def make_campaign(root: Path, *, steps: int = 60) -> Layout:
    """Four copper atoms; the command is the same in every folder, and so is all that is published."""
    root.mkdir(parents=True)
    write(root / "Cu.extxyz", bulk("Cu", "fcc", a=3.75, cubic=True))
    command = json.dumps([sys.executable, "-I", "-S", str(CODE), "{input}", "{output}"])
    (root / "campaign.toml").write_text(CONFIG.format(command=command, steps=steps))
    return Layout.open(root)


def environment(layout: Layout) -> dict[str, str]:
    """For processes that work on a campaign; they can be told by it, too."""
    return os.environ | {LEDGER: str(layout.root.parent / f"{layout.root.name}.ledger"), "OMP_NUM_THREADS": "1"}


def fingerprint(layout: Layout) -> dict[str, Any]:
    """All manifests, times aside, with the digests of all published files, which are what these say."""
    found = {}
    for path in sorted(layout.iterations.rglob(MANIFEST)):
        verify(path.parent)
        manifest = read_manifest(path.parent)
        assert manifest is not None
        found[str(path.parent.relative_to(layout.root))] = manifest.without_times()
    return found


def litter(layout: Layout) -> list[Path]:
    """What a finished campaign must not hold."""
    return [path for pattern in (".scratch-*", ".unfinished-*", ".new-*", "label-*") for path in layout.root.rglob(pattern)]


def runs(layout: Layout, word: str = "begin") -> Counter[str]:
    """How often the labeller began (or ended) with each frame."""
    ledger = Path(environment(layout)[LEDGER])
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return Counter(uid for line in lines for kind, uid in [line.split()] if kind == word)


class Paid:
    """Sees to it that the labeller never runs again for a frame whose label is in the store."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._begun: dict[str, int] = {}

    def look(self) -> None:
        # In this order: a run that begins between the two looks is of a frame that is not stored yet.
        stored = {entry.labelled.frame.uid for entry in LabelStore(self._layout.root / "labels")}
        begun = runs(self._layout)
        for uid in stored:
            assert self._begun.setdefault(uid, begun[uid]) == begun[uid], f"{uid} was paid for twice"

    @property
    def labels(self) -> int:
        return len(self._begun)
