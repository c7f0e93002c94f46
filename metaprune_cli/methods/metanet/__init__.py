"""The metanetwork: codec, layers, the two backends, and the transform of a model."""

from metaprune_cli.methods.metanet.network import MetaNetwork, MetaNetworkConfig, Written
from metaprune_cli.methods.metanet.transform import opened, rewritten, transform

__all__ = ["MetaNetwork", "MetaNetworkConfig", "Written", "opened", "rewritten", "transform"]
