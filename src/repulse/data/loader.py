"""Batches: the same images in the same order for any number of processes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from repulse.common.seeding import generator
from repulse.data.augment import Augment
from repulse.data.images import ImageSet, ImageSource

# Streamed batches are decoded this many steps ahead of the one that is used.
AHEAD = 3


def steps_per_epoch(count: int, batch_size: int, *, drop_last: bool) -> int:
    """The number of batches that `count` images make."""
    return count // batch_size if drop_last else -(-count // batch_size)


def batches(
    source: ImageSource,
    batch_size: int,
    *,
    epoch: int,
    seed: int,
    shuffle: bool,
    augment: Augment | None = None,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = False,
    channels_last: bool = False,
) -> Iterator[tuple[Float[Tensor, "B C H W"], Int64[Tensor, "B"]]]:
    """The images of one epoch, in [0, 1], with their labels.

    Order and augmentation are drawn for the whole batch from `seed` and `epoch`, and each process takes its share of
    the rows: two processes see exactly the images that one would.

    Args:
        source: the images.
        batch_size: images per batch over all processes; a process gets every `world_size`-th of them.
        epoch: from 0; another epoch gives another order.
        seed: of order and augmentation.
        shuffle: random order, or the source's.
        augment: random changes, or None.
        device: where the batches go; augmentation happens there.
        rank: number of this process.
        world_size: number of processes.
        drop_last: leave out a last batch that is not full.
        channels_last: memory layout of the batches.
    """
    count = len(source)
    order = torch.randperm(count, generator=generator(seed, "order", epoch)) if shuffle else torch.arange(count)
    mine = slice(rank, None, world_size)
    device = torch.device(device)
    steps = steps_per_epoch(count, batch_size, drop_last=drop_last)
    parts = [order[step * batch_size : (step + 1) * batch_size] for step in range(steps)]
    for step, (indices, fetched) in enumerate(zip(parts, _fetched(source, [p[mine] for p in parts]), strict=True)):
        images = fetched.to(device, non_blocking=True)
        if augment is not None:
            drawn = augment.choose(indices, source.image_shape, epoch, generator(seed, "augment", epoch, step))
            images = augment(images, drawn.rows(mine, device))
        pixels = images.float().div_(255)
        if channels_last:
            pixels = pixels.contiguous(memory_format=torch.channels_last)
        yield pixels, source.labels[indices[mine]].to(device, non_blocking=True)


def _fetched(source: ImageSource, parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """The images of each part in turn; those that must be decoded are fetched ahead, while earlier ones are used."""
    if isinstance(source, ImageSet):
        yield from map(source.fetch, parts)
        return
    waiting: deque[Future[Tensor]] = deque()
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fetch")
    try:
        for part in parts:
            waiting.append(executor.submit(source.fetch, part))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # A loop that is left early, by an error or a break, must not wait for batches that nobody will use.
        executor.shutdown(wait=True, cancel_futures=True)
