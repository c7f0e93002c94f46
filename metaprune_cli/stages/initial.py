"""The texts that `init` lays down."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from metaprune_cli.config import Augmentation, DatasetName, DataSettings
from metaprune_cli.console.text import markdown, markdown_code, quoted
from metaprune_cli.methods.registry import learnt_by, method_by_command
from metaprune_cli.workflows.loading import ModelSource

MODELS, REWRITTEN = "data/zoo/train", "data/transformed"
AUGMENT: Mapping[DatasetName, Augmentation] = {"digits": "none", "svhn": "crop"}
EPOCHS = {"digits": 15}
MANY_EPOCHS = 100


@dataclass(frozen=True)
class Project:
    """What a pipeline is for; paths are as seen from its folder.

    Attributes:
        name: of the folder.
        arch: what the model is, ``arch_args`` what its builder is told.
        model: its file; None: it is trained first.
        source: how the file is opened, with the shape of the images where it does not say so itself.
        data: the images.
        metanet: a metanetwork's file, if there is one.
        imports: whether the model is made by code that has to be imported.
    """

    name: str
    arch: str
    arch_args: Mapping[str, Any]
    model: str | None
    source: ModelSource
    data: DataSettings
    metanet: str | None
    imports: bool


def pipeline(project: Project) -> str:
    """dvc.yaml."""
    return "\n".join([HEAD, _zoo(project), *([_transform(project)] if project.metanet else []), _rest(project)])


HEAD = """\
# Laid down by `metaprune init`: `dvc repro` runs what is out of date, `dvc dag` draws it, params.yaml has the settings.
stages:"""


def _zoo(project: Project) -> str:
    """The first stage: the model in a file of ours, trained or brought in."""
    words = ["metaprune", "zoo", *_flags(project), "-o", "data/zoo"]
    desc = "Bring the model in" if project.model else "Train the model"
    deps = f"\n    deps: [{_yaml(project.model, in_list=True)}]" if project.model else ""
    return f"""\
  zoo:
    desc: {desc}
    cmd: {_yaml(shlex.join(words))}{deps}
    params: [{"zoo" if project.model else "data, zoo"}]
    outs: [data/zoo]
"""


def _flags(project: Project) -> Iterator[str]:
    """How the model's file is opened."""
    if project.model is None:
        return
    source = project.source
    yield from ("import", project.model)
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
    if project.imports:
        yield "--allow-import"


def _transform(project: Project) -> str:
    assert project.metanet is not None
    command = (
        f"metaprune transform {MODELS} --metanet {shlex.quote(project.metanet)}{_importing(project)} -o {REWRITTEN}"
    )
    shipped = project.metanet in learnt_by("transform").files().shipped()
    also = [] if shipped else [_yaml(project.metanet, in_list=True)]
    return f"""\
  transform:
    desc: Send it through the {method_by_command("transform").noun}
    cmd: {_yaml(command)}
    deps: [{", ".join(["data/zoo", *also])}]
    params: [data, transform]
    outs: [{REWRITTEN}]
"""


def _rest(project: Project) -> str:
    more, also = _importing(project), f" {REWRITTEN}" if project.metanet else ""
    return f"""\
  prune:
    foreach: ${{arms}}
    do:
      desc: Remove channels at every speed-up of params.yaml
      cmd: >-
        metaprune prune ${{item.models}} --criterion ${{item.criterion}} --scope ${{item.scope}}{more}
        -o data/pruned/${{key}}
      deps: ["${{item.models}}"]
      params: [data, prune]
      outs: ["data/pruned/${{key}}"]

  finetune:
    foreach: ${{arms}}
    do:
      desc: Train what is left; all arms with the same images, seed and epochs
      cmd: metaprune finetune data/pruned/${{key}}{more} -o data/finetuned/${{key}}
      deps: ["data/pruned/${{key}}"]
      params: [data, finetune]
      outs: ["data/finetuned/${{key}}"]

  eval:
    desc: Measure every model on the test images and compare the arms
    cmd: >-
      metaprune eval {MODELS}{also} data/finetuned --base {MODELS}{more}
      -o data/report --report data/report/report.html
    deps: [data/zoo{"," + also if also else ""}, data/finetuned]
    params: [data, eval]
    outs: [data/report]

metrics:
  - data/report/metrics.json

plots:
  - data/report/curve.png
"""


