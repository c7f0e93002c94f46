"""What happens to the ids at each operator: one file a kind of operator, one table."""

from metaprune_cli.graph.trace.rules.table import has_rule, rule_of

__all__ = ["has_rule", "rule_of"]
