"""Flow that asks data yes-or-no questions: a program records every way, and runs the one that the data asks for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import metaprune_cli as mp
from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.graph.program.capture import Captured
from metaprune_cli.graph.program.module import Program
from metaprune_cli.graph.trace.answers import Answers, all_answers
from metaprune_cli.models.programs import program_from_document, program_to_document, tensors_of

IDS = torch.randint(0, 50, (1, 7), generator=torch.Generator().manual_seed(0))


class Heads(nn.Module):
    """Heads whose number and width are written out, so that no class follows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.e, self.q, self.o = nn.Embedding(50, 32), nn.Linear(32, 32), nn.Linear(32, 5)

    def attend(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q = self.q(x).view(*x.shape[:2], 4, 8).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, q, q, attn_mask=mask)
        out: Tensor = self.o(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))
        return out

    def forward(self, ids: Tensor) -> Tensor:
        return self.attend(self.e(ids))


class Masked(Heads):
    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.attend(self.e(ids), None if mask.all() else mask[:, None, None, :].bool())


class Clamped(Heads):
    """Two questions, the second only after one answer to the first, about what the network computes."""

    def forward(self, ids: Tensor) -> Tensor:
        out = self.attend(F.dropout(self.e(ids), 0.2, self.training))
        if (out > 1).any():
            out = out.clamp(-1, 1)
            if (out.abs() >= 1).all():
                out = out * 0
        return out


class Checked(Heads):
    def forward(self, ids: Tensor) -> Tensor:
        assert (ids < 40).all(), "out of range"
        return self.attend(self.e(ids))


class Converging(Heads):
    def forward(self, ids: Tensor) -> Tensor:
        x = self.e(ids)
        while not (x.abs() < 1).all():
            x = x / 2
        return self.attend(x)


