"""What `export` consists of: capturing a model once, four file formats, and the check of what was written."""
