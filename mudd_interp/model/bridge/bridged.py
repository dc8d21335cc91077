"""``BridgeModel``: a Transformer of Hugging Face's behind the same names as our model."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from jaxtyping import Float, Int
from torch import Tensor, nn

from mudd_interp import axes
from mudd_interp.model.arguments import FORWARD, refuse
from mudd_interp.model.bridge.build import build_bridge
from mudd_interp.model.bridge.config import BridgeConfig
from mudd_interp.model.bridge.forward import BridgePass
from mudd_interp.model.bridge.generate import reader_of
from mudd_interp.model.bridge.probe import probe
from mudd_interp.model.bridge.taps import Taps
from mudd_interp.model.bridge.weights import BridgeEnds, BridgeWeights
from mudd_interp.model.decoding import Decoding, Reader
from mudd_interp.model.language import LanguageModel
from mudd_interp.protocol import DECODER, NOT_TRIED, ModelInfo, Trait
from mudd_interp.states import StateWiring

KEPT_BY = "generate keeps keys and values, and so does model.bridge, see its 'logits_and_cache'"
PROCESSED = "a bridged model is the model as it is, no norm is folded and nothing is centred"


class BridgeModel(LanguageModel):
    """A plain Transformer as a :class:`~mudd_interp.protocol.HookedModel`.

    It computes what Hugging Face's eager code computes: no weights are folded or centred. Hooks
    have our names and shapes, and an edit changes all that follows. ``hook_embed`` is X_0, what
    enters the first block: token embedding plus learned positions, where a model has them. An edit
    of ``hook_resid_mid`` changes the stream, not only what the FFN reads. Scores of the future are
    the lowest finite number (``finfo.min``), not minus infinity: find the mask by position.

    A hook that cannot keep this promise is not in ``hook_dict``; ``absent`` says why. That is found
    out by running the model on a few tokens; with ``check=False`` it is not.

    Attributes:
        bridge: The TransformerBridge. Do not turn on its compatibility mode, or hooks and weights
            no longer belong together; what is hooked there is reset there.
        tokenizer: A Hugging Face tokenizer, or ``None``. The bridge has a copy of its own, which
            only its own methods read.
        info: Name, revision and digest, and what was checked.
        absent: Names of hooks that other models have, each with the reason why this one has not.
    """

    refused: Mapping[str, str] = {**FORWARD, "past_key_values": KEPT_BY}
    elsewhere: Mapping[str, str] = {
        "enable_compatibility_mode": PROCESSED,
        "process_weights": PROCESSED,
    }

    def __init__(
        self,
        bridge: Any,
        tokenizer: Any = None,
        info: ModelInfo | None = None,
        check: bool = True,
    ):
        super().__init__()
        _refuse_processed(bridge)
        self.bridge, self.tokenizer = bridge, tokenizer
        self._config = BridgeConfig(bridge)
        parallel = bool(bridge.cfg.parallel_attn_mlp)
        self._wiring = StateWiring(bridge.cfg.n_layers, parallel=parallel)
        self.eval()
        self._taps = Taps(bridge)
        self.setup()
        self._linear_head: bool | None = None
        if check:
            self._linear_head = self._drop_unfit_hooks()
        self._require_streams()
        info = info or ModelInfo(name="a module in memory")
        checks = (*info.checks, *(self._checks() if check else (NOT_TRIED,)))
        self.info = ModelInfo(info.name, info.revision, info.digest, checks)

    def _drop_unfit_hooks(self) -> bool:
        """Try all hooks; says whether the head is linear."""
        findings = probe(self)
        for name, reason in findings.unfit.items():
            self._taps.drop(name, reason)
        return findings.linear_head

    @classmethod
    def from_module(
        cls, module: nn.Module, tokenizer: Any = None, info: ModelInfo | None = None
    ) -> "BridgeModel":
        """Wrap a Hugging Face model that is in memory; its submodules are replaced in place.

        Attention is switched to the eager implementation, the only one with patterns.

        Raises:
            ValueError: If TransformerBridge does not know the architecture, or it is no plain
                decoder.
        """
        return cls(build_bridge(module, tokenizer), tokenizer, info)

    def setup(self) -> None:
        """TransformerLens' dictionaries, of our hook points only."""
        self.hook_dict = self._taps.points
        self.mod_dict = cast(dict[str, nn.Module], self.hook_dict)
        self.find_hook_tables()

    @property
    def absent(self) -> dict[str, str]:
        """Names of hooks that this model has not, each with the reason."""
        return self._taps.absent

    def on_request(self, name: str, incl_bwd: bool = False) -> bool:
        """Whether a hook fires only when it is named.

        The outputs of single heads do; and with gradients ``ln1``, which a stream that is hooked
        by itself passes by.
        """
        return name.endswith("attn.hook_result") or (incl_bwd and ".ln1." in name)

    def _require_streams(self) -> None:
        layers = range(self.cfg.n_layers)
        inner = [
            name for layer in layers for name in (axes.resid_pre(layer), axes.resid_post(layer))
        ]
        for name in (axes.EMBED, *inner, axes.RESID_FINAL):
            if name in self.absent:
                raise ValueError(
                    f"{self.cfg.architecture} cannot be bridged: it has no live hook `{name}` "
                    f"({self.absent[name]})."
                )
        if not any(".attn" in name or "_attn_" in name for name in self.hook_dict):
            raise ValueError(f"{self.cfg.architecture} cannot be bridged: it has no attention.")

    def _checks(self) -> tuple[str, ...]:
        layers = range(self.cfg.n_layers)
        has_patterns = all(axes.pattern(layer) in self.hook_dict for layer in layers)
        kinds = {re.sub(r"^blocks\.\d+\.", "", name): None for name in self.absent}
        return (
            f"hooks: all {len(self.hook_dict)} are live, an edit of any changes the logits",
            "blocks: each reads the output of the one before",
            *(("attention: all rows sum to one, and see no later position",) * has_patterns),
            *((f"hooks that it has not: {', '.join(kinds)}",) if kinds else ()),
        )

    # --- What analyses ask (protocol.HookedModel) -----------------------------------------------

    @property
    def cfg(self) -> BridgeConfig:
        """The bridge's configuration, with the present device and precision."""
        return self._config

    @property
    def wiring(self) -> StateWiring:
        """Each read is the newest state as it is."""
        return self._wiring

    @property
    def fused_kernels(self) -> bool:
        """``False``: attention is eager code, so a pass is the same whatever is cached of it."""
        return False

    @property
    def traits(self) -> frozenset[Trait]:
        """Only decoders of text can be wrapped."""
        return DECODER | self.wiring.traits

    # --- What a language model is asked (model.language) ----------------------------------------

    @property
    def passes(self) -> BridgePass:
        """What runs the bridge."""
        return BridgePass(self.bridge, self._taps, self.hooks)

    @property
    def ends(self) -> BridgeEnds:
        """Its embedding, final norm and unembedding."""
        return BridgeEnds(self.tokens, self.bridge, self._linear_head)

    @property
    def weights(self) -> BridgeWeights:
        """The weights of the blocks."""
        return BridgeWeights(self.bridge, self.cfg)

    @property
    def blocks(self) -> Any:
        """The bridge's blocks, with TransformerLens' weights (``blocks[0].attn.W_Q``)."""
        return self.bridge.blocks

    @property
    def embed(self) -> Any:
        """The bridge's token embedding."""
        return self.bridge.embed

    @property
    def ln_final(self) -> Any:
        """The bridge's final norm."""
        return self.bridge.ln_final

    @property
    def unembed(self) -> Any:
        """The bridge's unembedding."""
        return self.bridge.unembed

    def run(
        self,
        given: Tensor,
        return_type: str | None = "logits",
        start: int | None = None,
        stop: int | None = None,
        past: Any = None,  # noqa: ARG002 (there is none, see positions_seen)
    ) -> Tensor | None:
        """See :meth:`LanguageModel.run`.

        Raises:
            ValueError: If it is to start at the final norm.
        """
        if start is not None and start == self.cfg.n_layers:
            raise ValueError(f"a bridged model starts at a block, 0 to {start - 1}, got {start}.")
        return self.passes.between(given, return_type, start, stop)

    def embed_ids(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """X_0: with learned positions, where the model has them."""
        return self.passes.stream_before(tokens, 0)

    def positions_seen(self, past: Any) -> int:
        """None: ``past_kv_cache`` is refused, ``generate`` and the bridge keep keys and values."""
        refuse("forward", {"past_kv_cache": KEPT_BY}, (), {"past_kv_cache": past})
        return 0

    def reader(self, how: Decoding, rows: int, room: int) -> Reader:  # noqa: ARG002 (the arguments of every model's)
        """See :class:`~mudd_interp.model.decoding.Decoder`."""
        return reader_of(self.bridge, self.passes.run, how.use_past_kv_cache)

    # --- A PyTorch module -----------------------------------------------------------------------

    def missing(self, name: str) -> str:
        """The message for an attribute that is not there; the bridge may have it."""
        if name in self.__dict__.get("hook_dict", {}):
            return f"a bridged model's hook points are in its hook_dict: model.hook_dict['{name}']."
        bridge = self._modules.get("bridge")
        if name not in self.elsewhere and bridge is not None and hasattr(bridge, name):
            return f"BridgeModel has no `{name}`, but its bridge has: model.bridge.{name}."
        return super().missing(name)

    def to(self, *args: Any, **kwargs: Any) -> "BridgeModel":
        """Move or convert the weights."""
        self.bridge.to(*args, **kwargs, print_details=False)
        return self

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """The parameters that the model computes with, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """The same with their names, the Hugging Face model's with the bridge's parts in them.

        Where the bridge computes with parts of a joint matrix, these are its parameters: the joint
        one stays in the module, and nothing reads it.
        """
        read = set(map(id, self.bridge.state_dict(keep_vars=True).values()))
        for name, each in self.bridge.named_parameters(prefix, recurse, remove_duplicate):
            if id(each) in read:
                yield name, each

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """The bridge's state: the Hugging Face model's names."""
        return self.bridge.state_dict(*args, **kwargs)


def _refuse_processed(bridge: Any) -> None:
    if not hasattr(bridge, "blocks") or not hasattr(bridge, "ln_final"):
        raise ValueError(
            f"{bridge.cfg.architecture} cannot be bridged: it has no blocks between an "
            "embedding and a final norm (is it an encoder, or recurrent?)."
        )
    if getattr(bridge, "compatibility_mode", False):
        raise ValueError(
            "the bridge is in compatibility mode, where norms are folded into weights: give a "
            "bridge with raw weights."
        )
