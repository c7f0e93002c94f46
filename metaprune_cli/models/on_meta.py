"""Building modules without memory for their parameters."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from metaprune_cli.errors import InputError

# What parameters are made with. Anything else a constructor computes (index tables, widths, drop rates) stays real:
# a plain ``torch.device("meta")`` context breaks constructors that read such values (torchvision's RegNets).
_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)


class TooLargeError(InputError):
    """What is being built is far larger than the file that it is for; its constructor does not get to its end."""


@dataclass(frozen=True)
class Limits:
    """How much a constructor may make whose arguments a file says: tensors, and values of those with memory."""

    tensors: int
    values: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Limits:
        """Room for the whole of what a state dict is the pruned rest of, and for what is not kept in it."""
        return cls(1000 + 8 * len(state), 2**28 + 64 * sum(tensor.numel() for tensor in state.values()))


class _Factories(TorchFunctionMode):
    """Counts tensors made from nothing; on meta, sends there those that do not ask for a device."""

    def __init__(self, limits: Limits | None, on_meta: bool) -> None:
        super().__init__()
        self.limits, self.on_meta = limits, on_meta
        self.tensors = self.values = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _FACTORIES:
            if self.on_meta and kwargs.get("device") is None:
                kwargs["device"] = "meta"
            if self.limits is not None:
                self._count(args, kwargs, self.limits)
        return func(*args, **kwargs)

    def _count(self, args: Any, kwargs: dict[str, Any], limits: Limits) -> None:
        self.tensors += 1
        if kwargs.get("device") != "meta":
            self.values += _values(kwargs.get("size", args))
        if self.tensors > limits.tensors or self.values > limits.values:
            raise TooLargeError(
                "With these arguments the architecture is far larger than the contents of the file.",
                expected=f"at most {limits.tensors} tensors, and {limits.values} values where they need memory",
                got="more",
                next_step="check the arguments, --arch and --arch-arg; do not trust a file that says them",
            )


def _values(size: Any) -> int:
    """How many values a tensor of this size has, given as numbers or as one list of them."""
    shape = size[0] if len(size) == 1 and isinstance(size[0], list | tuple) else size
    return math.prod(length for length in shape if isinstance(length, int))


def build_on_meta(make: Callable[[], nn.Module], limits: Limits | None = None) -> nn.Module:
    """Call ``make`` with parameters on meta; where its constructor needs their values, build it and drop them.

    Raises:
        TooLargeError: it makes more than ``limits`` allow.
    """
    for on_meta, holding in ((True, nullcontext), (False, parameters_on_meta)):
        try:
            with holding(), _Factories(limits, on_meta):
                return make().to("meta") if not on_meta else make()
        except TooLargeError:
            raise
        except Exception:  # noqa: BLE001 - whatever fails for want of values; a real mistake fails again below
            continue
    return build_limited(make, limits).to("meta")


def build_limited(make: Callable[[], nn.Module], limits: Limits | None) -> nn.Module:
    """Call ``make``, with memory for what it makes.

    Raises:
        TooLargeError: it makes more than ``limits`` allow.
    """
    with _Factories(limits, on_meta=False):
        return make()


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
