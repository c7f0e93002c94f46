"""What the words of every subcommand are checked for before it is called: no option does that by itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from metaprune_cli.config.flags import RUN
from metaprune_cli.errors import InputError
from metaprune_cli.places import FOLDER, printable, unreadable

INPUTS = ("models", "graphs", "inputs", "file", "model", "base", "teacher", "validation", "shares")
"""The parameters that are paths of what is read; what is in a folder is looked at later."""
UsageError: Any = typer.BadParameter.__bases__[0]  # of click, or of the copy that newer versions of Typer bring
NUMBER = re.compile(r"\d+(\.\d*)?|\.\d+")
IMPORT = Path("import")
"""The word before the models that ``zoo`` takes."""


class Command(TyperCommand):
    """A subcommand that takes no empty words: as a path, Typer would read them as the working directory."""

    def get_help_option(self, ctx: Any) -> Any:
        """The option ``--help``, listed at the end."""
        option: Any = super().get_help_option(ctx)
        if option is not None:
            option.rich_help_panel = RUN
        return option

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What Typer makes of the words.

        Raises:
            BadParameter: one of them is empty, or an option's value after ``=`` is.
            UsageError: there is no such option; other commands that have it are named.
        """
        for before, word in zip(["", *args], args, strict=False):
            option, equals, value = word.partition("=")
            if not word.strip() or (option.startswith("--") and equals and not value.strip()):
                raise typer.BadParameter(f"the value of {option or before or 'an argument'} is empty", ctx=ctx)
        try:
            return super().parse_args(ctx, list(_repeated(args, self.params)))
        except UsageError as error:
            if not getattr(error, "option_name", None) or not error.message.startswith("No such option"):
                raise
            others = _that_take(error.option_name, ctx)
            raise (UsageError(f"{error.message}. {others}", ctx) if others else error) from None


def _repeated(args: Sequence[str], params: Sequence[Any]) -> Iterator[str]:
    """The words, the option of several numbers given again for each: ``--speedup 2 4`` is ``--speedup 2 --speedup 4``.

    A number that is the name of a file here is left as it is.
    """
    several = {name for one in params if getattr(one, "multiple", False) for name in one.opts}
    option: str | None = None
    before = ""
    for word in args:
        if option is not None and before != option and NUMBER.fullmatch(word) and not Path(word).exists():
            yield option
        elif before != option:
            option = word if word in several else None
        yield word
        before = word


def _that_take(option: str, ctx: Any) -> str:
    """Which other commands take an option, in words; nothing where none does."""
    commands = getattr(ctx.parent and ctx.parent.command, "commands", {})
    found = [name for name, one in commands.items() if any(option in param.opts for param in one.params)]
    return f"`metaprune {'`, `metaprune '.join(found)}` {'takes' if len(found) == 1 else 'take'} it." if found else ""


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """Refuse numbers and paths that are of no use to any command, before its work is imported.

    Args:
        parameters: of a subcommand, by name.

    Raises:
        InputError: listing all of them.
    """
    problems = [
        f"--{name.replace('_', '-')} {str(value)[:100]}: {problem}"
        for name, given in parameters.items()
        for value in _values(given)
        if (problem := _problem(value))
    ]
    if problems:
        raise InputError("Some options are invalid.", expected="finite numbers of 64 bits", got="\n".join(problems))
    paths = [path for name in INPUTS for path in _values(parameters.get(name)) if isinstance(path, Path)]
    found = {path: unreadable(path) for path in paths if path != IMPORT}
    problems = [f"{printable(path)}: {words}" for path, words in found.items() if words not in (None, FOLDER)]
    problems += [
        f"{printable(path)}: {words or 'is a file'}"
        for path in _values(parameters.get("data_root"))
        if (words := unreadable(path.expanduser())) != FOLDER
    ]
    if problems:
        raise InputError(
            "Some inputs are invalid." if len(problems) > 1 else "An input is invalid.",
            expected="files, or folders of artifacts; for images a folder",
            got="\n".join(problems),
            next_step="check the paths",
        )


def _values(given: Any) -> Iterator[Any]:
    if isinstance(given, Sequence) and not isinstance(given, str):
        yield from given
    elif given is not None:
        yield given


def _problem(value: Any) -> str | None:
    """Why a number is none that any option takes."""
    if isinstance(value, float) and not math.isfinite(value):
        return "is not a finite number"
    return "has more than 64 bits" if isinstance(value, int) and abs(value) >= 2**63 else None
