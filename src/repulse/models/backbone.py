"""Networks from images to embeddings, by name: what one is, and where they are registered."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from pydantic import create_model
from torch import nn

from repulse.common.errors import RepulseError
from repulse.common.settings import Choice, Choices

GIVEN = ("channels", "dimension", "width")
"""What every backbone is told: C of the images, d of the embeddings, a factor on the channels inside."""

BackboneFactory = Callable[..., nn.Module]


class Backbone(Choice):
    """A kind of network, with the settings of its own."""

    factory: ClassVar[BackboneFactory]

    def __str__(self) -> str:
        return self.name

    def build(self, *, channels: int, dimension: int, width: float = 1.0) -> nn.Module:
        """A network with random weights.

        Args:
            channels: C of the images.
            dimension: d of the embeddings.
            width: factor on the number of channels inside; timm networks take 1 only.

        Raises:
            RepulseError: if the width is impossible.
        """
        if not width > 0:
            raise RepulseError(f"width must be positive, got {width}")
        settings = {key: getattr(self, key) for key in type(self).model_fields}
        return type(self).factory(channels, dimension, width, **settings)


class Backbones(Choices[Backbone]):
    """The registered networks. `timm/NAME` is any network of the timm library (extra `repulse[timm]`)."""

    def register(self, name: str) -> Callable[[BackboneFactory], BackboneFactory]:  # type: ignore[override]
        """Decorate a function `(channels, dimension, width) -> nn.Module` to enter it under `name`.

        Further arguments are settings, each with a default: `depth: Annotated[int, Field(ge=1, description=...)] = 3`.
        """

        def enter(factory: BackboneFactory) -> BackboneFactory:
            super(Backbones, self).register(name)(_settings_of(factory))
            return factory

        return enter

    def __getitem__(self, name: str) -> type[Backbone]:
        if not name.startswith("timm/"):
            return super().__getitem__(name)
        entry = _settings_of(partial(_timm, name.removeprefix("timm/")))
        entry.name, entry.kind = name, self.kind
        return entry


BACKBONES = Backbones("backbone")


def make_backbone(
    backbone: str | Backbone, *, channels: int, dimension: int, width: float = 1.0, **settings: int | float | str | bool
) -> nn.Module:
    """A backbone with random weights, for images of `channels` channels and embeddings of `dimension`.

    >>> import torch
    >>> make_backbone("small-cnn", channels=3, dimension=10, width=0.5)(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 10])

    Args:
        backbone: a name in `BACKBONES`, `timm/NAME` for any network of timm (extra `repulse[timm]`), or what a
            configuration has.
        channels: C of the images.
        dimension: d of the embeddings.
        width: factor on the number of channels inside; timm networks take 1 only.
        settings: further ones, of the backbone that is named.

    Raises:
        RepulseError: if the name or a setting is unknown, timm is not installed, or the width is impossible.
    """
    chosen = BACKBONES.make({"name": backbone, **settings} if isinstance(backbone, str) else backbone)
    return chosen.build(channels=channels, dimension=dimension, width=width)


def _settings_of(factory: BackboneFactory) -> type[Backbone]:
    """A class of settings with a field for each argument of the factory beyond those that all are given."""
    function = factory.func if isinstance(factory, partial) else factory
    fields: dict[str, Any] = {}
    for each in list(inspect.signature(factory, eval_str=True).parameters.values())[len(GIVEN) :]:
        kind = type(each.default) if each.annotation is each.empty else each.annotation
        fields[each.name] = (kind, ... if each.default is each.empty else each.default)
    name, doc = function.__name__, function.__doc__
    entry: type[Backbone] = create_model(name, __base__=Backbone, __module__=function.__module__, __doc__=doc, **fields)
    entry.factory = staticmethod(factory)
    return entry


def _timm(name: str, channels: int, dimension: int, width: float) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise RepulseError(f"backbone timm/{name} needs timm: pip install 'repulse[timm]'") from error
    if width != 1.0:
        raise RepulseError(f"backbone timm/{name} has one width; leave model.width at 1, got {width}")
    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:3]
        hint = f"; near: {', '.join(near)}" if near else ""
        raise RepulseError(f"timm has no model {name!r}{hint}")
    model: nn.Module = timm.create_model(name, pretrained=False, in_chans=channels, num_classes=dimension)
    return model
