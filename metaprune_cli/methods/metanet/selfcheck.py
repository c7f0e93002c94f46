"""Whether the compiled engine works here: compiled, loaded, and compared with the one in PyTorch on a small example."""

from __future__ import annotations

import shlex
import warnings

import torch

from metaprune_cli.methods.metanet import compiled, kernel, tiles

NEURONS, HIDDEN = 33, 5  # neither a multiple of a vector nor of a thread's share
TOLERANCE = 1e-5


def verdict() -> str:
    """One line: it works, or what is in its way. Compiles the engine where that has not been done yet."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = compiled.compiler() is not None
        found = there and kernel.available(torch.zeros(1), layers=1)
    reasons = [str(warning.message) for warning in said]
    if not there:
        return "; ".join(["no C++ compiler: PyTorch does its work, slower", *reasons])
    if not found:
        return "cannot be compiled: " + " ".join(reasons or ["no reason given"])
    difference = _difference()
    how = "works" if difference < TOLERANCE else "wrong"
    return "; ".join([f"{how}: differs from PyTorch by {difference:.1e}", *reasons])


def describe_compiler() -> str | None:
    """The command, and the first line of what it says of its version; None where there is no compiler."""
    command = compiled.compiler()
    return None if command is None else f"{shlex.join(command)}: {compiled.version(command).partition(chr(10))[0]}"


def _difference() -> float:
    """The largest one between what the two engines say of the same messages."""
    generator = torch.Generator().manual_seed(0)
    gate = torch.randn(NEURONS, HIDDEN, generator=generator)
    heard = torch.randn(2, 4, NEURONS, HIDDEN, generator=generator)
    roots = torch.rand(2, NEURONS, HIDDEN, generator=generator) + 1
    ours, theirs = (engine.receive(gate, heard, roots) for engine in (kernel, tiles))
    return float((ours - theirs).abs().max())


if __name__ == "__main__":
    print(verdict())  # noqa: T201 - how `metaprune env` asks, in a process that may die of it
