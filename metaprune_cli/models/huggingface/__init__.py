"""Models of the package ``transformers``: their classes by name, their configurations as data, their folders."""
