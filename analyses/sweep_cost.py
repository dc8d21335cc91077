"""What a sweep over all edges costs, and what one whole forward pass for each edge would cost.

    python analyses/sweep_cost.py [--model NAME] [--sequences N] [--every N]

Both are measured on the same edges, each N-th in the order of depth, batch by batch in turn, in CPU
seconds of this process; the cost of all edges is extrapolated from those, as the output says. Naive
is the loss of an edited model and nothing else; the sweep measures KL and logits too.
"""

import argparse
import resource
import time
from collections.abc import Callable

import torch

import mudd_interp as mi
from mudd_interp.analysis import ablation_sweep
from mudd_interp.edits import every_edge


def seconds(work: Callable[[], object]) -> float:
    """CPU time of something, in seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure what a sweep over edges costs.")
    parser.add_argument("--model", default="mudd-tiny")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--every", type=int, default=20)
    given = parser.parse_args()
    torch.set_grad_enabled(False)
    model = mi.load_model(given.model)
    edges = sorted(every_edge(model), key=lambda edge: edge.kept_outputs)
    sample = edges[given.every // 2 :: given.every]
    base = naive = swept = 0.0
    batches = list(mi.data.bundled_batches(given.sequences))
    ablation_sweep(model, batches[:1], sample[:4])  # its memory does not grow with the text
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for tokens in batches:

        def one_by_one(tokens: torch.Tensor = tokens) -> None:
            for edge in sample:
                mi.run(model, edge, tokens, return_type="loss")

        base += seconds(lambda tokens=tokens: model(tokens, return_type="loss"))
        naive += seconds(one_by_one)
        swept += seconds(lambda tokens=tokens: ablation_sweep(model, [tokens], sample))
    tokens = sum(batch.numel() for batch in batches)
    print(f"{len(sample)} of {len(edges)} edges, {given.sequences} sequences, {tokens:,} tokens")
    print(
        f"measured: naive {naive:.1f} s, sweep {swept:.1f} s, one pass without edits {base:.1f} s"
    )
    # Every edge costs the same in naive passes; a sweep also runs the model once without edits.
    times = len(edges) / len(sample)
    whole = base + (swept - base) * times
    print(
        f"all {len(edges)} edges, extrapolated: naive {naive * times:.0f} s, sweep {whole:.0f} s, "
        f"{naive * times / whole:.2f} times less"
    )
    print(
        f"peak memory of a process that sweeps: {peak:.2f} GiB; {torch.get_num_threads()} threads"
    )


if __name__ == "__main__":
    main()
