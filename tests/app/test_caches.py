"""What sessions share: one model for equal files, results within a limit, one pass at a time."""

import os
import threading
from dataclasses import asdict
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from plotly.io.json import to_json_plotly

import caches
from mudd_interp.analysis import LayerSimilarityAnalysis
from mudd_interp.catalog import FIGURES, draw_kind
from mudd_interp.request import Request
from specs import spec
from tests.kinds import OF_ANY

SMALL = Request(
    sequences=2,
    context=32,
    batch_size=1,
    prompt="def f(x):\n    return x",
    corrupted="def g(y):\n    return y",
    edits="cut head 7.2; mean v *<-*",
)


def test_a_model_key_changes_with_each_option(tmp_path: Path):
    (tmp_path / "config.json").write_text("{}")
    folder = str(tmp_path)
    keys = {
        caches.model_key("mudd-tiny", None, None),
        caches.model_key("tfm-tiny", None, None),
        caches.model_key("mudd-tiny", "cpu", None),
        caches.model_key("mudd-tiny", None, "float64"),
        caches.model_key(folder, None, None),
    }
    (tmp_path / "config.json").write_text("{ }")
    keys.add(caches.model_key(folder, None, None))
    os.utime(tmp_path / "config.json", (0, 0))
    keys.add(caches.model_key(folder, None, None))
    (tmp_path / "model.safetensors").write_bytes(b"")
    keys.add(caches.model_key(folder, None, None))
    assert len(keys) == 8


def test_two_sessions_have_one_model_and_one_result():
    first, second = caches.study(SMALL), caches.study(SMALL)
    assert first.models["model"] is second.models["model"]
    found = [each.result("model", LayerSimilarityAnalysis()) for each in (first, second)]
    assert found[0] is found[1]


def test_the_oldest_results_are_dropped_when_there_are_too_many_bytes():
    results = caches.Results(limit=1000)
    for name in "ab":
        results.put(name, torch.zeros(100))  # 400 bytes
    results.get("a")
    results.put("c", torch.zeros(100))
    assert results.n_bytes == 800
    with pytest.raises(KeyError):
        results.get("b")
    assert results.get("a").numel() == 100


def test_a_frozen_figure_is_sent_as_its_spec_and_counts_its_numbers():
    figure = go.Figure(go.Heatmap(z=np.zeros((10, 10))), {"title": "Zeros"})
    frozen = caches.Frozen(figure)
    assert frozen.to_json() == to_json_plotly(spec(figure))
    assert frozen.to_dict() is frozen.to_dict()
    assert caches.bytes_of(frozen) > 10 * 10 * 8


def test_what_a_study_has_seen_stays_with_it_when_others_crowd_it_out():
    results = caches.Results(limit=500)
    kept = caches.Borrowed(results)
    kept["a"] = value = torch.zeros(100)
    results.put("b", torch.zeros(100))
    assert kept["a"] is value
    assert "a" not in caches.Borrowed(results)


def test_two_sweeps_at_once_find_what_each_finds_alone():
    requests = [SMALL, Request(sequences=3, context=16, batch_size=1)]
    alone = [caches.study(r).result("model", LayerSimilarityAnalysis()).frame for r in requests]
    caches._shared.clear()
    frames = {}

    def run(i: int) -> None:
        found = caches.Study(requests[i], caches.load, lock=lock)
        frames[i] = found.result("model", LayerSimilarityAnalysis()).frame

    lock = threading.RLock()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(frames[i].equals(alone[i]) for i in range(2))
    hooks = caches.load("mudd-tiny").hook_dict.values()
    assert not any(getattr(hook, "fwd_hooks", ()) for hook in hooks)


def drawing(name: str, **values: object) -> tuple[str, str]:
    """The key of a figure, and the figure, as JSON."""
    kind, study = FIGURES[name], caches.study(Request.of_values(asdict(SMALL) | values))
    return caches.drawing_key(kind, study, "light"), draw_kind(kind, study).figure.to_json()


OTHER: dict[str, object] = {
    "prompt": "x = 1",
    "sequences": 1,
    "context": 16,
    "scope": "prompt",
    "of": "baseline",
    "position": 1,
    "layer": 2,
    "head": 1,
    "stream": "q",
    "source": 2,
    "statistic": "std",
    "raw": True,
    "sinks": (5,),
    "sink_positions": 1,
    "score": "entropy",
    "answer": "width",
    "against": "x",
    "corrupted": "def h(z):\n    return z",
    "edits": "cut head 3.1",
}
HEAD_ACTIVITY = FIGURES["head_activity"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_ANY)
def test_a_figure_that_is_kept_depends_on_nothing_but_what_its_key_holds(name: str):
    uses = FIGURES[name].depends_on(SMALL)
    key, figure = drawing(name)
    others = {other: value for other, value in OTHER.items() if other not in uses}
    assert drawing(name, **others) == (key, figure)


@pytest.mark.parametrize("option", [o for o in OTHER if o in HEAD_ACTIVITY.depends_on(SMALL)])
def test_the_key_of_a_figure_changes_with_each_value_it_uses(option: str):
    kind = HEAD_ACTIVITY
    changed = caches.study(Request.of_values(asdict(SMALL) | {option: OTHER[option]}))
    key = caches.drawing_key(kind, caches.study(SMALL), "light")
    assert caches.drawing_key(kind, changed, "light") != key
    assert caches.drawing_key(kind, caches.study(SMALL), "dark") != key


def test_a_result_that_is_too_large_by_itself_drives_nothing_out():
    results = caches.Results(limit=500)
    results.put("a", torch.zeros(100))
    results.put("b", torch.zeros(200))
    assert results.get("a").numel() == 100
    with pytest.raises(KeyError):
        results.get("b")
