"""Cascade Mask R-CNN on your own images with objects, from the weights of a classifier.

    python -m s3_jax.main --config=configs/detection_folder.py --workdir=runs/mine --config.data.path=FOLDER \
        --config.backbone.model=s3_t --config.backbone.weights=swin_s3_tiny.safetensors

FOLDER/annotations/instances_{train,test}.json in COCO's form, with the classes under "categories", a box and a mask
(polygons or run lengths) for each object; FOLDER/{train,test}/*.jpg. What differs is changed as flags or here: where
annotations and images lie (--config.data.annotations_file, --config.data.images_folder), the sizes, the number of
epochs. Made for some hundreds of images on one accelerator; on a CPU take smaller canvases and fewer epochs.
"""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config("s3_jax.detection")
    config.backbone.model = "s3_t"
    config.data.update(source="coco", test_scale=(832, 512), canvases=((512, 832), (832, 512)), on_bad_image="skip")
    config.augment.update(
        short_sides=(320, 352, 384, 416, 448, 480, 512),
        long_side=832,
        crop_short_sides=(256, 320, 384),
        crop_sides=(256, 384),
    )
    config.train.update(
        epochs=36.0,
        schedule="steps",
        drop_epochs=(27.0, 33.0),
        warmup_epochs=2.0,
        batch_size=4,
        learning_rate=1e-4,
        min_learning_rate=0.0,
        drop_path=0.1,
    )
    config.run.update(eval_batch_size=4, checkpoint_every=200, log_every=20)
    return config
