"""Sources, augmentation and the per-host input pipeline."""
