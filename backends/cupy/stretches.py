"""A step of a program as graphs, and the decisions of the host between them.

Most programs are one graph. A loop that ends by itself is a graph for each of its steps, recorded when a loop first
comes so far, since places move from step to step; before each step the host waits for the device and reads whether
there is one. What ran is what would have run anywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.backends.cupy.device import Device, Graph
from graphc.backends.cupy.tasks import Segment, While


class Recording:
    """Segments of tasks on a device, ready to be queued again and again.

    Args:
        device: where they run.
        module: what holds their functions.
        segments: in order.

    Attributes:
        parts: a graph for each stretch of tasks, and the loops between them.
    """

    def __init__(self, device: Device, module: Any, segments: Sequence[Segment]) -> None:
        self.parts: list[Graph | _Loop] = [
            _Loop(device, module, segment) if isinstance(segment, While) else device.record(module, segment)
            for segment in segments
        ]

    def launch(self) -> None:
        """Queue all of it. Where it holds loops that end by themselves, these are waited for."""
        for part in self.parts:
            part.launch()


class _Loop:
    """A loop whose steps are recorded as they are first needed."""

    def __init__(self, device: Device, module: Any, loop: While) -> None:
        self._device, self._module, self._loop = device, module, loop
        self._steps: list[Recording] = []
        self._going = device.pinned(8)
        self._count = device.pinned(8).view(np.int64)

    def launch(self) -> None:
        """Run it step by step."""
        step = 0
        while step < self._loop.count and self._goes_on(step):
            if step == len(self._steps):
                self._steps.append(Recording(self._device, self._module, self._loop.body(step)))
            self._steps[step].launch()
            step += 1
        if step == self._loop.count:  # nothing may be under way that reads the number of another call
            self._device.synchronize()
        self._count[0] = step
        self._device.upload(self._loop.steps, self._count)

    def _goes_on(self, step: int) -> bool:
        self._device.download(self._going[:1], self._loop.going(step))
        self._device.synchronize()
        return bool(self._going[0])
