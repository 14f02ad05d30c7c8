"""Certificates on models whose exact radii are known: sound as they are, and caught where a fault is planted."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from repulse.attacks import APGD, OBJECTIVES, Ensemble, Member
from repulse.certification import lipschitz_method, margins_method, smoothing
from repulse.certification.certify import certify
from repulse.certification.methods import find_method
from repulse.certification.record import certified_accuracy, load_certificate
from repulse.certification.settings import CertificationSettings
from repulse.certification.soundness import SPACING, CertificateAttack, CertifiedModel, _rounded_down
from repulse.common.errors import RepulseError
from repulse.common.seeding import generator
from repulse.evaluation import About
from repulse.models import PrototypeClassifier
from repulse.models import lipschitz as lipschitz_layers
from repulse.models.linf_distance import LinfDistance, LinfDistanceNet
from repulse.models.lipschitz import orthogonal_linear
from repulse.subject import Subject


def isometry(scale=1.0, pixels=9, classes=3):
    """A rotation of the pixels, and prototypes around where mid-grey goes: its certificate is its exact radius."""
    rotation, _ = torch.linalg.qr(torch.randn(pixels, pixels, generator=generator(0, "rotation")))
    layer = nn.Linear(pixels, pixels, bias=False)
    with torch.no_grad():
        layer.weight.copy_(scale * rotation)
    centre = rotation @ torch.full((pixels,), 0.5)
    points = centre + 0.4 * torch.eye(pixels)[:classes]
    return PrototypeClassifier(nn.Sequential(nn.Flatten(), layer), scale * points, "l2")


def some(model, count=16, wrong=4):
    """Images whose nearest boundary lies within the range of pixels, with a few labels that are wrong."""
    x = 0.4 + 0.2 * torch.rand(count, 1, 3, 3, generator=generator(1, "images"))
    y = model(x).argmax(1)
    y[:wrong] = (y[:wrong] + 1) % 3
    return x, y


def exact(model, x, y):
    """The distance to the nearest boundary, 0 where the label is wrong: by planes, apart from the code."""
    scale = torch.linalg.matrix_norm(model.backbone[1].weight.detach().double(), 2)
    z, points = model.embed(x).detach().double(), model.prototypes.double()
    nearest = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for j in range(len(points)):
        normal, middle = points[y] - points[j], (points[y] + points[j]) / 2
        length = normal.norm(dim=1).clamp_min(1e-12)
        nearest = torch.where(y == j, nearest, nearest.minimum(((z - middle) * normal).sum(1) / length))
    return (nearest / scale).clamp_min(0)


@pytest.fixture
def light(monkeypatch):
    """Attacks of one member, so that a run takes no longer than it must."""
    monkeypatch.setattr("repulse.certification.soundness._ensemble", lambda *_, **__: LIGHT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A certification of the isometry, and the folder that it was written to."""
    model, folder = isometry(), tmp_path_factory.mktemp("certified")
    x, y = some(model)
    about = About(model="rotation", data="grey", class_names=("a", "b", "c"), command="repulse certify RUN")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("repulse.certification.soundness._ensemble", lambda *_, **__: LIGHT)
        return certify(model, x, y, ATTACK, about=about, folder=folder), folder, exact(model, x, y)


LIGHT = Ensemble((Member("apgd", "APGD, margin", APGD(OBJECTIVES["margin"], steps=10)),))
ATTACK = CertificationSettings(attack=True, radii=(0.0, 0.01, 0.05, 0.2))


def test_an_isometry_gets_its_exact_radii_and_attacks_leave_nothing_unknown(whole):
    certification, _, truth = whole
    record, outcomes = certification.record, certification.outcomes
    assert (record.method, record.norm, record.natural_accuracy) == ("lipschitz", "l2", 12 / 16)
    assert record.lipschitz.constant == pytest.approx(1, abs=1e-6)
    assert (outcomes["radius"] <= truth).all()
    assert torch.allclose(outcomes["radius"], truth, atol=1e-4)
    assert (outcomes["radius"][:4] == 0).all()
    assert record.sound is True
    assert record.soundness.images == int((outcomes["radius"] > 0).sum())
    record.check_sound()
    for point in record.points:
        expected = (truth > point.radius).double().mean().item()
        assert point.certified == pytest.approx(expected)
        # At most one image whose nearest boundary APGD did not go to.
        assert point.certified <= point.attacked <= expected + 1.01 / 16
    assert 0 < record.points[1].certified < record.points[0].certified


