"""A trained classifier with all that it takes to use it: classes, image size, and what was measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelHubMixin

from repulse.common.errors import RepulseError
from repulse.common.files import save_tensors, write_atomically, writing
from repulse.common.run_files import CONFIG_FILE
from repulse.common.settings import to_yaml
from repulse.config.run import RunConfig
from repulse.deploy.card import model_card
from repulse.deploy.certificates import find_certificate
from repulse.deploy.images import Batches, Images
from repulse.deploy.predictions import Prediction
from repulse.models import PrototypeClassifier
from repulse.places import located
from repulse.places.hub import fetched
from repulse.run_folder import Checkpoint, Classes, load_run

# Besides weights and configuration, what a copy of a run keeps.
_KEPT = ("classes.json", "prototypes.safetensors", "environment.json", "test.json")


class Classifier(ModelHubMixin, library_name="repulse", tags=["image-classification", "adversarial-robustness"]):
    """A trained model that answers for images with the names of its classes.

    >>> from repulse import Classifier
    >>> classifier = Classifier.load("zoo:digits-pgd")
    >>> classifier.predict(torch.zeros(1, 1, 8, 8))[0].label in classifier.classes.names
    True

    Through Hugging Face's `ModelHubMixin` it also has `save_pretrained(folder)`, `from_pretrained(folder_or_id)` and
    `push_to_hub("ORG/NAME")`, which write a model card from what was measured.

    Args:
        model: in evaluation mode.
        config: that it was trained with.
        classes: their names, the image shape, the normalisation.
        folder: the run folder that it was read from.
    """

    def __init__(self, model: PrototypeClassifier, config: RunConfig, classes: Classes, folder: Path) -> None:
        self.model, self.config, self.classes, self.folder = model, config, classes, folder

    @classmethod
    def load(cls, place: str | Path, checkpoint: Checkpoint = "last", *, device: str = "cpu") -> Classifier:
        """The classifier of a run folder, of the Hub or of the zoo.

        Args:
            place: a run folder; `hub:ORG/NAME`, or `hub:` and a folder that `save_pretrained` wrote; `zoo:NAME`.
            checkpoint: weights of the `last` epoch, or of the `best` in validation accuracy.
            device: cpu, cuda, or auto.

        Raises:
            RepulseError: if there is no such thing, or it cannot be had without a network.
        """
        folder = located(place)
        model, config, classes = load_run(folder, checkpoint)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise RepulseError(f"cannot use device {device!r}: {str(error).splitlines()[0]}") from error
        return cls(model, config, classes, folder)

    def predict(
        self,
        images: Images,
        *,
        top_k: int = 1,
        certify: float | None = None,
        batch_size: int = 100,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> list[Prediction]:
        """The classes of images, which are brought to the size and the colours of the training images.

        Args:
            images: a file, a folder, a list of these or of Pillow images; or pixels (N, C, H, W) of the training's
                shape, in [0, 1] or as whole numbers 0 to 255.
            top_k: how many classes to name for each image; all, if there are not as many.
            certify: a radius in pixels of [0, 1]; each prediction then says which radius is proved of it, and whether
                that is as large. The norm is the one that the network was built for.
            batch_size: images at once.
            progress: told of the stage, how many images are done, and of how many.

        Raises:
            RepulseError: if an image is missing, broken or of the wrong kind, or nothing can be proved of this model.
        """
        if top_k < 1:
            raise RepulseError(f"top_k must be at least 1, got {top_k}")
        if certify is not None and not 0 <= certify < float("inf"):
            raise RepulseError(f"the radius to certify must be a finite number, not negative, got {certify}")
        batches = Batches(images, self.classes.image_shape, batch_size)
        certificate = None if certify is None else find_certificate(self.model, self.classes.image_shape)
        names, found = self.classes.names, []
        for files, pixels in batches:
            x = pixels.to(self.model.prototypes.device)
            with torch.inference_mode():
                z = self.model.embed(x)
                best = self.model.classify(z).float().softmax(1).topk(min(top_k, len(names)), dim=1)
            radii = None if certificate is None else certificate.radii(x, z, best.indices[:, 0]).tolist()
            for i, (file, shares, indices) in enumerate(
                zip(files, best.values.tolist(), best.indices.tolist(), strict=True)
            ):
                top = tuple((names[index], share) for index, share in zip(indices, shares, strict=True))
                proof: dict[str, Any] = {}
                if certificate is not None and radii is not None and certify is not None:
                    proof = {"norm": certificate.norm, "radius": radii[i], "proved": radii[i] >= certify}
                found.append(Prediction(file, top[0][0], indices[0], top[0][1], top, **proof))
            if progress is not None:
                progress("predicting", len(found), len(batches))
        return found

    def public_config(self) -> RunConfig:
        """The configuration without paths of this machine: what is shared says the last part of them only."""
        data, prototypes = self.config.data, self.config.prototypes
        if Path(data.source).expanduser().is_dir() or Path(data.source).is_absolute():
            data = data.model_copy(update={"source": Path(data.source).name})
        if prototypes.file is not None:
            prototypes = prototypes.model_copy(update={"file": Path(prototypes.file.name)})
        model, fit = self.config.model, self.config.fit.model_copy(update={"wandb": None})
        if isinstance(model.pretrained, Path):
            model = model.model_copy(update={"pretrained": Path(model.pretrained.name)})
        return self.config.model_copy(update={"data": data, "prototypes": prototypes, "model": model, "fit": fit})

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write what `load` reads, the records of evaluations, and the model card; paths of this machine are left out.

        The weights are those of now.
        """
        with writing(save_directory):
            for name in _KEPT:
                if (self.folder / name).is_file():
                    shutil.copyfile(self.folder / name, save_directory / name)
            for record in sorted(self.folder.glob("evaluations/*/record.json")):
                target = save_directory / record.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(record, target)
        weights = {name: value.cpu().contiguous() for name, value in self.model.state_dict().items()}
        save_tensors(save_directory / "checkpoints" / "last.safetensors", weights, {})
        public = self.public_config()
        write_atomically(save_directory / CONFIG_FILE, to_yaml(public))
        card = model_card(self.folder, self.model, public, self.classes)
        write_atomically(save_directory / "README.md", card)
        # The Hub counts downloads by this file.
        about = {"library": "repulse", "backbone": str(public.model.backbone), "classes": list(self.classes.names)}
        write_atomically(save_directory / "config.json", json.dumps(about, indent=1) + "\n")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> Classifier:
        known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        folder = fetched(model_id, **{key: value for key, value in options.items() if key in known})
        return cls(*load_run(folder), folder)
