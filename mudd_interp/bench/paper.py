"""The paper's Table 4, inference: decoding after a long prompt, MUDDFormer beside Transformer++.

Batch 1, a prompt of 4096 tokens and 128 more, untrained models in Llama's style. The paper decodes
on an A100 with torch.compile; here it is whatever device the bench runs on, and not compiled.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from mudd_interp.bench.measure import Row, compared, interleaved
from mudd_interp.bench.options import Options
from mudd_interp.bench.sizes import Size, checkpoint_config, random_tokens
from mudd_interp.config import ModelConfig
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.model.attention import LayerKeyValues

PRESETS = {"1.3B": "MUDDFormer-1.4B", "2.8B": "MUDDFormer-2.8B", "6.9B": "MUDDFormer-6.9B"}
"""The sizes of Table 4: what it calls 1.3B is 24 x 2048."""

TOKENS_PER_SECOND = {"1.3B": (286, 325), "2.8B": (163, 181), "6.9B": (89.7, 95.5)}
"""Table 4, inference: of MUDDFormer, and of Transformer++."""

MARGIN = 1.2
"""How much memory is to be free, in units of what the tensors take."""

GB = 1e9


@torch.no_grad()
def paper(options: Options) -> list[Row]:
    """Tokens per second after the prompt, which is not counted, of each size that fits."""
    too_large = left_out(options)
    return [_decoded(options, name) for name in options.size.paper if name not in too_large]


def left_out(options: Options) -> dict[str, str]:
    """The sizes that the free memory does not hold, each with the reason."""
    free = _free(options.device)
    needed = {name: MARGIN * _bytes(options, name) for name in options.size.paper}
    return {
        name: f"it takes {size / GB:.1f} GB in {options.dtype_name}, and {free / GB:.1f} are free"
        for name, size in needed.items()
        if size > free
    }


def _config(size: Size, name: str) -> ModelConfig:
    """The MUDDFormer of a size, with room for the prompt and what is decoded."""
    if name in PRESETS:
        config = ModelConfig.preset(PRESETS[name])
    else:
        config = ModelConfig.from_released(checkpoint_config(size) | {"model_type": "muddformer"})
    return replace(config, n_ctx=size.paper_tokens + size.new_tokens)


def _bytes(options: Options, name: str) -> int:
    """The weights, which both models share, their keys and values, and the states of the prompt."""
    config = _config(options.size, name)
    with torch.device("meta"):
        numbers = sum(weight.numel() for weight in HookedMUDDTransformer(config).parameters())
    keys = 2 * 2 * config.n_layers * config.kv_heads * config.head_width * config.n_ctx
    # and the logits of the prompt, which are kept beside
    prompt = options.size.paper_tokens * (config.d_vocab + (config.n_layers + 8) * config.d_model)
    return (numbers + keys + prompt) * options.dtype.itemsize


def _free(device: torch.device) -> int:
    """Free memory, in bytes, of a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    listed = Path("/proc/meminfo")
    if listed.exists():
        fields = dict(line.split(":", 1) for line in listed.read_text().splitlines())
        return 1024 * int(fields["MemAvailable"].split()[0])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _decoded(options: Options, name: str) -> Row:
    size, config = options.size, _config(options.size, name)
    tokens = random_tokens(size, size.paper_tokens, options.device)
    mudd = _untrained(config, options)
    models = {"mudd": mudd, "plain": _twin(mudd)}
    seconds = interleaved(
        options.repeats,
        options.device,
        {called: _decoder(model, tokens, size.new_tokens) for called, model in models.items()},
    )
    speed = {
        called: [size.new_tokens / each for each in found] for called, found in seconds.items()
    }
    ours, theirs = TOKENS_PER_SECOND.get(name, (None, None))
    return compared(
        f"decode {size.new_tokens} tokens after {size.paper_tokens}, MUDDFormer {name}",
        speed["mudd"],
        "its plain twin, Transformer++",
        speed["plain"],
        unit="tokens/s",
        at_least=True,
        paper=None if ours is None or theirs is None else ours / theirs,
    )


def _decoder(
    model: HookedMUDDTransformer, tokens: Int64[Tensor, "batch pos"], new_tokens: int
) -> partial[None]:
    """Greedy decoding after a prompt that is read once, here."""
    past = model.new_kv_cache(1, tokens.shape[1] + new_tokens)
    first = model.logits(tokens, past)[:, -1:].argmax(-1)
    return partial(_decode, model, past, first, new_tokens)


def _decode(
    model: HookedMUDDTransformer,
    past: Sequence[LayerKeyValues],
    token: Int64[Tensor, "batch 1"],
    new_tokens: int,
) -> None:
    prompt = [layer.length for layer in past]
    for _ in range(new_tokens):
        token = model.logits(token, past).argmax(-1)
    for layer, length in zip(past, prompt, strict=True):
        layer.length = length  # and what came after the prompt is forgotten


@torch.no_grad()
def _untrained(config: ModelConfig, options: Options) -> HookedMUDDTransformer:
    """A model that is made where it is to be, in its precision: memory never holds it twice."""
    with torch.device("meta"):
        model = HookedMUDDTransformer(config, dtype=options.dtype)
    model.to_empty(device=options.device)
    for parameter in model.parameters():
        parameter.fill_(1.0)  # gains of norms: this family has no biases
    model.unembed.b_U.zero_()
    torch.manual_seed(0)
    model.init_weights()
    return model


def _twin(mudd: HookedMUDDTransformer) -> HookedMUDDTransformer:
    """The plain twin, of the same weights in the same memory."""
    weights = mudd.state_dict()
    with torch.device("meta"):
        twin = HookedMUDDTransformer(mudd.config.plain())
    names = {
        name: name if name in weights else name.replace(".ln1.", ".ln1_q.")
        for name in twin.state_dict()
    }
    twin.load_state_dict({name: weights[named] for name, named in names.items()}, assign=True)
    twin.unembed.b_U = mudd.unembed.b_U
    return twin
