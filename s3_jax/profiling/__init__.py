"""How long programs take, what they execute, and what they need on accelerators that are not there."""
