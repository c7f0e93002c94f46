"""The processes that ``torchrun`` started: what its environment says, how they find each other, how they end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from metaprune_cli.environment import whole_number
from metaprune_cli.errors import InputError, LostProcessError
from metaprune_cli.training.distributed import ALONE, Ranks, answered

STEP_TIMEOUT = timedelta(minutes=30)
"""For one step of training and for what may come before the first: reading images, compiling a kernel."""

RESULT_TIMEOUT = timedelta(days=7)
"""For another process's share of the models. One that is killed is noticed at once, whatever this is."""

REPORT_TIMEOUT = timedelta(seconds=10)


def world_size() -> int:
    """How many processes the environment says there are; 1 without ``torchrun``."""
    return whole_number("WORLD_SIZE", 1) if "RANK" in os.environ else 1


@contextmanager
def ranks_on(device: torch.device) -> Iterator[Ranks]:
    """All processes, found for the time of the block; without ``torchrun`` this one alone, and nothing is set up.

    Args:
        device: that this process works on.

    Raises:
        LostProcessError: another process has ended or does not answer, or this one is told to stop.
    """
    if world_size() == 1:
        yield ALONE
        return
    before = signal.signal(signal.SIGTERM, _told_to_stop)
    try:
        ranks = _joined(device)
        yield ranks
        ranks.gather(None)  # whoever leaves earlier cuts the others off
    except BaseException:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends anyhow; one message is enough
        raise
    signal.signal(signal.SIGTERM, before)
    dist.destroy_process_group()


def first_to_fail() -> bool:
    """Whether no other process has asked this before: who fails first knows why, the others fail because of it."""
    try:
        _check_environment()
        store, _, _ = _store(REPORT_TIMEOUT)
        return bool(store.add("failed", 1) == 1)
    except (RuntimeError, ValueError, InputError):  # who keeps count is gone, or cannot be found
        return True


def _joined(device: torch.device) -> Ranks:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _check_environment()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    with answered():
        store, rank, world = _store(STEP_TIMEOUT)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=STEP_TIMEOUT)
        days = dist.new_group(backend="gloo", timeout=RESULT_TIMEOUT)
    return Ranks(rank, world, days)


def _check_environment() -> None:
    """Refuse what ``torchrun`` does not set, before anybody is waited for.

    Raises:
        InputError: a variable is missing or no number, or this process is one too many.
    """
    rank, world = whole_number("RANK", 0), world_size()
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if rank >= world or missing or not 0 < whole_number("MASTER_PORT", 0) < 2**16:
        raise InputError(
            "The environment is not that of a process of several.",
            expected="RANK below WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as torchrun sets them",
            got=f"rank {rank} of {world}" + "".join(f", no {name}" for name in missing),
            next_step="start it with torchrun, or unset RANK for a run of one process",
        )


def _store(timeout: timedelta) -> tuple[dist.Store, int, int]:
    """Where all processes can leave notes, this one's rank, and how many there are.

    ``torchrun --max-restarts`` keeps the store: the addresses of an attempt that failed must not be found in the next.
    """
    store, rank, world = next(rendezvous("env://", timeout=timeout))
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"metaprune/{attempt}", store), rank, world


def _told_to_stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what a handler is given
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise LostProcessError(
        "This run was told to stop, as it is when one of its processes has ended.",
        next_step="look for that process's own message; then run it again with --resume, it goes on where it was",
    )
