"""The checks and the verdict, on models whose truth is known."""

from pathlib import Path

import pytest
import torch
from records import attack_record
from torch import nn

import zoo
from repulse.attacks import OBJECTIVES, PGD, Threat
from repulse.attacks.passes import Passes
from repulse.evaluation.attack_runner import AttackRunner, Outcome
from repulse.evaluation.checks import CHECKS, Finding, check, examine
from repulse.evaluation.checks.check import checks_on
from repulse.evaluation.checks.evidence import Evidence
from repulse.subject import Subject

SEEDS = (0, 1, 2)
MASKING = checks_on(Evidence)


def failed(checks):
    return {name for name, check in checks.items() if check.passed is False}


def serious(checks):
    return {name for name in failed(checks) if checks[name].serious}


def outcome(robust):
    robust = torch.tensor(robust, dtype=torch.bool)
    nothing = torch.zeros(len(robust), dtype=torch.int64)
    passes, seconds = Passes.none(robust), torch.zeros(len(robust), dtype=torch.float64)
    distance = torch.where(robust, torch.inf, 0.0)
    few = torch.zeros(0, 2), nothing[:0]
    return Outcome(robust, nothing, *few, distance, passes, seconds, len(robust), nothing)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_linear_model_gets_its_closed_form_figure_and_is_believed(seed):
    model, eps = zoo.linear(seed), 0.05
    x, y = zoo.shown()
    verdict, checks, _ = zoo.measure(model, x, y, eps, extra=(zoo.Exact(),))
    low, high = (x - eps).clamp_min(0).flatten(1), (x + eps).clamp_max(1).flatten(1)
    w, b = model[1].weight, model[1].bias
    # Towards each class, every pixel goes to the end of its interval that serves the difference of the two rows.
    difference = w - w[y].unsqueeze(1)
    gain = (difference * torch.where(difference > 0, high.unsqueeze(1), low.unsqueeze(1))).sum(2) + b - b[y][:, None]
    truth = gain.scatter(1, y.unsqueeze(1), -torch.inf).amax(1) < 0
    assert verdict.quote == pytest.approx(truth.double().mean().item(), abs=0.001)
    assert 0.5 < verdict.quote < 0.95
    assert verdict.word == "measured", verdict
    assert not serious(checks)


def test_a_linear_model_gets_its_closed_form_figure_in_l2():
    torch.manual_seed(0)
    model = nn.Linear(16, 3).requires_grad_(False)
    x = 0.4 + 0.2 * torch.rand(1000, 16)
    model.bias.copy_(-0.5 * model.weight.sum(1))
    logits = model(x)
    y = logits.argmax(1)
    margins = logits.gather(1, y[:, None]) - logits
    dual = (model.weight[y].unsqueeze(1) - model.weight).norm(dim=2)
    radius = (margins / dual).scatter(1, y[:, None], torch.inf).amin(1)
    truth = (radius > 0.05).double().mean().item()
    verdict, checks, _ = zoo.measure(model, x, y, 0.05, norm="l2", extra=(zoo.Exact(),), claim=truth)
    assert verdict.quote == pytest.approx(truth, abs=0.001)
    assert 0.1 < verdict.quote < 0.9
    assert verdict.word == "measured", verdict
    assert not serious(checks)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_adversarially_trained_model_is_believed(seed):
    verdict, checks, _ = zoo.measure(zoo.adversarially_trained(seed), *zoo.shown())
    assert verdict.word == "measured", verdict
    assert verdict.quote > 0.6
    assert not serious(checks)


