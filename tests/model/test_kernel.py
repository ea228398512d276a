"""The compiled kernel: it says what the network says, whatever the structure, or it is not used."""

import copy
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float, TypeCheckError

from al_leignn.model import build, kernel
from al_leignn.model.committee import Committee, CommitteeOutput
from al_leignn.model.graph import Graph, build_graph, collate, select_edges
from al_leignn.model.leignn import LEIGNN

MakeModel = Callable[..., LEIGNN]
MakeAtoms = Callable[[int], Atoms]

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Relative to the largest value."""

RESULTS = ("energy", "node_energy", "forces", "stress")


def silicon(cells: int, seed: int = 0) -> Atoms:
    atoms: Atoms = bulk("Si", cubic=True) * (cells, cells, cells)
    atoms.positions += np.random.default_rng(seed).normal(scale=0.1, size=atoms.positions.shape)
    return atoms


def numpy(values: torch.Tensor | None) -> Float[np.ndarray, "*shape"]:
    assert values is not None
    array: Float[np.ndarray, "*shape"] = values.numpy()
    return array


def outputs_agree(output: CommitteeOutput, expected: CommitteeOutput, tolerance: float) -> None:
    for name in RESULTS:
        value, truth = getattr(output, name), getattr(expected, name)
        assert value.shape == truth.shape
        assert float((value.double() - truth).abs().max()) <= tolerance * max(float(truth.abs().max()), 0.1), name


def assert_agrees_with_network(committee: Committee, graph: Graph) -> None:
    """With the networks in double precision, as they are hardly more than rounding errors apart."""
    assert committee.compiled
    truth = Committee([copy.deepcopy(member).double() for member in committee.members], engine="eager")
    assert not truth.compiled
    output, expected = committee.evaluate(graph, stress=True), truth.evaluate(graph, stress=True)
    assert output.forces.dtype == committee.members[0].dtype
    assert output.energy.dtype == output.node_energy.dtype == torch.float64
    outputs_agree(output, expected, TOLERANCE[committee.members[0].dtype])


@pytest.fixture(scope="session", params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    value: torch.dtype = request.param
    return value


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.library.cache_clear()
    yield tmp_path
    build.library.cache_clear()


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_agrees_with_the_network(make_model: MakeModel, make_atoms: MakeAtoms, dtype: torch.dtype, layers: int) -> None:
    committee = Committee([make_model(layers=layers, seed=seed).to(dtype) for seed in range(2)])
    for seed in range(3):
        assert_agrees_with_network(committee, build_graph(make_atoms(seed), committee.cutoff, committee.species))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000))
def test_trained_members_agree_with_their_networks(
    trained: list[LEIGNN], make_atoms: MakeAtoms, dtype: torch.dtype, seed: int
) -> None:
    committee = Committee([copy.deepcopy(member).to(dtype) for member in trained])
    assert_agrees_with_network(committee, build_graph(make_atoms(seed), committee.cutoff, committee.species))


@pytest.mark.parametrize(("features", "radial"), [(40, 3)])
def test_agrees_for_other_sizes(make_model: MakeModel, dtype: torch.dtype, features: int, radial: int) -> None:
    committee = Committee([make_model(features=features, radial=radial).to(dtype)])
    assert_agrees_with_network(committee, build_graph(silicon(2), committee.cutoff, committee.species))


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("Si"),
        Atoms("Si", cell=np.eye(3) * 2.2, pbc=True),
        Atoms("SiO", positions=[[0, 0, 0], [0, 0, 1.0]]),
        Atoms("SiOH", positions=[[0, 0, 0], [0, 0, 0.15], [0.5, 0, 0]]),
        Atoms(
            "SiOH2", positions=[[0, 0, 0], [0, 0, 1.6], [30, 0, 0], [30, 0.7, 0]], cell=np.eye(3) * 40, pbc=(True, False, True)
        ),
    ],
    ids=["atom", "crystal of one", "pressed", "pressed hard", "fragments"],
)
def test_agrees_for_odd_structures(make_model: MakeModel, dtype: torch.dtype, atoms: Atoms) -> None:
    committee = Committee([make_model(seed=seed).to(dtype) for seed in range(2)])
    assert_agrees_with_network(committee, build_graph(atoms, committee.cutoff, committee.species))


def test_edges_beyond_the_cutoff_mean_nothing(make_model: MakeModel, crystal: MakeAtoms) -> None:
    committee = Committee([make_model()])
    exact, wide = (build_graph(crystal(0), committee.cutoff + more, committee.species) for more in (0.0, 1.0))
    assert len(wide.centre) > len(exact.centre)
    outputs_agree(committee.evaluate(wide, stress=True), committee.evaluate(exact, stress=True), 1e-12)


def test_a_structure_gets_the_same_bits_in_any_company(make_model: MakeModel, crystal: MakeAtoms, cluster: MakeAtoms) -> None:
    committee = Committee([make_model().float()])
    structures = [crystal(0), cluster(0), silicon(2), crystal(1)]
    graphs = [build_graph(atoms, committee.cutoff, committee.species) for atoms in structures]
    together = committee.evaluate(collate(graphs), stress=True)
    alone = [committee.evaluate(graph, stress=True) for graph in graphs]
    for name in RESULTS:
        assert torch.equal(getattr(together, name), torch.cat([getattr(one, name) for one in alone], dim=1)), name
    assert not numpy(together.stress)[:, 1].any()  # the cluster has no cell


def test_results_do_not_depend_on_threads(make_model: MakeModel) -> None:
    committee = Committee([make_model().float()])
    graph = build_graph(silicon(3), committee.cutoff, committee.species)
    before = torch.get_num_threads()
    outputs = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs.append(committee.evaluate(graph, stress=True))
    finally:
        torch.set_num_threads(before)
    for output in outputs[1:]:
        for name in RESULTS:
            assert torch.equal(getattr(output, name), getattr(outputs[0], name)), name


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_so(make_model: MakeModel, value: float) -> None:
    committee = Committee([make_model().float()])
    graph = build_graph(silicon(2), committee.cutoff, committee.species)
    graph.positions[5, 1] = value
    output = committee.evaluate(graph, stress=True)
    assert committee.compiled
    assert not torch.isfinite(output.energy).any()
    assert not torch.isfinite(output.forces[0, 5]).any()


def test_a_member_that_is_not_a_number_is_left_to_the_network(make_model: MakeModel) -> None:
    broken = make_model()
    with torch.no_grad():
        next(broken.parameters())[0, 0] = torch.nan
    committee = Committee([broken])
    with pytest.warns(kernel.KernelWarning, match="differ from the network"):
        assert not committee.compiled


def test_weights_are_read_again_when_they_change(make_model: MakeModel, crystal: MakeAtoms) -> None:
    committee = Committee([make_model(seed=k) for k in range(2)])
    graph = build_graph(crystal(0), committee.cutoff, committee.species)
    before = committee.evaluate(graph).energy
    with torch.no_grad():
        for parameter in committee.members[1].parameters():
            parameter.mul_(1.1)
    after = committee.evaluate(graph).energy
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert_agrees_with_network(committee, graph)
    committee.members[0].float(), committee.members[1].float()
    assert committee.evaluate(graph).forces.dtype == torch.float32


def test_edges_without_reverse_are_left_to_the_network(make_model: MakeModel, crystal: MakeAtoms) -> None:
    model = make_model()
    whole = build_graph(crystal(0), model.cutoff, model.species)
    graph = select_edges(whole, torch.arange(len(whole.centre))[::2])
    output, expected = (Committee([model], engine=engine).evaluate(graph, stress=True) for engine in ("auto", "eager"))
    outputs_agree(output, expected, 0.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda g: ("neighbour", torch.cat([g.neighbour[:-1], torch.tensor([10**9])])),
        lambda g: ("neighbour", torch.cat([g.neighbour[:-1], torch.tensor([-(10**9)])])),
        lambda g: ("species", g.species + 10**6),
        lambda g: ("positions", g.positions[:3]),
        lambda g: ("cell", g.cell[:0]),
        lambda g: ("structure", g.structure + 10**6),
    ],
)
def test_graphs_that_do_not_hold_together_raise_as_the_network_does(
    make_model: MakeModel, crystal: MakeAtoms, change: Callable[[Graph], tuple[str, torch.Tensor]]
) -> None:
    """Memory that is not the graph's is never read."""
    committee = Committee([make_model()])
    good = build_graph(crystal(0), committee.cutoff, committee.species)
    committee.evaluate(good, stress=True)
    bad = copy.copy(good)
    object.__setattr__(bad, *change(good))  # past the check of shapes, which tests alone have
    with pytest.raises((IndexError, RuntimeError, TypeCheckError)):
        committee.evaluate(bad, stress=True)
    assert committee.compiled


