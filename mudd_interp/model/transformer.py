"""``HookedMUDDTransformer``: the whole family as one hooked model."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.axes import Stream
from mudd_interp.config import ModelConfig
from mudd_interp.model.attention import Attention, LayerKeyValues
from mudd_interp.model.block import Block
from mudd_interp.model.forward import ForwardMethods
from mudd_interp.model.hooking import CheckedHooks
from mudd_interp.model.key_values import GenerateMethods
from mudd_interp.model.layers import Embed, Norm, Unembed, init_weights, make_norm
from mudd_interp.model.live_config import LiveConfig
from mudd_interp.model.named import ELSEWHERE, NearestNames
from mudd_interp.model.points import enter
from mudd_interp.model.tokens import TokenMethods
from mudd_interp.model.weights import WeightMethods
from mudd_interp.model.wirings.base import Architecture
from mudd_interp.protocol import ModelInfo
from mudd_interp.states import StateWiring


class HookedMUDDTransformer(
    TokenMethods, GenerateMethods, WeightMethods, ForwardMethods, NearestNames, CheckedHooks
):
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

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The distinct input streams of a block: q k v r, or r alone when all four are one."""
        return self.config.streams

    def weights_hook(self, aggregation: int, stream: Stream) -> str | None:
        """The hook on the dense weights, or ``None`` where the stream is the plain residual."""
        read = self.wiring.row(stream, aggregation)
        return self.wiring.gate(read) if read.stream == stream else None

    def static_weights(self, aggregation: int, stream: Stream) -> Float[Tensor, " source"]:
        """The learned bias of the weights; one-hot on the newest source for the plain residual."""
        return self.wiring.static(self.wiring.row(stream, aggregation))

    def source_hook(self, source: int) -> str:
        """The hook on the tensor that the dense weights multiply."""
        return self.wiring.multiplied(self.wiring.states[source])

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

    # --- The API of TransformerLens -------------------------------------------------------------

    @property
    def cfg(self) -> LiveConfig:
        """The configuration under TransformerLens' names, with the present device and dtype."""
        return self._live_config
