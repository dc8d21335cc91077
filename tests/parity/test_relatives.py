"""Relatives of MUDDFormer against what their own code computes (golden-relatives/README.md)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis import read_weights
from mudd_interp.checkpoints import load_model
from mudd_interp.checkpoints.configs import find_config
from mudd_interp.checkpoints.nanochat import windows
from mudd_interp.checkpoints.sums import check_sums
from mudd_interp.model.wirings import AttnRes, Hyper, Plain, Scalars, Static
from mudd_interp.model.wirings.altup import WRITES
from tests.relatives import BACKED, GATED_HEADS, GOLDEN, copied, loaded

FOLDERS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
DENSEFORMERS = [name for name in FOLDERS if name.startswith("denseformer")]
MHC_LITES = [name for name in FOLDERS if name.startswith("mhclite")]
NANOCHAT = "nanochat-tiny"
HYPERS = [name for name in MHC_LITES if "residual" not in name]
ATTNRES = [name for name in FOLDERS if name.startswith("attnres")]

REFERENCES = {
    # In the same precision only the order of sums differs.
    torch.float64: ("expected_f64.safetensors", 1e-9),
    # The reference is itself 1e-5 from the exact values.
    torch.float32: ("expected.safetensors", 2e-5),
}
FLOAT32_OF_STREAMS = 1e-4
"""The reference of hyper-connections is itself up to 5.4e-5 from the exact values in float32."""


def hooked(name: str) -> str | None:
    """Our hook for a reference tensor, if it has one."""
    kind, _, layer = name.partition(".")
    at = int(layer or 0)
    return {
        "embed": axes.EMBED,
        "attn_in": axes.resid_pre(at),
        "attn_out": axes.attn_out(at),
        "mlp_in": axes.block(at, "hook_resid_mid"),
        "mlp_out": axes.mlp_out(at),
        "block_out": axes.resid_post(at),
        "final_in": axes.RESID_FINAL,
        "embed_pre_smear": axes.PRE_SMEAR,
        "ve_gate": axes.value_gate(at),
        "laurel_out": axes.block(at, "hook_laurel_out"),
        "ple_in": axes.block(at, "hook_ple_in"),
        "ple_out": axes.block(at, "hook_ple_out"),
        "streams": axes.altup(at, "hook_streams"),
        "predict_C": axes.altup(at, "hook_predict"),
        "correct_c": axes.altup(at, "hook_correct"),
        "head_streams": axes.HEAD_STREAMS,
        "head_p": axes.HEAD_GATE,
    }.get(kind)


def gate_hook(name: str) -> str | None:
    """Our hook on the streams or a gate in front of a sublayer, such as ``attn_T.0``."""
    kind, _, layer = name.partition(".")
    part, _, which = kind.partition("_")
    named = {"streams": "hook_streams", "p": "hook_pre", "w": "hook_post", "T": "hook_mix"}
    if which not in named or part not in ("attn", "mlp"):
        return None
    return axes.hyper(2 * int(layer) + (part == "mlp"), named[which])


@pytest.mark.parametrize("dtype", REFERENCES, ids=str)
@pytest.mark.parametrize("folder", [*DENSEFORMERS, "mhclite-residual-tiny"])
def test_every_tensor_is_that_of_the_reference(folder: str, dtype: torch.dtype) -> None:
    file, largest = REFERENCES[dtype]
    expected, model = load_file(GOLDEN / folder / file), loaded(folder, dtype)
    with torch.no_grad():
        fused = model(expected["tokens"])
        logits, cache = model.run_with_cache(expected["tokens"])
    close(fused, expected["logits"], largest)
    close(logits, expected["logits"], largest)
    compared = {name: hook for name in expected if (hook := hooked(name)) is not None}
    blocks = 5 if folder in DENSEFORMERS else 4  # with what each block put out
    assert len(compared) == blocks * model.cfg.n_layers + 2
    for name, hook in compared.items():
        close(cache[hook], expected[name], largest)


@pytest.mark.parametrize("folder", DENSEFORMERS)
def test_the_averages_are_of_the_same_states(folder: str) -> None:
    expected = load_file(GOLDEN / folder / "expected.safetensors")
    model = loaded(folder, torch.float32)
    averages = {name for name in expected if name.startswith("dwa_weights.")}
    assert averages == {
        f"dwa_weights.{read.row}" for read in model.wiring.rows if model.wiring.weighed(read)
    }
    for name in averages:
        read = model.wiring.row("r", int(name.rpartition(".")[2]))
        assert torch.equal(model.wiring.static(read), expected[name].flatten())
        states = expected[name.replace("weights", "states")].flatten().tolist()
        assert list(model.wiring.columns(read)) == states


@pytest.mark.parametrize("folder", [*DENSEFORMERS, "mhclite-residual-tiny", NANOCHAT])
def test_what_reads_take_of_writes(folder: str) -> None:
    expected = load_file(GOLDEN / folder / "expected_f64.safetensors")
    found = read_weights(loaded(folder, torch.float64), expected["tokens"], basis="delta")
    close(torch.tensor(found.weights), expected["W"], 1e-12)
    assert found.completeness.max() < 1e-12


@pytest.mark.parametrize("folder", FOLDERS)
def test_greedy_tokens(folder: str) -> None:
    expected = load_file(GOLDEN / folder / "expected.safetensors")
    model = loaded(folder, torch.float32)
    greedy = model.generate(
        expected["tokens"], max_new_tokens=8, do_sample=False, stop_at_eos=False, verbose=False
    )
    assert torch.equal(greedy, expected["greedy_tokens"])


def test_dilation_is_counted_in_blocks() -> None:
    """The training code counts its dilation in groups of blocks, the package in blocks."""
    kinds = {name: loaded(name, torch.float32).config.wiring for name in DENSEFORMERS}
    assert kinds == {
        "denseformer-d1p1-tiny": Static(),
        "denseformer-d2p2-tiny": Static(period=2, dilation=4),
        "denseformer-pkg-d2p2-tiny": Static(period=2, dilation=2),
    }


# --- Hyper-connections ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REFERENCES, ids=str)
@pytest.mark.parametrize("folder", HYPERS)
def test_streams_gates_and_sublayers_are_those_of_the_reference(
    folder: str, dtype: torch.dtype
) -> None:
    file, largest = REFERENCES[dtype]
    largest = FLOAT32_OF_STREAMS if dtype == torch.float32 else largest
    expected, model = load_file(GOLDEN / folder / file), loaded(folder, dtype)
    with torch.no_grad():
        fused = model(expected["tokens"])
        logits, cache = model.run_with_cache(expected["tokens"])
        close(fused, expected["logits"], largest)
        close(logits, expected["logits"], largest)
        rows = range(model.wiring.n_streams)
        final = torch.stack([cache[axes.final_row(i)] for i in rows], dim=2)
        close(final, expected["final_in"], largest)
        close(model.ln_final.norm.fused(final), expected["final_normed"], largest)
    names = {name: hooked(name) or gate_hook(name) for name in expected if name != "final_in"}
    compared = {name: hook for name, hook in names.items() if hook is not None}
    assert len(compared) == 1 + (4 + 8) * model.cfg.n_layers
    for name, hook in compared.items():
        close(cache[hook], expected[name], largest)


@pytest.mark.parametrize("basis", ["delta", "native"])
@pytest.mark.parametrize("folder", HYPERS)
def test_what_sublayers_and_each_stream_of_the_head_take_of_writes(folder: str, basis: str) -> None:
    expected = load_file(GOLDEN / folder / "expected_f64.safetensors")
    model = loaded(folder, torch.float64)
    found = read_weights(model, expected["tokens"], basis=basis)
    n = model.wiring.n_streams
    assert found.reads[-n:] == tuple(f"final.{i}" for i in range(n))
    assert found.writes == ("embed", *(f"{part}.{i}" for i in range(3) for part in ("attn", "mlp")))
    close(torch.tensor(found.weights), torch.cat([expected["W"], expected["W_head"]]), 1e-12)
    assert found.completeness.max() < 1e-12


@pytest.mark.parametrize("folder", HYPERS)
def test_what_reads_take_by_way_of_each_stream(folder: str) -> None:
    expected = load_file(GOLDEN / folder / "expected_f64.safetensors")
    model = loaded(folder, torch.float64)
    with torch.no_grad():
        _, cache = model.run_with_cache(expected["tokens"])
    for site, read in enumerate(model.wiring.sites):
        found, wanted = model.wiring.by_stream(read, cache), expected["W_streams"][site]
        seen = found.shape[-1]
        close(found, wanted[..., :seen], 1e-12)
        assert not wanted[..., seen:].any()
        close(found.sum(-2), model.wiring.delta(read, cache), 1e-12)


def test_the_kinds_of_hyper_connections() -> None:
    kinds = {name: loaded(name, torch.float32).config.wiring for name in MHC_LITES}
    of: dict[str, Any] = {"n_streams": 4, "head": "norms", "eps": 0.0}
    assert kinds == {
        "mhclite-residual-tiny": Plain(),
        "mhclite-mhc-tiny": Hyper(**of, gates="sigmoid", mixing="sinkhorn", exact="columns"),
        "mhclite-mhc-lite-tiny": Hyper(**of, gates="sigmoid", mixing="permutations"),
        "mhclite-hc-tiny": Hyper(**of, gates="tanh", mixing="free"),
    }


def test_a_configuration_without_a_model_type_is_recognised_by_its_fields(tmp_path: Path) -> None:
    folder = copied("mhclite-hc-tiny", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_model(folder, check=False).config == loaded("mhclite-hc-tiny", torch.float32).config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hyper_conn_type": "mhc2"}, r"hyper_conn_type must be one of none, hc, mhc, mhc_lite"),
        ({"hyper_conn_n": 3}, r"static_alpha` has shape \[4, 5\], expected \[3, 4\]"),
        (
            {"hyper_conn_type": "mhc_lite"},
            r"missing parameter `transformer.h.0.hc_attn.pre_branch_scale`",
        ),
        ({"hyper_conn_n": 0}, r"`hyper_conn_n` must be a whole number of at least 1, got 0"),
        ({"n_heads": 4}, r"no field of an mHC-lite configuration `n_heads`.*n_head"),
    ],
)
def test_a_configuration_of_other_weights_is_refused(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = copied("mhclite-hc-tiny", tmp_path)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        load_model(folder)


@pytest.mark.parametrize(
    ("folder", "kept"),
    [
        ("mhclite-mhc-tiny", ["all streams together keep", "columns of T sum to one"]),
        (
            "mhclite-mhc-lite-tiny",
            [
                "all streams together keep",
                "columns of T sum to one",
                "each stream holds the embedding once",
                "rows of T sum to one",
            ],
        ),
        ("mhclite-hc-tiny", []),
        ("mhclite-residual-tiny", []),
    ],
)
def test_what_mixing_keeps_is_checked_when_a_model_is_loaded(folder: str, kept: list[str]) -> None:
    checks = [c for c in loaded(folder, torch.float32).info.checks if "hyper-connections" in c]
    assert len(checks) == len(kept)
    assert all(words in check for words, check in zip(kept, sorted(checks), strict=True))


def test_a_wrong_orientation_is_refused_with_the_sum_that_drifted() -> None:
    """Columns sum to one exactly, rows to 5e-5: the other way round it shows."""
    model: Any = load_model(GOLDEN / "mhclite-mhc-tiny", dtype=torch.float64)
    for name, point in model.hook_dict.items():
        if name.endswith("hook_mix"):
            point.add_hook(lambda mix, hook: mix.transpose(-1, -2).contiguous())
    with pytest.raises(ValueError, match=r"columns of T sum to one only to \d"):
        check_sums(model)


# --- nanochat -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", REFERENCES, ids=str)
def test_every_tensor_of_nanochat_is_that_of_the_reference(dtype: torch.dtype) -> None:
    file, largest = REFERENCES[dtype]
    expected, model = load_file(GOLDEN / NANOCHAT / file), loaded(NANOCHAT, dtype)
    with torch.no_grad():
        fused = model(expected["tokens"])
        logits, cache = model.run_with_cache(expected["tokens"])
        close(fused, expected["logits"], largest)
        close(logits, expected["logits"], largest)
        close(model.W_E[expected["tokens"]], expected["wte_out"], 0)
        close(cache[axes.SMEAR][..., 0], expected["smear_gate"], largest)
    compared = {name: hook for name in expected if (hook := hooked(name)) is not None}
    for name, hook in compared.items():
        close(cache[hook], expected[name], largest)
    left = {"tokens", "logits", "greedy_tokens", "W", "wte_out", "smear_gate"}
    assert compared.keys() | left == expected.keys()


def test_what_nanochat_is() -> None:
    cfg = loaded(NANOCHAT, torch.float32).config
    assert cfg.wiring == Scalars()
    assert (cfg.d_vocab, cfg.kv_heads, cfg.eps) == (89, 2, None)
    assert cfg.attention_windows is None  # a short one would be of 129 positions, of 64
    static = loaded(NANOCHAT, torch.float32).wiring.static
    reads = loaded(NANOCHAT, torch.float32).wiring.rows
    assert any((static(read) < 0).any() for read in reads)


def test_decoding_with_a_cache_gives_the_same_logits() -> None:
    """Of the token before, smear needs the embedding: it is kept with keys and values."""
    model = loaded(NANOCHAT, torch.float64)
    tokens = load_file(GOLDEN / NANOCHAT / "expected.safetensors")["tokens"]
    with torch.no_grad():
        past = model.new_kv_cache(*tokens.shape)
        parts = [model(part, past_kv_cache=past) for part in tokens.split([5, 1, 8, 3], dim=1)]
        close(torch.cat(parts, dim=1), model(tokens), 1e-12)


@pytest.mark.parametrize("kind", [None, "nanochat"])
def test_nanochats_own_configuration_is_told_from_that_of_transformers(
    kind: str | None, tmp_path: Path
) -> None:
    folder = copied(NANOCHAT, tmp_path)
    written = json.loads((folder / "config.json").read_text()) | {"model_type": kind}
    if kind is None:
        del written["model_type"]
    (folder / "config.json").write_text(json.dumps(written))
    assert load_model(folder, check=False).config == loaded(NANOCHAT, torch.float32).config


def test_transformers_nanochat_goes_to_transformers(tmp_path: Path) -> None:
    from transformers import NanoChatConfig, NanoChatForCausalLM

    torch.manual_seed(0)
    config = NanoChatConfig(
        vocab_size=29,
        hidden_size=16,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=24,
    )
    NanoChatForCausalLM(config).save_pretrained(tmp_path / "theirs")
    model = load_model(tmp_path / "theirs", check=False)
    assert type(model).__name__ == "BridgeModel"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"window_pattern": "SX"}, "window_pattern must be of the letters S and L, got 'SX'"),
        ({"window_pattern": ""}, "window_pattern must be of the letters S and L, got ''"),
        ({"logit_softcap": -1}, "`logit_softcap` must be a positive number, got -1"),
        ({"n_kv_head": 3}, "n_heads 4 is not divisible by n_key_value_heads 3"),
        ({"n_head": 5, "n_kv_head": 5}, "d_model 32 is not divisible by n_heads 5"),
        ({"n_kv_heads": 2}, "no field of a nanochat configuration `n_kv_heads`.*`n_kv_head`"),
        (
            {"vocab_size": 64},
            r"`transformer.wte.weight` has shape \[128, 32\], expected \[64, 32\]",
        ),
        ({"n_layer": 4}, r"missing parameter `transformer.h.1.attn.ve_gate.weight`"),
    ],
)
def test_a_nanochat_configuration_of_other_weights_is_refused(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = copied(NANOCHAT, tmp_path)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        load_model(folder)


def without(folder: Path, *names: str) -> Path:
    weights = load_file(folder / "model.safetensors")
    kept = {name: w for name, w in weights.items() if not any(part in name for part in names)}
    save_file(kept, folder / "model.safetensors")
    return folder


def test_an_older_checkpoint_without_scalars_is_read_as_nanochat_does(tmp_path: Path) -> None:
    folder = without(copied(NANOCHAT, tmp_path), "resid_lambdas", "x0_lambdas")
    model: Any = load_model(folder, dtype=torch.float64)
    assert [float(w) for w in model.wiring.static(model.wiring.row("r", 2))] == [0, 1]
    assert float(model.wiring.static(model.wiring.at("attn.0"))) == 1


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["smear"], "has no smear: it is of an earlier nanochat"),
        (["backout"], "has no backout: it is of an earlier nanochat"),
        (
            ["smear", "backout", "value_embeds", "ve_gate"],
            "has no smear and no backout and no value embeddings: it is of an earlier nanochat",
        ),
        (
            ["smear", "backout", "value_embeds", "ve_gate", "_lambdas"],
            r"no residual scalars: .*nanochat's first versions. Convert it to transformers' nano",
        ),
    ],
)
def test_an_older_checkpoint_is_told_what_it_lacks(
    names: list[str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        load_model(without(copied(NANOCHAT, tmp_path), *names))


def test_names_that_a_compiled_model_has(tmp_path: Path) -> None:
    folder = copied(NANOCHAT, tmp_path)
    weights = load_file(folder / "model.safetensors")
    save_file({f"_orig_mod.{n}": w for n, w in weights.items()}, folder / "model.safetensors")
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        found = load_model(folder, check=False)(tokens)
        assert torch.equal(found, loaded(NANOCHAT, torch.float32)(tokens))


def test_windows() -> None:
    """A quarter of the length, up to a multiple of 128, and the position; the last sees all."""
    assert windows("L", 3, 2048) is None
    assert windows("SL", 3, 128) is None
    assert windows("SSL", 5, 2048) == (513, 513, 2048, 513, 2048)
    assert windows("s", 2, 1025) == (385, 1025)


def test_a_text_that_is_longer_than_a_short_window(tmp_path: Path) -> None:
    """A short window of a length of 512 goes back 128 tokens: the 129th still sees the first."""
    models: list[Any] = []
    for pattern in ("L", "SL"):
        folder = copied(NANOCHAT, tmp_path / pattern)
        values = json.loads((folder / "config.json").read_text())
        values |= {"sequence_len": 512, "window_pattern": pattern}
        (folder / "config.json").write_text(json.dumps(values))
        models.append(load_model(folder, dtype=torch.float64, check=False))
    assert models[1].config.attention_windows == (129, 512, 129, 512, 512)
    tokens = torch.arange(140)[None] * 31 % 89
    whole, short = (model.run_with_cache(tokens)[1] for model in models)
    names = [axes.resid_post(0), axes.RESID_FINAL]
    for name in names:
        close(short[name][:, :129], whole[name][:, :129], 1e-12)
        assert (short[name] - whole[name])[0, 129:].abs().amax(-1).min() > 1e-6
    scores = whole["blocks.0.attn.hook_attn_scores"].clone()
    back = torch.arange(140)[:, None] - torch.arange(140)
    expected = scores.masked_fill(back > 128, -torch.inf).softmax(-1)
    close(short[axes.pattern(0)], expected, 1e-12)


# --- Attention residuals --------------------------------------------------------------------------

FLOAT32_OF_SCALE = 3e-5
"""In units of a tensor's largest value; the references are up to 1.8e-5 from the exact values."""


