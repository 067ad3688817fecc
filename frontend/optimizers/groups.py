"""Groups of layers that learn at rates of their own, or by optimizers of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import graphc as gx
from graphc.errors import AxisError, GraphError
from graphc.frontend.arguments import is_number
from graphc.frontend.config import user_line
from graphc.frontend.layers.selection import matches
from graphc.frontend.optimizers.base import Optimizer
from graphc.ir.node import Node, Parameter


class Grouped(Optimizer):
    """An optimizer that treats some layers in another way: with a part of its learning rate, or with another optimizer.

    The steps taken are counted once for all groups. Where an optimizer bounds the norm of all gradients, it is that of
    the gradients it gets: of all groups with a part of the rate, of one group with an optimizer of its own.

    Args:
        optimizer: for all layers that no pattern means.
        groups: by pattern a factor of the learning rate, or an optimizer. A pattern is a name of a layer or of one
            around it (``"block1_*"``), or a path (``"base/block1_*"``); the first that matches holds.
        name: for texts and files.

    Raises:
        AxisError: a factor is not positive (freeze the layers instead).
        GraphError: an optimizer has groups itself, or a pattern means no layer of the model that is trained.

    Source: Howard and Ruder 2018, https://arxiv.org/abs/1801.06146, equation 2, for rates by layer.

    >>> import graphc as gx
    >>> slow = gx.optimizers.Grouped(gx.optimizers.Adam(1e-3), {"base": 0.1, "head": gx.optimizers.SGD(0.01)})
    >>> slow.learning_rate
    0.001
    """

    def __init__(self, optimizer: Optimizer, groups: Mapping[str, float | Optimizer], name: str | None = None) -> None:
        super().__init__(0.0, name=name)
        optimizer = gx.optimizers.get(optimizer)
        for one in (optimizer, *groups.values()):
            if isinstance(one, Grouped):
                raise GraphError("groups within groups", at=user_line(), remedy="list all patterns in one Grouped")
            if not isinstance(one, Optimizer) and (not is_number(one, 0) or one == 0):
                raise AxisError(
                    f"a learning rate is multiplied by {one!r}",
                    at=user_line(),
                    remedy="give a positive factor; to leave weights as they are, freeze their layers",
                )
        self.default = optimizer
        self.groups = dict(groups)
        self.default.factors = self._factor
        self.iterations = optimizer.iterations
        for one in self._members():
            one.iterations = self.iterations

    def _members(self) -> list[Optimizer]:
        """The default, and the groups' own optimizers, each once."""
        found = [self.default, *(one for one in self.groups.values() if isinstance(one, Optimizer))]
        return list({id(one): one for one in found}.values())

    def _entry(self, parameter: Parameter) -> float | Optimizer:
        """What the groups say of a weight."""
        path = parameter.label.rpartition("/")[0]
        return next((entry for pattern, entry in self.groups.items() if matches(pattern, path)), 1.0)

    def _factor(self, parameter: Parameter) -> float:
        entry = self._entry(parameter)
        return 1.0 if isinstance(entry, Optimizer) else float(entry)

    def _member_for(self, parameter: Parameter) -> Optimizer:
        entry = self._entry(parameter)
        return entry if isinstance(entry, Optimizer) else self.default

    def _shares(self, parameters: Sequence[Parameter]) -> Iterator[tuple[Optimizer, list[int]]]:
        """Each optimizer with the places of its parameters; the default even if it has none."""
        for member in self._members():
            places = [place for place, one in enumerate(parameters) if self._member_for(one) is member]
            if places or member is self.default:
                yield member, places

    # What a user asks.

    @property
    def learning_rate(self) -> float:
        """That of the default. Setting it changes the rates of the groups' own optimizers in proportion."""
        return self.default.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        before = self.default.learning_rate
        self.default.learning_rate = value
        for member in self._members():
            if member is not self.default and not member.follows_schedule and before:
                member.learning_rate *= self.default.learning_rate / before

    def exclude_from_weight_decay(
        self, var_list: Sequence[Parameter] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Spare weights from ``weight_decay`` in all groups; see :meth:`Optimizer.exclude_from_weight_decay`."""
        for member in self._members():
            member.exclude_from_weight_decay(var_list, var_names)

    def swap_averages(self) -> None:
        """Exchange weights and moving averages, where a group keeps any."""
        keeping = [member for member in self._members() if member.use_ema] or [self.default]
        for member in keeping:
            member.swap_averages()
        self.averages_in_weights = keeping[0].averages_in_weights

    def finalize_variable_values(self, var_list: Sequence[Parameter]) -> None:
        """Replace weights by their moving averages, where a group keeps any."""
        for member, places in self._shares(var_list):
            member.averages_in_weights = self.averages_in_weights and member.use_ema
            member.finalize_variable_values([var_list[place] for place in places])
        self.averages_in_weights = False

    # What programs ask.

    def check(self, weights: Sequence[Parameter]) -> None:
        paths = {weight.label.rpartition("/")[0] for weight in weights}
        for pattern in self.groups:
            if not any(matches(pattern, path) for path in paths):
                raise GraphError(
                    f"no layer with weights is called {pattern!r}",
                    details=(f"layers: {', '.join(sorted(paths))}",),
                    at=user_line(),
                    remedy="give names of layers, with * for any text, as keys of groups",
                )

    def gradients(self, loss: Node, parameters: Sequence[Parameter]) -> list[Node]:
        return self.default.gradients(loss, parameters)

    def build(self, parameters: Sequence[Parameter]) -> None:
        for member, places in self._shares(parameters):
            member.build([parameters[place] for place in places])

    def slot_names(self, parameter: Parameter) -> list[str]:
        return self._member_for(parameter).slot_names(parameter)

    def updates(
        self,
        parameters: Sequence[Parameter],
        gradients: Sequence[Node],
        constraints: Mapping[Parameter, Callable[[Node], Node]] | None = None,
        sparse: Collection[Parameter] = (),
    ) -> dict[Parameter, Node]:
        """The next values of the parameters of all groups, and of their state."""
        found: dict[Parameter, Node] = {}
        for member, places in self._shares(parameters):
            own, theirs = [parameters[place] for place in places], [gradients[place] for place in places]
            found.update(member.updates(own, theirs, constraints, sparse))
        return found

    def variables(self, names: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """All state by name; what an optimizer other than the default shares has its group's number before it."""
        found: dict[str, Parameter] = {}
        for number, member in enumerate(self._members()):
            shared = member.variables({})
            slots = member.variables({name: one for name, one in names.items() if self._member_for(one) is member})
            prefix = f"group_{number}/" if number else ""
            found.update((prefix + key, value) for key, value in shared.items() if not number or key != "iterations")
            found.update((key, value) for key, value in slots.items() if key not in shared)
        return found
