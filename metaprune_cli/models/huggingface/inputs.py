"""What a model of ``transformers`` takes: told by the arguments of its ``forward`` and by its configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from metaprune_cli.models.huggingface.classes import config_of, model_class

TOKENS = 16
DECODED = 9
"""Another length than that of the encoder's, so that the two are not taken for one."""
IMAGE, SAMPLES, FRAMES = 64, 4000, 8
"""Sizes where the configuration fixes none: pixels of a side, samples of sound, frames."""
Sizes = Callable[["Described"], tuple[int, ...]]


class Described:
    """A configuration, with those of its parts: what it says under any of several names."""

    def __init__(self, config: Any) -> None:
        parts = [value for value in vars(config).values() if hasattr(value, "to_dict") and hasattr(value, "model_type")]
        self.configs = [config, *parts]

    def first(self, *names: str, default: Any = None) -> Any:
        """The first of these that any of the configurations has, and not as None."""
        found = (getattr(config, name, None) for name in names for config in self.configs)
        return next((value for value in found if value is not None), default)

    def image(self) -> tuple[int, int]:
        """Height and width of an image."""
        size = self.first("image_size", default=IMAGE)
        if isinstance(size, Mapping):
            size = [size.get("height", IMAGE), size.get("width", IMAGE)]
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return int(height), int(width)

    def channels(self) -> int:
        """Of an image."""
        return int(self.first("num_channels", "in_channels", "in_chans", default=3))

    def special(self) -> set[int]:
        """The tokens that mean something else than themselves: fillers, ends, places of images."""
        ids = {
            value
            for config in self.configs
            for key, value in vars(config).items()
            if key.endswith(("_token_id", "_token_index"))
        }
        return {number for value in ids if value is not None for number in _integers(value)}


def _integers(value: Any) -> list[int]:
    return [part for part in (value if isinstance(value, list | tuple) else [value]) if isinstance(part, int)]


def _spectrogram(described: Described) -> tuple[int, ...]:
    """Bands by frames, as many as its positions are for, before they are halved."""
    bands = described.first("num_mel_bins", "feature_size", default=80)
    return (bands, 2 * int(described.first("max_source_positions", default=100)))


def _sound(described: Described) -> tuple[int, ...]:
    """Samples; or frames by bands, where it takes those of one length."""
    frames = described.first("max_length")
    bands = described.first("num_mel_bins")
    return (frames, bands) if bands is not None and frames is not None else (SAMPLES,)


_FLOATING: Mapping[str, Sizes] = MappingProxyType(
    {
        "pixel_values": lambda of: (of.channels(), *of.image()),
        "pixel_values_videos": lambda of: (of.first("num_frames", default=FRAMES), of.channels(), *of.image()),
        "input_values": _sound,
        "input_features": _spectrogram,
    }
)
_VIDEO = ("num_frames", "tubelet_size")


def usual_inputs(name: str, config: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Small inputs by name, a batch of one; None where the arguments of ``forward`` are none that are known.

    Token ids are drawn below ``vocab_size``, without those that mean something of their own; images have the size that
    the configuration says. Tokens come with a mask that leaves out none, as tokenizers make it.

    Args:
        name: of the class.
        config: its configuration's entries.
    """
    found = model_class(name)
    object_ = config_of(name, config)
    described = Described(object_)
    arguments = inspect.signature(found.forward).parameters
    generator = torch.Generator().manual_seed(0)
    main = found.main_input_name
    inputs: dict[str, Tensor] = {}
    if "input_ids" in arguments and (main == "input_ids" or "pixel_values" in arguments):
        inputs["input_ids"] = _ids(described, TOKENS, generator)
        if "attention_mask" in arguments:
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    for key in dict.fromkeys([main, "pixel_values"]):
        if key in _FLOATING and key in arguments:
            inputs[key] = torch.randn(1, *_sizes(key, described), generator=generator)
    if main not in inputs:
        return None
    if "decoder_input_ids" in arguments and getattr(object_, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = _ids(described, DECODED, generator)
    return inputs


def _sizes(key: str, described: Described) -> tuple[int, ...]:
    is_video = key == "pixel_values" and all(described.first(name) is not None for name in _VIDEO)
    return _FLOATING["pixel_values_videos" if is_video else key](described)


def _ids(described: Described, length: int, generator: torch.Generator) -> Tensor:
    """Token ids; the end of the text comes last where there is one, as some heads look for it."""
    words = int(described.first("vocab_size", default=2))
    special = described.special()
    plain = [token for token in range(min(words, 1000)) if token not in special] or [0]
    drawn = torch.randint(0, len(plain), (1, length), generator=generator)
    ids = torch.tensor(plain)[drawn]
    end = next((one for one in _integers(described.first("eos_token_id")) if 0 <= one < words), None)
    if end is not None:
        ids[:, -1] = end
    return ids
