"""DHP (arXiv 2003.13683): weights are generated from latent numbers, one for every unit, that training shrinks."""
