"""Runs that the app keeps in tests are separate from the user's."""

from collections.abc import Generator

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_cache_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Whoever runs the tests may have kept runs of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUDD_INTERP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
