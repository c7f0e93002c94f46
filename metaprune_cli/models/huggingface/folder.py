"""A folder that ``save_pretrained`` wrote: config.json, and weights in safetensors, in one file or in several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.models.architecture import Architecture
from metaprune_cli.models.huggingface.classes import PREFIX, config_of, model_class, offline
from metaprune_cli.models.huggingface.config import checked_config
from metaprune_cli.models.on_meta import Limits
from metaprune_cli.models.registry import skeleton
from metaprune_cli.models.shards import parts_of, read_json
from metaprune_cli.places import CONFIG, check_readable

WEIGHTS, INDEX, ADAPTER = "model.safetensors", "model.safetensors.index.json", "adapter_config.json"
_LISTED = 10


def open_folder(folder: Path, arch: str | None, args: Mapping[str, Any]) -> tuple[nn.Module, Architecture]:
    """The model in a folder, in eval mode and single precision, and what it is.

    Nothing is fetched, and no code but that of ``transformers`` runs: weights are tensors in safetensors, and what a
    configuration may say is checked before anything is built from it.

    Args:
        folder: as ``save_pretrained`` wrote it.
        arch: ``hf:CLASS``, instead of the class that the configuration names.
        args: entries over those of the configuration.

    Raises:
        InputError: code of its own is needed, weights are missing or do not fit, or it is something else.
        CorruptFileError: a file is damaged.
    """
    config = read_json(folder / CONFIG)
    name = _class_named(config, folder) if arch is None else _class_given(arch, folder)
    entries = checked_config({**config, **args}, str(folder / CONFIG))
    architecture = Architecture(f"{PREFIX}:{name}", entries)
    if (folder / ADAPTER).exists():
        raise InputError(
            "The folder holds an adapter, which is a part of a model.",
            where=folder / ADAPTER,
            next_step="merge it into its model (merge_and_unload) and save that with save_pretrained",
        )
    shapes = {key: shape for file in weight_files(folder) for key, shape in _shapes(file).items()}
    skeleton(architecture, limits=Limits.of({key: torch.empty(shape, device="meta") for key, shape in shapes.items()}))
    return _loaded(folder, name, entries), architecture


def weight_files(folder: Path) -> list[Path]:
    """The files of the weights.

    Raises:
        InputError: there are none in safetensors.
        CorruptFileError: the index names files that are not in its folder.
    """
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if not (folder / INDEX).exists():
        others = [path.name for path in sorted(folder.iterdir()) if path.suffix in (".bin", ".h5", ".msgpack", ".pt")]
        raise InputError(
            "The folder holds no weights in safetensors.",
            expected=f"{WEIGHTS}, or {INDEX} and the files that it names",
            got=", ".join(others[:_LISTED]) or "none",
            where=folder,
            next_step="open it with transformers, and save it again with save_pretrained",
        )
    return parts_of(folder / INDEX)


def _class_named(config: Mapping[str, Any], folder: Path) -> str:
    named = config.get("architectures")
    if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str):
        return named[0]
    raise InputError(
        "The configuration does not name the model's class.",
        expected="one name under architectures",
        got=f"a {str(config['_class_name'])[:100]} of diffusers" if "_class_name" in config else str(named)[:200],
        where=folder / CONFIG,
        next_step=f"say it: --arch {PREFIX}:BertForSequenceClassification, for example",
    )


def _class_given(arch: str, folder: Path) -> str:
    family, _, name = arch.partition(":")
    if family != PREFIX:
        raise InputError(
            "A folder of save_pretrained holds a model of transformers.",
            expected=f"{PREFIX}:CLASS",
            got=arch,
            where="--arch",
            next_step=f"leave --arch out, or give {folder / WEIGHTS} as MODEL",
        )
    return name


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes in a file's header; no tensor is read."""
    check_readable(file)
    try:
        with safe_open(file, "pt") as content:
            return {key: tuple(content.get_slice(key).get_shape()) for key in content.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CorruptFileError(
            "The weights are not a valid safetensors file.",
            got=str(error)[:200],
            where=file,
            next_step="copy or make the folder again",
        ) from error


def _loaded(folder: Path, name: str, config: Mapping[str, Any]) -> nn.Module:
    """Read by the class itself, which knows how names and layouts of older files become its own."""
    found = model_class(name)
    try:
        with offline():
            model, about = found.from_pretrained(
                folder,
                config=config_of(name, config),
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:
        raise _misfit(name, folder, f"{type(error).__name__}: {error}") from error
    if missing := sorted(about["missing_keys"]):
        raise _misfit(name, folder, f"{len(missing)} missing: {', '.join(missing[:_LISTED])}")
    whole: nn.Module = model
    return whole.eval()


def _misfit(name: str, folder: Path, got: str) -> InputError:
    return InputError(
        f"The weights are not those of a {name} with this configuration.",
        expected="every entry of the model, in its shape",
        got=got[:1000],
        where=folder,
        next_step=f"if the folder is of another class, --arch {PREFIX}:CLASS; else copy or make it again",
    )
