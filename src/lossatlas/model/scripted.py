"""TorchScript modules as Python modules, whose parameters ``functional_call`` can exchange."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Scripted(nn.Module):
    """The parameters, buffers and parts of a ``ScriptModule`` under the same names; called, it runs the script on them.

    ``source`` holds the tensors, copied by ``memo`` as ``deepcopy`` does: the script itself, or a mirror of one like
    it. What the script writes into a buffer is read back. TorchScript's own optimiser is off, so that every call
    computes the same and derivatives of every order are autograd's.
    """

    _held: tuple[Any]

    def __init__(self, script: Any, source: nn.Module, memo: dict[int, Any]) -> None:
        super().__init__()
        self.original_name = str(script.original_name)
        for name, tensor in source._parameters.items():
            self.register_parameter(name, None if tensor is None else _parameter(tensor, memo))
        for name, buffer in source._buffers.items():
            self.register_buffer(name, copy.deepcopy(buffer, memo))
        for name, part in source._modules.items():
            if part is not None:
                self.add_module(name, Scripted(getattr(script, name), part, memo))
        self._held = (script,)  # in a tuple, since a module would be registered as a part

    def __deepcopy__(self, memo: dict[int, Any]) -> Scripted:
        other = Scripted(copy.deepcopy(self._held[0]), self, memo)
        for part, own in zip(other.modules(), self.modules(), strict=True):
            part.training = own.training
        return other

    def forward(self, *args: Any, **named: Any) -> Any:
        """The script, with the tensors and modes that its mirror has now."""
        with self._present():
            return self._held[0](*args, **named)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if "_held" not in self.__dict__:
                raise
        found = getattr(self._held[0], name)
        return self._method(name) if isinstance(found, torch._C.ScriptMethod) else found

    def _method(self, name: str) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            with self._present():
                return getattr(self._held[0], name)(*args, **named)

        return call

    @contextmanager
    def _present(self) -> Iterator[None]:
        parts = [part for part in self.modules() if isinstance(part, Scripted)]
        places = [(part, name) for part in parts for name in (*part._parameters, *part._buffers)]
        before = [part._held[0]._c.getattr(name) for part, name in places]
        try:
            for part in parts:
                part._set_mode()
            for part, name in places:
                part._held[0]._c.setattr(name, getattr(part, name))
            with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
                yield
        finally:
            for (part, name), tensor in zip(places, before, strict=True):
                part._read_back(name)
                part._held[0]._c.setattr(name, tensor)

    def _set_mode(self) -> None:
        script = self._held[0]._c
        if script.hasattr("training"):  # a frozen script has none
            script.setattr("training", self.training)

    def _read_back(self, name: str) -> None:
        now = self._held[0]._c.getattr(name)
        if name in self._buffers and now is not self._buffers[name]:
            self._buffers[name] = now


def name_of(module: nn.Module) -> str:
    """The name of a module's class; of a script, of the class that it was made from."""
    return module.original_name if isinstance(module, Scripted) else type(module).__name__


def is_one_of(module: nn.Module, classes: tuple[type[nn.Module], ...]) -> bool:
    """Whether a module is of one of these classes, or a script made from one."""
    return isinstance(module, classes) or (
        isinstance(module, Scripted) and module.original_name in {one.__name__ for one in classes}
    )


def _parameter(tensor: Tensor, memo: dict[int, Any]) -> nn.Parameter:
    if id(tensor) not in memo:  # of a script that was loaded or copied they are no Parameters
        memo[id(tensor)] = nn.Parameter(tensor.detach().clone(), tensor.requires_grad)
    found: nn.Parameter = memo[id(tensor)]
    return found
