"""The one analysis: a model run once, beside every tensor a label of neurons or parameter elements."""
