"""Models that fire hooks with the tensors they are given, for numbers worked out by hand."""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch

from mudd_interp import axes
from mudd_interp.model.front import TokenFront
from mudd_interp.model.tokens import Tokens
from mudd_interp.protocol import DECODER, ModelInfo, Trait
from mudd_interp.states import StateWiring

CPU = torch.device("cpu")


@dataclass
class Shape:
    """Satisfies ``ModelShape``."""

    n_layers: int
    n_heads: int
    d_vocab: int
    n_ctx: int
    dtype: torch.dtype = torch.float32
    d_model: int = 4
    d_head: int = 2
    device: torch.device = CPU


class FakeModel:
    """Satisfies ``HookedModel``; ``tensors(tokens)`` says what each hook shows, in order."""

    training = False
    traits: frozenset[Trait] = frozenset({*DECODER, "states", "numbers", "moving"})

    def __init__(
        self,
        tensors,
        *,
        n_layers,
        n_heads=1,
        d_vocab=10,
        n_ctx=32,
        streams=("r",),
        tokenizer=None,
    ):
        self.tensors, self.tokenizer = tensors, tokenizer
        self.cfg = Shape(n_layers, n_heads, d_vocab, n_ctx)
        self.info = ModelInfo(name="fake", digest="0" * 64)
        self.wiring = StateWiring(n_layers, streams)
        self.hook_dict = {}
        self.fwd_hooks = ()

    @property
    def front(self):
        return TokenFront(Tokens(self.tokenizer, self.cfg), embed=torch.nn.Identity())

    @contextmanager
    def hooks(self, fwd_hooks=(), bwd_hooks=()):
        self.fwd_hooks = fwd_hooks
        try:
            yield self
        finally:
            self.fwd_hooks = ()

    def __call__(self, tokens, return_type="logits"):
        assert return_type is None
        assert not torch.is_grad_enabled()
        for name, tensor in self.tensors(tokens).items():
            for hooked, function in self.fwd_hooks:
                if hooked == name:
                    assert function(tensor, hook=None) is None


class LogitModel(FakeModel):
    """Satisfies ``HookedModel``; ``logits(tokens)`` gives the logits ``[batch pos d_vocab]``."""

    def __init__(self, logits, *, name="fake", tokenizer=None, d_vocab=10):
        super().__init__(lambda _: {}, n_layers=1, d_vocab=d_vocab, tokenizer=tokenizer)
        self.logits, self.info = logits, ModelInfo(name=name, digest="0" * 64)

    def __call__(self, tokens, return_type="logits"):
        assert return_type == "logits"
        assert not torch.is_grad_enabled()
        return self.logits(tokens)


def markov(rows, **options):
    """A model that looks at one token: ``rows[i][j]`` is the probability of j after i."""
    logits = torch.tensor(rows, dtype=torch.float64).log()
    return LogitModel(lambda tokens: logits[tokens], d_vocab=len(rows), **options)


class Vocabulary:
    """A tokenizer whose token ``i`` reads ``texts[i]``."""

    pad_token_id = bos_token_id = eos_token_id = None

    def __init__(self, *texts):
        self.texts = texts

    def get_vocab(self):
        return {text: i for i, text in enumerate(self.texts)}

    def decode(self, ids, **_):
        return "".join(self.texts[i] for i in ids)

    def convert_ids_to_tokens(self, token):
        return self.texts[token]


class EdgeModel(FakeModel):
    """Two blocks with dense weights at two of three aggregates: R of aggregation 0 is plain.

    ``weights`` and ``sources`` give, for any sequences, what the hooks show at each token.
    """

    def __init__(self, weights=None, sources=None, dtype=torch.float32):
        super().__init__(self.shown, n_layers=2, streams=("v", "r"))
        self.cfg.dtype = dtype
        self.wiring = EdgeWiring()
        self.weights, self.sources = weights or {}, sources or {}

    def shown(self, tokens):
        weights = {axes.dense_weights(*key): rows for key, rows in self.weights.items()}
        sources = {self.wiring.sources[j].hook: rows for j, rows in self.sources.items()}
        return {
            name: torch.tensor(rows, dtype=self.cfg.dtype).expand(*tokens.shape, -1)
            for name, rows in {**weights, **sources}.items()
        }


class EdgeWiring(StateWiring):
    """V of row 0 and R of row 1 have weights."""

    learnt: ClassVar = {(0, "v"): [0.25, 1.0], (1, "r"): [0.0, -0.5, 1.0]}

    def __init__(self):
        super().__init__(2, ("v", "r"))

    def gate(self, read):
        weighed = (read.row, read.stream) in self.learnt
        return axes.dense_weights(read.row, read.stream) if weighed else None

    def learned(self, read):
        return torch.tensor(self.learnt[read.row, read.stream])
