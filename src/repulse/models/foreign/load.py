"""Somebody else's model, from what its author gives away: a factory, a program, a timm name, weights."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import pickle
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repulse.common.errors import RepulseError
from repulse.common.files import load_tensors

FORMS = (
    "package.module:factory, path/to/file.py:factory, timm/NAME, "
    "a TorchScript file (.pt, .ts) or an exported program (.pt2)"
)

# Where training scripts put the weights in what they save, and what wrappers put before every name.
_PLACES = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")

_PROGRAM_SUFFIXES = (".pt", ".pth", ".ts", ".jit", ".pt2", ".safetensors")


def load_foreign(
    spec: str,
    weights: Path | None = None,
    *,
    classes: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """The model that `spec` names, in evaluation mode, from pixels in [0, 1] to logits.

    Factories and programs are code of whoever wrote them, and run as such. Weights are not: they are read without
    running anything.

    Args:
        spec: `package.module:factory` or `path/to/file.py:factory`, where the factory is a function without arguments
            that returns a module, or a module; the current folder can be imported from. Or `timm/NAME`. Or the path of
            a TorchScript file, or of a program saved by `torch.export.save`.
        weights: a state dict to load, `.safetensors` or what `torch.save` wrote. Names that only differ by what
            wrappers put before them fit.
        classes: number of outputs of a timm model; None: its own. Other models have the outputs that they have.
        mean: subtracted from each channel before the model sees it; one value serves all channels; None: 0.
        std: divides each channel after that; > 0; None: 1. A timm model with its own pretrained weights gets their
            mean and std where neither is given.
        device: where the model goes.

    Raises:
        RepulseError: if the spec is not understood; the module or its factory is not there, or fails, or gives
            something else; a file is not what it should be; weights don't fit; timm or the device is not available;
            or std is not positive.
    """
    place = _device(device)
    module, _, attribute = spec.rpartition(":")
    if spec.startswith("timm/"):
        pretrained = weights is None
        model = _timm(spec.removeprefix("timm/"), classes, pretrained=pretrained)
        if pretrained and mean is None and std is None:
            about: Any = getattr(model, "pretrained_cfg", None) or {}
            mean, std = about.get("mean"), about.get("std")
    elif module and all(part.isidentifier() for part in attribute.split(".")):
        model = _from_factory(spec, module, attribute)
    elif Path(spec).suffix in _PROGRAM_SUFFIXES or Path(spec).is_file():
        if Path(spec).suffix == ".py":
            raise RepulseError(f"{spec} may define many things; say which makes the model: {spec}:factory")
        model = _program(Path(spec), place)
    else:
        raise RepulseError(f"cannot tell what model {spec!r} is; give {FORMS}")
    if weights is not None:
        _load_weights(model.program if isinstance(model, Program) else model, weights)
    if mean is not None or std is not None:
        model = Normalised(model, (0.0,) if mean is None else mean, (1.0,) if std is None else std)
    return model.to(place).eval()


class Bounded(nn.Module):
    """A model of features that each have bounds of their own, as one of features in [0, 1].

    The model sees `low + x * (high - low)`, so that eps counts in shares of each feature's range: a ball that means the
    same for years and for dollars.

    Args:
        inner: maps features in their own units to logits.
        low: least value of each feature, in the shape of one example, or a number for all.
        high: greatest value of each; above `low`.

    Raises:
        RepulseError: if a range is empty or not finite.
    """

    low: Tensor
    high: Tensor

    def __init__(self, inner: nn.Module, low: Tensor | Sequence[float] | float, high: Tensor | Sequence[float] | float):
        super().__init__()
        least, most = torch.as_tensor(low).float(), torch.as_tensor(high).float()
        if not bool((torch.isfinite(least) & torch.isfinite(most) & (least < most)).all()):
            raise RepulseError("every feature needs a finite range: low below high")
        self.inner = inner
        self.register_buffer("low", least)
        self.register_buffer("high", most)

    def forward(self, x: Float[Tensor, "N *shape"]) -> Float[Tensor, "N n"]:
        """The logits of features in [0, 1]."""
        logits: Tensor = self.inner(self.low + x * (self.high - self.low))
        return logits

    def scaled(self, features: Float[Tensor, "N *shape"]) -> Float[Tensor, "N *shape"]:
        """Features in their own units as what this model takes."""
        return (features - self.low) / (self.high - self.low)


class Normalised(nn.Module):
    """A model that wants normalised images, as one that takes pixels: `inner((x - mean) / std)`.

    Args:
        inner: maps normalised images to logits.
        mean: per channel, in the units of the pixels; one value serves all channels.
        std: per channel, > 0; one value serves all channels.

    Raises:
        RepulseError: if std is not positive; on a call, if images have another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, inner: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if not len(mean) or not len(std):
            raise RepulseError("mean and std need at least one value each")
        if not all(value > 0 for value in std):
            raise RepulseError(f"std must be positive in every channel, got {', '.join(f'{v:g}' for v in std)}")
        self.inner = inner
        self.register_buffer("mean", torch.tensor([float(value) for value in mean]))
        self.register_buffer("std", torch.tensor([float(value) for value in std]))

    def forward(self, x: Float[Tensor, "N C *shape"]) -> Float[Tensor, "N n"]:
        """Images in [0, 1] to logits."""
        logits: Tensor = self.inner((x - self._fitted(self.mean, x, "mean")) / self._fitted(self.std, x, "std"))
        return logits

    def _fitted(self, values: Tensor, x: Tensor, what: str) -> Tensor:
        # Broadcasting would turn a grey image into a colour one without a word.
        if len(values) not in (1, x.shape[1]):
            raise RepulseError(f"{what} has {len(values)} values, but the images have {x.shape[1]} channels")
        return values.to(x.dtype).view(1, -1, *(1 for _ in x.shape[2:]))


