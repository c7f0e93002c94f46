"""What `stages/eval.py` is made of: measuring, telling arms and bases apart, summing up, and the report."""
