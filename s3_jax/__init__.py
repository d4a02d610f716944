"""Searching the Search Space of Vision Transformer (S3, NeurIPS 2021), complete, in JAX and Flax."""
