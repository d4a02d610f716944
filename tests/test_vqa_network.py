"""SOHO's network: sizes, what padding and canvases must not change, subnets, and BERT's weights."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from s3_jax.config import ModelConfig, config_of, default_config
from s3_jax.errors import S3Error
from s3_jax.models.isotropic import IsotropicArchitecture
from s3_jax.models.subnet import subnet_mask
from s3_jax.networks import zoo
from s3_jax.networks.classifier import ClassifierSpec
from s3_jax.networks.standalone import About, Standalone
from s3_jax.space import Architecture, SearchSpace, StageSpace, largest, smallest
from s3_jax.task import variables_of
from s3_jax.training.networks import merged
from s3_jax.vqa import without_images
from s3_jax.vqa.config import AnswerHeadConfig, BertConfig
from s3_jax.vqa.convert import load_bert, load_weights, to_state_dict
from s3_jax.vqa.cost import backbone_cost
from s3_jax.vqa.dropout import Passing, dropout
from s3_jax.vqa.network import VqaNetwork
from s3_jax.vqa.places import places_of, pooled, positions_of
from s3_jax.vqa.task import binary_cross_entropy, of_answers
from s3_jax.vqa.words import SPECIAL

BERT = BertConfig(layers=2, width=16, heads=2, hidden=24, dropout=0.5, tokens=6, positions=8)
VOCABULARY = (*SPECIAL, "red", "blue", "is", "it")
SPACE = SearchSpace(
    (
        StageSpace(depth=(1, 2), embed_dim=(8, 16), window=(2,), mlp_ratio=(1.0, 2.0), qkv_dim=(32,)),
        StageSpace(depth=(1,), embed_dim=(8, 16), window=(2,), mlp_ratio=(1.0,), qkv_dim=(32, 64)),
    )
)


def smallest_of_space():
    return smallest(SPACE)


def make(structure, *, bert=BERT, dropped=0.5, seed=0):
    network = VqaNetwork(
        structure,
        model=ModelConfig(16, 2, kernel_std=0.0),
        bert=bert,
        head=AnswerHeadConfig(12, dropped),
        vocabulary_size=len(VOCABULARY),
        padding=0,
        num_answers=5,
        rngs=nnx.Rngs(seed),
    )
    rng = np.random.default_rng(seed)  # norms and biases begin as what changes nothing
    for leaf in jax.tree.leaves(nnx.state(network), is_leaf=lambda each: isinstance(each, nnx.Variable)):
        if leaf.ndim == 1:
            leaf[...] = leaf[...] + jnp.asarray(rng.uniform(0.1, 0.5, leaf.shape), jnp.float32)
    return network


@pytest.fixture(scope="module")
def network():
    return make(smallest(SPACE))


def inputs(batch=2, count=2, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, 16, 16, 3)).astype(np.float32)
    words = rng.integers(5, 9, size=(batch, count, 6)).astype(np.int32)
    words[:, :, 0], words[:, 1:, 4:] = 2, 0
    return jnp.asarray(images), jnp.full((batch, 2), 16, jnp.int32), jnp.asarray(words)


@pytest.mark.parametrize(("layers", "expected"), [(3, 85_231_155), (12, 149_022_003)])
def test_s3_t_has_exactly_as_many_parameters_as_sohos_network(layers, expected):
    config = default_config("s3_jax.vqa")
    config.bert.layers = layers
    config.data.update(canvases=((608, 1024), (1024, 608)), test_scale=(1000, 600))
    task = without_images(config_of(config.to_dict()), tuple(map(str, range(3129))))
    architecture = zoo.spec("s3_t").architecture
    params = nnx.eval_shape(lambda: nnx.state(task.network(architecture, nnx.Rngs(0)), nnx.Param))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == expected
    spec = task.spec(architecture, About())
    assert spec.cost.params == task.cost(architecture).params == expected
    backbone = backbone_cost(architecture, (600, 1000), image_size=224, patch_size=4)
    # The encoder by hand: 16 words and 10 x 16 places of 19 x 32, of 12 heads' 768 channels.
    tokens = 16 + 10 * 16
    encoder = layers * (12 * 768**2 * tokens + 2 * 768 * tokens**2) + 160 * 768**2 + 768 * 3072 + 3072 * 3129
    assert spec.cost.macs == backbone.macs + encoder


def test_canvases_are_those_that_the_maps_of_the_network_itself_tile():
    """20 x 20 pixels in patches of 2: the maps of two stages have strides up to 4, those of four up to 16."""
    config = tiny_config()
    task = of_answers(
        dataclasses.replace(config, data=dataclasses.replace(config.data, canvases=((20, 20),))), "abc", VOCABULARY
    )
    one = largest(SPACE).stages
    assert nnx.eval_shape(lambda: task.network(Architecture(one), nnx.Rngs(0)))
    with pytest.raises(S3Error, match="20 x 20 pixels do not fit a network whose coarsest map has a stride of 16"):
        nnx.eval_shape(lambda: task.network(Architecture(one + one), nnx.Rngs(0)))


def test_a_networks_cost_is_that_of_its_shapes():
    task = of_answers(tiny_config(), "abc", VOCABULARY)
    for architecture in (smallest(SPACE), largest(SPACE)):
        params = nnx.eval_shape(lambda each=architecture: nnx.state(task.network(each, nnx.Rngs(0)), nnx.Param))
        assert task.cost(architecture).params == sum(leaf.size for leaf in jax.tree.leaves(params))


def tiny_config():
    config = default_config("s3_jax.vqa")
    config.model.update(image_size=16, patch_size=2)
    config.bert.update({**dataclasses.asdict(BERT)})
    config.head.hidden = 12
    config.data.update(canvases=((16, 16),), test_scale=(16, 16))
    config.augment.update(short_sides=(16, 16), long_side=16)
    return config_of(config.to_dict())


def test_what_is_beyond_the_image_or_behind_the_question_changes_no_answer(network):
    """The last map of an image of 10 x 16 pixels on three canvases, and a question with more and less padding."""
    rng = np.random.default_rng(0)
    last = rng.normal(size=(1, 4, 4, 8)).astype(np.float32)  # a place has four pixels: rows 0 to 2 are there
    sizes, words = jnp.array([[10, 16]]), jnp.array([[[2, 5, 6, 3, 0, 0]]])
    run = jax.jit(lambda seen, sizes, words: network._answers(seen, sizes, words, None, None))
    expected = run(last, sizes, words)
    other = last.copy()
    other[:, 3] = 100.0
    wide = rng.normal(size=(1, 6, 8, 8)).astype(np.float32)
    wide[:, :3, :4] = last[:, :3]
    longer = jnp.pad(words, [(0, 0)] * 2 + [(0, 2)])
    for seen, read in ((other, words), (last, words[:, :, :4]), (wide, longer)):
        np.testing.assert_allclose(run(seen, sizes, read), expected, atol=2e-6)
    one_row_more, one_word_more = run(last, jnp.array([[13, 16]]), words), run(last, sizes, words.at[0, 0, 4].set(5))
    for changed in (one_row_more, one_word_more):
        assert not np.allclose(changed, expected, atol=1e-3)


def test_places_beyond_the_image_and_examples_that_do_not_count_are_in_no_statistics(network):
    rng = np.random.default_rng(1)
    definition, state = nnx.split(network)
    last = rng.normal(size=(2, 4, 4, 8)).astype(np.float32)
    words = jnp.full((2, 1, 6), 5)

    @jax.jit
    def statistics(last):
        """After a batch of which the second example does not count; of the first the upper half is there."""
        own = nnx.merge(definition, state, copy=True)
        passing = Passing(jnp.array([1.0, 0.0]), jax.random.key(0))
        own._answers(last, jnp.array([[8, 16], [16, 16]]), words, None, passing)
        return variables_of(own).stats

    other = last.copy()
    other[0, 2:], other[1] = 50.0, -20.0
    expected = statistics(last)
    for changed in (other, last[:, :2]):
        jax.tree.map(np.testing.assert_allclose, statistics(changed), expected)
    before = variables_of(network).stats["visual"]["batch_norm"]["mean"]
    assert not np.allclose(expected["visual"]["batch_norm"]["mean"], before)


def test_questions_about_one_image_are_answered_as_each_alone(network):
    images, sizes, words = inputs()
    run = nnx.jit(lambda network, *arrays: network(*arrays))
    together = run(network, images, sizes, words)
    for place in range(2):
        alone = run(network, images, sizes, words[:, place : place + 1])
        np.testing.assert_allclose(alone[:, 0], together[:, place], atol=1e-5)
    assert not np.allclose(together[:, 0], together[:, 1], atol=1e-3)


def test_a_masked_subnet_is_the_network_that_is_cut_out():
    supernet = make(SPACE)
    task = of_answers(tiny_config(), "abcde", VOCABULARY)
    images, sizes, words = inputs()
    run = nnx.jit(lambda network, mask, *arrays: network(*arrays, mask))
    definition = None
    for architecture in (smallest(SPACE), largest(SPACE)):
        variables = variables_of(supernet)
        own = task.sliced(variables.params, supernet.backbone.space, architecture)
        cut = make(architecture)
        definition = nnx.split(cut)[0]
        alone = merged(definition, variables._replace(params=own))
        expected = run(alone, None, images, sizes, words)
        masked = run(supernet, subnet_mask(supernet.backbone.space, architecture), images, sizes, words)
        np.testing.assert_allclose(masked, expected, atol=2e-5)
    assert expected.shape == (2, 2, 5)


def test_pooling_takes_the_largest_of_what_is_there():
    x = jnp.arange(15.0).reshape(1, 3, 5, 1) - 7
    there = places_of(jnp.array([[12, 14]]), (3, 5), 4)  # all rows, four columns
    np.testing.assert_array_equal(there[0], np.arange(5) < np.full((3, 1), 4))
    np.testing.assert_array_equal(pooled(x, there)[0, :, :, 0], [[-1, 1, 0], [4, 6, 0]])


def test_positions_are_sines_and_cosines_of_shares_of_the_image():
    found = positions_of(jnp.array([[64, 128]]), (2, 3), 64, 8)[0]
    rows, columns = (2 * math.pi * np.array(each) for each in ([1.0, 2.0], [0.5, 1.0]))
    for i, j in ((0, 0), (0, 1)):
        angles = [rows[i] / 1, rows[i] / 100, columns[j] / 1, columns[j] / 100]
        expected = [wave(angle) for angle in angles for wave in (math.sin, math.cos)]
        np.testing.assert_allclose(found[i, j], expected, atol=1e-5)


def test_the_loss_is_summed_over_answers():
    logits, scores = jnp.array([[2.0, -1.0]]), jnp.array([[0.3, 1.0]])
    chances = 1 / (1 + np.exp(-np.array([2.0, -1.0])))
    expected = -(0.3 * np.log(chances[0]) + 0.7 * np.log(1 - chances[0]) + np.log(chances[1]))
    np.testing.assert_allclose(binary_cross_entropy(logits, scores), [expected], rtol=1e-6)


def test_dropout_keeps_the_mean_and_is_off_in_evaluation():
    x = jnp.ones((4, 1000))
    assert dropout(x, 0.5, None) is x
    passing = Passing(jnp.ones(4), jax.random.key(0))
    dropped = np.asarray(dropout(x, 0.25, passing))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert (dropped[0] != dropped[1]).any()
    assert (dropped != np.asarray(dropout(x, 0.25, passing.at(1)))).any()


def test_weights_go_to_a_state_dict_and_back(network):
    tensors = to_state_dict(network)
    other = make(smallest(SPACE), seed=1)
    load_weights(other, tensors)
    jax.tree.map(np.testing.assert_array_equal, variables_of(other), variables_of(network))
    assert tensors["bert.encoder.layer.1.attention.self.key.weight"].shape == (16, 16)
    np.testing.assert_array_equal(
        tensors["bert.encoder.layer.1.attention.self.key.weight"], np.asarray(network.layers[1].qkv.kernel)[:, 16:32].T
    )
    with pytest.raises(S3Error, match=r"has no tensor head\.fc1\.bias"):
        load_weights(other, {name: each for name, each in tensors.items() if name != "head.fc1.bias"})


def bert_file(network):
    """What BERT's files hold: more layers, a pooler and heads, names of the first release."""
    tensors = {name: each for name, each in to_state_dict(network).items() if name.startswith("bert.")}
    for name in list(tensors):
        if ".layer.1." in name:
            tensors[name.replace(".layer.1.", ".layer.2.")] = tensors[name] + 1
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, first in old.items():
        tensors = {name.replace(new, first): each for name, each in tensors.items()}
    extra = {"bert.pooler.dense.weight": np.zeros((16, 16)), "cls.predictions.bias": np.zeros(9)}
    return tensors | extra | {"bert.embeddings.position_ids": np.arange(8)}


