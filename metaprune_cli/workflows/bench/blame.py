"""Which layers keep a model with fewer MACs from being faster, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from metaprune_cli.metrics.layers import LayerTime, Profile

Changed = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
"""Layers whose weight has another shape: both shapes."""
LISTED = 8
_MULTIPLE = 8  # vector units and tensor cores take channels in eights
_SHORT_MS = 0.1
_NO_MACS_SHARE = 0.3
_NEW_SHARE = 0.1
_NOTHING = LayerTime(0.0, 0, 0, owned=False)


@dataclass(frozen=True)
class Layer:
    """One layer of the model beside the base's.

    Attributes:
        name: the layer, or an operator without parameters in all its calls.
        share: of the model's time.
        ms_before: of the base.
        ms_after: of the model.
        macs_before: of the base.
        macs_after: of the model.
        excess_ms: time above what the base's would be, had it fallen as the layer's MACs did (as all MACs did, where
            the layer has none).
        channels: what changed in its weight's first two dimensions; None where nothing did.
    """

    name: str
    share: float
    ms_before: float
    ms_after: float
    macs_before: int
    macs_after: int
    excess_ms: float
    channels: str | None


def layers_to_blame(base: Profile, own: Profile, channels: Mapping[str, str]) -> tuple[Layer, ...]:
    """The layers with the largest excess, largest first."""
    total = _ratio(_macs(base), _macs(own))
    found = []
    for name, after in own.layers.items():
        before = base.layers.get(name, _NOTHING)
        expected = before.ms * (_ratio(before.macs, after.macs) if before.macs else total)
        excess = after.ms - expected
        share = after.ms / own.ms
        found.append(Layer(name, share, before.ms, after.ms, before.macs, after.macs, excess, channels.get(name)))
    found.sort(key=lambda layer: -layer.excess_ms)
    return tuple(layer for layer in found[:LISTED] if layer.excess_ms > 0)


def causes(base: Profile, own: Profile, weights: Changed) -> tuple[str, ...]:
    """What can be said about the reasons, a sentence each.

    Args:
        base: where the base's time goes.
        own: where the model's goes.
        weights: those that pruning has changed (see ``changed_weights``).
    """
    return tuple(_causes(base, own, weights))


def changed_weights(base: nn.Module, own: nn.Module) -> Changed:
    """Layers whose matrix or kernel has other channels in the model: both shapes."""
    before = {name: tuple(tensor.shape) for name, tensor in base.state_dict().items()}
    return {
        name.rpartition(".")[0] or name: (before[name], tuple(tensor.shape))
        for name, tensor in own.state_dict().items()
        if tensor.dim() > 1 and name in before and before[name][:2] != tuple(tensor.shape)[:2]
    }


def in_words(before: tuple[int, ...], after: tuple[int, ...]) -> str:
    """The channels of a weight, in and out: ``64→96 before, 37→61 now``."""
    return f"{before[1]}→{before[0]} before, {after[1]}→{after[0]} now"


def _causes(base: Profile, own: Profile, weights: Changed) -> Iterator[str]:
    calls = sum(layer.calls for layer in own.layers.values())
    if own.ms / calls < _SHORT_MS:
        yield (
            f"its {calls} operators take {1000 * own.ms / calls:.0f} µs each on average: at this size the calls cost "
            "more than the arithmetic; larger batches show more of the gain"
        )
    new = {name: ms for name, ms in own.operators.items() if name not in base.operators}
    if sum(new.values()) >= _NEW_SHARE * own.ms:
        yield (
            f"{_percent(sum(new.values()) / own.ms)} of its time is in operators that the base does not run "
            f"({_largest(new)}), in the place of {_largest(_only(base, own)) or 'none'}"
        )
    idle = {name: layer.ms for name, layer in own.layers.items() if not layer.macs}
    if sum(idle.values()) >= _NO_MACS_SHARE * own.ms:
        yield (
            f"{_percent(sum(idle.values()) / own.ms)} of its time is in operators without MACs ({_largest(idle)}): "
            "they read and write activations, which fall with the channels, not with their product"
        )
    if odd := [name for name, shapes in weights.items() if _is_odd(*shapes)]:
        yield (
            f"{len(odd)} of {len(weights)} pruned layers have channels that are not a multiple of {_MULTIPLE} "
            f"({', '.join(odd[:3])}{' …' if len(odd) > 3 else ''}), which many kernels pad or run slower"
        )


def _is_odd(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether a dimension of channels that shrank is one that hardware does not like."""
    pairs = zip(before[:2], after[:2], strict=True)
    return any(old != new and new > 1 and new % _MULTIPLE for old, new in pairs)


def _only(base: Profile, own: Profile) -> dict[str, float]:
    return {name: ms for name, ms in base.operators.items() if name not in own.operators}


def _largest(times: Mapping[str, float]) -> str:
    return ", ".join(sorted(times, key=lambda name: -times[name])[:3])


def _macs(profile: Profile) -> int:
    return sum(layer.macs for layer in profile.layers.values())


def _ratio(before: float, after: float) -> float:
    return after / before if before else 1.0


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