def alpha_hook(name: str) -> str:
    """Our hook on the weights that a reference tensor such as ``attn_v_alpha.2`` holds."""
    kind, _, layer = name.partition(".")
    if kind == "head_alpha":
        return f"{axes.ATTNRES_HEAD}.hook_alpha"
    if kind == "attn_v_alpha":
        return axes.attnres_values(int(layer))
    return axes.attnres(2 * int(layer) + (kind == "mlp_alpha"), "hook_alpha")


def own_hook(name: str, apart: bool) -> str | None:
    """Our hook for a reference tensor of a model with attention residuals, if it has one."""
    kind, _, layer = name.partition(".")
    if "_alpha" in kind:
        return alpha_hook(name)
    if kind == "attn_v_in":
        return axes.stream_input(int(layer), "v")
    return axes.stream_input(int(layer), "q") if kind == "attn_in" and apart else hooked(name)


@pytest.mark.parametrize("dtype", REFERENCES, ids=str)
@pytest.mark.parametrize("folder", ATTNRES)
def test_reads_and_weights_over_depth_are_those_of_the_reference(
    folder: str, dtype: torch.dtype
) -> None:
    file, largest = REFERENCES[dtype]
    expected, model = load_file(GOLDEN / folder / file), loaded(folder, dtype)
    with torch.no_grad():
        fused = model(expected["tokens"])
        logits, cache = model.run_with_cache(expected["tokens"])
    apart: bool = model.config.wiring.value_apart
    names = {name: own_hook(name, apart) for name in expected}
    compared = {name: cache[hook] for name, hook in names.items() if hook is not None}
    uncompared = {name.partition(".")[0] for name in expected} - {
        n.partition(".")[0] for n in compared
    }
    assert uncompared <= {"tokens", "greedy_tokens", "logits", "W", "W_v", "head_R"} | {
        f"{part}_R" for part in ("attn", "attn_v", "mlp")
    }
    assert {hook for hook in cache if hook.endswith("hook_alpha")} == {
        alpha_hook(name) for name in expected if "_alpha" in name
    }
    for name, found in (compared | {"logits": logits}).items():
        scale = 1.0 if dtype == torch.float64 else float(expected[name].abs().max())
        close(
            found, expected[name], largest if dtype == torch.float64 else FLOAT32_OF_SCALE * scale
        )
    close(fused, expected["logits"], largest)


