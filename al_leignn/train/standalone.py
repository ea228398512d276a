"""`al-leignn train`: from labelled files to a committee checkpoint."""

import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from al_leignn.config import CampaignConfig, ModelConfig, TrainConfig, config_error
from al_leignn.errors import ConfigError, DataError
from al_leignn.train.committee import fit_committee
from al_leignn.train.screening import set_aside
from al_leignn.train.trainer import FitReport
from al_leignn.userdata import DataKeys, read_user_data

LEVEL = "as given"
"""Files given together are taken to be of one level of theory."""


def fit_files(
    data: Sequence[Path],
    out: Path,
    *,
    model: ModelConfig,
    train: TrainConfig,
    valid: Path | None,
    seed: int,
    workers: int,
    keys: DataKeys,
    finished: Callable[[int, FitReport], None],
) -> dict[str, Any]:
    """Fit a committee to files and write it to `out`, which appears whole at the end.

    Returns
    -------
    dict
        JSON-safe: frames used and set aside (with reasons), and each member's held-out errors (eV/atom, eV/Å, eV/Å^3).

    Raises
    ------
    DataError
        If the data cannot be used or `out` cannot be written; nothing is written.
    """
    frames, aside = set_aside([frame for path in data for frame in read_user_data(path, LEVEL, keys)])
    validation, bad = set_aside(read_user_data(valid, LEVEL, keys)) if valid is not None else (None, [])
    if out.exists():
        raise DataError("the output file exists", where=str(out), fix="choose another name, or remove it yourself")
    if not out.absolute().parent.is_dir():
        raise DataError("the folder of the output file does not exist", where=str(out))
    committee, reports = fit_committee(frames, model, train, seed=seed, workers=workers, valid=validation, finished=finished)
    committee.save(out)
    return {
        "model": str(out),
        "frames": len(frames),
        "set_aside": dict(Counter(reason.split(":")[0] for _, reason in [*aside, *bad])),
        "members": [
            {
                "best_step": report.best_step,
                "energy_mae": report.energy_mae,
                "force_mae": report.force_mae,
                "stress_mae": report.stress_mae,
            }
            for report in reports
        ],
    }


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
