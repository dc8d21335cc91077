"""Relatives of MUDDFormer against what their own code computes (golden-relatives/README.md)."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis import read_weights
from mudd_interp.checkpoints import load_model
from mudd_interp.checkpoints.sums import check_sums
from mudd_interp.model.wirings import Hyper, Plain, Static
from mudd_interp.model.wirings.altup import WRITES
from tests.relatives import BACKED, GATED_HEADS, GOLDEN, copied, loaded

FOLDERS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
DENSEFORMERS = [name for name in FOLDERS if name.startswith("denseformer")]
MHC_LITES = [name for name in FOLDERS if name.startswith("mhclite")]
HYPERS = [name for name in MHC_LITES if "residual" not in name]

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


@pytest.mark.parametrize("folder", [*DENSEFORMERS, "mhclite-residual-tiny"])
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
