import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from repulse.common.errors import RepulseError
from repulse.common.settings import validate
from repulse.training import SCHEDULES, FitSettings
from repulse.training.averages import Lookahead, MovingAverage, NoAverage, WeightAverage
from repulse.training.optimisers import SGD, AdamW, make_optimiser, set_learning_rate
from repulse.training.schedules import Cosine, Cyclic, OneCycle


@given(
    name=st.sampled_from(["one-cycle", "cosine", "cyclic", "constant"]),
    start=st.floats(0, 1),
    end=st.floats(0, 1),
    peak=st.floats(0, 1),
    half=st.integers(1, 50),
    total=st.integers(1, 200),
)
def test_a_schedule_stays_between_zero_and_its_peak(name, start, end, peak, half, total):
    values = {"start": start, "end": end, "peak": peak, "half_cycle": half}
    kind = SCHEDULES[name]
    schedule = kind(**{key: value for key, value in values.items() if key in kind.model_fields})
    factors = [schedule.factor(step, total) for step in range(total)]
    assert all(-1e-9 <= factor <= 1 + 1e-9 for factor in factors)


def test_one_cycle_is_two_straight_lines():
    schedule = OneCycle(start=0.2, end=0.1, peak=0.25)
    assert schedule.factor(0, 100) == pytest.approx(0.2)
    assert schedule.factor(10, 100) == pytest.approx(0.2 + 0.8 * 10 / 25)
    assert schedule.factor(25, 100) == pytest.approx(1.0)
    assert schedule.factor(100, 100) == pytest.approx(0.1)


def test_cosine_is_half_way_down_in_the_middle():
    schedule = Cosine(start=0, end=0, peak=0)
    assert schedule.factor(50, 100) == pytest.approx(0.5)
    assert schedule.factor(25, 100) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


def test_the_papers_cycle_goes_from_0_001_to_0_006_in_2000_steps():
    schedule = Cyclic(start=0.001 / 0.006, half_cycle=2000)
    rates = [0.006 * schedule.factor(step, 78_000) for step in (0, 1000, 2000, 3000, 4000)]
    assert rates == pytest.approx([0.001, 0.0035, 0.006, 0.0035, 0.001])


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))


def test_norm_biases_learn_faster_and_decay_as_much_per_step():
    model = net()
    optimiser = make_optimiser(model, SGD(weight_decay=0.1, bias_factor=64.0))
    set_learning_rate(optimiser, 0.5)
    plain, biases = optimiser.param_groups
    assert biases["params"] == [model[1].bias]
    assert (plain["lr"], biases["lr"]) == (0.5, 32.0)
    assert plain["lr"] * plain["weight_decay"] == pytest.approx(biases["lr"] * biases["weight_decay"])


def test_frozen_parameters_are_left_out():
    model = net()
    model[0].weight.requires_grad_(False)
    optimiser = make_optimiser(model, AdamW())
    assert all(p is not model[0].weight for group in optimiser.param_groups for p in group["params"])


def one_weight(value):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, value)
    return model


def test_ema_is_the_recursion_it_says():
    model = one_weight(0.0)
    average = WeightAverage(model, MovingAverage(decay=0.9))
    expected = 0.0
    for step in range(1, 40):
        nn.init.constant_(model.weight, float(step))
        average.update(model, step, 100)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert model.weight.item() == step
    average.copy_to(model)
    assert model.weight.item() == pytest.approx(expected)


def test_lookahead_moves_the_weights_back_every_fifth_step():
    model = one_weight(0.0)
    average = WeightAverage(model, Lookahead())
    nn.init.constant_(model.weight, 1.0)
    for step in range(1, 5):
        average.update(model, step, 10)
        assert model.weight.item() == 1.0
    average.update(model, 5, 10)
    decay = 0.95**5 * 0.5**3
    assert model.weight.item() == pytest.approx(1 - decay)
    nn.init.constant_(model.weight, 7.0)
    average.update(model, 10, 10)
    assert model.weight.item() == pytest.approx(1 - decay)


def test_no_average_leaves_the_model_alone():
    model = one_weight(3.0)
    average = WeightAverage(model, NoAverage())
    average.update(model, 10, 10)
    average.copy_to(model)
    assert model.weight.item() == 3.0
    assert average.average == {}


def test_settings_that_would_do_nothing_are_refused():
    for fit, message in (
        ({"schedule": {"name": "one-cycle", "half_cycle": 100}}, "schedule 'one-cycle' has no setting 'half_cycle'"),
        ({"averaging": {"name": "lookahead", "decay": 0.9}}, "averaging 'lookahead' has no setting 'decay'"),
        ({"optimiser": {"name": "adamw", "nesterov": True}}, "optimiser 'adamw' has no setting 'nesterov'"),
    ):
        with pytest.raises(RepulseError, match=f"^a.yaml: {message}"):
            validate(FitSettings, fit, "a.yaml")


def test_older_files_say_the_settings_of_every_kind():
    older = {
        "optimiser": {
            "name": "adamw",
            "learning_rate": 0.01,
            "momentum": 0.8,
            "nesterov": True,
            "weight_decay": 0.0,
            "bias_factor": 1.0,
            "clip_norm": None,
        },
        "schedule": {"name": "cyclic", "start": 0.1, "end": 0.05, "peak": 0.25, "half_cycle": 30},
        "averaging": {"name": "none", "decay": 0.999},
    }
    read = validate(FitSettings, older, "config.yaml")
    assert read.optimiser == AdamW(learning_rate=0.01, momentum=0.8, weight_decay=0.0)
    assert (read.schedule, read.averaging) == (Cyclic(start=0.1, half_cycle=30), NoAverage())
