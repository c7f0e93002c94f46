"""All that is known of PyTorch: one row an operator (``table``), and what follows from it (``registry``)."""
