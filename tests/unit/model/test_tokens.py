"""What a model is given to read: text, ids, and what it refuses."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from tests.parity.family import FAMILY, random_model

MODEL = random_model(FAMILY["MUDDFormer"])
N_CTX, D_VOCAB = MODEL.cfg.n_ctx, MODEL.cfg.d_vocab

BAD: dict[str, tuple[Any, str]] = {
    "no token": (torch.zeros(1, 0, dtype=torch.int64), "the prompt is empty"),
    "a token too many": (
        torch.zeros(1, N_CTX + 1, dtype=torch.int64),
        rf"{N_CTX + 1} tokens do not fit the context of {N_CTX}",
    ),
    "an id too large": (
        torch.tensor([[0, D_VOCAB]]),
        rf"token id {D_VOCAB} is outside the vocabulary of {D_VOCAB} \(ids 0 to {D_VOCAB - 1}\)",
    ),
    "a negative id": (torch.tensor([[0, -1]]), "token id -1 is outside the vocabulary"),
    "ids of another type": (torch.zeros(1, 1).int(), "token ids must be int64, got int32"),
    "text without a tokenizer": ("def", "came without a tokenizer: pass token ids"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("call", ["forward", "run_with_cache", "generate"])
def test_bad_tokens_are_refused_before_anything_runs(case: str, call: str):
    tokens, words = BAD[case]
    arguments = {"generate": {"max_new_tokens": 1, "stop_at_eos": False}}.get(call, {})
    fired: list[str] = []
    with (
        MODEL.hooks(fwd_hooks=[("hook_embed", lambda _, hook: fired.append(hook.name))]),
        pytest.raises(ValueError, match=words),
    ):
        getattr(MODEL, call)(tokens, **arguments)
    assert not fired


NO_TENSORS = """
import numpy as np
import mudd_interp as mi
model = mi.load_model("mudd-tiny")
for ids in ([1, 2, 3], [[1, 2]], np.array([1, 2]), []):
    try:
        model(ids)
    except ValueError as error:
        print(error)
"""


def test_ids_that_are_no_tensor_are_refused_with_what_to_do():
    # In a process of its own: here the annotations are checked, and refuse them first.
    command = [sys.executable, "-c", NO_TENSORS]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.count("or an int64 tensor of token ids") == 4
