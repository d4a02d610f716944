"""The text encoder against BERT of `transformers`, with random weights that are seen.

    S3_JAX_PEER_PYTHON=PYTHON pytest tests/test_vqa_parity.py

PYTHON has PyTorch and transformers (the extra parity); without it the interpreter of the tests is asked.
"""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_vqa_network import VOCABULARY, make, smallest_of_space

from s3_jax.vqa.bert import embedded, encoded
from s3_jax.vqa.config import BertConfig
from s3_jax.vqa.convert import to_state_dict

PYTHON = os.environ.get("S3_JAX_PEER_PYTHON", sys.executable)
BERT = BertConfig(layers=3, width=48, heads=4, hidden=96, tokens=10, positions=16)

PEER = """
import sys, numpy, torch, transformers
given = dict(numpy.load(sys.argv[1]))
inputs = {name: torch.from_numpy(given.pop(name)) for name in ("words", "counts", "tokens", "there")}
config = transformers.BertConfig(
    vocab_size=9, hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96,
    max_position_embeddings=16, attn_implementation="eager",
)
model = transformers.BertModel(config, add_pooling_layer=False).eval()
wrong = model.load_state_dict({name[5:]: torch.from_numpy(each) for name, each in given.items()}, strict=False)
assert not wrong.unexpected_keys and set(wrong.missing_keys) <= {"embeddings.position_ids"}, wrong
with torch.no_grad():
    read = model(input_ids=inputs["words"].long(), attention_mask=inputs["counts"].long()).last_hidden_state
    bias = (~inputs["there"])[:, None, None].float() * -1e4
    seen = model.encoder(inputs["tokens"], attention_mask=bias).last_hidden_state
numpy.savez(sys.argv[2], read=read.numpy(), seen=seen.numpy())
print(transformers.__version__, torch.__version__)
"""


def lacking():
    found = subprocess.run([PYTHON, "-c", "import torch, transformers"], capture_output=True, text=True)
    return "" if found.returncode == 0 else f"{PYTHON} has no torch and transformers: S3_JAX_PEER_PYTHON names one"


@pytest.fixture(scope="module")
def network():
    if reason := lacking():
        pytest.skip(reason)
    network, rng = make(smallest_of_space(), bert=dataclasses.replace(BERT, dropout=0.1)), np.random.default_rng(3)
    for leaf in jax.tree.leaves(nnx.state(network), is_leaf=lambda each: isinstance(each, nnx.Variable)):
        leaf[...] = leaf[...] + jnp.asarray(rng.normal(0, 0.1, leaf.shape), jnp.float32)
    return network


def test_words_and_any_tokens_come_out_as_transformers_has_them(network, tmp_path):
    rng = np.random.default_rng(0)
    words = rng.integers(1, len(VOCABULARY), (3, 10)).astype(np.int32)
    words[0, 7:] = 0
    tokens = rng.normal(size=(3, 14, 48)).astype(np.float32)
    there = np.ones((3, 14), bool)
    there[1, 9:] = False
    tensors = {name: each for name, each in to_state_dict(network).items() if name.startswith("bert.")}
    inputs = {"words": words, "counts": words != 0, "tokens": tokens, "there": there}
    np.savez(tmp_path / "given.npz", **tensors, **inputs)
    program = [PYTHON, "-c", PEER, str(tmp_path / "given.npz"), str(tmp_path / "found.npz")]
    done = subprocess.run(program, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    run = jax.jit(lambda x, counts: encoded(list(network.layers), x, counts, heads=4, rate=0.1, passing=None))
    read = run(embedded(network.words, jnp.asarray(words), 0.1, None, "float32"), jnp.asarray(words != 0))
    seen = run(jnp.asarray(tokens), jnp.asarray(there))
    differences = [float(np.abs(a - b).max()) for a, b in ((read, found["read"]), (seen, found["seen"]))]
    print(f"{done.stdout.strip()}: words {differences[0]:.1e}, tokens {differences[1]:.1e}")
    assert max(differences) <= 1e-5
