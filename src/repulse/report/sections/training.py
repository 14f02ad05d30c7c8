"""Training curves: the loss, and accuracy on training and validation images."""

from __future__ import annotations

from typing import Any

from repulse.report.blocks import Pair, Picture, Section
from repulse.report.group import Entry
from repulse.report.section import SECTIONS
from repulse.report.svg import SERIES, canvas
from repulse.report.words import percent

Columns = dict[str, tuple[float | None, ...]]


@SECTIONS.register("training")
def section(entry: Entry) -> Section | None:
    """The curves of the run; None if it left none, or the model is shown elsewhere."""
    metrics = entry.measured.metrics
    if metrics is None or entry.same_model is not None:
        return None
    return Section("Training", (Pair(training_pictures(metrics, entry.anchor)),))


def training_pictures(metrics: Columns, anchor: str) -> tuple[Picture, ...]:
    """The loss, and the accuracies, against epochs."""
    epochs, losses = metrics["epoch"], metrics["loss"]
    about = f"Mean training loss by epoch: {losses[0]:.4g} at first, {losses[-1]:.4g} at the end."
    with canvas(f"{anchor}-loss", f"Line chart. {about}", about, height=2.8) as drawn:
        axes = _axes(drawn.figure, "loss")
        axes.plot(epochs, losses, color=SERIES[0], marker=_marker(epochs))
    loss = drawn.picture

    train, validation = metrics["train_accuracy"], metrics["validation_accuracy"]
    seen = [(epoch, value) for epoch, value in zip(epochs, validation, strict=True) if value is not None]
    about = f"Accuracy by epoch; at the end {percent(train[-1] or 0.0)} on training images, as they were augmented"
    about += f", {percent(seen[-1][1])} on validation images." if seen else "; there were no validation images."
    with canvas(f"{anchor}-accuracy", f"Line chart. {about}", about, height=2.8) as drawn:
        axes = _axes(drawn.figure, "accuracy, %")
        axes.plot(
            epochs,
            [100 * (v or 0.0) for v in train],
            color=SERIES[0],
            linestyle="--",
            marker=_marker(epochs),
            label="training",
        )
        if seen:
            axes.plot(
                [epoch for epoch, _ in seen],
                [100 * value for _, value in seen],
                color=SERIES[1],
                marker=_marker(epochs),
                label="validation",
            )
        axes.legend()
    return loss, drawn.picture


def _axes(figure: Any, label: str) -> Any:
    axes = figure.subplots()
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    return axes


def _marker(epochs: tuple[float | None, ...]) -> str:
    return "o" if len(epochs) <= 30 else ""
