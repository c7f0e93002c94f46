"""Pruning: scores → plan → surgery, and the check that what is left is what was meant to be left."""

from metaprune_cli.pruning.check import Check, check
from metaprune_cli.pruning.criteria import by_unit, differentiable_scores, group_magnitude, importance_at, unit_scores
from metaprune_cli.pruning.masking import at_fixed_cost, gate_tensors, mask_tensors, masked_copy
from metaprune_cli.pruning.plan import FamilyPlan, Plan, make_plan, select
from metaprune_cli.pruning.surgery import apply_plan

__all__ = [
    "Check",
    "FamilyPlan",
    "Plan",
    "apply_plan",
    "at_fixed_cost",
    "by_unit",
    "check",
    "differentiable_scores",
    "gate_tensors",
    "group_magnitude",
    "importance_at",
    "make_plan",
    "mask_tensors",
    "masked_copy",
    "select",
    "unit_scores",
]
