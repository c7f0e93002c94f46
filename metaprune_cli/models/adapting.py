"""Bringing a foreign state dict to the entries of the model that takes it: names, counters, types; never a value.

Everything that is done is said, in a line each.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from metaprune_cli.errors import InputError
from metaprune_cli.models.naming import branches, own_names, prefixes, renamed

COUNTER, MEAN = "num_batches_tracked", "running_mean"
_OF_OTHERS = ("total_ops", "total_params", "n_averaged")
"""What profilers (thop) and averages (torch.optim.swa_utils) leave among a model's buffers."""
_LISTED = 10


class Adapted:
    """One file's state dict on its way into a model; ``notes`` say what was done, ``problem`` what is wrong."""

    def __init__(self, architecture: str, where: Path) -> None:
        self.architecture, self.where = architecture, where
        self.notes: list[str] = []

    def __call__(self, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict as ``own`` has it, as far as that is no guess.

        Args:
            own: the model's entries, on any device.
            state: the file's.

        Raises:
            InputError: there are values that are no numbers, or several models in one.
        """
        self.notes.clear()
        named = self._named(own, state)
        kept = {name: tensor for name, tensor in named.items() if name in own or not is_of_others(name)}
        self._say_left_out(named.keys() - kept.keys())
        self._say_counters(name for name in missing_counters(kept) if name in own)
        complete = with_counters(kept, own)
        cast = {name: _as(tensor, own.get(name)) for name, tensor in complete.items()}
        self._say_cast(complete, cast)
        self._say_shapes(own, cast)
        check_numbers({name: (cast[name], isinstance(own.get(name), nn.Parameter)) for name in cast}, self.where)
        return cast

    def _named(self, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Under the model's names: wrappers' prefixes off (or on), the field's names for ours."""
        wanted = {name for name in own if not name.endswith(COUNTER)}
        here = renamed(state, own_names(self.architecture, state))
        if wanted & here.keys():
            return here
        relevant = [name for name in state if not is_of_others(name)]
        for prefix in prefixes(relevant)[1:]:
            bare = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
            bare = renamed(bare, own_names(self.architecture, bare))
            if wanted & bare.keys():
                self.notes.append(f"removed the prefix {prefix} from all names")
                return bare
        for prefix in prefixes(own)[1:]:
            longer = {prefix + name: tensor for name, tensor in state.items()}
            if wanted <= longer.keys():
                self.notes.append(f"put the prefix {prefix} before all names")
                return longer
        return self._branch(wanted, state) or here

    def _branch(self, wanted: set[str], state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The part of a larger model that is this one: ``backbone.`` beside a head, ``student.`` beside a teacher."""
        found = {}
        for prefix in branches(state):
            below = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            below = renamed(below, own_names(self.architecture, below))
            if wanted <= below.keys():
                found[prefix] = below
        if len(found) > 1:
            raise InputError(
                "The state dict contains several models; choose one.",
                expected="one of them",
                got=", ".join(f"names that begin with {prefix}" for prefix in found),
                where=self.where,
                next_step=f"--key {next(iter(found)).removesuffix('.')}",
            )
        for prefix, below in found.items():
            self.notes.append(f"using the {len(below)} of {len(state)} entries that begin with {prefix}")
            return below
        return None

    def _say_left_out(self, names: Iterable[str]) -> None:
        if listed := sorted(names):
            self.notes.append(f"left out {_listing(listed)}, which are not part of a model")

    def _say_counters(self, names: Iterable[str]) -> None:
        if count := len(list(names)):
            self.notes.append(f"set {count} missing {COUNTER} to 0")

    def _say_cast(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        changed = [(before[name].dtype, after[name].dtype) for name in after if before[name].dtype != after[name].dtype]
        for old, new in sorted(set(changed), key=str):
            names = (str(dtype).removeprefix("torch.") for dtype in (old, new))
            count = changed.count((old, new))
            entries = "entry" if count == 1 else "entries"
            self.notes.append(f"cast {count} {entries} from {' to '.join(names)}")

    def _say_shapes(self, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
        differing = [name for name in state if name in own and state[name].shape != own[name].shape]
        if differing:
            shown = [f"{name} {list(state[name].shape)} for {list(own[name].shape)}" for name in differing]
            self.notes.append(f"kept the file's shapes of {_listing(shown, 3)}")


def is_of_others(name: str) -> bool:
    """Whether an entry is a tool's, not a model's."""
    return name.rpartition(".")[2] in _OF_OTHERS


def missing_counters(state: Iterable[str]) -> list[str]:
    """The counters that files from before PyTorch 0.4.1 do not have, by their norms' running means."""
    names = set(state)
    counters = (name.removesuffix(MEAN) + COUNTER for name in names if name.rpartition(".")[2] == MEAN)
    return sorted(counter for counter in counters if counter not in names)


def with_counters(state: Mapping[str, Tensor], own: Iterable[str]) -> dict[str, Tensor]:
    """The state dict with the counters that it lacks and ``own`` has; as PyTorch fills them, with 0."""
    wanted = set(own)
    missing = {name for name in missing_counters(state) if name in wanted}
    complete: dict[str, Tensor] = {}
    for name, tensor in state.items():
        complete[name] = tensor
        counter = name.removesuffix("running_var") + COUNTER
        if name.endswith("running_var") and counter in missing:  # where a norm has it: after its statistics
            complete[counter] = torch.tensor(0, dtype=torch.long)
    return complete | {name: torch.tensor(0, dtype=torch.long) for name in missing if name not in complete}


def check_numbers(entries: Mapping[str, tuple[Tensor, bool]], where: Path) -> None:
    """Refuse values that are no numbers; of a parameter, infinite ones too (a buffer may be a mask).

    Args:
        entries: each with whether it is a parameter.
        where: the file they are from.

    Raises:
        InputError: naming every entry that has some.
    """
    wrong = []
    for name, (tensor, is_parameter) in entries.items():
        if tensor.is_meta or not (tensor.is_floating_point() or tensor.is_complex()):
            continue
        values = _values(tensor)
        if values.numel() and not _is_sound(values, is_parameter):
            bad = ~values.isfinite() if is_parameter else values.isnan()
            wrong.append(f"{name}: {int(bad.sum())} of {tensor.numel()}")
    if wrong:
        raise InputError(
            "The file contains values that are not finite (NaN or infinity).",
            expected="finite numbers",
            got="\n".join([*wrong[:_LISTED], *(["..."] if len(wrong) > _LISTED else [])]),
            where=where,
            next_step="use the file of an earlier epoch; the training that produced this one diverged",
        )


def _values(tensor: Tensor) -> Tensor:
    """The numbers in a tensor, of a type that can be compared: complex ones in pairs, those of eight bits as single."""
    if tensor.is_complex():
        return torch.view_as_real(tensor.resolve_conj())
    return tensor.float() if tensor.element_size() == 1 else tensor


def _is_sound(values: Tensor, is_parameter: bool) -> bool:
    """Whether all values are numbers (of a parameter: finite ones); without a copy, which ``isfinite`` makes."""
    lowest, highest = values.aminmax()
    return not bool(lowest.isnan()) and not (is_parameter and bool(lowest.isinf() | highest.isinf()))


def _as(tensor: Tensor, own: Tensor | None) -> Tensor:
    """In the type that the model has: what it computes in, and whole numbers that were cast with all the others."""
    if own is None or own.is_complex() or not tensor.is_floating_point():
        return tensor
    cast = tensor.to(own.dtype)
    if own.is_floating_point() or (not tensor.is_meta and torch.equal(cast.to(tensor.dtype), tensor)):
        return cast
    return tensor


def _listing(names: list[str], most: int = _LISTED) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
