"""Networks of the kinds that people have: each encodes, prunes, and computes what the masked original computes."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from kinds import (
    KINDS,
    Answer,
    Cache,
    attention,
    made,
    rows,
    sequence,
)
from people import Net
from torch import Tensor, nn

import metaprune_cli as mp
from metaprune_cli.errors import InputError
from metaprune_cli.graph.nest import leaves, map_tensors
from metaprune_cli.graph.trace.tracer import call


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_encoded_and_pruned(name: str) -> None:
    model, inputs = made(name)
    graph = mp.encode(model, inputs)
    assert graph.summary()["prunable_units"] >= KINDS[name].units, [(lock.reason, lock.neurons) for lock in graph.locks]
    before = mp.count_macs(model, inputs)
    assert graph.macs == before
    pruned = mp.prune(model, inputs, speedup=1.5)
    assert pruned.report["route"] == KINDS[name].route
    assert pruned.report["speedup"] == pytest.approx(before / mp.count_macs(pruned.model, inputs))
    trained = pruned.model.train()
    losses = [tensor.sum() for tensor in leaves(call(trained, inputs), Tensor) if tensor.requires_grad]
    assert losses or name == "inference_mode"
    sum(losses, torch.zeros(1, requires_grad=True).sum()).backward()
    assert not any(tensor.is_meta for tensor in leaves(call(trained.eval(), inputs), Tensor))


def test_containers_come_back_as_they_are() -> None:
    one = torch.ones(1)
    lists = defaultdict(list, {"a": [one]})
    nest = (Answer(one, "text"), SimpleNamespace(x=one, cache=Cache(one)), lists, [one, None, 3])
    answer, namespace, mapping, rest = map_tensors(nest, lambda t: t + 1)
    assert type(answer) is Answer
    assert list(answer) == ["logits", "cache"]
    assert answer.logits is answer["logits"]
    assert float(answer.logits) == 2
    assert float(namespace.x) == 2
    assert namespace.cache is nest[1].cache
    assert type(mapping) is defaultdict
    assert mapping.default_factory is list
    assert float(mapping["a"][0]) == 2
    assert rest[1:] == [None, 3]
    assert len(list(leaves(nest, Tensor))) == 4
    assert float(lists["a"][0]) == 1


def test_a_program_returns_no_dead_tensors_and_is_saved(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inner = attention()
    model = Net(lambda m, x: SimpleNamespace(y=m.inner(x), note="kept", cache=Cache(x)), inner=inner).eval()
    graph = mp.encode(model, sequence())
    small = mp.prune(model, sequence(), speedup=1.5, route="program").model
    for found in (small(sequence()), small(torch.randn(3, 5, 6))):
        assert found.note == "kept"
        assert found.cache is None
        assert not found.y.is_meta
    torch.save(small, tmp_path / "small.pt")
    again = torch.load(tmp_path / "small.pt", weights_only=False)
    x = sequence()
    torch.testing.assert_close(again(x).y, small(x).y)
    assert graph.units.prunable.any()


def test_outputs_without_tensors_are_refused() -> None:
    model = Net(lambda m, x: "nothing", a=nn.Linear(6, 3))
    with pytest.raises(InputError, match=r"returns nothing in which a tensor could be found(.|\n)*got: .*str"):
        mp.encode(model, rows())


def test_a_tie_stays_a_tie() -> None:
    model, inputs = made("tied_embedding")
    small = mp.prune(model, inputs, speedup=3, scope="family").model
    assert small.out.weight is small.words.weight
    assert small.words.embedding_dim < 8
    assert small.words.num_embeddings == 20


def test_what_is_drawn_in_training_is_drawn_anew() -> None:
    model, inputs = made("number_drawn_in_training")
    small = mp.prune(model, inputs, speedup=1.5).model.train()
    torch.manual_seed(0)
    assert len({tuple(small(inputs).flatten().tolist()) for _ in range(20)}) == 2


def test_another_branch_runs_after_pruning() -> None:
    model, inputs = made("flow_on_data_and_attention")
    small = mp.prune(model, inputs, speedup=1.5).model
    assert small(torch.full((2, 9, 6), torch.inf)).shape == (2, 9, 3)


def test_a_constant_of_a_width_keeps_the_width_where_flow_depends_on_data() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        x = x[:, x[0, :, 0].isfinite()]
        x = x * 2 if x.size(1) == 1 else x  # what runs depends on how many rows data says: there is no program
        q, k = m.q(x), m.k(x)
        return m.o((q @ k.mT / torch.tensor(float(q.size(-1))).sqrt()).softmax(-1) @ m.v(x))

    layers = {name: nn.Linear(6, 8) for name in "qkv"}
    graph = mp.encode(Net(forward, **layers, o=nn.Linear(8, 3)), sequence())
    reasons = {family.locked for family in graph.units.families}
    assert any(reason and reason.startswith("its removal changes a constant in the program; ") for reason in reasons)
    assert int(graph.units.prunable.sum()) == 8  # the values' width


class WithExperts(nn.Module):
    """Which of two layers runs depends on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 12), nn.Linear(12, 7), nn.Linear(7, 3)
        self.experts = nn.ModuleList(nn.Linear(12, 12) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.a(x).relu()
        hidden = self.experts[int(bool((x > 9).any()))](hidden)
        return self.c(self.b(hidden).relu())  # type: ignore[no-any-return]


def test_a_layer_that_another_input_may_reach_locks_what_it_could_meet() -> None:
    graph = mp.encode(WithExperts(), torch.zeros(1, 6))
    reasons = [family.locked for family in graph.units.families if family.locked]
    assert any("did not reach experts.1" in reason for reason in reasons)
    assert int(graph.units.prunable.sum()) == 7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_no_false_alarm(dtype: torch.dtype) -> None:
    model, inputs = made("learned_query")
    small = mp.prune(model.to(dtype), inputs.to(dtype), speedup=1.5)
    assert small.report["check"]["error"] < 1e-4
    assert small.model(inputs.to(dtype)).dtype is dtype
