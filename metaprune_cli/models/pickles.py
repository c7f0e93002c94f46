"""Opening what torch.save wrote: tensors alone, or, where the file is trusted, whole modules."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from metaprune_cli.errors import CorruptFileError, InputError
from metaprune_cli.models.importing import import_object, working_directory_on_path
from metaprune_cli.models.numpy_scalars import STAND_INS

_INERT = (argparse.Namespace,)
"""Classes that training scripts save their settings in, whose making runs no code."""


def open_pickle(path: Path, trust_pickle: bool, home: str | None = None) -> object:
    """What torch.save wrote, every storage read to its own place.

    Not mapped: a file that is cut while it is mapped kills the process, and one that changes changes the model.

    Args:
        path: the file.
        trust_pickle: whether code may run; modules beside the working directory are found too.
        home: the module that has what the file calls ``__main__``; None: there is none.

    Raises:
        InputError: a trusted file is of code that is not here.
        CorruptFileError: the file is damaged, or holds more than tensors and is not trusted.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files: said once more, and better, by what follows
            if trust_pickle:
                return _trusted(path, home)
            with torch.serialization.safe_globals([*_INERT, *STAND_INS]):
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CorruptFileError(
            "The file contains Python objects other than tensors, and loading them can run arbitrary "
            "code; or it is damaged.",
            expected="a state dict, as torch.save(model.state_dict(), path) writes it",
            got=_unsafe_part(str(error)),
            where=path,
            next_step="save the state dict instead; or use --trust-pickle, if you trust whoever made the file",
        ) from error
    except InputError:
        raise
    except Exception as error:
        if trust_pickle and isinstance(error, ImportError | AttributeError):
            raise _without_code(error, path) from error
        raise CorruptFileError(
            "The file is damaged, or it was not written by torch.save.",
            got=str(error).partition(". ")[0] or type(error).__name__,
            where=path,
            next_step="copy or create the file again",
        ) from error


def _trusted(path: Path, home: str | None) -> object:
    """A pickle whose classes are looked for as Python does, those of ``__main__`` in the module ``home``."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module == "__main__" and home is not None:
                return import_object(f"{home}:{name}", "class", where="--arch")
            return super().find_class(module, name)

    def load(file: Any, **how: Any) -> object:
        return Unpickler(file, **how).load()

    own = SimpleNamespace(Unpickler=Unpickler, load=load, __name__="pickle")
    with working_directory_on_path():
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=own)


def _without_code(error: Exception, path: Path) -> InputError:
    of_script = "__main__" in str(error)
    return InputError(
        "The file contains a pickled module whose code cannot be found.",
        expected="the classes it names, importable from the working directory",
        got=f"{type(error).__name__}: {error}",
        where=path,
        next_step="it was saved by a script that had the class in itself: --arch SCRIPT:FACTORY says where that is"
        if of_script
        else "run this in the folder that has that module, or install its package",
    )


def _unsafe_part(message: str) -> str:
    """What torch would not unpickle, out of its long explanation."""
    found = re.search(r"GLOBAL (\S+)", message)
    return f"an object of {found.group(1)}" if found else "something that is not a tensor"
