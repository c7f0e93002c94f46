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
    transform,
    zoo,
)
from metaprune_cli.cli import list as list_

app = typer.Typer(
    name="metaprune",
    help="Make a trained PyTorch model easy to prune by passing it through another network, then prune it.",
    epilog="Exit codes: 0 done, 2 bad input, 3 target out of reach, 4 corrupt or unsafe file, 5 another process of the "
    "run lost, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("zoo")(zoo.zoo)
app.command("encode")(encode.encode)
app.command("meta-train")(meta_train.meta_train)
app.command("transform")(transform.transform)
app.command("prune")(prune.prune)
app.command("finetune")(finetune.finetune)
app.command("iterate")(iterate.iterate)
app.command("sensitivity")(sensitivity.sensitivity)
app.command("eval")(eval.evaluate)
app.command("decode")(decode.decode)
app.command("inspect")(inspect.inspect)
app.command("export")(export.export)
app.command("bench")(bench.bench)
app.command("coverage")(coverage.coverage)
app.command("env")(env.env)
app.command("list")(list_.list_)
app.command("init")(init.init)


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