def read_of(wiring: Any, name: str) -> Any:
    """The read that a reference tensor such as ``attn_v_R.2`` is about."""
    kind, _, layer = name.partition(".")
    if kind.startswith("head"):
        return wiring.at("final")
    if kind.startswith("mlp"):
        return wiring.at(f"mlp.{layer}")
    return wiring.read(int(layer), "v" if "_v_" in kind else "q")


@pytest.mark.parametrize("folder", ATTNRES)
def test_candidates_are_sums_of_the_same_writes(folder: str) -> None:
    expected = load_file(GOLDEN / folder / "expected_f64.safetensors")
    wiring = loaded(folder, torch.float64).wiring
    rows = {name: value for name, value in expected.items() if name.partition(".")[0][-2:] == "_R"}
    counts = [len(wiring.candidates(read)) > 0 for read in wiring.inputs if read.stream != "k"]
    assert len(rows) == sum(counts)
    for name, wanted in rows.items():
        found = wiring.candidates(read_of(wiring, name)).double()
        seen = found.shape[-1]
        assert torch.equal(found, wanted[:, :seen])
        assert not wanted[:, seen:].any()


@pytest.mark.parametrize("basis", ["delta", "native"])
@pytest.mark.parametrize("folder", ATTNRES)
def test_what_reads_by_a_softmax_take_of_writes(folder: str, basis: str) -> None:
    expected = load_file(GOLDEN / folder / "expected_f64.safetensors")
    model = loaded(folder, torch.float64)
    found = read_weights(model, expected["tokens"], basis=basis)
    assert found.completeness.max() < 1e-12
    labels = [f"{part}.{i}" for i in range(model.cfg.n_layers) for part in ("attn", "mlp")]
    for site, label in enumerate([*labels, "final"]):
        of = [label] if label in found.reads else [f"{label}.q", f"{label}.k"]
        for each in of:
            close(torch.tensor(found.of(each)), expected["W"][site], 1e-12)
    for layer in range(1, len(expected.get("W_v", ()))):
        close(torch.tensor(found.of(f"attn.{layer}.v")), expected["W_v"][layer], 1e-12)


