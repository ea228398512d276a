"""A committee is its members, one by one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from hypothesis import given, settings
from hypothesis import strategies as st

from al_leignn.errors import CheckpointError, ConfigError, StructureError
from al_leignn.model.checkpoint import save_member
from al_leignn.model.committee import Committee
from al_leignn.model.graph import build_graph, collate
from al_leignn.model.leignn import LEIGNN

MakeModel = Callable[..., LEIGNN]
MakeAtoms = Callable[[int], Atoms]


@pytest.fixture(scope="session", params=["local", "local, eager", "local, trained", "paper", "paper-direct"])
def committee(request: pytest.FixtureRequest, make_model: MakeModel, trained: list[LEIGNN]) -> Committee:
    preset, _, more = request.param.partition(", ")
    if more == "trained":
        return Committee([*trained, make_model()])
    direct = {"direct_forces": True} if preset == "paper-direct" else {}
    members = [make_model(preset.removesuffix("-direct"), seed=k, **direct) for k in range(3)]
    return Committee(members, engine="eager" if more == "eager" else "auto")


@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_evaluation_is_a_loop_over_members(committee: Committee, crystal: MakeAtoms, cluster: MakeAtoms, seed: int) -> None:
    graph = collate([build_graph(a, committee.cutoff, committee.species) for a in (crystal(seed), cluster(seed))])
    assert committee.compiled == (committee.engine == "auto" and committee.size_consistent)
    together = committee.evaluate(graph, stress=True)
    for k, member in enumerate(committee.members):
        alone = member(graph, stress=True)
        for name in ("energy", "node_energy", "forces", "stress"):
            torch.testing.assert_close(getattr(together, name)[k], getattr(alone, name), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(together.forces[0], together.forces[1])


def test_members_can_be_asked_alone_and_in_any_order(committee: Committee, crystal: MakeAtoms) -> None:
    graph = build_graph(crystal(0), committee.cutoff, committee.species)
    everyone, some = committee.evaluate(graph), committee.evaluate(graph, [2, 0])
    torch.testing.assert_close(some.forces, everyone.forces[[2, 0]])
    assert some.stress is None


def test_predictions_do_not_depend_on_batching(committee: Committee, crystal: MakeAtoms, cluster: MakeAtoms) -> None:
    frames = [crystal(0), cluster(0), crystal(1) * (2, 1, 1), Atoms("Si"), cluster(1)]
    one_by_one = committee.predict(frames, batch_atoms=1)
    for batch_atoms in (10, 1000):
        for a, b in zip(committee.predict(frames, batch_atoms=batch_atoms), one_by_one, strict=True):
            np.testing.assert_allclose(a.energy, b.energy, rtol=1e-12)
            np.testing.assert_allclose(a.forces, b.forces, rtol=1e-9, atol=1e-11)
            np.testing.assert_allclose(a.node_energy.sum(axis=1), a.energy, rtol=1e-12)
            assert (a.stress is None) == (b.stress is None)
    assert [p.stress is None for p in one_by_one] == [False, True, False, True, True]
    assert committee.predict([]) == []


def test_stress_is_in_voigt_order(committee: Committee, crystal: MakeAtoms) -> None:
    atoms = crystal(0)
    full = committee.members[1](build_graph(atoms, committee.cutoff, committee.species), stress=True).stress[0]
    stress = committee.predict([atoms])[0].stress
    assert stress is not None
    expected = [full[0, 0], full[1, 1], full[2, 2], full[1, 2], full[0, 2], full[0, 1]]
    np.testing.assert_allclose(stress[1], [float(s) for s in expected], rtol=1e-12)


def test_one_file_holds_all_members(committee: Committee, crystal: MakeAtoms, tmp_path: Path) -> None:
    committee.save(tmp_path / "committee.safetensors")
    again = Committee.load(tmp_path / "committee.safetensors", engine=committee.engine)
    np.testing.assert_array_equal(again.predict([crystal(0)])[0].forces, committee.predict([crystal(0)])[0].forces)
    single = Committee.load(str(tmp_path / "committee.safetensors"), dtype=torch.float32)
    assert single.members[0].dtype == torch.float32


def test_a_committee_is_read_from_files_of_members(committee: Committee, crystal: MakeAtoms, tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.safetensors" for k in range(3)]
    for member, path in zip(committee.members, paths, strict=True):
        save_member(member, path)
    again = Committee.load(paths, engine=committee.engine)
    np.testing.assert_array_equal(again.predict([crystal(0)])[0].forces, committee.predict([crystal(0)])[0].forces)


def test_members_that_do_not_belong_together_are_refused(make_model: MakeModel, tmp_path: Path) -> None:
    pair = [make_model(), make_model(features=8)]
    with pytest.raises(ConfigError, match="differ"):
        Committee(pair)
    pressed = make_model()
    pressed.core_reach = 0.5
    with pytest.raises(ConfigError, match="different distances"):
        Committee([make_model(), pressed])
    with pytest.raises(ConfigError, match="at least one"):
        Committee([])
    paths = [tmp_path / "a", tmp_path / "b"]
    for member, path in zip(pair, paths, strict=True):
        save_member(member, path)
    with pytest.raises(CheckpointError, match="differ"):
        Committee.load(paths)


def test_an_unknown_element_is_refused(committee: Committee) -> None:
    with pytest.raises(StructureError, match="does not know He"):
        committee.predict([Atoms("He")])
