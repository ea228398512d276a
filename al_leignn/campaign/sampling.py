"""Stages explore and select: from structures and the last committee to the frames worth a label."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from al_leignn.calibration import FACTOR_LIMITS, FORCE_FLOOR, PRIOR_FACTOR
from al_leignn.campaign.estimate import label_seconds
from al_leignn.campaign.history import History, load_arrays
from al_leignn.campaign.item import Item, Outcome
from al_leignn.campaign.layout import EXPECTED, FRAMES, POOL, SAMPLES, SELECTED
from al_leignn.campaign.ledger import affordable
from al_leignn.campaign.schedule import explore_items, plan_of, posts, standings_before
from al_leignn.campaign.structures import read_starts, spread_frames
from al_leignn.campaign.uncertainty import judged_atoms, judged_deviations
from al_leignn.config import ExploreConfig, SelectConfig
from al_leignn.core import Deviation, Frame, Stage, Verdict
from al_leignn.deviation import deviation, relative
from al_leignn.explore.schedule import Standing, updated
from al_leignn.select.budget import select_frames, select_seeds
from al_leignn.select.cutout import cut_out
from al_leignn.select.fate import Selection
from al_leignn.store import digest_file, digest_json, read_frames, write_frames


def explore(item: Item) -> Outcome:
    """Seeds in iteration 0; afterwards one batch of walkers driven by the last committee."""
    return _seeds(item) if item.iteration == 0 else _walk(item)


def _seeds(item: Item) -> Outcome:
    from al_leignn.explore.seeds import make_seeds

    config = item.config
    starts = read_starts(item.layout, config)
    rng = np.random.default_rng(item.seed)
    frames = make_seeds(
        starts,
        config.seeds,
        temperature=config.explore.hottest,
        rng=rng,
        trajectories=[spread_frames(path, config.seeds.frames_per_file) for path in item.layout.inside(config.seeds.frames)],
    )
    write_frames(item.scratch / FRAMES, frames)
    return Outcome({"frames": len(frames), "steps": 0, "walkers": []}, {})


def _walk(item: Item) -> Outcome:
    from al_leignn.explore.md import Exploration, Walker
    from al_leignn.explore.md import explore as run_walkers
    from al_leignn.explore.recovery import explore_with_recovery
    from al_leignn.model.committee import Committee
    from al_leignn.model.threads import use_one_thread

    use_one_thread()
    config, conditions = item.config, item.config.explore.conditions
    starts = read_starts(item.layout, config)
    first = item.request.item * config.explore.batch
    mine = posts(plan_of(item.layout, config, item.iteration), len(starts))[first : first + config.explore.batch]
    walkers = [
        Walker(first + n, starts[post.structure], conditions[post.condition].temperature, conditions[post.condition].pressure)
        for n, post in enumerate(mine)
    ]
    members = item.member_files(item.iteration - 1)
    committee = Committee.load(members)
    trust = item.result(Stage.VALIDATE, item.iteration - 1)["trust"]
    drawn_from = [[digest_file(path) for path in members], config.explore.digest(), trust, item.seed.entropy]
    fingerprint = digest_json(drawn_from)

    def run(chosen: Sequence[Walker], explore: ExploreConfig, attempt: int) -> Exploration:
        return run_walkers(
            committee,
            chosen,
            explore,
            iteration=item.iteration,
            trust_hi=trust["hi"],
            force_scale=trust.get("force_scale"),
            seed=item.seed,
            progress=lambda done, total: item.report(done, total, "MD steps"),
            folder=item.unfinished / f"attempt-{attempt}",
            fingerprint=fingerprint,
        )

    recovered = explore_with_recovery(run, walkers, config.explore)
    found = recovered.exploration
    write_frames(item.scratch / FRAMES, [sample.frame for sample in found.samples])
    np.savez_compressed(
        item.scratch / SAMPLES,
        uid=np.array([s.frame.uid for s in found.samples]),
        walker=np.array([s.frame.origin.walker for s in found.samples]),
        step=np.array([s.frame.origin.step for s in found.samples]),
        temperature=np.array([s.frame.origin.temperature for s in found.samples]),
        max_deviation=np.array([s.deviation.max for s in found.samples]),
        energy_deviation=np.array([s.deviation.energy for s in found.samples]),
        # Seven digits are more than a deviation is worth; the frame maxima, which are compared with thresholds, keep all.
        per_atom=_joined([s.deviation.per_atom for s in found.samples]),
        mean_force=_joined([s.deviation.mean_force for s in found.samples]),
        atoms=np.array([len(s.frame.atoms) for s in found.samples], dtype=int),
    )
    reports = [
        {
            "walker": w.index,
            "temperature": w.temperature,
            "condition": conditions[post.condition].label,
            "steps": w.steps_done,
            "stopped": w.stop_reason,
            "recovery": recovered.remarks.get(w.index, ""),
        }
        for w, post in zip(found.walkers, mine, strict=True)
    ]
    return Outcome({"frames": len(found.samples), "steps": sum(w.steps_done for w in found.walkers), "walkers": reports}, {})


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *parts]).astype(np.float32)


def select(item: Item) -> Outcome:
    """Verdicts for the whole pool, and the frames to label: for training, and fresh ones to measure with."""
    config, i = item.config, item.iteration
    folders = [item.folder(Stage.EXPLORE, i, n) for n in range(explore_items(item.layout, config, i))]
    pool = [frame for folder in folders for frame in read_frames(folder / FRAMES)]
    spent = sum(int(item.result(Stage.SELECT, j)["labels"]) for j in range(i))
    left = max(config.budget.labels - spent, 0)
    if config.budget.core_hours is not None and pool:
        largest = max((frame.atoms for frame in pool), key=len)
        guess = label_seconds(config, largest)
        left = min(left, affordable(History(item.layout), config.budget.core_hours, len(largest), guess))
    rng = np.random.default_rng(item.seed)
    if i == 0:
        chosen = select_seeds(pool, config.select, rng, budget_left=left)
    else:
        trust = item.result(Stage.VALIDATE, i - 1)["trust"]
        known = item.dataset(i)
        chosen = select_frames(
            pool,
            np.concatenate([judged_deviations(load_arrays(folder / SAMPLES), trust.get("force_scale")) for folder in folders]),
            config.select,
            trust["lo"],
            trust["hi"],
            rng,
            training=[labelled.frame for labelled in known.train],
            known_uids=known.uids,
            budget_left=left,
        )
    asked = [pool[n] for n in (*chosen.train, *chosen.fresh)]
    if i > 0 and config.select.cut_out != "off":
        scale = item.result(Stage.VALIDATE, i - 1)["trust"].get("force_scale")
        worst = np.concatenate([judged_atoms(load_arrays(folder / SAMPLES), scale) for folder in folders])
        asked[: len(chosen.train)] = [_cut(pool[n], int(worst[n]), config.select) for n in chosen.train]
    _write_selection(item.scratch, pool, chosen, asked)
    if i > 0:
        _write_expected(item, asked)
    return Outcome(
        {
            "pool": len(pool),
            "labels": len(chosen.train) + len(chosen.fresh),
            "purposes": ["train"] * len(chosen.train) + ["fresh"] * len(chosen.fresh),
            "fates": chosen.counts,
            "verdicts": chosen.verdict_counts,
            "disagreements": chosen.disagreements,
            "trust": {"lo": chosen.trust_lo, "hi": chosen.trust_hi},
            "schedule": plan_of(item.layout, config, i).why if i > 0 else "",
            "conditions": _standings(item, pool, chosen) if i > 0 else {},
        },
        {},
    )


def _standings(item: Item, pool: Sequence[Frame], chosen: Selection) -> dict[str, dict[str, Any]]:
    """What is known of each condition after this iteration's walk."""
    explore = item.config.explore
    items = range(explore_items(item.layout, item.config, item.iteration))
    walkers = [walker for n in items for walker in item.result(Stage.EXPLORE, item=n)["walkers"]]
    label = {walker["walker"]: walker["condition"] for walker in walkers}
    frames = Counter(label[frame.origin.walker] for frame in pool)
    accurate = Counter(
        label[frame.origin.walker] for frame, verdict in zip(pool, chosen.verdicts, strict=True) if verdict is Verdict.ACCURATE
    )
    stopped = Counter(walker["condition"] for walker in walkers if walker["stopped"] or walker["recovery"])
    visits = {name: Standing(frames[name], accurate[name], stopped[name]) for name in label.values()}
    known = updated(standings_before(item.layout, item.iteration), visits, explore.learned_share)
    return {name: asdict(standing) for name, standing in known.items()}


