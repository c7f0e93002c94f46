"""One call of every command, for the end of its help."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

EXAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "compress": "metaprune compress model.pt --arch mynet.py:MyNet --speedup 4 --dataset imagefolder "
        "--data-root images",
        "zoo": "metaprune zoo -o zoo --dataset digits --jobs 0",
        "encode": "metaprune encode model.pt --arch torchvision:resnet50",
        "meta-train": "metaprune meta-train graphs/train --validation graphs/validation -o metanet.safetensors",
        "transform": "metaprune transform model.safetensors --metanet metanet.safetensors",
        "pruning-net": "metaprune pruning-net model.safetensors --epochs 20 -o model.pruningnet.safetensors",
        "prune": "metaprune prune model.pt --arch torchvision:resnet50 --speedup 2 --repair least-squares "
        "--dataset imagefolder --data-root images",
        "search": "metaprune search model.safetensors --speedup 2 --speedup 4 -o searched --jobs 0",
        "sparsify": "metaprune sparsify model.pt --arch torchvision:vit_b_16 --kind n:m --pattern 2:4",
        "finetune": "metaprune finetune model.pruned-2x.safetensors --epochs 20 --lr 0.01 --teacher model.safetensors",
        "dhp": "metaprune dhp model.safetensors --speedup 2,3,4 --epochs 20 -o shrunk",
        "iterate": "metaprune iterate model.safetensors --speedup 4 --rounds 3 --max-drop 1",
        "sensitivity": "metaprune sensitivity model.safetensors --ratio 0.5 -o sensitivity",
        "eval": "metaprune eval model.safetensors model.pruned-2x.safetensors --report report.html",
        "decode": "metaprune decode model.graph.safetensors",
        "inspect": "metaprune inspect model.pruned-2x.safetensors --draw layers.png",
        "export": "metaprune export model.pruned-2x.safetensors --format onnx",
        "bench": "metaprune bench model.safetensors model.pruned-2x.safetensors --batch 1,8 --threads 1",
        "coverage": "metaprune coverage --only 'resnet*' --image-size 64 -o coverage.json --markdown coverage.md",
        "env": "metaprune env --json",
        "list": "metaprune list archs 'cifar:*'",
        "init": "metaprune init project --model model.safetensors --dataset imagefolder --data-root images",
    }
)