def test_arrays_of_any_stride_and_integer_type_are_read(make_model: MakeModel, crystal: MakeAtoms) -> None:
    committee = Committee([make_model()])
    graph = build_graph(crystal(0), committee.cutoff, committee.species)
    other = replace(
        graph,
        species=torch.stack([graph.species, graph.species], dim=1)[:, 0],
        neighbour=graph.neighbour.int(),
        shift=graph.shift.T.contiguous().T,
        positions=graph.positions.T.contiguous().T,
    )
    outputs_agree(committee.evaluate(other, stress=True), committee.evaluate(graph, stress=True), 0.0)


def test_lists_of_one_structure_are_not_taken_for_another(make_model: MakeModel, crystal: MakeAtoms) -> None:
    committee = Committee([make_model()])
    for seed in range(3):
        graph = build_graph(crystal(seed), committee.cutoff, committee.species)
        moved = replace(graph, positions=graph.positions + 0.01 * torch.randn(graph.positions.shape, dtype=torch.float64))
        for one in (graph, moved):
            assert_agrees_with_network(committee, one)


def test_copies_and_pickles_of_a_committee_work(make_model: MakeModel, crystal: MakeAtoms) -> None:
    committee = Committee([make_model()])
    graph = build_graph(crystal(0), committee.cutoff, committee.species)
    expected = committee.evaluate(graph).forces
    for other in (copy.deepcopy(committee), pickle.loads(pickle.dumps(committee))):
        assert other.compiled
        assert torch.equal(other.evaluate(graph).forces, expected)
        with torch.no_grad():
            next(other.members[0].parameters()).mul_(1.1)
        assert not torch.equal(other.evaluate(graph).forces, expected)
    assert torch.equal(committee.evaluate(graph).forces, expected)


