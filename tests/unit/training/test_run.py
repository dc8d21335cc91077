"""Presets, and the toy preset from its name to its weights."""

from typing import cast

import numpy as np
import pytest

from mudd_interp.checkpoints import load_model
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.training import run
from mudd_interp.training.presets import PRESETS, members
from mudd_interp.training.run import RunOptions, run_preset


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Random tokens in the place of the prepared corpus, which takes a minute to make."""
    monkeypatch.setattr(run, "prepare", lambda _: None)
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        np.save(tmp_path / f"{split}.npy", rng.integers(0, 4096, 30_000).astype(np.uint16))
    return tmp_path


def test_the_pair_differs_in_its_connections_only():
    mudd, plain = (PRESETS[name] for name in ("mudd-tiny", "tfm-tiny"))
    assert mudd.recipe == plain.recipe
    assert sum(mudd.cfg.mlp_widths) == sum(plain.cfg.mlp_widths) == 4224
    assert (mudd.cfg.mlp_widths[0], mudd.cfg.mlp_widths[-1]) == (176, 528)  # 0.5 and 1.5 times 352
    same = mudd.cfg.plain().to_dict() | {"d_mlp": None, "multiway": None}
    assert same == plain.cfg.to_dict() | {"d_mlp": None, "multiway": None}


def test_names_and_near_misses():
    assert members("tiny-pair") == ("mudd-tiny", "tfm-tiny")
    assert members("toy") == ("toy",)
    with pytest.raises(ValueError, match="mudd-tiny"):
        members("mud-tiny")


def test_the_toy_preset_trains_and_its_weights_load(data, tmp_path):
    out = tmp_path / "runs"
    run_preset("toy", out, RunOptions(data=data, steps=3))
    model = cast(HookedMUDDTransformer, load_model(out / "toy" / "model"))
    # W_2 begins as zero, and has learned.
    assert model.config.dense == "dynamic"
    assert model.get_parameter("dense.0.W_2").abs().max() > 0
    assert model.to_str_tokens("def f") == ["def", " f"]
    assert len((out / "toy" / "log.csv").read_text().splitlines()) == 2  # header, step 3
