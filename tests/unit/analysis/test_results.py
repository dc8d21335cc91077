"""Results: merged they equal one run, saved and loaded they are the same to the bit."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from mudd_interp.analysis import (
    HeadActivity,
    HeadActivityAnalysis,
    LayerSimilarity,
    Result,
    SinkSensitivityAnalysis,
    layer_similarity,
    predictions,
    sweep,
    token_weights,
)
from mudd_interp.analysis.result import Finding, OneSequence
from mudd_interp.protocol import ModelInfo
from tests.parity.family import FAMILY, random_model, random_tokens

ANALYSES = [
    "layer_similarity",
    "dense_weights",
    HeadActivityAnalysis([1, 2]),
    "similarity_matrix",
    "stream_norms",
    SinkSensitivityAnalysis([1, 2], 3),
    "head_entropy",
]


def run(batches, name="MUDDFormer - K dense", seed=0):
    model = random_model(FAMILY[name], seed)
    model.info = ModelInfo(name="tiny", digest=f"{seed:064x}")
    return sweep(model, batches(model.config), ANALYSES)


def first(cfg):
    return [random_tokens(cfg, 2, 7), random_tokens(cfg, 2, 5, seed=2)]


def second(cfg):
    return [random_tokens(cfg, 1, 3, seed=3)]


def test_merged_results_are_those_of_one_run():
    whole = run(lambda cfg: [*first(cfg), *second(cfg)])
    merged = [a.merge(b) for a, b in zip(run(first), run(second), strict=True)]
    for found, expected in zip(merged, whole, strict=True):
        assert found.provenance == expected.provenance
        labels = [c for c in found.frame if found.frame[c].dtype != np.float64]
        assert found.frame[labels].equals(expected.frame[labels])
        numbers = [c for c in found.frame if c not in labels]
        np.testing.assert_allclose(found.frame[numbers], expected.frame[numbers], rtol=1e-13)
    assert np.array_equal(merged[2].active_count, whole[2].active_count)


def test_an_array_that_lies_in_memory_by_columns_is_saved_as_it_reads(tmp_path):
    result = run(first)[0]
    by_columns = replace(result, cosine_sum=np.asfortranarray(result.cosine_sum))
    by_columns.save(tmp_path / "result")
    assert np.array_equal(type(result).load(tmp_path / "result").cosine_sum, result.cosine_sum)


def test_sums_merge_by_exact_addition():
    a, b = run(first)[0], run(second)[0]
    assert np.array_equal(a.merge(b).cosine_sum, a.cosine_sum + b.cosine_sum)


@pytest.mark.parametrize("name", ["MUDDFormer - K dense", "Transformer++"])
def test_save_and_load_lose_nothing(name, tmp_path):
    for result in run(first, name):
        path = tmp_path / f"{type(result).__name__}.safetensors"
        result.save(path)
        loaded = type(result).load(path)
        assert loaded.provenance == result.provenance
        assert loaded.streams == result.streams
        assert loaded.frame.equals(result.frame)
        assert loaded.frame.dtypes.equals(result.frame.dtypes)
        assert type(Result.load(path)) is type(result)
        assert loaded.merge(result).provenance.tokens == 2 * result.provenance.tokens
        again = tmp_path / "again"
        loaded.save(again)
        assert again.read_bytes() == path.read_bytes()


def test_results_are_frozen():
    result = run(first)[0]
    with pytest.raises(ValueError, match="read-only"):
        result.cosine_sum[0, 0] = 1.0
    with pytest.raises(FrozenInstanceError):
        result.streams = ()


def test_other_models_and_options_are_refused():
    similarity, weights, activity, *_ = run(first)
    with pytest.raises(ValueError, match="digest differs"):
        similarity.merge(run(second, seed=1)[0])
    with pytest.raises(ValueError, match="LayerSimilarity with a DenseWeights"):
        similarity.merge(weights)
    for changed, name in (
        ({"options": {"sink_token_ids": []}}, "options"),
        ({"dtype": "bfloat16"}, "dtype"),
    ):
        other = replace(activity, provenance=replace(activity.provenance, **changed))
        with pytest.raises(ValueError, match=f"{name} differs"):
            activity.merge(other)


def test_models_without_a_digest_are_told_apart_where_they_can_be():
    def unnamed(seed):
        model = random_model(FAMILY["MUDDFormer"], seed)
        return sweep(model, first(model.config), ["dense_weights"])[0]

    with pytest.raises(ValueError, match="static weights differ"):
        unnamed(0).merge(unnamed(1))
    mudd, plain = (random_model(FAMILY[name]) for name in ("MUDDFormer", "Transformer++"))
    similarity = layer_similarity(mudd, first(mudd.config))
    with pytest.raises(ValueError, match="has shape"):
        similarity.merge(layer_similarity(plain, first(plain.config)))


def test_bad_files_are_named(tmp_path):
    result = run(first)[0]
    path = tmp_path / "r"
    with pytest.raises(ValueError, match="no result at"):
        LayerSimilarity.load(path)
    result.save(path)
    with pytest.raises(ValueError, match="holds a LayerSimilarity, not a HeadActivity"):
        HeadActivity.load(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="is damaged"):
        LayerSimilarity.load(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="is damaged"):
        Result.load(path)


def test_what_is_of_one_sequence_says_so_and_all_else_is_saved_and_merged():
    kinds, found = [Finding], set[type]()
    while kinds:
        found.add(kind := kinds.pop())
        kinds += kind.__subclasses__()
    of_one = {kind.__name__ for kind in found if issubclass(kind, OneSequence)}
    assert of_one >= {"Predictions", "TokenWeights", "LogitLens", "Routes", "CompositionTable"}
    assert all(issubclass(kind, Result | OneSequence) or kind is Finding for kind in found)
    model = random_model(FAMILY["MUDDFormer"])
    tokens = random_tokens(model.config, 1, 5)
    for result in (predictions(model, tokens), token_weights(model, tokens)):
        with pytest.raises(ValueError, match="is of one sequence, so two are not merged"):
            result.merge(result)
        with pytest.raises(ValueError, match="is of one sequence and is not saved"):
            result.save("anywhere")
        with pytest.raises(ValueError, match="read-only"):
            result.token_ids[0] = 1
