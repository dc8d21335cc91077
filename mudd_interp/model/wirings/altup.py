"""W of AltUp with LAuReL and per-layer embeddings: Gemma 3n.

The streams X, one row for each, are predicted in front of a block and corrected behind it. With the
active stream a, and all that a block writes behind any norm of the writer::

    P = X + C X
    attention and LAuReL read P_a, the FFN reads m = (P_a + attn + laurel) / sqrt(2)
    X_i = P_i + c_i (m + mlp - P_a)
    the per-layer embedding reads X_a, and what it writes is added to every stream but the first

How the streams come from the token embedding, and the logits from the streams, is outside W: there
are a matrix and a magnitude for each stream. So each stream that enters is a write of its own.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mudd_interp import axes
from mudd_interp.precision import wide
from mudd_interp.sublayers import SublayerWiring, attention_read, ffn_read
from mudd_interp.wiring import Gates, Read, Tape, Weights, Write

LAUREL_SHARE = 1 / math.sqrt(2)
"""What the FFN reads of the attention, of LAuReL, and of what these read."""


class AltUpWiring(SublayerWiring):
    """W is composed of the prediction and correction coefficients, which are hooked.

    Args:
        n_layers: Number of blocks.
        n_streams: How many streams, n.
        active: Which of them the blocks read.
    """

    gates: Gates = "destination"

    def __init__(self, n_layers: int, n_streams: int, active: int):
        self.n_streams, self.active = n_streams, active
        super().__init__(n_layers, _order(n_layers, n_streams), finals=())

    @property
    def inputs(self) -> tuple[Read, ...]:
        """See :class:`Wiring`: nothing norms what the per-layer embedding reads."""
        return self.reads

    @property
    def depths(self) -> Mapping[int, tuple[str, ...]]:
        """None: see :data:`~mudd_interp.sublayers.NO_FINAL`."""
        return {}

    def needs(self, read: Read) -> tuple[str, ...]:
        """X_0, for its shape, and the coefficients of the blocks up to the read."""
        corrected = read.layer + read.label.startswith("ple.")
        predicted = [axes.altup(layer, "hook_predict") for layer in range(read.layer + 1)]
        return (
            axes.EMBED,
            *predicted,
            *(axes.altup(layer, "hook_correct") for layer in range(corrected)),
        )

    def static(self, read: Read) -> None:  # noqa: ARG002 (an architecture's)
        """See :class:`Wiring`: there is no such part."""
        return

    def composed(self, reads: Sequence[Read], tape: Tape) -> Iterator[tuple[Read, Weights]]:
        """See :class:`SublayerWiring`."""
        wanted = set(reads)
        for read, taken in self._in_order(tape):
            if read in wanted:
                yield read, taken[..., : len(self.columns(read))]

    def streams_out(self, tape: Tape) -> Float[Tensor, "*token stream write"]:
        """What each stream behind the last block takes of each write."""
        streams = self._entering(tape)
        for layer in range(self.n_layers):
            *_, streams = self._through(layer, streams, tape)
        return streams

    def _in_order(self, tape: Tape) -> Iterator[tuple[Read, Weights]]:
        streams = self._entering(tape)
        for layer in range(self.n_layers):
            steps = self._through(layer, streams, tape)
            for kind in ("attn", "mlp", "ple"):
                yield self.at(f"{kind}.{layer}"), next(steps)
            streams = next(steps)

    def _entering(self, tape: Tape) -> Float[Tensor, "*token stream write"]:
        """Each stream is one write of its own."""
        token = wide(tape[axes.EMBED])[..., 0]
        alone = torch.eye(self.n_streams, len(self.sources), dtype=token.dtype, device=token.device)
        return alone.expand(*token.shape, *alone.shape)

    def _through(
        self, layer: int, streams: Float[Tensor, "*token stream write"], tape: Tape
    ) -> Iterator[Float[Tensor, "*rows write"]]:
        """The reads of a block in their order, and then the streams behind it.

        Each step looks up only what is there when it is asked for.
        """
        attn, laurel, mlp, ple = (self._written(f"{kind}.{layer}", streams) for kind in WRITES)
        predicted = streams + wide(tape[axes.altup(layer, "hook_predict")]) @ streams
        active = predicted[..., self.active, :]
        yield active
        middle = (active + attn + laurel) * LAUREL_SHARE
        yield middle
        new = middle + mlp - active
        correct = wide(tape[axes.altup(layer, "hook_correct")])
        corrected = predicted + correct[..., None] * new[..., None, :]
        yield corrected[..., self.active, :]
        others = torch.ones_like(correct)
        others[..., 0] = 0.0
        yield corrected + others[..., None] * ple

    def _written(
        self, label: str, like: Float[Tensor, "*token stream write"]
    ) -> Float[Tensor, " write"]:
        """One of a write and nothing of the others."""
        labels = [write.label for write in self.sources]
        return torch.eye(len(labels), dtype=like.dtype, device=like.device)[labels.index(label)]


WRITES = {
    "attn": "hook_attn_out",
    "laurel": "hook_laurel_out",
    "mlp": "hook_mlp_out",
    "ple": "hook_ple_out",
}
"""What a block writes, in this order, and the hook on each."""


def _order(n_layers: int, n_streams: int) -> list[Write | Read]:
    order: list[Write | Read] = [
        Write(f"embed.{stream}", axes.embed_stream(stream)) for stream in range(n_streams)
    ]
    for layer in range(n_layers):
        row = 3 * layer - 1
        attn, laurel, mlp, ple = (
            Write(f"{kind}.{layer}", axes.block(layer, hook)) for kind, hook in WRITES.items()
        )
        gate = Read(f"ple.{layer}", axes.block(layer, "hook_ple_in"), None, layer, "r", row + 2)
        order += (attention_read(layer, row), attn, laurel, ffn_read(layer, row + 1), mlp)
        order += (gate, ple)
    return order
