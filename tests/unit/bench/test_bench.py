"""What ``mudd-interp bench`` does, at toy size, where its numbers mean nothing: none is tested."""

import io
import json
import os
import shutil
import subprocess
import sys
from mmap import mmap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from mudd_interp.bench import BENCHES, measure, paper, print_report, write_growth
from mudd_interp.bench.child import FREED_AT_ONCE, JOBS, Peak, bytes_of, in_child
from mudd_interp.bench.growth import exponents
from mudd_interp.bench.measure import compared, interleaved
from mudd_interp.bench.options import Options
from mudd_interp.bench.sizes import size_of
from mudd_interp.cli import main

TOY: dict[str, Any] = {"size": "toy", "repeats": 1}


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch):
    """A process for each measurement takes seconds to start; one test below starts one."""
    for module in ("benches", "growth", "startup"):
        monkeypatch.setattr(
            f"mudd_interp.bench.{module}.in_child", lambda job, *_, **given: JOBS[job](**given)
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BENCHES if name != "compile"])
@pytest.mark.usefixtures("in_this_process")
def test_every_bench_gives_rows(name: str):
    found = measure([name], **TOY)
    rows = found["rows"][name]
    assert rows
    for row in rows:
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"], nan_ok=True)
        assert row["low"] <= row["ratio"] <= row["high"]
    printed = io.StringIO()
    print_report(json.loads(json.dumps(found)), Console(file=printed, width=200))
    assert all(row["what"] in printed.getvalue() for row in rows)


# On a CPU torch.compile writes C++ and calls the system's compiler, which pip cannot install: where
# there is none, there is nothing to measure.
@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="torch.compile needs a C++ compiler",
)
def test_torch_compile_is_measured(tmp_path: Path):
    # in a process without the checks of types that the tests add, which do not compile
    command = [sys.executable, "-m", "mudd_interp", "bench", "compile", "--size", "toy"]
    subprocess.run([*command, "--repeats", "1", "--json", tmp_path / "found.json"], check=True)
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]["compile"]
    assert len(rows) == 2
    assert rows[1]["ratio"] > rows[0]["ratio"] > 0  # the first call compiles


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_growth_is_measured_and_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = measure(["growth"], **TOY)
    points = pd.DataFrame(found["growth"]["points"])
    assert set(points["axis"]) == {"tokens", "layers"}
    assert set(points["model"]) == {"MUDDPythia", "plain twin"}
    write_growth(found, tmp_path / "growth.html")
    assert "How the cost of a forward pass grows" in (tmp_path / "growth.html").read_text()
    monkeypatch.setattr("mudd_interp.bench.report.find_browser", str)
    monkeypatch.setattr(
        "mudd_interp.bench.report.figure_images", lambda jobs: [repr(jobs).encode()]
    )
    write_growth(found, tmp_path / "growth.svg")
    assert "'svg'" in (tmp_path / "growth.svg").read_text()


def test_an_exponent_is_the_power_of_a_power_law():
    sizes = [8, 16, 32]
    shape = {"axis": "tokens", "model": "m"}
    points = [shape | {"tokens": n, "layers": 2, "seconds": 3.0 * n**2, "MB": n} for n in sizes]
    found = exponents(pd.DataFrame(points)).set_index("cost")["exponent"].to_dict()
    assert found["seconds"] == pytest.approx(2)
    assert found["MB"] == pytest.approx(1)


def options(name: str = "toy", dtype: torch.dtype = torch.float32) -> Options:
    cpu = torch.device("cpu")
    return Options(size=size_of(name), size_name=name, device=cpu, dtype=dtype, repeats=1)


def test_the_models_of_table_4_are_one_in_other_connections():
    """At the start a MUDDFormer is its plain twin; here they share their memory too."""
    config = paper._config(size_of("toy"), "toy")
    mudd = paper._untrained(config, options())
    twin = paper._twin(mudd)
    tokens = torch.randint(101, (1, 24))
    torch.testing.assert_close(mudd.logits(tokens), twin.logits(tokens))
    assert twin.config.wiring.kind == "plain"
    assert twin.blocks[1].ln1.w.data_ptr() == mudd.blocks[1].ln1_q.w.data_ptr()  # pyright: ignore
    shared = {parameter.data_ptr() for parameter in mudd.parameters()}
    assert {parameter.data_ptr() for parameter in twin.parameters()} <= shared


@torch.no_grad()
def test_what_is_decoded_after_the_prompt_is_forgotten(monkeypatch: pytest.MonkeyPatch):
    """So each repeat decodes the same tokens, those that the model generates."""
    mudd = paper._untrained(paper._config(size_of("toy"), "toy"), options())
    prompt = torch.randint(101, (1, 24))
    expected = mudd.generate(
        prompt, 4, stop_at_eos=False, do_sample=False, verbose=False, return_type="tokens"
    )
    decode = paper._decoder(mudd, prompt, 4)
    read, logits = [], mudd.logits

    def noted(tokens: torch.Tensor, past: Any) -> torch.Tensor:
        read.append(int(tokens))
        return logits(tokens, past)

    monkeypatch.setattr(mudd, "logits", noted)
    for _ in range(2):
        decode()
    assert read == 2 * expected[0, 24:28].tolist()


