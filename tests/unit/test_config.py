import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from mudd_interp.config import (
    ModelConfig,
    NextTokenTask,
    TokenInput,
    reallocate,
    swiglu_width,
)
from mudd_interp.config.presets import SIZES, preset_names
from mudd_interp.config.released import DEFAULTS, OWN_DEFAULTS
from mudd_interp.config.wiring import WiringConfig, flags_of_wiring, wiring_of_flags
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.model.wirings import MUDD, Plain, PrePost

SMALL: dict[str, Any] = {"n_layers": 3, "d_model": 32, "n_heads": 4, "d_vocab": 10, "d_mlp": 64}
GOLDEN = Path(__file__).parents[1] / "parity" / "golden"


def released(kind: str = "muddpythia", **changes: Any) -> dict[str, Any]:
    required = {"vocab_size": 101, "n_layer": 4, "n_head": 4, "dim": 64}
    config = {"model_type": kind, **required, "intermediate_size": 256, **changes}
    return {name: value for name, value in config.items() if value != "absent"}


def n_parameters(cfg: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in HookedMUDDTransformer(cfg).parameters())


# --- Released configurations --------------------------------------------------------------------


def test_defaults_are_those_of_the_released_classes():
    pythia = ModelConfig.from_released(released(intermediate_size="absent"))
    assert pythia == ModelConfig(
        n_layers=4,
        d_model=64,
        n_heads=4,
        d_vocab=101,
        n_ctx=2048,
        d_mlp=(128, 256, 256, 384),  # round(256 * [1/2, 5/6, 7/6, 3/2] / 128) * 128
        normalization_type="LN",
        eps=1e-5,
        gated_mlp=False,
        act_fn="gelu",
        attn_bias=True,
        mlp_bias=True,
        parallel_attn_mlp=True,
        rotary_dim=4,
        rotary_rounding="float16",
    )
    former = ModelConfig.from_released(released("muddformer", intermediate_size="absent"))
    assert former == ModelConfig(
        n_layers=4,
        d_model=64,
        n_heads=4,
        d_vocab=101,
        d_mlp=(128, 256, 256, 384),  # 8 * 64 / 3 = 170, rounded up to 256
        eps=1e-6,
        rotary_rounding="bfloat16",
    )


def test_linear_bias_governs_the_ffn_only():
    cfg = ModelConfig.from_released(released(use_linear_bias=False))
    assert cfg.attn_bias
    assert not cfg.mlp_bias


def test_fields_reach_the_model():
    cfg = ModelConfig.from_released(
        released(
            n_local_heads=1,
            block_size=96,
            rope_base=500,
            norm_eps=1e-3,
            use_qk_norm=True,
            use_parallel_residual=False,
            rotary_pct=0.5,
            expand_last=True,
            round64=True,
        )
    )
    assert (cfg.kv_heads, cfg.n_ctx, cfg.rotary_base, cfg.eps) == (1, 96, 500.0, 1e-3)
    assert (cfg.use_qk_norm, cfg.parallel_attn_mlp, cfg.rotated) == (True, False, 8)
    assert [cast(MUDD, cfg.wiring).hidden(row, 4) for row in range(4)] == [
        64,
        64,
        64,
        64,
    ]  # 8, 12, 16, 4 * 5


def test_dense_false_is_the_plain_model_with_reallocated_widths():
    cfg = ModelConfig.from_released(released(dense=False, sepln=False))
    assert (cfg.wiring, cfg.streams) == (Plain(), ("r",))
    assert cfg.mlp_widths == (128, 256, 256, 384)


def test_bookkeeping_is_ignored():
    noise: dict[str, Any] = {
        "architectures": ["MUDDPythia"],
        "auto_map": {"AutoConfig": "evil.Config"},
        "torch_dtype": "bfloat16",
        "dtype": None,
        "transformers_version": "4.35.0",
        "_name_or_path": "",
        "_attn_implementation_autoset": True,
        "pad_token_id": None,
        "bos_token_id": 1,
        "use_cache": True,
        "id2label": {"0": "LABEL_0"},
        "output_attentions": False,
        "use_gradient_checkpointing": True,
        "is_training": True,
        "use_layer_cache": False,
    }
    assert ModelConfig.from_released(released(**noise)) == ModelConfig.from_released(released())


