"""The operator's environment, and what is said when it is wrong."""

import pytest

from dynalign_operator.clusters.kubernetes.progress_source import ProgressSource
from dynalign_operator.manifests.installation import SettingsError
from dynalign_operator.service.settings import OperatorSettings, read_settings


def test_nothing_set_is_a_cluster_wide_operator() -> None:
    assert read_settings({}) == OperatorSettings()
    assert read_settings({"DYNALIGN_NAMESPACES": "", "DYNALIGN_TRAINER_IMAGE": ""}) == OperatorSettings()


def test_all_set() -> None:
    settings = read_settings(
        {
            "DYNALIGN_TRAINER_IMAGE": "trainer:1",
            "DYNALIGN_IMAGE_PULL_SECRETS": "one, two",
            "DYNALIGN_NAMESPACES": "a,b",
            "DYNALIGN_METRICS_PORT": "1",
            "DYNALIGN_PROBE_PORT": "2",
            "DYNALIGN_PROGRESS": "ApiProxy",
            "DYNALIGN_LOG_LEVEL": "debug",
        }
    )
    assert (settings.build.trainer_image, settings.build.image_pull_secrets) == ("trainer:1", ("one", "two"))
    assert (settings.namespaces, settings.metrics_port, settings.probe_port) == (("a", "b"), 1, 2)
    assert (settings.progress, settings.log_level) == (ProgressSource.API_PROXY, "DEBUG")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DYNALIGN_METRICS_PORT", "http", "is 'http'; write a port number"),
        ("DYNALIGN_PROBE_PORT", "70000", "is '70000'; write a port number"),
        ("DYNALIGN_PROGRESS", "Push", "is 'Push'; write one of PodIP, ApiProxy, Off"),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} {sentence}"):
        read_settings({name: value})
