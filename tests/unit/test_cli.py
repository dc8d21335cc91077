"""The command line: what it makes, and that it can be made again."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from mudd_interp import cli
from mudd_interp.catalog import FIGURES
from mudd_interp.checkpoints.names import BUNDLED_FOLDER
from mudd_interp.config import ModelConfig
from mudd_interp.figures import MANIFEST
from mudd_interp.files import sealed, unsealed
from mudd_interp.model import HookedMUDDTransformer
from tests.unit.command import run

STANDARD = [kind.name for kind in FIGURES.values() if kind.standard]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Figures of the bundled pair on a few sequences."""
    out = tmp_path_factory.mktemp("made") / "figures"
    with pytest.MonkeyPatch.context() as monkeypatch:
        command = ["figures", "--out", out, "--sequences", 3, "--batch-size", 2]
        assert run(*command, monkeypatch=monkeypatch) == 0
    return out


@pytest.mark.slow
def test_every_figure_has_a_page_and_its_numbers(made: Path):
    expected = {f"{name}.{suffix}" for name in STANDARD for suffix in ("html", "csv")}
    assert {path.name for path in made.iterdir()} == expected | {MANIFEST}
    for name in STANDARD:
        assert len(pd.read_csv(made / f"{name}.csv")) > 10, name
        assert "plotly" in (made / f"{name}.html").read_text(encoding="utf-8").lower()


@pytest.mark.slow
def test_the_manifest_says_what_it_was_made_from(made: Path):
    manifest = json.loads((made / MANIFEST).read_text())
    assert manifest["request"]["sequences"] == 3
    for role, name in (("model", "mudd-tiny"), ("baseline", "tfm-tiny")):
        assert manifest[role]["model"] == name
        assert len(manifest[role]["digest"]) == 64
        assert manifest[role]["tokens"] == 3 * 256
    assert {"python", "torch", "transformer-lens", "mudd-interp"} <= set(manifest["versions"])


