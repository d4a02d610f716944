"""easy-VQA: questions about one coloured shape each, from a package, nothing to download: minutes on two CPU cores.

    python -m s3_jax.main --config=configs/vqa_small.py --workdir=runs/vqa

4,000 pictures of 64 px with 38,575 questions, 13 answers; up to twelve questions about a picture share an example. The
network, which begins at random, answers 84.9 % of the 9,673 test questions (seed 0, 359 processor seconds, 2026-11-27).
The commonest answer is right for 37.3 %, the best that questions alone can tell is 67.0 %, and the control, training
with each picture taken for another (--config.data.shuffled_images=True), reaches 67.2 %. What it has learnt
is colours, of which it answers more than 99 %; of which shape it is it knows nothing yet.
"""

import ml_collections

from s3_jax.config import default_config


def get_config() -> ml_collections.ConfigDict:
    """The settings."""
    config = default_config("s3_jax.vqa")
    config.model.update(image_size=64, patch_size=4, kernel_std=0.0)
    config.backbone.update(
        depth=(1, 1, 2, 1),
        embed_dim=(32, 48, 64, 96),
        window=(4, 4, 4, 2),
        mlp_ratio=(2.0,) * 4,
        qkv_dim=(32, 64, 64, 96),
    )
    config.data.update(questions_per_image=12, mean=(0.5,) * 3, std=(0.25,) * 3)
    config.bert.update(layers=2, width=96, heads=4, hidden=192, dropout=0.0, positions=12, tokens=12)
    config.head.update(hidden=192, dropout=0.0)
    config.train.update(
        epochs=6.0,
        batch_size=32,
        warmup_epochs=0.5,
        learning_rate=2e-3,
        weight_decay=0.01,
        drop_path=0.0,
        clip_norm=4.0,
    )
    config.run.update(eval_batch_size=50, checkpoint_every=300, log_every=20)
    return config