@pytest.mark.parametrize("preset", ["paper", "local"])
def test_what_has_no_kernel_needs_no_warning(make_model: MakeModel, crystal: MakeAtoms, preset: str) -> None:
    committee = Committee([make_model(preset)], engine="auto" if preset == "paper" else "eager")
    assert not committee.compiled
    assert torch.isfinite(committee.evaluate(build_graph(crystal(0), committee.cutoff, committee.species)).forces).all()


@pytest.mark.parametrize(("compiler", "complaint"), [("/nowhere/c++", "nowhere"), ("false", "false failed")])
def test_without_compiler_the_network_itself_answers(
    make_model: MakeModel,
    crystal: MakeAtoms,
    empty_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    compiler: str,
    complaint: str,
) -> None:
    monkeypatch.setenv("CXX", compiler)
    committee = Committee([make_model()])
    graph = build_graph(crystal(0), committee.cutoff, committee.species)
    with pytest.warns(RuntimeWarning, match=complaint):
        output = committee.evaluate(graph, stress=True)
    committee.evaluate(graph)  # once is enough
    outputs_agree(output, Committee(committee.members, engine="eager").evaluate(graph, stress=True), 0.0)
    assert not list(empty_cache.rglob("*.so"))


@pytest.fixture
def wrong_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = kernel._weights

    def wrong(model: LEIGNN, lanes: int) -> Iterator[torch.Tensor]:
        return (tensor * 1.01 for tensor in weights(model, lanes))

    monkeypatch.setattr(kernel, "_weights", wrong)


@pytest.mark.usefixtures("wrong_weights")
def test_a_kernel_that_errs_is_not_used(make_model: MakeModel) -> None:
    with pytest.warns(kernel.KernelWarning, match=r"member 0 differ from the network's by .* eV, .*species HOSi, torch.float64"):
        assert not Committee([make_model()]).compiled


