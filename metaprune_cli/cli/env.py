"""``metaprune env``: what a bug report needs to know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import unfolded
from metaprune_cli.console.table import Table, label

if TYPE_CHECKING:
    from metaprune_cli.stages.env import Environment

FACTS = (label("name", ""), label("text", ""))
MISSING = "not found"


@guarded
@unfolded
def env(as_json: options.Json = False, debug: options.Debug = False) -> None:
    """Print versions, processor, GPUs, compiler and settings of this machine, for a bug report."""
    from metaprune_cli.stages import env as stage

    found = stage.env()
    rows = [{"name": name, "text": MISSING if text is None else text} for name, text in _facts(found)]
    show(found.to_document(), Table("", FACTS, rows), as_json=as_json)


def _facts(found: Environment) -> Iterator[tuple[str, str | None]]:
    commit = "" if found.commit is None else f" (commit {found.commit})"
    yield "metaprune", found.metaprune + commit
    yield "python", f"{found.python}, {found.executable}"
    yield "system", found.system
    yield "processor", found.processor
    yield (
        "cores",
        f"{_number(found.cores)}, usable {_number(found.usable_cores)}, threads of torch {_number(found.threads)}",
    )
    yield "memory", None if found.memory_gib is None else f"{found.memory_gib:.1f} GiB"
    yield from found.packages.items()
    for_cpu = None if found.threads is None else "none: torch is built for the CPU"
    yield "CUDA", found.cuda or for_cpu
    for number, gpu in enumerate(found.gpus):
        yield f"GPU {number}", f"{gpu.name}, {gpu.memory_gib:.1f} GiB, compute capability {gpu.capability}"
    if not found.gpus:
        yield "GPU", "none"
    yield from ((name.replace("_", " "), text) for name, text in found.pytorch.items() if text)
    yield "C++ compiler", found.compiler
    yield "compiled engine", found.engine
    yield from found.variables.items()


def _number(value: int | None) -> str:
    return "unknown" if value is None else str(value)
