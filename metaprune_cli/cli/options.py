"""Options that several subcommands share, and how their words are read."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaprune_cli.cli.completion import architectures
from metaprune_cli.cli.own_code import own_name
from metaprune_cli.cli.signature import Section
from metaprune_cli.cli.texts import figures, key_value, shape
from metaprune_cli.config import DataSettings, Logger, Preprocessing
from metaprune_cli.config.flags import MODEL_FILE, OUTPUT, RUN, TECHNIQUES, WHICH_LAYERS
from metaprune_cli.config_loader import parse

if TYPE_CHECKING:
    from metaprune_cli.workflows.loading import ModelSource

MOST_PROCESSES = 1024
"""Of models at a time, and of threads."""

# files
Models = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL...", help="Model files, or folders of models written by metaprune.", show_default=False
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Output file, or a folder if there are several results. Default: next to the input.",
        rich_help_panel=OUTPUT,
    ),
]
Draw = Annotated[
    Path | None,
    typer.Option("--draw", metavar="FILE.png", help="Also draw the results as a picture.", rich_help_panel=OUTPUT),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan; write nothing.", rich_help_panel=OUTPUT)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.", rich_help_panel=OUTPUT)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.", rich_help_panel=OUTPUT)]

# which layers
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore",
        metavar="MATCH",
        rich_help_panel=WHICH_LAYERS,
        help="Layers whose outputs are not pruned: a glob, re:REGEX or type:CLASS; may be repeated.",
    ),
]
Rule = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        metavar="RULE",
        rich_help_panel=WHICH_LAYERS,
        help="Rule for matching layers, 'MATCH: KEY=VALUE,...' with max_ratio, min_ratio, "
        "min_units, round_to, ignore, tie; may be repeated.",
    ),
]

# training
Teacher = Annotated[
    Path | None,
    typer.Option(
        "--teacher",
        metavar="MODEL",
        rich_help_panel=TECHNIQUES,
        help="Also learn from this model's outputs. A folder: each model learns from its own base in it.",
    ),
]

# data
RESTORED = {
    "scale": "restoration.scale",
    "sigma": "restoration.sigma",
    "pixels": "restoration.pixels",
    "test_set": "restoration.tests",
    "tile": "restoration.tile",
    "multiple": "restoration.multiple",
}
"""What super-resolution and denoising ask: option → setting."""
IMAGES = {name: name for name in ("dataset", "data_root", "task", "workers")} | RESTORED
DATA = IMAGES | {"batch_size": "batch_size"}
Data = Annotated[DataSettings, Section("data", only=DATA | {"augment": "augment"})]
TestData = Annotated[DataSettings, Section("data", only=IMAGES)]
"""Where the command has a batch size of its own."""
KnownData = Annotated[DataSettings | None, Section("data", only=DATA, if_said=True)]
Shape = Annotated[DataSettings | None, Section("data", only=("dataset", "data_root"), if_said=True)]
"""Where images say no more than the shape of an input."""

# everywhere
Params = Annotated[
    Path | None,
    typer.Option(
        "--params",
        metavar="FILE",
        help="Settings file, or 'none'; options override it. Default: ./params.yaml, if it exists.",
        rich_help_panel=RUN,
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.", rich_help_panel=RUN)
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, max=2**63 - 1, help="Random seed. Default: 0.", rich_help_panel=RUN),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback if there is an error.", rich_help_panel=RUN)]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue from the checkpoint of an interrupted run, if there is one with the same settings.",
        rich_help_panel=RUN,
    ),
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        min=0,
        max=MOST_PROCESSES,
        help="Number of models to process in parallel; 0: one per core.",
        rich_help_panel=RUN,
    ),
]
Log = Annotated[
    Logger | None,
    typer.Option(
        "--log",
        help="Also send every epoch's metrics to this tracker (its package must be installed). Default: none.",
        rich_help_panel=RUN,
    ),
]
Ddp = Annotated[
    bool,
    typer.Option(
        "--ddp",
        help="Under torchrun: all processes train each model together, instead of one model each.",
        rich_help_panel=RUN,
    ),
]
AllowImport = Annotated[
    bool,
    typer.Option(
        "--allow-import",
        help="Allow importing code that is named only in a file, never by you.",
        rich_help_panel=MODEL_FILE,
    ),
]


@dataclass(frozen=True)
class ModelCode:
    """What a model file that is not ours needs: the code that it belongs to, and leave to run it."""

    arch: Annotated[
        str | None,
        typer.Option(
            "--arch",
            metavar="NAME",
            help="Architecture: cifar:resnet56, torchvision:resnet50, timm:NAME, hf:CLASS, or your "
            "own: mynet.py:MyNet, package.module:factory. Default: as stored in the file.",
            rich_help_panel=MODEL_FILE,
            autocompletion=architectures,
        ),
    ] = None
    arch_arg: Annotated[
        list[str] | None,
        typer.Option(
            "--arch-arg",
            metavar="KEY=VALUE",
            help="Argument passed to the architecture; may be repeated.",
            rich_help_panel=MODEL_FILE,
        ),
    ] = None
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="NAME",
            help="Which state dict to use if the file contains several: state_dict_ema, model.ema, or "
            "a prefix of parameter names.",
            rich_help_panel=MODEL_FILE,
        ),
    ] = None
    trust_pickle: Annotated[
        bool,
        typer.Option(
            "--trust-pickle",
            help="Allow unpickling whole modules; this runs code from the file.",
            rich_help_panel=MODEL_FILE,
        ),
    ] = False
    allow_import: AllowImport = False

    def source(self) -> ModelSource:
        """How model files are to be opened.

        Raises:
            InputError: an ``--arch-arg`` cannot be read.
        """
        return _source(self)


@dataclass(frozen=True)
class ModelFile(ModelCode):
    """The same, and what the model takes."""

    input_shape: Annotated[
        str | None,
        typer.Option(
            "--input-shape",
            metavar="C,H,W",
            help="Shape of one input, without the batch dimension: 3,224,224. Default: from the file or the images.",
            rich_help_panel=MODEL_FILE,
        ),
    ] = None
    preprocessing: Annotated[
        str | None,
        typer.Option(
            "--preprocessing",
            metavar="NAME",
            help="Use the preprocessing of published weights: torchvision:resnet50, "
            "timm:convnext_atto. The options below override it.",
            rich_help_panel=MODEL_FILE,
        ),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(
            "--mean",
            metavar="M,M,M",
            help="Mean per channel, for pixels in [0, 1]. Default: as stored in the file, otherwise the data set's.",
            rich_help_panel=MODEL_FILE,
        ),
    ] = None
    std: Annotated[
        str | None,
        typer.Option("--std", metavar="S,S,S", help="Standard deviation per channel.", rich_help_panel=MODEL_FILE),
    ] = None
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            metavar="N",
            help="Resize images to N x N pixels. Default: as stored in the file, otherwise their own size.",
            rich_help_panel=MODEL_FILE,
        ),
    ] = None
    crop: Annotated[
        float | None,
        typer.Option(
            "--crop",
            metavar="SHARE",
            help="Centre crop: share of the resized image's side to keep, 0.5 to 1.",
            rich_help_panel=MODEL_FILE,
        ),
    ] = None
    interpolation: Annotated[
        str | None,
        typer.Option(
            "--interpolation",
            metavar="NAME",
            help="Interpolation for resizing: nearest, bilinear or bicubic.",
            rich_help_panel=MODEL_FILE,
        ),
    ] = None
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels", metavar="ORDER", help="Order of the colour channels: rgb or bgr.", rich_help_panel=MODEL_FILE
        ),
    ] = None

    def source(self) -> ModelSource:
        """How model files are to be opened.

        Raises:
            InputError: an ``--arch-arg``, the ``--input-shape`` or a part of the preprocessing cannot be read.
        """
        said = _preprocessing(self)
        source = _source(self, self.input_shape)
        if self.preprocessing is not None:
            from metaprune_cli.models.published import published

            said = said.over(published(self.preprocessing))
        return replace(source, preprocessing=said)


def _preprocessing(file: ModelFile) -> Preprocessing:
    """What the options say of images.

    Raises:
        InputError: a value cannot be used; all of them are named.
    """
    said: dict[str, object] = {
        name: value
        for name in ("image_size", "crop", "interpolation", "channels")
        if (value := getattr(file, name)) is not None
    }
    said |= {name: figures(text, f"--{name}") for name in ("mean", "std") if (text := getattr(file, name)) is not None}
    return parse(Preprocessing, said, section="preprocessing", where="--mean, --std, --image-size and their like")


def _source(code: ModelCode, input_shape: str | None = None) -> ModelSource:
    args = dict(key_value(text) for text in code.arch_arg or ())
    arch = None if code.arch is None else own_name(code.arch)
    sizes = None if input_shape is None else shape(input_shape)
    from metaprune_cli.models.consent import note_named  # imports torch: after all that can be refused without it
    from metaprune_cli.models.registry import is_factory
    from metaprune_cli.workflows.loading import ModelSource

    if arch is not None and is_factory(arch):
        note_named(arch)
    return ModelSource(
        arch=arch,
        arch_args=args,
        input_shape=sizes,
        trust_pickle=code.trust_pickle,
        allow_import=code.allow_import,
        key=code.key,
    )
