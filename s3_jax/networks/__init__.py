"""What is done with networks by themselves: published ones, folders of one, weights of other frameworks."""