def test_every_figure_can_be_counted_again(whole):
    certification, _, _ = whole
    record, outcomes = certification.record, certification.outcomes
    right = outcomes["prediction"] == outcomes["label"]
    assert record.natural_accuracy == right.double().mean().item()
    assert (outcomes["radius"][~right] == 0).all()
    for index, point in enumerate(record.points):
        assert point.certified == certified_accuracy(outcomes["radius"], point.radius)
        assert point.attacked == outcomes["robust"][:, index].double().mean().item()
        assert (outcomes["robust"][:, index].bool() >= (outcomes["radius"] > point.radius)).all()
    assert record.soundness.broken == tuple(outcomes["broken"].nonzero().flatten().tolist())


def test_a_layer_that_is_scaled_is_seen_by_the_verification(light):
    """The certificate uses what is measured of the layer, not what the layer was made to be."""
    plain, faulty = isometry(), isometry()
    with torch.no_grad():
        faulty.backbone[1].weight.mul_(1.05)
    x, y = some(faulty, wrong=0)
    record = certify(faulty, x, y, ATTACK).record
    assert record.lipschitz.constant == pytest.approx(1.05, abs=1e-6)
    (layer,) = [layer for layer in record.lipschitz.layers if layer.kind == "Linear"]
    assert layer.lower == pytest.approx(1.05, abs=1e-6)
    assert record.sound is True
    assert certify(plain, x, y).record.lipschitz.constant == pytest.approx(1, abs=1e-6)


def test_a_layer_that_is_scaled_behind_the_verification_is_caught_by_the_attack(light, monkeypatch):
    """Five per cent too much: the constant is that of the layer before it was scaled."""
    faulty, believed = isometry(), lipschitz_method.lipschitz_bound(isometry(), (1, 3, 3))
    with torch.no_grad():
        faulty.backbone[1].weight.mul_(1.05)
    monkeypatch.setattr(lipschitz_method, "lipschitz_bound", lambda model, shape: believed)
    x, y = some(faulty, wrong=0)
    certification = certify(faulty, x, y, ATTACK)
    record = certification.record
    assert record.sound is False
    assert len(record.soundness.broken) >= record.soundness.images - 1
    first = record.soundness.broken[0]
    distance = certification.outcomes["broken/distance"][first]
    assert exact(faulty, x, y)[first] - 1e-6 < distance < certification.outcomes["radius"][first]
    named = ", ".join(map(str, record.soundness.broken[:5]))
    with pytest.raises(
        RepulseError, match=rf"unsound: attacks broke \d+ of {record.soundness.images} certificates"
    ) as error:
        record.check_sound()
    assert f"(images {named}, ...)" in str(error.value)


def test_a_certificate_that_claims_half_as_much_again_is_caught(light, monkeypatch):
    honest = margins_method.certified_radius
    monkeypatch.setattr(margins_method, "certified_radius", lambda *a, **k: 1.5 * honest(*a, **k))
    model = isometry()
    x, y = some(model)
    record = certify(model, x, y, ATTACK).record
    assert record.sound is False
    assert not set(range(4)) & set(record.soundness.broken)


def linf_net():
    """One layer of L-inf distances to corners: half the difference of two of them is nearly the exact radius."""
    net = LinfDistanceNet(1, 3, 3, depth=1, grid=3)
    (layer,) = [layer for layer in net.layers if isinstance(layer, LinfDistance)]
    with torch.no_grad():
        layer.weight.copy_((torch.rand(3, 9, generator=generator(0, "corners")) < 0.5).float())
    return PrototypeClassifier(net, -torch.eye(3), "linear").eval()


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_l_inf_certificates_hold_and_larger_ones_do_not(light, monkeypatch, factor):
    honest = margins_method.certified_radius
    monkeypatch.setattr(margins_method, "certified_radius", lambda *a, **k: factor * honest(*a, **k))
    model = linf_net()
    x = torch.rand(12, 1, 3, 3, generator=generator(3, "images"))
    y = model(x).argmax(1)
    certification = certify(model, x, y, CertificationSettings(attack=True, radii=(0.0, 8 / 255, 0.1)))
    record = certification.record
    assert (record.method, record.norm) == ("linf-distance", "linf")
    assert record.lipschitz.constant == pytest.approx(1)
    assert 0 < record.slack < 1e-4
    assert record.points[1].certified > 0.3
    assert record.sound is (factor == 1.0)