def _cut(frame: Frame, worst: int, config: SelectConfig) -> Frame:
    """The frame, or the surroundings of its worst atom where these are smaller."""
    assert config.cut_out != "off"
    atoms, _ = cut_out(frame.atoms, worst, config.cut_out_radius, config.cut_out)
    return frame if len(atoms) == len(frame.atoms) else Frame.of(atoms, replace(frame.origin, kind="cut-out"))


def _write_selection(folder: Path, pool: Sequence[Frame], chosen: Selection, asked: Sequence[Frame]) -> None:
    """Write the frames to label, training frames first, and what became of every frame of the pool."""
    write_frames(folder / SELECTED, asked)
    labelled_as = np.full(len(pool), "", dtype="<U16")
    labelled_as[np.array([*chosen.train, *chosen.fresh], dtype=int)] = [frame.uid for frame in asked]
    np.savez_compressed(
        folder / POOL,
        uid=np.array([frame.uid for frame in pool]),
        fate=np.array([str(fate) for fate in chosen.fates]),
        verdict=np.array([str(verdict) for verdict in chosen.verdicts]),
        novelty=np.zeros(0) if chosen.novelty is None else chosen.novelty,
        labelled_as=labelled_as,
    )


def _write_expected(item: Item, frames: Sequence[Frame]) -> None:
    """What the committee says of the chosen frames, so that their labels can be held against it without loading it again."""
    from al_leignn.model.committee import Committee
    from al_leignn.model.threads import use_one_thread

    use_one_thread()
    predictions = Committee.load(item.member_files(item.iteration - 1)).predict([frame.atoms for frame in frames])
    means = [prediction.mean() for prediction in predictions]
    before = item.result(Stage.VALIDATE, item.iteration - 1)
    calibration, scale = before["calibration"] or {"valid": False}, before["trust"].get("force_scale")
    # Without a valid calibration there is no bound, and no label is surprising enough to be paid for twice.
    factor = float(np.clip(calibration["factor"], PRIOR_FACTOR, FACTOR_LIMITS[1])) if calibration["valid"] else np.inf
    np.savez_compressed(
        item.scratch / EXPECTED,
        atoms=np.array([len(frame.atoms) for frame in frames], dtype=int),
        energy=np.array([mean.energy for mean in means]),
        forces=np.concatenate([mean.forces for mean in means]) if means else np.zeros((0, 3)),
        force_bound=np.array([factor * _largest_deviation(deviation(p), scale) for p in predictions]),
    )


def _largest_deviation(found: Deviation, force_scale: float | None) -> float:
    """Of a frame, eV/Å. Under the relative criterion, what it allows the atom that feels the largest force."""
    judged = float(relative(found.per_atom, found.mean_force, force_scale).max())
    stretched = 1.0 if force_scale is None else 1.0 + float(found.mean_force.max()) / force_scale
    return max(judged, FORCE_FLOOR) * stretched
