"""Head activity by hand: which key is largest, ties, sinks."""

import numpy as np
import pytest
import torch

from mudd_interp import axes
from mudd_interp.analysis import HeadActivityAnalysis, default_sinks, head_activity, sweep
from mudd_interp.analysis.heads import active_queries, first_largest
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.analysis.fakes import FakeModel

TOKENS = torch.tensor([[5, 6, 7, 8]])


class Texts:
    """A tokenizer that knows what each id reads."""

    pad_token_id = None

    def __init__(self, *texts):
        self.texts = texts

    def __len__(self):
        return len(self.texts)

    def get_vocab(self):
        return {f"{i} {text}": i for i, text in enumerate(self.texts)}

    def convert_ids_to_tokens(self, token):
        return self.texts[token]

    def decode(self, ids, **options):
        assert options == {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return "".join(self.texts[i] for i in ids)


def attending(*largest, dtype=torch.float32, tokenizer=None, d_vocab=10):
    """A model of one layer; in head h, query q has its largest weights on ``largest[h][q]``."""
    pattern = torch.full((1, len(largest), 4, 4), 0.1, dtype=dtype)
    for head, queries in enumerate(largest):
        for query, keys in enumerate(queries):
            pattern[0, head, query, list(keys)] = 0.4
    return FakeModel(
        lambda _: {axes.pattern(0): pattern},
        n_layers=1,
        n_heads=len(largest),
        d_vocab=d_vocab,
        tokenizer=tokenizer,
    )


def active(model, sinks=(), **options):
    frame = head_activity(model, [TOKENS], sink_token_ids=list(sinks), **options).frame
    assert list(frame.columns) == ["layer", "head", "active"]
    return frame["active"].tolist()


def test_the_first_two_positions_are_sinks():
    model = attending([[0], [1], [2], [3]], [[0], [0], [0], [1]], [[0], [1], [1], [2]])
    assert active(model) == [0.5, 0.0, 0.25]
    assert active(model, first_positions=0) == [1.0, 1.0, 1.0]
    assert active(model, first_positions=3) == [0.25, 0.0, 0.0]


def test_sink_tokens_are_sinks_wherever_they_stand():
    model = attending([[0], [1], [2], [3]])
    assert active(model, sinks=[8]) == [0.25]
    assert active(model, sinks=[7, 8]) == [0.0]
    assert active(model, sinks=[5, 9]) == [0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_ties_the_first_key_counts(dtype):
    model = attending([[0], [0, 1], [1, 2], [2, 3]], [[0], [1], [2], [0, 3]], dtype=dtype)
    assert active(model) == [0.25, 0.25]
    assert active(model, sinks=[7]) == [0.0, 0.0]


def test_the_first_largest_is_the_first_on_ties_of_any_length():
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randint(3, (4, 50, 50), generator=generator).to(torch.bfloat16)
    expected = [[row.index(max(row)) for row in head] for head in pattern.tolist()]
    assert first_largest(pattern).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_a_query_is_active_where_its_first_largest_key_is_no_sink(seed: int):
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.randint(4, (3, 9, 1 + seed % 7), generator=generator).float()
    is_sink = torch.rand(pattern.shape[-1], generator=generator) < seed / 20
    expected = (~is_sink[first_largest(pattern)]).sum(-1)
    assert torch.equal(active_queries(pattern, is_sink), expected)


@pytest.mark.parametrize("is_sink", [[False, False], [True, False], [True, True]])
def test_nan_in_a_pattern_is_an_error(is_sink: list[bool]):
    pattern = torch.full((1, 2, 2), torch.nan)
    with pytest.raises(ValueError, match="holds NaN"):
        first_largest(pattern)
    with pytest.raises(ValueError, match="holds NaN"):
        active_queries(pattern, torch.tensor(is_sink))


def test_shares_are_of_all_tokens_of_all_batches():
    model = random_model(FAMILY["MUDDPythia"])
    batches = [random_tokens(model.config, 2, 7), random_tokens(model.config, 1, 3, seed=2)]
    sinks = [1, 2, 3]
    found = head_activity(model, batches, sinks)
    expected = np.zeros((3, 2))
    for tokens in batches:
        _, cache = model.run_with_cache(tokens)
        for layer in range(3):
            rows = cache[axes.pattern(layer)].tolist()
            for ids, heads in zip(tokens.tolist(), rows, strict=True):
                for head, queries in enumerate(heads):
                    for weights in queries:
                        key = weights.index(max(weights))
                        expected[layer, head] += key >= 2 and ids[key] not in sinks
    assert found.active_count.tolist() == expected.tolist()
    assert found.frame["active"].tolist() == (expected / 17).ravel().tolist()
    np.testing.assert_allclose(found.layer_frame["active"], expected.mean(1) / 17, rtol=1e-15)


def test_default_sinks_read_exactly_their_text():
    tokenizer = Texts("<|endoftext|>", ".", " .", "\n", "\n\n", "<bos>", "a", ".")
    assert default_sinks(tokenizer, 100) == [0, 1, 3, 5, 7]
    assert default_sinks(tokenizer, 7) == [0, 1, 3, 5]
    model = attending([[0], [1], [2], [3]], tokenizer=Texts(*"abcdefg", ".", "h"))
    result = head_activity(model, [TOKENS])
    assert result.frame["active"].tolist() == [0.25]
    assert result.provenance.options == {
        "sink_token_ids": [7],
        "sink_texts": ["."],
        "first_positions": 2,
    }


def test_what_sinks_read_is_known_only_with_a_tokenizer_that_has_them():
    pattern = [[0], [1], [2], [3]]
    for tokenizer, texts in ((None, None), (Texts("a", "\n"), ["\n"]), (Texts("a"), None)):
        result = head_activity(attending(pattern, tokenizer=tokenizer), [TOKENS], [1])
        assert result.provenance.options["sink_texts"] == texts


def test_bad_sinks_are_named():
    model = attending([[0], [1], [2], [3]])
    with pytest.raises(ValueError, match="sink_token_ids"):
        head_activity(model, [TOKENS])
    with pytest.raises(ValueError, match="sink token id 10 is outside the vocabulary of 10"):
        head_activity(model, [TOKENS], sink_token_ids=[3, 10])
    with pytest.raises(ValueError, match="sink token id -1 is outside"):
        head_activity(model, [TOKENS], sink_token_ids=[-1])
    with pytest.raises(ValueError, match="first_positions must be 0 or more"):
        sweep(model, [TOKENS], [HeadActivityAnalysis([], first_positions=-1)])
