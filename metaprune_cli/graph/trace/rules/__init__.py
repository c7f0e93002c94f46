"""What happens to the ids at each operator: one file a kind of operator."""
