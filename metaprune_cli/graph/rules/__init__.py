"""What happens to the ids at each operator: one file a kind of operator, one table."""

from metaprune_cli.graph.rules.table import rule_of

__all__ = ["rule_of"]
