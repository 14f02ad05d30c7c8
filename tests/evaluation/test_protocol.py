"""The protocol on models whose truth is known, and counted again from the outcomes."""

import pytest
import torch
from torch import nn

from repulse.attacks import FMN, Square, Threat
from repulse.common.errors import RepulseError
from repulse.evaluation import About, EvaluationSettings, evaluate, load_evaluation
from repulse.evaluation.attack_runner import AttackRunner
from repulse.evaluation.expectation import is_random
from repulse.evaluation.plan import plan
from repulse.models import PrototypeClassifier
from repulse.subject import Subject

QUICK = {"steps": (2, 5), "curve": (0.0, 0.02, 0.05, 0.1), "curve_steps": 5, "batch_size": 40, "attacks": "paper"}


def linear(pixels=16, classes=3):
    """Three classes that meet at mid-grey, so that images around it lie near their boundaries."""
    torch.manual_seed(0)
    layer = nn.Linear(pixels, classes)
    with torch.no_grad():
        layer.bias.copy_(-0.5 * layer.weight.sum(1))
    return nn.Sequential(nn.Flatten(), layer)


def images(model, count=90, wrong=0):
    """Mid-grey images, so that the range of pixels cuts no ball, with the model's labels but for some wrong ones."""
    generator = torch.Generator().manual_seed(1)
    x = 0.35 + 0.3 * torch.rand(count, 1, 4, 4, generator=generator)
    y = model(x).argmax(1)
    y[:wrong] = (y[:wrong] + 1) % 3
    return x, y


def test_what_each_image_cost_adds_up_to_what_the_attacks_did():
    model = linear()
    x, y = images(model, wrong=9)
    settings = EvaluationSettings(eps=0.01, **{**QUICK, "attacks": "quick"})
    evaluation = evaluate(model, x, y, settings)
    record, outcomes = evaluation.record, evaluation.outcomes
    assert {attack.group for attack in record.attacks} == {"logits", "paper", "quick", "adaptive"}
    queries, seconds, fooled_by = (outcomes[name] for name in ("queries", "seconds", "fooled_by"))
    assert (queries.dtype, seconds.dtype, fooled_by.dtype) == (torch.int32, torch.float32, torch.int32)
    assert queries.sum() == sum(attack.forward_passes + attack.backward_passes for attack in record.attacks)
    assert seconds.sum().item() == pytest.approx(sum(attack.seconds for attack in record.attacks), rel=1e-4)

    wrong, robust = outcomes["natural_prediction"] != outcomes["label"], outcomes["robust/worst-case"].bool()
    assert queries[wrong].sum() == seconds[wrong].sum() == 0
    # Whoever withstands everything is attacked by everything.
    assert queries[robust].min() > queries[~robust].max()
    assert torch.equal(fooled_by == -2, wrong)
    assert torch.equal(fooled_by == -1, robust)
    for place, attack in enumerate(record.attacks):
        first = fooled_by == place
        assert int(first.sum()) == attack.added
        assert not outcomes[f"robust/{attack.name}"][first].any()


def test_an_image_costs_the_same_whoever_is_beside_it():
    model = linear()
    x, y = images(model)
    settings = {"eps": 0.02, "steps": (5,), "curve": (), "attacks": "paper"}
    whole = evaluate(model, x, y, EvaluationSettings(batch_size=90, **settings)).outcomes["queries"]
    order = torch.arange(89, -1, -1)
    parts = evaluate(model, x[order], y[order], EvaluationSettings(batch_size=90, **settings)).outcomes["queries"]
    assert torch.equal(parts[order], whole)
    assert len(whole.unique()) > 1


def radius(model, x, y, norm="linf"):
    weight = model[1].weight.detach()
    logits = model(x).detach()
    difference = weight[y].unsqueeze(1) - weight
    dual = difference.abs().sum(2) if norm == "linf" else difference.norm(dim=2)
    margins = logits.gather(1, y.unsqueeze(1)) - logits
    return (margins / dual).scatter(1, y.unsqueeze(1), torch.inf).amin(1)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.01), ("l2", 0.03)])
