"""What dense connections cost: the paper's printed values, counts to the last parameter."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

import mudd_interp as mi
from mudd_interp.checkpoints import save_model
from mudd_interp.checkpoints.configs import find_config
from mudd_interp.config import ModelConfig
from mudd_interp.config.presets import RELEASED
from mudd_interp.costs import built, print_cost
from mudd_interp.costs.formulas import UNKNOWN, by_paper, by_sums
from mudd_interp.model import FamilyModel, HookedMUDDTransformer
from mudd_interp.model.layers import Norm
from mudd_interp.model.wirings import MUDD, AttnRes, Plain, PrePost, Scalars, Static
from tests.parity.family import FAMILY, SMALL, random_model
from tests.unit.command import run

TABLE_1 = {
    "MUDDFormer-1.4B": (0.22, 0.38, 0.227, 0.383),
    "MUDDFormer-1.34B": (0.49, 0.80, 0.525, 0.829),
    "MUDDPythia-2.8B": (0.23, 0.40, 0.236, 0.409),
    "MUDDFormer-6.9B": (0.14, 0.26, 0.146, 0.266),
}
"""The paper's Table 1, percent, at 4096 tokens: extra parameters and FLOPs as printed; and what the
sums are that its formulas approximate, to three decimals."""

PYTHIA = {"MUDDPythia-1.4B": (24, 2048, 16), "MUDDPythia-2.8B": (32, 2560, 32)}
PADDING = 50432 - 50304


def model_and_twin(name: str) -> tuple[FamilyModel, FamilyModel]:
    config = ModelConfig.preset(name)
    return built.empty(config), built.empty(config.plain())


def size_of(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def pythia(n_layers: int, d_model: int, n_heads: int) -> int:
    """Parameters of transformers' GPT-NeoX in Pythia's configuration."""
    config = GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        intermediate_size=4 * d_model,
    )
    with torch.device("meta"):
        module: Any = GPTNeoXForCausalLM(config)
    return size_of(module)


# --- Table 1 and appendix E ---------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1(name: str):
    config = ModelConfig.preset(name)
    paper, exact = by_paper(config, 4096), by_sums(config, 4096)
    printed = (round(100 * paper.parameters, 2), round(100 * paper.flops, 2))
    sums = (round(100 * exact.parameters, 3), round(100 * exact.flops, 3))
    assert (*printed, *sums) == TABLE_1[name]


def test_the_paper_s_formulas():
    config = ModelConfig.preset("MUDDFormer-405M")
    eta, rho = (24 + 3) / 1024, 2048 / 1024
    found = by_paper(config, 2048)
    assert found.parameters == pytest.approx(eta / 6)
    assert found.flops == pytest.approx(eta / (3 + rho / 4))
    assert found.memory == 27 / 137  # appendix E: 19.7 %
    assert by_sums(config, 2048).memory == found.memory


def test_without_a_mask_attention_is_twice_as_much():
    """ViT-S/16's sizes: 1.20 %, which the causal base makes 1.25 % less a little."""
    config = ModelConfig(n_layers=12, d_model=384, n_heads=6, d_vocab=10, d_mlp=1536, n_ctx=196)
    eta, rho = 15 / 384, 196 / 384
    assert by_paper(config, 196).flops == pytest.approx(eta / (3 + rho / 4))
    both = replace(config, attention_dir="bidirectional")
    assert by_paper(both, 196).flops == pytest.approx(eta / (3 + rho / 2))
    assert round(100 * by_paper(both, 196).flops, 2) == 1.20
    assert mi.cost(both, 8).to_dict()["attention"] == "bidirectional"


def test_other_wirings_by_formula():
    """One way is a quarter of four; static weights are the mix alone; PrePostDANorm is MUDD."""

    def shares(**wiring: Any):
        return by_paper(ModelConfig(**SMALL, wiring=MUDD(**wiring)), 8)

    four, one, static = shares(), shares(ways="one"), shares(dynamic=False)
    assert one.parameters == four.parameters / 4
    assert one.flops == four.flops / 4
    assert static.flops == four.flops / 2
    assert static.parameters == four.parameters / SMALL["d_model"]
    assert by_paper(ModelConfig(**SMALL, wiring=PrePost()), 8) == four
    base = 3 + 17 + 3 * 2 * 8 / 16
    states = [shares(ways=ways).memory * base for ways in ("one", "r", "vr", "kvr", "qkvr")]
    assert states == pytest.approx([3, 4, 5, 6, 6])


