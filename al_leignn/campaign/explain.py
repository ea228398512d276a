"""The life of one frame: where it came from, what was known of it, why it was labelled or not, and what came of it."""

from bisect import bisect_left
from dataclasses import asdict
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np

from al_leignn.campaign.history import History, load_arrays
from al_leignn.campaign.layout import FRAMES, SAMPLES
from al_leignn.campaign.state import label_verdict
from al_leignn.campaign.uncertainty import judged_deviations, uncertainty_table
from al_leignn.core import Frame, LabelVerdict, Purpose, Stage, StageRequest, Verdict
from al_leignn.dataset import FILES
from al_leignn.errors import InputError
from al_leignn.quantities import ENERGY, WORST_ATOM
from al_leignn.select.fate import Fate
from al_leignn.store import read_frame, read_labelled

MEANING = {
    Fate.TRAIN: "taken for training: worth its label",
    Fate.RESCUED: "taken for training although it failed: candidates were few, and it is sane and deviates least",
    Fate.NOVEL: "taken for training although the committee is content: of all such frames, little like the training set",
    Fate.FRESH: "drawn at random to measure the error with; never trained on",
    Fate.SURPLUS: "refused: worth a label, but the budget went to frames that teach more",
    Fate.CORRELATED: "refused: too close in time to a chosen frame of its walker",
    Fate.ACCURATE: "refused: the committee agrees on it",
    Fate.FAILED: "refused: the committee disagrees so much that the frame is taken to be unphysical",
    Fate.UNPHYSICAL: "refused: two atoms are too close, or the cell has exploded",
    Fate.DUPLICATE: "refused: the same structure is in the pool twice",
    Fate.KNOWN: "refused: it was labelled before",
    Fate.UNPREDICTED: "refused: the committee has no finite prediction for it",
}
_TAKEN = (Fate.TRAIN, Fate.RESCUED, Fate.NOVEL, Fate.FRESH)


class _Pool(NamedTuple):
    """Frames that stand together: the pool of an iteration, or what the user gave. What is not known of them is empty."""

    iteration: int
    uid: np.ndarray
    fate: np.ndarray
    verdict: np.ndarray
    novelty: np.ndarray
    labelled_as: np.ndarray


class _Sighting(NamedTuple):
    """One frame at its place in a pool."""

    uid: str
    iteration: int
    place: int
    fate: Fate | None
    verdict: Verdict | None
    novelty: float | None
    labelled_as: str
    """Identity of what was labelled in its stead, where its surroundings were cut out; otherwise its own."""


def explain(history: History, uid: str) -> dict[str, Any]:
    """All that is known of a frame, JSON-safe.

    Parameters
    ----------
    uid
        Identity of the frame, or its beginning if no other frame shares it. The `u` that stands before it in extended
        XYZ files may be left on.

    Returns
    -------
    dict
        uid, formula, atoms; origin (kind, iteration, walker, step, temperature in K); deviation (max in eV/Å, the worst
        atom, its element and the force on it, the relative deviation where that criterion was in force, energy in eV/atom),
        bounds (calibrated, on the worst atom's force error in eV/Å and the energy error in eV/atom), thresholds (lo, hi) and
        novelty when it was judged; verdict, fate and why in words; label (purpose, verdict, reason, detail, level, computed,
        wall_s, core_s); cut_out (identity of its surroundings, if only these were labelled); split (train, fresh or None);
        errors of the committees on it, iteration by iteration (fresh frames only: on what was trained there is no
        independent error); also_in (other pools).

    Raises
    ------
    InputError
        If no frame, or more than one, has this identity.
    """
    sightings = _find(history, uid)
    # A frame may come by more than once; the time it was taken is the one to tell.
    sighting = next((s for s in sightings if s.fate in _TAKEN), sightings[0])
    frame, deviation = _read(history, sighting)
    before = history.before(sighting.iteration)
    split = _split(history, sighting)
    return {
        "uid": sighting.uid,
        "formula": frame.atoms.get_chemical_formula(),
        "atoms": len(frame.atoms),
        "origin": asdict(frame.origin),
        "deviation": deviation,
        "bounds": {} if deviation is None else _bounds(uncertainty_table(before), deviation),
        "thresholds": before.get("trust"),
        "novelty": sighting.novelty,
        "verdict": sighting.verdict,
        "fate": sighting.fate,
        "why": _why(sighting, frame),
        "label": _label(history, sighting),
        "cut_out": None if sighting.labelled_as == sighting.uid else sighting.labelled_as,
        "split": split,
        "errors": _errors(history, sighting) if split == Purpose.FRESH else [],
        "also_in": [{"iteration": s.iteration, "fate": s.fate} for s in sightings if s is not sighting],
    }


