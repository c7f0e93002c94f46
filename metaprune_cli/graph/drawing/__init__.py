"""A neuron graph as a picture: what to show, and the SVG of it."""
