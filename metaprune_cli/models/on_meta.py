"""Building modules without memory for their parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

# What parameters are made with. Anything else a constructor computes (index tables, widths, drop rates) stays real:
# a plain ``torch.device("meta")`` context breaks constructors that read such values (torchvision's RegNets).
_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)


class _FactoriesOnMeta(TorchFunctionMode):
    """Sends tensors made from nothing to meta, unless they ask for a device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _FACTORIES and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def build_on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Call ``make`` with parameters on meta; where its constructor needs their values, build it and drop them."""
    try:
        with _FactoriesOnMeta():
            return make()
    except Exception:  # noqa: BLE001 - whatever fails for want of values; a real mistake fails again below
        return make().to("meta")
