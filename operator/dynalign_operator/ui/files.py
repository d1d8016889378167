"""Files of the page: its own, and those that it shares with the report. No path of a request is a path of a file."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from html import escape
from importlib import resources
from typing import Final

_SHARED: Final = ("report.css", "elements.js", "plots.js")
_OWN: Final = ("ui.css", "api.js", "list.js", "charts.js", "run.js", "logs.js", "app.js")
_TYPES: Final = {"css": "text/css", "js": "text/javascript"}
PLOTLY: Final = "plotly.js"


@dataclass(frozen=True)
class Asset:
    """A file that the page loads."""

    text: str
    media_type: str

    @cached_property
    def body(self) -> bytes:
        """The file's bytes."""
        return self.text.encode()

    @cached_property
    def tag(self) -> str:
        """Entity tag: a page that has the file need not load it again."""
        return f'"{hashlib.sha256(self.body).hexdigest()[:32]}"'


def load_assets() -> Mapping[str, Asset]:
    """Name -> file. Raises ModuleNotFoundError without the plotting library."""
    from plotly.offline import get_plotlyjs

    texts = {name: _read("dynalign_report", name) for name in _SHARED}
    texts |= {name: _read("dynalign_operator.ui", name) for name in _OWN}
    texts[PLOTLY] = get_plotlyjs()
    return {name: Asset(text, _TYPES[name.rpartition(".")[2]]) for name, text in texts.items()}


def render_page(form_token: str) -> str:
    """The page, with the token that its changes carry."""
    return _read("dynalign_operator.ui", "index.html").replace("{{form_token}}", escape(form_token))


def _read(package: str, name: str) -> str:
    return (resources.files(package) / "assets" / name).read_text(encoding="utf-8")
