r"""Tables as CSV: one spelling for all that this library writes.

UTF-8, a comma between fields, ``\n`` after each row. Text is always in quotes and otherwise as it
is, whatever it contains (a line end, a quote, a formula); numbers are never in quotes. A missing
value is empty. Half a surrogate pair, which UTF-8 does not have, is spelled ``\udce9``.

``csv.reader`` (of a file that was opened with ``newline=""``) gives back every text. So does
``pandas.read_csv`` if it is told which columns are text, and to take nothing else as missing::

    pd.read_csv(
        "logit_lens.csv",
        dtype={"top_token": str},  # or "007" is a number
        keep_default_na=False,  # or "NA", "null" and "None" are missing
        na_values={"answer_probability": ""},  # for columns of numbers with gaps
    )
"""

import csv
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_ENCODING: tuple[str, str] = ("utf-8", "backslashreplace")


def csv_table(frame: "pd.DataFrame") -> bytes:
    """A table as CSV, its columns' names in the first row and without its index."""
    text = frame.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    return text.encode(*_ENCODING)


def csv_rows(rows: Iterable[Iterable[Any]]) -> bytes:
    """Rows as CSV, to be appended to others."""
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode(*_ENCODING)
