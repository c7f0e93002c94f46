"""How settings are said on the command line: metadata of their annotations, next to their types and defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

WHAT_GOES, WHICH_LAYERS, ROUNDS = "How much to remove", "Which layers", "Rounds"
RANKING, SEARCH, REPAIR = "Ranking", "Search", "Repair"
TRAINING, TECHNIQUES = "Training", "Training techniques"
MODELS, MEASURING, CURVE = "Models", "Measuring", "Curve"
OUTPUT, MODEL_FILE, DATA, RUN = "Output", "Model file", "Data", "Run"
RESTORATION = "Super-resolution and denoising"
PANELS = (
    *(WHAT_GOES, WHICH_LAYERS, ROUNDS, RANKING, SEARCH, REPAIR, TRAINING, TECHNIQUES),
    *(MODELS, MEASURING, CURVE, MODEL_FILE, DATA, RESTORATION, OUTPUT, RUN),
)
"""The headings of a command's help, in their order."""


@dataclass(frozen=True)
class Flag:
    """The option of a setting; a setting without a flag is in params.yaml alone.

    Attributes:
        help: what it does, in a sentence; its default is added.
        panel: the heading it is listed under.
        metavar: what stands for its value.
        names: how it is called, where not as the setting is; ``--yes/--no`` for a choice of two.
        kind: what the command line reads, where not the setting's own type; settings are parsed in any case.
        default: in words, where the value does not say it.
        instead_of: settings of params.yaml that do not hold where this option is given and theirs are not.
    """

    help: str
    panel: str
    metavar: str | None = None
    names: tuple[str, ...] = ()
    kind: Any = None
    default: str | None = None
    instead_of: tuple[str, ...] = ()


SEED = Flag("Random seed.", RUN, "N")
