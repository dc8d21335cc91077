"""What dense connections cost, for a person to read."""

from dataclasses import fields

from rich.console import Console
from rich.table import Table

from mudd_interp.costs.cost import Cost
from mudd_interp.costs.formulas import UNKNOWN, Extra

ROWS = {"parameters": "parameters", "flops": "FLOPs, forward pass", "memory": "activation memory"}


def print_cost(name: str, found: Cost, console: Console | None = None) -> None:
    """Print what :func:`~mudd_interp.cost` found of a model of a given name."""
    console = console or Console(soft_wrap=True)
    attention = "causal" if found.causal else "bidirectional"
    console.print(f"[bold]{name}[/bold]", highlight=False)
    console.print(
        f"  {found.counts.parameters:,} parameters; {found.tokens:,} tokens, {attention} attention",
        highlight=False,
    )
    console.print(_table(found))
    for line in _lines(found):
        console.print(f"  {line}", highlight=False, markup=False)


def _table(found: Cost) -> Table:
    table = Table("dense connections add", "paper", "exact sums", "as built")
    for column in table.columns[1:]:
        column.justify = "right"
    for field in fields(Extra):
        ways = (found.paper, found.exact, found.built)
        shares = ("none" if way is UNKNOWN else f"{getattr(way, field.name):.3%}" for way in ways)
        table.add_row(ROWS[field.name], *shares)
    return table


def _lines(found: Cost) -> list[str]:
    """The bases that the shares are of, and what is counted."""
    counts, seen = found.counts, "T" if found.causal else "2 T"
    parts = ", ".join(f"{part} {size:,}" for part, size in counts.dense.items())
    twin = "as built, the plain twin's"
    parameters = f"12 L D² (attention, FFN); {twin} {counts.twin_blocks:,} in blocks"
    flops = f"2 L D T (12 D + {seen}); {twin} {counts.twin_flops:.4g}"
    again = f"B T D (2 L + 34 + 6 N T / D) bytes, each block's made again for its gradient; {twin}"
    return [
        "100 % is, with L layers, width D, N heads, T tokens and B sequences,",
        f"  parameters: {parameters}",
        f"  FLOPs: {flops}",
        f"  memory: {again} {_size(counts.twin_memory)}, all kept",
        f"as built: {parts}; {found.of_model:.3%} of the model",
    ]


def _size(size: int) -> str:
    return f"{size / 1e6:,.3g} MB" if size < 1e9 else f"{size / 1e9:,.3g} GB"
