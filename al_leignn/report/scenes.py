"""The frames that the report shows in space, each atom with its deviation: those taken, those contested, those refused."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import covalent_radii

from al_leignn.campaign.history import History
from al_leignn.campaign.layout import FRAMES
from al_leignn.core import Frame, Stage, StageRequest, Verdict
from al_leignn.select.fate import NOVEL, TRAINED, Fate
from al_leignn.shapes import Float, Int
from al_leignn.store import read_frame

TAKEN, CONTESTED, REFUSED = 4, 2, 2
"""Frames of each kind from one iteration."""

MOST_ATOMS = 20_000
"""Of all scenes together: about a megabyte of page."""

BOND = 1.2
"""Atoms nearer than this many sums of their covalent radii are joined by a line."""


@dataclass(frozen=True)
class Scene:
    """One frame of a pool, as it is drawn."""

    uid: str
    iteration: int
    walker: int
    step: int
    temperature: float
    """Target, K."""
    verdict: str
    fate: str
    novelty: float
    symbols: list[str]
    radii: Float[np.ndarray, " n_atoms"]
    """Covalent, Å."""
    positions: Float[np.ndarray, "n_atoms 3"]
    """Å, from the middle of the cell; without periodic directions, from the mean."""
    cell: list[list[float]]
    """Å; empty without periodic directions."""
    deviation: Float[np.ndarray, " n_atoms"]
    """Per atom, eV/Å."""
    bonds: Int[np.ndarray, "n_bonds 2"]
    """Pairs of atoms within the cell."""


def scenes(history: History) -> list[Scene]:
    """Some flagged frames of every iteration, newest first, as many as fit."""
    found: list[Scene] = []
    atoms = 0
    for iteration in reversed(range(1, history.iterations)):
        for scene in _of_iteration(history, iteration):
            atoms += len(scene.symbols)
            if atoms > MOST_ATOMS and found:
                return found
            found.append(scene)
    return found


def _of_iteration(history: History, iteration: int) -> Iterator[Scene]:
    pool = history.pool(iteration)
    if pool is None or "novelty" not in pool:
        return
    samples = {m.item: history.samples(iteration, m.item) for m in history.items(Stage.EXPLORE, iteration)}
    deviation = np.concatenate([np.zeros(0), *(samples[item]["max_deviation"] for item in sorted(samples))])
    for n in _worth_showing(pool, deviation):
        place = history.place(iteration, n)
        if place is None:
            continue
        item, index = place
        frame = read_frame(history.layout.item(StageRequest(Stage.EXPLORE, iteration, item)) / FRAMES, index)
        start = int(samples[item]["atoms"][:index].sum())
        per_atom = samples[item]["per_atom"][start : start + len(frame.atoms)]
        yield _scene(frame, per_atom, {name: values[n] for name, values in pool.items()})


def _worth_showing(pool: dict[str, Any], deviation: Float[np.ndarray, " n"]) -> list[int]:
    """Indices of the frames to show: by deviation those taken and those refused, by novelty those contested."""
    taken = np.isin(pool["fate"], [str(fate) for fate in TRAINED])
    contested = (pool["verdict"] == str(Verdict.ACCURATE)) & (pool["novelty"] >= NOVEL) & ~taken
    refused = (pool["verdict"] != str(Verdict.ACCURATE)) & ~taken & (pool["fate"] != str(Fate.FRESH))
    chosen: list[int] = []
    for mask, rank, most in ((taken, deviation, TAKEN), (contested, pool["novelty"], CONTESTED), (refused, deviation, REFUSED)):
        some = np.flatnonzero(mask)
        chosen += some[np.argsort(-rank[some], kind="stable")[:most]].tolist()
    return chosen


def _scene(frame: Frame, per_atom: Float[np.ndarray, " n_atoms"], judged: dict[str, Any]) -> Scene:
    atoms, origin = frame.atoms, frame.origin
    radii = covalent_radii[atoms.numbers]
    distance = np.linalg.norm(atoms.positions[:, None] - atoms.positions, axis=-1)
    bonded = np.argwhere(np.triu(distance < BOND * (radii[:, None] + radii), k=1))
    return Scene(
        uid=frame.uid,
        iteration=origin.iteration,
        walker=origin.walker,
        step=origin.step,
        temperature=origin.temperature,
        verdict=str(judged["verdict"]),
        fate=str(judged["fate"]),
        novelty=float(judged["novelty"]),
        symbols=list(atoms.symbols),
        radii=radii,
        positions=atoms.positions - (atoms.cell.sum(axis=0) / 2 if atoms.pbc.any() else atoms.positions.mean(axis=0)),
        cell=np.asarray(atoms.cell).tolist() if atoms.pbc.any() else [],
        deviation=per_atom.astype(float),
        bonds=bonded,
    )
