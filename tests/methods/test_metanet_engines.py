"""The two engines of the ``blocks`` backend: exact gradients, the same numbers, whatever the tiles and the threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from handmade import dense_net, mlp, residual_net
from torch import Tensor, nn
from torch.testing import assert_close

from metaprune_cli.errors import InputError
from metaprune_cli.graph import encode
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig, kernel, messages, tiles
from metaprune_cli.methods.metanet.engine import EdgeInputs, Engine
from metaprune_cli.methods.metanet.layout import Layout

CPU = torch.device("cpu")
GRAPHS = [mlp, residual_net, dense_net]

compiled = pytest.mark.skipif(not kernel.available(torch.zeros(1), 1), reason="there is no C++ compiler here")
ENGINES = [pytest.param(kernel, id="kernel", marks=compiled), pytest.param(tiles, id="tiles")]


class Edges:
    """A graph's edges with random gates, ready for the engines."""

    def __init__(self, graph: NeuronGraph, hidden: int, layers: int, dtype: torch.dtype, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)

        def numbers(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw).to(dtype)

        self.layout = Layout.of(graph, CPU)
        self.weights = self.layout.flatten(
            [block.weights(graph.tensors).to(dtype) for block in graph.blocks], torch.empty(0, dtype=dtype)
        )
        rows = max(bundle.table + bundle.taps for bundle in self.layout.bundles)
        self.table, self.out_table = numbers(rows, hidden), numbers(rows, hidden)
        self.receive, self.send, self.send_back = (numbers(graph.num_neurons, hidden) for _ in range(3))
        self.gates = [0.5 * numbers(graph.num_neurons, hidden) for _ in range(2 * layers)]

    def leaves(self) -> list[Tensor]:
        ends = (self.receive, self.send, self.send_back)
        return [leaf.requires_grad_() for leaf in (self.table, self.out_table, *ends, *self.gates)]

    def run(self, *leaves: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
        table, out_table, receive, send, send_back, *gates = leaves
        weights = self.weights if weights is None else weights
        engine, states = messages.engine_for(self.layout, weights, len(gates) // 2), table.new_empty(0)
        edges = EdgeInputs(self.layout, weights, table, gates)
        received, states = messages.listen(engine, edges, receive, (send, send_back), states)
        return received, messages.decode(engine, edges, out_table, states)

    def run_layers(self, *leaves: Tensor) -> tuple[Tensor, ...]:
        """One layer after the other, as a metanetwork does, so that gradients may be carried."""
        table, out_table, receive, send, send_back, *gates = leaves
        layers = len(gates) // 2
        engine, values = messages.engine_for(self.layout, self.weights, layers), []
        states = messages.first_states(engine, self.layout, table, layers)
        for k in range(layers):
            passed = [*gates[:k], *gates[layers : layers + k]]
            edges = EdgeInputs(self.layout, self.weights, table, passed)
            received, states = messages.listen(engine, edges, receive, (send, send_back), states)
            values.append(received)
        edges = EdgeInputs(self.layout, self.weights, table, gates)
        return *values, messages.decode(engine, edges, out_table, states)

    def results(self, run: Callable[..., tuple[Tensor, ...]] | None = None) -> list[Tensor]:
        """Values, and gradients of a function of them that tells all of them apart."""
        leaves = self.leaves()
        values = (run or self.run)(*leaves)
        total = sum((value * torch.linspace(-1, 1, value.numel()).view_as(value).to(value)).sum() for value in values)
        assert isinstance(total, Tensor)
        return [*(value.detach() for value in values), *torch.autograd.grad(total, leaves)]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], None]:
    return lambda engine: monkeypatch.setattr(messages, "engine_for", lambda *_: engine)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", GRAPHS)
@pytest.mark.parametrize("layers", [0, 2])
def test_gradients_are_exact(
    engine: ModuleType, make: Callable[[], NeuronGraph], layers: int, use: Callable[[ModuleType], None]
) -> None:
    """Entry by entry on the smallest by the compiled engine, else along random directions (PyTorch's fast mode)."""
    use(engine)
    edges = Edges(make(), hidden=2, layers=layers, dtype=torch.float64)
    assert torch.autograd.gradcheck(edges.run, edges.leaves(), fast_mode=(make, engine) != (mlp, kernel))


def test_gradients_of_the_weights_themselves_are_exact() -> None:
    edges = Edges(residual_net(width=3), hidden=2, layers=1, dtype=torch.float64)
    leaves, weights = edges.leaves(), edges.weights.requires_grad_()
    assert torch.autograd.gradcheck(lambda w: edges.run(*leaves, weights=w), [weights], fast_mode=True)


@compiled
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float64, 1e-11)])
@pytest.mark.parametrize("hidden", [1, 16, 37])
@pytest.mark.parametrize("make", GRAPHS)
def test_engines_agree(
    make: Callable[[], NeuronGraph],
    hidden: int,
    dtype: torch.dtype,
    tolerance: float,
    use: Callable[[ModuleType], None],
) -> None:
    """In float32 the slope of a deviation that is all but zero, 158, enlarges rounding."""
    found = []
    for engine in (kernel, tiles):
        use(engine)
        found.append(Edges(make(), hidden, layers=3, dtype=dtype).results())
    for one, other in zip(*found, strict=True):
        assert_close(one, other, rtol=0, atol=tolerance * float(other.abs().max()))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("room", [0.5, 1.0])
