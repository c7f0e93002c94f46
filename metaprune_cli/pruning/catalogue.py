"""The criteria in words: a row for each choice of ``config.Criterion``, and a test that none is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from metaprune_cli.config import Criterion

IMAGES = "training images (--dataset)"


@dataclass(frozen=True)
class Described:
    """What a criterion takes for a unit's importance, what it needs beside the model, and where it is from."""

    about: str
    needs: str = "nothing"
    source: str | None = None


CRITERIA: Mapping[Criterion, Described] = MappingProxyType(
    {
        "group-l1": Described(
            "mean of the sums of |w| over everything a unit owns, in and out", source="arXiv 2301.12900"
        ),
        "group-l2": Described(
            "mean of the sums of w² over everything a unit owns, in and out", source="arXiv 2301.12900"
        ),
        "bn-scale": Described(
            "mean magnitude of a unit's normalisation scales; group-l1 where it has none", source="arXiv 1708.06519"
        ),
        "fpgm": Described(
            "mean distance of a unit's incoming weights to those of its family: who is in the middle is told by the "
            "others",
            source="arXiv 1811.00250",
        ),
        "lamp": Described(
            "group-l2 over the sum of what is no smaller in the family", source="arXiv 2010.07611, for whole units"
        ),
        "taylor": Described(
            "|sum of gradient times weight| over what a unit owns: how much the loss would change",
            needs=IMAGES,
            source="arXiv 1906.10771",
        ),
        "obd-c": Described(
            "mean square of the sum of gradient times weight over small batches",
            needs=IMAGES,
            source="arXiv 1905.05934",
        ),
        "hessian": Described(
            "half the Hessian's diagonal times w² over what a unit owns, by random probes",
            needs=IMAGES,
            source="LeCun et al., Optimal Brain Damage, 1990",
        ),
        "activation": Described("mean magnitude of what a unit sends to those who read it", needs=IMAGES),
        "metanet": Described(
            "group-l2 times what a metanetwork's score head says of the unit",
            needs="a model from `metaprune transform`, by a metanetwork that has a score head (meta-train.criterion: "
            "metanet)",
        ),
        "random": Described("drawn by the seed: what any other criterion has to beat"),
    }
)
