"""The library of the engine in C++: compiled at first use, kept for later, and loaded only if it is what was compiled.

What is kept is one file, the digest of a library and the library. It is read once; what was read is checked and loaded
from memory, so nothing can change in between, and a file that is not whole is never run. A digest is no signature: that
nobody else can write the file follows from the folder (``private.py``).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from metaprune_cli.private import NotPrivateError, keep, private_folder, read

FLAGS = ("-std=gnu++17", "-O3", "-march=native", "-fPIC", "-shared", "-pthread", "-Wno-psabi")
FUNCTIONS = (
    *("summaries", "summaries_and_ties", "extremes", "summaries_backward"),
    *("receive", "receive_backward", "decode", "decode_backward"),
)
LIMIT_S = 240  # for all attempts of a compiler, less than `metaprune env` waits; ten seconds of a free core will do
ANSWER_S = 10


class CompilerError(Exception):
    """There is a compiler, and it makes no library."""


def compiler() -> list[str] | None:
    """The command of the C++ compiler (``$CXX``, else ``c++`` or ``g++``); None where there is none.

    ``$CXX`` is one program, spaces and quotes in its path and all, or else a command as a shell would read it.
    """
    named = os.environ.get("CXX", "").strip()
    try:
        command = [named] if shutil.which(named) else shlex.split(named)
    except ValueError as error:
        warnings.warn(f"CXX is not a command, so there is no C++ compiler: {error}: {named}", stacklevel=2)
        return None
    command = command or [shutil.which("c++") or shutil.which("g++") or ""]
    return command if shutil.which(command[0]) else None


def version(command: Sequence[str]) -> str:
    """What a compiler says of its version; empty where it says nothing in time."""
    try:
        return _run([*command, "--version"], ANSWER_S)[1]
    except (OSError, CompilerError):
        return ""


@cache
def library(real: str) -> ctypes.CDLL | None:
    """The library for numbers of type ``real``; None, with a warning where there is a compiler and it fails."""
    command = compiler()
    if command is None:
        return None
    source = Path(__file__).with_name("kernel.cpp")
    try:
        name = f"kernel-{real}-{_fingerprint(command, source)}"
        try:
            folder = private_folder()
            kept = _kept(folder / name)
        except (OSError, NotPrivateError) as error:
            folder, kept = None, None
            _say_not_kept(error)
        return kept or _made([*command, *FLAGS, f"-DREAL={real}"], source, name, folder)
    except (OSError, CompilerError) as error:
        warnings.warn(f"The metanetwork runs without its compiled engine, several times slower: {error}", stacklevel=2)
        return None


def _kept(path: Path) -> ctypes.CDLL | None:
    """The library in a file; None where there is none, or not a whole one, or another."""
    content = read(path)
    if content is None:
        return None
    digest, _, built = content.partition(b"\n")
    if digest != _digest(path.name, built):
        return None
    try:
        return _loaded(built)
    except (OSError, CompilerError):
        return None  # of another system than its name says


def _made(command: Sequence[str], source: Path, name: str, folder: Path | None) -> ctypes.CDLL:
    """Compile and load, and keep what could be loaded. Two processes may do this at the same time.

    Raises:
        CompilerError: the compiler fails, takes too long or makes something else.
        OSError: what it made cannot be loaded, or there is nowhere to write.
    """
    built = _compile(command, source)
    found = _loaded(built)
    if folder is not None:
        try:
            keep(folder / name, _digest(name, built) + b"\n" + built)
        except OSError as error:
            _say_not_kept(error)
    return found


def _compile(command: Sequence[str], source: Path) -> bytes:
    """The library's bytes. Without OpenMP if need be."""
    end = time.monotonic() + LIMIT_S
    with tempfile.TemporaryDirectory(prefix="metaprune-") as folder:  # 0700
        target = Path(folder) / "kernel.so"
        tried = [*command, "-o", str(target), str(source)]
        code, said = _run([*tried, "-fopenmp"], LIMIT_S)
        if code:
            code, said = _run(tried, max(end - time.monotonic(), 1))
        if code or not target.exists():
            raise CompilerError(said.strip() or f"{shlex.join(command)}: exit code {code}, and no library")
        return target.read_bytes()


def _loaded(built: bytes) -> ctypes.CDLL:
    """These very bytes as a library with all functions: from memory, or elsewhere than on Linux from a private copy."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("metaprune-kernel")  # stays open: the loader knows libraries by their paths
        with open(descriptor, "wb", closefd=False) as file:
            file.write(built)
        found = ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    else:
        with tempfile.TemporaryDirectory(prefix="metaprune-") as folder:
            copy = Path(folder) / "kernel.so"
            copy.write_bytes(built)
            found = ctypes.CDLL(str(copy))
    missing = [name for name in FUNCTIONS if not hasattr(found, name)]
    if missing:
        raise CompilerError(f"the library lacks {', '.join(missing)}")
    return found


def _run(command: Sequence[str], limit_s: float) -> tuple[int, str]:
    """Exit code and words of a command, which is ended with all it has started where it takes longer.

    Raises:
        CompilerError: it takes longer.
    """
    with tempfile.TemporaryFile() as said:  # not a pipe: what the command has started may hold that open for ever
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        ) as process:
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                raise CompilerError(f"{shlex.join(command[:1])} is not done after {limit_s:.0f} s") from None
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
        said.seek(0)
        return code, said.read().decode(errors="replace")


def _digest(name: str, built: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + built).hexdigest().encode()


def _say_not_kept(reason: Exception) -> None:
    warnings.warn(f"The metanetwork's engine is compiled anew in every process: {reason}", stacklevel=2)


def _fingerprint(command: Sequence[str], source: Path) -> str:
    """Of all that the library depends on: its source, the compiler, the flags, and what this processor can do."""
    digest = hashlib.sha256(source.read_bytes())
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(errors="replace").splitlines() if cpu.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    for text in (*command, version(command), *FLAGS, platform.machine(), platform.processor(), features):
        digest.update(text.encode(errors="surrogateescape") + b"\0")
    return digest.hexdigest()[:16]
