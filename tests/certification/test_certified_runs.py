import pytest
import torch

from repulse.certification.lipschitz_bound import lipschitz_bound
from repulse.common.settings import merge
from repulse.config.presets import preset
from repulse.prototypes import make_prototypes
from repulse.run_folder import load_run
from repulse.runs import train_run


@pytest.mark.parametrize("name", ["certified-l2", "certified-l2-softmax", "certified-l2-one-hot"])
def test_a_certified_run_is_1_lipschitz_in_pixels(name, tmp_path):
    changes = {
        "data": {"train_images": 300},
        "prototypes": {"scale": 2.0},
        "model": {"width": 0.5},
        "fit": {"epochs": 1},
    }
    config = merge(preset(name), changes, "test")
    train_run(config, tmp_path)
    model, _, classes = load_run(tmp_path)
    bound = lipschitz_bound(model, classes.image_shape)
    bound.verify()
    assert bound.constant == pytest.approx(1, abs=1e-5)
    method = "simplex" if name == "certified-l2" else "one-hot"
    torch.testing.assert_close(model.prototypes, 2 * make_prototypes(method, 10, 10).points)
