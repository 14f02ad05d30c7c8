"""Radii that cannot be meant are asked about, wherever a radius is given; curves reach beyond eps in every norm."""

import pytest
import torch
from torch import nn

from repulse import CertificationSettings, EvaluationSettings, certify, evaluate
from repulse.cli import main
from repulse.common.errors import RepulseError
from repulse.models import PrototypeClassifier
from repulse.models.linf_distance import LinfDistanceNet

EIGHT = "8 in L-inf reaches every image, for pixels lie in [0, 1]; did you mean 8/255?"
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
IMAGES, LABELS = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("evaluate RUN --eps 8", f"repulse evaluate: eps {EIGHT}"),
        ("evaluate RUN --curve 0,8", f"repulse evaluate: radius {EIGHT}"),
        ("train --output RUN --preset pgd-at --recipe.eps 8", f"eps {EIGHT}"),
        ("train --output RUN --preset free --recipe.eps 8", f"eps {EIGHT}"),
        ("train --output RUN --recipe.name trades --recipe.eps 8", f"eps {EIGHT}"),
    ],
)
def test_commands_ask_whether_255ths_were_meant(line, said, capsys):
    assert main(line.split()) == 2
    (only,) = capsys.readouterr().err.splitlines()
    assert only.endswith(said)


def test_python_asks_too():
    with pytest.raises(RepulseError, match=r"evaluate: eps 8 in L-inf .* did you mean 8/255\?$"):
        evaluate(MODEL, IMAGES, LABELS, eps=8)
    with pytest.raises(ValueError, match=r"did you mean 8/255\?"):
        EvaluationSettings(eps=8)
    torch.manual_seed(0)
    proved = PrototypeClassifier(LinfDistanceNet(1, 3, 8, grid=4), torch.eye(3), "linf", temperature=0.1)
    images = torch.rand(2, 1, 4, 4)
    with pytest.raises(RepulseError, match=r"^radius 8 in L-inf .* did you mean 8/255\?$"):
        certify(proved, images, LABELS, CertificationSettings(radii=(0.0, 8.0)))


def test_above_a_half_is_a_note_and_l2_has_radii_of_any_size(capsys):
    EvaluationSettings(eps=0.6)
    assert "eps 0.6 in L-inf is so wide that black and white can both be turned to grey" in capsys.readouterr().err
    EvaluationSettings(norm="l2", eps=8, curve=(0, 8, 16))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.5), ("l2", 3.0), ("linf", 8 / 255), ("linf", 0.3), ("linf", 0.9)])
def test_the_usual_curve_reaches_beyond_eps_and_not_beyond_every_image(norm, eps):
    radii = EvaluationSettings(norm=norm, eps=eps).radii
    assert radii[0] == 0 < eps < radii[-1]
    assert norm == "l2" or radii[-1] <= 1
