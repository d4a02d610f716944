"""A study: the whole method for several seeds and arms, and what the runs together say of the paper's claims."""
