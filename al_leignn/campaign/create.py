"""Writing a new campaign folder: structures, and a campaign.toml in which every key says what it is and why."""

import itertools
import os
import shlex
import shutil
import tempfile
import tomllib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import tomlkit
from ase import Atoms
from pydantic.fields import FieldInfo

from al_leignn.campaign.derive import Derived, derive
from al_leignn.campaign.layout import CONFIG
from al_leignn.campaign.structures import read_structures
from al_leignn.config import CampaignConfig, Section
from al_leignn.core import Frame, Origin
from al_leignn.errors import CampaignError
from al_leignn.store import write_frames
from al_leignn.userdata import read_user_files

STRUCTURES = "structures"
DATA = "data"

SETS = (Path(__file__).parents[1] / "dft_inputs", Path(__file__).parents[2] / "dft_inputs")
"""Where the DFT parameter sets are: in an installed package, and in a checkout."""


def create_campaign(folder: Path, derived: Derived, structures: Mapping[str, Atoms], data: Sequence[Path]) -> Path:
    """Make the folder, all of it or nothing; returns its absolute path.

    Parameters
    ----------
    structures
        Structures by file name; the names are those in `derived.config.structures`.
    data
        Labelled files to copy in; likewise.

    Raises
    ------
    CampaignError
        If the folder holds anything, or cannot be written.
    """
    folder = folder.absolute()
    refuse_occupied(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise CampaignError(f"the campaign folder cannot be made: {error.strerror}", where=str(folder)) from None
    try:
        for n, (name, atoms) in enumerate(structures.items()):
            path = scratch / name
            path.parent.mkdir(exist_ok=True)
            write_frames(path, [Frame.of(atoms, Origin("given", walker=n))])
        for source, name in zip(data, derived.config.data, strict=True):
            (scratch / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, scratch / name)
        (scratch / CONFIG).write_text(render(derived), encoding="utf-8")
        scratch.chmod(0o755)
        os.replace(scratch, folder)  # noqa: PTH105  replaces an empty folder, which Path.rename leaves open
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        if isinstance(error, OSError):
            raise CampaignError(f"the campaign folder cannot be written: {error.strerror}", where=str(folder)) from None
        raise
    return folder


def refuse_occupied(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        there = "a campaign" if (folder / CONFIG).exists() else "something"
        raise CampaignError(
            f"{there} is already here", where=str(folder), fix="choose another folder with --dir, or remove this one yourself"
        )


def render(derived: Derived) -> str:
    """campaign.toml with a comment on every key: its description, and why it has its value."""
    lines = [
        "# An al-leignn campaign. Values marked 'derived' follow from the structures; change anything you like:",
        "# edits act from the next iteration. Units: eV, Å, fs, K. `al-leignn check` tells what is wrong or missing.",
        "",
    ]
    config = derived.config
    tables = {name: value for name, value in config if isinstance(value, Section)}
    plain = {name: value for name, value in config if name not in tables}
    lines += _keys(CampaignConfig.model_fields, plain, "", derived.reasons)
    for name, section in tables.items():
        title = (type(section).__doc__ or "").strip().splitlines()[0]
        lines += ["", f"[{name}]  # {title}"]
        values = dict(section)
        lines += _keys(type(section).model_fields, values, f"{name}.", derived.reasons)
    return "\n".join(lines) + "\n"


def _keys(fields: Mapping[str, FieldInfo], values: Mapping[str, Any], prefix: str, reasons: Mapping[str, str]) -> list[str]:
    lines = []
    for name, value in values.items():
        comment = fields[name].description or ""
        reason = reasons.get(prefix + name)
        if reason:
            comment += f" (derived: {reason})"
        if value is None:
            text = f"# {name} ="
        else:
            text = f"{name} = {_toml(value)}"
        lines.append(f"{text:<34}  # {comment}" if comment else text)
    return lines


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return str(table.as_string())
    return str(tomlkit.item(list(value) if isinstance(value, tuple) else value).as_string())


def start_campaign(
    files: Sequence[Path],
    folder: Path | None,
    *,
    data: Sequence[Path],
    labeller: str,
    calculator: str,
    command: str,
    inputs: str = "",
    temperatures: Sequence[float],
    seed: int,
) -> Path:
    """`al-leignn init`: read the structures, derive the settings, write the folder. Nothing is written on an error."""
    structures: dict[str, Atoms] = {}
    for path in files:
        for atoms in read_structures(path):
            structures[_free_name(STRUCTURES, path, ".extxyz", structures)] = atoms
    _check_data(data)
    copies: list[str] = []
    for path in data:
        copies.append(_free_name(DATA, path, "".join(path.suffixes), copies))
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise CampaignError(f"the command cannot be split into words: {error}", where="--command") from None
    name = files[0].name.split(".")[0] or "campaign"
    derived = derive(
        name,
        list(structures.values()),
        list(structures),
        labeller=labeller,
        calculator=calculator,
        command=words,
        inputs=read_set(inputs) if inputs else None,
        temperatures=temperatures,
        data=copies,
        seed=seed,
    )
    return create_campaign(folder or Path(name), derived, structures, data)


def read_set(name: str) -> dict[str, Any]:
    """A DFT parameter set: one of dft_inputs/ by name, or a file of the user's.

    Raises
    ------
    CampaignError
        If there is none, or it is no TOML.
    """
    folder = next((p for p in SETS if p.is_dir()), SETS[0])
    path = Path(name) if Path(name).is_file() else folder / f"{name.removesuffix('.toml')}.toml"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml")))
        raise CampaignError(f"there is no parameter set {name!r}", where="--inputs", fix=f"a file, or one of: {known}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CampaignError(f"the parameter set cannot be read: {error}", where=str(path)) from None


def _check_data(paths: Sequence[Path]) -> None:
    """Refuse labelled files that cannot be read, or whose labels contradict one another."""
    if not paths:
        return
    from al_leignn.train.consistency import check_labels
    from al_leignn.train.screening import set_aside

    usable, _ = set_aside(read_user_files(paths, level="unchecked"))
    check_labels(usable)


def _free_name(folder: str, path: Path, suffix: str, taken: Container[str]) -> str:
    """A name in `folder` after the user's file that none of `taken` has."""
    stem = path.name.removesuffix("".join(path.suffixes)) or folder
    names = (f"{folder}/{stem}{number}{suffix}" for number in itertools.chain([""], (f"-{n}" for n in itertools.count(1))))
    return next(name for name in names if name not in taken)
