"""Stages train, validate and converge: from labels to a committee, its worth, and the decision."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from al_leignn.calibration import Calibration, trust_levels
from al_leignn.campaign.item import COMMITTEE, MEMBER, Item, Outcome
from al_leignn.campaign.layout import PREDICTIONS
from al_leignn.campaign.uncertainty import uncertainty_table
from al_leignn.core import CommitteePrediction, LabelledFrame, Reason, Stage
from al_leignn.errors import DataError, RunError
from al_leignn.quantities import WORST_ATOM, Quantity, quantities

if TYPE_CHECKING:
    from al_leignn.model.committee import Committee

HISTORY = "history.json"

OBSERVABLES = "observables.json"
"""Every comparison of MD, with AIMD or with the committee before (`validate.agreement.Agreement`), in the validate stage."""

COMPARED = "md.extxyz.xz"
"""MD that the next committee's is compared with where there is no AIMD, in the validate stage."""

DRIFT_STEPS = 200
"""MD steps of the energy-conservation gate: seconds, not a benchmark."""


def train(item: Item) -> Outcome:
    """Fit one member: from the previous iteration's weights, or from scratch when it is time for a refit."""
    from al_leignn.model.threads import use_one_thread
    from al_leignn.train.baseline import fit_e0s
    from al_leignn.train.schedule import planned_steps
    from al_leignn.train.trainer import fit_member

    use_one_thread()
    config, i, member = item.config, item.iteration, item.request.item
    data = item.dataset(i + 1)
    if not data.train:
        refused = item.result(Stage.COLLECT)["refused"]
        shown = ", ".join(f"{reason}: {number}" for reason, number in refused.items())
        mend = "raise budget.core_hours" if set(refused) == {Reason.BUDGET} else "mend the labeller"
        raise RunError(
            f"there is no label to train on: every label for training failed ({shown})",
            where=str(item.folder(Stage.COLLECT)),
            fix=f"see `al-leignn status`; {mend} and delete this iteration's folder",
        )
    refit = i == 0 or _changed_architecture(item) or (config.train.refit_every > 0 and i % config.train.refit_every == 0)
    report = fit_member(
        data.train,
        config.model,
        config.train,
        member=member,
        seed=item.seed,
        # The reference energies stay those of the first data, so that energies of iterations compare.
        e0s=fit_e0s(item.dataset(1).train),
        start=None if refit else item.folder(Stage.TRAIN, i - 1, member) / MEMBER,
        out=item.scratch / MEMBER,
        steps=planned_steps(config.train, [len(f.frame.atoms) for f in data.train], warm=not refit),
        progress=lambda done, total, _: item.report(done, total, "training steps"),
        resume_dir=item.unfinished,
    )
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in report.history]
    (item.scratch / HISTORY).write_text(json.dumps(history, indent=1), encoding="utf-8")
    return Outcome(
        {
            "from_scratch": refit,
            "best_step": report.best_step,
            "frames": len(data.train),
            "held_out": {"energy_mae": report.energy_mae, "force_mae": report.force_mae, "stress_mae": report.stress_mae},
        },
        {},
    )


def _changed_architecture(item: Item) -> bool:
    return item.layout.config_of(item.iteration - 1).model != item.config.model


