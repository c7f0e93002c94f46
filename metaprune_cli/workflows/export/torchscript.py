"""TorchScript, from the captured graph: deprecated in PyTorch, still what some runtimes load."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from metaprune_cli.workflows.export.capture import quietly


def save(graph: ExportedProgram, path: Path, notes: Mapping[str, str]) -> None:
    """Write the graph as TorchScript; it takes the input tensors one by one and returns a tuple.

    The graph is compiled, not traced: in a trace, a program's batch size would be a constant.

    Args:
        graph: the captured model.
        path: the file.
        notes: texts to keep in it, by name.
    """
    data = io.BytesIO()  # given a path, PyTorch writes its name into the file
    with quietly():  # torch.jit is deprecated, and whoever asks for this format knows: the help says so
        torch.jit.save(torch.jit.script(_scriptable(graph)), data, _extra_files=dict(notes))
    path.write_bytes(data.getbuffer())


def load(path: Path) -> Any:
    """The module in such a file."""
    with quietly():
        return torch.jit.load(path)


def _scriptable(graph: ExportedProgram) -> fx.GraphModule:
    """The graph with operators and sizes in the form that the compiler of TorchScript knows."""
    module = graph.module()
    assert isinstance(module, fx.GraphModule)
    nodes = module.graph
    for node in list(nodes.nodes):
        if node.op == "call_module":  # the guards on input shapes; they return nothing
            nodes.erase_node(node)
        elif node.target is torch.ops.aten.sym_size.int:
            with nodes.inserting_before(node):
                node.replace_all_uses_with(nodes.call_method("size", node.args))
            nodes.erase_node(node)
        elif isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket
    nodes.set_codegen(fx.graph.CodeGen())  # plain arguments and results, in place of pytrees
    return fx.GraphModule(module, nodes)
