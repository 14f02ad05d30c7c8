"""The one attack loop: which images still stand, what the model was asked, and who fell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from repulse.attacks.decision import decide
from repulse.attacks.noise import Noise
from repulse.attacks.objectives import Objective, margin, uphill
from repulse.attacks.passes import Passes
from repulse.attacks.per_image import Framed
from repulse.attacks.targets import TargetedObjective
from repulse.attacks.threat import Threat
from repulse.common.errors import RepulseError

Value = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(images (M, *shape), rows (M,)) -> values (M,), logits (M, n)`: an objective on some rows of a batch."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said about some images; entries follow the rows that were asked about."""

    values: Float[Tensor, "M"]
    """The objective."""
    gradient: Float[Tensor, "M *shape"]
    """Its gradient in the image, with zeros for what is not a number; zero if none was asked for."""
    fooled: Bool[Tensor, "M"]
    """Where this image fools the model, in the ball or not."""
    stay: Int64[Tensor, "K"]
    """Places of the rows that still stand."""


class Standing:
    """The images of a batch that an attack is after. It asks here and nowhere else, so passes and successes are noted.

    An image falls, and leaves `rows`, when one near enough to it fools the model.

    Args:
        model: maps images to logits; frozen and in evaluation mode.
        clean: the batch.
        labels: true classes.
        threat: what is allowed.
        noise: random numbers of the batch.
        enough: an image falls when a success lies at most so far away; None: inside the ball.
    """

    def __init__(
        self,
        model: nn.Module,
        clean: Float[Tensor, "N *shape"],
        labels: Int64[Tensor, "N"],
        threat: Threat,
        noise: Noise,
        enough: float | None = None,
    ) -> None:
        self.model, self.clean, self.labels, self.threat, self.noise = model, clean, labels, threat, noise
        self._frame = model if isinstance(model, Framed) else None
        self.enough = threat.eps + threat.tolerance if enough is None else enough
        self.passes = Passes.none(clean)
        self.nearest = clean.clone()
        """The nearest image that fools the model; the clean one where there is none."""
        self.distance = clean.new_full((len(clean),), torch.inf)
        """How far away that lies."""
        self.shown = clean.clone()
        """The image in the ball that came nearest to fooling, or that the attack chose to show."""
        self.margin = clean.new_full((len(clean),), -torch.inf)
        """Its largest wrong logit minus the true one."""
        self.broken = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        """Where the model answered an image with logits that are not numbers."""
        self._clean_logits: Tensor | None = None
        self._asked_clean = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        self._focus = torch.ones(len(clean), dtype=torch.bool, device=clean.device)

    @property
    def rows(self) -> Int64[Tensor, "M"]:
        """Rows of the batch that still stand, and that the attack is asked to look at."""
        return ((self.distance > self.enough) & self._focus).nonzero().flatten()

    @contextmanager
    def only(self, which: Bool[Tensor, "N"]) -> Iterator[None]:
        """Within this context `rows` are only some of those that stand."""
        before, self._focus = self._focus, self._focus & which
        try:
            yield
        finally:
            self._focus = before

    def radius(self) -> Float[Tensor, "N"]:
        """Where each image would fall, in multiples of eps, if its margin went on as it rose so far; inf: it did not.

        The margin of the clean image and the largest one met inside the ball make a line, whose zero this is.
        """
        logits = self.clean_logits()
        before = margin(logits, self.labels).to(self.margin)
        return torch.where(self.margin > before, before / (before - self.margin), torch.inf)

    def asking(self, rows: Int64[Tensor, "M"]) -> None:
        """Tell a model of images with boxes of their own which ones it is asked about next."""
        if self._frame is not None:
            self._frame.rows = rows

    def still(self, rows: Int64[Tensor, "M"]) -> Int64[Tensor, "K"]:
        """Places of those among some rows that still stand."""
        return (self.distance[rows] > self.enough).nonzero().flatten()

    def value(self, objective: Objective) -> Value:
        """An objective on rows of this batch."""
        return lambda images, rows: objective(self.model, images, self.labels[rows])

    def towards(self, target: Int64[Tensor, "N"], objective: TargetedObjective) -> Value:
        """A targeted objective, with a target for every row of the batch."""

        def value(images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            logits: Tensor = self.model(images)
            return objective(logits, self.labels[rows], target[rows]), logits

        return value

    def random_point(self, rows: Int64[Tensor, "M"], *key: str | int) -> Float[Tensor, "M *shape"]:
        """A point drawn uniformly from the ball of each of some rows."""
        return self.threat.random_point(self.clean[rows], self.noise.take(rows), *key)

    def clean_logits(self) -> Float[Tensor, "N n"]:
        """Logits of the clean images, asked for once; zero where a row had fallen before."""
        rows = self.rows
        if self._clean_logits is not None:
            rows = rows[~self._asked_clean[rows]]
        if len(rows):
            with torch.no_grad():
                logits = self.look(self.clean[rows], rows, self._margin)[1]
            if self._clean_logits is None:
                self._clean_logits = logits.new_zeros(len(self.clean), logits.shape[1])
            self._clean_logits[rows] = logits
            self._asked_clean[rows] = True
        assert self._clean_logits is not None, "somebody stands when this is asked"
        return self._clean_logits

    def ask(
        self,
        images: Float[Tensor, "M *shape"],
        rows: Int64[Tensor, "M"],
        value: Value | None = None,
        *,
        gradient: bool = False,
        show: bool = False,
    ) -> Answer:
        """Ask the model about an image of each of some rows, count the pass, and note who falls.

        Args:
            images: one for each row, in the ball or not.
            rows: of the batch, none of them twice.
            value: the objective; None: the margin.
            gradient: whether the objective's gradient is wanted.
            show: show these images where nothing fools, whatever was seen before.

        Raises:
            RepulseError: if the logits are not a matrix with a column for every label.
        """
        if len(rows) == 0:
            none = images.new_zeros(0)
            return Answer(none, images.detach(), none.bool(), rows)
        slope = torch.zeros_like(images)
        with torch.set_grad_enabled(gradient):
            images = images.detach().requires_grad_(gradient)
            values, _, fooled = self.look(images, rows, value or self._margin, show=show)
            if gradient:
                slope = uphill(values, images)
        return Answer(values.detach(), slope, fooled, self.still(rows))

    def ask_around(self, images: Float[Tensor, "K *shape"], row: int) -> Bool[Tensor, "K"]:
        """Ask about many images of one row at once; the nearest that fools is noted.

        Returns:
            Which of them fool the model.
        """
        rows = torch.full((len(images),), row, device=images.device)
        with torch.no_grad():
            self.asking(rows)
            logits = shaped_logits(self.model(images), self.labels[rows])
        self.passes.forward[row] += len(images)
        decision = decide(logits, self.labels[rows])
        distance = self.threat.distance(images, self.clean[rows])
        # Nearest first among those that fool, then the others by their margin.
        order = torch.where(decision.fooled, distance, torch.inf)
        best = order.argmin() if bool(decision.fooled.any()) else decision.margin.argmax()
        self._note(images[best, None], rows[:1], logits[best, None], show=False)
        return decision.fooled

    def look(
        self, images: Tensor, rows: Tensor, value: Value, *, show: bool = False
    ) -> tuple[Tensor, Tensor, Bool[Tensor, "M"]]:
        """Values with their graph, logits without, and who is fooled; passes and successes are noted."""
        self.passes.add(rows, forward=1, backward=int(torch.is_grad_enabled()))
        self.asking(rows)
        values, logits = value(images, rows)
        logits = shaped_logits(logits.detach(), self.labels[rows])
        return values, logits, self._note(images.detach(), rows, logits, show=show)

    def _margin(self, images: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        logits: Tensor = self.model(images)
        return margin(shaped_logits(logits, self.labels[rows]), self.labels[rows]), logits

    def _note(self, images: Tensor, rows: Tensor, logits: Tensor, *, show: bool) -> Bool[Tensor, "M"]:
        decision = decide(logits, self.labels[rows])
        distance = self.threat.distance(images, self.clean[rows])
        self.broken[rows] |= decision.broken
        nearer = decision.fooled & (distance < self.distance[rows])
        self.nearest[rows[nearer]] = images[nearer]
        self.distance[rows[nearer]] = distance[nearer]
        inside = distance <= self.threat.eps + self.threat.tolerance
        higher = inside & ((decision.margin > self.margin[rows]) | show)
        self.shown[rows[higher]] = images[higher]
        self.margin[rows[higher]] = decision.margin[higher].to(self.margin)
        return decision.fooled


class Climb:
    """The way of some rows up an objective: handed to `ascend` as its objective, with `keep`.

    Args:
        standing: the batch.
        value: what to climb.
        rows: which images; those that fall leave at the next `keep`.
    """

    def __init__(self, standing: Standing, value: Value, rows: Int64[Tensor, "M"]) -> None:
        self.standing, self.value, self.rows = standing, value, rows
        self.highest = standing.clean.new_full((len(rows),), -torch.inf)
        """The largest value met by each of the rows that it began with."""
        self._place = torch.arange(len(rows), device=rows.device)

    def __call__(self, images: Float[Tensor, "M *shape"]) -> Float[Tensor, "M"]:
        """Values of the objective, with their graph."""
        values = self.standing.look(images, self.rows, self.value)[0]
        self.highest[self._place] = torch.maximum(self.highest[self._place], values.detach().to(self.highest))
        return values

    def keep(self) -> Int64[Tensor, "K"]:
        """Places of the rows that still stand; the others are let go."""
        stay = self.standing.still(self.rows)
        self.rows, self._place = self.rows[stay], self._place[stay]
        return stay


def shaped_logits(logits: Tensor, y: Tensor) -> Tensor:
    """The logits, if they are a matrix and have a column for every label.

    Raises:
        RepulseError: if not.
    """
    if logits.ndim != 2:
        raise RepulseError(f"the model must give logits of shape (N, classes), got {tuple(logits.shape)}")
    if len(y) and int(y.max()) >= logits.shape[1]:
        raise RepulseError(f"the model gives {logits.shape[1]} classes, but there is a label {int(y.max())}")
    return logits
