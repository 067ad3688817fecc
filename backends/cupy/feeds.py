"""How arrays of the host get to a device: through pinned memory, a few steps ahead of the one that is running."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.backends.cupy.device import Array, Device, Mark, Memory

FEEDS = 3
"""Steps whose inputs may be under way."""
BESIDE_BYTES = 256 << 10
"""From so many bytes on the copies of a step run beside earlier steps; below that, keeping them apart takes longer."""


@dataclass
class _Feed:
    """Memory for the inputs of one step.

    Attributes:
        pinned: of the host.
        staging: of the device, where copies arrive while earlier steps still read the block of inputs; None for few
            bytes, which are copied between two steps.
        arrived: nothing reads the pinned memory after this mark.
        taken: nothing reads the staging memory after this one.
    """

    pinned: Array
    staging: Memory | None
    arrived: Mark | None = None
    taken: Mark | None = None


class Feeds:
    """Brings inputs into one block of memory of a device, step after step.

    Args:
        device: that has the block.
        nbytes: of the block.
        what: the block is, for messages.
    """

    def __init__(self, device: Device, nbytes: int, what: str) -> None:
        self._device = device
        self._nbytes = nbytes
        self._what = what
        self._feeds: list[_Feed] = []
        # pinned memory is given to whoever asks next, at once: nothing may be under way when it is given back
        weakref.finalize(self, _settle, self._feeds).atexit = False

    def bring(self, block: int, arrays: Sequence[tuple[int, Array]], whole: bool) -> None:
        """Queue copies of arrays to their offsets in the block; the arrays may change as soon as this returns.

        Args:
            block: its address.
            arrays: with their offsets.
            whole: are they all that is in the block, so that one copy will do?
        """
        feed, device = self._next(), self._device
        if feed.arrived is not None:
            feed.arrived.wait()
        for offset, array in arrays:
            place = feed.pinned[offset : offset + array.nbytes]
            np.copyto(place.view(array.dtype).reshape(array.shape), array)
        spans = [(0, self._nbytes)] if whole else [(offset, array.nbytes) for offset, array in arrays if array.nbytes]
        if feed.staging is None:
            for offset, nbytes in spans:
                device.upload(block + offset, feed.pinned[offset : offset + nbytes])
            feed.arrived = device.mark()
            return
        staging = feed.staging.address
        for offset, nbytes in spans:
            pinned = feed.pinned[offset : offset + nbytes]
            feed.arrived = device.upload_beside(staging + offset, pinned, feed.taken)
        for offset, nbytes in spans:
            device.copy(block + offset, staging + offset, nbytes)
        feed.taken = device.mark()

    def _next(self) -> _Feed:
        """The memory that was used the longest time ago."""
        if len(self._feeds) < FEEDS:
            staging = taken = None
            if self._nbytes >= BESIDE_BYTES:
                staging = self._device.allocate(self._nbytes, f"{self._what}, on their way")
                taken = self._device.mark()  # what is queued may still use the memory, for whoever had it before
            self._feeds.append(_Feed(self._device.pinned(self._nbytes), staging, taken=taken))
        else:
            self._feeds.append(self._feeds.pop(0))
        return self._feeds[-1]


def _settle(feeds: Sequence[_Feed]) -> None:
    """Wait until nothing reads the host's memory any more."""
    for feed in feeds:
        if feed.arrived is not None:
            feed.arrived.wait()
