"""The transformer, subnet masks and weight slicing."""

from s3_jax.models.subnet import SubnetMask, copy_network, copy_overlap, slice_weights, stack_masks, subnet_mask
from s3_jax.models.transformer import S3Transformer

__all__ = ["S3Transformer", "SubnetMask", "copy_network", "copy_overlap", "slice_weights", "stack_masks", "subnet_mask"]
