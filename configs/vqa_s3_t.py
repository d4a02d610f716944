"""Visual question answering by S3-T on VQA v2: SOHO's fine-tuning (paper Sec. 4.3, Table 4), without its pre-training.

    python -m s3_jax.main --config=configs/vqa_s3_t.py --workdir=runs/vqa_s3_t --config.data.path=VQA \
        --config.backbone.weights=S3-T.pth --config.bert.weights=hf-hub:google-bert/bert-base-uncased \
        --config.data.vocabulary_file=vocab.txt

VQA holds v2_OpenEnded_mscoco_train2014_questions.json, v2_mscoco_train2014_annotations.json and train2014/*.jpg, and
the same of val2014; vocab.txt is that of the weights. 17,300 updates of 512 questions: a TPU slice; not run by us. The
paper reports 67.84 % on test-dev, of a network that was pre-trained on images with captions first, and trained on
val2014 too. Where it differs from SOHO: what a cell of the map beyond the image holds is no part of pooling or of
statistics; the warm-up begins at 0 and not at a third; norms, biases and embeddings are not decayed.
"""

import ml_collections

from s3_jax.config import default_config

QUESTIONS, BATCH, WARMUP = 443_757, 512, 1_000


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config("s3_jax.vqa")
    config.backbone.model = "s3_t"
    config.model.update(dtype="bfloat16", remat=True)
    config.data.update(
        source="vqa_json",
        train_split="train2014",
        test_split="val2014",
        questions_file="v2_OpenEnded_mscoco_{split}_questions.json",
        annotations_file="v2_mscoco_{split}_annotations.json",
        image_file="{split}/COCO_{split}_{image_id:012}.jpg",
        holdout_fraction=0.01,
        num_workers=16,
        test_scale=(1000, 600),
        # The first two are for training with any shape; most images have sides of 4 to 3.
        canvases=(
            *((800, 1344), (1344, 800), (800, 1088), (1088, 800)),
            *((608, 1024), (1024, 608), (608, 832), (832, 608)),
        ),
    )
    config.augment.update(short_sides=(400, 800), long_side=1333)
    config.train.update(
        epochs=20.0,
        warmup_epochs=WARMUP * BATCH / QUESTIONS,
        batch_size=BATCH,
        accumulation_steps=2,
        learning_rate=1e-4,
        min_learning_rate=0.0,
        schedule="steps",
        drop_epochs=(12.0, 16.0),
        weight_decay=0.01,
        clip_norm=4.0,
        drop_path=0.0,
    )
    config.run.update(eval_batch_size=64, checkpoint_every=1000)
    return config
