from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from metaprune_cli.graph import encode
from metaprune_cli.models import Architecture, build, save_model
from metaprune_cli.workflows.device import SMALL_BATCH, threads_for
from metaprune_cli.workflows.loading import ModelSource, Opened, open_model
from metaprune_cli.workflows.structures import Structures


def opened(folder: Path, seed: int, width: float = 0.25) -> Opened:
    arch = Architecture("cifar:resnet8", {"in_channels": 1, "num_classes": 10, "width": width}, (1, 8, 8))
    torch.manual_seed(seed)
    path = folder / f"{seed}-{width}.safetensors"
    save_model(build(arch), path, arch=arch)
    return open_model(path, ModelSource())


@pytest.mark.parametrize("trusted", [False, True])
def test_a_shared_structure_is_the_graph_of_each_model(tmp_path: Path, trusted: bool) -> None:
    structures = Structures(ModelSource(trust_pickle=trusted))
    models = [opened(tmp_path, 0), opened(tmp_path, 1), opened(tmp_path, 2, width=0.5)]
    for one in models:
        ours, fresh = structures.graph_of(one), encode(one.model, one.example())
        assert ours.to_parts()[1] == fresh.to_parts()[1]
        assert_close(ours.state_dict(), one.model.state_dict())
    assert len(structures.known) == (0 if trusted else 2)
    assert not any(graph.tensors for graph in structures.known.values())  # the first model is not kept in memory


@pytest.mark.parametrize(("macs", "threads"), [(SMALL_BATCH - 1, 1), (SMALL_BATCH, 2)])
def test_small_work_gets_one_thread_for_a_while(macs: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threads_for(macs):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
