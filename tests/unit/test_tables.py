"""CSV: whatever a text is, it reads back, by the standard library and by pandas."""

import csv
import io
import math
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from mudd_interp.files import csv_rows, csv_table

AWKWARD = [
    *map(chr, range(33)),
    *("\x7f", "\x85", "\xa0", "\u2028", "\u2029", "\ufeff", "\ufffd", "\U0001f600", "\r\n", "a\rb"),
    *("", " ", '"', '""', "a,b", "\\", "'", "#", "=1+1", "+1", "-1", "@x", "007", "1e5", "0x1"),
    *("NA", "NaN", "nan", "null", "NULL", "None", "N/A", "<NA>", "inf", "True", "2026-01-01"),
]
# No halves of surrogate pairs: UTF-8 has none.
TEXTS = st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(exclude_categories=("Cs",))))
NUMBERS = st.one_of(st.floats(), st.sampled_from([0.1, 1e-300, -0.0, math.nan]))


def table(rows: list[tuple[str, float, str]]) -> pd.DataFrame:
    texts, numbers, others = zip(*rows, strict=True)
    whole = pd.array([None if math.isnan(each) else 7 for each in numbers], "Int64")
    columns: dict[str, Any] = {"token": np.array(texts, dtype=object), "loss": numbers}
    columns |= {"rank": whole, "other, text": np.array(others, dtype=object)}
    return pd.DataFrame(columns)


@given(st.lists(st.tuples(TEXTS, NUMBERS, TEXTS), min_size=1, max_size=20))
def test_every_row_column_and_value_reads_back(rows: list[tuple[str, float, str]]):
    frame = table(rows)
    data = csv_table(frame)
    header, *read = csv.reader(io.StringIO(data.decode(), newline=""))
    assert header == list(frame.columns)
    assert [(row[0], row[3]) for row in read] == [(token, other) for token, _, other in rows]
    assert [row[1] for row in read] == ["" if math.isnan(n) else repr(n) for _, n, _ in rows]
    back = pd.read_csv(
        io.BytesIO(data),
        dtype={"token": str, "other, text": str, "rank": "Int64"},
        keep_default_na=False,
        na_values={"loss": "", "rank": ""},
    )
    for name in frame:
        assert back[name].tolist() == frame[name].tolist() or name in ("loss", "rank"), name
    np.testing.assert_array_equal(back["loss"].astype(float), frame["loss"])
    assert back["rank"].isna().tolist() == frame["rank"].isna().tolist()


def test_every_awkward_text_at_once():
    frame = pd.DataFrame({"token": np.array(AWKWARD, dtype=object)})
    data = csv_table(frame)
    assert [row[0] for row in csv.reader(io.StringIO(data.decode(), newline=""))][1:] == AWKWARD
    back = pd.read_csv(io.BytesIO(data), dtype={"token": str}, keep_default_na=False)
    assert back["token"].tolist() == AWKWARD
    assert b'\n"=1+1"\n' in data  # as it is, in quotes


def test_half_of_a_surrogate_pair_is_spelled():
    frame = pd.DataFrame({"model": pd.Series(["caf\udce9"], dtype=object)})
    assert csv_table(frame) == b'"model"\n"caf\\udce9"\n'


def test_rows_are_spelled_as_tables_are():
    frame = pd.DataFrame({"step": [1, 2], "name": np.array(["a", "\r"], dtype=object)})
    frame["loss"] = [0.1, math.nan]
    rows = [["step", "name", "loss"], [1, "a", 0.1], [2, "\r", None]]
    assert csv_rows(rows) == csv_table(frame)
