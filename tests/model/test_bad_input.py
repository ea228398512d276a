"""What cannot be computed is refused: the same clear error from everything that takes a structure or a model file."""

import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write

from al_leignn.cli.app import main
from al_leignn.errors import CheckpointError, ConfigError, InputError, StructureError
from al_leignn.model.calculator import LeignnCalculator
from al_leignn.model.checkpoint import FORMAT_VERSION, load_member
from al_leignn.model.committee import Committee
from al_leignn.model.leignn import LEIGNN
from al_leignn.model.verlet import VerletList

MakeModel = Callable[..., LEIGNN]
MakeAtoms = Callable[[int], Atoms]


def _place(atoms: Atoms, values: object) -> None:
    atoms.positions[0] = values


BAD: dict[str, tuple[Callable[[Atoms], object], str]] = {
    "NaN position": (lambda a: _place(a, np.nan), "not finite"),
    "infinite position": (lambda a: _place(a, np.inf), "not finite"),
    "one atom twice": (lambda a: _place(a, a.positions[1]), "Å apart"),
    "one atom twice, nearly": (lambda a: _place(a, a.positions[1] + [1e-9, 0, 0]), "Å apart"),
    "one atom twice, across the cell": (lambda a: _place(a, a.positions[1] - a.cell.array[2]), "Å apart"),
    "no volume": (lambda a: a.set_cell([a.cell.array[0], a.cell.array[1], a.cell.array[0] + a.cell.array[1]]), "no volume"),
    "no cell": (lambda a: a.set_cell(None), "no volume"),
    "infinite cell": (lambda a: a.set_cell(np.full((3, 3), np.inf)), "not made of finite"),
    "NaN in the cell": (lambda a: a.set_cell(np.full((3, 3), np.nan)), "not made of finite"),
    "unknown element": (lambda a: a.set_atomic_numbers([92] * 8), "does not know U"),
    "no element": (lambda a: a.set_atomic_numbers([0] * 8), "does not know X"),
    "no atoms": (lambda a: a.__delitem__(slice(None)), "no atoms"),
}


@pytest.fixture(params=list(BAD))
def bad(request: pytest.FixtureRequest, crystal: MakeAtoms) -> tuple[Atoms, str]:
    """A broken structure, and a word of what must be said about it."""
    spoil, says = BAD[request.param]
    atoms = crystal(0)
    spoil(atoms)
    return atoms, says


@pytest.fixture
def committee(make_model: MakeModel) -> Committee:
    return Committee([make_model(seed=k) for k in range(2)])


def _forces(calculator: LeignnCalculator, atoms: Atoms) -> np.ndarray:
    atoms.calc = calculator
    return np.asarray(atoms.get_forces())


@pytest.mark.parametrize("before", ["first", "after good ones"])
def test_broken_structures_are_refused_by_all_that_take_them(
    committee: Committee, crystal: MakeAtoms, bad: tuple[Atoms, str], before: str
) -> None:
    atoms, says = bad
    calculator = committee.calculator(skin=4.0)  # so wide that hardly a move needs a new search
    lists = VerletList(committee.cutoff, committee.species, skin=4.0)
    if before == "after good ones":
        _forces(calculator, crystal(0))
        lists.graph(crystal(0))
    for ask in (
        lambda: _forces(calculator, atoms),
        lambda: _forces(calculator, atoms),  # no result of before is left
        lambda: lists.graph(atoms),
        lambda: committee.predict([crystal(0), atoms]),
    ):
        with pytest.raises(StructureError, match=says) as caught:
            ask()
        assert caught.value.where or says == "no atoms"
    assert np.isfinite(_forces(calculator, crystal(0))).all()


@pytest.mark.parametrize("apart", [0.0, 1e-9])
def test_atoms_that_meet_within_the_skin_are_noticed(committee: Committee, apart: float) -> None:
    atoms = Atoms("Si2", positions=[[0, 0, 0], [0, 0, 0.3]])
    calculator = committee.calculator(skin=0.5)
    assert np.isfinite(_forces(calculator, atoms)).all()
    atoms.positions[:, 2] = [0.15, 0.15 + apart]
    with pytest.raises(StructureError, match="Å apart"):
        _forces(calculator, atoms)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.complex64])
