"""What `sensitivity` writes: table, picture and rules."""
