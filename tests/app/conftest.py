"""The app's modules import their siblings by plain names, as Streamlit runs them."""

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "app"))


@pytest.fixture(autouse=True, scope="session")
def no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Whoever runs the tests may have kept runs of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUDD_INTERP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