def test_other_precisions_are_refused(committee: Committee, tmp_path: Path, dtype: torch.dtype) -> None:
    committee.save(tmp_path / "m")
    for ask in (lambda: committee.calculator(dtype=dtype), lambda: Committee.load(tmp_path / "m", dtype=dtype)):
        with pytest.raises(ConfigError, match=r"float32 or torch.float64"):
            ask()


def test_devices_that_are_not_there_are_refused(committee: Committee, tmp_path: Path) -> None:
    committee.save(tmp_path / "m")
    for device in ("quantum", "cuda:99"):
        for ask in (lambda: committee.calculator(device=device), lambda: Committee.load(tmp_path / "m", device)):  # noqa: B023
            with pytest.raises(ConfigError, match=device):
                ask()


def test_members_of_different_precision_are_refused(make_model: MakeModel) -> None:
    with pytest.raises(ConfigError, match="precision"):
        Committee([make_model(), make_model().float()])


class _Bomb:
    """Leaves a file behind if it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("executed",))


def _damaged(good: bytes) -> dict[str, bytes]:
    header = int.from_bytes(good[:8], "little")
    future = good[8 : 8 + header].replace(f'\\"format_version\\":{FORMAT_VERSION}'.encode(), b'\\"format_version\\":9')
    assert future != good[8 : 8 + header]
    return {
        "empty": b"",
        "truncated": good[: len(good) // 2],
        "without its last byte": good[:-1],
        "corrupted": good[:-9] + bytes([good[-9] ^ 1]) + good[-8:],
        "from the future": good[:8] + future + good[8 + header :],
        **{f"pickle {protocol}": pickle.dumps(_Bomb(), protocol=protocol) for protocol in range(6)},
        "pickle behind a header": (32).to_bytes(8, "little") + pickle.dumps(_Bomb()),
        "text": b"hello",
    }


def _md(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["al-leignn", "md", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(str(left.value.code))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committee: Committee, crystal: MakeAtoms) -> Path:
    """A folder with a model and a structure that are fine."""
    monkeypatch.chdir(tmp_path)
    committee.save("model")
    write("good.xyz", crystal(0), format="extxyz")
    return tmp_path


MD = ("--temperature", "300", "--steps", "2", "--stride", "1")


def test_damaged_models_are_refused_and_nothing_in_them_is_executed(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = _damaged((here / "model").read_bytes())
    torch.save(_Bomb(), here / "torch archive")
    torch.save(_Bomb(), here / "old torch archive", _use_new_zipfile_serialization=False)
    for name, content in files.items():
        (here / name).write_bytes(content)
    for name in (*files, "torch archive", "old torch archive", "missing"):
        with pytest.raises(CheckpointError):
            load_member(Path(name))
        with pytest.raises(CheckpointError):
            Committee.load(name)
        assert _md(name, "good.xyz", *MD, monkeypatch=monkeypatch) == 2, name
        assert "error: " in capsys.readouterr().err
    assert not (here / "executed").exists()
    assert not (here / "md.extxyz").exists()


def test_the_bomb_would_have_worked(here: Path) -> None:
    pickle.loads(pickle.dumps(_Bomb()))
    assert (here / "executed").exists()


def test_md_refuses_broken_structures(
    here: Path, bad: tuple[Atoms, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("bad.xyz", bad[0], format="extxyz")
    assert _md("model", "bad.xyz", *MD, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert "  where: " in said.err
    assert not (here / "md.extxyz").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--temperature", "nan"),
        ("--temperature", "-5"),
        ("--temperature", "inf"),
        ("--ensemble", "npt", "--pressure", "nan"),
        ("--timestep-fs", "nan"),
        ("--timestep-fs", "-1"),
        ("--ensemble", "nph"),
        ("--driver", "everyone"),
        ("--out", "nowhere/md.extxyz"),
        ("--out", "good.xyz"),
    ],
    ids=" ".join,
)
def test_md_refuses_impossible_options(
    here: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _md("model", "good.xyz", *MD, *options, monkeypatch=monkeypatch) == 2
    assert "error: " in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["good.xyz", "model"]


def test_refusals_are_input_errors() -> None:
    assert {CheckpointError, ConfigError, StructureError} <= set(InputError.__subclasses__())
    assert InputError.exit_code == 2
