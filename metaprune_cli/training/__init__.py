"""Training: one model, or a metanetwork on a zoo of models; tells a listener how far it is."""
