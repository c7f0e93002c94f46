"""The texts that `init` lays down: a template each, in ``templates/``."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from metaprune_cli.config import Augmentation, DataSettings
from metaprune_cli.config.data import AUGMENTED, USUALLY
from metaprune_cli.console.templates import Filters, render
from metaprune_cli.console.text import markdown, markdown_code, quoted
from metaprune_cli.methods.registry import learnt_by, method_by_command
from metaprune_cli.workflows.loading import ModelSource

TEMPLATES = Path(__file__).with_name("templates")
MODELS, REWRITTEN = "data/zoo/train", "data/transformed"
EPOCHS = {"digits": 15}
MANY_EPOCHS = 100
IGNORED = "__pycache__/\n*.checkpoint.safetensors\n"


@dataclass(frozen=True)
class Project:
    """What a pipeline is for; paths are as seen from its folder.

    Attributes:
        name: of the folder.
        arch: what the model is, ``arch_args`` what its builder is told.
        model: its file; None: it is trained first.
        source: how the file is opened, with the shape of the images where it does not say so itself.
        data: the images, and the task where it is not classification.
        metanet: a metanetwork's file, if there is one.
        imports: whether the model is made by code that has to be imported.
        restored: of which images the model is made better ones, if it is for that.
    """

    name: str
    arch: str
    arch_args: Mapping[str, Any]
    model: str | None
    source: ModelSource
    data: DataSettings
    metanet: str | None
    imports: bool
    restored: Mapping[str, Any] = field(default_factory=dict)

    @property
    def zoo(self) -> str:
        """The command that puts the model into a file of ours, trained or brought in."""
        return shlex.join(["metaprune", "zoo", *self._flags(), "-o", "data/zoo"])

    @property
    def transform(self) -> str:
        """The command that sends it through the metanetwork."""
        flags = ["--allow-import"] if self.imports else []
        return shlex.join(["metaprune", "transform", MODELS, "--metanet", str(self.metanet), *flags, "-o", REWRITTEN])

    @property
    def metanet_is_shipped(self) -> bool:
        """Whether the metanetwork is one of the package's, not a file."""
        return self.metanet in learnt_by("transform").files().shipped()

    @property
    def augment(self) -> Augmentation:
        """How training images are varied; those of a task of one's own are its own business."""
        if self.restored:
            return USUALLY
        return "none" if self.data.task else AUGMENTED.get(self.data.dataset, USUALLY)

    @property
    def epochs(self) -> int:
        """Of training the model."""
        return MANY_EPOCHS if self.data.task else EPOCHS.get(self.data.dataset, MANY_EPOCHS)

    def _flags(self) -> Iterator[str]:
        """How the model's file is opened."""
        if self.model is None:
            return
        source = self.source
        yield from ("import", self.model)
        if source.arch is not None:
            yield from ("--arch", source.arch)
        for key, value in source.arch_args.items():
            yield from ("--arch-arg", f"{key}={value}")
        if source.input_shape is not None:
            yield from ("--input-shape", ",".join(map(str, source.input_shape)))
        if source.key is not None:
            yield from ("--key", source.key)
        if source.trust_pickle:
            yield "--trust-pickle"
        if self.imports:
            yield "--allow-import"


def texts(project: Project) -> dict[str, str]:
    """Every file of the folder, by name."""
    values: dict[str, object] = {"project": project, "models": MODELS, "rewritten": REWRITTEN}
    values["method"] = method_by_command("transform")
    as_yaml: Filters = {"item": partial(_yaml, in_list=True), "quoted": quoted, "json": _value}
    return {
        "README.md": render(TEMPLATES / "README.md.jinja", markdown, {"code": markdown_code}, **values),
        ".gitignore": IGNORED,
        **{name: render(TEMPLATES / f"{name}.jinja", _yaml, as_yaml, **values) for name in ("dvc.yaml", "params.yaml")},
    }


def _value(value: object) -> str:
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def _yaml(text: str, *, in_list: bool = False) -> str:
    """Text as a YAML scalar that DVC's templating leaves alone; quoted only where it has to be."""
    plain = re.fullmatch(r"[\w/.][\w/.,:= -]*", text) and _reads_back(f"[{text}]" if in_list else text, text)
    return text if plain else quoted(text.replace("${", r"\${"))


def _reads_back(written: str, text: str) -> bool:
    try:
        return yaml.safe_load(written) in (text, [text])
    except yaml.YAMLError:
        return False
