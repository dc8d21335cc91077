"""The forward pass of a bridged model: its bridge's, between the blocks that are asked for."""

import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from mudd_interp import axes
from mudd_interp.model.bridge.taps import NORM_HOOKS, Taps
from mudd_interp.model.points import may_change
from mudd_interp.protocol import Observer


class BridgePass:
    """What runs a bridge, with the hook points that are tied to it.

    Args:
        bridge: The TransformerBridge.
        taps: Our hook points.
        hooks: Hooks on them for the length of a ``with`` block.
    """

    def __init__(self, bridge: Any, taps: Taps, hooks: Callable[..., AbstractContextManager[Any]]):
        self.bridge, self.taps, self.hooks = bridge, taps, hooks

    def between(
        self, given: Tensor, return_type: str | None, start: int | None, stop: int | None
    ) -> Tensor | None:
        """The logits, ``None``, or the stream that enters block ``stop``; hooks outside are mute.

        Args:
            given: Token ids, or the stream that enters block ``start``.
            return_type: ``None`` leaves the unembedding out.
            start: The first block that is run.
            stop: The block before which it ends.
        """
        with self.taps.between(start, stop):
            if stop is not None:
                return self.stream_before(given, stop, start)
            if return_type is None:
                return self._to_final_norm(given, start)
            return self.run(given, start_at_layer=start)

    def run(self, given: Tensor, return_type: str = "logits", **kwargs: Any) -> Any:
        """What the bridge returns."""
        with self._quiet():
            return self.bridge(given, return_type=return_type, **kwargs)

    def _to_final_norm(self, given: Tensor, start: int | None) -> None:
        """Leave out the unembedding, a large share of a small model's work."""
        from transformer_lens.model_bridge.exceptions import StopAtLayerException

        def stop(unembed: nn.Module, inputs: tuple[Any, ...]) -> None:  # noqa: ARG001 (a hook's signature)
            raise StopAtLayerException(inputs[0])  # the bridge catches it, as for its blocks

        with self.bridge.unembed.register_forward_pre_hook(stop):
            self.run(given, start_at_layer=start)

    def stream_before(
        self, given: Tensor, stop: int, start: int | None = None
    ) -> Float[Tensor, "batch pos d_model"]:
        """The stream that enters block ``stop``; arguments are those of :meth:`between`."""
        if stop != len(self.taps.blocks):
            return self.run(given, stop_at_layer=stop, start_at_layer=start)
        kept: list[Tensor] = []
        look = Observer(lambda x, hook: kept.append(x))  # noqa: ARG005 (a hook's signature)
        with self.hooks([(axes.RESID_FINAL, look)]):
            self._to_final_norm(given, start)
        return kept[0]

    @contextmanager
    def _quiet(self) -> Generator[None]:
        """Keep the bridge from warning that a hooked norm is computed from its hooks."""
        norms = [p for name, p in self.taps.points.items() if name.endswith(NORM_HOOKS)]
        if not any(map(may_change, norms)):
            yield
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="A forward hook edited hook_scale")
            warnings.filterwarnings("ignore", message="Backward hooks on hook_scale")
            yield
