"""What is measured: each bench is a function of the options that returns rows."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

import mudd_interp as mi
from mudd_interp.analysis import (
    DenseWeightsAnalysis,
    HeadActivityAnalysis,
    LayerSimilarityAnalysis,
    sweep,
)
from mudd_interp.bench.checkpoint import write_checkpoint
from mudd_interp.bench.child import THREE_FIGURES, in_child
from mudd_interp.bench.measure import Row, compared, interleaved
from mudd_interp.bench.options import Options
from mudd_interp.bench.sizes import (
    held_out,
    largest_difference,
    mudd_pythia,
    neox,
    of_neox,
    random_tokens,
)
from mudd_interp.checkpoints.bridge import BridgeBaseline, build_bridge
from mudd_interp.training.presets import PRESETS
from mudd_interp.training.schedule import make_optimizer
from mudd_interp.training.trainer import token_loss

SAME_WEIGHTS = 1e-3
"""Logits of one model, in nats: how far two implementations may differ in float32."""


@torch.no_grad()
def forward(options: Options) -> list[Row]:
    """One forward pass without hooks, and one with the three figures' statistics.

    Raises:
        ArithmeticError: If our GPT-NeoX and transformers', in float32, do not say the same.
    """
    size, place = options.size, (options.device, options.dtype)
    tokens = random_tokens(size, size.tokens, options.device)
    hf = neox(size, *place)
    plain, mudd = of_neox(hf), mudd_pythia(size, *place)
    gap = largest_difference(hf(tokens, use_cache=False).logits, plain(tokens))
    if options.dtype == torch.float32 and gap > SAME_WEIGHTS:
        raise ArithmeticError(f"one GPT-NeoX, two implementations: their logits differ by {gap}.")
    analyses = (LayerSimilarityAnalysis(), DenseWeightsAnalysis(), HeadActivityAnalysis([0]))

    def of_transformers(attention: str, body: bool) -> None:
        hf.set_attn_implementation(attention)
        (hf.gpt_neox if body else hf)(tokens, use_cache=False)

    seconds = interleaved(
        options.repeats,
        options.device,
        {
            "transformers": partial(of_transformers, "sdpa", False),
            "plain": partial(plain, tokens),
            "mudd": partial(mudd, tokens),
            "eager": partial(of_transformers, "eager", True),
            "statistics": lambda: sweep(mudd, [tokens], analyses),
        },
    )
    peer = "transformers' GPT-NeoX, sdpa"
    return [
        compared("forward, plain GPT-NeoX", seconds["plain"], peer, seconds["transformers"], 1.03),
        compared("forward, MUDDPythia", seconds["mudd"], peer, seconds["transformers"], 1.05),
        compared(
            "forward and statistics of three figures, MUDDPythia, no logits",
            seconds["statistics"],
            "transformers' GPT-NeoX, eager, no logits",
            seconds["eager"],
            1.15,
        ),
    ]


@torch.no_grad()
def decode(options: Options) -> list[Row]:
    """Greedy decoding, batch 1: seconds per token after the prompt, prompt not counted."""
    size, place = options.size, (options.device, options.dtype)
    tokens = random_tokens(size, size.tokens, options.device)
    hf, mudd = neox(size, *place), mudd_pythia(size, *place)

    def theirs(new: int) -> None:
        hf.generate(tokens, do_sample=False, max_new_tokens=new, min_new_tokens=new)

    def ours(new: int) -> None:
        mudd.generate(tokens, new, stop_at_eos=False, do_sample=False, verbose=False)

    calls: dict[str, Callable[[], object]] = {
        f"{name}{new}": partial(call, new)
        for new in (1, 1 + size.new_tokens)
        for name, call in (("theirs", theirs), ("ours", ours))
    }
    seconds = interleaved(options.repeats, options.device, calls)

    def per_token(name: str) -> list[float]:
        first, all_of_them = seconds[f"{name}1"], seconds[f"{name}{1 + size.new_tokens}"]
        return [(b - a) / size.new_tokens for a, b in zip(first, all_of_them, strict=True)]

    return [
        compared(
            f"decode a token, MUDDPythia, after {size.tokens}",
            per_token("ours"),
            "transformers' generate, GPT-NeoX",
            per_token("theirs"),
            1.05,
        )
    ]


@torch.no_grad()
def cache(options: Options) -> list[Row]:
    """``run_with_cache`` of everything: its time beside our own forward, and its memory."""
    size, place = options.size, (options.device, options.dtype)
    tokens = random_tokens(size, size.tokens, options.device)
    mudd, hf = mudd_pythia(size, *place), neox(size, *place)
    plain = of_neox(hf)
    bridge: Any = BridgeBaseline(build_bridge(hf), check=False).bridge
    seconds = interleaved(
        options.repeats,
        options.device,
        {
            "mudd": partial(mudd, tokens),
            "mudd cached": partial(mudd.run_with_cache, tokens),
            "plain cached": partial(plain.run_with_cache, tokens),
            "bridge": partial(bridge, tokens),
            "bridge cached": partial(bridge.run_with_cache, tokens),
        },
    )
    memory = in_child(
        "cache", size=options.size_name, device=str(options.device), dtype=options.dtype_name
    )
    return [
        compared(
            "run_with_cache, MUDDPythia", seconds["mudd cached"], "forward", seconds["mudd"], 1.40
        ),
        compared(
            "run_with_cache, plain GPT-NeoX",
            seconds["plain cached"],
            "TransformerBridge's, same weights",
            seconds["bridge cached"],
        ),
        compared(
            "TransformerBridge's run_with_cache, GPT-NeoX",
            seconds["bridge cached"],
            "its forward",
            seconds["bridge"],
        ),
        compared(
            f"peak of run_with_cache, {memory['tensors']:.0f} tensors",
            [memory["peak"]],
            "bytes of the distinct tensors",
            [memory["distinct"]],
            1.05,
            unit="MB",
        ),
    ]


def load(options: Options) -> list[Row]:
    """A sharded bfloat16 checkpoint in the released layout, as it is and to float32."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(options.size, Path(folder))
        for dtype in ("bfloat16", "float32"):
            given = {"folder": folder, "device": str(options.device), "dtype": dtype}
            ours, checked, theirs = [], [], []
            for _ in range(min(3, options.repeats)):
                theirs.append(in_child("load_plain", **given))
                ours.append(in_child("load", **given, check=False))
                checked.append(in_child("load", **given, check=True))
            rows += [
                compared(
                    f"load {options.size.checkpoint} in {dtype}, no checks by running",
                    [each["seconds"] for each in ours],
                    "load_file and a clone or cast",
                    [each["seconds"] for each in theirs],
                    1.25,
                ),
                compared(
                    f"load {options.size.checkpoint} in {dtype}, checks too",
                    [each["seconds"] for each in checked],
                    "without checks by running",
                    [each["seconds"] for each in ours],
                ),
                compared(
                    f"peak of load and a short forward, {dtype}",
                    [each["peak"] for each in checked],
                    "bytes of the weights",
                    [each["weights"] for each in checked],
                    1.08,
                    unit="MB",
                ),
            ]
    return rows


