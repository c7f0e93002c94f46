"""Building modules without memory for their parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

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


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Send each parameter to meta when a module is given it, before it is initialised; all else is real.

    What a constructor computes from a parameter is on meta, or fails, so no value is wrong without a sign of it.
    """
    known = WeakIdKeyDictionary()

    def on_meta(_: nn.Module, __: str, parameter: nn.Parameter) -> nn.Parameter | None:
        if type(parameter) is not nn.Parameter or parameter.is_meta:
            return None
        if parameter not in known:  # one that two modules are given stays one
            known[parameter] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        return known[parameter]  # type: ignore[no-any-return]

    handle = register_module_parameter_registration_hook(on_meta)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


def build_on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """Call ``make`` with parameters on meta; where its constructor needs their values, build it and drop them."""
    with suppress(Exception), _FactoriesOnMeta():  # whatever fails for want of values; a mistake fails again below
        return make()
    with suppress(Exception), parameters_on_meta():
        return make().to("meta")
    return make().to("meta")
