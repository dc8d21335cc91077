"""What version 0.1 wrote is read with the same numbers: results, a manifest and its tables, a link.

``tests/data`` was written by the code of 0.1 before there was one walk for all analyses: the
results of tiny models with random weights, as ``tests.parity.family`` makes them.
"""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import state
from mudd_interp import analysis
from mudd_interp.analysis import Result
from mudd_interp.catalog import FIGURES
from mudd_interp.catalog.weights import edge_place
from mudd_interp.figures import check_same, csv_bytes, draw_figures, read_manifest
from mudd_interp.protocol import ModelInfo
from mudd_interp.request import OPTIONS, Request
from mudd_interp.study import Study
from tests.bundled import load
from tests.parity.family import FAMILY, random_model, random_tokens

DATA = Path(__file__).parents[1] / "data"
RESULTS = sorted(path.stem for path in DATA.glob("*.safetensors"))


def made(name: str, digit: str) -> Any:
    model = random_model(FAMILY[name])
    model.info = ModelInfo(name=name, digest=digit * 64)
    return model


def computed_now(name: str) -> Result:
    """The same result, by this code."""
    model, baseline = made("MUDDFormer", "1"), made("Transformer++", "2")
    batches = [random_tokens(model.config, 2, 12), random_tokens(model.config, 1, 7, seed=2)]
    edits = ["cut v 1<-0", "cut head 2.1; cut mlp 0"]
    options: dict[str, tuple[Any, ...]] = {
        "head_activity": ([1, 2],),
        "sink_sensitivity": ([1, 2], 3),
        "weight_distribution": (1.0, 8),
        "in_context_loss": (3, 8, 1),
        "head_inputs": (2, 1),
        "ablation_sweep": (edits,),
    }
    if name == "head_inputs_first":
        return analysis.head_inputs(model, batches, 0, 1)
    if name == "head_scores":
        return analysis.head_scores(model, length=3, repeats=3, n_sequences=2)
    if name == "compare_losses":
        return analysis.compare_losses(model, baseline, batches, 3)
    return getattr(analysis, name)(model, batches, *options.get(name, ()))


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


def as_read(frame: pd.DataFrame) -> pd.DataFrame:
    """A table as it is after it was written and read."""
    return pd.read_csv(io.StringIO(frame.to_csv(index=False)))


@pytest.mark.parametrize("name", RESULTS)
def test_a_saved_result_is_loaded_with_the_same_numbers(name: str):
    found = Result.load(DATA / f"{name}.safetensors")
    # the means are sums, which processors add in their own order
    pd.testing.assert_frame_equal(as_read(found.frame), read(DATA / f"{name}.csv"), rtol=1e-13)


@pytest.mark.parametrize("name", [name for name in RESULTS if name != "edge_patch"])
def test_a_saved_result_is_merged_with_one_of_today(name: str):
    saved, now = Result.load(DATA / f"{name}.safetensors"), computed_now(name)
    before, after = (each.frame.select_dtypes("float") for each in (saved, now))
    # float64 on another machine
    pd.testing.assert_frame_equal(before, after, rtol=1e-9, atol=1e-11)
    both = saved.merge(now)
    assert both.provenance.tokens == 2 * saved.provenance.tokens
    assert both.provenance.options == now.provenance.options


def test_the_figures_of_a_saved_manifest_are_made_again():
    manifest = read_manifest(DATA / "figures" / "manifest.json")
    study = Study(manifest.request, load)
    kinds = [FIGURES[name] for name in manifest.names]
    for kind, drawn in draw_figures(study, kinds).items():
        found = pd.read_csv(io.BytesIO(csv_bytes(drawn)))
        expected = read(DATA / "figures" / f"{kind.name}.csv")
        # float32 on another machine
        pd.testing.assert_frame_equal(found, expected, rtol=2e-4, atol=2e-5)
    check_same(study, manifest)


def test_a_saved_link_opens_the_same_view():
    saved = json.loads((DATA / "link.json").read_text())
    view = {k: tuple(v) if isinstance(v, list) else v for k, v in saved["view"].items()}
    decoded = state.decode(saved["link"])
    # The usual source was a number of the link's version; now a figure chooses it, here the same.
    assert decoded.view["source"] is None
    found = decoded.view | {"source": edge_place(Study(Request(**decoded.view), load))[1]}
    assert {name: found[name] for name in view} == view
    later = decoded.view.keys() - view.keys()  # options that came after it
    assert all(decoded.view[name] == OPTIONS[name].default for name in later)
    assert state.encode(decoded.view) == saved["link"]
