"""Where images come from, what happens to them, and the order in which they come: shared by all tasks."""
