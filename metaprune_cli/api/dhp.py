"""DHP for training loops of people's own: three lines, and the network is smaller at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from metaprune_cli.api.given import Rules, documents
from metaprune_cli.config import DhpSettings, PruneSettings, Route
from metaprune_cli.config_loader import parse, revised
from metaprune_cli.errors import InputError
from metaprune_cli.graph.encode import decode, encode
from metaprune_cli.graph.neuron_graph import NeuronGraph
from metaprune_cli.graph.resize import copied
from metaprune_cli.graph.trace.tracer import ExampleInputs
from metaprune_cli.methods.dhp.generated import Generated, Unchanging
from metaprune_cli.methods.dhp.shrinking import Shrinker
from metaprune_cli.metrics.calling import device_of, not_in_inference_mode, takes_model
from metaprune_cli.metrics.convolutions import guard_convolutions
from metaprune_cli.pruning.targets import Target
from metaprune_cli.workflows.calibration import Calibration
from metaprune_cli.workflows.planning import planned_by
from metaprune_cli.workflows.pruning import PruningRun


class DHP(nn.Module):
    """A network whose weights are made, in every forward pass, from one latent number z for every unit.

    The kernels of an edge between neurons i and o are

        K = z_o · z_i · P + Q        (``embedding=0``; P and Q have the shape of the weights)

    or the published form with an embedding of size m (Li et al., DHP, arXiv 2003.13683, section 3.2). Coupled channels,
    such as those that a residual addition joins, share one latent. It is trained as any module:

        d = mp.DHP(net, x, speedup=2, steps=len(loader) * epochs)
        optimizer = torch.optim.SGD(d.parameters(), lr=0.1)
        for images, labels in batches:
            optimizer.zero_grad()
            loss(d(images), labels).backward()
            optimizer.step()
            d.shrink_(lr=0.1)
        small = d.finish()

    Its state dict holds all that it remembers, so that checkpoints of one's own go on as if nothing had happened.
    """

    @takes_model
    def __init__(
        self,
        model: nn.Module,
        example_inputs: ExampleInputs,
        *,
        speedup: float = 2.0,
        steps: int = 1000,
        start: str = "trained",
        shrink: str = "scheduled",
        embedding: int = DhpSettings.embedding,
        settings: DhpSettings | None = None,
        max_ratio: float = 0.8,
        rules: Rules = (),
        keep_heads: bool = False,
        round_to: int = 1,
        route: Route = "auto",
        seed: int = 0,
        graph: NeuronGraph | None = None,
    ) -> None:
        """Put a network behind a generator of its weights.

        Args:
            model: the network; not changed.
            example_inputs: a tensor, or a tuple or dict of them, batch size 1.
            speedup: MACs before / MACs after, reached or exceeded by less than one unit.
            steps: how often ``shrink_`` will be called; the schedule goes over the first ``settings.share`` of them.
            start: ``trained``: computes at first what ``model`` does; ``scratch``: latents from N(0, 1).
            shrink: ``scheduled``, or ``threshold`` as published.
            embedding: size of the embedding, published: 8; 0: the compact form.
            settings: everything else (see ``DhpSettings``).
            max_ratio: the largest fraction of a family that may go.
            rules: what may happen to single layers.
            keep_heads: whether attention keeps all of its heads.
            round_to: where units of a family go, what stays is a multiple of this.
            route: as in ``prune``.
            seed: of what is drawn.
            graph: the model's, if it is known already.

        Raises:
            TargetError: the speed-up is out of reach, or nothing can be removed.
            InputError: a setting cannot be used, the model cannot be traced or run with generated weights, or a rule
                matches nothing.
        """
        super().__init__()
        guard_convolutions()
        said = {"start": start, "shrink": shrink, "embedding": embedding}
        used = revised(DhpSettings, settings, said, section="dhp", where="mp.DHP")
        if steps < 1:
            raise InputError(
                "There are no steps left in which to shrink.", expected="at least 1", got=steps, where="steps"
            )
        graph = graph or encode(model, example_inputs)
        own = copied(model).cpu()
        example = pytree.tree_map_only(Tensor, lambda tensor: tensor.cpu().clone(), example_inputs)
        asked = {
            "speedup": (speedup,),
            "max_ratio": max_ratio,
            "rules": documents(rules),
            "keep_heads": keep_heads,
            "round_to": round_to,
            "route": route,
        }
        pruning = parse(PruneSettings, asked, section="prune", where="mp.DHP")
        run = PruningRun(own, example, graph.with_tensors(own.state_dict()), pruning, Calibration.none(pruning))
        self.generated = Generated(own, graph, example, used, trained=used.start != "scratch", seed=seed)
        allowed = planned_by(run, self.generated.scores(), Target("macs", factor=speedup)).allowed
        shrinker = Shrinker(allowed.graph, allowed.limits, (float(speedup),), used, steps)
        self._known = Unchanging(_Known(replace(run, limits_given=allowed.limits), shrinker))
        self.to(device_of(model.state_dict())).train(model.training)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network returns with the weights as they are generated now."""
        return self.generated(*args, **kwargs)

    def shrink_(self, lr: float = 0.1) -> None:
        """What follows every step of the optimiser, in place: latents are pulled, and units go that the schedule drops.

        Args:
            lr: the step's learning rate, which the pull goes by: z ← sign(z) · max(|z| − strength · lr, 0).

        Raises:
            NumericsError: a latent is not finite.
        """
        self._known.value.shrinker(self.generated, lr)

    @property
    def done(self) -> bool:
        """Whether the speed-up is met, so that training may go on or stop."""
        return self._known.value.shrinker.is_met(self.generated)

    @property
    def speedup(self) -> float:
        """How far it came: MACs before / MACs now."""
        return self._known.value.shrinker.speedup_of(self.generated)

    @not_in_inference_mode
    def finish(self) -> nn.Module:
        """The smaller network, of ``model``'s class or as a program, checked, on the device and in the mode of this.

        Removed units count as zeros in training already, so with ``shrink="scheduled"`` it computes what this does,
        but where an operator mixes removed neurons with others (a LayerNorm over channels).

        Raises:
            TargetError: the speed-up is not met yet; says how far it came.
            NumericsError: the smaller network does not compute what it should.
        """
        known = self._known.value
        known.shrinker.check_met(self.generated)
        whole = decode(known.run.graph.with_tensors(self.generated.state()), known.run.model)
        run = replace(known.run, model=whole, graph=known.run.graph.with_tensors(whole.state_dict()))
        goal = Target("macs", factor=known.shrinker.speedups[0])
        small = planned_by(run, self.generated.scores(), goal, fill=False).carried_out().model
        return small.to(self.generated.latents.device).train(self.training)


@dataclass(frozen=True, eq=False)
class _Known:
    """The network before the training, and how it shrinks."""

    run: PruningRun
    shrinker: Shrinker
