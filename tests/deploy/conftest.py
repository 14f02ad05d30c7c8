import pytest
import torch
from PIL import Image

from repulse import PrototypeClassifier, RunConfig, make_prototypes
from repulse.deploy import Classifier
from repulse.models import make_backbone
from repulse.run_folder import Classes, write_head

NAMES = ("cat", "dog", "owl")


@pytest.fixture
def classifier(tmp_path):
    """An untrained classifier of small grey images, in a run folder of its own."""
    return made(tmp_path / "run")


def made(folder, backbone="small-cnn", readout="cosine", dimension=3, size=12, width=0.25, **more):
    torch.manual_seed(0)
    network = make_backbone(backbone, channels=1, dimension=dimension, width=width, **more)
    prototypes = make_prototypes("simplex", 3, dimension)
    model = PrototypeClassifier(network, prototypes, readout, temperature=0.1, mean=(0.4,)).eval()
    settings = {"backbone": {"name": backbone, **more}, "width": width, "readout": readout, "standardise": False}
    config = RunConfig(name="pets", model=settings | {"temperature": 0.1}, data={"source": str(folder.parent / "pets")})
    classes = Classes(NAMES, (1, size, size), (0.4,), (1.0,), "pets", "0" * 64)
    write_head(folder, config, prototypes, classes)
    return Classifier(model, config, classes, folder)


@pytest.fixture
def photographs(tmp_path):
    """A folder of photographs, larger than the classifier's images and in colour, one of them in a folder below."""
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.jpg", "more/c.png")):
        Image.effect_noise((40, 30), 80 + number).convert("RGB").save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder
