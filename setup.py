"""What the package needs; what it is stands in pyproject.toml.

`pip install -e .`, with extras `test`, `gcs`, `onnx`, `hub`, `parity`, `vqa`, `wandb`, `tpu` and `cuda`.
"""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["s3_jax", "s3_jax.*"]),
    package_data={"s3_jax": ["py.typed", "report/templates/*", "study/templates/*", "report/*.csv"]},
    install_requires=[
        "absl-py",
        "array-record",
        "etils[epath]",
        "flax>=0.12.8",
        "fsspec",
        "grain",
        "importlib_resources",  # of tensorflow-datasets, which does not ask for it
        "jax>=0.10.2,<0.13",
        "jinja2",
        "matplotlib",
        "ml_collections",
        "numpy",
        "opencv-python-headless",
        "optax",
        "orbax-checkpoint",
        "pillow",
        "pycocotools",
        "rich",
        "safetensors",
        "scikit-learn",
        "scipy",
        "tensorboardX",
        "tensorflow-datasets",
    ],
    extras_require={
        "gcs": ["gcsfs"],
        "onnx": ["jax2onnx", "onnx"],
        "test": [
            *(
                "build",
                "easy-vqa",
                "faster-coco-eval",
                "gcp-storage-emulator",
                "gcsfs",
                "ipykernel",
                "jax2onnx",
                "mypy",
                "nbclient",
            ),
            *("onnxruntime", "psutil", "pytest", "pytest-xdist", "ruff", "tokenizers", "twine"),
        ],
        "hub": ["huggingface_hub"],
        "parity": ["timm==1.0.31", "torch", "torchvision", "transformers"],
        "vqa": ["easy-vqa", "tokenizers"],
        "wandb": ["wandb"],
        "tpu": ["jax[tpu]>=0.10.2,<0.13"],
        "cuda": ["jax[cuda13]>=0.10.2,<0.13"],
    },
)
