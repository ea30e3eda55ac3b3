import os
from pathlib import Path

import pytest

# Or a failed check would not tell what it compared.
pytest.register_assert_rewrite("conformance_checks")
os.environ["HF_HUB_OFFLINE"] = "1"
# The tests compare with what a CPU computes in float32, also where a GPU is; make test-gpu is for that.
if not os.environ.get("PEGBOX_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or fills the feature cache of whoever runs it."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("PEGBOX_CACHE", str(folder))
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the file that takes longest first: one process works on it while the other does the rest."""
    items.sort(key=lambda item: item.path.name != "test_docs.py")
