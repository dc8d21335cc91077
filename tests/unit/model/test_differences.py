"""Every line of the page on differences from TransformerLens is true."""

import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import transformer_lens.tools.analysis as tools
from transformer_lens import patching
from transformer_lens.SVDInterpreter import SVDInterpreter

import mudd_interp as mi
from tests.parity.family import FAMILY, letters_tokenizer, random_model, random_tokens
from tests.parity.test_neox import Pair

PAGE = Path(__file__).parents[3] / "docs" / "differences.md"

# What a user reads: an error in words, none of Python's own.
IN_WORDS = (ValueError, NotImplementedError, AttributeError, KeyError)
PYTHONS_OWN = re.compile(
    r"object has no attribute|unexpected keyword|^'|^\d+$|not supported between"
)


class Line(NamedTuple):
    """One line of a table."""

    code: str
    here: str
    instead: str


def lines_of_page() -> Iterator[Line]:
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `"):
            assert len(cells) == 3, line
            yield Line(cells[0].strip("`"), cells[1], cells[2].removesuffix(" |").strip())


LINES = list(lines_of_page())


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    torch.manual_seed(0)
    widths = replace(FAMILY["MUDDFormer"], d_mlp=(8, 16, 24))
    model, plain = random_model(widths).float(), random_model(FAMILY["Transformer++"]).float()
    model.tokenizer = plain.tokenizer = letters_tokenizer()
    tokens = random_tokens(model.config)
    logits, cache = model.run_with_cache(tokens)
    return {
        "mi": mi,
        "torch": torch,
        "patching": patching,
        "tools": tools,
        "SVDInterpreter": SVDInterpreter,
        "replace": replace,
        "model": model,
        "plain": plain,
        "baseline": Pair("llama").baseline,
        "tokens": tokens,
        "mask": torch.ones_like(tokens),
        "logits": logits,
        "cache": cache,
        "plain_cache": plain.run_with_cache(tokens)[1],
        "stream": cache["resid_pre", 1].detach(),
        "metric": lambda found: found[0, -1, 1] - found[0, -1, 2],
        "hook": lambda x, hook: None,
    }


def run(code: str, names: dict[str, Any]) -> None:
    quiet = code.replace(
        "generate(tokens, 2", "generate(tokens, 2, verbose=False, stop_at_eos=False"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TransformerLens' own
        exec(quiet, dict(names))
    names["model"].float()  # a line may have moved it


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.code)
def test_a_line_says_what_happens(line: Line, names: dict[str, Any]):
    if not line.here.startswith("refused"):
        run(line.code, names)
        return
    with pytest.raises(IN_WORDS) as error:
        run(line.code, names)
    assert not PYTHONS_OWN.search(str(error.value)), error.value
    assert len(str(error.value)) > 20


CODE = r"`((?:model|plain|baseline|cache|plain_cache|mi|\[block)\b[^`]*)`"


TEXT = " ".join(f"{line.here} {line.instead}" for line in LINES)


@pytest.mark.parametrize("code", sorted(set(re.findall(CODE, TEXT))))
def test_what_to_use_instead_is_there(code: str, names: dict[str, Any]):
    run(code, names)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(blocks\.[^`]*)`", PAGE.read_text()))))
def test_hooks_that_are_recommended_exist(name: str, names: dict[str, Any]):
    assert name in names["model"].hook_dict


def test_at_layer_0_the_rest_is_the_embedding(names: dict[str, Any]):
    for which in ("cache", "plain_cache"):
        rest = names[which].stack_head_results(0, incl_remainder=True)
        torch.testing.assert_close(rest, names[which]["embed"][None])
