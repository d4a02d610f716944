"""Detection: boxes, classes and masks of objects, by Cascade Mask R-CNN on the backbone (the paper's Table 2)."""
