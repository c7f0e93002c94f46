"""Which device the work runs on, and on how many of its cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from metaprune_cli.environment import whole_number
from metaprune_cli.errors import InputError

# MACs of one batch. Measured for training steps on two cores: below this a second thread saves a fifth at most, and
# makes a step 5 to 15 times slower while something else runs there; ten times above, it halves the time.
SMALL_BATCH = 200_000_000
# MACs of work that is done once, or once for each candidate of a search: one core does it in a second or two. Scoring
# and repairing a small network on a hundred patches was 7 to 30 times slower on two busy cores than on one.
SMALL_PASS = 20_000_000_000


def pick_device(name: str) -> torch.device:
    """The device of that name; ``auto`` is CUDA where there is any, else the CPU.

    Without a number, CUDA is its first device; of several processes on this machine, each takes the next one.

    Raises:
        InputError: the name is unknown, this machine has no such device, or several processes would share it.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if available else "cpu"
    kind, _, index = name.partition(":")
    if (
        kind not in ("cpu", "cuda")
        or (index and not (index.isascii() and index.isdecimal()))
        or (kind == "cpu" and index)
    ):
        raise InputError("Unknown device.", expected="auto, cpu, cuda or cuda:N", got=name, where="--device")
    if kind == "cpu":
        return torch.device("cpu")
    if index and whole_number("LOCAL_WORLD_SIZE", 1) > 1:
        raise InputError("Several processes cannot share one CUDA device.", expected="cuda", got=name, where="--device")
    number = int(index[:9]) if index else whole_number("LOCAL_RANK", 0)
    if number >= available:
        raise InputError(
            "This machine has no such device.",
            expected=f"one of {available} CUDA devices" if available else "cpu: no CUDA device is visible",
            got=f"cuda:{number}",
            where="--device",
            next_step="--device auto takes what is there; start no more processes than there are devices",
        )
    return torch.device("cuda", number)


@contextmanager
def threads_for(macs: int, small: int = SMALL_BATCH) -> Iterator[None]:
    """Run small work on one core: its parts would wait for each other longer than they compute.

    Args:
        macs: of the forward pass of one batch; with ``SMALL_PASS`` of all samples.
        small: below it one core does the work.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if macs < small else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
