"""One mode of a program: what was recorded, and its steps ready to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from metaprune_cli.graph.program.interpreter import Interpreter
from metaprune_cli.graph.trace.record import Recording

Mode = Literal["eval", "train"]
Place = tuple[int, int]
"""An input tensor, by its position, and one of its dimensions."""
CONSTANTS = "_constants"
"""The submodule that holds what is neither parameter nor input; its buffers are not in the state dict."""


@dataclass(frozen=True)
class Varying:
    """A size of the inputs that may be another than in the example.

    Attributes:
        places: the dimensions that are of this size.
        recorded: the sizes that the program was recorded at, its own first.
        step: it may be whatever lies so many, or several times as many, from those; None for the batch, which some
            inputs may have and some may not.
    """

    places: tuple[Place, ...]
    recorded: tuple[int, ...]
    step: int | None

    def allows(self, sizes: Sequence[Any]) -> bool:
        """Whether the places may have these sizes (which are symbols while ``torch.export`` looks on)."""
        if self.step is None:
            return True
        one = all(size == sizes[0] for size in sizes[1:])
        return one and (self.step == 1 or (sizes[0] - self.recorded[0]) % self.step == 0)


@dataclass(frozen=True, eq=False)
class Script:
    """One mode of a program, and its steps ready to run, which copies of the program share.

    Attributes:
        recording: the operators; labels and shapes may be missing.
        constants: number -> name of the program's constant.
        arguments: the model's arguments: name -> the nest that was given, tensors as values.
        varies: the sizes that may be others than the example's; None in older files, which do not say.
        otherwise: what runs where data answers the questions of the flow otherwise.
        answers: what data answers where this runs; nothing, where it is not asked.
        paths: where the entries and constants are, module by module.
        interpreter: a function of the inputs, the entries and the constants, in this order.
    """

    recording: Recording
    constants: Mapping[int, str]
    arguments: Mapping[str, Any]
    varies: tuple[Varying, ...] | None
    otherwise: tuple[Script, ...] = ()
    answers: tuple[bool, ...] = field(init=False)
    paths: tuple[tuple[str, ...], ...] = field(init=False)
    interpreter: Interpreter = field(init=False)

    @property
    def ways(self) -> tuple[Script, ...]:
        """This and what runs otherwise."""
        return (self, *self.otherwise)

    def __deepcopy__(self, memo: dict[int, Any]) -> Script:
        return self

    def __post_init__(self) -> None:
        """Prepare at once: ``torch.compile`` cannot follow what is made on first use."""
        interpreter = Interpreter(self.recording, tuple(self.constants))
        object.__setattr__(self, "interpreter", interpreter)
        answers = tuple(step.answer for step in self.recording.steps if step.answer is not None)
        object.__setattr__(self, "answers", answers)
        names = [*self.recording.entries.values(), *(f"{CONSTANTS}.{name}" for name in self.constants.values())]
        object.__setattr__(self, "paths", tuple(tuple(name.split(".")) for name in names))