def test_the_kinds_of_attention_residuals() -> None:
    delta: dict[str, Any] = {"residual": True, "head": "sum"}
    states: dict[str, Any] = {"candidates": "states", "recency_bias": True, "head": "sum"}
    assert {name: loaded(name, torch.float32).config.wiring for name in ATTNRES} == {
        "attnres-open-block-tiny": AttnRes(block_size=4, **states),
        "attnres-open-full-tiny": AttnRes(**states),
        "attnres-scratch-block-tiny": AttnRes(block_size=4, embedding="both", recency_bias=True),
        "attnres-kimi-block-tiny": AttnRes(block_size=4),
        "attnres-kimi-full-tiny": AttnRes(),
        "attnres-delta-v-tiny": AttnRes(embedding="none", value_apart=True, **delta),
        "attnres-delta-block-tiny": AttnRes(block_size=2, candidates="differences", **delta),
    }


@pytest.mark.parametrize(
    ("folder", "change", "words"),
    [
        ("kimi-block", {"attnres_gate_type": "sigmoid_vector"}, "attnres_gate_type must be 'bias'"),
        ("kimi-block", {"attnres_use_null_source": True}, "attnres_use_null_source must be False"),
        (
            "kimi-block",
            {"attnres_mode": "dense"},
            "attnres_mode must be one of block, full, delta_v",
        ),
        ("kimi-block", {"attnres_mode": "block_v"}, "computes a V of its own and then drops it"),
        ("delta-v", {"attnres_mode": "delta_block_v"}, "computes a V of its own and then drops it"),
        ("kimi-block", {"attnres_num_blocks": 6}, "must be at most the number of layers, 5, got 6"),
        ("kimi-block", {"attnres_num_blocks": 0}, "whole number of at least 1, got 0"),
        (
            "delta-block",
            {"attnres_mode": "block"},
            "'block' without attn_res_bias and without final",
        ),
        (
            "open-full",
            {"attnres_mode": "delta_v"},
            "'delta_v' with attn_res_bias and without final",
        ),
        ("kimi-full", {"num_hidden_layers": 3}, r"unexpected parameter `model\.layers\.3\."),
        ("kimi-full", {"hidden_size": 16}, r"has shape \[97, 32\], expected \[97, 16\]"),
        (
            "kimi-full",
            {"num_key_value_heads": 3},
            "n_heads 4 is not divisible by n_key_value_heads",
        ),
        (
            "kimi-full",
            {"num_key_value_heads": None},
            "`num_key_value_heads` must be a whole number",
        ),
        ("kimi-full", {"layer_types": ["sliding_attention"] * 4}, "must all be full_attention"),
        ("kimi-full", {"rope_parameters": {"rope_type": "yarn"}}, "must be of rope_type 'default'"),
        ("kimi-full", {"rope_parameters": None}, "rope_theta must be a number, got None"),
        ("kimi-full", {"hidden_act": "gelu"}, "hidden_act must be 'silu', got 'gelu'"),
        ("kimi-full", {"attnres_modes": "full"}, "`attnres_modes`; did you mean `attnres_mode`"),
    ],
)
def test_attention_residuals_that_are_not_read_are_refused(
    folder: str, change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    copy = copied(f"attnres-{folder}-tiny", tmp_path)
    config = json.loads((copy / "config.json").read_text()) | change
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        load_model(copy)


def test_the_configuration_is_refused_before_weights_are_looked_for(tmp_path: Path) -> None:
    folder = copied("attnres-kimi-block-tiny", tmp_path)
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"attnres_gate_type": "sigmoid_vector"})
    )
    with pytest.raises(ValueError, match="with sigmoid_vector W would be a vector over d_model"):
        load_model(folder)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="holds no weights"):
        find_config(folder)


