"""The loop of training and of evaluation: a program run on batch after batch, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from graphc.errors import NonFiniteError

if TYPE_CHECKING:
    from graphc.frontend.callbacks import CallbackList
    from graphc.frontend.data.batches import Batches
    from graphc.frontend.interrupt import Interruptible
    from graphc.frontend.objective import Objective
    from graphc.frontend.programs import Step

Array = NDArray[Any]
Logs = dict[str, float]
AHEAD = 16
"""Steps that may be started before the results of the first of them are read."""


def as_number(result: Array) -> Any:
    """A result for logs: a float, or an array where a metric has several values."""
    return float(result) if result.ndim == 0 else result.copy()


@dataclass
class Position:
    """Where a run through batches stands: what a checkpoint holds beside the state of model, metrics and callbacks.

    Attributes:
        epoch: the epoch that is running, or that begins next.
        number: which order of the samples it has.
        step: how many of its steps are done; 0 between epochs.
        seen: how many samples they took.
        sums: sums over these samples of what logs show the means of.
        logs: the results of the last epoch that ended.
    """

    epoch: int = 0
    number: int = 0
    step: int = 0
    seen: int = 0
    sums: list[float] = field(default_factory=list[float])
    logs: Logs = field(default_factory=dict[str, float])

    def begin(self, number: int, means: int) -> None:
        """An epoch begins, in the order of this number."""
        self.number, self.step, self.seen, self.sums = number, 0, 0, [0.0] * means

    def end(self, logs: Logs) -> None:
        """The epoch has ended with these results; what comes next is another one."""
        self.epoch, self.step, self.logs = self.epoch + 1, 0, logs

    def results(self, objective: Objective, last: Sequence[Array]) -> Logs:
        """The logs: means over the samples so far, and the metrics of the last step's outputs."""
        means = objective.mean_fields
        values = [total / self.seen for total in self.sums]
        values += [as_number(value) for value in last[means : len(objective.fields)]]
        return dict(zip(objective.fields, values, strict=True))


@dataclass(frozen=True)
class _Started:
    """A step whose results have not been read yet."""

    program: Any
    arrays: Sequence[Array]
    results: Sequence[Array]


@dataclass
class Loop:
    """One pass of a program over batches.

    Attributes:
        step: gives the program that runs; its first outputs are the objective's fields.
        batches: what it runs on.
        objective: names the outputs.
        hooks: the callbacks.
        phase: ``train`` or ``test``: which hooks are called.
        interrupt: raises a Ctrl-C that came meanwhile.
        stops: whether a callback has asked to end.
        extra: outputs of the last step beyond the objective's fields.
    """

    step: Step
    batches: Batches
    objective: Objective
    hooks: CallbackList
    phase: str
    interrupt: Interruptible | None
    stops: Callable[[], bool] | None = None
    extra: Sequence[Array] = ()
    _last: Sequence[Array] = ()

    def run(self, position: Position) -> Logs:
        """Run the epoch from where it stands: its results, empty if there was no batch."""
        begin, end = f"on_{self.phase}_batch_begin", f"on_{self.phase}_batch_end"
        hears_begin, hears_end = self.hooks.listens(begin), self.hooks.listens(end)
        objective, fields = self.objective, len(self.objective.fields)
        waiting: list[_Started] = []
        self._last = ()
        if position.step:  # resumed: metrics are a function of their state, which the last step left
            if self.stops is not None and self.stops():
                return dict(position.logs)
        with closing(self.batches.epoch(position.number, position.step)) as epoch:
            for arrays in epoch:
                step = position.step + len(waiting)
                if hears_begin:
                    self.hooks.call(begin, step)
                program = self.step.program(arrays)
                try:
                    results = program.start(arrays)
                except NonFiniteError as error:
                    if self._read(waiting, position) and not self.hooks.bear(error, program, arrays, step):
                        raise
                    break
                waiting.append(_Started(program, arrays, results))
                interrupted = self.interrupt is not None and self.interrupt.pending
                now = hears_end or interrupted or not program.runs_ahead or len(waiting) >= AHEAD
                if now and not self._read(waiting, position):
                    break
                if hears_end:
                    self.extra = results[fields:]
                    position.logs = position.results(objective, results)
                    self.hooks.call(end, position.step - 1, logs=position.logs)
                if self.interrupt is not None:
                    self.interrupt.check()
                if self.stops is not None and self.stops():
                    break
        self._read(waiting, position)
        if self._last:
            return position.results(objective, self._last)
        return dict(position.logs) if position.step else {}

    def _arrays_of(self, position: Position) -> Sequence[Array]:
        """The batch of the step that stands next, made again, since a batch is valid until the next one only."""
        again = getattr(self.batches, "batch", None)
        return [] if again is None else again(position.number, position.step)

    def _read(self, waiting: list[_Started], position: Position) -> bool:
        """Add up the results of steps that have been started; False if training is to end with one that failed."""
        means = self.objective.mean_fields
        started, waiting[:] = list(waiting), []
        for one in started:
            try:
                values = [float(one.results[index]) for index in range(means)]
            except NonFiniteError as error:
                arrays = self._arrays_of(position) or one.arrays
                if not self.hooks.bear(error, one.program, arrays, position.step):
                    raise
                return False
            count = one.arrays[0].shape[0]
            position.seen += count
            for index, value in enumerate(values):
                position.sums[index] += value * count
            position.step += 1
            self._last = one.results
        return True


@dataclass
class Fit:
    """A ``fit`` that is running, for callbacks that look deeper.

    Attributes:
        loop: the loop of its epochs.
        validation: what is evaluated after epochs.
        position: where it stands.
    """

    loop: Loop
    validation: Batches | None
    position: Position
