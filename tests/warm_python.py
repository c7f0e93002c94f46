"""A Python that has imported torch already: every call is a fork of one process, instead of seconds of imports.

``WarmPython`` lays commands ``python``, ``metaprune`` and ``torchrun`` into a folder for the PATH of a shell. Each
hands its arguments, folder, environment and open files over to the one process, whose fork does what
``python ARGUMENTS`` would: ``-m`` and a module, or a script.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

ADDRESS = "WARM_PYTHON"
STAGES = ("bench", "decode", "encode", "eval", "export", "finetune", "inspect", "prune", "sparsify", "transform", "zoo")
PRELOADED = (
    *(f"metaprune_cli.stages.{name}" for name in STAGES),
    *("metaprune_cli.cli", "matplotlib.figure", "onnxscript", "sklearn.datasets", "torch._dynamo", "torch.onnx"),
    *("torch.distributed.run", "torch_geometric.nn"),
)
COMMANDS = {"python": "", "metaprune": "-m metaprune_cli", "torchrun": "-m torch.distributed.run"}


class WarmPython:
    """The process, and its commands in ``folder``; a context manager."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="warm"))  # short: the name of a socket has 107 characters at most
        for name, arguments in COMMANDS.items():
            script = f'#!/bin/sh\nexec {sys.executable} -S -E {__file__} {arguments} "$@"\n'
            (self.folder / name).write_text(script)
            (self.folder / name).chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with the commands in front; what ``torchrun`` starts is warm as well."""
        ours = {"PATH": f"{self.folder}:{os.environ['PATH']}", "PYTHON_EXEC": str(self.folder / "python")}
        return {**os.environ, **ours, ADDRESS: str(self.folder / "socket"), "OMP_NUM_THREADS": "1"}

    def __enter__(self) -> WarmPython:
        command = (sys.executable, __file__, "serve")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=self.environment, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()  # closes its stdin, at which it ends
        shutil.rmtree(self.folder)


def serve() -> None:
    """Answer calls, each in a fork, until stdin is closed: by whoever started this, or by its end."""
    import importlib

    for name in PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy all of this
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.environ[ADDRESS])
        listening.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while sys.stdin not in select.select([listening, sys.stdin], [], [])[0]:
            connection, _ = listening.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                answer(connection)
            connection.close()


def answer(connection: socket.socket) -> None:
    """Do what one call asks for, tell it the exit code, and end this process."""
    size, files, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as stream:
        call = json.loads(stream.read(int.from_bytes(size, "big")))
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    code = python(call["arguments"])
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code]))
    os._exit(0)


def python(arguments: list[str]) -> int:
    """What ``python ARGUMENTS`` does, for a module or a script; the exit code."""
    given = [argument for argument in arguments if argument != "-u"]
    module, sys.argv = (given[1], given[1:]) if given[0] == "-m" else (None, given)
    sys.path.insert(0, str(Path.cwd()))
    try:
        if module:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(given[0], run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        return 1
    return 0


def call(arguments: list[str]) -> int:
    """Have the process do it, with this process's files."""
    message: dict[str, Any] = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    data = json.dumps(message).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[ADDRESS])
        socket.send_fds(connection, [len(data).to_bytes(4, "big")], [0, 1, 2])
        connection.sendall(data)
        code = connection.recv(1)
    return code[0] if code else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        sys.exit(call(sys.argv[1:]))
