"""How a metanetwork learns: objectives, examples, the choice of the epoch."""