def test_sizes_that_do_not_fit_are_left_out_by_name(monkeypatch: pytest.MonkeyPatch):
    large = options("small", torch.bfloat16)
    needed = {name: paper._bytes(large, name) for name in ("1.3B", "2.8B", "6.9B")}
    weights, keys = 6.9e9, 2 * 2 * 32 * 4096 * 4224  # two models' keys and values
    prompt = 4096 * (50432 + 40 * 4096)
    assert needed["6.9B"] == pytest.approx(2 * (weights + keys + prompt), rel=0.01)
    monkeypatch.setattr(paper, "_free", lambda _: int(1.2 * needed["1.3B"] + 1))
    found = paper.left_out(large)
    assert list(found) == ["2.8B", "6.9B"]
    assert "GB in bfloat16" in found["2.8B"]
    monkeypatch.setattr(paper, "_free", lambda _: 0)
    nothing = measure(["paper"], **TOY)
    assert nothing["rows"]["paper"] == []
    printed = io.StringIO()
    print_report(nothing, Console(file=printed, width=200))
    assert "left out of the paper's sizes: toy (it takes" in printed.getvalue()


def test_the_ratio_of_the_paper_stands_beside():
    rows = [
        compared("decode", [1.0], "twin", [2.0], paper=286 / 325),
        compared("a", [1.0], "b", [1.0]),
    ]
    found: dict[str, Any] = {"rows": {"paper": [row.to_dict() for row in rows]}}
    found |= {"machine": {"processor": "p", "threads": 1, "torch": "t"}}
    found |= {"options": {"size": "toy", "dtype": "float32", "device": "cpu"}}
    printed = io.StringIO()
    print_report(found, Console(file=printed, width=200))
    assert "0.880" in printed.getvalue()


@pytest.mark.slow
def test_functions_take_turns_after_each_ran_once():
    called: list[str] = []
    functions = {name: lambda name=name: called.append(name) for name in "ab"}
    seconds = interleaved(3, torch.device("cpu"), functions)
    assert "".join(called) == "ab" + "ba" + "ab" + "ba"
    assert {len(each) for each in seconds.values()} == {3}


def test_a_ratio_is_the_median_of_neighbours():
    row = compared("a", [1.0, 4.0, 9.0], "b", [1.0, 2.0, 3.0], 2.0)
    assert (row.ratio, row.low, row.high) == (2.0, 1.0, 3.0)
    assert row.reached
    assert not compared("a", [3.0], "b", [1.0], 2.0).reached
    assert compared("a", [3.0], "b", [1.0], 2.0, at_least=True).reached
    assert compared("a", [3.0], "b", [1.0]).reached is None


def test_shared_memory_counts_once():
    tensor = torch.zeros(1000, dtype=torch.float32)
    assert bytes_of([tensor, tensor[:10], tensor.view(10, 100)]) == pytest.approx(0.004)
    assert bytes_of([tensor[:10], tensor[:10]]) == pytest.approx(0.00004)


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
def test_a_peak_is_of_the_block_alone():
    def pages(size: int) -> torch.Tensor:  # malloc might give some that it had kept
        return torch.frombuffer(mmap(-1, size), dtype=torch.uint8).fill_(1)

    before = pages(300_000_000)
    del before
    with Peak(torch.device("cpu")) as peak:
        kept = pages(50_000_000)
        gone = pages(100_000_000)
        del gone
    assert peak.kept == pytest.approx(50, abs=5)
    assert peak.peak == pytest.approx(150, abs=5)
    del kept


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
def test_the_memory_of_a_process_is_not_that_of_the_one_that_started_it():
    held = torch.ones(1_000_000_000, dtype=torch.uint8)
    found = in_child("cache", FREED_AT_ONCE, size="toy", device="cpu", dtype="float32")
    assert found["distinct"] < found["peak"] < 100
    del held


@pytest.mark.slow
def test_a_failed_process_is_an_error():
    with pytest.raises(ChildProcessError, match="measurement load failed"):
        in_child("load", folder="/nowhere", device="cpu", dtype="float32", check=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["forwrad"], "did you mean `forward`?"),
        (["--size", "smal"], "did you mean `small`?"),
        (["--dtype", "int8"], "dtype must be float32"),
        (["--device", "warp"], "cannot be used here"),
        (["forward", "--figure", "x.html"], "name it"),
        (["growth", "--figure", "x.gif"], "must end with one of .html, .png, .svg, .pdf"),
        (["growth", "--figure", "x"], "got 'x'"),
        (["startup", "--json", "/proc/x.json"], "No such file"),
    ],
)
def test_bad_input_is_one_message(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("sys.argv", ["mudd-interp", "bench", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err