def test_a_tied_unembedding_needs_no_name_of_its_own(tmp_path: Path) -> None:
    folder = copied("attnres-kimi-full-tiny", tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors")
    tied: Any = load_model(folder)
    assert torch.equal(tied.W_U, tied.W_E.T)
    assert find_config(folder) == tied.config


# --- transformers' own models ---------------------------------------------------------------------

NO_TENSOR_OF_A_PASS = {"tokens", "greedy_tokens", "logits", "W", "W_streams", "W_streams_out"}
COMPOSED = {"predicted", "activated"}


@pytest.mark.parametrize("dtype", REFERENCES, ids=str)
@pytest.mark.parametrize("folder", BACKED)
def test_every_tensor_of_a_backed_model_is_that_of_the_reference(
    folder: str, dtype: torch.dtype
) -> None:
    file, largest = REFERENCES[dtype]
    largest = FLOAT32_OF_STREAMS if dtype == torch.float32 else largest
    expected, model = load_file(GOLDEN / folder / file), loaded(folder, dtype)
    with torch.no_grad():
        close(model(expected["tokens"]), expected["logits"], largest)
        logits, cache = model.run_with_cache(expected["tokens"])
    close(logits, expected["logits"], largest)
    behind = f"streams.{model.cfg.n_layers}"
    for name in expected.keys() - NO_TENSOR_OF_A_PASS:
        kind, _, layer = name.partition(".")
        if kind in COMPOSED:
            found = altup(cache, int(layer), kind, model.wiring.active)
        elif name == behind:
            found = cache[axes.STREAMS_FINAL]
        else:
            hook = hooked(name) or gate_hook(name)
            assert hook is not None, name
            found = cache[hook]
        close(found, expected[name], largest)


def altup(cache: Any, layer: int, what: str, active: int) -> Tensor:
    """What AltUp predicts, and what comes of the block's work on it, from what is hooked."""
    streams = cache[axes.altup(layer, "hook_streams")]
    predicted = streams + cache[axes.altup(layer, "hook_predict")] @ streams
    if what == "predicted":
        return predicted
    wrote = {kind: cache[axes.block(layer, hook)] for kind, hook in WRITES.items()}
    middle = (predicted[..., active, :] + wrote["attn"] + wrote["laurel"]) / 2**0.5
    return middle + wrote["mlp"]


@pytest.mark.parametrize("basis", ["delta", "native"])
@pytest.mark.parametrize("folder", BACKED)
def test_what_sublayers_of_a_backed_model_take_of_writes(folder: str, basis: str) -> None:
    expected = load_file(GOLDEN / folder / "expected_f64.safetensors")
    found = read_weights(loaded(folder, torch.float64), expected["tokens"], basis=basis)
    by_depth = torch.tensor(found.weights)
    close(by_depth, expected["W"], 1e-12)
    assert found.completeness.max() < 1e-12
    last = ("ple.3",) if folder == "gemma3n-tiny" else ("final",)
    assert found.reads[-1:] == last


@pytest.mark.parametrize("folder", GATED_HEADS)
def test_what_backed_reads_take_by_way_of_each_stream(folder: str) -> None:
    expected = load_file(GOLDEN / folder / "expected_f64.safetensors")
    model = loaded(folder, torch.float64)
    with torch.no_grad():
        _, cache = model.run_with_cache(expected["tokens"])
    for wanted, read in zip(expected["W_streams"], model.wiring.reads, strict=True):
        found = model.wiring.by_stream(read, cache)
        close(found, wanted[..., : found.shape[-1]], 1e-12)
        assert not wanted[..., found.shape[-1] :].any()


def test_what_the_streams_behind_the_last_block_take_of_writes() -> None:
    expected = load_file(GOLDEN / "gemma3n-tiny/expected_f64.safetensors")
    model = loaded("gemma3n-tiny", torch.float64)
    with torch.no_grad():
        _, cache = model.run_with_cache(expected["tokens"])
    found = model.wiring.streams_out(cache)
    close(found.movedim(-2, 0), expected["W_streams_out"], 1e-12)
    written = torch.stack([cache[write.hook] for write in model.wiring.writes], dim=-2)
    close(found @ written, cache[axes.STREAMS_FINAL], 1e-12)


@pytest.mark.parametrize("folder", BACKED)
def test_greedy_tokens_without_keys_and_values(folder: str) -> None:
    expected = load_file(GOLDEN / folder / "expected.safetensors")
    greedy = loaded(folder, torch.float32).generate(
        expected["tokens"],
        max_new_tokens=8,
        do_sample=False,
        stop_at_eos=False,
        verbose=False,
        use_past_kv_cache=False,
    )
    assert torch.equal(greedy, expected["greedy_tokens"])


def close(found: Tensor, expected: Tensor, largest: float) -> None:
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=largest)
