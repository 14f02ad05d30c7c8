"""Where a trained model may lie: a run folder, the zoo that comes with the package, the Hugging Face Hub."""

from repulse.places.located import is_local, located

__all__ = ["is_local", "located"]
