"""UperNet on your own images with masks, from the weights of a classifier.

    python -m s3_jax.main --config=configs/segmentation_folder.py --workdir=runs/mine --config.data.path=FOLDER \
        --config.backbone.model=s3_t --config.backbone.weights=swin_s3_tiny.safetensors

FOLDER/images/{train,test}/*.jpg and FOLDER/annotations/{train,test}/*.png of the same names, masks as grey or palette
with the numbers of classes or as RGB with their colours, and FOLDER/classes.txt with a class a line: `name`, `number
name` or `number name red green blue`. 255 does not count; --config.data.zero_is_ignored=True where 0 is none either.
What differs is changed as flags or here: the folders' names, the crop, the number of epochs. Made for some hundreds of
images on one accelerator; on a CPU take a smaller crop and fewer epochs.
"""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config("s3_jax.segmentation")
    config.backbone.model = "s3_t"
    config.data.update(source="mask_folder", test_scale=(1024, 512), test_multiple=32, on_bad_image="skip")
    config.augment.update(scale=(1024, 512))
    config.train.update(
        epochs=60.0,
        warmup_epochs=2.0,
        batch_size=8,
        learning_rate=1e-4,
        min_learning_rate=0.0,
        schedule="linear",
        weight_decay=0.01,
    )
    config.run.update(eval_batch_size=8, checkpoint_every=200, log_every=20)
    return config
