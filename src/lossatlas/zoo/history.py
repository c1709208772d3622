"""What a training run showed, step by step and epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

STEP_VALUES = ("loss", "gradient_norm", "learning_rate")
EPOCH_VALUES = tuple(
    f"{part}_{value}" for part in ("train", "test") for value in ("loss", "loss_stderr", "accuracy", "accuracy_stderr")
)


@dataclass
class History:
    """One number a step in ``loss``, ``gradient_norm`` and ``learning_rate``; one an epoch in the other lists.

    ``loss`` and ``gradient_norm`` are those of the mini-batch, before the step. The values after an epoch are means
    over all examples in eval mode, with their standard errors over examples; NaN where there was nothing to
    measure (no test set, or no class labels). ``seconds`` is the time that training and measuring took, ``attrs``
    what the run was (optimiser, seed, sizes, versions).
    """

    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_loss_stderr: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    train_accuracy_stderr: list[float] = field(default_factory=list)
    test_loss: list[float] = field(default_factory=list)
    test_loss_stderr: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    test_accuracy_stderr: list[float] = field(default_factory=list)
    seconds: float = field(default=0.0, compare=False)
    attrs: dict[str, str | int | float] = field(default_factory=dict, compare=False)

    def append(self, **values: float) -> None:
        """Put each value at the end of the list of its name."""
        for name, value in values.items():
            getattr(self, name).append(value)

    def to_dataset(self, network: str | None = None) -> xr.Dataset:
        """The lists that are not empty as a Dataset, over ``step`` and ``epoch``, counted from 1.

        ``network`` is the label of the network, such as "A": claims that compare networks know them by it.

        Examples
        --------
        >>> history = History(loss=[0.9, 0.5], train_loss=[0.4])
        >>> dataset = history.to_dataset(network="A")
        >>> dict(dataset.sizes), dataset.attrs["network"]
        ({'step': 2, 'epoch': 1}, 'A')
        """
        from lossatlas.trajectory.history import history_dataset

        columns = {
            name: (dimension, np.array(getattr(self, name), dtype=np.float64))
            for dimension, names in (("step", STEP_VALUES), ("epoch", EPOCH_VALUES))
            for name in names
            if getattr(self, name)
        }
        steps = range(1, len(self.loss) + 1)
        return history_dataset(columns, list(steps), **self.attrs, seconds=self.seconds, network=network)
