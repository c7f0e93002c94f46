"""Calling a function in processes such as ``torchrun`` starts, without importing torch for each call."""

from __future__ import annotations

import multiprocessing
import os
import socket
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any

import torch
import torch.distributed as dist

from metaprune_cli.workflows.ranks import ranks_on

WORLD = 2
IMPORTED = ["metaprune_cli.stages.zoo", "metaprune_cli.stages.finetune", "metaprune_cli.stages.meta_train", __name__]


def on_ranks(work: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``work(*args)`` returns in each of two processes with the environment of ``torchrun``, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    calls = [_processes().submit(_as_rank, rank, port, work, args) for rank in range(WORLD)]
    return [call.result(timeout=120) for call in calls]


def joined(work: Callable[..., Any], *args: Any) -> list[Any]:
    """The same with the ranks, which have found each other, as the first argument."""
    return on_ranks(_joined, work, args)


@cache
def _processes() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return ProcessPoolExecutor(WORLD, mp_context=context)


def _as_rank(rank: int, port: int, work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    if dist.is_initialized():  # a call that failed leaves it behind, as its process is to end
        dist.destroy_process_group()
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": WORLD, "LOCAL_WORLD_SIZE": WORLD}
    found = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in (ranks | found).items()}
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return work(*args)


def _joined(work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    with ranks_on(torch.device("cpu")) as ranks:
        return work(ranks, *args)
