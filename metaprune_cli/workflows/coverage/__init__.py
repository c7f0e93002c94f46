"""What ``metaprune coverage`` is made of: the suite, the trial of one model, its process, and the report."""
