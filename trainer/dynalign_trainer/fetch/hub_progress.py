"""Progress of a download from the hub, by huggingface_hub's public way to follow one: its `tqdm_class`."""

from typing import Any

from dynalign_trainer.fetch.copying import Watch


def progress_bar(watch: Watch) -> type[Any]:
    """A bar that prints nothing and tells `watch` how many bytes are there.

    huggingface_hub makes several: those that count bytes get a total that grows while files are begun, the one that
    counts files is left alone. What `watch` raises ends the download.
    """
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc] # tqdm has no types
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._bytes = kwargs.get("unit") == "B"
            self._done = int(kwargs.get("initial") or 0)
            super().__init__(*args, **kwargs | {"disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            self._done += int(n or 0)
            if self._bytes and self.total:
                watch(min(self._done, int(self.total)), int(self.total))
            return None

    return Bar
