"""What trained networks do: the attention maps and the distances of attention of the paper's Fig. 4."""
