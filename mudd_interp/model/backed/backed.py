"""``BackedModel``: a depth-routing model of transformers behind the same names as our model."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mudd_interp import axes
from mudd_interp.axes import unknown_name
from mudd_interp.model.arguments import FORWARD, refuse
from mudd_interp.model.backed.config import BackedConfig
from mudd_interp.model.backed.exact import Exact
from mudd_interp.model.backed.kinds import KINDS, Kind, absent
from mudd_interp.model.backed.places import Places, Stopped
from mudd_interp.model.backed.probe import probe
from mudd_interp.model.backed.weights import BackedEnds, BackedWeights, BlockView
from mudd_interp.model.decoding import Decoding, Reader
from mudd_interp.model.language import LanguageModel
from mudd_interp.protocol import DECODER, NOT_TRIED, ModelInfo, Trait
from mudd_interp.sublayers import SublayerWiring

KEPT = "generate keeps keys and values"


class BackedModel(LanguageModel):
    """A model of transformers that routes over depth, as a hooked model.

    It computes what Hugging Face's eager code computes, and with float64 weights all of it in
    float64. Hooks have our names and shapes, and an edit changes all that follows; ``absent`` says
    why a name that other models have is missing.

    Args:
        module: A causal language model of one of :data:`~mudd_interp.model.backed.kinds.KINDS`. Its
            modules get hooks that stay, and attention and experts are switched to eager code.
        tokenizer: A Hugging Face tokenizer, or ``None``.
        info: Where it is from.
        check: Run it on a few tokens: hooks that are not live are dropped, and gates that do not
            say what is read are refused.

    Raises:
        ValueError: If the architecture is not known, the module is hooked already, or a check
            fails.
    """

    refused: Mapping[str, str] = {**FORWARD, "past_key_values": KEPT}

    def __init__(
        self,
        module: Any,
        tokenizer: Any = None,
        info: ModelInfo | None = None,
        check: bool = True,
    ):
        super().__init__()
        self.kind = kind_of(module)
        if module.__dict__.get(_MARK):
            raise ValueError(
                f"this {self.kind.class_name} has hook points already: use the BackedModel that "
                "was made of it, or load it anew."
            )
        module.__dict__[_MARK] = True
        module.set_attn_implementation("eager")
        if module._can_set_experts_implementation():
            module.set_experts_implementation("eager")
        self.module, self.tokenizer = module, tokenizer
        self.info = info or ModelInfo(name="a module in memory")
        self._config = BackedConfig(module, self.kind.d_head(module.config), self.info.name)
        self._wiring = self.kind.wiring(module.config)
        self._exact = Exact(module)
        self._places = _tied(module, self.kind)
        self._blocks = [BlockView(layer, self.kind) for layer in module.model.layers]
        self.eval()
        self.setup()
        found = self._tried() if check else (NOT_TRIED,)
        info = self.info
        checks = (*info.checks, *found)
        self.info = ModelInfo(info.name, info.revision, info.digest, checks)

    def _tried(self) -> tuple[str, ...]:
        dead, apart = probe(self, self._wiring)
        for name, reason in dead.items():
            self._places.drop(name, reason)
        without = f"; {', '.join(dead)} are not, and were dropped" if dead else ""
        return (
            f"hooks: {len(self.hook_dict)} are live, an edit of any changes the logits{without}",
            f"wiring: every read is what its gates say (to {apart:.1g} of its length)",
        )

    def setup(self) -> None:
        """TransformerLens' dictionaries, of our hook points only."""
        self.hook_dict = self._places.points
        self.mod_dict = cast(dict[str, nn.Module], self.hook_dict)
        self.find_hook_tables()

    @property
    def absent(self) -> Mapping[str, str]:
        """Names of hooks that this model has not, each with the reason."""
        return self._places.absent

    def on_request(self, name: str, incl_bwd: bool = False) -> bool:  # noqa: ARG002 (a model's)
        """The outputs of single heads fire only when they are named."""
        return name.endswith("attn.hook_result")

    # --- What analyses ask (protocol.HookedModel) -----------------------------------------------

    @property
    def cfg(self) -> BackedConfig:
        """The transformers configuration, with the present device and precision."""
        return self._config

    @property
    def wiring(self) -> SublayerWiring:
        """How much of each earlier write each of its reads takes."""
        return self._wiring

    @property
    def fused_kernels(self) -> bool:
        """``False``: all is eager code, so a pass is the same whatever is cached of it."""
        return False

    @property
    def traits(self) -> frozenset[Trait]:
        """A decoder of text, and what its wiring is."""
        return DECODER | self.wiring.traits

    # --- What a language model is asked (model.language) ----------------------------------------

    @property
    def ends(self) -> BackedEnds:
        """Its embedding, final norm and unembedding."""
        return BackedEnds(self.tokens, self.module, self.kind, self.exact)

    @property
    def weights(self) -> BackedWeights:
        """The weights of the blocks."""
        return BackedWeights(self.module, self._blocks, self.cfg)

    @property
    def blocks(self) -> list[BlockView]:
        """The blocks, with ``attn.W_O`` where heads add up."""
        return self._blocks

    @property
    def embed(self) -> Any:
        """The token embedding."""
        return self.ends.embed

    @property
    def ln_final(self) -> Any:
        """The final norm."""
        return self.module.model.norm

    @property
    def unembed(self) -> Any:
        """The unembedding."""
        return self.ends.unembed

    def exact(self) -> AbstractContextManager[object]:
        """In what its code is run: with float64 weights nothing is cast to float32."""
        return self._exact.lifted(self.cfg.dtype)

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
            ValueError: If it is to start at a stream.
        """
        if start is not None:
            raise ValueError(
                f"a {self.kind.class_name} starts at token ids, not at start_at_layer={start}: a "
                "block reads several streams. Edit them at their hooks."
            )
        if stop is None and return_type is not None:
            return self._run(self.module, given).logits
        try:
            self._places.stop = stop
            self._run(self.module.model, given)
        except Stopped as stopped:
            return stopped.args[0]
        finally:
            self._places.stop = None
        return None

    def _run(self, module: Any, tokens: Tensor, use_cache: bool = False, **kwargs: Any) -> Any:
        with self.exact():
            return module(input_ids=tokens, use_cache=use_cache, **kwargs)

    def embed_ids(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_model"]:
        """X_0: a row of the token embedding for each token."""
        return self.module.model.embed_tokens.forward(tokens)

    def positions_seen(self, past: Any) -> int:
        """None: ``past_kv_cache`` is refused."""
        refuse("forward", {"past_kv_cache": KEPT}, (), {"past_kv_cache": past})
        return 0

    def reader(self, how: Decoding, rows: int, room: int) -> Reader:  # noqa: ARG002 (the arguments of every model's)
        """See :class:`~mudd_interp.model.decoding.Decoder`."""
        return _reader(self.module, self._run, how.use_past_kv_cache)


_MARK = "_mudd_interp_backed"
"""Where a module says that it has hook points already."""


def kind_of(module: Any) -> Kind:
    """The architecture of a module.

    Raises:
        ValueError: If it is none of those that are hooked here, with the nearest of them.
    """
    model_type = getattr(getattr(module, "config", None), "model_type", None)
    kind = KINDS.get(str(model_type))
    if kind is None or type(module).__name__ != kind.class_name:
        name = type(module).__name__
        classes = [each.class_name for each in KINDS.values()]
        raise ValueError(
            f"{unknown_name('depth-routing model of transformers', name, classes)} Expected one of "
            f"{', '.join(classes)}; a plain decoder goes into a BridgeModel."
        )
    return kind


def _tied(module: Any, kind: Kind) -> Places:
    """Hook points on the modules of a model, in the order in which they run."""
    places, model = Places(), module.model
    places.on_output(axes.EMBED, model.embed_tokens)
    for layer in range(len(model.layers)):
        places.absent.update(absent(layer))
    kind.tie(places, model, kind)
    places.on_input(axes.RESID_FINAL, model.norm)
    places.end_before(len(model.layers), model.norm, lambda x: x)
    eps = model.config.rms_norm_eps
    places.on_norm("ln_final", model.norm, eps)
    return places


def _reader(module: Any, run: Callable[..., Any], use_past_kv_cache: bool) -> Reader:
    """What reads tokens, with the keys and values that the Hugging Face model keeps."""
    if not use_past_kv_cache:
        return lambda tokens: run(module, tokens).logits[:, -1].clone()
    past: Any = None

    def read(tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch d_vocab"]:
        nonlocal past
        new = tokens if past is None else tokens[:, -1:]
        # without it a token that is the padding one would be taken for padding
        seen = torch.ones_like(tokens)
        found = run(module, new, True, past_key_values=past, attention_mask=seen)
        past = found.past_key_values
        return found.logits[:, -1].clone()

    return read