@pytest.mark.parametrize("make", GRAPHS)
def test_carried_gradients_are_exact(
    engine: ModuleType,
    room: float,
    make: Callable[[], NeuronGraph],
    use: Callable[[ModuleType], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With room for some edges and for all; extremes are shared in layers below and above."""
    graph, hidden = make(), 8  # a vector: nothing is padded
    for name in {block.param for block in graph.blocks}:
        graph.tensors[name].view(-1)[::3] = 0
    edges = Edges(graph, hidden, messages.CARRY_FROM, torch.float64)
    use(tiles)
    monkeypatch.setattr("metaprune_cli.methods.metanet.layout.CARRIED", 0)
    expected = edges.results(edges.run_layers)
    use(engine)
    total = sum(bundle.size // bundle.taps for bundle in edges.layout.bundles)
    monkeypatch.setattr("metaprune_cli.methods.metanet.layout.CARRIED", int(room * 8 * hidden * total))
    carried = messages.first_states(engine, edges.layout, edges.table, messages.CARRY_FROM).numel()
    assert 0 < carried <= total * hidden
    assert (carried == total * hidden) == (room == 1)
    for one, other in zip(edges.results(edges.run_layers), expected, strict=True):
        assert_close(one, other, rtol=0, atol=1e-11 * float(other.abs().max()))


@pytest.mark.parametrize("engine", ENGINES)
def test_gradients_are_carried_where_part_of_the_results_is_used(
    engine: ModuleType, use: Callable[[ModuleType], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(engine)
    edges = Edges(mlp(), 5, messages.CARRY_FROM, torch.float64)
    found = []
    for room in (0, 2**20):
        monkeypatch.setattr("metaprune_cli.methods.metanet.layout.CARRIED", room)
        for part in (slice(-1, None), slice(1, 2), slice(-2, -1)):
            total = sum(value.square().sum() for value in edges.run_layers(*edges.leaves())[part])
            assert isinstance(total, Tensor)
            leaves = edges.leaves()
            gradients = torch.autograd.grad(total, leaves, allow_unused=True)
            found.append([g for g in gradients if g is not None and g.any()])
    for without, carried in zip(found[:3], found[3:], strict=True):
        assert_close(carried, without)


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_extremes_share_their_gradient(engine: ModuleType, use: Callable[[ModuleType], None]) -> None:
    use(engine)
    graph = mlp(sizes=(4, 3))
    graph.tensors["0.weight"].fill_(1.0)
    edges = Edges(graph, hidden=2, layers=0, dtype=torch.float32)
    edges.send = torch.ones_like(edges.send)
    edges.send[0] = -1.0
    edges.receive = torch.ones_like(edges.receive)
    leaves = edges.leaves()
    received, _ = edges.run(*leaves)
    highest = received.unflatten(1, (4, 2))[4, 2]
    assert_close(highest, edges.table[0].abs())
    (of_send,) = torch.autograd.grad(highest[edges.table[0] > 0].sum(), [edges.send])
    expected = torch.where(edges.table[0] > 0, edges.table[0] / 3, torch.zeros(2))
    assert_close(of_send[:4], torch.stack([torch.zeros(2), *[expected] * 3]).detach())


@pytest.mark.parametrize("engine", ENGINES)
def test_pruned_weights_are_no_obstacle(engine: ModuleType, use: Callable[[ModuleType], None]) -> None:
    use(engine)
    graph = residual_net()
    for name in ("first.weight", "second.weight"):
        graph.tensors[name][:3] = 0
    assert all(result.isfinite().all() for result in Edges(graph, 8, 2, torch.float32).results())


@pytest.mark.parametrize("make", GRAPHS)
def test_edges_in_half_precision_are_near(make: Callable[[], NeuronGraph]) -> None:
    """Values and gradients, one layer after the other with what is carried. Four layers of large random gates."""
    edges = Edges(make(), 8, messages.CARRY_FROM, torch.float32)
    expected = edges.results(edges.run_layers)
    edges.layout = Layout.of(make(), CPU, torch.bfloat16)
    assert messages.engine_for(edges.layout, edges.weights, 1) is tiles
    for found, exact in zip(edges.results(edges.run_layers), expected, strict=True):
        assert found.dtype == torch.float32
        assert not torch.equal(found, exact) or not exact.any()
        assert float((found - exact).norm()) <= 0.1 * float(exact.norm())


def test_sums_over_edges_in_half_precision_are_not_rounded() -> None:
    """Of 8192 equal messages in bfloat16, a sum in bfloat16 would end at 256 times one of them."""
    graph = mlp(sizes=(8192, 1))
    graph.tensors["0.weight"].fill_(1.0)
    edges = Edges(graph, 2, 0, torch.float32)
    edges.layout = Layout.of(graph, CPU, torch.bfloat16)
    edges.receive, edges.send = torch.ones_like(edges.receive), torch.ones_like(edges.send)
    received, _ = edges.run(*edges.leaves())
    assert_close(received[-1, :2], edges.table[0].bfloat16().float())


def test_what_is_not_finite_is_not_hidden() -> None:
    for value in (torch.nan, torch.inf):
        graph = mlp()
        graph.tensors["1.weight"][2, 3] = value
        received, change = Edges(graph, 4, 1, torch.float32).run(*Edges(graph, 4, 1, torch.float32).leaves())
        assert not received.isfinite().all()
        assert not change.isfinite().all()


def test_the_size_of_the_tiles_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, use: Callable[[ModuleType], None]
) -> None:
    use(tiles)
    whole = Edges(residual_net(), 6, 2, torch.float64).results()
    for size in (1, 5000):
        monkeypatch.setattr(tiles, "CPU_TILE", size)
        assert_close(Edges(residual_net(), 6, 2, torch.float64).results(), whole, rtol=1e-9, atol=1e-9)


def test_the_memory_for_a_tile_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    layout, weights = Layout.of(mlp(sizes=(512, 2048)), CPU), torch.zeros(1)

    def tiles_of_the_first_bundle() -> int:
        return len(list(tiles._tiles(layout.blocks, hidden=16, like=weights)))

    by_default = tiles_of_the_first_bundle()
    monkeypatch.setenv("METAPRUNE_TILE_MIB", "4")
    assert tiles_of_the_first_bundle() == 2 * by_default
    monkeypatch.setenv("METAPRUNE_TILE_MIB", "100000")
    assert tiles_of_the_first_bundle() == 1


@pytest.mark.parametrize("value", ["0", "-1", "8 MiB", "0.5", "²"])
def test_a_size_of_tiles_that_is_none_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAPRUNE_TILE_MIB", value)
    expected = rf"is not a size\n  expected: a whole number of MiB.*\n  got: {value}\n  where: .*METAPRUNE_TILE_MIB"
    with pytest.raises(InputError, match=expected):
        tiles._budget(CPU)


@compiled
def test_the_number_of_threads_does_not_change_a_bit(use: Callable[[ModuleType], None]) -> None:
    use(kernel)
    graph, found = mlp(sizes=(150, 300, 170, 90)), []
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        edges = Edges(graph, 20, messages.CARRY_FROM, torch.float32)
        found.append([*edges.results(), *edges.results(edges.run_layers)])
    assert all(torch.equal(one, other) for other in found[1:] for one, other in zip(found[0], other, strict=True))


def test_flat_weights_are_the_blocks_again() -> None:
    graph = dense_net()
    weights = [block.weights(graph.tensors).clone().requires_grad_() for block in graph.blocks]
    layout = Layout.of(graph, CPU)
    again = layout.unflatten(layout.flatten(weights, weights[0]))
    assert_close(list(again), weights, rtol=0, atol=0)
    total = sum((position + 1) * part.sum() for position, part in enumerate(again) if position != 2)
    gradients = torch.autograd.grad(total, weights)  # type: ignore[arg-type]
    assert [float(gradient.mean()) for gradient in gradients] == [
        0.0 if position == 2 else position + 1.0 for position in range(len(weights))
    ]


def test_a_model_without_edges_goes_through() -> None:
    graph = encode(nn.BatchNorm2d(3).eval(), torch.zeros(1, 3, 4, 4))
    written = MetaNetwork(MetaNetworkConfig(layers=2, hidden=4))(graph)
    assert not torch.equal(written["weight"], graph.tensors["weight"])


@pytest.mark.parametrize("layers", [1, 3])
def test_more_layers_than_the_kernel_takes_run_in_tiles(layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = MetaNetwork(MetaNetworkConfig(layers=layers, hidden=4))
    with torch.no_grad():
        expected = network(mlp())
        monkeypatch.setattr(kernel, "MAX_LAYERS", 2)
        assert_close(network(mlp()), expected)


def test_neurons_that_do_not_exist_are_refused() -> None:
    """Read by the library from beside its arrays otherwise; PyTorch's engine looks for itself."""
    for stray in (-1, 10**6):
        edges = Edges(mlp(), 4, 1, torch.float32)
        edges.layout.bundles[0].sources[0, 0] = stray
        with pytest.raises(InputError, match="edges to neurons that do not exist"):
            kernel._description(edges.layout, (-1,) * len(edges.layout.bundles))


@compiled
def test_weights_of_another_graph_are_refused(use: Callable[[ModuleType], None]) -> None:
    use(kernel)
    edges = Edges(mlp(), 4, 1, torch.float32)
    with pytest.raises(InputError, match="not those of the graph"):
        edges.run(*edges.leaves(), weights=edges.weights[:-1])


@pytest.mark.parametrize("engine", [kernel, tiles])
def test_an_engine_has_all_functions(engine: ModuleType) -> None:
    assert isinstance(engine, Engine)
