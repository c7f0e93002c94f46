"""The fresh process: load saved models, run them, put what comes out where the first process finds it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metaprune_cli.graph.nest import leaves
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.models import load_model
from metaprune_cli.workflows.coverage import proofs


def main(arguments: Sequence[str]) -> None:
    """Run the models of the files on the inputs in the folder, which is the first argument."""
    folder, *paths = map(Path, arguments)
    inputs = torch.load(folder / proofs.INPUTS, weights_only=True)
    torch.save([_outputs(path, inputs) for path in paths], folder / proofs.OUTPUTS)


def _outputs(path: Path, inputs: ExampleInputs) -> list[Tensor]:
    return list(leaves(proofs.runs(load_model(path, allow_import=True), inputs, training=False), Tensor))


if __name__ == "__main__":
    main(sys.argv[1:])