@pytest.mark.parametrize("eps", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("seed", SEEDS)
def test_an_undefended_model_is_believed_to_be_as_weak_as_it_is(seed, eps):
    verdict, checks, _ = zoo.measure(zoo.undefended(seed), *zoo.shown(), eps)
    assert verdict.word == "measured", verdict
    assert not serious(checks)
    if eps == 0.3:
        assert verdict.quote < 0.01


@pytest.mark.parametrize("seed", SEEDS)
def test_the_papers_model_is_overstated_by_the_attack_on_its_training_loss(seed):
    model = zoo.paper(seed)
    verdict, checks, found = zoo.measure(model, *zoo.shown(), 0.15, training_loss=zoo.linf_loss(model))
    assert verdict.word == "overstated", verdict
    assert verdict.claim == found["pgd-20-training-loss"].robust.double().mean().item()
    assert verdict.quote < verdict.claim - 0.05
    assert verdict.claim_by == "PGD-20-TRAINING-LOSS"
    assert "the-training-loss-agrees" in failed(checks)


ILLS = {
    zoo.Scaled: {"cross-entropy-has-a-gradient", "cross-entropy-agrees-with-the-margin"},
    zoo.Quantised: {"the-margin-has-a-gradient", "gradients-keep-their-promise", "the-whole-space-is-not-robust"},
    zoo.SoftlyQuantised: {"gradients-keep-their-promise", "many-steps-beat-one"},
    zoo.Staircase: {"the-margin-has-a-gradient", "the-margin-rises-along-the-attack", "no-black-box-success"},
    zoo.Noisy: {"the-model-is-deterministic"},
    zoo.Detached: {"the-margin-has-a-gradient", "the-whole-space-is-not-robust"},
    zoo.Misled: {"gradients-keep-their-promise", "the-margin-rises-along-the-attack"},
    zoo.Silent: {"the-margin-has-a-gradient", "the-whole-space-is-not-robust"},
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ill", ILLS)
def test_no_broken_model_is_believed_and_the_ill_is_named(ill, seed):
    torch.manual_seed(seed)
    verdict, checks, _ = zoo.measure(ill(zoo.undefended(seed)), *zoo.shown())
    assert verdict.word != "measured", verdict
    assert ILLS[ill] <= failed(checks)
    if serious(checks):
        assert all(checks[name].sentence in verdict.reasons for name in serious(checks))
        assert all(CHECKS[name].remedy in verdict.next_steps for name in serious(checks))


@pytest.mark.slow
@pytest.mark.parametrize("ill", ILLS)
def test_a_broken_model_that_is_robust_is_not_believed_either(ill):
    torch.manual_seed(0)
    verdict, _, _ = zoo.measure(ill(zoo.adversarially_trained(0)), *zoo.shown())
    assert verdict.word != "measured", verdict


def test_without_the_standard_attacks_nothing_is_established():
    verdict, checks, _ = zoo.measure(zoo.undefended(0), *zoo.shown(), standard=False)
    assert verdict.word == "upper-bound"
    assert "Run them: `--attacks standard`." in verdict.next_steps
    assert not serious(checks)


def test_a_weak_evaluation_is_found_out_by_more_steps():
    x, y = zoo.shown()
    runner, threat = AttackRunner(Subject(zoo.undefended(0), x, y, batch_size=64)), Threat("linf", 0.1)
    weak = {"pgd-1-margin": runner.attack(PGD(OBJECTIVES["margin"], 1, step_size=0.01), threat, "weak")}
    checks = {check.name: check for check in examine(runner, threat, weak, [attack_record("pgd-1-margin", "logits")])}
    assert "more-steps-change-little" in serious(checks)
    assert checks["more-steps-change-little"].measured > 0.3


def test_only_what_a_black_box_attack_adds_counts_even_if_outcomes_add_up():
    """Of five images: fooled by PGD, by Square, by both, by a later white-box attack, by none."""
    found = {
        "pgd-20-margin": outcome([0, 1, 0, 1, 1]),
        "square": outcome([0, 0, 0, 1, 1]),
        "fmn": outcome([0, 0, 0, 0, 1]),
    }
    runner = AttackRunner(Subject(nn.Linear(2, 2), torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64)))
    runner.natural = runner.labels
    attacks = [
        attack_record("pgd-20-margin", "logits", objective="margin"),
        attack_record("square", "standard", black_box=True),
        attack_record("fmn", "adaptive", minimum_norm=True),
    ]
    evidence = Evidence.gather(runner, Threat("linf", 0.1), found, attacks, 5)
    assert evidence.black_box_gain().tolist() == [False, True, False, False, False]
    assert evidence.survivors.tolist() == [False, False, False, False, True]
    without = Evidence.gather(runner, Threat("linf", 0.1), {"fmn": found["fmn"]}, attacks, 5)
    assert without.black_box_gain() is None


def test_what_the_papers_script_finds_counts_for_nothing():
    found = {"a": outcome([0, 0, 1]), "b": outcome([1, 0, 1])}
    attacks = [attack_record("a", "paper-as-published"), attack_record("b", "paper")]
    runner = AttackRunner(Subject(nn.Linear(2, 2), torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), batch_size=5))
    runner.natural = runner.labels
    evidence = Evidence.gather(runner, Threat("linf", 0.1), found, attacks, 5)
    assert evidence.survivors.tolist() == [True, False, True]
    assert evidence.group("paper").tolist() == [True, False, True]
    assert evidence.group("logits", "standard") is None


