"""What is measured: each bench is a function of the options that returns rows."""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
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
from mudd_interp.bench.child import FREED_AT_ONCE, THREE_FIGURES, in_child
from mudd_interp.bench.measure import Row, compared, interleaved
from mudd_interp.bench.options import Options
from mudd_interp.bench.sizes import (
    held_out,
    largest_difference,
    mudd_pythia,
    neox,
    random_tokens,
)
from mudd_interp.checkpoints.neox import of_neox
from mudd_interp.model.bridge import build_bridge
from mudd_interp.training.presets import GROUPS, PRESETS
from mudd_interp.training.schedule import make_optimizer
from mudd_interp.training.trainer import mean_loss

PAIR = GROUPS["tiny-pair"]

SAME_WEIGHTS = 1e-3
"""How far the logits of two implementations of one model may differ in float32, in nats."""

COMMON_SINKS, MANY_SINKS = 16, 2
"""One token id in this many is a sink: as with full stops and newlines, and in the slowest case."""

LONG_REPEATS = 3
"""The largest number of repeats of anything that takes long."""

LARGE_MEMORY = 24_000.0
"""The memory, in MB, that the largest released model is to fit into."""

SWEPT_SHARES = 16
"""The shares of the corpus in which a sweep is measured, each by every function in turn."""


@torch.no_grad()
def forward(options: Options) -> list[Row]:
    """One forward pass without hooks, and one with the three figures' statistics.

    Raises:
        ValueError: If our GPT-NeoX and that of transformers do not agree in float32.
    """
    size, place = options.size, (options.device, options.dtype)
    tokens = random_tokens(size, size.tokens, options.device)
    hf, eager = neox(size, *place), neox(size, *place, attention="eager")
    eager.load_state_dict(hf.state_dict(), assign=True)
    plain, mudd = of_neox(hf), mudd_pythia(size, *place)
    gap = largest_difference(hf(tokens, use_cache=False).logits, plain(tokens))
    if options.dtype == torch.float32 and gap > SAME_WEIGHTS:
        raise ValueError(
            f"expected one GPT-NeoX of both implementations, got logits that differ by {gap}: is "
            "this the version of transformers in constraints.txt?"
        )

    def with_statistics(every: int) -> None:
        sinks = range(0, size.d_vocab, every)
        analyses = (LayerSimilarityAnalysis(), DenseWeightsAnalysis(), HeadActivityAnalysis(sinks))
        sweep(mudd, [tokens], analyses)

    seconds = interleaved(
        options.repeats,
        options.device,
        {
            "transformers": partial(hf, tokens, use_cache=False),
            "plain": partial(plain, tokens),
            "mudd": partial(mudd, tokens),
            "eager": partial(eager.gpt_neox, tokens, use_cache=False),
            "statistics": partial(with_statistics, COMMON_SINKS),
            "many sinks": partial(with_statistics, MANY_SINKS),
        },
    )
    peer, slow_peer = "transformers' GPT-NeoX, sdpa", "transformers' GPT-NeoX, eager, no logits"
    statistics = "forward, statistics of three figures, MUDDPythia, no logits"
    return [
        compared("forward, plain GPT-NeoX", seconds["plain"], peer, seconds["transformers"], 1.03),
        compared("forward, MUDDPythia", seconds["mudd"], peer, seconds["transformers"], 1.05),
        compared(statistics, seconds["statistics"], slow_peer, seconds["eager"], 1.15),
        compared(
            f"{statistics}, every second id a sink",
            seconds["many sinks"],
            slow_peer,
            seconds["eager"],
        ),
    ]


