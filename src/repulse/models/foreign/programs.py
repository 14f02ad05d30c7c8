"""A model from a program: a TorchScript file, or what `torch.export.save` wrote."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from repulse.common.errors import RepulseError, first_line, one_line
from repulse.models.foreign.files import kind_of_file

PROGRAM_SUFFIXES = (".pt", ".pth", ".ts", ".jit", ".pt2", ".safetensors", ".onnx")


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
                f"the exported program does not take images of shape {tuple(x.shape)}: {first_line(error)}"
            ) from error
        return found[0] if len(found) == 1 else torch.cat(found)

    def train(self, mode: bool = True) -> Program:
        """Switch the mode, where the program has modes."""
        self.training = mode
        if self.has_modes:
            self.program.train(mode)
        return self


def load_program(path: Path, device: torch.device) -> Program:
    """The program in a file, on a device.

    Raises:
        RepulseError: if the file holds no program, or one that takes no batches of images.
    """
    kind = kind_of_file(path)
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
            raise RepulseError(f"{path} cannot be loaded: {one_line(error)}") from error
        largest = _largest_batch(path, exported)
        if any(tensor.device.type != device.type for tensor in exported.state_dict.values()):
            from torch.export.passes import move_to_device_pass

            exported = move_to_device_pass(exported, device)
        return Program(exported.module(), digest, has_modes=False, largest_batch=largest)


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