class Program(nn.Module):
    """A TorchScript or exported program as an ordinary module.

    Both refuse some of what every module can do: TorchScript to freeze its parameters, a frozen one to be asked for its
    mode, an exported one to change its mode. A digest of the file is among its buffers, so that programs with the same
    weights, or with theirs hidden as constants, are still told apart.

    Args:
        program: what was loaded.
        digest: SHA-256 of the file.
        has_modes: whether the program knows training from evaluation.
        largest_batch: how many images it takes at once; None: any number.
    """

    program_sha256: Tensor

    def __init__(self, program: nn.Module, digest: bytes, *, has_modes: bool, largest_batch: int | None = None) -> None:
        super().__init__()
        for module in program.modules():
            if not hasattr(module, "training"):
                module.training = False
        self.program = program
        self.has_modes = has_modes
        self.largest_batch = largest_batch
        self.register_buffer("program_sha256", torch.tensor(list(digest), dtype=torch.uint8))
        self.training = any(module.training for module in program.modules()) if has_modes else False

    def forward(self, x: Tensor) -> Tensor:
        """What the program gives."""
        parts = torch.split(x, self.largest_batch) if self.largest_batch else (x,)
        try:
            found = [self.program(part) for part in parts]
        except AssertionError as error:
            raise RepulseError(
                f"the exported program does not take images of shape {tuple(x.shape)}: {_first_line(error)}"
            ) from error
        return found[0] if len(found) == 1 else torch.cat(found)

    def train(self, mode: bool = True) -> Program:
        """Switch the mode, where the program has modes."""
        self.training = mode
        if self.has_modes:
            self.program.train(mode)
        return self


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise RepulseError(f"cannot use device {str(device)!r}: {_first_line(error)}") from error


# Factories


