"""One Transformer block with four input streams."""

from typing import Any, cast

from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.axes import Stream
from mudd_interp.config import ModelConfig
from mudd_interp.model.attention import Attention, LayerKeyValues
from mudd_interp.model.layers import MLP, SharedNorm, make_norm
from mudd_interp.model.named import NearestNames
from mudd_interp.model.points import (
    enter,
    has_gradient_hooks,
    has_hooks,
    is_hooked,
    may_change,
    same,
)
from mudd_interp.model.wirings.base import Flow, Streams, same_streams

ATTENTION_STREAMS: tuple[Stream, ...] = ("q", "k", "v")


class Block(NearestNames):
    """B'(X^Q, X^K, X^V, X^R) of the paper's section 2.4, sequential or parallel.

    Sequential: ``X_A = MHA(LN X^Q, LN X^K, LN X^V) + X^R``, output ``FFN(LN X_A) + X_A``.
    Parallel: output ``X^R + MHA(...) + FFN(LN X^R)``, and no ``hook_resid_mid``.

    Where the four inputs are one tensor (block 0, plain and single-way models) q, k and v branch
    off behind ``hook_resid_pre``, and there is one norm, ``ln1``. It runs once, unless the input
    or the norm of a stream is hooked by something other than the cache: that stream is then
    normed by itself, through ``ln1_q``, ``ln1_k`` or ``ln1_v``, with the parameters of ``ln1``.
    Hooks may be on both; only where both *change* something is there no answer, and an error.
    """

    def __init__(self, cfg: ModelConfig, layer: int):
        super().__init__()
        self.parallel = cfg.parallel_attn_mlp
        self.single_input = layer == 0 or len(cfg.streams) == 1
        # TransformerLens' tools that add up a residual stream ask for this, and refuse a dense one.
        self.hook_out_is_single_residual_stream = cfg.wiring.kind == "plain"
        self.hook_q_input, self.hook_k_input = HookPoint(), HookPoint()
        self.hook_v_input, self.hook_resid_pre = HookPoint(), HookPoint()
        if self.single_input:
            self.ln1 = make_norm(cfg)
        for stream in ATTENTION_STREAMS:
            norm = SharedNorm(self.ln1) if self.single_input else make_norm(cfg)
            self.add_module(f"ln1_{stream}", norm)
        self.attn = Attention(cfg, layer)
        self.ln2 = make_norm(cfg)
        self.mlp = MLP(cfg, cfg.mlp_widths[layer])
        self.hook_attn_out, self.hook_mlp_out = HookPoint(), HookPoint()
        if not self.parallel:
            self.hook_resid_mid = HookPoint()
        self.keeps_state = cfg.wiring.states
        if self.keeps_state:
            self.hook_resid_post = HookPoint()

    def forward(
        self,
        flow: Flow,
        past: LayerKeyValues | None = None,
        tokens: Int[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "batch pos *stream d_model"]:
        """X_{l+1}, of what the block reads; with hyper-connections the streams behind it.

        Args:
            flow: What has been written so far.
            past: Earlier keys and values, when decoding.
            tokens: What value embeddings are of.
        """
        residual, normed = self.inputs(flow.streams())
        attended = self.attn(normed["q"], normed["k"], normed["v"], past, tokens)
        attn_out = self.hook_attn_out(attended)
        read = flow.ffn_input(residual, attn_out)
        if not self.parallel:
            read = self.hook_resid_mid(read)
        mlp_out = self.hook_mlp_out(self.mlp(self.ln2(read)))
        output = flow.output(read, attn_out, mlp_out)
        return self.hook_resid_post(output) if self.keeps_state else output

    def inputs(self, streams: Streams) -> tuple[Float[Tensor, "batch pos d_model"], Streams]:
        """The R stream after its hook, and the q, k and v streams after hooks and norms."""
        residual = enter(self.hook_resid_pre, streams["r"])
        if self.single_input:
            streams = same_streams(residual)
        own: Streams = {s: enter(self._hook(s), streams[s]) for s in ATTENTION_STREAMS}
        if self.single_input:
            return residual, self._branch(residual, own)
        return residual, {s: self._norm(s)(own[s]) for s in ATTENTION_STREAMS}

    def _branch(self, x: Float[Tensor, "batch pos d_model"], own: Streams) -> Streams:
        """Each stream through the norm that they share, or by itself where it is hooked."""
        apart: list[Stream] = [s for s in ATTENTION_STREAMS if self._is_apart(s)]
        hooked = is_hooked(self.ln1) or has_hooks(self.ln1.hook_scale, self.ln1.hook_normalized)
        shared = self.ln1(x) if hooked or len(apart) < len(ATTENTION_STREAMS) else x
        normed: Streams = {
            s: self._norm(s)(own[s]) if s in apart else shared for s in ATTENTION_STREAMS
        }
        if hooked and apart and not same(shared, self.ln1.unhooked(x)):
            self._refuse_second_edits([s for s in apart if self._is_edited(s, x, own, normed)])
            return same_streams(shared)
        return normed

    def _refuse_second_edits(self, edited: list[Stream]) -> None:
        """An edit of ``ln1`` cannot reach a stream that has an edit or a gradient of its own."""
        if edited:
            norms = ", ".join(f"ln1_{stream}" for stream in edited)
            raise ValueError(
                f"{self.ln1.hook_normalized.name or 'ln1'} (or its scale) is edited, but here it "
                f"does not serve every stream: {norms} run by themselves, since their input or "
                "norm is hooked. Hook ln1_q, ln1_k and ln1_v instead."
            )

    def _is_apart(self, stream: Stream) -> bool:
        norm = self._norm(stream)
        hooked = is_hooked(norm) or has_hooks(norm.hook_scale, norm.hook_normalized)
        return hooked or may_change(self._hook(stream))

    def _is_edited(
        self, stream: Stream, x: Float[Tensor, "batch pos d_model"], own: Streams, normed: Streams
    ) -> bool:
        norm = self._norm(stream)
        if has_gradient_hooks(self._hook(stream), norm, norm.hook_scale, norm.hook_normalized):
            return True
        unhooked = norm.unhooked(own[stream])
        return not (same(own[stream], x) and same(normed[stream], unhooked))

    def _hook(self, stream: Stream) -> nn.Module:
        return cast(nn.Module, self._modules[f"hook_{stream}_input"])

    def _norm(self, stream: Stream) -> Any:
        return self._modules[f"ln1_{stream}"]
