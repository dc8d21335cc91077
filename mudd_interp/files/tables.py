r"""Tables as CSV: one spelling for all that this library writes.

UTF-8, a comma between fields, ``\n`` behind rows. Text always stands in quotes, whatever is in it
(a line end, a quote, a formula), and is left as it is; numbers never do. What is missing is empty.
A half of a surrogate pair, which UTF-8 has not, is spelled ``\udce9``.

``csv.reader`` (of a file that was opened with ``newline=""``) gives back every text. So does
``pandas.read_csv`` if it is told what is text, and to take nothing else for missing::

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
    """Rows as CSV, to be put behind others."""
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode(*_ENCODING)