def test_a_linear_model_gets_its_closed_form_figures(norm, eps):
    """No image is fooled inside its radius. Outside, PGD may climb to a boundary that is not the nearest: one of 90."""
    model = linear()
    x, y = images(model, wrong=9)
    radii_asked = {"curve": (eps / 2, eps, 2 * eps), "curve_steps": 20}
    settings = EvaluationSettings(norm=norm, eps=eps, steps=(20,), attacks="paper", **radii_asked)
    evaluation = evaluate(model, x, y, settings)
    record = evaluation.record
    right, radii = model(x).argmax(1) == y, radius(model, x, y, norm)
    assert record.natural_accuracy == pytest.approx(81 / 90)

    truth = right & (radii > eps)
    assert 0.3 < truth.double().mean() < 0.7
    robust = evaluation.outcomes["robust/worst-case"].bool()
    assert robust[truth & (radii > eps * 1.0001)].all()
    assert (robust & ~truth).sum() <= 1
    for point in record.curve:
        expected = (right & (radii > point.eps)).double().mean().item()
        assert point.robust_accuracy["worst case"] == pytest.approx(expected, abs=1.01 / 90)


def test_every_figure_can_be_counted_again_from_the_outcomes():
    model = linear()
    x, y = images(model, wrong=9)
    evaluation = evaluate(model, x, y, EvaluationSettings(eps=0.03, **QUICK))
    record, outcomes = evaluation.record, evaluation.outcomes
    natural = outcomes["natural_prediction"] == outcomes["label"]
    assert record.natural_accuracy == natural.double().mean().item() == 81 / 90
    all_of_them = natural.clone()
    for attack in record.attacks:
        robust = outcomes[f"robust/{attack.name}"].bool()
        assert attack.robust_accuracy == robust.double().mean().item()
        assert torch.equal(robust, outcomes[f"prediction/{attack.name}"] == outcomes["label"])
        assert attack.largest_perturbation <= 0.03 + Threat("linf", 0.03).tolerance
        all_of_them &= robust
    assert torch.equal(outcomes["robust/worst-case"].bool(), all_of_them)
    assert record.worst_case_accuracy == all_of_them.double().mean().item()
    confusion = torch.tensor(record.confusion_natural)
    assert confusion.sum() == 90
    assert confusion.trace() == natural.sum()
    attacked = torch.tensor(record.confusion_attacked)
    assert attacked.sum() == 90
    assert attacked.trace() == all_of_them.sum()


def test_more_steps_from_the_same_start_never_find_less():
    model = linear()
    x, y = images(model)
    record = evaluate(model, x, y, EvaluationSettings(eps=0.02, **QUICK)).record
    for what in ("training-loss", "cross-entropy", "margin"):
        assert record.attack(f"pgd-5-{what}").robust_accuracy <= record.attack(f"pgd-2-{what}").robust_accuracy


def test_going_on_from_survivors_equals_running_from_the_start():
    model = linear()
    x, y = images(model)
    short_first = evaluate(model, x, y, EvaluationSettings(eps=0.02, **QUICK)).outcomes
    alone = evaluate(model, x, y, EvaluationSettings(eps=0.02, **{**QUICK, "steps": (5,)})).outcomes
    for name in ("robust/pgd-5-margin", "robust/pgd-5-training-loss", "prediction/pgd-5-margin"):
        assert torch.equal(short_first[name], alone[name])


def test_batch_size_changes_nothing_but_time():
    model = linear()
    x, y = images(model)
    small, large = (
        evaluate(model, x, y, EvaluationSettings(eps=0.02, **{**QUICK, "batch_size": size})).outcomes
        for size in (7, 90)
    )
    for name in large:
        if name.startswith("robust/"):
            assert torch.equal(small[name], large[name]), name


def test_a_curve_starts_at_the_natural_accuracy_and_its_worst_case_never_rises():
    model = linear()
    x, y = images(model, wrong=9)
    record = evaluate(model, x, y, EvaluationSettings(eps=0.02, **QUICK)).record
    assert set(record.curve[0].robust_accuracy.values()) == {record.natural_accuracy}
    worst = [point.robust_accuracy["worst case"] for point in record.curve]
    assert worst == sorted(worst, reverse=True)
    for point in record.curve:
        assert point.robust_accuracy["worst case"] <= min(point.robust_accuracy.values())