def test_the_sums_are_those_of_full_ways_and_unrounded_widths():
    config = ModelConfig(**SMALL, wiring=MUDD(expand_last=True, round64=True))
    widths, d_model = (8, 12, 16), SMALL["d_model"]
    exact = by_sums(config, 8)
    base = 12 * 3 * d_model**2
    assert exact.parameters == sum(d_model * k + k * k for k in widths) / base
    flops = sum(8 * (4 * d_model * k + 2 * k * k) for k in widths)
    assert exact.flops == pytest.approx(flops / (2 * 3 * d_model * 8 * (12 * d_model + 8)))
    static = by_sums(replace(config, wiring=MUDD(dynamic=False)), 8)
    assert static.parameters == sum(widths) / base


# --- The released models ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "extra", "mlps", "static", "norms", "qk_norm", "share"),
    [
        ("MUDDPythia-1.4B", 5_302_341, 4_582_272, 1_221, 188_416, 6_144, 0.336),
        ("MUDDPythia-2.8B", 9_753_629, 8_773_568, 2_141, 317_440, 5_120, 0.327),
    ],
)
def test_a_released_model_is_pythia_and(
    name: str, extra: int, mlps: int, static: int, norms: int, qk_norm: int, share: float
):
    """To the last parameter: its dense connections, a padded vocabulary, and QK-norm."""
    sizes, (model, twin) = PYTHIA[name], model_and_twin(name)
    dense = built.dense_parameters(model, twin)
    assert dense == {"weight MLPs": mlps, "static weights": static, "norms": norms}
    assert size_of(model) - pythia(*sizes) == extra
    assert extra == mlps + static + norms + qk_norm + 2 * PADDING * sizes[1]
    assert round(100 * sum(dense.values()) / size_of(model), 3) == share


def test_the_released_muddformer_is_pythia_and():
    """The same with an FFN of its own, and without biases."""
    n_layers, d_model, _ = sizes = PYTHIA["MUDDPythia-2.8B"]
    model, twin = model_and_twin("MUDDFormer-2.8B")
    dense = built.dense_parameters(model, twin)
    assert dense["weight MLPs"] == 8_773_568  # its MUDD is that of MUDDPythia-2.8B
    assert dense["static weights"] == 2_141
    assert dense["norms"] == 317_440 // 2  # RMSNorm has no bias
    width = 6912
    ffn = n_layers * (3 * d_model * width - (8 * d_model**2 + 5 * d_model))
    attention = n_layers * (2 * 80 - 4 * d_model)  # QK-norm; no biases
    norms = -(2 * n_layers + 1) * d_model
    rest = ffn + attention + norms + 2 * PADDING * d_model
    assert size_of(model) - pythia(*sizes) == sum(dense.values()) + rest
    assert size_of(model) == 2_804_871_709


@pytest.mark.slow
def test_as_built_at_table_1():
    """Rounded hidden widths, the last four times as wide and of one way: 0.500 %, not 0.402 %."""
    found = mi.cost(ModelConfig.preset("MUDDPythia-2.8B"), 4096)
    assert round(100 * found.built.flops, 3) == 0.500
    assert found.counts.twin_flops == 2 * 32 * 2560 * 4096 * (12 * 2560 + 4096)
    assert round(100 * found.counts.dense["weight MLPs"] / (12 * 32 * 2560**2), 3) == 0.349
    assert round(100 * found.of_model, 3) == 0.327


