"""The fresh process: load a saved model, run it, put what comes out where the first process finds it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metaprune_cli.graph.nest import leaves
from metaprune_cli.models import load_model
from metaprune_cli.stages.covering import proofs


def main(arguments: Sequence[str]) -> None:
    """Run the model of the first argument on the inputs in the folder of the second."""
    path, folder = map(Path, arguments)
    inputs = torch.load(folder / proofs.INPUTS, weights_only=True)
    output = proofs.runs(load_model(path, allow_import=True), inputs, training=False)
    torch.save(list(leaves(output, Tensor)), folder / proofs.OUTPUTS)


if __name__ == "__main__":
    main(sys.argv[1:])
