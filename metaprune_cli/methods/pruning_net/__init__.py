"""PruningNet: one network that gives an architecture's weights for any widths (MetaPruning, arXiv 1903.10258)."""

from metaprune_cli.methods.pruning_net.network import PruningNet, PruningNetConfig

__all__ = ["PruningNet", "PruningNetConfig"]
