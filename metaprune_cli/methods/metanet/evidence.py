"""What images have shown of units as numbers that a metanetwork can read: two for each kind of evidence.

With r_u > 0 what is known of unit u, and its family's geometric mean m_f, both in logarithms,

    log r_u − m_f,        m_f − mean over families of m,

so that neither the loss's scale nor the network's size matters; of shares, which have a scale, the second is m_f
itself. Where nothing is known of a unit or of its family, and for units that cannot go, both are zero.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metaprune_cli.graph.neuron_graph import NeuronGraph

COLUMNS = 2
SHARES = frozenset({"off", "unexplained"})
"""Between zero and one."""
WITHIN, ACROSS = 4.0, 6.0
"""Neither number is larger, whatever was measured."""


def columns_of(graph: NeuronGraph, names: tuple[str, ...]) -> Float[Tensor, "neurons columns"]:
    """The numbers of every neuron, which are its unit's."""
    units = graph.units
    owner, count = units.family_of, len(units.families)
    movable = torch.zeros(count).index_add(0, owner, units.prunable.float()) > 0
    columns: list[Tensor] = []
    for name in names:
        values = graph.evidence[name].cpu().abs()
        known = (values > 0) & movable[owner]
        logs = torch.where(known, values, 1.0).log()
        seen = torch.zeros(count).index_add(0, owner, known.float())
        means = torch.zeros(count).index_add(0, owner, torch.where(known, logs, 0.0)) / seen.clamp_min(1)
        centre = means[seen > 0].mean() if name not in SHARES and seen.any() else 0.0
        columns.append((logs - means[owner]).clamp(-WITHIN, WITHIN) * known)
        columns.append(((means - centre).clamp(-ACROSS, ACROSS) * (seen > 0))[owner])
    return torch.stack(columns, 1)[units.unit_of]
