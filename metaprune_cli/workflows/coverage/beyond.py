"""What a model's users do with it beyond one input: batches, other lengths and sizes, generating text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from metaprune_cli.errors import NumericsError
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.graph.nest import map_tensors
from metaprune_cli.graph.trace.tracer import ExampleInputs, call
from metaprune_cli.pruning.check import check
from metaprune_cli.workflows.coverage import proofs
from metaprune_cli.workflows.pruning import Pruned

TOKENS = 4
"""How many are generated."""
SHORTER, LARGER = 2 / 3, (1.5, 2.0)
YES = "yes"


def other_batch(model: nn.Module, pruned: Pruned, graph: NeuronGraph, inputs: ExampleInputs) -> str | None:
    """Whether the small model takes two at a time and is right; None where the original does not take them either."""
    return _alike(model, pruned, graph, proofs.two_of(inputs))


def other_length(
    model: nn.Module, pruned: Pruned, graph: NeuronGraph, inputs: ExampleInputs, said: ExampleInputs | None
) -> str | None:
    """The same for another length or size: what the suite says, else the first that the original takes."""
    for candidate in [said] if said is not None else others(inputs):
        found = _alike(model, pruned, graph, candidate)
        if found is not None:
            return found
    return None


def others(inputs: ExampleInputs) -> Iterator[ExampleInputs]:
    """Inputs of other lengths: sequences of whole numbers shorter, images and sounds larger."""
    for factor in LARGER:

        def stretched(tensor: Tensor, factor: float = factor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor[..., : max(1, int(tensor.size(-1) * SHORTER))] if tensor.dim() == 2 else tensor
            if tensor.dim() < 2:
                return tensor
            spatial = tensor.dim() - 2 if tensor.dim() > 3 else 1
            sizes = [*tensor.shape[:-spatial], *(int(size * factor) for size in tensor.shape[-spatial:])]
            return torch.randn(sizes, generator=torch.Generator().manual_seed(1)).to(tensor.dtype)

        yield map_tensors(inputs, stretched)


def generates(model: nn.Module, small: nn.Module, inputs: ExampleInputs) -> str | None:
    """Whether the small model generates, with its cache what it does without; None where the original does not."""
    if not isinstance(inputs, dict) or not getattr(model, "can_generate", bool)():
        return None
    try:
        _generated(model, inputs, cached=True)
    except Exception:  # noqa: BLE001 - whatever the original says to it
        return None
    if not hasattr(small, "generate"):
        return "no: it is a program, which has no generate"
    try:
        with_cache, without = (_generated(small, inputs, cached=cached) for cached in (True, False))
    except Exception as error:  # noqa: BLE001 - what goes wrong is the answer
        return f"no: {type(error).__name__}: {error}"[:200]
    return YES if torch.equal(with_cache, without) else "no: the cache changes what is generated"


def _generated(model: Any, inputs: dict[str, Any], *, cached: bool) -> Tensor:
    given = {name: value for name, value in inputs.items() if not name.startswith("decoder_")}
    with torch.no_grad():
        found: Tensor = model.eval().generate(
            **given, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False, use_cache=cached
        )
    return found


def _alike(model: nn.Module, pruned: Pruned, graph: NeuronGraph, inputs: ExampleInputs) -> str | None:
    try:
        with torch.no_grad():
            call(model.eval(), inputs)
    except Exception:  # noqa: BLE001 - the original does not take them: nothing is asked of the small one
        return None
    try:
        proofs.runs(pruned.model, inputs, training=False)
        check(model, pruned.model, graph, pruned.plan, inputs)
    except NumericsError:
        raise
    except Exception as error:  # noqa: BLE001 - what goes wrong is the answer
        return f"no: {type(error).__name__}: {error}"[:200]
    return YES