def test_berts_files_are_read_and_every_tensor_is_accounted_for(network):
    tensors, other = bert_file(network), make(smallest(SPACE), seed=1)
    head = np.asarray(other.head.fc1.kernel[...])
    assert load_bert(other, tensors) == 3
    for part in ("words", "layers"):
        jax.tree.map(np.testing.assert_array_equal, *(variables_of(each).params[part] for each in (other, network)))
    np.testing.assert_array_equal(other.head.fc1.kernel[...], head)
    load_bert(other, {name.removeprefix("bert."): each for name, each in tensors.items()})
    words = "bert.embeddings.word_embeddings.weight"
    cases = (
        ({**tensors, words: np.zeros((30, 16), np.float32)}, "embeddings of 30 words, and the vocabulary has 9"),
        ({**tensors, "bert.more": np.zeros(1)}, "has a surplus tensor bert.more"),
        ({name: each for name, each in tensors.items() if name != words}, f"has no tensor {words}"),
        ({**tensors, words: np.full((9, 16), np.nan)}, "NaN or infinite"),
        ({**tensors, words: np.zeros((9, 16), np.int32)}, "holds int32"),
        ({**tensors, words: np.zeros((9, 8), np.float32)}, r"is \(9, 8\), the network needs \(9, 16\)"),
    )
    for wrong, message in cases:
        with pytest.raises(S3Error, match=message):
            load_bert(other, wrong)


