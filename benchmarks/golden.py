"""Digests of everything a small pipeline writes, to show that a change of the code changes no result.

    python benchmarks/golden.py --write FILE       # before the change
    python benchmarks/golden.py --compare FILE     # after it; ends with 1 and the names where something differs

The pipeline runs through the commands, in a temporary folder, on fixed seeds, in about a minute: a zoo on digits,
graphs, a metanetwork, transformed models, models pruned by both routes, searched for, repaired, iterated, sparse and
finetuned, an evaluation with curves and the files of a sensitivity. Bits differ between processors and versions of
PyTorch, so both runs belong on one machine, and the file is not for the repository.

Every artifact has three digests: ``tensors``; ``document``, without versions, digests and inputs; ``settings``, of the
command that made it, which change when a setting is added. Texts are compared without what a clock says of latency.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

PARAMS = {
    "data": {"dataset": "digits", "train_limit": 200, "batch_size": 40},
    "zoo": {
        "members": [
            {"arch": "cifar:resnet8", "arch_args": {"width": 0.25}, "count": 2, "heldout": 1},
            {"arch": "cifar:vit", "arch_args": {"width": 0.125, "layers": 1}, "count": 1, "heldout": 1},
        ],
        "validation": 1,
        "train": {"epochs": 1, "lr": 0.02},
    },
    "metanet": {"layers": 1, "hidden": 4},
    "meta-train": {"epochs": 2, "batches": 1, "batch_size": 40, "validate_every": 1, "distill": 0.5},
    "prune": {"speedup": [2]},
    "finetune": {"epochs": 1, "lr": 0.01},
    "iterate": {"rounds": 2, "epochs": 1},
    "sensitivity": {"ratios": [0.5], "images": 30},
    "eval": {"latency_runs": 5, "curve": [1.5, 2]},
}
RESNET, VIT = "zoo/heldout/resnet8-2.safetensors", "zoo/heldout/vit-4.safetensors"
TECHNIQUES = "--mixup 0.2 --cutmix 1 --ema 0.9 --patience 2 --epochs 2 --sparsity 1e-3"
COMMANDS = (
    "zoo -o zoo",
    "encode zoo/train zoo/validation -o graphs",
    "meta-train graphs/train --validation graphs/validation -o metanet.safetensors",
    "transform zoo/heldout --metanet metanet.safetensors -o transformed",
    "prune transformed -o pruned",
    f"prune {VIT} -o program.safetensors --speedup 1.5",
    f"prune {RESNET} -o taylor.safetensors --criterion taylor --repair least-squares",
    f"prune {RESNET} -o hessian.safetensors --criterion hessian --repair bias",
    f"prune {RESNET} -o obd.safetensors --criterion obd-c --repair bn",
    f"prune {RESNET} -o searched.safetensors --search 4",
    f"prune {RESNET} -o dropped.safetensors --target drop=20",
    "finetune pruned -o finetuned",
    "finetune program.safetensors -o program.finetuned.safetensors",
    f"finetune taylor.safetensors -o taught.safetensors --teacher {RESNET}",
    f"finetune taylor.safetensors -o techniques.safetensors {TECHNIQUES}",
    f"iterate {RESNET} -o iterated.safetensors",
)
ZEROS = (
    f"{RESNET} -o unstructured.safetensors --kind unstructured --sparsity 0.5",
    f"{RESNET} -o n-of-m.safetensors --kind n:m",
    f"{RESNET} -o block.safetensors --kind block --sparsity 0.5",
)
AFTER_ZEROS = ("finetune unstructured.safetensors -o unstructured.finetuned.safetensors",)
PRINTED = {
    "report.json": "eval zoo/heldout transformed pruned finetuned program.safetensors unstructured.safetensors "
    "-o report --curve --json",
    "sensitivity.json": f"sensitivity {RESNET} -o sensitivity --json",
}
PASSING = ("versions", "digest", "inputs", "format_version", "made_by")


def main() -> int:
    """Run the pipeline; print, write and compare its digests."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--compare", type=Path, metavar="FILE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            found = dict(sorted(digests()))
        finally:
            os.chdir(before)
    for name, digest in found.items():
        print(digest[:16], name)
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return compared(json.loads(given.compare.read_text(encoding="utf-8")), found) if given.compare else 0


def compared(before: dict[str, str], now: dict[str, str]) -> int:
    """Print what differs; return the exit code."""
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    for name in changed:
        print("DIFFERS" if name in before and name in now else "MISSING" if name in before else "NEW", name)
    print(f"{len(now) - len(set(changed) & set(now))} of {len(before)} equal")
    return bool(changed)


def digests() -> Iterator[tuple[str, str]]:
    """Names and SHA-256 of all that the pipeline leaves in the working directory."""
    Path("params.yaml").write_text(json.dumps(PARAMS), encoding="utf-8")  # JSON is YAML
    for command in COMMANDS:
        run(command)
    zeroing = "sparsify" if any(command.name == "sparsify" for command in the_app().registered_commands) else "prune"
    for arguments in ZEROS:
        run(f"{zeroing} {arguments}")
    for command in AFTER_ZEROS:
        run(command)
    for name, command in PRINTED.items():
        yield name, sha256(plain(json.loads(run(command))))
    for path in sorted(Path().rglob("*.safetensors")):
        yield from of_artifact(path)
    for path in sorted([*Path("report").iterdir(), *Path("sensitivity").iterdir()]):
        yield str(path), sha256(of_text(path))


def run(command: str) -> str:
    """One command, in this process; what it prints on stdout."""
    from typer.testing import CliRunner

    print(f"metaprune {command}", file=sys.stderr)
    result = CliRunner().invoke(the_app(), [*command.split(), *([] if "--json" in command else ["--quiet"])])
    if result.exit_code:
        sys.exit(f"{command}\n{result.stderr}")
    return str(result.stdout)


def the_app() -> Any:
    """The command line."""
    from metaprune_cli.cli import app

    return app


def of_artifact(path: Path) -> Iterator[tuple[str, str]]:
    """The three digests of an artifact."""
    from metaprune_cli.artifacts import read_artifact

    artifact = read_artifact(path)
    tensors = hashlib.sha256()
    for name, tensor in sorted(artifact.tensors.items()):
        tensors.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        tensors.update(tensor.contiguous().flatten().view(-1).numpy().tobytes())
    yield f"{path}:tensors", tensors.hexdigest()
    yield f"{path}:document", sha256(plain(artifact.document))
    yield f"{path}:settings", sha256(plain(artifact.document.get("made_by", {}).get("parameters")))


def of_text(path: Path) -> Any:
    """A file's contents without latencies."""
    if path.suffix == ".png":
        return hashlib.sha256(path.read_bytes()).hexdigest() + "."
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return plain(json.loads(text))
    if path.suffix == ".csv":
        return [plain(row) for row in csv.DictReader(io.StringIO(text))]
    return [
        line.rsplit("|", 5)[0] if line.startswith("|") else line for line in text.splitlines()
    ]  # .md: the last columns


def plain(value: Any) -> Any:
    """JSON without what may change: versions, digests, places and what a clock says."""
    if isinstance(value, dict):
        if value.get("command") == "sparsify":
            value = value | {"command": "prune"}  # it was `prune --kind` when older digests were taken
        return {key: plain(one) for key, one in value.items() if key not in PASSING and "latency" not in key.lower()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return "digest" if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) else value


def sha256(value: Any) -> str:
    """The digest of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
