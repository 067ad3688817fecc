"""How a model gets into files: as a folder that goes on bit for bit, as weights alone, as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import graphc as gx
from graphc.frontend import weight_files
from graphc.frontend.checked import checked
from graphc.frontend.files import write_tensors

if TYPE_CHECKING:
    from graphc.frontend.model import Model
    from graphc.frontend.weight_files import LoadReport


class Stored:
    """The part of :class:`~graphc.frontend.model.Model` that writes files and reads weights."""

    @checked
    def save(self, path: str | Path) -> None:
        """Write the model into a folder: layers and training as text, arrays as safetensors.

        Everything that training depends on is kept (weights, optimizer, random numbers, shuffling), so that a loaded
        model goes on bit for bit. The new version replaces an old one at once or not at all.

        Raises:
            FileError: the folder cannot be written.
            GraphError: a part of the model has no form in a file.
        """
        from graphc.frontend.saving import save_model

        save_model(cast("Model", self), path)

    @checked
    def save_weights(self, path: str | Path) -> None:
        """Write the weights alone into one safetensors file, by their paths in the model, at once or not at all.

        Raises:
            FileError: the file cannot be written.
            GraphError: the shapes of the model are not known yet.
        """
        model = cast("Model", self)
        model.check_built()
        write_tensors(Path(path), {key: weight.value for key, weight in model.named_weights().items()})

    @checked
    def load_weights(self, path: str | Path, by_name: bool = False, skip_mismatch: bool = False) -> LoadReport:
        """Set the weights to those that :meth:`save_weights` wrote; all of them or none, unless told otherwise.

        Args:
            path: the file.
            by_name: set those that both the model and the file have, and leave the others; a layer that stands within
                another one on one side only (``base/conv/kernel`` and ``conv/kernel``) is found, too.
            skip_mismatch: leave layers whose weights have other shapes in the file, such as another head.

        Returns:
            What matched, what has other shapes, and what only the model or only the file has; print it.

        Raises:
            FileError: there is no such file, it is damaged, or it holds the weights of another model.
            GraphError: the shapes of the model are not known yet.
        """
        model = cast("Model", self)
        model.check_built()
        return weight_files.load_weights(Path(path), model.named_weights(), by_name, skip_mismatch)

    @checked
    def export(
        self, path: str | Path, training: bool = False, opset: int = 21, weights: str | Path | None = None
    ) -> None:
        """Write an ONNX file: the prediction, or the whole training step.

        Args:
            path: the file.
            training: write the training step, with its state as further inputs and outputs.
            opset: the version of ONNX's operators.
            weights: a safetensors file for the weights and all other state, which the ONNX file then only takes as
                inputs, as browsers need it; ``load_weights(weights, by_name=True)`` reads one that was trained there.

        Raises:
            ExportError: an operation has no form in this opset.
            FileError: a file cannot be written.
            GraphError: the shapes of the model are not known yet, or it is not compiled for training.
        """
        gx.onnx.export(
            cast("Model", self).programs["train" if training else "predict"], path, opset=opset, weights=weights
        )