class Masked(PrototypeClassifier):
    """Honest logits, behind a training loss that is flat: an attack on the loss finds nothing."""


def test_an_attack_on_a_flat_training_loss_finds_nothing_and_the_logits_tell_the_truth():
    model = Masked(linear(), torch.eye(3), "linear")
    x, y = images(model.backbone)
    record = evaluate(model, x, y, EvaluationSettings(eps=0.1, **QUICK), training_loss=lambda z, y: 0 * z.sum(1)).record
    assert record.attack("pgd-5-training-loss").robust_accuracy == 1
    assert record.attack("pgd-5-margin").robust_accuracy < 0.5
    assert record.worst_case_accuracy < 0.5


def published_by_hand(model, x, y, eps, steps):
    """The published script, step by step: normalise, clip, then PGD with sign steps in those units."""
    u = ((x - model.mean) / model.std).clamp(0, 1)
    moved = u.clone()
    fooled = torch.zeros(len(y), dtype=torch.bool)
    for step in range(steps + 1):
        moved = moved.detach().requires_grad_()
        logits = model(moved * model.std + model.mean)
        fooled |= logits.argmax(1) != y
        if step == steps:
            return u, fooled
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, y, reduction="sum"), moved)
        moved = (moved + eps / 4 * gradient.sign()).clamp(u - eps, u + eps).clamp(0, 1)
    raise AssertionError


def test_the_published_script_is_repeated_and_left_out_of_the_worst_case():
    model = PrototypeClassifier(linear(), torch.eye(3), "linear", mean=(0.45,), std=(0.2,)).eval()
    x = images(linear())[0]
    y = model(x).argmax(1)
    evaluation = evaluate(model, x, y, EvaluationSettings(eps=0.05, **QUICK))
    u, fooled = published_by_hand(model, x, y, 0.05, 5)
    attack = evaluation.record.attack("pgd-5-training-loss-as-published")
    assert attack.group == "paper-as-published"
    assert attack.robust_accuracy == (~fooled).double().mean().item()
    natural = (model(u * model.std + model.mean).argmax(1) == y).double().mean().item()
    assert attack.settings["natural_accuracy"] == natural < 1
    counted = [evaluation.outcomes[f"robust/{a.name}"] for a in evaluation.record.attacks if a.group != attack.group]
    assert torch.equal(torch.stack(counted).amin(0), evaluation.outcomes["robust/worst-case"])


def test_an_evaluation_comes_back_from_disk_as_it_was(tmp_path):
    model = PrototypeClassifier(linear(), torch.eye(3), "linear")
    x, y = images(model.backbone)
    about = About(model="ours", data="grey", class_names=("a", "b", "<c>"), command="repulse evaluate RUN")
    evaluation = evaluate(model, x, y, EvaluationSettings(eps=0.02, **QUICK), about=about)
    evaluation.save(tmp_path / "e")
    record, outcomes = load_evaluation(tmp_path / "e")
    assert record == evaluation.record
    assert record.data.class_names == ("a", "b", "<c>")
    assert outcomes.keys() == evaluation.outcomes.keys()
    for name, value in outcomes.items():
        assert torch.equal(value, evaluation.outcomes[name])
    assert {"embedding", "prototypes", "gallery/adversarial"} <= outcomes.keys()
    assert (outcomes["gallery/natural_prediction"] == outcomes["label"][outcomes["gallery/index"].long()]).all()
    assert (outcomes["gallery/adversarial_prediction"] != outcomes["gallery/natural_prediction"]).all()


def test_a_half_written_evaluation_is_no_evaluation(tmp_path):
    with pytest.raises(RepulseError, match=r"holds no record\.json: make one with `repulse evaluate`$"):
        load_evaluation(tmp_path)
    (tmp_path / "record.json").write_text('{"schema_version": 1}')
    with pytest.raises(
        RepulseError, match=r"record\.json is not a record that this version reads: created: Field required$"
    ):
        load_evaluation(tmp_path)