def test_a_kernel_may_round_where_its_network_does(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound that no rounding meets, as in structures unlike any that a network was trained on."""
    monkeypatch.setitem(kernel._TOLERANCE, torch.float32, 1e-12)
    for seed in range(5):
        assert Committee([make_model(seed=seed).float()]).compiled
    monkeypatch.setattr(kernel, "_ROUNDING", 0.0)
    with pytest.warns(kernel.KernelWarning, match="torch.float32"):
        assert not Committee([make_model().float()]).compiled


@pytest.mark.usefixtures("wrong_weights")
def test_rounding_excuses_no_error(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kernel._TOLERANCE, torch.float32, 1e-12)
    with pytest.warns(kernel.KernelWarning, match="torch.float32"):
        assert not Committee([make_model().float()]).compiled


@pytest.mark.usefixtures("wrong_weights")
@pytest.mark.parametrize("cells", [1, 3], ids=["whole", "part"])
def test_the_first_graph_in_use_is_compared_too(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    """As for a kernel that errs for the shape at hand only: nothing but this graph can tell."""
    monkeypatch.setattr(kernel, "_trial_structures", lambda *_: iter(()))
    committee = Committee([make_model(seed=k) for k in range(2)])
    graph = build_graph(silicon(cells), committee.cutoff, committee.species)
    with pytest.warns(kernel.KernelWarning, match=f"{min(len(graph.species), 128)} atoms"):
        output = committee.evaluate(graph, stress=True)
    outputs_agree(output, Committee(committee.members, engine="eager").evaluate(graph, stress=True), 0.0)
    assert not committee.compiled
    committee.evaluate(graph)  # one warning is enough
    with torch.no_grad():
        next(committee.members[1].parameters()).mul_(1.1)
    with pytest.warns(kernel.KernelWarning):  # new weights are tried again
        committee.evaluate(graph)


def test_every_kernel_is_compared_once_in_use(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    compare = kernel.Kernel._compare

    def counted(self: kernel.Kernel, graph: Graph) -> None:
        compared.append(graph.n_atoms)
        compare(self, graph)

    monkeypatch.setattr(kernel.Kernel, "_compare", counted)
    committee = Committee([make_model()])
    graphs = [build_graph(silicon(cells), committee.cutoff, committee.species) for cells in (2, 1)]
    for graph in graphs:
        committee.evaluate(graph)
    assert compared == [8, 8, 64]  # two random structures, and the first in use
    committee.members[0].float()
    committee.evaluate(graphs[1])
    assert compared == [8, 8, 64, 8, 8, 8]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(exponent=st.floats(0.0, 30.0), layer=st.integers(0, 100), single=st.booleans())
def test_members_that_explode_are_answered_as_by_the_network_with_one_warning_at_most(
    make_model: MakeModel, crystal: MakeAtoms, exponent: float, layer: int, single: bool
) -> None:
    members = [make_model(seed=k).to(torch.float32 if single else torch.float64) for k in range(2)]
    parameters = list(members[1].parameters())
    with torch.no_grad():
        for parameter in [parameters[layer % len(parameters)], parameters[(layer + 7) % len(parameters)]]:
            parameter.mul_(10.0**exponent)
    atoms = crystal(0)
    committee = Committee(members)
    atoms.calc = committee.calculator()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        graph = build_graph(atoms, committee.cutoff, committee.species)
        output, expected = committee.evaluate(graph), Committee(members, engine="eager").evaluate(graph)
        committee.predict([atoms, atoms])
        atoms.get_forces()
    assert [w.category for w in caught] == [kernel.KernelWarning] * (not committee.compiled)
    for name in ("energy", "node_energy", "forces"):
        value, truth = getattr(output, name), getattr(expected, name)
        if committee.compiled:
            tolerance = 1e-3 if single else 1e-8
            assert float((value - truth).abs().max()) <= tolerance * max(float(truth.abs().max()), 1.0), name
        else:
            torch.testing.assert_close(value, truth, rtol=0, atol=0, equal_nan=True)


def test_a_damaged_cache_is_made_anew(make_model: MakeModel, empty_cache: Path) -> None:
    assert Committee([make_model()]).compiled
    (path,) = empty_cache.rglob("*.so")
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:5000] + b"x" + whole[5001:], whole[: len(whole) // 2]):
        path.unlink()  # the library in use is a mapping of the old file
        path.write_bytes(damaged)
        assert not build.intact(path)
    build.library.cache_clear()
    assert Committee([make_model()]).compiled
    assert path.read_bytes() == whole


def test_nothing_is_compiled_while_neighbours_come_and_go(
    make_model: MakeModel, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[object] = []
    compile_sources = build.compile_sources

    def counted(defines: Sequence[str]) -> bytes:
        compiled.append(defines)
        return compile_sources(defines)

    monkeypatch.setattr(build, "compile_sources", counted)
    committee = Committee([make_model()])
    atoms = silicon(1)
    atoms.calc = committee.calculator(skin=0.2)
    rng, edges = np.random.default_rng(0), set()
    for step in range(12):
        atoms.set_cell(atoms.cell.array * (1.02 if step % 3 else 0.96), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.1, size=(8, 3))
        atoms.get_forces()
        edges.add(len(build_graph(atoms, committee.cutoff, committee.species).centre))
    Committee([make_model(seed=1)]).evaluate(build_graph(silicon(2), committee.cutoff, committee.species))
    assert len(edges) > 8
    assert len(compiled) == 1


def test_processes_may_compile_at_once_and_later_ones_need_no_compiler(tmp_path: Path) -> None:
    program = "import torch; from al_leignn.model.build import library; library(6, 5, torch.float64).lanes()"
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    processes = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    (path,) = (tmp_path / "al-leignn").iterdir()
    assert build.intact(path)
    assert subprocess.run([sys.executable, "-c", program], env=environment | {"CXX": "false"}).returncode == 0
