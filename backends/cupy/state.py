"""Parameters on a device: one buffer each, shared by all programs, copied only when the other side is newer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.backends.cupy.device import Device, Memory

if TYPE_CHECKING:
    from graphc.ir.node import Parameter


class Residence:
    """What a device holds of parameters.

    Attributes:
        version: counts steps that may have changed parameters on the device.
        expired: counts changes on the host.
    """

    def __init__(self) -> None:
        self.version = 0
        self.expired = 0

    def mirror(self, parameter: Parameter, device: Device) -> Mirror:
        """The parameter's buffer on the device, made when first asked for."""
        for mirror in parameter.mirrors:
            if isinstance(mirror, Mirror) and mirror.residence is self:
                return mirror
        made = Mirror(parameter, device, self)
        parameter.add_mirror(made)
        self.expired += 1  # whoever looks for changes on the host finds this one
        return made


class Mirror:
    """A parameter's buffer on one device; see :class:`graphc.ir.node.Mirror`.

    Attributes:
        memory: the buffer.
        is_old: has the host's array changed since it was copied here?
    """

    def __init__(self, parameter: Parameter, device: Device, residence: Residence) -> None:
        self.residence = residence
        self.is_old = True
        self._device = device
        self._host = parameter.buffer
        self._fetched = residence.version  # the version at which both sides were equal
        self.memory: Memory = device.allocate(self._host.nbytes, f"parameter {parameter.label!r}")

    def fetch(self) -> None:
        """Bring the host's array up to date."""
        with self._device.lock:
            if not self.is_old and self._fetched != self.residence.version:
                self._device.download(self._host, self.memory.address)
                self._device.synchronize()
                self._fetched = self.residence.version

    def expire(self) -> None:
        """Bring the host's array up to date and count as old from now on, since that may change."""
        with self._device.lock:
            self.fetch()
            self.is_old = True
            self.residence.expired += 1

    def send(self) -> None:
        """Bring the device's buffer up to date; the device's lock is held."""
        if self.is_old:
            self._device.upload(self.memory.address, self._host)
            self.is_old = False
            self._fetched = self.residence.version
