"""What a bug report needs to know of this machine. Nothing in here may fail: what cannot be found out is None."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any, TypeVar

import metaprune_cli
from metaprune_cli.methods.registry import methods

T = TypeVar("T")

PACKAGES = (
    *("torch", "torchvision", "torch-geometric", "numpy", "scipy", "scikit-learn", "safetensors", "dvc", "joblib"),
    *("matplotlib", "jaxtyping", "pydantic", "pyyaml", "jinja2", "typer", "rich", "scikit-image"),
)
VARIABLES = ("CXX", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "XDG_CACHE_HOME")
"""What is reported beside every variable whose name begins with ``PREFIX``."""
PREFIX = "METAPRUNE_"
ASKED_OF_TORCH = ("os", "libc_version", "nvidia_driver_version", "cudnn_version")
"""What ``torch.utils.collect_env`` is asked for; the rest of its report is slow (a second), or said here already."""
GIB = 2**30
COMPILING_S = 300
SCRIPT_S = 10
ANY = "backslashreplace"  # what others print may be in any encoding


@dataclass(frozen=True)
class Gpu:
    """One GPU that PyTorch can use."""

    name: str
    memory_gib: float
    capability: str


@dataclass(frozen=True)
class Environment:
    """Everything found out; None is what could not be.

    Attributes:
        metaprune: its version, ``commit`` that of a checkout, with ``-dirty`` where files differ from it.
        python: its version, and ``executable`` its file.
        system: the operating system.
        processor: the CPU's model, with all its ``cores``, those this process may use and its memory.
        threads: of PyTorch; None where it cannot be imported.
        packages: versions; None where a package is not there.
        cuda: what PyTorch was built for, a number or "rocm" with one; ``gpus`` what it sees of them.
        pytorch: what PyTorch's own report says of the system, its libraries and drivers, by its names.
        compiler: the C++ compiler for the methods' compiled code, and ``engine`` whether that works.
        variables: environment variables that change what metaprune does.
    """

    metaprune: str
    commit: str | None
    python: str
    executable: str
    system: str
    processor: str | None
    cores: int | None
    usable_cores: int | None
    memory_gib: float | None
    threads: int | None
    packages: Mapping[str, str | None]
    cuda: str | None
    gpus: tuple[Gpu, ...]
    pytorch: Mapping[str, str | None]
    compiler: str | None
    engine: str
    variables: Mapping[str, str]

    def to_document(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)


def env() -> Environment:
    """Look around; compiles the methods' engines where that has not been done yet."""
    return Environment(
        metaprune=metaprune_cli.__version__,
        commit=_if_possible(_commit),
        python=f"{platform.python_version()} ({platform.python_implementation()})",
        executable=sys.executable,
        system=platform.platform(),
        processor=_if_possible(_processor),
        cores=os.cpu_count(),
        usable_cores=_if_possible(lambda: len(os.sched_getaffinity(0))),
        memory_gib=_if_possible(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB),
        threads=_if_possible(_threads),
        packages={name: _if_possible(lambda name=name: version(name)) for name in PACKAGES},  # type: ignore[misc]
        cuda=_if_possible(_cuda),
        gpus=_if_possible(_gpus) or (),
        pytorch={name: _if_possible(lambda name=name: _asked_of_torch(name)) for name in ASKED_OF_TORCH},  # type: ignore[misc]
        compiler=_if_possible(_compiler),
        engine=_engine(),
        variables={
            name: value for name, value in sorted(os.environ.items()) if name in VARIABLES or name.startswith(PREFIX)
        },
    )


def _if_possible(look: Callable[[], T]) -> T | None:
    try:
        return look()
    except Exception:  # noqa: BLE001 - a report of what is broken here may not break
        return None


def _commit() -> str | None:
    """Of the checkout that this package lies in; a repository that only contains an environment is not ours."""
    root = Path(metaprune_cli.__file__).resolve().parents[1]
    if Path(_git(root, "rev-parse", "--show-toplevel")) != root:
        return None
    return _git(root, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ("git", "-C", str(root), *arguments), capture_output=True, text=True, errors=ANY, check=True, timeout=SCRIPT_S
    )
    return done.stdout.strip()


def _processor() -> str | None:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(errors="replace").splitlines() if cpu.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, None) or platform.processor() or platform.machine() or None


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _cuda() -> str | None:
    import torch

    rocm = getattr(torch.version, "hip", None)
    return f"rocm {rocm}" if rocm else torch.version.cuda


def _gpus() -> tuple[Gpu, ...]:
    import torch

    found = (torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count()))
    return tuple(Gpu(gpu.name, gpu.total_memory / GIB, f"{gpu.major}.{gpu.minor}") for gpu in found)


def _asked_of_torch(name: str) -> str | None:
    from torch.utils import collect_env

    look = getattr(collect_env, f"get_{name}")
    found: str | None = look(collect_env.run) if signature(look).parameters else look()
    return found


def _compiler() -> str | None:
    """The command, and the first line of what it says of its version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the engine's line says it
        found = (import_module(module).describe_compiler() for module in _selfchecks().values())
        return next(filter(None, found), None)


def _selfchecks() -> dict[str, str]:
    """The methods with compiled code → the module that knows whether it works."""
    return {method.name: method.selfcheck for method in methods() if method.selfcheck}


def _engine() -> str:
    """Whether the compiled code of every method works; of a single one without its name."""
    found = {name: _verdict(module) for name, module in _selfchecks().items()}
    named = [f"{name}: {verdict}" for name, verdict in found.items()]
    return "; ".join(named if len(named) > 1 else found.values())


def _verdict(module: str) -> str:
    """Asked in another process: what is wrong there may end it."""
    command = (sys.executable, "-m", module)
    root = str(Path(metaprune_cli.__file__).resolve().parents[1])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            errors=ANY,
            timeout=COMPILING_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"could not be tried: {error}"
    if done.returncode == 0:
        return done.stdout.strip()
    if done.returncode < 0:
        return f"stopped by {signal.Signals(-done.returncode).name}"
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return f"could not be tried: {lines[-1]}"
