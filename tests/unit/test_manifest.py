"""A manifest names the text and the counts that were computed, for each figure by itself."""

import json
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from mudd_interp.analysis.provenance import TokensSeen
from mudd_interp.catalog import choose
from mudd_interp.catalog.heads import INPUT_SEQUENCES
from mudd_interp.figures import MANIFEST, check_texts, draw_figures, read_manifest, write_figures
from mudd_interp.request import Request
from mudd_interp.study import Study
from tests.bundled import load

SHORT = Request(sequences=3, context=16, prompt="def f(x):\n    return x")
PACK = "bundled validation pack (Python source), cut anew"
RANDOM = "50 random tokens, 3 times over (seed 0)"
ROLES = ("model", "baseline")


def made(request: Request, names: tuple[str, ...], out: Path) -> tuple[Study, dict[str, Any]]:
    """The study and the manifest of some figures, as it is in its file; and their captions."""
    study = Study(request, load)
    drawn = draw_figures(study, choose(names, request))
    write_figures(study, drawn, out, names)
    manifest = json.loads((out / MANIFEST).read_text())
    captions = {
        kind.name: unescape(each.figure.layout.meta["source"]) for kind, each in drawn.items()
    }
    return study, manifest | {"captions": captions}


def texts(manifest: dict[str, Any], name: str) -> dict[str, list[tuple[str, int, int]]]:
    (entry,) = (each for each in manifest["figures"] if each["name"] == name)
    return {
        role: [(" + ".join(s["data"]), s["sequences"], s["tokens"]) for s in sources]
        for role, sources in entry["computed_on"].items()
    }


def test_each_figure_has_its_own_text_in_one_manifest(tmp_path: Path):
    names = ("layer_similarity", "token_losses", "loss_comparison", "head_scores_by_depth")
    study, manifest = made(SHORT, names, tmp_path / "out")
    tokens = study.prompt("model")
    corpus, prompt = (PACK, 3, 48), ("the prompt", 1, tokens.shape[1])
    expected = {
        "layer_similarity": corpus,
        "token_losses": prompt,
        "loss_comparison": corpus,
        "head_scores_by_depth": (RANDOM, 16, 16 * 151),
    }
    for name, (data, sequences, count) in expected.items():
        assert texts(manifest, name) == {role: [(data, sequences, count)] for role in ROLES}, name
        plural = "" if sequences == 1 else "s"
        words = f"{data}, {count:,} tokens in {sequences:,} sequence{plural}"
        assert words in manifest["captions"][name]
    seen = TokensSeen(study.models["model"].front)
    seen.add(tokens)
    (entry,) = (each for each in manifest["figures"] if each["name"] == "token_losses")
    assert entry["computed_on"]["model"][0]["token_digest"] == f"{seen.digest:064x}"


def test_a_figure_of_no_text_names_none(tmp_path: Path):
    (tmp_path / "text.txt").write_text("x = 1\n" * 20)
    request = replace(SHORT, text=str(tmp_path / "text.txt"))
    _, manifest = made(request, ("head_scores_by_depth",), tmp_path / "out")
    assert (manifest["model"]["data"], manifest["model"]["tokens"]) == ([RANDOM], 2416)
    assert manifest["texts"] == {}
    _, manifest = made(request, ("token_losses",), tmp_path / "prompt")
    assert manifest["model"]["data"] == ["the prompt"]
    assert manifest["texts"] == {}
    (tmp_path / "text.txt").write_text("y = 2\n")  # which the figure has not seen
    check_texts(read_manifest(tmp_path / "prompt" / MANIFEST))


@pytest.mark.parametrize("scope", ["corpus", "prompt"])
def test_the_beginning_of_a_text_is_not_called_a_prompt(scope: Any, tmp_path: Path):
    (tmp_path / "text.txt").write_text("x = 1\n" * 20)
    request = replace(SHORT, text=str(tmp_path / "text.txt"), prompt=None, scope=scope)
    _, manifest = made(request, ("token_losses", "layer_similarity"), tmp_path / "out")
    beginning = ("the first tokens of text.txt", 1, 16)
    assert texts(manifest, "token_losses")["model"] == [beginning]
    corpus = ("text.txt", 3, 48)
    found = texts(manifest, "layer_similarity")["model"]
    assert found == [corpus if scope == "corpus" else beginning]
    assert list(manifest["texts"]) == [str(tmp_path / "text.txt")]
    assert beginning[0] in manifest["captions"]["token_losses"]


@pytest.mark.parametrize("name", ["layer_similarity", "token_losses"])
def test_a_text_that_changed_while_it_was_read_is_refused(name: str, tmp_path: Path):
    text = tmp_path / "text.txt"
    text.write_text("x = 1\n" * 20)
    request = replace(SHORT, text=str(text), prompt=None)
    study = Study(request, load)
    drawn = draw_figures(study, choose((name,), request))
    text.write_text("y = 2\n" * 20)
    with pytest.raises(ValueError, match=r"text\.txt has changed while it was read"):
        write_figures(study, drawn, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_few_sequences_are_those_of_their_figure_only(tmp_path: Path):
    """Some figures take few sequences unless told otherwise."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"x{n} = {n}\n" for n in range(120)))
    request = replace(SHORT, text=str(text), sequences=None, context=8, layer=0)
    names = ("layer_similarity", "head_composition")
    study, manifest = made(request, names, tmp_path / "out")
    whole = sum(len(batch) for batch in study.batches("model"))
    assert whole > INPUT_SEQUENCES
    assert texts(manifest, "layer_similarity")["model"][0][:2] == ("text.txt", whole)
    assert texts(manifest, "head_composition")["model"][0][:2] == ("text.txt", INPUT_SEQUENCES)
    assert manifest["model"]["sequences"] == whole
