"""Weights of published models: read from files of other frameworks, renamed, resized, written back."""