def _why(sighting: _Sighting, frame: Frame) -> str:
    if frame.origin.kind.startswith("data"):
        return "given by the user with its label"
    if sighting.fate is None:
        return "explored; the selection of this iteration is still to come"
    if sighting.iteration == 0 and sighting.fate is Fate.TRAIN:
        return "a seed, taken for training before any committee existed"
    return MEANING[sighting.fate]


# --- finding a frame -------------------------------------------------------------------------------------


def _find(history: History, uid: str) -> list[_Sighting]:
    wanted = uid.strip().lower().removeprefix("u")
    pools = [_pool(history, i) for i in range(history.iterations)] + [_given(history)]
    found = [sighting for pool in pools for sighting in _matching(pool, wanted)] if wanted else []
    distinct = sorted({sighting.uid for sighting in found})
    if len(distinct) == 1:
        return found
    where = str(history.layout.root)
    if distinct:
        shown = ", ".join(distinct[:5]) + (", …" if len(distinct) > 5 else "")
        raise InputError(f"{len(distinct)} frames begin with {uid!r}", where=where, fix=f"give more of it: {shown}")
    near = _nearest(wanted, np.unique(np.concatenate([pool.uid for pool in pools])).tolist())
    fix = f"did you mean {near}?" if near else "the campaign has explored no frames yet"
    raise InputError(f"no frame is called {uid!r}", where=where, fix=fix)


def _matching(pool: _Pool, wanted: str) -> list[_Sighting]:
    return [
        _Sighting(
            uid=str(pool.uid[n]),
            iteration=pool.iteration,
            place=int(n),
            fate=Fate(pool.fate[n]) if len(pool.fate) else None,
            verdict=Verdict(pool.verdict[n]) if len(pool.verdict) else None,
            novelty=float(pool.novelty[n]) if len(pool.novelty) and np.isfinite(pool.novelty[n]) else None,
            labelled_as=str(pool.labelled_as[n]) or str(pool.uid[n]),
        )
        for n in np.flatnonzero(np.char.startswith(pool.uid, wanted) | np.char.startswith(pool.labelled_as, wanted))
    ]


def _nearest(wanted: str, known: list[str]) -> str:
    """The most similar of the identities that would stand beside `wanted` in the sorted list."""
    place = bisect_left(known, wanted)
    return next(iter(get_close_matches(wanted, known[max(place - 50, 0) : place + 50], n=1, cutoff=0.0)), "")


def _pool(history: History, iteration: int) -> _Pool:
    judged = history.pool(iteration)
    if judged is not None:
        own = np.full(len(judged["uid"]), "", dtype=judged["uid"].dtype)
        novelty, labelled_as = judged.get("novelty", np.zeros(0)), judged.get("labelled_as", own)
        return _Pool(iteration, judged["uid"], judged["fate"], judged["verdict"], novelty, labelled_as)
    # Explored but not judged yet: in the order in which they will enter the pool.
    explored = history.items(Stage.EXPLORE, iteration) if iteration > 0 else []
    return _unjudged(iteration, [history.samples(iteration, item.item, "uid")["uid"] for item in explored])


def _given(history: History) -> _Pool:
    """Labelled frames that the user gave."""
    if not history.iterations or not history.layout.config_of(0).data:
        return _unjudged(0, [])
    frames = [frame for part in _collected(history, 0).values() for frame in part]
    return _unjudged(0, [np.array([f.uid for f in frames if f.origin.kind.startswith("data")], dtype=str)])


def _unjudged(iteration: int, uids: list[np.ndarray]) -> _Pool:
    nothing = np.zeros(0, dtype=str)
    uid = np.concatenate([nothing, *uids])
    return _Pool(iteration, uid, nothing, nothing, np.zeros(0), np.full(len(uid), "", dtype=uid.dtype))


# --- what is known of it ---------------------------------------------------------------------------------


