"""Model files: safetensors with one JSON header. Nothing in them is ever executed.

A file holds one member or a committee. Its header says all that is needed to rebuild the models, and a digest of
the weights. Equal models make byte-identical files.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import save
from torch import Tensor

from al_leignn import __version__
from al_leignn.config import ModelConfig
from al_leignn.errors import AlLeignnError, CheckpointError
from al_leignn.model.device import checked_device, checked_dtype
from al_leignn.model.layers import smoothness
from al_leignn.model.leignn import LEIGNN
from al_leignn.store import write_atomic

FORMAT_VERSION = 2
"""Raised when the header or the meaning of the weights changes; `_UPGRADES` says how older files are read."""

_KEY = "al_leignn"


class MemberHeader(BaseModel):
    """What rebuilds one member around its weights."""

    model_config = ConfigDict(extra="forbid")

    config: ModelConfig
    species: tuple[int, ...]
    e0s: dict[int, float]
    energy_scale: float
    mean_neighbours: float
    core_reach: float
    extra: dict[str, Any]
    """The writer's own notes, such as how the member was trained."""


class Header(BaseModel):
    """The JSON of a model file."""

    model_config = ConfigDict(extra="forbid")

    format_version: int
    package_version: str
    digest: str
    """SHA-256 (hex) of the weights."""
    members: tuple[MemberHeader, ...]


def save_member(model: LEIGNN, path: Path, *, extra: Mapping[str, Any] | None = None) -> None:
    """Write one member. `extra` is kept in the header (JSON values)."""
    save_members([model], path, extras=[extra or {}])


def save_members(models: Sequence[LEIGNN], path: Path, *, extras: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Write several members into one file."""
    extras = extras or [{}] * len(models)
    tensors = {
        f"{index}.{name}": value.detach().cpu().contiguous()
        for index, model in enumerate(models)
        for name, value in model.state_dict().items()
    }
    members = [
        MemberHeader(
            config=model.config,
            species=model.species,
            e0s=model.e0s,
            energy_scale=model.energy_scale,
            mean_neighbours=model.mean_neighbours,
            core_reach=model.core_reach,
            extra=dict(extra),
        )
        for model, extra in zip(models, extras, strict=True)
    ]
    header = Header(
        format_version=FORMAT_VERSION, package_version=__version__, digest=digest_tensors(tensors), members=tuple(members)
    )
    # One metadata key only: safetensors writes several in no fixed order.
    text = json.dumps(header.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    write_atomic(Path(path), save(tensors, {_KEY: text}))


def load_member(path: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> LEIGNN:
    """Read one member; `dtype` None keeps the precision of the file.

    Raises
    ------
    CheckpointError
        The file is missing, damaged, not a model, a pickle, from a later version, or holds a committee.
    ConfigError
        A device that is not there, or a type other than float32 and float64.
    """
    models = load_members(path, device, dtype)
    if len(models) != 1:
        raise CheckpointError(
            f"the file holds {len(models)} members, one was expected", where=str(path), fix="load it with Committee.load"
        )
    return models[0]


def load_members(path: Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> list[LEIGNN]:
    """Read all members of a file; errors as `load_member`."""
    device, dtype = checked_device(device), checked_dtype(dtype)
    header, tensors = _read(Path(path))
    models = []
    for index, member in enumerate(header.members):
        prefix = f"{index}."
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for upgrade in _UPGRADES[header.format_version - 1 :]:
            own = upgrade(own, member.config)
        try:
            model = LEIGNN(
                member.config,
                member.species,
                e0s=member.e0s,
                energy_scale=member.energy_scale,
                mean_neighbours=member.mean_neighbours,
                core_reach=member.core_reach,
                seed=0,
            )
            model.to(next(iter(own.values())).dtype if own else None)
            model.load_state_dict(own)
        except (AlLeignnError, RuntimeError) as error:
            raise CheckpointError(f"header and weights do not belong together: {error}", where=str(path)) from None
        models.append(model.to(device, dtype).eval())
    return models


def read_header(path: Path) -> Header:
    """The header of a model file; errors as `load_member`, but the weights are not looked at."""
    path = Path(path)
    _refuse_pickle(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"not a readable model file: {error}",
            where=str(path),
            fix="copy it again from where it was made; it may be truncated",
        ) from None
    try:
        raw = json.loads(metadata[_KEY])
        version = int(raw["format_version"])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError("a safetensors file, but not a model of this package", where=str(path)) from None
    if version > FORMAT_VERSION:
        raise CheckpointError(
            f"written in model format {version}; this al-leignn {__version__} reads up to {FORMAT_VERSION}",
            where=str(path),
            fix="install a later al-leignn",
        )
    try:
        return Header.model_validate(raw)
    except ValidationError as error:
        raise CheckpointError(f"the header is damaged: {error.errors()[0]['msg']}", where=str(path)) from None


def _read(path: Path) -> tuple[Header, dict[str, Tensor]]:
    header = read_header(path)
    with safetensors.safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    if digest_tensors(tensors) != header.digest:
        raise CheckpointError(
            "the weights do not match their digest", where=str(path), fix="copy the file again from where it was made"
        )
    return header, tensors


def _smooth_filters(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """From version 1, where filters were kept as they act, to 2, where they are multiplied by `smoothness` first."""
    found = dict(tensors)
    if config.preset == "local":
        smooth = smoothness(config.radial).unsqueeze(2)
        for name, value in tensors.items():
            match name.rsplit(".", 1)[-1]:
                case "filter":
                    repeated = smooth.repeat_interleave(value.shape[1] // config.radial, dim=1)
                    found[name.replace("filter", "weight")] = (found.pop(name) / repeated).to(value.dtype)
                case "filter_scalar":
                    found[name.replace("filter", "weight")] = (found.pop(name) / smooth).to(value.dtype)
                case "filter_tensor":
                    found[name.replace("filter", "weight")] = (found.pop(name) / smooth[0]).to(value.dtype)
    return found


_UPGRADES = (_smooth_filters,)
"""The n-th brings the weights of a member from version n to the next."""


def _refuse_pickle(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise CheckpointError("there is no such model file", where=str(path)) from None
    except OSError as error:
        raise CheckpointError(f"the model file cannot be read: {error.strerror}", where=str(path)) from None
    # A safetensors file begins with the length of its header, whose bytes may look like those of a pickle; the header follows.
    if start[8:] != b"{" and (start[:1] == b"\x80" or start[:4] == b"PK\x03\x04"):
        raise CheckpointError(
            "a pickle or torch archive, which could run code when loaded; it was not opened",
            where=str(path),
            fix="use a model written by al-leignn (safetensors)",
        )


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of names, types, shapes and values."""
    h = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        h.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        h.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if value.numel() else b"")
    return h.hexdigest()