class Noisy(nn.Module):
    """A linear model behind noise on its input."""

    def __init__(self, noise):
        super().__init__()
        self.inner, self.noise = linear(), noise

    def forward(self, x):
        return self.inner(x + self.noise * torch.randn_like(x))


def test_a_model_that_throws_dice_is_measured_in_expectation():
    """The mean over noise of a linear model is the linear model, so its radii are known up to the noise of the mean."""
    x, y = images(linear())
    settings = EvaluationSettings(eps=0.02, **QUICK, expectation=50)
    first, again = (evaluate(Noisy(0.02), x, y, settings) for _ in range(2))
    truth = (radius(linear(), x, y) > 0.02).double().mean().item()
    assert first.record.expectation == 50
    assert first.record.worst_case_accuracy == pytest.approx(truth, abs=0.12)
    assert torch.equal(first.outcomes["robust/worst-case"], again.outcomes["robust/worst-case"])


def test_a_model_that_throws_no_dice_is_asked_once():
    x, y = images(linear())
    assert evaluate(linear(), x, y, EvaluationSettings(eps=0.02, **QUICK)).record.expectation == 1


def test_rounding_is_not_taken_for_dice():
    assert not is_random(Noisy(1e-7), images(linear())[0])
    assert is_random(Noisy(1e-2), images(linear())[0])


def test_a_shuffled_or_cut_set_of_images_gives_the_same_outcomes():
    """Random starts are keyed by the pixels of an image, not by its row."""
    model = linear()
    x, y = images(model)
    settings = EvaluationSettings(eps=0.02, **QUICK)
    whole = evaluate(model, x, y, settings).outcomes
    some = torch.randperm(90, generator=torch.Generator().manual_seed(3))[:50]
    part = evaluate(model, x[some], y[some], settings).outcomes
    for name in whole:
        if name.startswith(("robust/", "prediction/")):
            assert torch.equal(part[name], whole[name][some]), name


def test_standard_adds_the_attacks_of_autoattack_to_what_pgd_leaves():
    model = linear(classes=5)
    x, y = images(model)
    settings = EvaluationSettings(eps=0.02, **{**QUICK, "attacks": "standard"})
    evaluation = evaluate(model, x, y, settings)
    standard = [attack for attack in evaluation.record.attacks if attack.group == "standard"]
    assert [attack.name for attack in standard] == ["apgd-cross-entropy", "apgd-dlr-targeted", "fab-targeted", "square"]
    left = 90
    for attack in evaluation.record.attacks:
        left -= attack.added
        if attack.group == "standard":
            assert attack.attacked == left + attack.added
            assert attack.robust_accuracy == left / 90
    assert evaluation.record.worst_case_accuracy == left / 90
    assert left / 90 == pytest.approx((radius(model, x, y) > 0.02).double().mean().item(), abs=1e-9)


def test_attacks_are_chosen_by_their_names_and_each_runs_on_what_those_before_it_left():
    model = linear()
    x, y = images(model)
    few = {**QUICK, "curve": (), "eps": 0.02}
    record = evaluate(model, x, y, **{**few, "attacks": ["apgd-ce", "random-search", "paper"]}).record
    first, second = (attack for attack in record.attacks if attack.group == "chosen")
    assert (first.name, first.objective, first.black_box) == ("apgd-ce", "cross-entropy", False)
    assert (second.name, second.objective, second.black_box) == ("random-search", "", True)
    assert second.attacked == first.attacked - first.added
    assert record.verdict.reasons[0] == "The attacks of AutoAttack were not run."


