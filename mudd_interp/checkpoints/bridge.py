"""Baselines: any Transformer that TransformerBridge boots, behind the same names as our model.

The package ``transformer_lens.model_bridge`` takes seconds to import, so it is imported in the
functions that need it.
"""

import os
import re
import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mudd_interp import axes
from mudd_interp.axes import Stream
from mudd_interp.checkpoints.bridge_config import BaselineConfig
from mudd_interp.checkpoints.bridge_generate import BaselineGenerate
from mudd_interp.checkpoints.bridge_probe import probe
from mudd_interp.checkpoints.bridge_source import find_source, load_auto_tokenizer, load_module
from mudd_interp.checkpoints.bridge_taps import NORM_HOOKS, Taps
from mudd_interp.checkpoints.bridge_weights import BaselineWeights
from mudd_interp.checkpoints.checks import NOT_TRIED
from mudd_interp.checkpoints.digest import model_digest
from mudd_interp.checkpoints.load import read_config
from mudd_interp.checkpoints.weight_files import open_weights
from mudd_interp.model.arguments import FORWARD, FORWARD_TAKES, check_return_type, refuse
from mudd_interp.model.forward import LossMethods, layer_index, stream_to_start
from mudd_interp.model.hooking import CheckedHooks
from mudd_interp.model.named import NearestNames
from mudd_interp.model.points import may_change
from mudd_interp.model.switches import HookSwitches
from mudd_interp.model.tokens import TokenMethods, check_tokens
from mudd_interp.protocol import ModelInfo
from mudd_interp.states import StateWiring

KEPT_BY = "generate keeps keys and values, and so does model.bridge, see its 'logits_and_cache'"
REFUSED = {**FORWARD, "past_kv_cache": KEPT_BY, "past_key_values": KEPT_BY}
PROCESSED = "a baseline is the model as it is, no norm is folded and nothing is centred"


