"""Model files: the same model comes back, and nothing else gets in."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from al_leignn.errors import CheckpointError
from al_leignn.model.checkpoint import FORMAT_VERSION, load_member, read_header, save_member, save_members
from al_leignn.model.graph import build_graph
from al_leignn.model.leignn import LEIGNN

MakeModel = Callable[..., LEIGNN]
MakeAtoms = Callable[[int], Atoms]


def test_the_same_model_comes_back(model: LEIGNN, crystal: MakeAtoms, tmp_path: Path) -> None:
    path = tmp_path / "member.safetensors"
    save_member(model, path, extra={"best_step": 7})
    again = load_member(path)
    assert again.config == model.config
    assert (again.species, again.e0s) == (model.species, model.e0s)
    assert read_header(path).members[0].extra == {"best_step": 7}
    graph = build_graph(crystal(0), model.cutoff, model.species)
    np.testing.assert_array_equal(again(graph).forces.detach(), model(graph).forces.detach())
    assert load_member(path, dtype=torch.float32).dtype == torch.float32


def test_where_the_core_begins_comes_back(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    model.core_reach = 0.55
    save_member(model, tmp_path / "m")
    assert load_member(tmp_path / "m").core_reach == 0.55


def test_single_precision_stays_single(make_model: MakeModel, tmp_path: Path) -> None:
    save_member(make_model().float(), tmp_path / "m")
    assert load_member(tmp_path / "m").dtype == torch.float32


def test_equal_models_make_equal_bytes_in_every_process(make_model: MakeModel, tmp_path: Path) -> None:
    for name in "ab":
        save_member(make_model(seed=3), tmp_path / name, extra={"z": 1, "a": [2.5]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    script = "import sys\nfrom pathlib import Path\nfrom al_leignn.model.checkpoint import load_member, save_member\n"
    script += "a, c = map(Path, sys.argv[1:])\nsave_member(load_member(a), c, extra={'a': [2.5], 'z': 1})\n"
    subprocess.run([sys.executable, "-c", script, tmp_path / "a", tmp_path / "c"], check=True, cwd=Path(__file__).parents[2])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "c").read_bytes()


def test_a_header_of_any_length_is_read(make_model: MakeModel, tmp_path: Path) -> None:
    """The first byte of a model file is that of its header's length, and for one length in 32 it is a pickle's first byte."""
    model, first = make_model(features=2, radial=2), set()
    for length in range(0, 256, 8):
        save_member(model, tmp_path / "m", extra={"note": "x" * length})
        first.add((tmp_path / "m").read_bytes()[0])
        assert load_member(tmp_path / "m").species == model.species
    assert 0x80 in first


@settings(max_examples=40, deadline=None, derandomize=True)
@given(cut=st.floats(0, 1), flip=st.booleans(), bit=st.integers(0, 7))
def test_damage_anywhere_is_noticed(
    make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory, cut: float, flip: bool, bit: int
) -> None:
    path = tmp_path_factory.mktemp("damage") / "member"
    save_member(make_model(features=2, radial=2), path)
    data = bytearray(path.read_bytes())
    at = int(cut * (len(data) - 1))
    if flip:
        data[at] ^= 1 << bit
    else:
        del data[at:]
    path.write_bytes(bytes(data))
    try:
        survivor = load_member(path)
    except CheckpointError:
        return
    # Only a flip in the JSON header can leave a file that reads; weights are covered by the digest.
    assert flip
    assert at < int.from_bytes(data[:8], "little") + 8
    assert isinstance(survivor, LEIGNN)


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("the pickle was executed",))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_refused_and_not_executed(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(_Bomb(), protocol=protocol))
    with pytest.raises(CheckpointError):
        load_member(path)


def test_a_torch_archive_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="could run code"):
        load_member(tmp_path / "model.pt")


def _with_header(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    """Rewrite a model file's header; its weights stay."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["al_leignn"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(header)
    save_file(tensors, path, {"al_leignn": json.dumps(header)})


def test_a_later_format_is_refused_by_name(make_model: MakeModel, tmp_path: Path) -> None:
    save_member(make_model(), tmp_path / "m")
    # A later version may have changed anything else too.
    _with_header(tmp_path / "m", lambda h: h.update(format_version=FORMAT_VERSION + 1, novelty=1))
    with pytest.raises(CheckpointError, match="install a later al-leignn"):
        load_member(tmp_path / "m")


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.pop("members"),
        lambda h: h.update(surprise=1),
        lambda h: h["members"][0].update(species=[1, 8]),
        lambda h: h["members"][0].update(e0s={}),
        lambda h: h["members"][0]["config"].update(layers=5),
        lambda h: h["members"][0].update(mean_neighbours=0.0),
        lambda h: h.update(members=[]),
    ],
)
def test_a_header_that_does_not_fit_is_refused(
    make_model: MakeModel, tmp_path: Path, change: Callable[[dict[str, object]], None]
) -> None:
    save_member(make_model(), tmp_path / "m")
    _with_header(tmp_path / "m", change)
    with pytest.raises(CheckpointError):
        load_member(tmp_path / "m")


def test_files_of_others_are_refused(tmp_path: Path, make_model: MakeModel) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "foreign")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "folder").mkdir()
    save_members([make_model(), make_model()], tmp_path / "two")
    for name, says in [
        ("foreign", "not a model"),
        ("empty", "not a readable"),
        ("text", "not a readable"),
        ("folder", "cannot be read"),
        ("missing", "no such"),
        ("two", "2 members"),
    ]:
        with pytest.raises(CheckpointError, match=says):
            load_member(tmp_path / name)


def test_a_file_of_version_1_predicts_what_it_did() -> None:
    model = load_member(Path(__file__).with_name("version_1.safetensors"))
    atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
    atoms.positions += np.random.default_rng(0).normal(0, 0.1, atoms.positions.shape)
    found = model(build_graph(atoms, model.cutoff, model.species))
    # What the version of this package that wrote the file gave.
    assert float(found.energy) == pytest.approx(-9.448209688485338, rel=1e-12)
    np.testing.assert_allclose(found.forces.detach()[0], [0.13085828, -0.40058352, -0.10742268], atol=1e-8)
