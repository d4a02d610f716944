"""Searching the Search Space of Vision Transformer (S3, NeurIPS 2021), complete, in JAX and Flax."""

__version__ = "0.1.0"  # the only place that has it: the package's metadata is made from here
