"""Blocks in a row, and ``HookedStack``: blocks between any front and any task."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp import axes
from mudd_interp.config import ModelConfig
from mudd_interp.model.arguments import check_return_type
from mudd_interp.model.attention import Attention, LayerKeyValues
from mudd_interp.model.block import Block
from mudd_interp.model.core import HookedCore
from mudd_interp.model.forward import layer_index
from mudd_interp.model.hooking import eager_where_hooked
from mudd_interp.model.layers import Norm, init_weights
from mudd_interp.model.live_config import LiveConfig
from mudd_interp.model.points import enter
from mudd_interp.model.task import Task
from mudd_interp.model.weights import MUDDWeights
from mudd_interp.model.wirings.base import Architecture
from mudd_interp.protocol import Front, Inputs, ModelInfo, Trait, require_traits
from mudd_interp.wiring import Wiring


class WiredBlocks(HookedCore):
    """Blocks, wired by the configuration, that know neither what is read nor what it is for.

    Args:
        cfg: The configuration of the blocks.
        embed: The front's module, from a batch to X_0.
        unembed: The task's, from the normed final stream to an output.
        info: Name, revision and digest.
        device: Where the weights are to be.
        dtype: Their precision.
    """

    embed: Any
    unembed: Any

    def __init__(
        self,
        cfg: ModelConfig,
        embed: nn.Module,
        unembed: nn.Module,
        info: ModelInfo | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.config = cfg
        self.info = info or ModelInfo(name="random weights")
        self.embed, self.hook_embed = embed, HookPoint()
        self.blocks = nn.ModuleList(Block(cfg, layer) for layer in range(cfg.n_layers))
        self.connections = cast(Architecture, cfg.wiring).build(cfg)
        for name, module in self.connections.modules.items():
            self.add_module(name, module)
        self.hook_resid_final, self.ln_final = self.connections.final(cfg)
        self.unembed = unembed
        if not self.ln_final.w.is_meta:  # drawing on the meta device would import torch._dynamo
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

    @property
    def cfg(self) -> LiveConfig:
        """The configuration under TransformerLens' names, with the present device and dtype."""
        return self._live_config

    @property
    def traits(self) -> frozenset[Trait]:
        """What it is, of what not every model is."""
        found: set[Trait] = {*self.front.traits, *self.task.traits, *self.wiring.traits}
        if self.config.attention_dir == "causal":
            found.add("causal")
        else:
            found.discard("next_token")  # a token that a position sees it need not predict
        return frozenset(found)

    @property
    def weights(self) -> MUDDWeights:
        """The weights of the blocks."""
        b_U = getattr(self.unembed, "b_U", None)
        return MUDDWeights(self, self.cfg, b_U, self.wiring.additive)

    def final_stream(
        self,
        batch: Inputs,
        past: Sequence[LayerKeyValues] | None = None,
        stop_at_layer: int | None = None,
    ) -> Float[Tensor, "batch pos *stream d_model"]:
        """The last aggregate X̄^R_L, or the R stream that enters block ``stop_at_layer``.

        ``X̄_0 = X_0``, ``X_{l+1} = B_l(X̄_l)``, ``X̄_{l+1} = DA_{l+1}(X_0..X_{l+1})`` (paper, 2.1).
        """
        embedded = self.embed(batch) if past is None else self.embed(batch, past[0])
        return self.run_blocks([self.hook_embed(embedded)], past, stop_at_layer, batch)

    @property
    def resumes(self) -> bool:
        """Whether :meth:`logits_from` can go on: not where blocks read tokens besides."""
        return self.config.wiring.states and not self.config.value_embeddings

    def logits_from(
        self, outputs: Sequence[Float[Tensor, "batch pos d_model"]]
    ) -> Float[Tensor, "..."]:
        """The output of a pass that goes on from the outputs X_0..X_l of what came before.

        The aggregation after block ``l - 1`` is made anew, with its hooks; so what an edit there
        does is found without the blocks below it, whose hooks do not fire.

        Args:
            outputs: X_0 (``hook_embed``) and the ``hook_resid_post`` of the first ``l`` blocks,
                ``0 <= l <= n_layers``.

        Raises:
            ValueError: If there are none, or more than the model has; or it keeps no states, or
                has value embeddings.
        """
        require_traits(self, "a pass that goes on from states", ["states"])
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
        batch: Inputs | None = None,
    ) -> Float[Tensor, "batch pos *stream d_model"]:
        """What :meth:`final_stream` returns, from X_0..X_l on; ``stop_at_layer`` is from ``l``.

        ``batch`` is what was read: value embeddings need it.
        """
        tokens = batch if self.config.value_embeddings else None
        flow, start = self.connections.begin(), len(outputs) - 1
        for x in outputs:
            flow.write(x)
        for layer in range(start, self.config.n_layers):
            if layer == stop_at_layer:
                return flow.streams()["r"]
            flow.write(self.blocks[layer](flow, None if past is None else past[layer], tokens))
        return enter(self.hook_resid_final, flow.final())

    # --- What analyses ask (protocol.HookedModel) -----------------------------------------------

    @property
    def wiring(self) -> Wiring:
        """How much of each earlier write each of its reads takes."""
        return self.connections.wiring

    def on_request(self, name: str, incl_bwd: bool = False) -> bool:
        """Whether a hook fires only when it is named.

        Per-head results and logits before a softcap do; and in a block with one norm the three
        norms of one stream, or with gradients the one norm: each stream's gradient is its own, so
        all three are run.
        """
        block, _, rest = name.removeprefix("blocks.").partition(".")
        if rest == "attn.hook_result" or name == axes.PRE_SOFTCAP:
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


