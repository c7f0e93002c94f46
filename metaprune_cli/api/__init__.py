"""The calls of the Python API, one file each: what a subcommand does to a file, done to a module.

They take modules and tensors, run the same code as the stages, and write nothing but the file that they are given. The
argument model is never changed.
"""
