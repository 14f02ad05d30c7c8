"""Images and labels as tensors, from anywhere."""

from repulse.data.augment import Augment
from repulse.data.images import DataSplits, ImageSet, ImageSource, subset
from repulse.data.load import data_kept, load_data, load_test
from repulse.data.loader import batches, steps_per_epoch
from repulse.data.stream import StreamedImages

__all__ = [
    "Augment",
    "DataSplits",
    "ImageSet",
    "ImageSource",
    "StreamedImages",
    "batches",
    "data_kept",
    "load_data",
    "load_test",
    "steps_per_epoch",
    "subset",
]
