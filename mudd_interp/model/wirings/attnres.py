"""Attention residuals: what a sublayer reads is a softmax over depth.

Full and block attention residuals (arXiv 2603.15031, Kimi K3), and those of public code that goes
by the same name: snapshots that are never reset, and Delta Attention Residuals. A sublayer ``f``
reads candidates ``v_j``, sums of what was written before it, by one query::

    alpha = softmax_j(q . norm(v_j))        u = sum_j alpha_j v_j        y = f(norm(u))
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.axes import STREAMS, Stream
from mudd_interp.config import ModelConfig
from mudd_interp.model.layers import rms_scale
from mudd_interp.model.wirings.attnres_wiring import AttnResWiring
from mudd_interp.model.wirings.base import (
    Architecture,
    Connections,
    Flow,
    Streams,
    one_of,
    same_streams,
    taken,
    whole_number,
)
from mudd_interp.model.wirings.candidates import (
    Candidates,
    Differences,
    Embedding,
    States,
    Sum,
    Sums,
)
from mudd_interp.precision import wide

Kind = Literal["sums", "states", "differences"]
Head = Literal["softmax", "sum"]

RECENCY_BIAS = 3.0
"""At the start: the newest of two candidates has 95 %, as in open-attention-residuals."""


@dataclass(frozen=True, kw_only=True)
class AttnRes(Architecture):
    """Attention residuals.

    As it is, every write is a candidate (full attention residuals). Kimi K3 is ``AttnRes(
    block_size=24)``: its configuration counts blocks of Transformer, two sublayers each.

    Attributes:
        block_size: Sublayers that share a candidate.
        candidates: ``"sums"``: the sum of each whole block, and of what the present one has written
            so far (Kimi); ``"states"``: the running state before each block, and the present one
            (open-attention-residuals); ``"differences"``: the running state before each block less
            the candidate before it (Delta Attention Residuals' ``delta_block``).
        embedding: Of sums only. ``"block"``: the embedding is a block of its own; ``"both"``: and
            part of the first block of sublayers too; ``"none"``: it is in no candidate.
        residual: The running state is added to what the softmax makes (Delta Attention Residuals).
        recency_bias: A learned number is added to the logit of the newest candidate.
        value_apart: The values of attention are read by a query of their own. Then a block of the
            model has four input streams; r is what its attention's output is added to.
        head: What the final norm is given: a softmax of its own, or the ``"sum"`` of all writes.

    Raises:
        ValueError: If a field is out of range, or two contradict each other.
    """

    kind = "attnres"
    states = False

    block_size: int = 1
    candidates: Kind = "sums"
    embedding: Embedding = "block"
    residual: bool = False
    recency_bias: bool = False
    value_apart: bool = False
    head: Head = "softmax"

    def __post_init__(self) -> None:
        """Check the whole."""
        whole_number("block_size", self.block_size)
        for name, allowed in (("candidates", Kind), ("embedding", Embedding), ("head", Head)):
            one_of(name, getattr(self, name), get_args(allowed))
        for name in ("residual", "recency_bias", "value_apart"):
            one_of(name, getattr(self, name), (False, True))
        if self.embedding != "block" and self.candidates != "sums":
            raise ValueError(
                f"embedding={self.embedding!r} is for candidates='sums': running states hold the "
                f"embedding, so with candidates={self.candidates!r} leave it out."
            )
        if not self.residual and (self.embedding == "none" or self.candidates == "differences"):
            which = "candidates='differences'" if self.embedding == "block" else "embedding='none'"
            raise ValueError(
                f"with {which} the first reads have no candidate: give residual=True too."
            )

    @property
    def streams(self) -> tuple[Stream, ...]:
        """See :class:`WiringConfig`."""
        return STREAMS if self.value_apart else ("r",)

    def check(self, cfg: ModelConfig) -> None:
        """See :class:`WiringConfig`."""
        if cfg.parallel_attn_mlp:
            raise ValueError(
                "with attention residuals an FFN reads what its attention wrote: "
                "parallel_attn_mlp must be False."
            )

    def build(self, cfg: ModelConfig) -> "AttnResConnections":
        """See :class:`Architecture`."""
        return AttnResConnections(self, cfg)

    def begin(self, embedding: Sum) -> Candidates:
        """The candidates of a pass, or of W, that begins with this embedding."""
        if self.candidates == "sums":
            return Sums(embedding, self.block_size, self.residual, self.embedding)
        kind = States if self.candidates == "states" else Differences
        return kind(embedding, self.block_size, self.residual)


class Query(nn.Module):
    """A softmax over depth; ``hook_alpha`` is on its weights, ``[batch pos candidate]``.

    Only the product of the query ``q`` and the norm's gain ``w`` matters.
    """

    def __init__(self, cfg: ModelConfig, recency_bias: bool):
        super().__init__()
        self.eps = cfg.eps
        self.q = nn.Parameter(torch.zeros(cfg.d_model))
        self.w = nn.Parameter(torch.ones(cfg.d_model))
        self.b = nn.Parameter(torch.full((), RECENCY_BIAS)) if recency_bias else None
        self.hook_alpha = HookPoint()

    def init_weights(self) -> None:
        """As the papers' code: every candidate has the same weight, but for the recency bias."""
        with torch.no_grad():
            self.q.zero_()
            self.w.fill_(1.0)
            if self.b is not None:
                self.b.fill_(RECENCY_BIAS)

    def forward(
        self, candidates: Float[Tensor, "batch pos candidate d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Their weighted mean; the weights are after their hook."""
        return taken(self.hook_alpha(self.alpha(candidates)), candidates)

    def alpha(
        self, candidates: Float[Tensor, "batch pos candidate d_model"]
    ) -> Float[Tensor, "batch pos candidate"]:
        """Weights that sum to one."""
        query = (wide(self.q) * wide(self.w)).to(candidates.dtype)
        logits = candidates @ query / rms_scale(candidates, self.eps)[..., 0]
        if self.b is not None:
            logits = logits + F.pad(self.b[None], (logits.shape[-1] - 1, 0))
        return logits.softmax(-1)


class Site(Query):
    """The query of a sublayer or of the head, with a hook on what it is over."""

    def __init__(self, cfg: ModelConfig, recency_bias: bool):
        super().__init__(cfg, recency_bias)
        self.hook_candidates = HookPoint()


class AttnResConnections(Connections):
    """A query for every read that has candidates."""

    def __init__(self, attnres: AttnRes, cfg: ModelConfig):
        self.attnres, self.n_layers = attnres, cfg.n_layers
        self.wiring = AttnResWiring(
            cfg.n_layers,
            begin=attnres.begin,
            residual=attnres.residual,
            softmax_head=attnres.head == "softmax",
            streams=attnres.streams,
        )
        parts = {str(layer): nn.ModuleDict() for layer in range(cfg.n_layers)}
        for k in range(2 * cfg.n_layers):
            if self.wiring.n_candidates(k):
                parts[str(k // 2)]["mlp" if k % 2 else "attn"] = Site(cfg, attnres.recency_bias)
            if attnres.value_apart and k and not k % 2:
                parts[str(k // 2)]["v"] = Query(cfg, attnres.recency_bias)
        self.parts = nn.ModuleDict(parts)
        if attnres.head == "softmax":
            self.parts["head"] = Site(cfg, attnres.recency_bias)

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """See :class:`Connections`."""
        return {"attnres": self.parts}

    def init_weights(self) -> None:
        """See :class:`Connections`; no such model is a plain twin, whatever its queries are.

        Where a running state is added, what is added to it would have to be zero.
        """
        for part in self.parts.modules():
            if isinstance(part, Query):
                part.init_weights()

    def begin(self) -> Flow:
        """See :class:`Connections`."""
        return AttnResFlow(self)

    def query(self, part: str, name: str) -> Query | None:
        """The query of a part of a block, if it has one."""
        inner = cast(nn.ModuleDict, self.parts[part])
        return cast(Query, inner[name]) if name in inner else None

    def read(
        self, query: Query, stack: Float[Tensor, "batch pos row d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """What a query makes of candidates, with the running state behind them if it is added."""
        if not self.attnres.residual:
            return query(stack)
        return stack[..., -1, :] + query(stack[..., :-1, :])

    def reduced(
        self, x: Float[Tensor, "batch pos *candidate d_model"]
    ) -> Float[Tensor, "batch pos *row d_model"]:
        """See :class:`Connections`: of candidates, what the head makes of them."""
        if x.ndim == 3:
            return x
        if "head" in self.parts:
            return self.read(cast(Query, self.parts["head"]), wide(x)).to(x.dtype)
        if self.attnres.residual or self.attnres.candidates == "states":
            return x[..., -1, :]
        return x[..., 1 if self.attnres.embedding == "both" else 0 :, :].sum(-2)


class AttnResFlow(Flow):
    """What was written, in sums of at least float32."""

    def __init__(self, connections: AttnResConnections):
        super().__init__(parallel=False)
        self._connections, self._number = connections, 0
        self._joined: Tensor | None = None

    def write(self, x: Float[Tensor, "batch pos d_model"]) -> None:
        """X_0; what a block leaves is in the candidates already."""
        if self._number:
            return
        self._dtype = x.dtype
        self._held = self._connections.attnres.begin(wide(x))

    def streams(self) -> Streams:
        """See :class:`Flow`."""
        values = self._connections.query(str(self._number // 2), "v")
        site, stack = self._stack("attn")
        read = self._read(site, stack)
        if values is None:
            return same_streams(read)
        self._joined = self._held.joined.to(self._dtype)
        return {"q": read, "k": read, "v": self._read(values, stack), "r": self._joined}

    def ffn_input(
        self,
        residual: Float[Tensor, "batch pos d_model"],
        attn_out: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "batch pos d_model"]:
        """See :class:`Flow`."""
        if self._joined is not None and residual is not self._joined:
            self._held.joined = self._held.joined + (wide(residual) - wide(self._joined))
        self._joined = None
        self._add(attn_out)
        return self._read(*self._stack("mlp"))

    def output(
        self,
        read: Float[Tensor, "batch pos d_model"],  # noqa: ARG002 (a flow's)
        attn_out: Float[Tensor, "batch pos d_model"],  # noqa: ARG002 (a flow's)
        mlp_out: Float[Tensor, "batch pos d_model"],
    ) -> Float[Tensor, "batch pos d_model"]:
        """The sum of all that was written."""
        self._add(mlp_out)
        return self._held.state.to(self._dtype)

    def final(self) -> Float[Tensor, "batch pos d_model"]:
        """See :class:`Flow`."""
        parts = self._connections.parts
        if "head" not in parts:
            return self._held.state.to(self._dtype)
        head = cast(Site, parts["head"])
        return self._read(head, head.hook_candidates(self._stacked()))

    def _add(self, y: Float[Tensor, "batch pos d_model"]) -> None:
        self._held.write(wide(y))
        self._number += 1

    def _stack(self, part: str) -> tuple[Query | None, Tensor]:
        """The query of the next sublayer, and its candidates after their hook."""
        query = self._connections.query(str(self._number // 2), part)
        stack = self._stacked()
        return query, stack if query is None else cast(Site, query).hook_candidates(stack)

    def _stacked(self) -> Float[Tensor, "batch pos row d_model"]:
        added = [self._held.state] if self._connections.attnres.residual else []
        return torch.stack([*self._held.now(), *added], dim=-2)

    def _read(
        self, query: Query | None, stack: Float[Tensor, "batch pos row d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """What a read takes; without a query there is the running state only."""
        read = stack[..., -1, :] if query is None else self._connections.read(query, stack)
        return read.to(self._dtype)
