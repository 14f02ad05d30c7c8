"""Share a classifier on the Hugging Face Hub."""

from __future__ import annotations

from repulse.common.errors import RepulseError
from repulse.deploy.classifier import Classifier


def push(classifier: Classifier, name: str, *, private: bool = False) -> str:
    """Send a classifier with its model card to the Hub, and return the address of the commit.

    Raises:
        RepulseError: if nobody is logged in, the name is no `ORG/NAME`, or the Hub refuses or cannot be reached.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if name.count("/") != 1:
        raise RepulseError(f"a model of the Hugging Face Hub is named ORG/NAME, got {name!r}")
    try:
        address: str = classifier.push_to_hub(name, private=private, commit_message="Trained with repulse")
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        said = str(error).strip().splitlines()[0]
        raise RepulseError(f"cannot push to {name}: {said} (log in by `hf auth login`)") from error
    return address
