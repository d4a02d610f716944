"""The paper's Table 1 on one data set: models of ours and of timm's, trained under one recipe, or measured as given."""
