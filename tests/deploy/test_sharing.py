"""What is shared loads again as it was, says what was measured, and tells nothing of this machine."""

import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import hub_mixin

from repulse.cli import main
from repulse.common.errors import RepulseError
from repulse.common.settings import merge
from repulse.deploy import Classifier
from repulse.deploy.push import push
from repulse.run_folder import load_run

IMAGES = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))


def test_a_shared_classifier_answers_as_before(classifier, tmp_path):
    classifier.save_pretrained(tmp_path / "shared")
    for place in (tmp_path / "shared", f"hub:{tmp_path / 'shared'}", str(tmp_path / "shared")):
        other = Classifier.load(place)
        assert torch.equal(other.model(IMAGES), classifier.model(IMAGES))
        assert other.classes == classifier.classes
    again = Classifier.from_pretrained(str(tmp_path / "shared"))
    assert torch.equal(again.model(IMAGES), classifier.model(IMAGES))
    model, _, _ = load_run(f"hub:{tmp_path / 'shared'}")
    assert torch.equal(model(IMAGES), classifier.model(IMAGES))


def test_nothing_shared_tells_of_this_machine(classifier, tmp_path):
    folder = tmp_path / "shared"
    classifier.save_pretrained(folder)
    for file in folder.rglob("*"):
        if file.is_file() and file.name != "environment.json":
            assert str(tmp_path).encode() not in file.read_bytes(), file
    assert Classifier.load(folder).config.data.source == "pets"


def test_the_card_says_what_was_measured(tmp_path):
    Classifier.load("zoo:digits-softmax").save_pretrained(tmp_path / "shared")
    card = (tmp_path / "shared" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: repulse\n")
    assert "of 359 test images (95 % interval" in card
    assert "Robust, digits, test, 359 images, L-inf, eps" in card
    assert "Verdict: **measured**" in card
    assert "Classifier.load(" in card


def test_the_card_says_what_was_not_measured(classifier, tmp_path):
    classifier.save_pretrained(tmp_path / "shared")
    assert "Natural accuracy was not measured." in (tmp_path / "shared" / "README.md").read_text(encoding="utf-8")


class FakeHub:
    """The Hub's interface as far as it is used here; what is sent goes to a folder."""

    place: Path
    made: list

    def __init__(self, token=None):
        pass

    def create_repo(self, repo_id, private, exist_ok):
        FakeHub.made.append((repo_id, private))
        return type("Repo", (), {"repo_id": repo_id})

    def upload_folder(self, repo_id, folder_path, **_):
        shutil.copytree(folder_path, FakeHub.place / repo_id)
        return f"https://hub/{repo_id}/commit/1"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    FakeHub.place, FakeHub.made = tmp_path / "hub", []
    monkeypatch.setattr(hub_mixin, "HfApi", FakeHub)
    return FakeHub


def test_what_is_pushed_can_be_loaded(classifier, hub, capsys, tmp_path):
    classifier.save_pretrained(tmp_path / "run2")
    assert main(["push", str(tmp_path / "run2"), "me/pets", "--private"]) == 0
    assert capsys.readouterr().out == "pushed: https://hub/me/pets/commit/1\n"
    assert hub.made == [("me/pets", True)]
    assert torch.equal(Classifier.load(f"hub:{hub.place / 'me/pets'}").model(IMAGES), classifier.model(IMAGES))


def test_a_folder_in_place_of_the_hub_sends_nothing(classifier, hub, capsys, tmp_path):
    classifier.save_pretrained(tmp_path / "run2")
    assert main(["push", str(tmp_path / "run2"), "--folder", str(tmp_path / "out")]) == 0
    assert "nothing was sent" in capsys.readouterr().out
    assert hub.made == []
    assert (tmp_path / "out" / "README.md").is_file()


def test_a_name_that_is_none_of_the_hub_is_refused(classifier, hub):
    with pytest.raises(RepulseError, match=r"^a model of the Hugging Face Hub is named ORG/NAME, got 'pets'$"):
        push(classifier, "pets")
    with pytest.raises(RepulseError, match=r"^a b/c/d is neither a folder nor a name ORG/NAME of the"):
        Classifier.load("hub:a b/c/d")


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(name, **options):
        raise LocalEntryNotFoundError("many\nlines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(RepulseError, match=r"^hub:me/pets is not in the cache, and the Hugging Face Hub"):
        Classifier.load("hub:me/pets")


def test_the_file_that_a_run_began_with_is_shared_by_its_last_name_only(classifier):
    config = merge(classifier.config, {"model": {"pretrained": "/home/me/net.pt"}, "fit": {"wandb": "secret"}}, "test")
    shared = Classifier(classifier.model, config, classifier.classes, classifier.folder).public_config()
    assert (str(shared.model.pretrained), shared.fit.wandb) == ("net.pt", None)