@pytest.mark.parametrize("factor", [1.0, 1.6])
def test_smoothed_certificates_hold_and_larger_ones_do_not(light, monkeypatch, factor):
    """Smoothing an isometry's half-spaces leaves their boundary where it is."""
    honest = smoothing.smoothed_radius
    monkeypatch.setattr(smoothing, "smoothed_radius", lambda *a: factor * honest(*a))
    model = isometry(classes=2)
    x = 0.35 + 0.3 * torch.rand(12, 1, 3, 3, generator=generator(1, "images"))
    y = model(x).argmax(1)
    how = CertificationSettings(method="smoothing", sigma=0.1, n=1000, attack=True, radii=(0.0, 0.05), draws=30)
    certification = certify(model, x, y, how)
    record, outcomes = certification.record, certification.outcomes
    assert (record.method, record.norm) == ("smoothing", "l2")
    assert (record.smoothing.sigma, record.smoothing.n, record.smoothing.n0) == (0.1, 1000, 100)
    assert record.smoothing.abstained == (outcomes["prediction"] == -1).double().mean().item()
    assert record.points[1].certified > 0.1
    assert record.sound is (factor == 1.0)
    if factor == 1.0:
        assert (outcomes["radius"] <= exact(model, x, y)).all()


def test_a_record_comes_back_as_it_was_written(whole):
    certification, folder, _ = whole
    record, outcomes = load_certificate(folder)
    assert record == certification.record
    assert outcomes.keys() == certification.outcomes.keys()
    assert all(torch.equal(outcomes[name], value) for name, value in certification.outcomes.items())
    assert record.environment["command"] == "repulse certify RUN"
    assert not (folder / "progress").exists()


def test_batch_size_changes_no_radius_and_no_verdict(light, whole):
    model = isometry()
    x, y = some(model)
    small, large = certify(model, x, y, ATTACK.model_copy(update={"batch_size": 3})).outcomes, whole[0].outcomes
    assert torch.allclose(small["radius"], large["radius"], atol=1e-6)
    assert torch.equal(small["robust"], large["robust"])
    assert torch.equal(small["broken"], large["broken"])


def test_what_is_no_certificate_is_one_line(tmp_path):
    with pytest.raises(RepulseError) as error:
        load_certificate(tmp_path)
    assert str(error.value) == f"{tmp_path} holds no certificate.json: make one with `repulse certify`"
    (tmp_path / "certificate.json").write_text("{}")
    with pytest.raises(RepulseError, match="is not a certificate that this version reads: created: Field required"):
        load_certificate(tmp_path)


def test_a_model_without_proof_is_sent_to_smoothing():
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    with pytest.raises(RepulseError) as error:
        certify(model, torch.rand(2, 1, 3, 3), torch.tensor([0, 1]))
    assert str(error.value) == (
        "nothing built into this model proves anything (linf-distance and lipschitz: a Sequential has no embedding and "
        "no prototypes to measure a margin between); any model can be smoothed, which certifies what it answers under "
        "noise: --method smoothing"
    )
    assert (
        certify(
            model, torch.rand(2, 1, 3, 3), torch.tensor([0, 1]), CertificationSettings(method="smoothing", n=20)
        ).record.norm
        == "l2"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": 0.5}, "sigma means nothing without method smoothing"),
        ({"n": 5}, "n means nothing without method smoothing"),
        ({"ensemble": "quick"}, "ensemble means nothing without attack"),
        ({"method": "smoothing", "draws": 5}, "draws means nothing without attack"),
        ({"radii": (-0.1,)}, "radii must be finite numbers, not negative, got [-0.1]"),
    ],
)
def test_settings_that_do_nothing_or_are_impossible_are_refused(changes, message):
    with pytest.raises(RepulseError) as error:
        certify(isometry(), torch.rand(2, 1, 3, 3), torch.tensor([0, 1]), CertificationSettings(**changes))
    assert str(error.value) == message


def test_a_map_that_moves_no_pixel_is_certified_in_the_norm_that_its_readout_has():
    """Flattening stretches neither norm; squared L2 distances have margins in L2 alone."""
    model = PrototypeClassifier(nn.Flatten(), torch.eye(9)[:3], "l2")
    assert find_method("auto", model, (1, 3, 3))[0] == "lipschitz"
    with pytest.raises(RepulseError, match=r"^no L-inf radius for readout 'l2'; known: linear, linf$"):
        find_method("linf-distance", model, (1, 3, 3))


def test_no_images_are_refused():
    with pytest.raises(RepulseError) as error:
        certify(isometry(), torch.rand(0, 1, 3, 3), torch.zeros(0, dtype=torch.int64))
    assert str(error.value) == "there are no images to certify"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 3), min_size=1, max_size=20), st.sampled_from(["l2", "linf"]))
def test_radii_are_rounded_down_by_little_and_without_regard_to_neighbours(values, norm):
    radius = torch.tensor(values, dtype=torch.float64)
    floor = _rounded_down(radius, norm)
    assert (floor <= radius).all()
    assert (floor > radius / (1 + SPACING) - 1e-4)[radius > 1e-3].all()
    for value, rounded in zip(values, floor, strict=True):
        assert _rounded_down(torch.tensor([value], dtype=torch.float64), norm)[0] == rounded


def test_an_attack_counts_only_what_lies_inside():
    """A judge that calls everything wrong: distances are what decides, and they are those of the pixels."""
    model = isometry()
    x, y = some(model, 6, wrong=0)
    attack = CertificateAttack(
        Subject(model, x, y, batch_size=4),
        CertifiedModel(model, lambda images, labels, ids: torch.ones(len(images), dtype=torch.bool)),
        "l2",
        Ensemble((Member("apgd", "APGD", APGD(OBJECTIVES["margin"], steps=5)),)),
    )
    truth = exact(model, x, y)
    inside, outside = truth * 0.99, truth * 1.01
    assert not attack.at_own_radius(inside).any()
    assert attack.at_own_radius(outside).all()
    assert (attack.nearest > inside).all()
    assert attack.forward_passes > attack.backward_passes > 0
    assert math.isfinite(float(attack.nearest.max()))


class Mistaken(nn.Module):
    """A copy gone wrong: it gives the next class."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).roll(1, 1)


def test_what_fools_only_the_copy_does_not_count_and_the_model_itself_is_attacked(light, whole, monkeypatch):
    """The copy calls every image wrong, so that attacks stop at once: the model says no, and is asked in earnest."""
    monkeypatch.setattr("repulse.certification.soundness.folded", lambda model, x: Mistaken(model))
    model = isometry()
    certification = certify(model, *some(model), ATTACK)
    assert certification.record.sound is True
    honest = whole[0]
    assert torch.equal(certification.outcomes["robust"], honest.outcomes["robust"])
    assert certification.record.soundness.forward_passes > honest.record.soundness.forward_passes


def test_without_the_model_itself_nothing_is_sought_again():
    model = isometry()
    x, y = some(model, 6, wrong=0)

    def nearest(itself):
        attack = CertificateAttack(
            Subject(model, x, y, batch_size=4),
            CertifiedModel(
                Mistaken(model), lambda images, labels, ids: model(images).argmax(1) != labels, itself=itself
            ),
            "l2",
            LIGHT,
        )
        return attack.at_own_radius(exact(model, x, y) * 1.01)

    assert not nearest(None).any()
    assert nearest(model).all()


def test_attacks_of_a_certificate_compute_no_weights_anew(light, monkeypatch):
    with_gradients, honest = [], lipschitz_layers.orthonormal

    def counted(weight):
        with_gradients.append(torch.is_grad_enabled())
        return honest(weight)

    def asked(settings):
        """How often the weights were computed where gradients flow: in attacks, and in the copies of a proof."""
        with_gradients.clear()
        assert certify(model, x, y, settings).record.sound is (True if settings.attack else None)
        return with_gradients.count(True)

    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), orthogonal_linear(9, 9))
    model = PrototypeClassifier(backbone, 0.4 * torch.eye(9)[:3], "l2").eval()
    x, y = some(model, 6, wrong=0)
    monkeypatch.setattr(lipschitz_layers, "orthonormal", counted)
    assert asked(ATTACK) == asked(CertificationSettings())
    monkeypatch.setattr("repulse.certification.soundness.folded", lambda model, x: model)
    assert asked(ATTACK) > 20 + asked(CertificationSettings())


def test_certify_takes_what_evaluate_takes(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 3))
    levels = torch.randint(0, 256, (4, 1, 3, 3))
    x = levels.float() / 255
    y = model(x).argmax(1)
    how = {"method": "smoothing", "n": 20, "n0": 5, "sigma": 0.1}
    expected = certify(model, x, y, CertificationSettings(**how)).outcomes["radius"]
    together = torch.utils.data.TensorDataset(x, y)
    for data in (
        (x.numpy(), y.tolist()),
        (levels.to(torch.uint8).numpy(), nn.functional.one_hot(y, 3)),
        (together,),
        (torch.utils.data.DataLoader(together, batch_size=3),),
    ):
        for each in (model, lambda images: model(images)):
            assert torch.equal(certify(each, *data, **how).outcomes["radius"], expected)
    with pytest.raises(RepulseError, match=r"^give settings as an object or by their names, not both$"):
        certify(model, x, y, CertificationSettings(), n=5)
    with pytest.raises(RepulseError, match=r"unknown key in certify: 'sigmas'; did you mean 'sigma'"):
        certify(model, x, y, sigmas=3)
