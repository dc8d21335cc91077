"""What a bridged model's hooks are worth, found by running it on a few tokens at load."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mudd_interp import axes
from mudd_interp.model.block import ATTENTION_STREAMS
from mudd_interp.model.language import LanguageModel

PROBE_LENGTH = 6
"""Tokens of the probe: enough for a pattern with a future to hide."""

NO_EFFECT = "an edit of it would change nothing: the bridge shows it after its use"
NEVER = "the bridge never runs it"
TWICE = "it runs several times in one forward pass, so that a hook would see the last run only"

Cache = Mapping[str, Float[Tensor, "..."]]


@dataclass(frozen=True)
class Findings:
    """What the probe found.

    Attributes:
        unfit: Names of hooks that cannot keep their promise, each with the reason.
        linear_head: Whether the logits are the final norm's output times ``W_U``.
    """

    unfit: Mapping[str, str]
    linear_head: bool


def probe(model: LanguageModel) -> Findings:
    """Run a bridged model on a few tokens, and see which hooks are live and exact.

    Raises:
        ValueError: If it is not a plain Transformer: its logits are not finite, or the blocks do
            not read each other's outputs.
    """
    length = min(PROBE_LENGTH, model.cfg.n_ctx)
    tokens = torch.arange(length, device=model.cfg.device)[None] % model.cfg.d_vocab
    with torch.no_grad():
        logits, cache = model.run_with_cache(
            tokens, names_filter=lambda _: True, return_cache_object=False
        )
    if not torch.isfinite(logits).all():
        raise ValueError(
            f"the logits of {model.cfg.model_name} are not finite in {model.cfg.dtype}: load it "
            "with dtype=torch.float32, or look at its weights."
        )
    check_chain(model, cache)
    unfit = {
        **not_live(model, tokens, logits),
        **not_additive(model, cache),
        **not_attention(cache, model.cfg.n_layers),
    }
    return Findings(unfit, _has_linear_head(model, cache, logits))


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors agree up to the rounding of their precision."""
    tolerance = 1e-4 if a.dtype in (torch.float32, torch.float64) else 3e-2
    scale = max(1.0, float(b.float().abs().max()))
    return a.shape == b.shape and bool((a.float() - b.float()).abs().max() <= tolerance * scale)


def check_chain(model: LanguageModel, cache: Cache) -> None:
    """Each block reads the output of the one before: what makes a Transformer plain."""
    inputs = [axes.resid_pre(layer) for layer in range(model.cfg.n_layers)] + [axes.RESID_FINAL]
    for source, name in enumerate(inputs):
        output = axes.source_output(source)
        for needed in (output, name):
            if needed not in cache:
                raise ValueError(
                    f"{model.cfg.architecture} cannot be bridged: its bridge has no `{needed}`, "
                    "and the model must be a decoder whose blocks share one residual stream."
                )
        if not close(cache[name], cache[output]):
            raise ValueError(
                f"{model.cfg.architecture} cannot be bridged: `{name}` is not `{output}`, so "
                "its connections are not those of a plain residual stream."
            )


def not_live(
    model: LanguageModel,
    tokens: Int[Tensor, "batch pos"],
    logits: Float[Tensor, "batch pos d_vocab"],
) -> dict[str, str]:
    """Hooks whose edits do not reach the logits, or that run twice.

    The streams are nudged in a run of their own, since a split stream passes by the hooks of the
    norm that the others share.
    """
    streams = {
        axes.stream_input(layer, stream)
        for layer in range(model.cfg.n_layers)
        for stream in ATTENTION_STREAMS
    }
    found: dict[str, str] = {}
    names_of_runs = (set(model.hook_dict) & streams, set(model.hook_dict) - streams)
    for names in filter(None, names_of_runs):
        nudged, reasons = nudge(model, sorted(names), tokens)
        if not close(nudged, logits):
            reasons = dict.fromkeys(
                names, "to hook it changes the logits, although nothing is edited"
            )
        found.update(reasons)
    return found


