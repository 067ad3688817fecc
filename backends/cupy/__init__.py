"""The GPU backend: kernels as CUDA C for NVIDIA GPUs, products by cuBLAS, a step as one CUDA graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc import cache as disk
from graphc.backends.cupy import installation
from graphc.errors import BackendError

if TYPE_CHECKING:
    from graphc.backends.cupy.device import Device
    from graphc.backends.cupy.executable import GpuExecutable

CONVOLUTIONS = ("measured", "graphc", "cudnn")


@dataclass(frozen=True)
class CupyBackend:
    """Runs programs on a GPU; see :class:`graphc.backend.Backend` for the attributes.

    Attributes:
        tf32: let products of float32 round their operands to 10 bits of mantissa, which is several times as fast.
        device: what runs them; None for the first GPU.
        convolution: who convolves: ``"measured"``, whoever is the fastest as measured when sizes first come, and kept
            from then on; ``"graphc"``, kernels of graphc's own; ``"cudnn"``, the library (``pip install
            'graphc[cudnn]'``) wherever it can.

    >>> from graphc.backends.cupy import CupyBackend
    >>> CupyBackend(tf32=True).name
    'cupy'
    """

    tf32: bool = False
    device: Device | None = None
    convolution: str = "measured"
    name: str = "cupy"
    priority: int = 100
    lowers: bool = True
    multiplies_halves: bool = True
    computes_freely: bool = True

    def __post_init__(self) -> None:
        if self.convolution not in CONVOLUTIONS:
            raise BackendError(
                f"nobody who convolves is called {self.convolution!r}", remedy=f"take one of: {', '.join(CONVOLUTIONS)}"
            )

    def available(self) -> str | None:
        return None if self.device is not None else installation.problem()

    def cannot_open(self) -> str | None:
        """None if the GPU can be used, else the reason and the remedy. CuPy is imported for that."""
        try:
            _ = self.device or first_gpu()
        except BackendError as error:
            return f"{error.message}: {error.remedy}"
        return None

    def is_expected(self) -> bool:
        """Would a user wonder that it is not used? There is a GPU, or CuPy has been installed for one."""
        return installation.has_cupy() or installation.gpu_count() > 0

    def takes(self, op: object) -> bool:
        from graphc.ops.attention import ScaledDotProductAttention
        from graphc.ops.attention_gradients import AttentionGradients
        from graphc.ops.convolution import Conv, ConvKernelGrad, ConvTranspose

        attention, convolution = ScaledDotProductAttention | AttentionGradients, Conv | ConvTranspose | ConvKernelGrad
        return isinstance(op, attention | convolution)

    def fits(self, node: Any) -> bool:
        from graphc.backends.cupy import attended, convolved
        from graphc.ops.convolution import Conv, ConvKernelGrad, ConvTranspose

        return (convolved if isinstance(node.op, Conv | ConvTranspose | ConvKernelGrad) else attended).fits(node)

    def plan_key(self) -> str:
        return f"{_digest()} {replace(self, device=None)}"  # what it takes may depend on any of its options

    def compile(self, plan: Any) -> GpuExecutable:
        from graphc.backends.cupy.executable import GpuExecutable

        reason = self.available()
        if reason is not None:
            raise BackendError(f"programs cannot run on a GPU here: {reason}", remedy="use backend='numba' or 'auto'")
        return GpuExecutable(plan, self.device or first_gpu(), self.tf32, self.convolution)


@cache
def _digest() -> str:
    """Of the code that says what is taken whole."""
    return disk.digest(*(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))


@cache
def first_gpu() -> Device:
    """The GPU that programs run on. CuPy is imported here.

    Raises:
        BackendError: CuPy cannot be imported, or the GPU cannot be used.
    """
    try:
        from graphc.backends.cupy.cuda import CudaDevice
    except ImportError as error:
        raise BackendError(
            f"CuPy cannot be imported: {error}",
            remedy="have one build of CuPy alone, that of the driver's CUDA: pip uninstall cupy cupy-cuda12x "
            "cupy-cuda13x, then pip install 'graphc[gpu]'",
        ) from error
    return CudaDevice()


backend = CupyBackend()

__all__ = ["CupyBackend", "backend", "first_gpu"]