def test_an_attack_runs_once_and_others_of_its_name_are_told_apart():
    model = linear()
    x, y = images(model, 30)
    settings = EvaluationSettings(attacks="quick,square,square,fmn", steps=(2,))
    planned = plan(AttackRunner(Subject(model, x, y)), settings, Threat("linf", 0.02), published=False)
    assert len({each.name for each in planned}) == len(planned)
    told = [(each.name, each.group) for each in planned if isinstance(each.attack, Square | FMN)]
    assert told == [
        ("square", "quick"),
        ("square-chosen", "chosen"),
        ("fmn", "chosen"),
        ("fmn-adaptive", "adaptive"),
    ]


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        ("standrd", "evaluate: unknown attack 'standrd'; did you mean 'standard'? known: adaptive, apgd-ce, .*"),
        (["square", "apgd"], "evaluate: unknown attack 'apgd'; did you mean 'apgd-ce'? known: .*"),
        ([], "evaluate: name at least one attack of adaptive, apgd-ce, .*"),
        ("transfer", "evaluate: unknown attack 'transfer'; .*"),
    ],
)
def test_attacks_that_are_not_known_are_refused_with_the_nearest_name(attacks, message):
    model = linear()
    with pytest.raises(RepulseError, match=f"^{message.replace('?', '[?]')}$"):
        evaluate(model, *images(model), attacks=attacks)


def test_the_smallest_perturbation_is_never_below_the_radius():
    model = linear()
    x, y = images(model, wrong=9)
    smallest = evaluate(model, x, y, EvaluationSettings(eps=0.05, **QUICK)).outcomes["smallest"]
    assert (smallest[:9] == 0).all()
    assert (smallest[9:] >= radius(model, x[9:], y[9:]) * 0.9999).all()
    assert torch.isfinite(smallest).any()


def test_a_model_outside_autograd_is_measured_by_attacks_without_gradients_and_never_believed():
    class Outside(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        @torch.no_grad()
        def forward(self, x):
            return self.inner(x)

    x, y = images(linear())
    record = evaluate(Outside(), x, y, EvaluationSettings(eps=0.1, **{**QUICK, "attacks": "standard"})).record
    assert [attack.name for attack in record.attacks] == ["square"], "the others stand still"
    assert record.worst_case_accuracy == pytest.approx((radius(linear(), x, y) > 0.1).double().mean().item(), abs=0.05)
    assert record.verdict.word != "measured"


def test_the_adaptive_evaluation_runs_everything_and_finds_no_less_than_the_standard_one():
    model = PrototypeClassifier(linear(classes=4), torch.eye(4), "cosine")
    x, y = images(model)
    x, y = x[:40], y[:40]
    quick = {**QUICK, "curve": ()}
    standard, adaptive = (
        evaluate(model, x, y, EvaluationSettings(eps=0.02, **{**quick, "attacks": name})).record
        for name in ("standard", "adaptive")
    )
    assert adaptive.worst_case_accuracy <= standard.worst_case_accuracy
    names = {attack.name for attack in adaptive.attacks if attack.group == "adaptive"}
    assert {"fmn", "apgd-prototype-distance", "random-search", "transfer", "hop-skip-jump"} <= names
    assert {attack.name for attack in standard.attacks} < {attack.name for attack in adaptive.attacks}


def test_an_honest_linear_model_is_believed_and_gets_its_closed_form():
    model = linear()
    x, y = images(model, wrong=9)
    settings = EvaluationSettings(eps=0.02, **{**QUICK, "attacks": "standard", "steps": (20,)})
    record = evaluate(model, x, y, settings).record
    truth = ((radius(model, x, y) > 0.02) & (model(x).argmax(1) == y)).double().mean().item()
    assert record.worst_case_accuracy == pytest.approx(truth, abs=1e-9)
    assert record.verdict.word == "measured"
    assert record.verdict.quote == record.worst_case_accuracy


def test_logits_that_do_not_fit_into_float32_are_not_believed():
    """Attacks on the margin find the truth all the same, and it is quoted; the cross-entropy figure is not."""

    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, x):
            return 1e4 * self.inner(x)

    model = linear()
    x, y = images(model)
    record = evaluate(Huge(), x, y, EvaluationSettings(eps=0.02, **{**QUICK, "attacks": "standard"})).record
    assert record.verdict.word == "overstated"
    assert record.verdict.quote == pytest.approx((radius(model, x, y) > 0.02).double().mean().item(), abs=1e-9)
    assert "cross-entropy" in record.verdict.claim_by or "training loss" in record.verdict.claim_by