def test_everything_that_transformers_writes_is_ignored():
    from transformers import PretrainedConfig

    written = PretrainedConfig().to_dict() | {"model_type": "muddpythia"}
    assert ModelConfig.from_released(written | released()) == ModelConfig.from_released(released())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (released(model_type="absent"), ["model_type", "muddformer or muddpythia", "None"]),
        (released(dim="absent", n_head="absent"), ["lacks n_head, dim", "required"]),
        (released(dim=None), ["lacks dim"]),
        (released(expand_lats=True), ["`expand_lats`", "did you mean `expand_last`"]),
        (released("muddformer", rotary_pct=0.5), ["muddformer configuration `rotary_pct`"]),
        (released(quantization_config={}), ["`quantization_config`"]),
        (released(n_layer="4"), ["`n_layer`", "whole number of at least 1", "'4'"]),
        (released(n_layer=0), ["`n_layer`", "at least 1"]),
        (released(round64="yes"), ["`round64`", "true or false", "'yes'"]),
        (released(norm_eps=0), ["`norm_eps`", "positive number"]),
        (released(dense_type=4), ["`dense_type`", "a string"]),
        (released(head_dim=32), ["head_dim 32 contradicts", "dim 64", "n_head 4", "make 16"]),
        (released(n_head=5), ["dim 64 is not divisible by n_head 5"]),
        (released(n_layer=1), ["n_layer must be at least 2"]),
        (released(tie_word_embeddings=True), ["tie_word_embeddings is true", "false"]),
        (released(dense_type="l"), ["dense_type is 'l'", "cannot run", "'qkvr'"]),
        (released(dense_type="qkv"), ["dense_type is 'qkv'", "cannot run"]),
        (released(dynamic_dense=False), ["dynamic_dense is False", "cannot run"]),
        (released(stack_hidden=True), ["stack_hidden is True", "cannot run"]),
        (released(sepln=False), ["sepln is False", "cannot run"]),
        (released(dense=False), ["dense is false but sepln is true", "cannot run"]),
        (released(dense=False, sepln=False, dense_type="x"), ["dense_type must be", "'x'"]),
        (released(n_local_heads=2), ["n_local_heads must be n_head (4), -1", "or 1", "got 2"]),
        (released(rotary_pct=0.2), ["rotary_pct 0.2 of head_dim 16 makes 3", "even"]),
        (released(rotary_pct=1.5), ["makes 24", "from 2 to 16"]),
        (released(intermediate_size=64), ["intermediate_size 64", "at least 128"]),
    ],
)
def test_bad_released_configurations(config: dict[str, Any], words: list[str]):
    with pytest.raises(ValueError, match=".*".join(map(re.escape, words))):
        ModelConfig.from_released(config)


def test_every_released_field_is_known():
    """The golden configurations, written by the released classes, name no unknown field."""
    for path in GOLDEN.glob("*/config.json"):
        config = json.loads(path.read_text())
        own = OWN_DEFAULTS[config["model_type"]]
        assert DEFAULTS.keys() | own.keys() <= config.keys()
        assert ModelConfig.from_released(config).n_ctx == 128


# --- Presets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("MUDDPythia-1.4B", 1_419_950_149),
        ("MUDDPythia-2.8B", 2_784_962_589),
        ("MUDDFormer-2.8B", 2_804_871_709),
    ],
)
def test_released_models_have_the_published_number_of_parameters(name: str, parameters: int):
    assert n_parameters(ModelConfig.preset(name)) == parameters


@pytest.mark.parametrize("size", SIZES)
def test_table_2(size: str):
    """Named by 12 L D² plus both embeddings; the twin has the same backbone, widths spread."""
    mudd, twin = (
        ModelConfig.preset(f"MUDDFormer-{size}"),
        ModelConfig.preset(f"Transformer++-{size}"),
    )
    n_layers, d_model, heads = SIZES[size]
    nominal = 12 * n_layers * d_model**2 + 2 * 50432 * d_model
    scale = {"M": 1e6, "B": 1e9}[size[-1]]
    assert nominal / scale == pytest.approx(float(size[:-1]), rel=0.05)
    assert mudd.head_width == twin.head_width == d_model // heads == 64
    assert twin.mlp_widths == (swiglu_width(d_model),) * n_layers
    assert mudd.mlp_widths == reallocate(swiglu_width(d_model), n_layers)
    assert sum(mudd.mlp_widths) == sum(twin.mlp_widths)
    kind = PrePost if size in ("797M", "1.34B") else MUDD
    assert mudd.wiring == kind(expand_last=True, round64=True)
    assert replace(mudd.plain(), d_mlp=twin.d_mlp) == twin