def validate(item: Item) -> Outcome:
    """Errors on labels never trained on, calibration from them, physics of the mean potential.

    The *fresh* errors are prospective: the committee that ran the MD of this iteration is compared with labels of
    a random sample of that very MD. The *chosen* errors are the same committee's on the frames that were chosen for training
    from the same pool, before they were trained on: what choosing gains. The *test* errors are the new committee's on all
    fresh labels so far.
    """
    from al_leignn.model.committee import Committee
    from al_leignn.model.threads import use_one_thread

    use_one_thread()
    config, i = item.config, item.iteration
    data, added = item.dataset(i + 1), item.result(Stage.COLLECT)
    everything = data.fresh
    current = everything[len(everything) - int(added["fresh"]) :]
    chosen = data.train[len(data.train) - int(added["train"]) :]
    committee = Committee.load(item.member_files(i))
    item.report(0, 3, "errors")
    predictions = committee.predict([labelled.frame.atoms for labelled in everything])
    result: dict[str, Any] = {"test": _errors(predictions, everything), "fresh": None, "chosen": None}
    seen: dict[str, Quantity] = {}
    if i > 0 and current:
        driving = Committee.load(item.member_files(i - 1))
        on_fresh, on_chosen = (driving.predict([n.frame.atoms for n in part]) for part in (current, chosen))
        result |= {"fresh": _errors(on_fresh, current), "chosen": _errors(on_chosen, chosen)}
        # The bounds to be checked are of the criterion that was in force then.
        seen = quantities(on_fresh, current, item.result(Stage.VALIDATE, i - 1)["trust"].get("force_scale"))
    committee.save(item.scratch / COMMITTEE)
    found = quantities(predictions, everything, config.select.force_scale)
    _write_predictions(item, predictions, everything, found)
    item.report(1, 3, "calibration")
    result |= _uncertainty(item, seen, found)
    item.report(2, 3, "physics")
    result["gates"] = _gates(item, committee, everything)
    result["observables"] = _observables(item, committee)
    result["stability"] = _stability(item, committee)
    item.report(3, 3, "physics")
    return Outcome(result, {})


def _errors(predictions: Sequence[CommitteePrediction], labelled: Sequence[LabelledFrame]) -> dict[str, Any] | None:
    from al_leignn.validate.metrics import errors

    if not labelled:
        return None
    numbers = [n.frame.atoms.numbers for n in labelled]
    return errors([p.mean() for p in predictions], [n.labels for n in labelled], numbers).to_dict()


def _uncertainty(item: Item, seen: dict[str, Quantity], found: dict[str, Quantity]) -> dict[str, Any]:
    """How the last calibrations held for labels made since, the new calibrations, and the trust levels that follow.

    Parameters
    ----------
    seen
        The new fresh frames, as the committee saw them that ran the MD.
    found
        All fresh frames, as the new committee sees them.
    """
    select, target = item.config.select, item.config.converge.target_force_error
    earlier = uncertainty_table(item.result(Stage.VALIDATE, item.iteration - 1)) if item.iteration > 0 else {}
    calibrations = {name: quantity.calibrate() for name, quantity in found.items()}
    table = {
        name: {
            "unit": found[name].unit,
            "calibration": calibration.to_dict(),
            "coverage": None
            if name not in seen or name not in earlier
            else seen[name].coverage(Calibration.from_dict(earlier[name]["calibration"])).to_dict(),
        }
        for name, calibration in calibrations.items()
    }
    worst = table.pop(WORST_ATOM, {"calibration": None, "coverage": None})
    lo, hi = trust_levels(calibrations.get(WORST_ATOM), select, target)
    return {
        "calibration": worst["calibration"],
        "coverage": worst["coverage"],
        "quantities": table,
        "trust": {"lo": lo, "hi": hi} | ({} if select.force_scale is None else {"force_scale": select.force_scale}),
    }


def _write_predictions(
    item: Item,
    predictions: Sequence[CommitteePrediction],
    labelled: Sequence[LabelledFrame],
    found: dict[str, Quantity],
) -> None:
    """Keep what parity plots need."""
    means = [p.mean() for p in predictions]
    atoms = np.array([len(n.frame.atoms) for n in labelled], dtype=int)
    np.savez_compressed(
        item.scratch / PREDICTIONS,
        uid=np.array([n.frame.uid for n in labelled]),
        iteration=np.array([n.frame.origin.iteration for n in labelled], dtype=int),
        atoms=atoms,
        energy=np.array([m.energy for m in means]) / atoms,
        energy_ref=np.array([n.labels.energy for n in labelled]) / atoms,
        forces=np.concatenate([m.forces for m in means]) if means else np.zeros((0, 3)),
        forces_ref=np.concatenate([n.labels.forces for n in labelled]) if labelled else np.zeros((0, 3)),
        max_error=found[WORST_ATOM].errors if found else np.zeros(0),
        max_deviation=found[WORST_ATOM].deviations if found else np.zeros(0),
    )