def settings(project: Project) -> str:
    """params.yaml."""
    return "\n".join([_data(project.data), _training(project), _arms(project), SETTINGS])


def _data(data: DataSettings) -> str:
    root = f"\n  data_root: {_yaml(data.data_root)}" if data.data_root else ""
    size = f"\n  image_size: {data.image_size}" if data.image_size else ""
    return f"""\
# Every setting of the pipeline; a section has the name of the subcommand that reads it, what is left out its default.

data: # which images, how they are split, augmented and batched
  dataset: {data.dataset}{root}{size}
  split_seed: 0
  val_fraction: 0.15 # of the training images; the test images are read by `eval` alone
  augment: {AUGMENT.get(data.dataset, "crop-flip")} # none, crop or crop-flip
  batch_size: 64
"""


def _training(project: Project) -> str:
    if project.model is not None:
        return "zoo: # the model is brought in as it is\n  validation: 0\n"
    args = f"\n      arch_args: {{{_arguments(project)}}}" if project.arch_args else ""
    return f"""\
zoo: # the model that is trained; classes, channels and image size follow from the data where it is a known one
  members:
    - arch: {_yaml(project.arch)}{args}
      count: 1
      heldout: 0
  validation: 0
  train:
    epochs: {EPOCHS.get(project.data.dataset, MANY_EPOCHS)}
    lr: 0.1
"""


def _arms(project: Project) -> str:
    arm = method_by_command("transform").name
    rewritten = f"  {arm}: {{models: {REWRITTEN}, criterion: auto, scope: global}}\n" if project.metanet else ""
    transform = (
        "transform:\n  recalibrate: true # BatchNorm statistics on training images, after the weights changed\n\n"
    )
    return f"""\
{transform if project.metanet else ""}\
arms: # the ways of pruning that are compared; one more is a line more (`metaprune list criteria`)
  plain: {{models: {MODELS}, criterion: group-l2, scope: global}} # units of all layers ranked together
  uniform: {{models: {MODELS}, criterion: group-l2, scope: family}} # the same share of every layer
{rewritten}"""


SETTINGS = """\
prune:
  speedup: [2, 4] # MACs before / MACs after
  max_ratio: 0.8 # of a layer's channels that may go
  repair: least-squares # without training: what is left is fitted to what the whole model did on training images
  round_to: 1 # 8: what stays of a layer is a multiple of 8, which processors like
  rules: [] # e.g. - {match: "layer1.*", max_ratio: 0.5}: see docs/pruning.md

finetune: # after pruning, the same for every arm
  epochs: 5
  optimizer: sgd # or adamw, with a learning rate of about 0.0005, for transformers
  lr: 0.02
  schedule: cosine

eval:
  latency_batch: 64
  latency_runs: 30
"""


def readme(project: Project) -> str:
    """README.md."""
    what = (
        f"the model in {markdown_code(project.model)}"
        if project.model
        else f"a {markdown_code(project.arch)} that is trained first"
    )
    return f"""\
# {markdown(project.name)}

Prunes {what}, on {project.data.dataset}. Laid down by `metaprune init`.

    git init && dvc init        # once; inside another repository: dvc init --subdir
    dvc repro                   # runs what is out of date

- `params.yaml` has every setting, `dvc.yaml` the stages; `dvc exp run -S 'prune.speedup=[3]'` tries another one.
- `data/report/report.html` is the result, for people; `dvc metrics show` the figures.
- `data/finetuned/ARM/` has the smaller models. In Python: `metaprune_cli.load_model(path)`.
"""


def _importing(project: Project) -> str:
    return " --allow-import" if project.imports else ""


def _arguments(project: Project) -> str:
    values = {key: quoted(arg) if isinstance(arg, str) else json.dumps(arg) for key, arg in project.arch_args.items()}
    return ", ".join(f"{quoted(key)}: {value}" for key, value in values.items())


def _yaml(text: str, *, in_list: bool = False) -> str:
    """Text as a YAML scalar that DVC's templating leaves alone; quoted only where it has to be."""
    plain = re.fullmatch(r"[\w/.][\w/.,:= -]*", text) and _reads_back(f"[{text}]" if in_list else text, text)
    return text if plain else quoted(text.replace("${", r"\${"))


def _reads_back(written: str, text: str) -> bool:
    try:
        return yaml.safe_load(written) in (text, [text])
    except yaml.YAMLError:
        return False