@pytest.mark.slow
def test_the_same_figures_can_be_made_from_the_manifest(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    again = tmp_path / "again"
    command = ["figures", "--manifest", made / MANIFEST, "--out", again]
    assert run(*command, monkeypatch=monkeypatch) == 0
    for name in STANDARD:
        for suffix in ("csv", "html"):
            file = f"{name}.{suffix}"
            assert (again / file).read_bytes() == (made / file).read_bytes(), file


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"), [("layer_similarity", 2), ("edge_effects", 1), ("loss_comparison", 1)]
)
def test_an_interrupted_command_goes_on_from_what_it_kept(
    name: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    command = ["figures", "--only", name, "--sequences", 3, "--batch-size", 1, "--context", 16]
    command += ["--resume", tmp_path / "state"]
    monkeypatch.setattr("mudd_interp.analysis.Analysis.chunk", 2)
    with monkeypatch.context() as context:
        context.setattr("mudd_interp.figures.write_figures", _interrupted)
        assert run(*command, "--out", tmp_path / "a", monkeypatch=context) == 130
    assert not (tmp_path / "a").exists()
    with monkeypatch.context() as context:
        # nothing is left to run
        context.setattr("mudd_interp.analysis.resumable.walk", _interrupted)
        assert run(*command, "--out", tmp_path / "b", monkeypatch=context) == 0
    assert len(list((tmp_path / "state").glob("*/1-of-1/*.safetensors"))) == count


def _interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_the_manifest_of_a_relative_text_works_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    texts = tmp_path / "texts"
    texts.mkdir()
    for name in ("a", "b"):
        (texts / f"{name}.txt").write_text(f"def {name}(x):\n    return x + 1\n" * 20)
    (texts / "empty.txt").touch()
    (texts / "up").symlink_to(tmp_path)
    shutil.copytree(BUNDLED_FOLDER / "tfm-tiny", tmp_path / "plain")
    shutil.copy(BUNDLED_FOLDER / "tokenizer.json", tmp_path / "plain")
    monkeypatch.chdir(tmp_path)
    command = ["figures", "--only", "layer_similarity", "--text", "texts", "--baseline", "./plain"]
    assert run(*command, "--out", "first", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"left out: {texts / 'empty.txt'} (empty)",
        f"left out: {texts / 'up'} (read already by another path)",
    ]

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    command = ["figures", "--manifest", tmp_path / "first" / MANIFEST, "--out", "again"]
    assert run(*command, monkeypatch=monkeypatch) == 0
    for file in ("layer_similarity.csv", "layer_similarity.html"):
        assert Path("again", file).read_bytes() == (tmp_path / "first" / file).read_bytes()

    def refused(*words: str) -> None:
        assert run(*command[:-1], "third", monkeypatch=monkeypatch) == 2
        assert " ".join(words) in capsys.readouterr().err
        assert not Path("third").exists()

    (texts / "c.txt").write_text("new")
    refused(str(texts / "c.txt"), "is new")
    (texts / "c.txt").unlink()
    (texts / "b.txt").write_text("changed")
    refused(str(texts / "b.txt"), "has changed")
    (texts / "b.txt").unlink()
    refused(str(texts / "b.txt"), "is missing")
    shutil.rmtree(texts)
    refused(str(texts / "a.txt"), "is missing")


@pytest.mark.parametrize(("rank", "shown"), [("0", True), ("1", False), (None, True)])
def test_one_of_several_processes_shows_progress(
    rank: str | None,
    shown: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    with cli._progress("sweeping") as progress:
        progress(2, 512)
    assert ("sweeping: 2 sequences, 512 tokens" in capsys.readouterr().err) is shown


@pytest.mark.slow
def test_another_text_is_not_called_the_same(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    manifest = json.loads((made / MANIFEST).read_text())
    manifest["model"]["token_digest"] = "0" * 64
    whole = sealed(
        unsealed(manifest | {"sha256": None}, "it")
    )  # as another text would have made it
    (tmp_path / "old.json").write_text(json.dumps(whole))
    command = ["figures", "--manifest", tmp_path / "old.json", "--out", tmp_path / "again"]
    assert run(*command, monkeypatch=monkeypatch) == 2
    assert "token_digest" in capsys.readouterr().err
    assert not (tmp_path / "again").exists()


def test_inspect_counts_every_parameter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run("inspect", "mudd-tiny", "--json", monkeypatch=monkeypatch) == 0
    description = json.loads(capsys.readouterr().out)
    parts = dict(description["parameters"])
    total = parts.pop("total")
    assert sum(parts.values()) == total
    cfg = ModelConfig.from_dict(
        {k: v for k, v in bundled_config().items() if k not in ("model_type", "format_version")}
    )
    fresh = HookedMUDDTransformer(cfg)
    assert total == sum(parameter.numel() for parameter in fresh.parameters())
    dense = sum(parameter.numel() for parameter in fresh.dense.parameters())
    assert parts["dense connections"] == dense
    assert run("inspect", "tfm-tiny", monkeypatch=monkeypatch) == 0
    assert "FFN" in capsys.readouterr().out


def bundled_config() -> dict[str, object]:
    folder = Path(cli.__file__).parent / "bundled" / "mudd-tiny"
    return json.loads((folder / "config.json").read_text())


@pytest.mark.slow
def test_old_figures_are_replaced_when_asked(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    command: list[object] = [
        "figures",
        "--out",
        made,
        "--sequences",
        3,
        "--only",
        "layer_similarity",
    ]
    assert run(*command, monkeypatch=monkeypatch) == 2
    assert "--overwrite" in capsys.readouterr().err
    old = tmp_path / "old"
    shutil.copytree(made, old)
    (old / "thesis.txt").write_text("mine")
    command[2] = old
    assert run(*command, "--overwrite", monkeypatch=monkeypatch) == 2
    assert "thesis.txt" in capsys.readouterr().err
    (old / "thesis.txt").unlink()
    assert run(*command, "--overwrite", monkeypatch=monkeypatch) == 0
    assert {path.stem for path in old.iterdir()} == {"layer_similarity", "manifest"}


def test_help_and_the_package_load_neither_torch_nor_transformer_lens():
    code = (
        "import sys, mudd_interp, mudd_interp.cli; "
        "print([m for m in ('torch', 'transformer_lens', 'plotly') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(made: Path, tmp_path: Path):
    out = tmp_path / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
    command += ["mudd_interp", "figures", "--out", str(out), "--sequences", "3"]
    command += ["--batch-size", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, capture_output=True)
    for name in ("layer_similarity", "dense_weights", "head_activity_by_head"):
        one, two = (pd.read_csv(folder / f"{name}.csv") for folder in (made, out))
        # The same terms, added in another order: float64 rounding.
        pd.testing.assert_frame_equal(one, two, rtol=1e-10, atol=1e-12)
