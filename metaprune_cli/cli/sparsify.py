"""``metaprune sparsify``: models → models with zeros."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated

from metaprune_cli.cli import options
from metaprune_cli.cli.run import guarded, show
from metaprune_cli.cli.signature import Section, unfolded
from metaprune_cli.config import SparsifySettings, ZeroKind
from metaprune_cli.console.figures import by, count, share
from metaprune_cli.console.progress import listening
from metaprune_cli.console.table import Column, Table, label
from metaprune_cli.errors import InputError

if TYPE_CHECKING:
    from metaprune_cli.stages.sparsify import SparsifiedFile

COLUMNS = (
    label("output", "Model"),
    label("kind", "Kind"),
    label("pattern", "Pattern"),
    Column("requested", "Asked", share),
    Column("sparsity", "Sparsity", share),
    Column("weights", "Of weights", count),
    Column("kept", "Kept", count),
)
LAYER_COLUMNS = (
    label("name", "Layer"),
    Column("shape", "Shape", by),
    Column("weights", "Weights"),
    Column("kept", "Kept"),
    label("skipped", "Left alone because"),
    label("kernel", "PyTorch's 2:4 kernels"),
)
OF_ALL = ("kind", "classifier", "first")
OPTIONS: Mapping[ZeroKind, Collection[str]] = MappingProxyType(
    {
        "unstructured": ("sparsity", "scope", *OF_ALL),
        "n:m": ("pattern", "kernel_only", *OF_ALL),
        "block": ("block", "sparsity", "scope", *OF_ALL),
    }
)
"""The settings that say something to a kind."""


def check_options(settings: SparsifySettings, given: Collection[str]) -> None:
    """Refuse options that say nothing to a kind.

    Args:
        settings: of which the kind counts.
        given: those of them that options gave.

    Raises:
        InputError: listing all that do not belong to it.
    """
    kind = settings.kind
    wrong = [name for name in given if name not in OPTIONS[kind]]
    if wrong:
        raise InputError(
            f"{' and '.join(map(_spelt, wrong))} cannot be said of --kind {kind}.",
            expected=", ".join(map(_spelt, OPTIONS[kind])),
            where="the options",
            next_step=_advice(kind, wrong),
        )


def _advice(kind: ZeroKind, wrong: Collection[str]) -> str:
    if kind == "n:m" and "sparsity" in wrong:
        return "--pattern 1:4 zeroes three weights of four, --pattern 2:4 two"
    kinds = [other for other in OPTIONS if set(wrong) <= set(OPTIONS[other])]
    return f"leave it out, or say --kind {' or '.join(kinds)}" if kinds else "leave them out"


def _spelt(name: str) -> str:
    spelt = {"classifier": "--include-classifier", "first": "--exclude-first"}
    return spelt.get(name, "--" + name.replace("_", "-"))


@guarded
@unfolded
def sparsify(
    models: options.Models,
    output: options.Output = None,
    *,
    settings: Annotated[SparsifySettings, Section("sparsify", check=check_options)],
    dry_run: options.DryRun = False,
    model_file: options.ModelFile,
    data: options.KnownData,
    params: options.Params = None,
    seed: options.Seed = None,  # nothing is random here; scripts say it to every command
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Set the smallest weights to zero; MODEL becomes MODEL.sparse-0.8, .sparse-2of4 or .sparse-4x1-0.5.

    Shapes do not change; to make models smaller, use `metaprune prune`.
    """
    source = model_file.source()
    from metaprune_cli.stages import sparsify as stage

    with listening(quiet) as progress:
        done = stage.sparsify(models, output, settings, source=source, data=data, progress=progress, dry_run=dry_run)
    rows = [asdict(model) for model in done]
    show({"dry_run": dry_run, "models": rows}, *_tables(done), as_json=as_json)


def _tables(done: Sequence[SparsifiedFile]) -> list[Table]:
    """The models, and for each what became of its layers."""
    tables = [Table("", COLUMNS, [asdict(model) for model in done])]
    for model in done:
        columns = LAYER_COLUMNS if model.pattern == "2:4" else LAYER_COLUMNS[:-1]
        rows = [asdict(layer) for layer in model.layers]
        tables.append(Table(f"{model.output or model.input}: layers", columns, rows))
    return tables