def nudge(
    model: LanguageModel, names: Sequence[str], tokens: Int[Tensor, "batch pos"]
) -> tuple[Float[Tensor, "batch pos d_vocab"], dict[str, str]]:
    """Logits of a run with nudges of size zero, and the names whose nudge has no gradient."""
    sizes = {name: torch.zeros((), device=tokens.device, requires_grad=True) for name in names}
    runs = dict.fromkeys(names, 0)

    def add(tensor: Tensor, hook: Any) -> Tensor:
        runs[hook.name] += 1
        return tensor + (sizes[hook.name] * wave(tensor)).to(tensor.dtype)

    with torch.enable_grad(), model.hooks([(name, add) for name in names]):
        logits = model(tokens)
        target = (logits.float() * wave(logits)).sum()
        slopes = torch.autograd.grad(target, list(sizes.values()), allow_unused=True)
    found: dict[str, str] = {}
    for name, slope in zip(names, cast(Sequence[Tensor | None], slopes), strict=True):
        if runs[name] != 1:
            found[name] = TWICE if runs[name] else NEVER
        elif slope is None or slope == 0:
            found[name] = NO_EFFECT
    return logits.detach(), found


def wave(like: Tensor) -> Float[Tensor, "..."]:
    """A fixed pattern of signs and sizes in the shape of a tensor; nothing is invariant to it."""
    steps = torch.arange(like.numel(), device=like.device, dtype=torch.float32)
    return torch.sin(1.0 + 1.7 * steps).view(like.shape)


def not_additive(model: LanguageModel, cache: Cache) -> dict[str, str]:
    """Components that do not add up to the block's output, and heads not to the attention."""
    found: dict[str, str] = {}
    for layer in range(model.cfg.n_layers):
        at = partial(axes.block, layer)
        attn, mid, mlp = (
            cache.get(at(f"hook_{part}")) for part in ("attn_out", "resid_mid", "mlp_out")
        )
        before, after = cache[axes.resid_pre(layer)], cache[axes.resid_post(layer)]
        if attn is None or mlp is None or not close(before + attn + mlp, after):
            parts = ("hook_attn_out", "hook_resid_mid", "hook_mlp_out", "attn.hook_result")
            found.update(dict.fromkeys(map(at, parts), "the block is not the sum of its parts"))
            continue
        if mid is not None and not close(before + attn, mid):
            found[at("hook_resid_mid")] = "it is not the block's input plus the attention"
        heads = cache.get(at("attn.hook_result"))
        if heads is not None and not close(_sum_of_heads(model, layer, heads), attn):
            found[at("attn.hook_result")] = "the heads do not add up to the attention"
    return {name: reason for name, reason in found.items() if name in model.hook_dict}


def _sum_of_heads(
    model: LanguageModel, layer: int, heads: Float[Tensor, "batch pos head d_model"]
) -> Float[Tensor, "batch pos d_model"]:
    bias = getattr(model.blocks[layer].attn.o.original_component, "bias", None)
    return heads.sum(2) if bias is None else heads.sum(2) + bias


def not_attention(cache: Cache, n_layers: int) -> dict[str, str]:
    """Patterns whose rows do not sum to one, or that see the future."""
    found: dict[str, str] = {}
    for name in (axes.pattern(layer) for layer in range(n_layers)):
        if name not in cache:
            continue
        pattern = cache[name]
        rows = pattern.float().sum(-1).to(pattern.dtype)
        if not close(rows, torch.ones_like(rows)):
            found[name] = "its rows do not sum to one"
        elif pattern.triu(1).any():
            found[name] = "it looks at later positions"
    return found


def _has_linear_head(
    model: LanguageModel, cache: Cache, logits: Float[Tensor, "batch pos d_vocab"]
) -> bool:
    normalized = cache.get("ln_final.hook_normalized")
    if normalized is None:
        return False
    bias = model.ends.bias()
    final = normalized * model.ends.gain()
    final = final if bias is None else final + bias
    return close((final.to(logits.dtype) @ model.W_U + model.b_U).detach(), logits)
