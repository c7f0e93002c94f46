"""One step of meta-training: one pass through the metanetwork, against the published schedule.

    python benchmarks/meta_step.py [--arch cifar:resnet56] [--batches 20] [--batch-size 100] [--layers 8] [--hidden 64]
                                   [--precision bfloat16]

``published`` is the schedule of arXiv 2506.12041's code: for each batch the model goes through the metanetwork, as a
list of edges, and the loss goes back through both. ``ours`` is a step of ``metaprune meta-train``: the model goes
through the metanetwork once, the gradients of all batches are summed up on the rewritten weights and go back once. Same
model (random weights), same images (random), same sum of cross-entropies; ``--precision`` is that of our passes of the
images. Printed: seconds of each, the ratio, and the largest relative difference of the metanetwork's gradients, over
its parameters; then how long the images' multiply-adds alone take, forward and backward, at the rate of this machine's
own matrix product in that precision, and the ratio that this leaves to a metanetwork that takes no time at all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import measuring
import torch
from torch import Tensor
from torch.nn import functional as F

import metaprune_cli as metaprune
from metaprune_cli.config import Precision
from metaprune_cli.graph import NeuronGraph
from metaprune_cli.methods.metanet import MetaNetwork, MetaNetworkConfig
from metaprune_cli.methods.metanet.learning.meta import summed_gradients
from metaprune_cli.methods.metanet.learning.zoo import Member, Weights, ZooEntry
from metaprune_cli.models import Architecture, build
from metaprune_cli.training.precision import in_precision

Batch = tuple[Tensor, Tensor]


def published(network: MetaNetwork, member: Member, batches: list[Batch]) -> None:
    """Once through the metanetwork and back for each batch."""
    for images, labels in batches:
        written = member.rewritten(network(member.graph, backend="edges"))
        F.cross_entropy(member.output(written, images), labels).backward()


def ours(network: MetaNetwork, member: Member, batches: list[Batch], precision: Precision = "float32") -> None:
    """Once for all of them."""

    def losses(weights: Weights) -> Iterator[Tensor]:
        for images, labels in batches:
            with in_precision(precision, images.device):
                logits = member.output(weights, images).float()
            yield F.cross_entropy(logits, labels)

    written = member.rewritten(network(member.graph))
    summed_gradients(written, losses)


def main() -> None:
    """Parse, time both, compare their gradients."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="cifar:resnet56")
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    given = parser.parse_args()

    torch.manual_seed(0)
    model = build(Architecture(given.arch, {}, None)).eval()
    graph: NeuronGraph = metaprune.encode(model, torch.zeros(1, 3, 32, 32))
    entry, cpu = ZooEntry("model", model, graph), torch.device("cpu")
    as_published, member = Member.of(entry, cpu), Member.of(entry, cpu, torch.zeros(1, 3, 32, 32))
    network = MetaNetwork(MetaNetworkConfig(layers=given.layers, hidden=given.hidden))
    draw = torch.Generator().manual_seed(1)
    batches = [
        (
            torch.randn(given.batch_size, 3, 32, 32, generator=draw),
            torch.randint(10, (given.batch_size,), generator=draw),
        )
        for _ in range(given.batches)
    ]
    seconds, gradients = {}, {}
    ours(network, member, batches[:1], given.precision)  # what comes once: compilation
    for schedule in (ours, published):
        network.zero_grad()
        start = time.perf_counter()
        if schedule is ours:
            ours(network, member, batches, given.precision)
        else:
            published(network, as_published, batches)
        seconds[schedule.__name__] = time.perf_counter() - start
        gradients[schedule.__name__] = [p.grad.clone() for p in network.parameters() if p.grad is not None]
    pairs = zip(gradients["ours"], gradients["published"], strict=True)
    difference = max(float((one - other).norm() / other.norm()) for one, other in pairs)
    print(f"published  {seconds['published']:8.2f} s")
    print(f"ours       {seconds['ours']:8.2f} s")
    print(f"ratio      {seconds['published'] / seconds['ours']:8.1f}")
    print(f"gradients differ by {difference:.1e}")
    floor = 3 * graph.macs * given.batches * given.batch_size / measuring.rate(given.precision)
    print(f"floor      {floor:8.2f} s, ratio {seconds['published'] / floor:.1f}")


if __name__ == "__main__":
    main()
