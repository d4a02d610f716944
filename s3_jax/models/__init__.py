"""The transformer, subnet masks and weight slicing."""
