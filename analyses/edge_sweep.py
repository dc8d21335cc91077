"""Every edge of a model cut in turn, and its dynamic weights replaced: results kept in a folder.

    python analyses/edge_sweep.py [--model NAME] [--sequences N] [--out FOLDER]

The defaults made `results/`, which `03_weight_contribution_cause` reads. A run that was interrupted
resumes from its last batch.
"""

import argparse
from pathlib import Path

from rich.console import Console

import mudd_interp as mi
from mudd_interp.analysis import ablation_sweep, dense_weights, static_vs_dynamic


def main() -> None:
    """Compute and keep."""
    parser = argparse.ArgumentParser(description="Cut every edge of a model in turn.")
    parser.add_argument("--model", default="mudd-tiny")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    console, model = Console(), mi.load_model(given.model)
    batches = mi.data.bundled_batches(given.sequences)

    def report(sequences: int, tokens: int) -> None:
        console.print(f"{sequences:,} of {given.sequences:,} sequences, {tokens:,} tokens")

    ablation_sweep(model, batches, path=given.out / "edge_sweep.safetensors", progress=report)
    means = dense_weights(model, mi.data.bundled_batches())
    static_vs_dynamic(model, batches, means, report).save(
        given.out / "static_vs_dynamic.safetensors"
    )


if __name__ == "__main__":
    main()