def _read(history: History, sighting: _Sighting) -> tuple[Frame, dict[str, Any] | None]:
    """The frame itself, and what the committee that explored it made of it."""
    place = history.place(sighting.iteration, sighting.place)
    if place is not None:
        item, index = place
        folder = history.layout.item(StageRequest(Stage.EXPLORE, sighting.iteration, item))
        frame = read_frame(folder / FRAMES, index)
        if frame.uid == sighting.uid:
            scale = history.before(sighting.iteration).get("trust", {}).get("force_scale")
            return frame, _deviation(load_arrays(folder / SAMPLES), index, frame, scale) if sighting.iteration > 0 else None
    frames = [f for part in _collected(history, sighting.iteration).values() for f in part]
    return next(f for f in frames if f.uid == sighting.uid), None


def _deviation(samples: dict[str, Any], index: int, frame: Frame, force_scale: float | None) -> dict[str, Any]:
    start = int(samples["atoms"][:index].sum())
    atoms = slice(start, start + len(frame.atoms))
    worst = int(np.argmax(samples["per_atom"][atoms]))
    found = {
        "max": float(samples["max_deviation"][index]),
        "worst_atom": worst,
        "element": frame.atoms.symbols[worst],
        "energy": float(samples["energy_deviation"][index]),
    }
    if "mean_force" in samples:
        found["force"] = float(samples["mean_force"][atoms][worst])
    if force_scale is not None:
        found["relative"] = float(judged_deviations(samples, force_scale)[index])
    return found


def _bounds(table: dict[str, dict[str, Any]], deviation: dict[str, Any]) -> dict[str, float]:
    """Calibrated bounds on the errors of this frame, where a calibration gives one."""
    bounds = {}
    for name, value in ((WORST_ATOM, deviation.get("relative", deviation["max"])), (ENERGY, deviation["energy"])):
        calibration = table.get(name, {}).get("calibration")
        if calibration and calibration["factor"] is not None:
            bounds[name] = calibration["factor"] * max(value, calibration["floor"])
    return bounds


def _label(history: History, sighting: _Sighting) -> dict[str, Any] | None:
    for manifest in history.items(Stage.LABEL, sighting.iteration) if sighting.fate in _TAKEN else []:
        if manifest.result["uid"] == sighting.labelled_as:
            times = manifest.times
            cost = {"computed": bool(times["paid"]), "wall_s": times["label_wall_s"], "core_s": times["label_cpu_s"]}
            kept = {k: manifest.result[k] for k in ("purpose", "level", "reason", "detail")}
            doubt = {"verdict": label_verdict(manifest.result).value} | _late_doubt(history, sighting)
            return kept | doubt | cost
    return None


def _late_doubt(history: History, sighting: _Sighting) -> dict[str, str]:
    """What the collection held against the label, beside the others."""
    quarantined = history.result(Stage.COLLECT, sighting.iteration).get("quarantined", [])
    found = next((one for one in quarantined if one["uid"] == sighting.uid), None)
    if found is None:
        return {}
    return {"verdict": LabelVerdict.QUARANTINED.value, "reason": found["reason"], "detail": found["detail"]}


def _split(history: History, sighting: _Sighting) -> Purpose | None:
    parts = _collected(history, sighting.iteration)
    return next((purpose for purpose, frames in parts.items() if any(f.uid == sighting.labelled_as for f in frames)), None)


def _collected(history: History, iteration: int) -> dict[Purpose, list[Frame]]:
    """Frames that an iteration added to the data set, by split."""
    if history.manifest(Stage.COLLECT, iteration) is None:
        return {}
    folder = history.layout.item(StageRequest(Stage.COLLECT, iteration, 0))
    return {purpose: [labelled.frame for labelled in read_labelled(folder / name)] for purpose, name in FILES.items()}


def _errors(history: History, sighting: _Sighting) -> list[dict[str, Any]]:
    """How well each committee since did on a fresh frame."""
    rows = []
    for i in range(sighting.iteration, history.iterations):
        found = history.predictions(i)
        if found is None:
            continue
        n = int(np.flatnonzero(found["uid"] == sighting.uid)[0])
        start = int(found["atoms"][:n].sum())
        atoms = slice(start, start + int(found["atoms"][n]))
        rows.append(
            {
                "iteration": i,
                "force_mae": float(np.abs(found["forces"][atoms] - found["forces_ref"][atoms]).mean()),
                "max_force_error": float(found["max_error"][n]),
                "energy_error": float(abs(found["energy"][n] - found["energy_ref"][n])),
            }
        )
    return rows
