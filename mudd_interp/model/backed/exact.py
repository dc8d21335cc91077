"""Float64 throughout: Hugging Face's code casts to float32 in norms, softmax, gates and routers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Exact:
    """Lifts the casts of a model's code where its weights are float64.

    Tables of rotary embeddings are left as the code makes them, in float32: they belong to the
    model as its weights do.

    Args:
        module: The Hugging Face model.
    """

    def __init__(self, module: nn.Module):
        self.in_table = False
        for part in module.modules():
            if type(part).__name__.endswith("RotaryEmbedding"):
                part.register_forward_pre_hook(lambda *_: self._enter(True))
                part.register_forward_hook(lambda *_: self._enter(False), always_call=True)

    def _enter(self, table: bool) -> None:
        self.in_table = table

    def lifted(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """For the length of a ``with`` block; nothing in any other precision than float64."""
        return _Lifted(self) if dtype == torch.float64 else nullcontext()


class _Lifted(TorchFunctionMode):
    """A tensor in float64 stays in float64 where it would be cast to float32."""

    def __init__(self, exact: Exact):
        super().__init__()
        self._exact = exact

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Torch's method: what is called instead of a function of torch's."""
        kwargs = dict(kwargs or {})
        if self._exact.in_table or not args or not _is_double(args[0]):
            return func(*args, **kwargs)
        if func is Tensor.float:
            return args[0]
        if kwargs.get("dtype") is torch.float32:
            kwargs["dtype"] = torch.float64
        if func in (Tensor.to, Tensor.type):
            args = [torch.float64 if each is torch.float32 else each for each in args]
        return func(*args, **kwargs)


def _is_double(x: object) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.float64
