"""A model by the name that a library of models gives it."""

from __future__ import annotations

import difflib

from torch import nn

from repulse.common.errors import RepulseError, one_line


def from_timm(name: str, classes: int | None, *, pretrained: bool) -> nn.Module:
    """A network of timm, with the weights that timm has for it or with fresh ones.

    Raises:
        RepulseError: if timm is not installed, has no such model, or its weights know another number of classes.
    """
    try:
        import timm
    except ImportError as error:
        if error.name == "timm":
            raise RepulseError(f"timm/{name} needs timm: pip install 'repulse[timm]'") from error
        raise RepulseError(f"timm/{name}: timm needs {error.name}, which is not there: pip install it") from error
    except Exception as error:  # A torchvision built for another PyTorch fails in its own ways.
        raise RepulseError(f"timm/{name}: importing timm raised {one_line(error)}") from error
    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*")[:3] or difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"; near: {', '.join(near)}" if near else ""
        raise RepulseError(f"timm has no model {name!r}{hint}")
    if pretrained and classes is not None:
        own = getattr(timm.get_pretrained_cfg(name), "num_classes", classes)
        if own != classes:
            raise RepulseError(
                f"the pretrained weights of timm/{name} know {own} classes, not {classes}; give weights that do"
            )
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=pretrained, **({} if classes is None else {"num_classes": classes})
        )
    except Exception as error:
        raise RepulseError(f"timm/{name} raised {one_line(error)}") from error
    return model