def test_a_network_begins_with_a_classifiers_backbone_or_with_what_fits_of_its_own_kind(network):
    architecture, told = smallest(SPACE), []
    task = of_answers(tiny_config(), "abcde", VOCABULARY)
    spec = ClassifierSpec(architecture, 16, 2, ("a", "b"))
    classifier = Standalone(spec.build(rngs=nnx.Rngs(5)), spec)
    begun = task.network(architecture, nnx.Rngs(0))
    task.begin_with(begun, classifier, told.append)
    np.testing.assert_array_equal(begun.backbone.patch.kernel[...], classifier.network.patch.kernel[...])
    own = Standalone(network, task.spec(architecture, About()))
    for answers, kept in (("abcde", True), ("xyzab", False)):
        begun = of_answers(tiny_config(), answers, VOCABULARY).network(architecture, nnx.Rngs(0))
        of_answers(tiny_config(), answers, VOCABULARY).begin_with(begun, own, told.append)
        np.testing.assert_array_equal(begun.layers[0].qkv.kernel[...], network.layers[0].qkv.kernel[...])
        same = np.array_equal(begun.head.fc2.kernel[...], network.head.fc2.kernel[...])
        assert same is kept
    assert [each.rpartition(";")[2].strip() for each in told] == [
        "all else is random",
        "the encoder is kept, the head kept",
        "the encoder is kept, the head random",
    ]
    with pytest.raises(S3Error, match="a plain transformer has no maps of several sizes"):
        task.network(IsotropicArchitecture(8, 1, 2), nnx.Rngs(0))
