"""What the stages share: opening models, lineage, planning, training to a file, ranks."""
