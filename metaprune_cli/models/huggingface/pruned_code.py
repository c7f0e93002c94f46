"""The code beside a pruned model whose layers have widths of their own: it needs ``transformers`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MODULE, TABLE = "modeling_pruned", "pruned"
"""The file, and the entry of the configuration that it reads."""

_TEMPLATE = '''"""{base} after pruning: its layers have widths of their own, which config.json lists under "{table}"."""

import torch
from transformers import {base}


class Pruned{base}({base}):
    """Built by the class's own code, then given the shapes and attributes of the table."""

    def __init__(self, config, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        _resize(self, config.{table}["shapes"])
        for path, values in config.{table}["attributes"].items():
            for name, value in values.items():
                setattr(self.get_submodule(path), name, tuple(value) if isinstance(value, list) else value)


def _resize(model, shapes):
    """Give parameters and buffers other shapes; what was one parameter under several names stays one."""
    made = {{}}
    for name, shape in shapes.items():
        path, _, leaf = name.rpartition(".")
        owner = model.get_submodule(path)
        old = getattr(owner, leaf)
        if id(old) not in made:
            new = torch.zeros(shape, dtype=old.dtype, device=old.device)
            made[id(old)] = old, torch.nn.Parameter(new, old.requires_grad) if leaf in owner._parameters else new
        setattr(owner, leaf, made[id(old)][1])
'''


def code_for(base: str) -> str:
    """The source of ``modeling_pruned.py``: a class ``Pruned...`` of the one of this name."""
    return _TEMPLATE.format(base=base, table=TABLE)


def entries_for(
    base: str, autos: list[str], shapes: Mapping[str, tuple[int, ...]], attributes: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the configuration says besides: the class, which ``Auto`` classes it is for, and the table of widths."""
    return {
        "architectures": [f"Pruned{base}"],
        "auto_map": dict.fromkeys(autos, f"{MODULE}.Pruned{base}"),
        TABLE: {
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "attributes": {path: dict(values) for path, values in attributes.items()},
        },
    }
