"""What CUDA's errors mean, and what to do about them, without CUDA: by the names that they begin with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from graphc.errors import BackendError

_LOOK = "look at `nvidia-smi` and at the system's log (`dmesg`, lines with Xid)"


@dataclass(frozen=True)
class Kind:
    """Errors that mean the same to a user.

    Attributes:
        what: has happened.
        remedy: what to do.
        names: of the errors, without the beginnings of the driver's and the runtime's.
    """

    what: str
    remedy: str
    names: frozenset[str]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


FULL = Kind(
    "the GPU's memory is full",
    "take a smaller batch, free arrays and programs that are not needed, or look with `nvidia-smi` who else uses the "
    "GPU; program.memory(batch=...) says what a size takes",
    _names("MemoryAllocation OUT_OF_MEMORY"),
)
TAKEN = Kind(
    "the GPU is not free: another process has it for itself, or it does not let any in",
    "wait until the process that `nvidia-smi` names has ended, let several in (`nvidia-smi -c DEFAULT`), or choose "
    "another GPU with CUDA_VISIBLE_DEVICES",
    _names("DevicesUnavailable DEVICE_UNAVAILABLE DeviceAlreadyInUse"),
)
SHARED = Kind(
    "the service that shares the GPU among processes (MPS) has failed, or another of its clients has",
    "start the process again; if it happens again, restart the service: `echo quit | nvidia-cuda-mps-control`",
    _names(
        "MpsConnectionFailed MpsRpcFailure MpsServerNotReady MpsMaxClientsReached MpsMaxConnectionsReached "
        "MpsClientTerminated MPS_CONNECTION_FAILED MPS_RPC_FAILURE MPS_SERVER_NOT_READY MPS_MAX_CLIENTS_REACHED "
        "MPS_MAX_CONNECTIONS_REACHED MPS_CLIENT_TERMINATED"
    ),
)
FORKED = Kind(
    "this process cannot use the GPU that its parent uses: it was forked after CUDA had started",
    "start processes by multiprocessing.get_context('spawn'), or compile programs for the GPU in the children alone",
    _names("InitializationError NOT_INITIALIZED"),
)
OLD_DRIVER = Kind(
    "the NVIDIA driver does not fit",
    "install a newer driver from https://www.nvidia.com/drivers and restart the machine, or a CuPy for the driver's "
    "CUDA; `python -m graphc doctor` shows both",
    _names(
        "InsufficientDriver SystemDriverMismatch CompatNotSupportedOnDevice StubLibrary CallRequiresNewerDriver "
        "UnsupportedPtxVersion SYSTEM_DRIVER_MISMATCH COMPAT_NOT_SUPPORTED_ON_DEVICE STUB_LIBRARY "
        "UNSUPPORTED_PTX_VERSION"
    ),
)
NO_GPU = Kind(
    "there is no such GPU",
    "see what `nvidia-smi` says, and whether CUDA_VISIBLE_DEVICES names one that there is",
    _names("NoDevice InvalidDevice NO_DEVICE INVALID_DEVICE"),
)
BROKEN = Kind(
    "the GPU has failed",
    f"{_LOOK}; the machine may have to be restarted, or the GPU replaced",
    _names(
        "ECCUncorrectable NvlinkUncorrectable HardwareStackError ECC_UNCORRECTABLE NVLINK_UNCORRECTABLE "
        "HARDWARE_STACK_ERROR"
    ),
)
LOST = Kind(
    "the GPU stopped",
    f"what it held is lost: start the process again; if it happens again, {_LOOK}, and report it with the program",
    frozenset(),
)
KINDS = (FULL, TAKEN, SHARED, FORKED, OLD_DRIVER, NO_GPU, BROKEN)


def kind_of(text: str) -> Kind:
    """What an error of CUDA's means, from its text.

    >>> kind_of("cudaErrorDevicesUnavailable: CUDA-capable device(s) is/are busy or unavailable").names == TAKEN.names
    True
    """
    found = re.match(r"(?:cudaError|CUDA_ERROR_)(\w+)", text)
    return next((kind for kind in KINDS if found and found[1] in kind.names), LOST)


def explained(error: BaseException) -> BackendError:
    """One clear error for one of CUDA's."""
    kind = kind_of(str(error))
    return BackendError(f"{kind.what}: {error}", remedy=kind.remedy)