class HookedStack(WiredBlocks):
    """Blocks between any front and any task, whose modules are its ``embed`` and ``unembed``.

    With a front of tokens and the task of the next one it would be a language model, which has more
    names: that is :class:`mudd_interp.model.HookedMUDDTransformer`.

    Args:
        cfg: The configuration of the blocks; its ``d_vocab`` means nothing here.
        front: What it reads; ``front.embed`` is a module.
        task: What it is for; ``task.head`` is a module.
        info: Name, revision and digest.
        device: Where the weights are to be.
        dtype: Their precision.
    """

    def __init__(
        self,
        cfg: ModelConfig,
        front: Front,
        task: Task,
        info: ModelInfo | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        ends = cast(nn.Module, front.embed), cast(nn.Module, task.head)
        super().__init__(cfg, *ends, info, device, dtype)
        self._front, self._task = front, task

    @property
    def front(self) -> Front:
        """What it reads."""
        return self._front

    @property
    def task(self) -> Task:
        """What it is for."""
        return self._task

    @eager_where_hooked
    def forward(
        self,
        input: object,
        return_type: str | None = "logits",
        target: Any = None,
        stop_at_layer: int | None = None,
    ) -> Any:
        """Run the model.

        Args:
            input: A batch, as its front takes it.
            return_type: ``"logits"``, the output of the task; ``"loss"``, the mean of its loss, in
                nats; ``"both"``; or ``None``, which runs the blocks and the final norm only.
            target: What the output should be, where a loss is asked for and the input does not say.
            stop_at_layer: Return the R stream that enters this block instead; negative values
                count from the end.

        Raises:
            ValueError: If the front refuses the input or the task the target, or an argument is out
                of range.
        """
        check_return_type(return_type)
        batch = self.front.batch(input).to(self.cfg.device)
        if stop_at_layer is not None:
            stop = layer_index(self.cfg, "stop_at_layer", stop_at_layer)
            return self.final_stream(batch, stop_at_layer=stop)
        final = self.ln_final(self.final_stream(batch))
        if return_type is None:
            return None
        output = self.unembed(final)
        if return_type == "logits":
            return output
        loss = self.task.loss(output, batch, target)
        return loss if return_type == "loss" else (output, loss)
