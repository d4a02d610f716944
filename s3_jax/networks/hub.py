"""State dicts from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from s3_jax.errors import S3Error, first_line
from s3_jax.paths import AnyPath, user_path

PREFIX = "hf-hub:"
FILE = "model.safetensors"


def fetch(source: str) -> AnyPath:
    """The local file of `hf-hub:owner/name`, downloaded where it is not there yet; any other source is a path.

    Raises S3Error where the hub's client is not installed, or the hub cannot be reached.
    """
    if not source.startswith(PREFIX):
        return user_path(source)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise S3Error(f"{source}: the hub's client is not installed: pip install -e .[hub]") from error
    try:
        return Path(hf_hub_download(source.removeprefix(PREFIX), FILE))
    except Exception as error:  # the client raises what its HTTP library does
        raise S3Error(
            f"could not get {FILE} of {source}: {first_line(error)}; look at the name and the network, or "
            "give the path of a file"
        ) from error
