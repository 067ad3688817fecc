"""Callbacks by their Keras 3 names and hooks: what happens beside training."""

from __future__ import annotations

from graphc.frontend.callbacks_base import Callback as Callback
from graphc.frontend.callbacks_base import CallbackList as CallbackList
from graphc.frontend.callbacks_base import History as History
from graphc.frontend.callbacks_base import LambdaCallback as LambdaCallback
from graphc.frontend.callbacks_base import Logs as Logs
from graphc.frontend.callbacks_files import BackupAndRestore as BackupAndRestore
from graphc.frontend.callbacks_files import ModelCheckpoint as ModelCheckpoint
from graphc.frontend.callbacks_logs import CSVLogger as CSVLogger
from graphc.frontend.callbacks_logs import GradientNorms as GradientNorms
from graphc.frontend.callbacks_logs import JSONLinesLogger as JSONLinesLogger
from graphc.frontend.callbacks_rate import LearningRateScheduler as LearningRateScheduler
from graphc.frontend.callbacks_rate import ReduceLROnPlateau as ReduceLROnPlateau
from graphc.frontend.callbacks_rate import SwapEMAWeights as SwapEMAWeights
from graphc.frontend.callbacks_stop import EarlyStopping as EarlyStopping
from graphc.frontend.callbacks_stop import TerminateOnNaN as TerminateOnNaN
from graphc.frontend.progress import ProgressBar as ProgressBar
from graphc.frontend.tensorboard import TensorBoard as TensorBoard