def test_the_size_of_table_1_that_is_not_in_table_2():
    mudd = ModelConfig.preset("MUDDFormer-6.9B")
    assert (mudd.n_layers, mudd.d_model, mudd.mlp_widths[0]) == (32, 4096, 5504)
    assert n_parameters(mudd.plain()) / 1e9 == pytest.approx(6.9, rel=0.05)


def test_a_size_is_of_a_family():
    with pytest.raises(ValueError, match="no preset `MUDDPythia-405M`"):
        ModelConfig.preset("MUDDPythia-405M")


@pytest.mark.parametrize("name", ["MUDDPythia-1.4B", "MUDDPythia-2.8B", "MUDDFormer-2.8B"])
def test_reallocation_keeps_the_total_width_of_the_released_models(name: str):
    """Half-to-even rounding to 128 loses nothing, so "compute-matched" holds for the FFNs."""
    cfg = ModelConfig.preset(name)
    mean = swiglu_width(cfg.d_model) if cfg.gated_mlp else 4 * cfg.d_model
    assert sum(cfg.mlp_widths) == cfg.n_layers * mean


def test_reallocated_widths_at_405m():
    widths = reallocate(2816, 24)
    assert (widths[0], widths[-1], sum(widths)) == (1408, 4224, 67_584)


def test_swiglu_widths_of_table_2():
    assert [swiglu_width(d) for d in (1024, 2560)] == [2816, 6912]


def test_an_unknown_preset_lists_the_nearest():
    with pytest.raises(ValueError, match=r"did you mean `MUDDPythia-1\.4B`") as caught:
        ModelConfig.preset("MUDDPythia-1.3B")
    assert all(name in str(caught.value) for name in preset_names())


# --- Round trip and derived fields --------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names())
def test_json_round_trip(name: str):
    cfg = ModelConfig.preset(name)
    assert ModelConfig.from_json(cfg.to_json()) == cfg


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"d_mlp": [64, 1.5]}, "d_mlp must be one positive width, or one for each of the 2 blocks"),
        ({"d_mlp": "wide"}, "d_mlp must be one positive width"),
        ({"d_mlp": [64, 64, 64]}, "d_mlp must be one positive width"),
        ({"rotary_base": 0}, "rotary_base must be positive, got 0"),
        ({"eps": "small"}, "of the wrong type"),
        ({"n_layers": "2"}, "n_layers must be a whole number of at least 1, got '2'"),
        (
            {"wiring": "mudd"},
            r"object with a kind \(plain, mudd, prepost, static, hyper, scalars, attnres\)",
        ),
        ({"wiring": {"kind": "mud"}}, r"no wiring `mud`; did you mean `mudd`"),
        ({"wiring": {"kind": "mudd", "way": "q"}}, r"kind mudd `way`; did you mean `ways`"),
        ({"wiring": {"kind": "mudd", "ways": "qx"}}, "ways must be some of the streams qkvr"),
        ({"wiring": {"kind": "mudd", "ways": 4}}, "ways must be some of the streams qkvr"),
        ({"wiring": {"kind": "mudd", "dynamic": 1}}, "dynamic must be true or false, got 1"),
        ({"wiring": {"kind": "prepost", "variant": "x"}}, "variant must be one of all, residual"),
        ({"multiway": True}, "`multiway` and `wiring` exclude each other"),
        ({"act_fn": "relu"}, "act_fn must be one of silu, gelu, got 'relu'"),
    ],
)
def test_bad_values_in_a_file_of_our_own(change: dict[str, Any], words: str):
    values = ModelConfig(n_layers=2, d_model=32, n_heads=4, d_vocab=10, d_mlp=64).to_dict()
    with pytest.raises(ValueError, match=f"{words}|of the wrong type"):
        ModelConfig.from_dict(values | change)


BODY: dict[str, Any] = {
    "eps": None,
    "rotary_before_qk_norm": True,
    "attention_windows": (4, 5, 24),
    "value_embeddings": True,
    "front": TokenInput(normed=True, smear=True),
    "task": NextTokenTask(softcap=15.0),
}


