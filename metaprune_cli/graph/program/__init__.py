"""A model as the operators it ran: captured, rewritten for what is left of it, replayed, and written to a file."""