# --- As built -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_parameters_and_flops_of_the_family(name: str):
    config, tokens = FAMILY[name], 8
    found = mi.cost(config, tokens)
    model, twin = random_model(config), random_model(config.plain())
    parts = found.counts.dense

    def norms(of: FamilyModel) -> int:
        each = [module for module in of.modules() if isinstance(module, Norm)]
        return sum(parameter.numel() for norm in each for parameter in norm.parameters())

    assert parts["norms"] == norms(model) - norms(twin)
    assert found.counts.parameters == size_of(model)
    assert found.counts.twin_blocks == size_of(twin.blocks)
    wiring, n_layers, d_model = config.wiring, config.n_layers, config.d_model
    if isinstance(wiring, Plain):
        assert found.built == found.exact == found.paper == built_of_nothing()
        assert set(parts.values()) == {0}
        return
    if isinstance(wiring, Static):
        assert found.paper is found.exact is UNKNOWN
        read = sum(len(wiring.averaged(row)) for row in range(n_layers))
        assert parts["static weights"] == sum(parts.values()) == read
        assert found.counts.flops - found.counts.twin_flops == tokens * 2 * read * d_model
        return
    if isinstance(wiring, Scalars):
        assert parts["static weights"] == sum(parts.values()) == 2 * n_layers + 1
        read = 1 + 2 * n_layers  # of the embedding once; of two states each block and the head
        assert found.counts.flops - found.counts.twin_flops == tokens * 2 * read * d_model
        return
    assert isinstance(wiring, MUDD)
    rows = [row for row in range(n_layers) if wiring.of_row(row, n_layers)]
    weights = [len(wiring.of_row(row, n_layers)) * (row + 2) for row in rows]
    hidden = [wiring.hidden(row, n_layers) if wiring.dynamic else 0 for row in rows]
    both = list(zip(hidden, weights, strict=True))
    assert parts["static weights"] == sum(weights)
    assert parts["weight MLPs"] == sum(k * (d_model + w) for k, w in both)
    mixing = 0 if not weights else sum(2 * w * d_model for w in weights)
    mlp = sum(2 * k * (d_model + w) for k, w in both)
    assert found.counts.flops - found.counts.twin_flops == tokens * (mixing + mlp)
    assert found.built.flops == pytest.approx(tokens * (mixing + mlp) / found.counts.twin_flops)


def test_flops_of_attention_residuals_by_hand():
    """Every candidate is scored, and weighed: two products, of each read behind the embedding."""
    tokens, config = 8, ModelConfig(**SMALL, wiring=AttnRes())
    counts = mi.cost(config, tokens).counts
    reads = range(2 * config.n_layers + 1)
    candidates = sum(1 + read for read in reads)
    assert counts.flops - counts.twin_flops == tokens * 2 * 2 * candidates * config.d_model


def built_of_nothing():
    return by_paper(ModelConfig(**SMALL, wiring=Plain()), 8)


@pytest.mark.parametrize(
    "name", ["MUDDFormer", "MUDDPythia", "PrePostDANorm, Eq. 10", "MUDDFormer, one key-value head"]
)
def test_memory_is_what_autograd_keeps_of_a_real_pass(name: str):
    config, tokens = FAMILY[name], 8
    counted = mi.cost(config, tokens).counts
    for made, expected in ((config, counted.memory), (config.plain(), counted.twin_memory)):
        model, kept = HookedMUDDTransformer(made), dict[int, torch.Tensor]()
        own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

        def keep(tensor: torch.Tensor, kept: dict[int, torch.Tensor] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        x = torch.randn(1, tokens, made.d_model)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.run_blocks([x])
        sizes = {at: tensor.untyped_storage().nbytes() for at, tensor in kept.items()}
        assert sum(size for at, size in sizes.items() if at not in own) == expected


def test_flops_of_attention_are_half_with_a_mask():
    config = ModelConfig(**SMALL, wiring=Plain())
    flops = [built.count(config, tokens).twin_flops for tokens in (8, 16)]
    linear = sum(
        p.numel() for name, p in random_model(config).blocks.named_parameters() if "W" in name
    )
    assert flops == [2 * t * (linear + 3 * 16 * t) for t in (8, 16)]


def test_a_text_longer_than_the_context():
    config = ModelConfig(**SMALL)
    assert mi.cost(config).tokens == config.n_ctx
    assert mi.cost(config, 100).counts.parameters == mi.cost(config, 8).counts.parameters


# --- Bad input, and the command -----------------------------------------------------------------


@pytest.mark.parametrize("tokens", [0, -1, 2**24 + 1])
def test_a_number_of_tokens_that_is_none(tokens: int):
    with pytest.raises(ValueError, match="tokens must be a whole number from 1 to 16,777,216"):
        mi.cost(ModelConfig(**SMALL), tokens)


def test_where_a_configuration_may_be(tmp_path: Path):
    config = ModelConfig(**SMALL, wiring=PrePost())
    save_model(HookedMUDDTransformer(config), tmp_path / "saved")
    (tmp_path / "ours.json").write_text(config.to_json())
    (tmp_path / "released.json").write_text(json.dumps(RELEASED["MUDDPythia-2.8B"]))
    assert find_config(tmp_path / "saved") == config
    assert find_config(tmp_path / "saved" / "config.json") == config
    assert find_config(tmp_path / "ours.json") == config
    assert find_config(tmp_path / "released.json") == find_config("MUDDPythia-2.8B")
    assert find_config("mudd-tiny") == mi.load_model("mudd-tiny", check=False).config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", "holds a list: expected a JSON object"),
        ("{", "is not JSON"),
        (
            '{"model_type": "gpt_neox"}',
            "model_type must be one of mudd-interp",
        ),
        ('{"n_layers": 2}', "lacks the field `d_model`"),
        ('{"model_type": "mudd-interp"}', "format_version must be 1 or 2"),
    ],
)
def test_a_file_that_holds_no_configuration(tmp_path: Path, text: str, words: str):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        find_config(tmp_path / "config.json")
    assert str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.parametrize("name", ["MUDDPythia-2.9B", "", "./nowhere", "mud-tiny"])