def _gates(item: Item, committee: "Committee", labelled: Sequence[LabelledFrame]) -> list[dict[str, Any]]:
    """Physics of the committee mean; tried on a frame where forces do not vanish by symmetry."""
    from al_leignn.validate.physics import extensivity, force_consistency, nve_drift, repulsive_wall

    atoms = labelled[-1].frame.atoms if labelled else item.dataset(item.iteration + 1).train[-1].frame.atoms
    calculator = committee.calculator()
    rng = np.random.default_rng(item.seed)
    explore = item.config.explore
    drift = nve_drift(atoms, calculator, rng, temperature=explore.hottest, steps=DRIFT_STEPS, timestep_fs=explore.timestep_fs)
    others = force_consistency(atoms, calculator, rng), repulsive_wall(atoms, calculator), extensivity(atoms, calculator)
    return [gate.to_dict() for gate in (*others, drift)]


def _observables(item: Item, committee: "Committee") -> list[dict[str, Any]]:
    """MD of the new committee beside each AIMD reference; every number of it goes to a file."""
    if not item.config.converge.references:
        return []
    from al_leignn.campaign.references import read_references
    from al_leignn.campaign.validation import compare_with_references

    references = read_references(item.layout, item.config)
    with tempfile.TemporaryDirectory(dir=item.scratch) as folder:
        compared = compare_with_references(
            references,
            committee,
            item.config.converge,
            Path(folder),
            seed=item.seed,
            progress=lambda done, total: item.report(done, total, "MD beside AIMD"),
        )
    told, whole = [], []
    for reference, found in zip(references, compared, strict=True):
        if isinstance(found, RunError):
            told.append({"reference": reference.name, "verdict": "unstable", "words": f"beside {reference.name}, {found.what}"})
            continue
        told.append({"reference": reference.name, "verdict": found.outcome.value, "words": found.words})
        whole.append(found.to_dict())
    (item.scratch / OBSERVABLES).write_text(json.dumps(whole, allow_nan=False), encoding="utf-8")
    return told


def _stability(item: Item, committee: "Committee") -> dict[str, str] | None:
    """Whether the observables of MD are those of the committee before; None where that is not asked for."""
    config = item.config.converge
    if config.references or not config.stability_ps:
        return None
    from al_leignn.campaign.structures import read_starts
    from al_leignn.campaign.validation import compare_with_before, md_for_comparison
    from al_leignn.validate.equivalence import Outcome as Verdict

    out = item.scratch / COMPARED
    try:
        md = md_for_comparison(
            read_starts(item.layout, item.config)[0],
            item.config.explore,
            config.stability_ps,
            committee,
            out,
            seed=int(item.seed.generate_state(1)[0]),
            progress=lambda done, total: item.report(done, total, "MD of the new committee"),
        )
    except RunError as error:
        out.unlink()
        return {"verdict": "unstable", "words": error.what}
    finally:
        out.with_name(f"{out.name}.restart").unlink(missing_ok=True)
    before = item.folder(Stage.VALIDATE, item.iteration - 1) / COMPARED
    if item.iteration == 0 or not before.is_file():
        return {"verdict": "unknown", "words": "no MD of a committee before to compare with"}
    try:
        found = compare_with_before(md, before, config, seed=item.seed)
    except DataError as error:
        return {"verdict": "unknown", "words": f"MD of the committee before cannot be compared with: {error.what}"}
    (item.scratch / OBSERVABLES).write_text(json.dumps([found.to_dict()], allow_nan=False), encoding="utf-8")
    outcomes = [comparison.outcome for comparison in found.comparisons]
    if Verdict.DIFFERENT in outcomes:
        words = found.words
    else:
        equal = f"{outcomes.count(Verdict.EQUIVALENT)} of {len(outcomes)} observables"
        words = f"{equal} equivalent to those of the committee before, none different"
    return {"verdict": found.outcome.value, "words": words}


def converge(item: Item) -> Outcome:
    """Look at the whole history and decide."""
    from al_leignn.campaign.history import History
    from al_leignn.converge import decide

    decision = decide(History(item.layout).summaries(item.iteration + 1), item.config.converge, item.config.budget)
    return Outcome({"decision": decision.kind.value, "reason": decision.reason, "conditions": decision.conditions}, {})
