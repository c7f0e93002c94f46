"""Who decides what goes, and with which weights: one folder for each method."""
