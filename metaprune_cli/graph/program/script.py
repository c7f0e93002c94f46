"""One mode of a program: what was recorded, and its steps ready to run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from metaprune_cli.graph.program.interpreter import Interpreter
from metaprune_cli.graph.trace.record import Recording

Mode = Literal["eval", "train"]
CONSTANTS = "_constants"
"""The submodule that holds what is neither parameter nor input; its buffers are not in the state dict."""


@dataclass(frozen=True, eq=False)
class Script:
    """One mode of a program, and its steps ready to run, which copies of the program share.

    Attributes:
        recording: the operators; labels and shapes may be missing.
        constants: number -> name of the program's constant.
        arguments: the model's arguments: name -> the nest that was given, tensors as values.
        batched: the dimension of the first input that is the batch and may have any size; None where sizes are fixed.
        paths: where the entries and constants are, module by module.
        interpreter: a function of the inputs, the entries and the constants, in this order.
    """

    recording: Recording
    constants: Mapping[int, str]
    arguments: Mapping[str, Any]
    batched: int | None
    paths: tuple[tuple[str, ...], ...] = field(init=False)
    interpreter: Interpreter = field(init=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Script:
        return self

    def __post_init__(self) -> None:
        """Prepare at once: ``torch.compile`` cannot follow what is made on first use."""
        interpreter = Interpreter(self.recording, tuple(self.constants), self.batched or 0)
        object.__setattr__(self, "interpreter", interpreter)
        names = [*self.recording.entries.values(), *(f"{CONSTANTS}.{name}" for name in self.constants.values())]
        object.__setattr__(self, "paths", tuple(tuple(name.split(".")) for name in names))
