"""``HookedMUDDTransformer``: the whole family as one hooked model."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.config import ModelConfig
from mudd_interp.model.attention import Attention, LayerKeyValues
from mudd_interp.model.block import Block
from mudd_interp.model.decoding import Decoding, Reader
from mudd_interp.model.key_values import empty_key_values, reader_of
from mudd_interp.model.language import LanguageModel
from mudd_interp.model.layers import Embed, Norm, Unembed, init_weights, make_norm
from mudd_interp.model.live_config import LiveConfig
from mudd_interp.model.named import ELSEWHERE
from mudd_interp.model.points import enter
from mudd_interp.model.weights import MUDDEnds, MUDDWeights
from mudd_interp.model.wirings.base import Architecture
from mudd_interp.protocol import ModelInfo
from mudd_interp.states import StateWiring


class HookedMUDDTransformer(LanguageModel):
    """MUDDFormer, MUDDPythia, their plain twins and every rung between, by configuration.

    A fresh model has random weights with the paper's initialisation of the dense connections (so
    it *is* its plain twin) and is in evaluation mode, as TransformerLens' patching tools expect.
    """

    elsewhere = ELSEWHERE

    def __init__(
        self,
        cfg: ModelConfig,
        tokenizer: Any = None,
        info: ModelInfo | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.config = cfg
        self.tokenizer = tokenizer
        self.info = info or ModelInfo(name="random weights")
        self.embed, self.hook_embed = Embed(cfg), HookPoint()
        self.blocks = nn.ModuleList(Block(cfg, layer) for layer in range(cfg.n_layers))
        self.connections = cast(Architecture, cfg.wiring).build(cfg)
        for name, module in self.connections.modules.items():
            self.add_module(name, module)
        self.hook_resid_final = HookPoint()
        self.ln_final, self.unembed = make_norm(cfg), Unembed(cfg)
        if not self.embed.W_E.is_meta:  # drawing on the meta device would import torch._dynamo
            self.init_weights()
        self.to(device=device, dtype=dtype)
        self.eval()
        self.setup()
        self._live_config = LiveConfig(self)

    def init_weights(self) -> None:
        """Draw all weights; the backbone first, so that a seed gives a plain twin the same."""
        for part in (self.embed, *self.blocks, self.unembed):
            init_weights(part, self.config)
        self.connections.init_weights()

    # --- What a language model is asked (model.language) ----------------------------------------

    @property
    def cfg(self) -> LiveConfig:
        """The configuration under TransformerLens' names, with the present device and dtype."""
        return self._live_config

    @property
    def ends(self) -> MUDDEnds:
        """Its embedding, final norm and unembedding."""
        return MUDDEnds(self.tokens, self.embed, self.ln_final, self.unembed)

    @property
    def weights(self) -> MUDDWeights:
        """The weights of the blocks."""
        return MUDDWeights(self, self.cfg, self.b_U, self.wiring.additive)

    def run(
        self,
        given: Tensor,
        return_type: str | None = "logits",
        start: int | None = None,
        stop: int | None = None,
        past: Sequence[LayerKeyValues] | None = None,
    ) -> Tensor | None:
        """See :meth:`LanguageModel.run`."""
        if start is None:
            stream = self.final_stream(given, past, stop)
        else:
            stream = self._stream_from(given, start, stop)
        if stop is not None:
            return stream
        final = self.ln_final(stream)
        return None if return_type is None else self.unembed(final)

    def _stream_from(
        self, x: Float[Tensor, "batch pos d_model"], start: int, stop: int | None
    ) -> Float[Tensor, "batch pos d_model"]:
        if start and not self.wiring.additive:
            raise ValueError(
                f"block {start} reads X_0..X_{start}, each with weights of its own, so one stream "
                "does not say how to go on: give them all to model.logits_from, or start at 0 "
                "with X_0."
            )
        return self.run_blocks([x] * (start + 1), stop_at_layer=stop)

    def positions_seen(self, past: Any) -> int:
        """How many positions came before, by a cache of keys and values.

        Raises:
            ValueError: If it is none of this model.
        """
        if past is None:
            return 0
        listed = isinstance(past, Sequence) and len(past) == self.config.n_layers
        if not listed or not isinstance(past[0], LayerKeyValues):
            raise ValueError(
                f"past_kv_cache must hold keys and values of {self.config.n_layers} blocks, from "
                f"model.new_kv_cache(batch, pos), got {type(past).__name__}."
            )
        return past[0].length

    def new_kv_cache(self, batch: int, pos: int) -> list[LayerKeyValues]:
        """An empty cache for :meth:`forward`'s ``past_kv_cache``: one entry for each block.

        Decoding keeps keys and values per block; of the outputs X_j, which the dense connections
        mix within a token only, those of the current tokens are enough.
        """
        return empty_key_values(self.config, batch, pos, self.embed.W_E)

    def reader(self, how: Decoding, rows: int, room: int) -> Reader:
        """See :class:`~mudd_interp.model.decoding.Decoder`."""
        return reader_of(
            self.logits, self.new_kv_cache(rows, room) if how.use_past_kv_cache else None
        )

    # --- The forward pass -----------------------------------------------------------------------

    def logits(
        self, tokens: Int[Tensor, "batch pos"], past: Sequence[LayerKeyValues] | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of valid token ids."""
        return self.unembed(self.ln_final(self.final_stream(tokens, past)))

    def final_stream(
        self,
        tokens: Int[Tensor, "batch pos"],
        past: Sequence[LayerKeyValues] | None = None,
        stop_at_layer: int | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The last aggregate X̄^R_L, or the R stream that enters block ``stop_at_layer``.

        ``X̄_0 = X_0``, ``X_{l+1} = B_l(X̄_l)``, ``X̄_{l+1} = DA_{l+1}(X_0..X_{l+1})`` (paper, 2.1).
        """
        return self.run_blocks([self.hook_embed(self.embed(tokens))], past, stop_at_layer)

    def logits_from(
        self, outputs: Sequence[Float[Tensor, "batch pos d_model"]]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of a pass that goes on from the outputs X_0..X_l of what came before.

        The aggregation after block ``l - 1`` is made anew, with its hooks; so what an edit there
        does is found without the blocks below it, whose hooks do not fire.

        Args:
            outputs: X_0 (``hook_embed``) and the ``hook_resid_post`` of the first ``l`` blocks,
                ``0 <= l <= n_layers``.

        Raises:
            ValueError: If there are none, or more than the model has.
        """
        if not 0 < len(outputs) <= self.config.n_layers + 1:
            raise ValueError(
                f"expected X_0 and up to {self.config.n_layers} outputs of blocks, got "
                f"{len(outputs)} in all."
            )
        return self.unembed(self.ln_final(self.run_blocks(outputs)))

    def run_blocks(
        self,
        outputs: Sequence[Float[Tensor, "batch pos d_model"]],
        past: Sequence[LayerKeyValues] | None = None,
        stop_at_layer: int | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        """What :meth:`final_stream` returns, from X_0..X_l on; ``stop_at_layer`` is from ``l``."""
        flow, start = self.connections.begin(), len(outputs) - 1
        for x in outputs:
            flow.write(x)
        for layer in range(start, self.config.n_layers):
            if layer == stop_at_layer:
                return flow.streams()["r"]
            flow.write(self.blocks[layer](flow, None if past is None else past[layer]))
        return enter(self.hook_resid_final, flow.streams()["r"])

    # --- What analyses ask (protocol.HookedModel) -----------------------------------------------

    @property
    def wiring(self) -> StateWiring:
        """How much of each earlier write each of its reads takes."""
        return self.connections.wiring

    def on_request(self, name: str, incl_bwd: bool = False) -> bool:
        """Whether a hook fires only when it is named.

        Per-head results do; and in a block with one norm the three norms of one stream, or with
        gradients the one norm: each stream's gradient is its own, so all three are run.
        """
        block, _, rest = name.removeprefix("blocks.").partition(".")
        if rest == "attn.hook_result":
            return True
        one_norm = rest.startswith("ln1") and cast(Block, self.blocks[int(block)]).single_input
        return one_norm and rest.startswith("ln1.") == incl_bwd

    @property
    def fused_kernels(self) -> bool:
        """Whether attention and norms that nobody looks into run as fused kernels (the default).

        A pass whose patterns or norm scales are hooked computes them step by step, so its last bits
        differ from those of a pass without (by up to 8e-6 in the logits of the bundled pair, 0.125
        in bfloat16). Set it to ``False``, and every pass goes step by step: logits are equal to the
        bit, whatever is cached. It costs the time and memory of the patterns.
        """
        return self._fused_parts()[0].use_fused

    @fused_kernels.setter
    def fused_kernels(self, use: bool) -> None:
        for part in self._fused_parts():
            part.use_fused = use

    def _fused_parts(self) -> list[Attention | Norm]:
        return [part for part in self.modules() if isinstance(part, (Attention, Norm))]
