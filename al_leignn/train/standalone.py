"""`al-leignn train`: from labelled files to a committee checkpoint."""

import json
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from al_leignn.config import CampaignConfig, ModelConfig, TrainConfig, config_error
from al_leignn.core import LabelledFrame
from al_leignn.errors import ConfigError, DataError
from al_leignn.model.committee import Committee
from al_leignn.train.committee import FitEvent, fit_committee
from al_leignn.train.consistency import check_labels
from al_leignn.train.screening import set_aside
from al_leignn.train.split import refuse_shared
from al_leignn.train.trainer import FitReport
from al_leignn.units import GPA, MEV
from al_leignn.userdata import DataKeys, frame_name, read_isolated_atoms, read_user_files

LEVEL = "as given"
"""Files given together are taken to be of one level of theory."""

LOGGED = (
    ("loss", "loss", 1.0),
    ("energy_mae", "energy_mae_mev_per_atom", MEV),
    ("force_mae", "force_mae_mev_per_angstrom", MEV),
    ("stress_mae", "stress_mae_gpa", GPA),
)
"""Errors in the history of a fit, their names in the log, and one unit of them there."""


class FitData(NamedTuple):
    """What `train` reads, checked."""

    train: list[LabelledFrame]
    valid: list[LabelledFrame] | None
    test: list[LabelledFrame]
    e0s: dict[int, float]
    """Energies of isolated atoms that the user gave, eV."""
    set_aside: dict[str, list[str]]
    """Names of unusable frames by reason."""


def read_fit_data(
    data: Sequence[Path],
    *,
    valid: Path | None,
    test: Path | None,
    isolated_atoms: Path | None,
    keys: DataKeys,
    check: bool = True,
) -> FitData:
    """Read everything that a fit needs; unusable frames are set aside, sets that contradict themselves are refused.

    Parameters
    ----------
    check
        Whether labels must agree with one another (see `consistency`).

    Raises
    ------
    DataError
        If data cannot be read or used, contradict one another, or are in more than one of the three sets.
    """
    e0s = {} if isolated_atoms is None else read_isolated_atoms(isolated_atoms, keys)
    reasons: dict[str, list[str]] = {}

    def usable(paths: Sequence[Path]) -> list[LabelledFrame]:
        given = read_user_files(paths, LEVEL, keys)
        names = {f.frame.uid: frame_name(f) for f in given}
        good, aside = set_aside(given)
        for uid, reason in aside:
            reasons.setdefault(reason.split(":")[0], []).append(names[uid])
        if check:
            for n, reason in sorted(check_labels(good, e0s), reverse=True):
                reasons.setdefault(reason, []).append(frame_name(good.pop(n)))
        return good

    sets = {
        "training": usable(data),
        "validation": None if valid is None else usable([valid]),
        "test": [] if test is None else usable([test]),
    }
    refuse_shared({name: frames for name, frames in sets.items() if frames})
    return FitData(sets["training"] or [], sets["validation"], sets["test"] or [], e0s, reasons)


def fit_files(
    data: FitData,
    out: Path,
    *,
    model: ModelConfig,
    train: TrainConfig,
    seed: int,
    workers: int,
    log: Path | None,
    told: Callable[[FitEvent], None],
) -> tuple[Committee, list[FitReport], dict[str, Any]]:
    """Fit a committee and write it to `out`, which appears whole at the end; `log` grows by a line for every evaluation.

    The state of the fit is kept in a folder beside `out`, named `out` + ".restart": the same call goes on after a kill.

    Returns
    -------
    committee, reports, summary
        The summary is JSON-safe: frames used and set aside (with reasons), and each member's held-out errors
        (eV/atom, eV/Å, eV/Å^3).

    Raises
    ------
    DataError
        If `out` or `log` cannot be written; nothing is written.
    """
    state = out.with_name(f"{out.name}.restart")
    for path in (out, log):
        if path is not None and path.exists() and not (path == log and state.exists()):
            raise DataError("the output file exists", where=str(path), fix="choose another name, or remove it yourself")
        if path is not None and not path.absolute().parent.is_dir():
            raise DataError("the folder of the output file does not exist", where=str(path))

    mode = "w"  # what an interrupted fit has told is told again

    def heard(event: FitEvent) -> None:
        nonlocal mode
        if log is not None and event.evaluated:
            with log.open(mode, encoding="utf-8") as file:
                file.write(json.dumps(log_entry(event.member, event.errors)) + "\n")
            mode = "a"
        told(event)

    committee, reports = fit_committee(
        data.train, model, train, seed=seed, workers=workers, valid=data.valid, known_e0s=data.e0s, resume_dir=state, told=heard
    )
    committee.save(out)
    shutil.rmtree(state, ignore_errors=True)
    errors = ("energy_mae", "force_mae", "stress_mae")
    return (
        committee,
        reports,
        {
            "model": str(out),
            "frames": len(data.train),
            "set_aside": {reason: len(names) for reason, names in data.set_aside.items()},
            "set_aside_names": data.set_aside,
            "members": [{"best_step": r.best_step} | {key: getattr(r, key) for key in errors} for r in reports],
        },
    )


def log_entry(member: int, entry: Mapping[str, float]) -> dict[str, float]:
    """One evaluation as a line of the log, in units that are named in the keys."""
    line: dict[str, float] = {
        "member": member,
        "step": int(entry["step"]),
        "seconds": entry["seconds"],
        "learning_rate": entry["lr"],
    }
    for part in ("train", "valid"):
        for name, key, unit in LOGGED:
            if (value := entry.get(f"{part}_{name}")) is not None:
                line[f"{part}_{key}"] = value / unit
    return line


def read_settings(path: Path | None, overrides: Mapping[str, Any]) -> tuple[ModelConfig, TrainConfig]:
    """[model] and [train] of a TOML file (other sections of a campaign.toml are passed over), with overrides for [train]."""
    raw: dict[str, Any] = {}
    if path is not None:
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"the settings cannot be read: {error}", where=str(path)) from None
    known = set(CampaignConfig.model_fields)
    unknown = sorted(set(raw) - known)
    if unknown:
        raise ConfigError(f"unknown section {unknown[0]!r}", where=str(path), fix="[model] and [train] are read here")
    try:
        return ModelConfig(**raw.get("model", {})), TrainConfig(**(raw.get("train", {}) | dict(overrides)))
    except ValidationError as error:
        section = ModelConfig if error.title == "ModelConfig" else TrainConfig
        raise config_error(error, section, str(path or "command line")) from None
