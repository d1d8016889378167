"""What the benchmark of learning tells of its runs."""

from benchmarks.learning_figures import Iteration, Run, end_share, summarise


def run_of(*worths: float) -> Run:
    iterations = [Iteration(worth, 0.5, 0.5, 0.9, 0.9, worth) for worth in worths]
    return Run("advised", 1, iterations, 0.5, exported=0)


def test_an_advised_run_is_measured_by_how_it_ends() -> None:
    assert end_share(run_of(2.0, 8.0, 6.0)) == 0.75
    _, values = summarise([run_of(2.0, 8.0, 6.0), run_of(2.0, 7.0, 8.0), run_of(4.0, 8.0, 7.6)])
    assert values == {
        "advised_runs": 3,
        "advised_lost": 1,
        "advised_end_near_their_best": 2,
        "advised_end_least": 0.75,
        "advised_with_the_best": 0,
        "advised_kept_least": 0.25,
    }
