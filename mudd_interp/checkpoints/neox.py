"""Transformers' GPT-NeoX as a model of ours, with the same weights."""

from typing import Any

import torch

from mudd_interp.config import ModelConfig, wiring
from mudd_interp.model import HookedMUDDTransformer


def neox_config(hf: Any) -> ModelConfig:
    """Our configuration of transformers' GPT-NeoX."""
    config = hf.config
    d_head = config.hidden_size // config.num_attention_heads
    return ModelConfig(
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=config.num_attention_heads,
        d_vocab=config.vocab_size,
        d_mlp=config.intermediate_size,
        n_ctx=config.max_position_embeddings,
        normalization_type="LN",
        eps=config.layer_norm_eps,
        gated_mlp=False,
        act_fn="gelu",
        attn_bias=True,
        mlp_bias=True,
        parallel_attn_mlp=config.use_parallel_residual,
        rotary_dim=int(d_head * config.rope_parameters["partial_rotary_factor"]),
        wiring=wiring("plain"),
    )


@torch.no_grad()
def of_neox(hf: Any) -> HookedMUDDTransformer:
    """Transformers' GPT-NeoX as a model of ours, with the same weights."""
    weight = hf.gpt_neox.embed_in.weight
    model: Any = HookedMUDDTransformer(neox_config(hf), device=weight.device, dtype=weight.dtype)
    model.embed.W_E.copy_(weight)
    _copy_norm(model.ln_final, hf.gpt_neox.final_layer_norm)
    model.unembed.W_U.copy_(hf.get_output_embeddings().weight.T)
    for block, layer in zip(model.blocks, hf.gpt_neox.layers, strict=True):
        _copy_norm(block.ln1, layer.input_layernorm)
        _copy_norm(block.ln2, layer.post_attention_layernorm)
        heads, d_model, d_head = block.attn.W_Q.shape
        fused = layer.attention.query_key_value
        weights = fused.weight.view(heads, 3, d_head, d_model)
        biases = fused.bias.view(heads, 3, d_head)
        for i, name in enumerate("QKV"):
            block.attn.get_parameter(f"W_{name}").copy_(weights[:, i].transpose(1, 2))
            block.attn.get_parameter(f"b_{name}").copy_(biases[:, i])
        block.attn.W_O.copy_(layer.attention.dense.weight.T.view(heads, d_head, d_model))
        block.attn.b_O.copy_(layer.attention.dense.bias)
        block.mlp.W_in.copy_(layer.mlp.dense_h_to_4h.weight.T)
        block.mlp.b_in.copy_(layer.mlp.dense_h_to_4h.bias)
        block.mlp.W_out.copy_(layer.mlp.dense_4h_to_h.weight.T)
        block.mlp.b_out.copy_(layer.mlp.dense_4h_to_h.bias)
    return model


def _copy_norm(ours: Any, theirs: Any) -> None:
    ours.w.copy_(theirs.weight)
    ours.b.copy_(theirs.bias)
