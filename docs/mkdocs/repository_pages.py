"""MkDocs hook: brings files of the repository outside docs/ into the site, so that links to them work there as well.

On a code host a page links to another file by its relative path. The site holds docs/ alone, so every such target
becomes a page below `repository/`: Markdown as it is, any other file as a listing, a folder as the names in it. The
links are rewritten, and a target that does not exist ends the build.
"""

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PREFIX = "repository/"
LINK = re.compile(r"(?<=\]\()(?!#)(?![a-z]+:)([^)\s#]+)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^\s*```")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sh": "bash", ".toml": "toml", ".json": "json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside docs/ that a page links to, and for what those pages link to in turn."""
    root = Path(config.config_file_path).parent
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    seen = set(waiting)
    while waiting:
        source = waiting.pop()
        for target in _targets(source, (root / source).read_text()):
            if target in seen or target.startswith("docs/"):
                continue
            seen.add(target)
            if not (root / target).exists():
                raise PluginError(f"{source} links to {target}, which is not in the repository")
            files.append(File.generated(config, _site_path(target), content=_content(root, target)))
            if target.endswith(".md"):
                waiting.append(target)
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Point the links of a page at the site's copies."""
    source = _repository_path(page.file.src_uri)
    if source is None:
        return markdown
    here = posixpath.dirname(page.file.src_uri)

    def rewrite(target: str) -> str:
        return posixpath.relpath(_site_path(target), here or ".")

    return _map_links(source, markdown, rewrite)


def _repository_path(src_uri: str) -> str | None:
    """Path in the repository of a page of the site; None for a listing, which has no links."""
    if not src_uri.startswith(PREFIX):
        return f"docs/{src_uri}"
    path = src_uri.removeprefix(PREFIX)
    return None if path.removesuffix(".md").endswith(tuple(LANGUAGES)) else path


def _site_path(target: str) -> str:
    """Path in the site of a file of the repository."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return PREFIX + target + ("" if target.endswith(".md") else ".md")


def _content(root: Path, target: str) -> str:
    if (root / target).is_dir():
        names = sorted(path.name for path in (root / target).iterdir())
        return f"# {target}\n\n" + "".join(f"- `{name}`\n" for name in names)
    text = (root / target).read_text()
    if target.endswith(".md"):
        return text
    return f"# {target}\n\n```` {{ .{LANGUAGES.get(Path(target).suffix, 'text')} }}\n{text.rstrip()}\n````\n"


def _targets(source: str, text: str) -> Iterator[str]:
    found: list[str] = []
    _map_links(source, text, lambda target: found.append(target) or target)
    yield from found


def _map_links(source: str, text: str, change: Callable[[str], str]) -> str:
    """Replace the target of every relative link outside fenced code by what `change` makes of its repository path."""
    folder = posixpath.dirname(source)

    def replace(match: re.Match[str]) -> str:
        return change(posixpath.normpath(posixpath.join(folder, match[1]))) + (match[2] or "")

    lines, inside = text.split("\n"), False
    for number, line in enumerate(lines):
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            lines[number] = LINK.sub(replace, line)
    return "\n".join(lines)