class Counting(Heads):
    """It has written its statistics when it asks."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(32)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.norm(self.e(ids).transpose(1, 2)).transpose(1, 2)
        return self.attend(x.clamp(-1, 1) if (x > 1e9).any() else x)


def whole(model: nn.Module, inputs: Any) -> Program:
    """The program of all of a model."""
    graph = mp.encode(model.eval(), inputs)
    return Captured.of(model, graph, inputs).without(graph, torch.ones(graph.units.num_units, dtype=torch.bool))


@pytest.fixture(scope="module")
def masked() -> Program:
    return whole(Masked(), (IDS, torch.ones_like(IDS)))


def test_another_mask_length_and_batch_run_as_the_model_runs_them(masked: Program) -> None:
    model = Masked().eval()
    for batch, length in ((1, 7), (3, 12), (2, 4)):
        ids, mask = torch.randint(0, 50, (batch, length)), torch.ones(batch, length, dtype=torch.long)
        assert torch.equal(masked(ids, mask), model(ids, mask))
        mask[:, length // 2 :] = 0
        assert torch.equal(masked(ids, mask), model(ids, mask))


def test_heads_written_out_are_pruned_where_flow_depends_on_data() -> None:
    model, inputs = Masked().eval(), (IDS, torch.ones_like(IDS))
    assert mp.encode(model, inputs).summary()["prunable_units"] == 32 + 8 + 4
    pruned = mp.prune(model, inputs, speedup=3.0)
    assert pruned.report["route"] == "program"
    assert pruned.report["speedup"] >= 3
    assert pruned.model(torch.ones(2, 9, dtype=torch.long), torch.eye(9, dtype=torch.long)[:2]).shape == (2, 9, 5)


def test_questions_after_questions() -> None:
    model, ways = Clamped(), []
    with torch.no_grad():
        model.o.weight.mul_(0.1)
    program = whole(model, IDS)
    for training in (False, True):
        model.train(training)
        program.train(training)
        for bias in ((0.0,) * 5, (9.0, 0.0, 0.0, 0.0, 0.0), (9.0,) * 5):
            for bare in (model, program):
                bare.get_parameter("o.bias").data = torch.tensor(bias)
            torch.manual_seed(1)
            expected = model(IDS)
            torch.manual_seed(1)
            assert torch.equal(program(IDS), expected)  # what dropout drew before the question is drawn again
            ways.append((float(expected.detach().max()) == 1, float(expected.detach().abs().max()) == 0))
    assert ways == [(False, False), (True, False), (False, True)] * 2
    program(IDS).sum().backward()


def test_inputs_that_the_model_refuses_are_refused() -> None:
    program = whole(Checked(), IDS % 40)
    assert torch.equal(program(IDS % 40), Checked().eval()(IDS % 40))
    with pytest.raises(InputError, match="not made for such inputs"):
        program(IDS * 0 + 45)


def test_a_loop_that_asks_without_end_is_no_program() -> None:
    with pytest.raises(InputError, match="in too many ways"):
        whole(Converging(), IDS)
    reasons = [lock.reason for lock in mp.encode(Converging().eval(), IDS).locks]
    assert any("the flow depends on data, so no program can take its place" in reason for reason in reasons)


def test_state_that_was_changed_before_a_question_is_not_changed_twice() -> None:
    program = whole(Counting(), IDS)
    with pytest.raises(InputError, match="no training mode"):
        program.train()(IDS)


def test_what_another_way_returns_stays() -> None:
    class Early(Heads):
        def forward(self, ids: Tensor) -> Tensor:
            x = self.q(self.e(ids)).view(*ids.shape, 4, 8)
            return x if x.isnan().any() else self.o(x.flatten(2))

    locked = {family.name: family.locked for family in mp.encode(Early().eval(), IDS).units.families}
    assert "no program can take its place" in str(locked["q"])
    assert locked["e"] is None


def test_all_answers_are_tried_and_too_many_refused() -> None:
    def ask(answers: Answers) -> None:
        if answers.next():
            answers.next()

    assert set(all_answers((True, False), ask)) == {(False,), (True, False), (True, True)}
    with pytest.raises(InputError, match="in too many ways"):
        list(all_answers((), lambda answers: [answers.next() for _ in range(5)]))  # type: ignore[arg-type, return-value]


def test_a_file_holds_every_way(masked: Program) -> None:
    document = json.loads(json.dumps(program_to_document(masked)))
    again = program_from_document(document, tensors_of(masked))
    half = (IDS, (torch.arange(7) < 3).long()[None])
    assert torch.equal(again(*half), masked(*half))


def other_way(document: dict[str, Any]) -> dict[str, Any]:
    return document["scripts"]["eval"]["otherwise"][0]  # type: ignore[no-any-return]


def question(script: dict[str, Any]) -> dict[str, Any]:
    return next(step for step in script["steps"] if "asks" in step)


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "an answer that is none": lambda d: question(other_way(d)).update(answer=1),
    "a value that nothing makes": lambda d: question(other_way(d)).update(asks=10**6),
    "a tensor of numbers": lambda d: question(d["scripts"]["eval"]).update(asks=d["scripts"]["eval"]["inputs"][0]),
    "ways within ways": lambda d: other_way(d).update(otherwise=[]),
    "too many ways": lambda d: d["scripts"]["eval"].update(otherwise=[other_way(d)] * 65),
    "other inputs": lambda d: other_way(d).update(inputs=other_way(d)["inputs"][:1]),
    "an unknown operator": lambda d: other_way(d)["steps"][0].update(operator="aten.from_file.default"),
    "a way that does not run": lambda d: other_way(d)["steps"].pop(0),
    "no way at all": lambda d: d["scripts"]["eval"].update(otherwise=[3]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_ways_are_refused(masked: Program, name: str) -> None:
    document = json.loads(json.dumps(program_to_document(masked)))
    DAMAGES[name](document)
    with pytest.raises(CorruptFileError):
        program_from_document(document, tensors_of(masked))
