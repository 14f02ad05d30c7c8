"""Which precision the machine is fast in."""

from __future__ import annotations

import torch

from repulse.common.notice import notice
from repulse.training.settings import FitSettings, Precision


def precision_of(settings: FitSettings) -> Precision:
    """The precision of the settings; for `auto`, what this machine is fast in, and a line that says so.

    Half precision is picked only where the hardware computes in it: without such units it is up to ten times slower
    than single precision. Every process of a node picks the same.
    """
    if settings.precision != "auto":
        return settings.precision
    precision, reason = _pick(settings.accelerator)
    notice(f"precision: {precision}, for {reason}")
    return precision


def _pick(accelerator: str) -> tuple[Precision, str]:
    if accelerator in ("auto", "cuda", "gpu") and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        name = torch.cuda.get_device_name()
        if major >= 8:
            return "bf16-mixed", f"{name} (compute capability {major}.{minor}) computes in bfloat16"
        return "32-true", f"{name} (compute capability {major}.{minor}) has no units for bfloat16"
    if accelerator in ("auto", "cpu"):
        can = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512 BF16")):
            if can.get(flag):
                return "bf16-mixed", f"this processor computes in bfloat16 ({name})"
        return "32-true", "this processor has no units for bfloat16"
    return "32-true", f"nothing is known of {accelerator}'s units"
