"""Visual question answering on your own questions and images, from the weights of a classifier.

    python -m s3_jax.main --config=configs/vqa_folder.py --workdir=runs/mine --config.data.path=FOLDER \
        --config.backbone.model=s3_t --config.backbone.weights=swin_s3_tiny.safetensors

FOLDER/questions_{train,test}.json and FOLDER/annotations_{train,test}.json in the form of VQA v2, and the images as
FOLDER/images/{train,test}/000000000001.jpg, by their numbers; other names are set in config.data. A question may have
ten people's answers or one. Answers and words are those of the training questions. Made for some thousands of questions
on one accelerator; for a CPU take smaller canvases, a smaller backbone and a smaller encoder (config.bert).
"""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config("s3_jax.vqa")
    config.backbone.model = "s3_t"
    config.data.update(
        source="vqa_json",
        least_occurrences=5,
        questions_per_image=4,
        test_scale=(480, 320),
        canvases=((320, 480), (480, 320)),
        on_bad_image="skip",
    )
    config.augment.update(short_sides=(256, 320), long_side=480)
    config.bert.update(tokens=24)
    config.train.update(
        epochs=30.0,
        warmup_epochs=2.0,
        batch_size=32,
        learning_rate=1e-4,
        min_learning_rate=0.0,
        weight_decay=0.01,
        clip_norm=4.0,
        drop_path=0.1,
    )
    config.run.update(eval_batch_size=32, checkpoint_every=200, log_every=20)
    return config
