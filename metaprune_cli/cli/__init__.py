"""The shell's side: one file per subcommand, each of which loads its stage only when it is called."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from metaprune_cli import __version__
from metaprune_cli.cli import (
    bench,
    coverage,
    decode,
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
    sensitivity,
    sparsify,
    transform,
    zoo,
)
from metaprune_cli.cli import list as list_
from metaprune_cli.cli.command import Command
from metaprune_cli.cli.edge import Edge

app = typer.Typer(
    name="metaprune",
    cls=Edge,
    help="Make a trained PyTorch model easy to prune by passing it through another network, then prune it.",
    epilog="Exit codes: 0 done, 2 bad input, 3 target out of reach, 4 corrupt or unsafe file, 5 another process of the "
    "run lost, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("zoo", cls=Command)(zoo.zoo)
app.command("encode", cls=Command)(encode.encode)
app.command("meta-train", cls=Command)(meta_train.meta_train)
app.command("transform", cls=Command)(transform.transform)
app.command("prune", cls=Command)(prune.prune)
app.command("sparsify", cls=Command)(sparsify.sparsify)
app.command("finetune", cls=Command)(finetune.finetune)
app.command("iterate", cls=Command)(iterate.iterate)
app.command("sensitivity", cls=Command)(sensitivity.sensitivity)
app.command("eval", cls=Command)(eval.evaluate)
app.command("decode", cls=Command)(decode.decode)
app.command("inspect", cls=Command)(inspect.inspect)
app.command("export", cls=Command)(export.export)
app.command("bench", cls=Command)(bench.bench)
app.command("coverage", cls=Command)(coverage.coverage)
app.command("env", cls=Command)(env.env)
app.command("list", cls=Command)(list_.list_)
app.command("init", cls=Command)(init.init)


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
    app(prog_name="metaprune")