def sweeps(options: Options) -> list[Row]:
    """The three figures' statistics over a corpus, by the bundled pair: speed and memory."""
    many, few = options.size.sequences
    batches, rows = held_out(many), list[Row]()
    for name in ("mudd-tiny", "tfm-tiny"):
        model: Any = mi.load_model(name, device=options.device)

        @torch.no_grad()
        def loop(model: Any = model) -> None:
            for tokens in batches:
                model(tokens.to(model.cfg.device))

        seconds = interleaved(
            min(3, options.repeats),
            options.device,
            {"loop": loop, "sweep": partial(sweep, model, batches, THREE_FIGURES)},
        )
        speed = {
            key: [many * model.cfg.n_ctx / each for each in found] for key, found in seconds.items()
        }
        peaks = [
            in_child("swept", model=name, device=str(options.device), sequences=count)["peak"]
            for count in (many, few)
        ]
        rows += [
            compared(
                f"sweep of {many:,} sequences, {name}",
                speed["sweep"],
                "a loop of forward passes",
                speed["loop"],
                0.65,
                unit="tokens/s",
                at_least=True,
            ),
            compared(
                f"peak of that sweep, {name}",
                [peaks[0]],
                f"of one over {few}",
                [peaks[1]],
                1.02,
                unit="MB",
            ),
        ]
    return rows


def train(options: Options) -> list[Row]:
    """A training step at the bundled size: forward, backward, clipping, AdamW."""
    calls: dict[str, Callable[[], object]] = {}
    for name in ("mudd-tiny", "tfm-tiny"):
        cfg = PRESETS[name].cfg
        rows = torch.randint(cfg.d_vocab, (options.size.rows, cfg.n_ctx + 1))
        calls[name] = partial(_step(name, options), rows.to(options.device))
    seconds = interleaved(options.repeats, options.device, calls)
    mudd, plain = seconds["mudd-tiny"], seconds["tfm-tiny"]
    return [compared("training step, mudd-tiny", mudd, "tfm-tiny", plain, 1.25)]


def _step(name: str, options: Options) -> Callable[[torch.Tensor], None]:
    preset = PRESETS[name]
    model = mi.HookedMUDDTransformer(preset.cfg, device=options.device).train()
    optimizer, loss = make_optimizer(model.named_parameters(), preset.recipe), token_loss(model)

    def step(rows: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(rows[:, :-1].contiguous(), rows[:, 1:].contiguous()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), preset.recipe.clip)
        optimizer.step()

    return step