def quick(model, x, y, threat, **settings):
    runner = AttackRunner(Subject(model, x, y, batch_size=7))
    found = {"pgd-5-margin": runner.attack(PGD(OBJECTIVES["margin"], 5), threat, "quick")}
    return {
        check.name: check
        for check in examine(runner, threat, found, [attack_record("pgd-5-margin", "logits")], **settings)
    }


def two_classes(count=30, pixels=16):
    torch.manual_seed(0)
    model = nn.Linear(pixels, 2).requires_grad_(False)
    model.bias.copy_(-0.5 * model.weight.sum(1))
    x = torch.rand(count, pixels)
    return model, x, model(x).argmax(1)


def test_two_classes_of_signals_pass():
    model, x, y = two_classes()
    for threat in (Threat("linf", 0.05), Threat("l2", 0.1), Threat("linf", 8.0, low=-100.0, high=100.0)):
        checks = quick(model, x, y, threat)
        assert not failed(checks), threat
        assert list(checks) == list(MASKING)


def test_a_gradient_of_one_coordinate_is_noticed():
    model, x, y = two_classes()
    dense = quick(model, x, y, Threat("linf", 0.05))["gradients-are-spread-over-the-input"]
    g = (model.weight[0] - model.weight[1]).abs()
    assert dense.measured == pytest.approx((float(g.sum() ** 2 / (g**2).sum()) - 1) / 15, rel=1e-4)
    model.weight[:, 1:] = 0
    model.bias.copy_(-0.5 * model.weight.sum(1))
    sparse = quick(model, x, model(x).argmax(1), Threat("linf", 0.05))["gradients-are-spread-over-the-input"]
    assert sparse.passed is False
    assert sparse.measured == 0
    assert not sparse.serious


def test_nothing_can_be_asked_of_a_model_that_is_never_right_or_of_a_ball_that_is_a_point():
    model, x, y = two_classes()
    for checks in (quick(model, x, 1 - y, Threat("linf", 0.05)), quick(model, x, y, Threat("linf", 0.0))):
        assert all(check.passed is None and check.measured is None for check in checks.values())


def test_as_many_images_as_asked_for_evenly_spread():
    model, x, y = two_classes(100)
    y = torch.where(torch.arange(100) % 2 == 0, y, 1 - y)
    runner = AttackRunner(Subject(model, x, y, batch_size=7))
    evidence = Evidence.gather(runner, Threat("linf", 0.05), {}, (), 6)
    assert torch.equal(evidence.x, x[[0, 20, 40, 58, 78, 98]])
    assert len(Evidence.gather(runner, Threat("linf", 0.05), {}, (), 1000)) == 50


def test_examining_again_gives_the_same_and_leaves_no_trace():
    _, x, y = two_classes(pixels=64)
    x, y = x.reshape(-1, 1, 8, 8), y
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    dice = torch.random.get_rng_state()
    threat = Threat("linf", 0.05)
    first, second = quick(model, x, y, threat), quick(model, x, y, threat)
    assert first == second
    assert torch.equal(dice, torch.random.get_rng_state())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_random_model_is_examined_alike_every_time():
    model, x, y = two_classes()

    class Dice(nn.Module):
        def forward(self, x):
            return model(x) + 0.01 * torch.randn(len(x), 2)

    torch.manual_seed(0)
    first, second = (
        examine(AttackRunner(Subject(Dice(), x, y, batch_size=30), random=True), Threat("linf", 0.05), {}, ())
        for _ in range(2)
    )
    assert first == second


def seen(**known):
    """Evidence of which some is known already, and nothing else can be asked."""
    x = torch.zeros(4, 2)
    y = torch.zeros(4, dtype=torch.int64)
    runner = AttackRunner(Subject(nn.Identity(), x, y, batch_size=4))
    evidence = Evidence(runner, x, y, y, Threat("linf", 0.1), 0, {}, {}, torch.arange(4))
    evidence.__dict__.update(known)
    return evidence


