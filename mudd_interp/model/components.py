"""The parts that the stacks of a cache are made of: coefficients, heads, neurons, and names."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.utilities.slice import Slice

from mudd_interp import axes
from mudd_interp.axes import STREAMS, Stream
from mudd_interp.model.lookup import LookupCache
from mudd_interp.states import StateWiring
from mudd_interp.wiring import Read


class ReadPoint(NamedTuple):
    """A stream as it enters a block (layer L: the final norm), or what its FFN reads."""

    layer: int
    stream: Stream
    mlp_input: bool


class ComponentCache(LookupCache):
    """A cache that knows what each component is multiplied by in each stream."""

    @property
    def additive(self) -> bool:
        """Whether the residual stream is the plain sum of what was written to it."""
        wiring = getattr(self.model, "wiring", None)
        return wiring is None or wiring.additive

    def path_coefficients(
        self, layer: int | None = None, stream: Stream = "r", pos_slice: Any = None
    ) -> Float[Tensor, "*token source _"]:
        """The total coefficient of what each component wrote in a stream, all paths together.

        Index 0 is the embedding, and ``l + 1`` what attention and FFN of block ``l`` wrote.

        Args:
            layer: The block; ``None`` or ``n_layers`` is the final norm.
            stream: Which of its inputs.
            pos_slice: Positions, as TransformerLens slices them.

        Returns:
            The coefficients, dimensionless; the last axis is 1, or d_model with PrePostDANorm,
            where norm scales are frozen.

        Raises:
            ValueError: If there is no such stream, or a hook that is needed was not kept.
        """
        place, wiring = self._place(layer, stream), self.model.wiring
        if not isinstance(wiring, StateWiring):
            raise ValueError(
                "attention and FFN of a block reach a read with coefficients of their own here: "
                "cache.delta_coefficients gives them one by one."
            )
        reads = [wiring.read(place.layer, place.stream)]
        ((_, found),) = wiring.components(reads, _Tape(self, as_slice(pos_slice)))
        return found

    def delta_coefficients(
        self,
        layer: int | None = None,
        stream: Stream = "r",
        pos_slice: Any = None,
        mlp_input: bool = False,
    ) -> Float[Tensor, "*token write _"]:
        """The total coefficient of what each sublayer wrote in a stream, all paths together.

        Index 0 is the embedding, ``1 + 2 l`` what the attention of block ``l`` wrote, and ``2 + 2
        l`` what its FFN did. Arguments and errors are those of :meth:`path_coefficients`.

        Args:
            layer: The block; ``None`` or ``n_layers`` is the final norm.
            stream: Which of its inputs.
            pos_slice: Positions, as TransformerLens slices them.
            mlp_input: What the block's FFN reads.
        """
        read = self._read(self._place(layer, stream, mlp_input))
        return self.model.wiring.delta_vectors(read, _Tape(self, as_slice(pos_slice)))

    def _place(
        self, layer: int | None, stream: Stream | None = None, mlp_input: bool = False
    ) -> ReadPoint:
        n_layers: int = self.model.cfg.n_layers
        if layer is None or layer == -1:
            layer = n_layers
        if not 0 <= layer <= n_layers:
            raise ValueError(f"layer must lie in 0..{n_layers} (the final norm), got {layer}.")
        if stream is not None and stream not in STREAMS:
            raise ValueError(f"stream must be one of {', '.join(STREAMS)}, got {stream!r}.")
        if (layer == n_layers or mlp_input) and stream not in (None, "r"):
            reader = "an FFN" if mlp_input else "the final norm"
            raise ValueError(f"{reader} reads stream r only, got stream {stream!r}.")
        if layer == n_layers and mlp_input:
            raise ValueError("mlp_input needs a block: there is no FFN behind the last one.")
        return ReadPoint(layer, stream or "r", mlp_input)

    def _reads_own_attention(self, place: ReadPoint) -> bool:
        return place.mlp_input and not self.model.cfg.parallel_attn_mlp

    def _read(self, place: ReadPoint) -> Read:
        """What reads at a place."""
        wiring = self.model.wiring
        if place.mlp_input:
            return wiring.at(f"mlp.{place.layer}")
        return wiring.read(place.layer, place.stream)

    def _hook(self, place: ReadPoint) -> str:
        """The hook on the stream itself."""
        if place.layer == self.model.cfg.n_layers:
            return self._final_stream()
        if self._reads_own_attention(place):
            return axes.block(place.layer, "hook_resid_mid")
        return axes.stream_input(place.layer, place.stream)

    def _final_stream(self) -> str:
        """The final stream; of a plain model the last block's output, if only that is kept."""
        final = self.model.wiring.read(self.model.cfg.n_layers).hook
        last = axes.resid_post(self.model.cfg.n_layers - 1)
        return final if final in self.cache_dict or not self.additive else last

    def _scale(self, place: ReadPoint, stream: Stream | None) -> str:
        """The hook on the scale of the norm of a block that reads a stream."""
        if place.mlp_input:
            return axes.norm_scale(place.layer, "ln2")
        if place.layer == 0 or len(self.model.wiring.streams) == 1:
            return axes.norm_scale(place.layer, "ln1")
        if stream is None or stream == "r":
            raise ValueError(
                f"block {place.layer} norms its streams q, k and v one by one, and r before the "
                f"FFN only: say which is meant, with stream='q', 'k' or 'v', or mlp_input=True "
                f"(got stream={stream!r})."
            )
        return axes.norm_scale(place.layer, f"ln1_{stream}")

    def kept(self, name: str, pos: Slice) -> Float[Tensor, "..."]:
        """A cached tensor by its name, positions sliced."""
        self._require(name)
        return pos.apply(self.cache_dict[name], dim=axes.position_axis(name))

    def _coefficients(
        self, place: ReadPoint, pos: Slice, apply_ln: bool = False
    ) -> Sequence[Float[Tensor, "*token _"]]:
        """Of each write that reaches a place, as in :meth:`delta_coefficients`.

        Refused where blocks write more than attention and FFN: components are these.

        Where the head norms several streams, with ``apply_ln`` it is that of their normed sum: the
        scales are in it.
        """
        wiring, tape = self.model.wiring, _Tape(self, pos)
        wiring.require_pairs()
        if not (apply_ln and self._norms_several(place)):
            return wiring.delta_vectors(self._read(place), tape).unbind(-2)
        normed = [
            wiring.delta_vectors(read, tape) / self.kept(str(read.norm_hook), pos)[..., None, :]
            for read in wiring.finals
        ]
        return torch.stack(normed).sum(0).unbind(-2)

    def _norms_several(self, place: ReadPoint) -> bool:
        """Whether a place is a head that norms several streams one by one."""
        return place.layer == self.model.cfg.n_layers and len(self.model.wiring.finals) > 1

    def _heads(self, layer: int, pos: Slice) -> Float[Tensor, "*token head d_model"]:
        result = axes.attn(layer, "hook_result")
        if result in self.cache_dict or result not in self.model.hook_dict:
            return self.kept(result, pos)
        return self.head_results(layer, self.kept(axes.attn(layer, "hook_z"), pos))

    def _neurons(
        self,
        layer: int,
        coefficient: Float[Tensor, "*token _"],
        direction: Float[Tensor, "..."] | None,
        pos: Slice,
        neurons: Slice,
    ) -> Float[Tensor, "*token neuron out"]:
        post = neurons.apply(self.kept(axes.block(layer, "mlp.hook_post"), pos), dim=-1)
        weight = neurons.apply(self.model.blocks[layer].mlp.W_out, dim=0)
        if direction is None:
            return weighted(post[..., None] * weight, coefficient)
        return post[..., None] * (weight @ (coefficient[..., None] * direction))

    def _neuron_labels(self, n_layers: int, neurons: Slice) -> list[str]:
        widths = [self.model.blocks[layer].mlp.W_out.shape[0] for layer in range(n_layers)]
        return [
            f"L{layer}N{neuron}"
            for layer, width in enumerate(widths)
            for neuron in neurons.apply(torch.arange(width)).tolist()
        ]

    def _direction(
        self,
        projection: Float[Tensor, "..."] | None,
        place: ReadPoint,
        stream: Stream | None,
        apply_ln: bool,
        pos: Slice,
    ) -> Float[Tensor, "..."] | None:
        """``[*token d_model out]``: a projection with the frozen norm before it folded in."""
        if projection is None:
            return None
        columns = projection[:, None] if projection.ndim == 1 else projection
        if not apply_ln:
            return columns
        final = place.layer == self.model.cfg.n_layers
        if self._norms_several(place):
            return columns - columns.mean(0) if self._uses_ln_centering(0) else columns
        scale = self.kept(axes.FINAL_SCALE if final else self._scale(place, stream), pos)
        centred = self._uses_ln_centering(place.layer)
        return (columns - columns.mean(0) if centred else columns) / scale[..., None]

    def _centred(self, stack: Float[Tensor, "*shape d_model"]) -> Float[Tensor, "*shape d_model"]:
        centred = self._uses_ln_centering(0)
        return stack - stack.mean(-1, keepdim=True) if centred else stack

    def _stacked(
        self,
        groups: Sequence[Float[Tensor, "..."]],
        pos: Slice,
        direction: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "component *token out"]:
        if groups:
            return torch.cat(list(groups), dim=-2).movedim(-2, 0)
        empty = self.kept(axes.EMBED, pos)
        return empty.new_zeros(
            0, *empty.shape[:-1], empty.shape[-1] if direction is None else direction.shape[-1]
        )

    @staticmethod
    def _with_remainder(
        stack: Float[Tensor, "component *token out"],
        total: Float[Tensor, "*token out"],
        labels: list[str],
    ) -> Float[Tensor, "one_more *token out"]:
        labels.append("remainder")
        return torch.cat([stack, (total - stack.sum(0))[None]])


class _Tape:
    """Some positions of what a cache holds."""

    def __init__(self, cache: ComponentCache, pos: Slice):
        self._cache, self._pos = cache, pos

    def __getitem__(self, name: str) -> Float[Tensor, "..."]:
        return self._cache.kept(name, self._pos)


def as_slice(given: Any) -> Slice:
    """What TransformerLens makes of an argument that selects positions or sequences."""
    return given if isinstance(given, Slice) else Slice(given)


def weighted(
    written: Float[Tensor, "*token component d_model"],
    coefficient: Float[Tensor, "*token _"] | None,
    direction: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "*token component out"]:
    """Components times their coefficient, and their products with a direction if one is given."""
    weighted = written if coefficient is None else written * coefficient[..., None, :]
    return weighted if direction is None else weighted @ direction
