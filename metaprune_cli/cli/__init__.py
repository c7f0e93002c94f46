"""The shell's side: one file per subcommand, each of which loads its stage only when it is called."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated

import typer

from metaprune_cli import __version__
from metaprune_cli.cli import (
    bench,
    compress,
    coverage,
    decode,
    dhp,
    encode,
    env,
    eval,
    export,
    finetune,
    init,
    inspect,
    iterate,
    meta_train,
    prune,
    pruning_net,
    search,
    sensitivity,
    sparsify,
    transform,
    zoo,
)
from metaprune_cli.cli import list as list_
from metaprune_cli.cli.command import Command
from metaprune_cli.cli.edge import Edge
from metaprune_cli.cli.examples import EXAMPLES
from metaprune_cli.environment import keep_freed_memory

app = typer.Typer(
    name="metaprune",
    cls=Edge,
    help="Make trained PyTorch models smaller and faster: prune, repair, finetune, evaluate and export them.",
    epilog="Exit codes: 0 done, 2 bad input, 3 target out of reach, 4 corrupt or unsafe file, 5 another process of the "
    "run was lost, 130 interrupted, 141 output closed early.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS: Mapping[str, Callable[..., None]] = MappingProxyType(
    {
        "compress": compress.compress,
        "zoo": zoo.zoo,
        "encode": encode.encode,
        "meta-train": meta_train.meta_train,
        "transform": transform.transform,
        "pruning-net": pruning_net.pruning_net,
        "prune": prune.prune,
        "search": search.search,
        "sparsify": sparsify.sparsify,
        "finetune": finetune.finetune,
        "dhp": dhp.dhp,
        "iterate": iterate.iterate,
        "sensitivity": sensitivity.sensitivity,
        "eval": eval.evaluate,
        "decode": decode.decode,
        "inspect": inspect.inspect,
        "export": export.export,
        "bench": bench.bench,
        "coverage": coverage.coverage,
        "env": env.env,
        "list": list_.list_,
        "init": init.init,
    }
)
for name, command in COMMANDS.items():
    app.command(name, cls=Command, epilog=f"Example: {EXAMPLES[name]}")(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"metaprune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; SIGTERM, as a scheduler sends it, ends it as Ctrl-C does."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    keep_freed_memory()
    app(prog_name="metaprune")