def test_what_nanochat_has_goes_without_saying_where_it_is_not():
    plain = ModelConfig(**SMALL)
    assert not (BODY.keys() - {"eps"}) & {**plain.to_dict(), **plain.identity()}.keys()
    cfg = replace(plain, use_qk_norm=True, **BODY)
    assert cfg.to_dict().keys() >= BODY.keys()
    assert ModelConfig.from_json(cfg.to_json()) == cfg


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": 0.0}, "eps must be a positive number, got 0.0"),
        ({"rotary_before_qk_norm": True}, "rotary_before_qk_norm needs use_qk_norm"),
        ({"attention_windows": [3]}, "a whole number of at least 1 for each of the 3 blocks, got"),
        ({"attention_windows": [3, 3, 0]}, "attention_windows must be a whole number of at least"),
        (
            {"attention_windows": [3, 3, 3], "attention_dir": "bidirectional"},
            "attention_windows need attention_dir 'causal', got 'bidirectional'",
        ),
        ({"value_embeddings": 1}, "value_embeddings must be true or false, got 1"),
        (
            {
                "value_embeddings": True,
                "front": {"kind": "patches", "image_size": 4, "patch_size": 4},
                "task": {"kind": "classes"},
                "n_ctx": 1,
            },
            "value_embeddings are of tokens, and this model reads images",
        ),
        ({"front": {"kind": "tokens", "smear": 1}}, "smear must be true or false, got 1"),
        ({"task": {"kind": "next_token", "softcap": 0.0}}, "softcap must be a positive number"),
        ({"task": {"kind": "next_token", "softcap": True}}, "softcap must be a positive number"),
    ],
)
def test_what_makes_no_sense_of_it_is_refused(change: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=f"{words}|of the wrong type"):
        ModelConfig.from_dict(ModelConfig(**SMALL).to_dict() | change)


def test_causal_attention_goes_without_saying_and_so_digests_stay():
    cfg = ModelConfig(**SMALL)
    assert "attention_dir" not in {**cfg.to_dict(), **cfg.identity()}
    both = replace(cfg, attention_dir="bidirectional")
    assert both.to_dict()["attention_dir"] == both.identity()["attention_dir"] == "bidirectional"
    assert ModelConfig.from_json(both.to_json()) == both


FLAGS: list[tuple[dict[str, Any], WiringConfig]] = [
    ({}, MUDD()),
    ({"dense": "none"}, Plain()),
    ({"dense": "none", "multiway": False, "expand_last": True}, Plain()),
    ({"dense": "static", "multiway": False}, MUDD(ways="one", dynamic=False)),
    ({"plain_streams": ["v", "q"], "round64": True}, MUDD(ways="kr", round64=True)),
    ({"pre_post_norm": "all", "expand_last": True}, PrePost(expand_last=True)),
    ({"pre_post_norm": "residual"}, PrePost(variant="residual")),
]
"""Fields of saved configurations of version 0.1, and what they mean."""


@pytest.mark.parametrize(("flags", "wiring"), FLAGS)
def test_files_of_version_0_1_keep_their_meaning(flags: dict[str, Any], wiring: WiringConfig):
    cfg = ModelConfig.from_dict(SMALL | flags)
    assert cfg == ModelConfig(**SMALL, wiring=wiring)
    assert wiring_of_flags(flags_of_wiring(wiring)) == wiring
    identity = cfg.identity()
    assert "wiring" not in identity
    assert ModelConfig.from_dict(identity) == cfg


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"multiway": "no"}, "multiway must be true or false, got 'no'"),
        ({"dense": "some"}, "dense must be one of none, static, dynamic, got 'some'"),
        ({"plain_streams": ["x"]}, "plain_streams may hold q, k, v and r, got 'x'"),
        ({"plain_streams": 3}, "of the wrong type"),
        ({"plain_streams": ["q"], "multiway": False}, "plain_streams needs multiway=True"),
        ({"plain_streams": ["q"], "dense": "none"}, "need dense connections"),
        ({"plain_streams": ["q", "k", "v", "r"]}, "ways must be some of the streams"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        ModelConfig.from_dict(SMALL | flags)


def test_ways_are_in_order():
    assert MUDD(ways="rq") == MUDD(ways="qr")


def test_replace_derives_anew_what_was_not_given():
    small = ModelConfig(n_layers=2, d_model=32, n_heads=4, d_vocab=10, d_mlp=64)
    large = replace(small, d_model=64, n_heads=2)
    assert (small.head_width, small.kv_heads, small.rotated) == (8, 4, 8)
    assert (large.head_width, large.kv_heads, large.rotated) == (32, 2, 32)
    kept = replace(small, d_head=6, n_key_value_heads=2, rotary_dim=4)
    assert replace(kept, d_model=64).head_width == 6
    model = HookedMUDDTransformer(large)
    assert (model.cfg.d_head, model.cfg.n_key_value_heads, model.cfg.rotary_dim) == (32, 2, 32)