def test_a_name_that_is_none(name: str):
    with pytest.raises(ValueError, match=r"no model or preset|no folder"):
        find_config(name)


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    config, out = tmp_path / "ours.json", tmp_path / "cost.json"
    config.write_text(ModelConfig(**SMALL).to_json())
    arguments = ("cost", config, "--tokens", 8, "--json", out)
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    found, expected = json.loads(out.read_text()), mi.cost(ModelConfig(**SMALL), 8)
    assert found == json.loads(json.dumps(expected.to_dict()))
    assert found["tokens"] == 8
    assert found["parameters"] == expected.counts.parameters
    assert list(found["extra"]) == ["paper", "exact", "built"]
    assert all(list(way) == ["parameters", "flops", "memory"] for way in found["extra"].values())
    printed = capsys.readouterr().out
    assert f"{expected.paper.parameters:.3%}" in printed
    assert f"{expected.built.flops:.3%}" in printed


def test_the_table_says_what_the_shares_are_of():
    printed = io.StringIO()
    print_cost("small", mi.cost(ModelConfig(**SMALL), 8), Console(file=printed, width=300))
    assert "12 L D²" in printed.getvalue()
    assert "2 L D T (12 D + T)" in printed.getvalue()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cost", "MUDDPythia-2.9B"], "did you mean `MUDDPythia-2.8B`"),
        (["cost", "mudd-tiny", "--tokens", "0"], "tokens must be a whole number from 1"),
        (["cost", "mudd-tiny", "--json", "."], "is a folder"),
    ],
)
def test_bad_input_is_one_message(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments, monkeypatch=monkeypatch) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "parameters"), [("ViT-S/16", 22_122_472), ("ViT-M/16", 38_999_016)]
)
def test_the_vision_transformers_of_table_8(name: str, parameters: int):
    found = mi.cost(name)
    assert found.counts.parameters == parameters
    assert (found.tokens, found.causal) == (196, False)
    assert found.built.parameters == found.built.flops == found.built.memory == 0


def test_the_weight_mlps_of_muddvit():
    """1.0067 of ViT-S/16, as Table 8 prints it to three decimals; what else is added is listed."""
    found, plain = mi.cost("MUDDViT-S/16"), mi.cost("ViT-S/16")
    assert found.counts.dense["weight MLPs"] == 149_300
    assert round(1 + 149_300 / plain.counts.parameters, 4) == 1.0067
    added = found.counts.parameters - plain.counts.parameters
    assert sum(found.counts.dense.values()) == added
    with pytest.raises(ValueError, match="196 positions"):
        mi.cost("MUDDViT-S/16", tokens=197)
