"""Fixtures of all tests; the only place that knows where real data may lie."""

import os
from pathlib import Path

os.environ.setdefault("SCIPY_ARRAY_API", "1")  # or scikit-learn skips its check of array input

# processes of tests share the cores, and numbers do not depend on how many cores there are
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data tables; a test that asks for it skips where there is none."""
    folder = Path(os.environ.get("MTLSK_TEST_DATA", "../shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in MTLSK_TEST_DATA={folder}")
    return folder.resolve()


# files whose few tests take minutes, begun first: the last to end should not be one of them
LONGEST = ("test_study", "test_postgresql", "test_plugin", "test_examples", "test_endings")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first and leave all others in their order."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)