def _from_factory(spec: str, module: str, attribute: str) -> nn.Module:
    is_file = module.endswith(".py")
    with _importable(Path(module).resolve().parent if is_file else None):
        found: Any = _import_file(Path(module)) if is_file else _import(module)
        for part in attribute.split("."):
            if not hasattr(found, part):
                raise RepulseError(_missing(module, found, part))
            found = getattr(found, part)
        if isinstance(found, nn.Module):
            return found
        if not callable(found):
            raise RepulseError(f"{spec} is {_a(found)}, neither a torch.nn.Module nor a function that returns one")
        needed = _needed_arguments(found)
        if needed:
            raise RepulseError(
                f"{spec} needs arguments ({', '.join(needed)}); give a function without any that returns the model"
            )
        try:
            model = found()
        except (Exception, SystemExit) as error:
            raise RepulseError(f"{spec} raised {_one_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise RepulseError(f"{spec} must return a torch.nn.Module, got {_a(model)}")
    return model


@contextlib.contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Within this context the current folder, and that of a file, can be imported from, as with `python FILE`."""
    before = list(sys.path)
    sys.path[:0] = [str(place) for place in (folder, Path.cwd()) if place is not None and str(place) not in before]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        absent = error.name or ""
        if name == absent or name.startswith(f"{absent}."):
            raise RepulseError(
                f"no module named {absent!r}, neither in the current folder nor among the installed packages"
            ) from error
        raise RepulseError(f"importing {name} raised {_one_line(error)}") from error
    except (Exception, SystemExit) as error:
        raise RepulseError(f"importing {name} raised {_one_line(error)}") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise RepulseError(f"no such file: {path}")
    # A name of its own: a file called `test.py` or `model.py` must not stand in for a module of that name.
    name = f"repulse_foreign_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None, "a path that ends in .py has a loader"
    assert found.loader is not None, "a path that ends in .py has a loader"
    module = importlib.util.module_from_spec(found)
    # Dataclasses and pickles look their module up by name.
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise RepulseError(f"importing {path} raised {_one_line(error)}") from error
    return module


def _missing(module: str, found: Any, name: str) -> str:
    known = [key for key, value in vars(found).items() if not key.startswith("_") and _is_model_like(value, found)]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(repr(each) for each in near)}?" if near else _listed(known)
    return f"{module} has no {name!r}; {hint}"


def _is_model_like(value: object, module: object) -> bool:
    """Whether a value may be the model or make it: what a module only imports from elsewhere is not."""
    own = str(getattr(module, "__name__", "")).split(".")[0]
    home = str(getattr(value, "__module__", "")).split(".")[0]
    return isinstance(value, nn.Module) or (callable(value) and home == own)


def _listed(known: Sequence[str]) -> str:
    return f"it has {', '.join(sorted(known)[:10])}" if known else "it defines no function and no model"


def _needed_arguments(factory: Any) -> list[str]:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return []
    optional = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [each.name for each in parameters if each.default is inspect.Parameter.empty and each.kind not in optional]


# Programs


def _program(path: Path, device: torch.device) -> Program:
    if not path.is_file():
        raise RepulseError(f"no such file: {path}")
    kind = _kind(path)
    if kind == "weights":
        raise RepulseError(
            f"{path} holds weights, or a pickled model, and no program: give the code that makes the model as "
            "package.module:factory, and this file as the weights"
        )
    if kind is None:
        raise RepulseError(f"{path} is neither a TorchScript file nor an exported program")
    digest = hashlib.sha256(path.read_bytes()).digest()
    with warnings.catch_warnings():
        # PyTorch would rather have everybody export; files that exist still have to be measured.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            if kind == "torchscript":
                script: nn.Module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
                return Program(script, digest, has_modes=True)
            with path.open("rb") as file:
                exported = torch.export.load(file)
        except Exception as error:
            raise RepulseError(f"{path} cannot be loaded: {_one_line(error)}") from error
        largest = _largest_batch(path, exported)
        if any(tensor.device.type != device.type for tensor in exported.state_dict.values()):
            from torch.export.passes import move_to_device_pass

            exported = move_to_device_pass(exported, device)
        return Program(exported.module(), digest, has_modes=False, largest_batch=largest)


def _kind(path: Path) -> str | None:
    """`torchscript`, `exported`, `weights`, or None for anything else; nothing in the file is run."""
    if path.suffix == ".safetensors":
        return "weights"
    if not zipfile.is_zipfile(path):
        # What torch.save wrote before PyTorch 1.6 begins with a pickle.
        with path.open("rb") as file:
            return "weights" if file.read(1) == b"\x80" else None
    with zipfile.ZipFile(path) as archive:
        names = {name.rpartition("/")[2] for name in archive.namelist()}
    if names & {"archive_format", "serialized_exported_program.json"}:
        return "exported"
    if "constants.pkl" in names:
        return "torchscript"
    return "weights" if "data.pkl" in names else None


def _largest_batch(path: Path, exported: torch.export.ExportedProgram) -> int | None:
    """How many images a program takes at once; None: any number.

    Raises:
        RepulseError: if it takes one number of images only, or not exactly one input.
    """
    inputs = exported.graph_signature.user_inputs
    if len(inputs) != 1:
        raise RepulseError(f"{path} takes {len(inputs)} inputs; a classifier of images takes one")
    shape = next(node.meta["val"].shape for node in exported.graph.nodes if node.name == inputs[0])
    if len(shape) and isinstance(shape[0], int):
        raise RepulseError(
            f"{path} takes batches of exactly {shape[0]}; export it with a dynamic batch dimension: "
            "torch.export.export(model, (images,), dynamic_shapes=({0: torch.export.Dim('batch')},))"
        )
    allowed = exported.range_constraints.get(shape[0].node.expr) if len(shape) else None
    return int(allowed.upper) if allowed is not None and getattr(allowed.upper, "is_Integer", False) else None


# timm


def _timm(name: str, classes: int | None, *, pretrained: bool) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        if error.name == "timm":
            raise RepulseError(f"timm/{name} needs timm: pip install 'repulse[timm]'") from error
        raise RepulseError(f"timm/{name}: timm needs {error.name}, which is not there: pip install it") from error
    except Exception as error:  # A torchvision built for another PyTorch fails in its own ways.
        raise RepulseError(f"timm/{name}: importing timm raised {_one_line(error)}") from error
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
        raise RepulseError(f"timm/{name} raised {_one_line(error)}") from error
    return model


# Weights


def _load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict, wherever in the file it is, and whatever wrappers put before its names.

    Raises:
        RepulseError: if the file is absent or cannot be read without running code, or nothing in it fits.
    """
    own = model.state_dict()
    best: _Misfit | None = None
    for state in _states(path):
        for version in _peeled(state):
            misfit = _Misfit(own, version)
            if not misfit:
                model.load_state_dict(version, strict=False)
                return
            best = misfit if best is None or len(misfit) < len(best) else best
    raise RepulseError(f"{path} does not fit the model: {best}")


def _states(path: Path) -> list[Mapping[str, Tensor]]:
    """Everything in a file that may be a state dict."""
    if not path.is_file():
        raise RepulseError(f"no such file: {path}")
    if path.suffix == ".safetensors":
        return [load_tensors(path)[0]]
    kind = _kind(path)
    if kind in ("torchscript", "exported"):
        raise RepulseError(f"{path} is a program, not weights: give it as the model")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RepulseError(
            f"{path} holds pickled objects, which could run code when read; "
            "have its author save model.state_dict(), best as safetensors"
        ) from error
    except Exception as error:
        raise RepulseError(f"{path} is not a file of weights: {_one_line(error)}") from error
    if not isinstance(saved, Mapping):
        raise RepulseError(f"{path} holds {_a(saved)}, not a state dict")
    states = [state for state in (saved, *map(saved.get, _PLACES)) if _is_state(state)]
    if not states:
        raise RepulseError(
            f"{path} holds no state dict, neither itself nor under {', '.join(_PLACES)}; {_keys_of(saved)}"
        )
    return states


def _is_state(found: object) -> TypeGuard[Mapping[str, Tensor]]:
    return isinstance(found, Mapping) and bool(found) and all(isinstance(value, Tensor) for value in found.values())


def _keys_of(saved: Mapping[Any, Any]) -> str:
    keys = [str(key) for key in saved]
    return f"it has {', '.join(keys[:5])}{', ...' if len(keys) > 5 else ''}" if keys else "it is empty"


def _peeled(state: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The state dict as it is, then without the prefix that all its names share, and so on."""
    while True:
        yield dict(state)
        shared = [prefix for prefix in _PREFIXES if state and all(name.startswith(prefix) for name in state)]
        if not shared:
            return
        state = {name.removeprefix(shared[0]): value for name, value in state.items()}


class _Misfit:
    """Where a state dict differs from the model's own; empty, and so false, where it fits."""

    def __init__(self, own: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        # Counters of batches came with PyTorch 0.4.1, and evaluation doesn't use them.
        self.missing = [
            f"{name} {_shape(own[name])}"
            for name in own
            if name not in state and not name.endswith("num_batches_tracked")
        ]
        self.unexpected = [f"{name} {_shape(state[name])}" for name in state if name not in own]
        self.reshaped = [
            f"{name} {_shape(state[name])}, the model's is {_shape(own[name])}"
            for name in own
            if name in state and _shape(own[name]) != _shape(state[name])
        ]

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def __str__(self) -> str:
        kinds = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.reshaped))
        return "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in kinds if names)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


# Words


def _a(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"
