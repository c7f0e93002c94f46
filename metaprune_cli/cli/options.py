"""Options that several subcommands share, and how flags and params.yaml become settings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from metaprune_cli.config import DatasetName, DataSettings
from metaprune_cli.config_loader import load_section, sections
from metaprune_cli.errors import InputError

if TYPE_CHECKING:
    from metaprune_cli.workflows.loading import ModelSource

Settings = TypeVar("Settings")
Scalar = bool | int | float | str

MOST_NUMBERS = 2**28
"""Of one input: a gibibyte."""
MOST_PROCESSES = 1024
"""Of models at a time, and of threads."""
DEFAULT_PARAMS = Path("params.yaml")

# files
Models = Annotated[
    list[Path],
    typer.Argument(metavar="MODEL...", help="Model files, or folders of our model artifacts.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="PATH", help="Output file; a folder for several results. Default: beside the input."
    ),
]
Params = Annotated[
    Path | None,
    typer.Option(
        "--params", metavar="FILE", help="Settings file; flags override it. Default: ./params.yaml, if there is one."
    ),
]

# what a model file that is not ours needs
Arch = Annotated[
    str | None,
    typer.Option("--arch", metavar="NAME", help="cifar:resnet56, torchvision:resnet50 or package.module:factory."),
]
ArchArgs = Annotated[
    list[str] | None,
    typer.Option("--arch-arg", metavar="KEY=VALUE", help="Argument of the architecture; may be repeated."),
]
InputShape = Annotated[
    str | None, typer.Option("--input-shape", metavar="C,H,W", help="Shape of one input, without the batch: 3,224,224.")
]
TrustPickle = Annotated[bool, typer.Option("--trust-pickle", help="Unpickle whole modules: runs code from the file.")]
AllowImport = Annotated[bool, typer.Option("--allow-import", help="Import the factory that an artifact names.")]

# data
Dataset = Annotated[DatasetName | None, typer.Option("--dataset", help="Which images.")]
OfTask = Annotated[
    str | None,
    typer.Option("--task", metavar="NAME", help="What models are for: classification, or package.module:task."),
]
DataRoot = Annotated[Path | None, typer.Option("--data-root", metavar="DIR", help="Folder the images are in.")]

# everywhere
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, max=2**63 - 1, help="Seed of everything random; overrides params.yaml."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of an interrupted run, if one fits.")]

Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=0,
        max=MOST_PROCESSES,
        help="Models at a time, each in its own process; 0: one for every core.",
    ),
]
Ddp = Annotated[
    bool, typer.Option("--ddp", help="Under torchrun: all processes train each model together, not one each.")
]


def given(**flags: Any) -> dict[str, Any]:
    """The flags that were given, by settings field: what overrides params.yaml."""
    return {name: value for name, value in flags.items() if value is not None}


def settings(cls: type[Settings], section: str, params: Path | None, **flags: Any) -> Settings:
    """One section of params.yaml with the flags on top.

    Raises:
        InputError: ``params`` does not exist, or a key or value in it is wrong.
    """
    return load_section(_params_file(params), section, cls, given(**flags))


def data_settings(
    params: Path | None, dataset: DatasetName | None, data_root: Path | None, task: str | None = None
) -> DataSettings:
    """Section ``data`` with the flags on top."""
    root = None if data_root is None else str(data_root)
    return settings(DataSettings, "data", params, dataset=dataset, data_root=root, task=task)


def known_data(
    params: Path | None, dataset: DatasetName | None, data_root: Path | None, task: str | None = None
) -> DataSettings | None:
    """The data settings, or None where neither a flag nor params.yaml says which images are meant."""
    file = _params_file(params)
    if dataset is None and data_root is None and task is None and (file is None or "data" not in sections(file)):
        return None
    return data_settings(params, dataset, data_root, task)


def model_source(
    arch: str | None, arch_args: list[str] | None, input_shape: str | None, trust_pickle: bool, allow_import: bool
) -> ModelSource:
    """How model files are to be opened.

    Raises:
        InputError: an ``--arch-arg`` or the ``--input-shape`` cannot be read.
    """
    args = dict(_key_value(text) for text in arch_args or ())
    shape = None if input_shape is None else _shape(input_shape)
    from metaprune_cli.workflows.loading import ModelSource  # imports torch: after all that can be refused without it

    return ModelSource(
        arch=arch,
        arch_args=args,
        input_shape=shape,
        trust_pickle=trust_pickle,
        allow_import=allow_import,
    )


def pruning_rules(texts: Iterable[str]) -> list[dict[str, object]]:
    """``MATCH: KEY=VALUE, KEY`` as the mappings of params.yaml; a key alone is true.

    Raises:
        InputError: a text is not of that form.
    """
    rules: list[dict[str, object]] = []
    for text in texts:
        match, colon, keys = text.rpartition(":")
        parts = [part.strip() for part in keys.split(",")]
        if not colon or not match.strip() or not all(re.fullmatch(r"\w+(=[^=]+)?", part) for part in parts):
            raise InputError(
                "A rule cannot be read.",
                expected="MATCH: KEY=VALUE[, ...], such as 'layer1.*: max_ratio=0.5' or 'type:Linear: ignore'",
                got=text,
                where="--rule",
            )
        pairs = (part.partition("=") for part in parts)
        rules.append(
            {"match": match.strip()}
            | {key: _scalar(value, "--rule") if equals else True for key, equals, value in pairs}
        )
    return rules


def _params_file(params: Path | None) -> Path | None:
    if params is None:
        return DEFAULT_PARAMS if DEFAULT_PARAMS.is_file() else None
    if not params.is_file():
        raise InputError("The settings file does not exist.", where=params, next_step="check --params")
    return params


def _key_value(text: str) -> tuple[str, Scalar]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InputError(
            "An argument of the architecture cannot be read.", expected="KEY=VALUE", got=text, where="--arch-arg"
        )
    return key.strip(), _scalar(value.strip(), "--arch-arg")


def _scalar(text: str, where: str) -> Scalar:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for read in (int, float):
        with suppress(ValueError):
            number = read(text)
            if not abs(number) < 2**63:  # nor is NaN
                raise InputError(
                    "A number cannot be used.", expected="a finite number of 64 bits", got=text[:100], where=where
                )
            return number
    return text


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1 or math.prod(shape) > MOST_NUMBERS:
        raise InputError(
            "The input shape cannot be read.",
            expected=f"sizes without the batch, such as 3,224,224, of at most {MOST_NUMBERS} numbers together",
            got=text,
            where="--input-shape",
        )
    return shape