@torch.no_grad()
def decode(options: Options) -> list[Row]:
    """Greedy decoding, batch 1: seconds per token after the prompt; the prompt is not counted."""
    size, place = options.size, (options.device, options.dtype)
    tokens = random_tokens(size, size.tokens, options.device)
    hf, mudd = neox(size, *place), mudd_pythia(size, *place)

    def theirs(new: int) -> None:
        given: dict[str, Any] = {"max_new_tokens": new, "min_new_tokens": new}
        hf.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False, **given)

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
    plain, bridge = of_neox(hf), build_bridge(hf)
    counts = [len(model.run_with_cache(tokens)[1]) for model in (plain, bridge)]
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
        "cache",
        FREED_AT_ONCE,
        size=options.size_name,
        device=str(options.device),
        dtype=options.dtype_name,
    )
    return [
        compared(
            "run_with_cache, MUDDPythia", seconds["mudd cached"], "forward", seconds["mudd"], 1.40
        ),
        compared(
            f"run_with_cache, plain GPT-NeoX, {counts[0]} tensors",
            seconds["plain cached"],
            f"TransformerBridge's, same weights, {counts[1]} tensors",
            seconds["bridge cached"],
        ),
        compared(
            "TransformerBridge's run_with_cache, GPT-NeoX",
            seconds["bridge cached"],
            "its forward",
            seconds["bridge"],
        ),
        compared(
            f"peak of run_with_cache, MUDDPythia, {memory['tensors']:.0f} tensors",
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
            rows += _loaded(options, folder, dtype)
    return rows


def _loaded(options: Options, folder: str, dtype: str) -> list[Row]:
    given: dict[str, Any] = {"folder": folder, "device": str(options.device), "dtype": dtype}
    jobs: dict[str, Callable[[], Any]] = {
        "theirs": partial(in_child, "load_plain", **given),
        "read": partial(in_child, "read", **given),
        "ours": partial(in_child, "load", **given, check=False),
        "checked": partial(in_child, "load", **given, check=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(1 + min(LONG_REPEATS, options.repeats)):
        for name, job in jobs.items():
            found = job()["seconds"]
            if repeat:  # the first round reads the files into memory
                seconds[name].append(found)
    memory = in_child("load", FREED_AT_ONCE, **given, check=True)
    what = f"load {options.size.checkpoint} in {dtype} on {options.device}"
    return [
        compared(
            f"{what}, numbers not checked, files not hashed",
            seconds["read"],
            "load_file and a clone or cast",
            seconds["theirs"],
            1.25,
        ),
        compared(
            f"{what}, no checks by running",
            seconds["ours"],
            "load_file and a clone or cast",
            seconds["theirs"],
        ),
        compared(
            f"{what}, all checks", seconds["checked"], "no checks by running", seconds["ours"]
        ),
        compared(
            f"peak of: {what}, and a short forward",
            [memory["peak"]],
            "bytes of the weights",
            [memory["weights"]],
            1.08,
            unit="MB",
        ),
    ]


def large(options: Options) -> list[Row]:
    """The largest released layout with random weights, in bfloat16: load it, draw three figures.

    Its weights, some 6 GB, are written into the folder for temporary files first.
    """
    size = replace(options.size, checkpoint=options.size.large)
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(size, Path(folder))
        given: dict[str, Any] = {"device": str(options.device), "tokens": size.large_tokens}
        found = in_child("large", FREED_AT_ONCE, folder=folder, **given)
    what = f"{size.large} in bfloat16, {size.large_tokens} tokens, three figures"
    return [
        compared(
            f"peak of the process: {what}",
            [found["level"] + found["peak"]],
            "the memory that it is to fit",
            [LARGE_MEMORY],
            1.0,
            unit="MB",
        ),
        compared(
            f"peak above the imports: {what}",
            [found["peak"]],
            "bytes of the weights",
            [found["weights"]],
            unit="MB",
        ),
        compared(what, [found["seconds"]], "loading, with all checks", [found["loading"]]),
    ]


def sweeps(options: Options) -> list[Row]:
    """The three figures' statistics over a corpus, by the bundled pair: speed and memory."""
    return [row for name in PAIR for row in _swept(options, name)]


def _swept(options: Options, name: str) -> list[Row]:
    many, few = options.size.sequences
    batches = list(held_out(many))
    per_part = -(-len(batches) // SWEPT_SHARES)
    parts = [batches[at : at + per_part] for at in range(0, len(batches), per_part)]
    given: dict[str, Any] = {"device": str(options.device), "dtype": options.dtype_name}
    model: Any = mi.load_model(name, **given)

    @torch.no_grad()
    def loop(part: list[torch.Tensor], return_type: str | None) -> None:
        for tokens in part:
            model(tokens.to(options.device), return_type=return_type)

    functions: dict[str, Callable[[list[torch.Tensor]], object]] = {
        "logits": partial(loop, return_type="logits"),
        "no logits": partial(loop, return_type=None),
        "sweep": lambda part: sweep(model, part, THREE_FIGURES),
    }
    seconds = interleaved(
        len(parts),
        options.device,
        {key: _one_by_one(function, parts) for key, function in functions.items()},
    )
    sizes = [sum(tokens.numel() for tokens in part) for part in parts]
    speed = {
        key: [size / each for size, each in zip(sizes, found, strict=True)]
        for key, found in seconds.items()
    }
    long, short = (
        in_child("swept", FREED_AT_ONCE, model=name, sequences=count, **given)
        for count in (many, few)
    )
    what, unit = f"sweep of {many:,} sequences (no logits), {name}", "tokens/s"
    loops = [("a loop of forward passes", "logits", 0.65)]
    loops += [("a loop of forward passes without logits", "no logits", None)]
    return [
        *(
            compared(what, speed["sweep"], peer, speed[key], reach, unit=unit, at_least=True)
            for peer, key, reach in loops
        ),
        compared(
            f"peak of the process: {what}",
            [long["level"] + long["peak"]],
            f"of one over {few}",
            [short["level"] + short["peak"]],
            1.02,
            unit="MB",
        ),
        compared(
            f"peak above the model: {what}",
            [long["peak"]],
            f"of one over {few}",
            [short["peak"]],
            unit="MB",
        ),
    ]


def _one_by_one(
    function: Callable[[list[torch.Tensor]], object], parts: list[list[torch.Tensor]]
) -> Callable[[], object]:
    """A function that takes the next part at each call; the first part also warms it up."""
    following = iter([parts[0], *parts])
    return lambda: function(next(following))


def train(options: Options) -> list[Row]:
    """A training step of the bundled pair: its recipe's batch, micro-batches, clipping, AdamW."""
    recipe, cfg = PRESETS[PAIR[0]].recipe, PRESETS[PAIR[0]].cfg
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(cfg.d_vocab, (recipe.batch, cfg.n_ctx + 1), generator=generator)
    calls: dict[str, Callable[[], object]] = {
        name: partial(_step(name, options), rows.to(options.device)) for name in PAIR
    }
    seconds = interleaved(options.repeats, options.device, calls)
    mudd, plain = (seconds[name] for name in PAIR)
    return [compared("training step, float32, mudd-tiny", mudd, "tfm-tiny", plain, 1.25)]


@torch.no_grad()
def compiled(options: Options) -> list[Row]:
    """``torch.compile`` of a forward pass: what it gains, and what its first call costs.

    Raises:
        ValueError: If torch cannot compile here.
    """
    size = options.size
    tokens = random_tokens(size, size.tokens, options.device)
    model = mudd_pythia(size, options.device, options.dtype)
    faster = torch.compile(model)
    began = time.perf_counter()
    try:
        compiled_logits = faster(tokens)
    except RuntimeError as error:  # what torch raises when it cannot compile is one of these
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"torch.compile fails here ({reason}); on a CPU it needs a C++ compiler."
        ) from error
    first = time.perf_counter() - began
    gap = largest_difference(model(tokens), compiled_logits)
    if options.dtype == torch.float32 and gap > SAME_WEIGHTS:
        raise ValueError(f"expected the logits of the model, torch.compile's differ by {gap}.")
    seconds = interleaved(
        options.repeats,
        options.device,
        {"compiled": partial(faster, tokens), "eager": partial(model, tokens)},
    )
    what, peer = "torch.compile, forward, MUDDPythia", "as it is"
    return [
        compared(what, seconds["compiled"], peer, seconds["eager"]),
        compared(f"{what}: the first call", [first], peer, [statistics.median(seconds["eager"])]),
    ]


def _step(name: str, options: Options) -> Callable[[torch.Tensor], None]:
    preset = PRESETS[name]
    model = mi.HookedMUDDTransformer(preset.cfg, device=options.device).train()
    optimizer, loss = make_optimizer(model.named_parameters(), preset.recipe), mean_loss(model)

    def step(rows: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        for chunk in rows.split(preset.recipe.micro_batch):
            share = len(chunk) / len(rows)
            (loss(chunk[:, :-1].contiguous(), chunk[:, 1:].contiguous()) * share).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), preset.recipe.clip)
        optimizer.step()

    return step
