"""The metanetwork: codec, layers, the two backends, and the transform of a model."""

from metaprune_cli.metanet.network import MetaNetwork, MetaNetworkConfig
from metaprune_cli.metanet.transform import transform

__all__ = ["MetaNetwork", "MetaNetworkConfig", "transform"]
