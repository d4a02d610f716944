"""The README's code runs as it stands, and the files it names exist."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from s3_jax.config import config_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_library_examples_run_and_agree():
    _, method, models = re.findall(r"```python\n(.*?)```", README, re.DOTALL)  # the first is in test_notebook.py
    # The smallest images that the example's windows fit, and fewer blocks, so that the test is short; else as written.
    scope = {"images": jnp.ones((1, 56, 56, 3))}
    for written, small in (("range(1000)", "range(100)"), ("image_size=224", "image_size=56"), ("(2, 3, 4)", "(1, 2)")):
        assert written in method
        method = method.replace(written, small)
    exec(method, scope)
    assert scope["best"].cost.macs < 9e9
    assert scope["evolution"].space != scope["space"]
    exec(models.replace("image_size=224", "image_size=56"), scope)
    np.testing.assert_allclose(scope["network"](scope["images"]), scope["logits"], rtol=1e-3, atol=1e-4)
    assert [m.shape[1] for m in scope["maps"]] == [14, 7, 4, 2]


def test_named_files_exist():
    for name in re.findall(r"(?:scripts|configs|docs|notebooks)/[\w.]+", README):
        assert (ROOT / name).exists(), name


def test_the_example_of_a_search_for_another_task_is_a_configuration(monkeypatch):
    monkeypatch.chdir(ROOT)
    scope: dict[str, object] = {}
    exec(re.search(r"```python\n(.*?)```", (ROOT / "docs" / "running.md").read_text(), re.DOTALL)[1], scope)
    config = config_of(scope["get_config"]().to_dict())
    assert config.task == "s3_jax.segmentation"
    assert not config.backbone.is_given
    assert config.space.build().size() > 1
    assert config.retrain.train == config.train
