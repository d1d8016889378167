"""The folder in which a laptop keeps models between runs, when it cannot be written."""

from pathlib import Path

import pytest

from dynalign_contract.exit_codes import ExitCode
from dynalign_operator.clusters.errors import UnusableCacheError
from dynalign_operator.clusters.local.cluster import open_local_cluster
from support.builders import a_run


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"HOME": "/proc"}, "the cache folder /proc/.cache/dynalign, which follows from HOME, cannot be written"),
        ({"HOME": "/proc"}, "Set DYNALIGN_CACHE to a folder that can be written"),
        ({"DYNALIGN_CACHE": "/proc/cache"}, "/proc/cache, which follows from DYNALIGN_CACHE, cannot be written"),
    ],
)
def test_it_is_refused_before_anything_is_written(
    variables: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DYNALIGN_CACHE", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(UnusableCacheError, match=words) as caught,
        open_local_cluster(tmp_path / "run", a_run().build()),
    ):
        pytest.fail("it was opened")
    assert caught.value.exit_code == ExitCode.BAD_CONFIG
    assert not (tmp_path / "run").exists()