@pytest.mark.parametrize(
    ("left", "rise"), [([4, 3, 2, 0], 0.0), ([2, 2, 2, 2], 0.0), ([3, 1, 3, 0], 0.5), ([4, 1, 2, 3], 0.5)]
)
def test_a_ball_that_holds_another_must_not_be_left_more_robust(left, rise):
    ladder = {m: torch.arange(4) < count for m, count in zip((0.5, 1.0, 2.0, 4.0), left, strict=True)}
    check = CHECKS["robust-accuracy-falls-as-eps-grows"].answer("falls", seen(ladder=ladder))
    assert (check.measured, check.passed) == (rise, rise == 0)
    assert ", ".join(f"{25 * count:.1f}" for count in left) in check.sentence


def test_a_success_on_the_way_that_is_lost_at_the_end_is_counted():
    """Of four images: fooled at the end, on the way only, never, by a margin that only just stays right."""
    path = torch.tensor([[-1.0, -1, -1, -1], [-0.5, 1, -0.5, 0], [1, -0.1, -0.2, 0]])
    check = CHECKS["no-success-is-thrown-away"].answer("silent", seen(path=path))
    assert (check.measured, check.passed) == (0.25, False)


def test_an_attack_that_was_still_climbing_had_not_finished():
    steps = torch.linspace(0, 1, 21)
    climbing = torch.stack([steps, steps, steps, steps], 1)
    settled = climbing.clamp_max(0.5)
    check = CHECKS["the-attack-levels-off"]
    assert check.answer("off", seen(path=climbing)).measured == pytest.approx(0.25)
    assert check.answer("off", seen(path=climbing)).passed is False
    assert check.answer("off", seen(path=settled)).measured == 0
    assert check.answer("off", seen(path=0 * steps[:, None].expand(21, 4))).passed is None


def test_one_step_that_beats_many_is_counted_only_where_all_long_attacks_failed():
    ladder = {1.0: torch.tensor([1, 1, 0, 1]).bool()}
    long, single = torch.tensor([1, 0, 1, 1]).bool(), torch.tensor([0, 0, 0, 1]).bool()
    check = CHECKS["many-steps-beat-one"].answer("one", seen(ladder=ladder, cross_entropy=long, single_step=single))
    assert check.measured == 0.25


def test_the_docs_ask_every_question_under_its_weight():
    page = (Path(__file__).parents[2] / "docs" / "how-to-read-the-verdict.md").read_text(encoding="utf-8")
    grave, advice = page.split("**Serious**")[1].split("**Advice**")
    asked = {
        line.split("|")[1].strip() for line in (grave + advice).splitlines() if line.startswith("| ") and "?" in line
    }
    assert {question.removeprefix("| ") for question in asked} == {each.question for each in MASKING.values()}
    for each in MASKING.values():
        assert each.question in (grave if each.serious else advice)


def test_every_check_says_all_that_a_reader_needs():
    for name, each in MASKING.items():
        assert each.question.endswith("?"), name
        assert each.remedy.endswith("."), name
        assert each.passed.endswith("."), name
        assert each.failed.endswith("."), name
        assert each.source, name


def test_a_check_of_ones_own_is_one_registration_and_reaches_the_verdict():
    """What a third party writes: asked of every model, and its failure doubted with its own remedy."""
    try:

        @check(
            "weights-are-small",
            Evidence,
            question="Are the weights small?",
            source="A test",
            threshold=0.0,
            serious=True,
            failed="They are not.",
            remedy="Shrink them.",
        )
        def weights(seen):
            return Finding(float(seen.model.weight.abs().amax()), "The largest weight was looked at.")

        model, x, y = two_classes()
        found = quick(model, x, y, Threat("linf", 0.05))
        assert list(found)[-1] == "weights-are-small"
        asked = found["weights-are-small"]
        assert asked.measured == float(model.weight.abs().amax())
        assert (asked.passed, asked.sentence) == (False, "The largest weight was looked at. They are not.")
        verdict, _, _ = zoo.measure(model, x, y, 0.05)
        assert asked.sentence in verdict.reasons
        assert "Shrink them." in verdict.next_steps
    finally:
        del CHECKS._entries["weights-are-small"]
