from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from metaprune_cli.models import Architecture
from metaprune_cli.workflows.lineage import base_candidates, base_of, descent, own_base
from metaprune_cli.workflows.loading import Opened

ZOO = {"command": "zoo", "seed": 3}
TRANSFORM = {"command": "transform", "input": "net-3.safetensors"}
PRUNE = {"command": "prune", "input": "net-3.transformed.safetensors", "requested": 4.0, "achieved": 4.1}
BY_FAMILY = PRUNE | {"scope": "family"}
N_OF_M = {"command": "prune", "input": "net-3.safetensors", "kind": "n:m", "pattern": "2:4", "sparsity": 0.5}
SPARSIFY = {"command": "sparsify"}
WEIGHTS = {"command": "prune", "kind": "unstructured", "pattern": None, "sparsity": 0.8, "scope": "family"}
FINETUNE = {"command": "finetune", "input": "net-3.transformed.pruned-4x.safetensors", "epochs": 5}
TAUGHT = FINETUNE | {"teacher": "net-3.safetensors", "ema": 0.9}
RECALIBRATE = FINETUNE | {"epochs": 0}
DHP = {"command": "dhp", "input": "net-3.safetensors", "requested": 3.0, "epochs": 7, "start": "trained", "seed": 0}


def opened(path: str, *lineage: dict[str, Any]) -> Opened:
    return Opened(nn.Identity(), Architecture("cifar:resnet8", {}, (1, 8, 8)), lineage, Path(path))


@pytest.mark.parametrize(
    ("lineage", "expected"),
    [
        pytest.param((), ("model", "plain", "unpruned", None), id="foreign file"),
        pytest.param((ZOO,), ("model", "plain", "unpruned", None), id="zoo"),
        pytest.param((ZOO, FINETUNE), ("net-3.transformed.pruned-4x", "plain", "unpruned", None), id="trained on"),
        pytest.param((ZOO, PRUNE), ("net-3.transformed", "plain", "pruned", 4.0), id="plain"),
        pytest.param((ZOO, BY_FAMILY), ("net-3.transformed", "uniform", "pruned", 4.0), id="uniform"),
        pytest.param((ZOO, BY_FAMILY, PRUNE), ("net-3.transformed", "2-rounds", "pruned", 16.0), id="two prunings"),
        pytest.param(
            (ZOO, TRANSFORM, PRUNE, FINETUNE, PRUNE | {"requested": 2.1, "total": 8.0}, FINETUNE),
            ("net-3", "metanet 2-rounds", "finetuned", 8.0),
            id="rounds of one call",
        ),
        pytest.param((ZOO, TRANSFORM, BY_FAMILY), ("net-3", "metanet", "pruned", 4.0), id="metanet by family"),
        pytest.param((ZOO, TRANSFORM), ("net-3", "metanet", "unpruned", None), id="transformed"),
        pytest.param((ZOO, DHP), ("net-3", "dhp", "pruned", 3.0), id="removed by a method"),
        pytest.param((ZOO, DHP, TAUGHT), ("net-3", "dhp taught ema", "finetuned", 3.0), id="and finetuned"),
        pytest.param((ZOO, DHP | {"ema": 0.9}), ("net-3", "dhp ema", "pruned", 3.0), id="averaged in its own training"),
        pytest.param((ZOO, DHP, PRUNE), ("net-3", "dhp 2-rounds", "pruned", 12.0), id="and pruned"),
        pytest.param((ZOO, TRANSFORM, PRUNE), ("net-3", "metanet", "pruned", 4.0), id="pruned"),
        pytest.param(
            (ZOO, TRANSFORM, FINETUNE, PRUNE), ("net-3", "metanet finetuned", "pruned", 4.0), id="finetuned before"
        ),
        pytest.param((ZOO, TRANSFORM, PRUNE, RECALIBRATE), ("net-3", "metanet", "recalibrated", 4.0), id="0 epochs"),
        pytest.param((ZOO, TRANSFORM, PRUNE, FINETUNE), ("net-3", "metanet", "finetuned", 4.0), id="finetuned"),
        pytest.param((ZOO, N_OF_M), ("net-3", "2:4", "pruned", 1.0), id="zeroed by prune"),
        pytest.param((ZOO, N_OF_M | SPARSIFY), ("net-3", "2:4", "pruned", 1.0), id="zeroed"),
        pytest.param(
            (ZOO, BY_FAMILY, WEIGHTS | SPARSIFY, FINETUNE),
            ("net-3.transformed", "uniform unstructured-80%-by-layer", "finetuned", 4.0),
            id="units removed, then zeroed",
        ),
        pytest.param(
            (ZOO, TRANSFORM, N_OF_M, FINETUNE), ("net-3", "metanet 2:4", "finetuned", 1.0), id="rewritten first"
        ),
        pytest.param((ZOO, N_OF_M, TRANSFORM), ("net-3", "metanet", "unpruned", None), id="zeros rewritten"),
        pytest.param(
            (ZOO, BY_FAMILY, FINETUNE, WEIGHTS),
            ("net-3.transformed", "uniform unstructured-80%-by-layer", "pruned", 4.0),
            id="both",
        ),
        pytest.param((ZOO, N_OF_M, FINETUNE, PRUNE), ("net-3", "2:4", "pruned", 4.0), id="units removed after zeroing"),
        pytest.param(
            (ZOO, TRANSFORM, PRUNE, TAUGHT), ("net-3", "metanet taught ema", "finetuned", 4.0), id="with a teacher"
        ),
        pytest.param(
            (ZOO, PRUNE, TAUGHT | {"epochs": 0}),
            ("net-3.transformed", "plain", "recalibrated", 4.0),
            id="a teacher of nothing",
        ),
    ],
)
def test_the_lineage_says_what_a_model_is(lineage: tuple[dict[str, Any], ...], expected: tuple[object, ...]) -> None:
    found = descent(lineage, Path("folder/model.safetensors"))
    assert (found.origin, found.arm, found.step, found.requested) == expected


def test_a_methods_own_training_counts() -> None:
    assert descent((ZOO, DHP, FINETUNE), Path("model.safetensors")).epochs == 7 + 5
    assert descent((ZOO, TRANSFORM, PRUNE, FINETUNE), Path("model.safetensors")).epochs == 5


def test_a_base_is_found_by_lineage_whatever_the_file_is_called() -> None:
    bases = [opened("a/net-1.safetensors", ZOO), opened("a/net-3.safetensors", ZOO)]
    assert base_of(opened("b/renamed.safetensors", ZOO, TRANSFORM, PRUNE), bases) is bases[1]


def test_a_base_is_found_by_name_where_there_is_no_lineage() -> None:
    bases = [opened("net-1.pt"), opened("net-10.pt"), opened("net.pt")]
    assert base_of(opened("net-10-small.pt"), bases) is bases[1]
    assert base_of(opened("net-1.pruned.pt"), bases) is bases[0]
    assert base_of(opened("network.pt"), bases) is bases[0]  # none fits: the first
    assert own_base(opened("network.pt"), bases) is None


def test_without_a_named_base_the_first_model_is_it_or_the_origin_among_the_models() -> None:
    first, second = opened("resnet.pt"), opened("small.pt")
    origin, descendant = opened("net-3.safetensors", ZOO), opened("x.safetensors", ZOO, TRANSFORM, PRUNE)
    models = [first, second, origin, descendant]
    candidates = base_candidates(models, [])
    assert [base_of(model, candidates) for model in models] == [first, first, origin, origin]