class BridgeBaseline(
    TokenMethods,
    BaselineGenerate,
    BaselineWeights,
    LossMethods,
    HookSwitches,
    NearestNames,
    CheckedHooks,
):
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
        self._config = BaselineConfig(bridge)
        parallel = bool(bridge.cfg.parallel_attn_mlp)
        self.wiring = StateWiring(bridge.cfg.n_layers, parallel=parallel)
        self.eval()
        self._taps = Taps(bridge)
        self.setup()
        self._linear_head = self._drop_unfit_hooks() if check else None
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
    ) -> "BridgeBaseline":
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

    @property
    def absent(self) -> dict[str, str]:
        """Names of hooks that this model has not, each with the reason."""
        return self._taps.absent

    def require(self, names: Iterable[str]) -> None:
        """Refuse names that are not hooks of this model, with the reason if there is one."""
        names = list(names)
        for name in names:
            if name in self.absent:
                raise ValueError(f"this baseline has no hook `{name}`: {self.absent[name]}.")
        super().require(names)

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
                    f"{self.cfg.architecture} cannot be a baseline: it has no live hook `{name}` "
                    f"({self.absent[name]})."
                )
        if not any(".attn" in name or "_attn_" in name for name in self.hook_dict):
            raise ValueError(f"{self.cfg.architecture} cannot be a baseline: it has no attention.")

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
    def cfg(self) -> BaselineConfig:
        """The bridge's configuration, with the present device and precision."""
        return self._config

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The one input stream of a block."""
        return ("r",)

    def weights_hook(self, aggregation: int, stream: Stream) -> str | None:  # noqa: ARG002
        """``None``: every stream is the plain residual."""
        return None

    def static_weights(self, aggregation: int, stream: Stream) -> Float[Tensor, " source"]:  # noqa: ARG002
        """One-hot on the newest source."""
        return self.wiring.static(self.wiring.row("r", aggregation))

    def source_hook(self, source: int) -> str:
        """The hook on X_source."""
        return axes.source_output(source)

    @property
    def fused_kernels(self) -> bool:
        """``False``: attention is eager code, so a pass is the same whatever is cached of it."""
        return False

    # --- The API of TransformerLens -------------------------------------------------------------

    def forward(
        self,
        input: Any,
        return_type: str | None = "logits",
        loss_per_token: bool = False,
        prepend_bos: bool | None = None,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        **refused: Any,
    ) -> Any:
        """Run the model; arguments and errors are those of ``HookedMUDDTransformer``.

        ``past_kv_cache`` is refused: ``generate`` keeps keys and values, and so does the bridge.
        """
        refuse("forward", REFUSED, FORWARD_TAKES, refused)
        check_return_type(return_type)
        stop = None if stop_at_layer is None else layer_index(self, "stop_at_layer", stop_at_layer)
        if start_at_layer is not None:
            start = layer_index(self, "start_at_layer", start_at_layer)
            given = stream_to_start(self, input, start, stop, return_type)
            if start == self.cfg.n_layers:
                raise ValueError(f"a baseline starts at a block, 0 to {start - 1}, got {start}.")
            return self._answer(given, return_type, stop, start)
        tokens = self.tokens_of(input, prepend_bos)
        check_tokens(tokens, 0, self.cfg.n_ctx, self.cfg.d_vocab)
        if stop is not None or return_type in ("logits", None):
            return self._answer(tokens, return_type, stop)
        logits = self._run(tokens)
        loss = self.loss_fn(logits, tokens, per_token=loss_per_token)
        return loss if return_type == "loss" else (logits, loss)

    def _answer(
        self,
        given: Tensor,
        return_type: str | None,
        stop: int | None,
        start: int | None = None,
    ) -> Any:
        with self._taps.between(start, stop):
            if stop is not None:
                return self._stream_before(given, stop, start)
            if return_type is None:
                return self._run_to_final_norm(given, start)
            return self._run(given, start_at_layer=start)

    def _run(self, given: Tensor, return_type: str = "logits", **kwargs: Any) -> Any:
        with self._quiet():
            return self.bridge(given, return_type=return_type, **kwargs)

    def _run_to_final_norm(self, given: Tensor, start: int | None = None) -> None:
        """Leave out the unembedding, a large share of a small model's work."""
        from transformer_lens.model_bridge.exceptions import StopAtLayerException

        def stop(unembed: nn.Module, inputs: tuple[Any, ...]) -> None:  # noqa: ARG001
            raise StopAtLayerException(inputs[0])  # the bridge catches it, as for its blocks

        with self.bridge.unembed.register_forward_pre_hook(stop):
            self._run(given, start_at_layer=start)

    def _stream_before(
        self, given: Tensor, stop: int, start: int | None
    ) -> Float[Tensor, "batch pos d_model"]:
        if stop != self.cfg.n_layers:
            return self._run(given, stop_at_layer=stop, start_at_layer=start)
        kept: list[Tensor] = []
        with self.hooks([(axes.RESID_FINAL, lambda x, hook: kept.append(x))]):  # noqa: ARG005
            self._run_to_final_norm(given, start)
        return kept[0]

    @contextmanager
    def _quiet(self) -> Generator[None]:
        """Keep the bridge from warning that a hooked norm is computed from its hooks."""
        norms = [p for name, p in self.hook_dict.items() if name.endswith(NORM_HOOKS)]
        if not any(map(may_change, norms)):
            yield
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="A forward hook edited hook_scale")
            warnings.filterwarnings("ignore", message="Backward hooks on hook_scale")
            yield

    def missing(self, name: str) -> str:
        """The message for an attribute that is not there; the bridge may have it."""
        if name in self.__dict__.get("hook_dict", {}):
            return f"a baseline's hook points are in its hook_dict: model.hook_dict['{name}']."
        bridge = self._modules.get("bridge")
        if name not in self.elsewhere and bridge is not None and hasattr(bridge, name):
            return f"BridgeBaseline has no `{name}`, but its bridge has: model.bridge.{name}."
        return super().missing(name)

    def to(self, *args: Any, **kwargs: Any) -> "BridgeBaseline":
        """Move or convert the weights."""
        self.bridge.to(*args, **kwargs, print_details=False)
        return self

    def parameters(self, recurse: bool = True) -> Any:
        """The parameters that the model computes with, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Any:
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


def load_baseline(
    name_or_path: str | os.PathLike[str],
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    check: bool = True,
) -> BridgeBaseline:
    """A Transformer as a baseline, from a folder or the Hugging Face hub; no remote code, ever.

    Args:
        name_or_path: A folder as ``save_pretrained`` writes it, a hub id such as
            ``"EleutherAI/pythia-160m"``, or the short name of a Pythia model (``"pythia-160m"``).
        device: Where to put the weights; ``None`` means the CPU.
        dtype: Their precision; ``None`` means float32.
        revision: A branch, tag or commit of the hub repository; Pythia's are its training steps.
        local_files_only: Use what was downloaded before, and no network.
        check: Run the model on a few tokens, to find the hooks that are live and exact. Without,
            hooks whose edits may be lost stay, and no residual directions are known.

    Raises:
        ValueError: If the model cannot be found or downloaded, needs code of its own, lacks or
            has unknown parameters, holds NaN, or is not a plain decoder-only Transformer.
    """
    source = find_source(name_or_path, revision, local_files_only)
    module = load_module(source.folder, dtype or torch.float32)
    tokenizer = load_auto_tokenizer(source.folder)
    module.to(torch.device(device or "cpu"))
    checks = ("all parameters found and used, none with NaN",)
    digest = model_digest(read_config(source.folder), open_weights(source.folder))
    info = ModelInfo(source.name, source.revision, digest, checks)
    return BridgeBaseline(build_bridge(module, tokenizer, source.name), tokenizer, info, check)


def build_bridge(module: Any, tokenizer: Any = None, name: str = "a module in memory") -> Any:
    """A TransformerBridge around a Hugging Face model in evaluation mode, with eager attention.

    Raises:
        ValueError: If the bridge does not know the architecture.
    """
    from copy import deepcopy

    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformer_lens.utilities.attn_implementation import force_eager_attention

    architecture = type(module).__name__
    if not hasattr(module, "config"):
        raise ValueError(f"expected a Hugging Face model with a config, got a {architecture}.")
    force_eager_attention(module)
    try:
        return build_bridge_from_module(
            module.eval(),
            architecture,
            hf_config=module.config,
            tokenizer=deepcopy(tokenizer),
            model_name=name,
        )
    except ValueError as error:
        raise ValueError(
            f"{architecture} cannot be a baseline: TransformerBridge does not take it ({error})."
        ) from error


def _refuse_processed(bridge: Any) -> None:
    if not hasattr(bridge, "blocks") or not hasattr(bridge, "ln_final"):
        raise ValueError(
            f"{bridge.cfg.architecture} cannot be a baseline: it has no blocks between an "
            "embedding and a final norm (is it an encoder, or recurrent?)."
        )
    if getattr(bridge, "compatibility_mode", False):
        raise ValueError(
            "the bridge is in compatibility mode, where norms are folded into weights: give a "
            "bridge with raw weights."
        )
