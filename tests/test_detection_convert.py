"""Weights of Cascade Mask R-CNN under mmdetection's names, and back; what does not fit is refused by its name.

That the layouts are PyTorch's is seen in test_detection_reference.py, which computes with them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny_cascade import ARCHITECTURE, CLASSES, HEAD

from s3_jax.config import ModelConfig
from s3_jax.detection.cascade import CascadeMaskRCNN
from s3_jax.detection.config import HeadConfig
from s3_jax.detection.convert import load_weights, to_state_dict
from s3_jax.errors import S3Error
from s3_jax.networks import zoo
from s3_jax.task import variables_of


def filled(fill, architecture=ARCHITECTURE, classes: int = CLASSES, head: HeadConfig = HEAD) -> CascadeMaskRCNN:
    sizes = {"model": ModelConfig(image_size=64), "num_classes": classes, "head": head}
    network = nnx.eval_shape(lambda: CascadeMaskRCNN(architecture, rngs=nnx.Rngs(0), **sizes))
    for variables in variables_of(network):
        nnx.update(network, jax.tree.map(lambda leaf: fill(leaf.shape), variables))
    return network


@pytest.fixture(scope="module")
def network() -> CascadeMaskRCNN:
    rng = np.random.default_rng(0)
    return filled(lambda shape: jnp.asarray(rng.uniform(0.1, 0.3, shape), jnp.float32))


def test_a_state_dict_gives_every_weight_and_statistic_back(network):
    tensors, loaded = to_state_dict(network), filled(jnp.zeros)
    load_weights(loaded, tensors | {"roi_head.bbox_head.0.shared_convs.0.bn.num_batches_tracked": np.int64(3)})
    jax.tree.map(np.testing.assert_array_equal, variables_of(loaded), variables_of(network))


def test_names_and_shapes_are_those_of_mmdetection():
    """Of Cascade Mask R-CNN on Swin, as Swin's official code for detection has it, for COCO."""
    network = filled(lambda shape: np.broadcast_to(np.float32(0), shape), zoo.architecture("s3_t"), 80, HeadConfig())
    shapes = {name: tensor.shape for name, tensor in to_state_dict(network).items()}
    expected = {
        "backbone.patch_embed.proj.weight": (96, 3, 4, 4),
        "backbone.norm3.bias": (768,),
        "neck.lateral_convs.3.conv.weight": (256, 768, 1, 1),
        "neck.fpn_convs.0.conv.bias": (256,),
        "rpn_head.rpn_conv.weight": (256, 256, 3, 3),
        "rpn_head.rpn_cls.weight": (3, 256, 1, 1),
        "rpn_head.rpn_reg.bias": (12,),
        "roi_head.bbox_head.2.shared_convs.3.conv.weight": (256, 256, 3, 3),
        "roi_head.bbox_head.0.shared_convs.0.bn.weight": (256,),
        "roi_head.bbox_head.1.shared_convs.1.bn.running_var": (256,),
        "roi_head.bbox_head.0.shared_fcs.0.weight": (1024, 12544),
        "roi_head.bbox_head.0.fc_cls.weight": (81, 1024),
        "roi_head.bbox_head.0.fc_reg.weight": (320, 1024),
        "roi_head.bbox_head.0.fc_reg.bias": (320,),
        "roi_head.mask_head.1.convs.3.conv.bias": (256,),
        "roi_head.mask_head.2.upsample.weight": (256, 256, 2, 2),
        "roi_head.mask_head.2.conv_logits.weight": (80, 256, 1, 1),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    heads = [name for name in shapes if not name.startswith("backbone.")]
    assert len(heads) == 4 * 4 + 6 + 3 * (4 * 5 + 6) + 3 * (4 * 2 + 4)


def test_every_value_of_a_layer_has_its_place(network):
    """Channels before places; four numbers for each class, one after another."""
    tensors, head = to_state_dict(network), network.box_heads[1]
    channels = HEAD.channels
    assert tensors["roi_head.bbox_head.1.shared_fcs.0.weight"][3, 2 * 49 + 5 * 7 + 6] == head.fc.kernel[5, 6, 2, 3]
    assert tensors["roi_head.bbox_head.1.fc_reg.weight"][4 * 2 + 1, 7] == head.regressor.kernel[7, 2, 1]
    assert tensors["roi_head.bbox_head.1.fc_reg.bias"][4 * 2 + 3] == head.regressor.bias[2, 3]
    assert (
        tensors["roi_head.mask_head.0.upsample.weight"][4, 1, 0, 1] == network.mask_heads[0].doubling.kernel[0, 1, 4, 1]
    )
    assert (
        tensors["neck.fpn_convs.2.conv.weight"][channels - 1, 0, 2, 1] == network.pyramid.outputs[2].kernel[2, 1, 0, -1]
    )


def test_what_does_not_fit_is_refused_by_its_name(network):
    tensors, loaded = to_state_dict(network), filled(jnp.zeros)
    name = "roi_head.bbox_head.2.fc_cls.weight"
    refused = {
        f"has no tensor {name}$": {key: each for key, each in tensors.items() if key != name},
        "has a surplus tensor roi_head.mask_head.3.other$": tensors | {"roi_head.mask_head.3.other": np.zeros(3)},
        rf"{name} of the state dict is \(81, 12\), the network needs \(4, 12\)": tensors
        | {name: np.zeros((81, 12), np.float32)},
    }
    for message, given in refused.items():
        with pytest.raises(S3Error, match=message):
            load_weights(loaded, given)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(variables_of(loaded)))