def test_a_claim_that_is_too_high_is_overstated():
    model = linear()
    x, y = images(model)
    settings = EvaluationSettings(eps=0.02, claimed=0.99, **{**QUICK, "attacks": "standard"})
    verdict = evaluate(model, x, y, settings).record.verdict
    assert verdict.word == "overstated"
    assert verdict.claim == 0.99


def test_classes_that_only_an_attack_reaches_are_counted_too():
    """Images of three classes of ten: the confusion matrix has a row and a column for every class of the model."""
    model = linear(classes=10)
    x, y = images(model)
    few = y < 3
    evaluation = evaluate(model, x[few], y[few], EvaluationSettings(eps=0.2, **QUICK))
    attacked = torch.tensor(evaluation.record.confusion_attacked)
    assert attacked.shape == (10, 10)
    assert attacked[:3, 3:].sum() > 0
    assert attacked[3:].sum() == 0
    assert attacked.sum() == few.sum()
    assert evaluation.record.data.class_names == tuple("0123456789")


def test_the_model_is_left_in_the_mode_it_was_in():
    model = PrototypeClassifier(linear(), torch.eye(3), "linear").train()
    model.backbone.eval()
    x, y = images(model.backbone)
    evaluate(model, x, y, EvaluationSettings(eps=0.02, **QUICK))
    assert model.training
    assert not model.backbone.training


def test_outcomes_are_ordinary_tensors():
    model = PrototypeClassifier(linear(), torch.eye(3), "linear")
    x, y = images(model.backbone)
    outcomes = evaluate(model, x.requires_grad_(), y, EvaluationSettings(eps=0.02, **QUICK)).outcomes
    for name, value in outcomes.items():
        assert not value.is_inference(), name
        assert not value.requires_grad, name


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x, y: (x * 255, y), r"pixels must lie in \[0, 1\], got .*"),
        (lambda x, y: (x.where(x > x.min(), torch.nan), y), "an image holds a pixel that is not a finite number"),
        (lambda x, y: (x, y - 1), "labels must not be negative, got -1"),
        (lambda x, y: (x, y + 1), "labels run from 1 to 3, but classes count from 0 to 2: subtract 1 from every label"),
    ],
)
def test_impossible_images_and_labels_are_refused_even_where_the_model_errs_anyway(spoil, message):
    model = linear()
    x, y = images(model, wrong=90)
    with pytest.raises(RepulseError, match=f"^{message}$"):
        evaluate(model, *spoil(x, y), EvaluationSettings(**QUICK))


def test_a_model_may_have_more_outputs_than_the_data_has_classes():
    model = linear(classes=5)
    x, y = images(model)
    few = y < 2
    about = About(class_names=("a", "b"))
    record = evaluate(model, x[few], y[few], EvaluationSettings(**QUICK), about=about).record
    assert record.data.class_names == ("a", "b", "2", "3", "4")


def test_names_for_more_classes_than_the_model_has_are_refused():
    model = linear()
    with pytest.raises(RepulseError, match=r"^the model gives 3 outputs, but the data has 4 classes"):
        evaluate(model, *images(model), EvaluationSettings(**QUICK), about=About(class_names=("a", "b", "c", "d")))


def test_a_training_loss_needs_an_embedding():
    model = linear()
    with pytest.raises(RepulseError, match=r"^a training loss is attacked through the model's `embed` and `classify`"):
        evaluate(model, *images(model), EvaluationSettings(**QUICK), training_loss=lambda z, y: z.sum(1))


def test_no_images_are_refused():
    with pytest.raises(RepulseError, match=r"^there are no images to measure$"):
        evaluate(linear(), torch.empty(0, 1, 4, 4), torch.empty(0, dtype=torch.int64))


def test_progress_is_told_of_every_stage():
    model = linear()
    x, y = images(model)
    heard = []
    evaluate(model, x, y, EvaluationSettings(eps=0.001, **QUICK), progress=lambda *news: heard.append(news))
    assert ("PGD-5, margin", 90, 90) in heard
    assert all(0 <= done <= of for _, done, of in heard)
    # A stage is told of when it starts, not when it has ended.
    first = {stage: done for stage, done, _ in reversed(heard)}
    assert set(first.values()) == {0}
