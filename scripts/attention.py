"""Draw what a network attends to in images: the paper's Fig. 4, maps of attention and distances to the top keys.

    python scripts/attention.py --model=s3_t --weights=swin_s3_tiny.safetensors cat.jpg --out=attention
    python scripts/attention.py --model=runs/mine/network photographs/ --out=attention --blocks=1.1,3.4 --query=100,60

--model and --weights as for predict.py; plain transformers (DeiT, ViT) have no windows and are refused. --blocks: of
which maps are drawn, as stage.block (the first and last of each stage, if not given). --query: row and column of the
pixel, in the cropped image that the network takes, whose token looks (its centre, if not given). --maps: of how many
of the images maps are drawn; distances are over all images, tokens, heads and blocks. Every figure is written as PNG
and SVG. A file that is no image is named on standard error, and the exit code is 2; the others are drawn all the same.
"""

from __future__ import annotations

import sys

from absl import app, flags

# Nothing here may import JAX or anything else that takes seconds: `main` does, once the flags are checked.
from s3_jax.command_flags import parse_flags
from s3_jax.data.image_folder import list_images
from s3_jax.errors import S3Error
from s3_jax.paths import print_any_name, user_path

_MODEL = flags.DEFINE_string("model", None, "Published model, or folder of a network.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", "", "File or hf-hub:owner/name of a published model's weights.")
_OUT = flags.DEFINE_string("out", None, "Folder for figures and tables.", required=True)
_BLOCKS = flags.DEFINE_list("blocks", [], "Blocks whose maps are drawn, as 1.1,3.4.")
_QUERY = flags.DEFINE_list("query", [], "Row and column of a pixel of the token that looks.")
_MAPS = flags.DEFINE_integer("maps", 4, "Of how many images maps are drawn.", lower_bound=0)


def main(arguments: list[str]) -> int:
    """Draw, and print the files. Returns the exit code: 2 for a mistake, and where a file is no image."""
    print_any_name()
    try:
        if len(arguments) < 2:
            raise S3Error("give images, or a folder of them")
        paths = list_images(arguments[1:])

        from s3_jax.analysis.command import Choice, draw
        from s3_jax.networks import zoo
        from s3_jax.training.devices import keep_compiled_programs, keep_freed_memory

        keep_compiled_programs()
        keep_freed_memory()
        model = zoo.open_model(_MODEL.value, _WEIGHTS.value, new_head=True)
        choice = Choice.of_flags(model, _BLOCKS.value, _QUERY.value, _MAPS.value)
        return draw(model, paths, user_path(_OUT.value), choice)
    except S3Error as error:
        print(f"attention: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
