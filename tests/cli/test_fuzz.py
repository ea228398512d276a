"""Damaged files of every kind, given to the command line: one clear message and exit code 2, or a correct answer.

Never a traceback, never more than ten seconds, and nothing changed on disk unless the answer was a success.
"""

import io
import json
import shutil
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from al_leignn.campaign.campaign import Campaign
from al_leignn.cli.app import main
from al_leignn.model.committee import Committee
from tests.cli.mutations import mutated

LIMIT_S = 10.0
QUICK, THOROUGH = 15, 3000
"""Cases for each kind of file."""

CIF = """\
data_quartz
_cell_length_a 4.913
_cell_length_b 4.913
_cell_length_c 5.405
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_symmetry_space_group_name_H-M 'P 32 2 1'
_symmetry_Int_Tables_number 154
loop_
_symmetry_equiv_pos_as_xyz
'x, y, z'
'-y, x-y, z+2/3'
'-x+y, -x, z+1/3'
'y, x, -z'
'x-y, -y, -z+1/3'
'-x, -x+y, -z+2/3'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Si1 Si 0.4697(2) 0 0.3333 1
O1 O 0.4135 0.2669 0.2144 1.0
"""


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Target(NamedTuple):
    """A kind of file, and what is asked of it."""

    file: Path
    corpus: Sequence[bytes]
    ask: Sequence[tuple[str, ...]]
    """Commands, one of them a case; {} is the file."""
    correct: Callable[[Answer], None]
    """Raises unless a success is one."""


class _TooLongError(BaseException):
    pass


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Of CPU time, so that a busy machine proves nothing; who sleeps for ever meets the limit of the whole test."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLongError(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def ask(*words: str) -> Answer:
    """Call the command line in this process. Whatever it lets out but SystemExit would be a traceback to the user."""
    out, err = io.StringIO(), io.StringIO()
    term, argv = signal.getsignal(signal.SIGTERM), sys.argv
    sys.argv = ["al-leignn", *words]
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings(), limited(LIMIT_S):
            warnings.simplefilter("default")
            main()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, term)
    return Answer(code, out.getvalue(), err.getvalue())


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*") if not p.is_symlink()}


# --- the kinds of files ----------------------------------------------------------------------------------


def text_of(atoms: Atoms | list[Atoms], kind: str) -> bytes:
    stream = io.BytesIO() if kind == "cif" else io.StringIO()
    write(stream, atoms, format=kind)
    found = stream.getvalue()
    return found if isinstance(found, bytes) else found.encode()


def alloy() -> Atoms:
    atoms = bulk("Cu", "fcc", a=3.7, cubic=True)
    atoms.symbols[0] = "Al"
    return atoms


def labelled(count: int) -> list[Atoms]:
    images = []
    for seed in range(count):
        atoms = alloy()
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        images.append(atoms)
    return images


def _made(answer: Answer) -> None:
    assert answer.out.startswith("made ")


def _json(answer: Answer) -> None:
    assert isinstance(json.loads(answer.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON")), dict | list)


def _said(answer: Answer) -> None:
    assert answer.out.strip()


INIT = ("init", "{}", "--dir", "made")
KINDS = ["cif", "poscar", "extxyz", "data", "toml", "manifest select", "manifest label", "manifest validate", "checkpoint"]


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.chdir(tmp_path)
    kind, _, stage = str(request.param).partition(" ")
    match kind:
        case "cif":
            return Target(tmp_path / "x.cif", [CIF.encode(), text_of(alloy(), "cif"), text_of(bulk("Si"), "cif")], [INIT], _made)
        case "poscar":
            corpus = [text_of(alloy(), "vasp"), text_of(bulk("NaCl", "rocksalt", a=5.6), "vasp")]
            return Target(tmp_path / "POSCAR", corpus, [INIT], _made)
        case "extxyz":
            corpus = [text_of(alloy(), "extxyz"), text_of(molecule("CH4"), "extxyz"), text_of([alloy(), bulk("Cu")], "extxyz")]
            return Target(tmp_path / "x.extxyz", corpus, [INIT], _made)
    finished: Path = request.getfixturevalue("emt_campaign")
    model = Campaign.open(finished).committee_file()
    Committee.load(model)  # what takes long to import is not to count as a hang
    data = tmp_path / "data.extxyz"
    match kind:
        case "data":
            commands = [("evaluate", str(model), "{}", "--json")]
            return Target(data, [text_of(labelled(1), "extxyz"), text_of(labelled(3), "extxyz")], commands, _json)
        case "checkpoint":
            data.write_bytes(text_of(labelled(2), "extxyz"))
            return Target(tmp_path / "x.safetensors", [model.read_bytes()], [("evaluate", "{}", str(data), "--json")], _json)
    campaign = tmp_path / "campaign"
    shutil.copytree(finished, campaign, ignore=shutil.ignore_patterns("frames.extxyz", "*.safetensors", "history.json"))
    if kind == "manifest":
        file = campaign / "iterations" / "001" / stage / "0000" / "manifest.json"
        asked = [("status", "campaign", "--json"), ("history", "campaign", "--json"), ("status", "campaign")]
        return Target(file, [file.read_bytes()], asked, _said)
    file = campaign / "campaign.toml"
    asked = [("check", "campaign", "--json"), ("status", "campaign", "--json"), ("labels", "list", "campaign", "--json")]
    return Target(file, [file.read_bytes()], asked, _json)


def one_case(target: Target, damaged: bytes, command: tuple[str, ...]) -> int:
    """Ask about a damaged file; the exit code. The folder is as before, afterwards."""
    target.file.write_bytes(damaged)
    here = Path.cwd()
    before = snapshot(here)
    answer = ask(*(word.replace("{}", str(target.file)) for word in command))
    assert "Traceback" not in answer.err
    if answer.code == 0:
        target.correct(answer)
        shutil.rmtree(here / "made", ignore_errors=True)
    else:
        assert answer.code == 2, answer
        assert answer.err.count("error: ") == 1 or '"missing"' in answer.out, answer
        assert len(answer.err) < 4000, answer
    assert snapshot(here) == before, answer
    return answer.code


def attack(target: Target, cases: int) -> Counter[int]:
    """Try so many damaged files; how many answers had which exit code."""
    codes: Counter[int] = Counter()

    @settings(
        max_examples=cases,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, *([Phase.shrink] if cases <= QUICK else [])],
    )
    @given(st.data())
    def tried(data: st.DataObject) -> None:
        whole = data.draw(st.sampled_from(target.corpus))
        damaged = data.draw(mutated(whole))
        codes[one_case(target, damaged, data.draw(st.sampled_from(target.ask)))] += 1

    tried()
    return codes


@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_damaged_files(target: Target) -> None:
    for whole in target.corpus:
        for command in target.ask:
            assert one_case(target, whole, command) == 0, "an undamaged file is refused: this proves nothing"
    codes = attack(target, QUICK)
    assert codes.keys() <= {0, 2}


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("target", KINDS, indirect=True)
def test_very_many_damaged_files(target: Target, capsys: pytest.CaptureFixture[str]) -> None:
    codes = attack(target, THOROUGH)
    with capsys.disabled():
        sys.stdout.write(f"\n{target.file.name}: {codes.total()} cases, {codes[0]} answered, {codes[2]} refused, 0 crashes\n")
    assert codes.total() >= THOROUGH
