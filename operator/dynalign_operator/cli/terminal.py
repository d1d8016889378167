"""Everything that the commands print. Texts of models, servers, volumes and users reach a terminal in no other way.

They lose control characters, escape sequences and bidirectional controls here, whether stdout is a terminal or a pipe,
and nothing in them counts as markup.
"""

from collections.abc import Iterable
from io import StringIO
from typing import TYPE_CHECKING, Any

import typer

from dynalign_contract.plain_text import escape_hidden, plain_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text


def say(text: str, *, err: bool = False, end: str = "\n") -> None:
    """Print a text on stdout, or on stderr."""
    typer.echo(plain_text(text) + end, nl=False, err=err)


def print_json(text: str) -> None:
    """Print JSON for a program: every value as it is, hidden characters as JSON's escapes."""
    typer.echo(escape_hidden(text))


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 prompt`, `2 prompts`; `plural` where it is not the noun with an s."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def styled(text: str, style: str = "") -> "Text":
    """A text in one style, for a table or a picture."""
    from rich.text import Text

    return Text(plain_text(text), style=style)


def as_text(renderable: "RenderableType", width: int) -> str:
    """What a console of this many columns would show, without colours and without spaces at the ends of lines."""
    console = open_console(file=StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def open_console(**options: Any) -> "Console":
    """A rich console on stdout that takes strings for what they are: no markup, no emoji codes, no highlighting.

    `options` are those of rich's Console.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    class PlainConsole(Console):
        """Strings pass through `render_str`, every renderable, nested ones too, through `render`."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(plain_text(text), **options)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=plain_text(segment.text))

    return PlainConsole(markup=False, emoji=False, highlight=False, **options)
