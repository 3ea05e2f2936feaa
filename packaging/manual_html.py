"""manual_html.py MAN OUT: write the manual pages in MAN as HTML into OUT, with an index and a style sheet.

Understands the requests and escapes of man(7) that these pages use; any other is an error, so that no text is lost.
Runs at the build of the packages: it needs nothing but Python 3.11.
"""

import html
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

SUITE = "llama-orch"
STYLE = Path(__file__).parent / "html/style.css"
FIRST = ("llama-orch.7", "llama-orch-quickstart.7", "orchctl.1")  # in the index
UNITS_PAGE = "llama-orch-units.7"
NEWLINE = "\n"
Lines = Iterator[tuple[int, str]]
CHARACTERS = {"aq": "'", "bu": "•", "dq": '"', "ga": "`", "ha": "^", "lq": "“", "rq": "”", "ti": "~"}
ESCAPE = re.compile(r"\\(?:f([BIRP])|\((\w\w)|([-%:&e]))")
PLAIN = {"-": "-", "%": "", ":": "", "&": "", "e": "\\"}
REFERENCE = re.compile(r"(<b>)?([\w.@-]+)(</b>)?\((\d)\)")
UNIT = re.compile(r"<b>([a-z][\w-]*@?)(\w*)(\.(?:service|socket|path|target|slice))</b>")


class UnknownSource(Exception):
    """A page uses what this program does not understand."""


@dataclass(frozen=True)
class Manual:
    """The names of all pages, such as `orchctl.1`, and the units that llama-orch-units(7) describes."""

    pages: Sequence[str]
    units: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Place:
    """A line of a page."""

    manual: Manual
    page: str
    number: int

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


@dataclass
class _Body:
    """The HTML of a page while it is written. `open` are the elements that have to be closed."""

    parts: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    floors: list[int] = field(default_factory=lambda: [0])
    ids: set[str] = field(default_factory=set)
    headings: list[tuple[str, str]] = field(default_factory=list)

    def start(self, element: str) -> None:
        self.parts.append(f"<{element}>")
        self.open.append(element)

    def close_to(self, depth: int) -> None:
        while len(self.open) > depth:
            self.parts.append(f"</{self.open.pop()}>\n")

    def close_paragraph(self) -> None:
        if self.open and self.open[-1] == "p":
            self.close_to(len(self.open) - 1)

    def item(self, list_element: str, item_element: str) -> None:
        """Close what is open in the present list, or in another one, and start an item."""
        floor = self.floors[-1]
        if self.open[floor : floor + 1] == [list_element]:
            self.close_to(floor + 1)
        else:
            self.close_to(floor)
            self.start(list_element)
        if item_element == "li":
            self.start("li")

    def id_for(self, text: str) -> str:
        base = re.sub(r"[^a-z0-9@._/-]+", "-", text.lower()).strip("-") or "x"
        name, number = base, 2
        while name in self.ids:
            name, number = f"{base}-{number}", number + 1
        self.ids.add(name)
        return name


def inline(source: str, place: Place, *, units: bool = True) -> str:
    """Return a line of text as HTML, with links to the pages and units of the manual. Raises UnknownSource."""
    parts, font, position = [], "", 0
    for found in ESCAPE.finditer(source):
        parts.append(_text(source[position : found.start()], place))
        position = found.end()
        wanted, character, other = found.groups()
        if wanted:
            parts.append(f"</{font}>" if font else "")
            font = {"B": "b", "I": "i"}.get(wanted, "")
            parts.append(f"<{font}>" if font else "")
        elif character:
            if character not in CHARACTERS:
                raise UnknownSource(f"{place}: unknown character \\({character}")
            parts.append(html.escape(CHARACTERS[character], quote=False))
        else:
            parts.append(PLAIN[other])
    parts.append(_text(source[position:], place))
    parts.append(f"</{font}>" if font else "")
    text = REFERENCE.sub(lambda found: _page_link(found, place.manual), "".join(parts))
    if not units or place.page == UNITS_PAGE:
        return text
    return UNIT.sub(lambda found: _unit_link(found, place.manual), text)


def _text(source: str, place: Place) -> str:
    if "\\" in source:
        raise UnknownSource(f"{place}: unknown escape in {source!r}")
    return html.escape(source, quote=False)


def _page_link(found: re.Match[str], manual: Manual) -> str:
    name = f"{found[2]}.{found[4]}"
    return f'<a href="{name}.html">{found[0]}</a>' if name in manual.pages else found[0]


def _unit_link(found: re.Match[str], manual: Manual) -> str:
    name = f"{found[1]}{found[3]}"
    return f'<a href="{UNITS_PAGE}.html#{name}">{found[0]}</a>' if name in manual.units else found[0]


def body_of(lines: Sequence[str], manual: Manual, page: str) -> _Body:
    """Return the HTML of the lines that follow .TH. Raises UnknownSource."""
    body = _Body()
    rest = iter(enumerate(lines, start=2))
    for number, line in rest:
        place = Place(manual, page, number)
        if not line.startswith("."):
            _paragraph(body)
            body.parts.append(inline(line, place) + "\n")
            continue
        request, _, argument = line[1:].partition(" ")
        if request not in REQUESTS:
            raise UnknownSource(f"{place}: unknown request .{request}")
        REQUESTS[request](body, argument, place, rest)
    body.close_to(0)
    return body


def _paragraph(body: _Body) -> None:
    if not body.open or body.open[-1] in ("dd", "li"):
        body.start("p")


def _heading(body: _Body, argument: str, place: Place, rest: Lines, *, element: str) -> None:
    body.floors[:] = [0]
    body.close_to(0)
    shown = inline(argument.strip('"'), place)
    anchor = body.id_for(re.sub(r"<[^>]*>", "", shown))
    if element == "h2":
        body.headings.append((anchor, shown))
    body.parts.append(f'<{element} id="{anchor}"><a href="#{anchor}">{shown}</a></{element}>\n')


def _tagged(body: _Body, argument: str, place: Place, rest: Lines) -> None:
    body.item("dl", "dd")
    body.parts.append(_tag(body, inline(next(rest)[1], place, units=False)))
    body.start("dd")


def _indented(body: _Body, argument: str, place: Place, rest: Lines) -> None:
    if argument:
        body.item("ul" if argument.startswith("\\(bu") else "ol", "li")
    else:
        body.close_paragraph()


def _begin_indent(body: _Body, argument: str, place: Place, rest: Lines) -> None:
    body.close_paragraph()
    body.floors.append(len(body.open))


def _example(body: _Body, argument: str, place: Place, rest: Lines) -> None:
    body.close_paragraph()
    shown: list[str] = []
    for _number, line in rest:
        if line == ".EE":
            body.parts.append(f"<pre>{NEWLINE.join(shown)}</pre>\n")
            return
        shown.append(inline(line, place))
    raise UnknownSource(f"{place}: .EX without .EE")


REQUESTS: Mapping[str, Callable[[_Body, str, Place, Lines], None]] = {
    "SH": partial(_heading, element="h2"),
    "SS": partial(_heading, element="h3"),
    "PP": lambda body, *_rest: body.close_to(body.floors[-1]),
    "TP": _tagged,
    "IP": _indented,
    "RS": _begin_indent,
    "RE": lambda body, *_rest: body.close_to(body.floors.pop()),
    "EX": _example,
    "br": lambda body, *_rest: body.parts.append("<br>\n"),
    "ad": lambda *_rest: None,
    "ds": lambda *_rest: None,
}


def _tag(body: _Body, shown: str) -> str:
    """Return the <dt> of a tagged paragraph. Each of its names can be linked to."""
    names = re.findall(r"<b>(.*?)</b>", shown) or [re.sub(r"<[^>]*>", "", shown)]
    first, *others = [body.id_for(html.unescape(name)) for name in names]
    unlinked = re.sub(r"</?a[^>]*>", "", shown)
    for name, anchor in zip(names[1:], others, strict=True):
        unlinked = unlinked.replace(f"<b>{name}</b>", f'<b id="{html.escape(anchor)}">{name}</b>', 1)
    return f'<dt id="{html.escape(first)}"><a href="#{html.escape(first)}">{unlinked}</a></dt>\n'


def document(title: str, head: str, main: str, foot: str) -> str:
    """Return a whole page."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{html.escape(title)}</title>\n<link rel="stylesheet" href="style.css">\n</head>\n<body>\n'
        f"<header>{head}</header>\n<main>\n{main}</main>\n<footer>{foot}</footer>\n</body>\n</html>\n"
    )


def page_html(name: str, source: str, manual: Manual) -> str:
    """Return the manual page `name`, such as `orchctl.1`, as HTML. Raises UnknownSource."""
    first, *lines = source.splitlines()
    title = re.fullmatch(r'\.TH (\S+) (\d) "([^"]*)" "([^"]*)" "[^"]*"', first)
    if not title:
        raise UnknownSource(f"{name}:1: not a .TH of this manual: {first}")
    body, shown = body_of(lines, manual, name), f"{title[1]}({title[2]})"
    contents = "".join(f'<li><a href="#{anchor}">{heading}</a></li>' for anchor, heading in body.headings)
    main = f'<h1>{shown}</h1>\n<nav aria-label="Sections"><ul>{contents}</ul></nav>\n{"".join(body.parts)}'
    return document(
        f"{shown} - {SUITE}",
        f'<a href="index.html">Manual of {SUITE}</a><span>{shown}</span>',
        main,
        f"<span>{title[4]}</span><span>{title[3]}</span>",
    )


def summary(source: str) -> str:
    """Return what the NAME section of a page says about it."""
    return source.partition("\n.SH NAME\n")[2].partition("\n")[0].replace("\\", "").partition(" - ")[2]


def index_html(sources: Mapping[str, str]) -> str:
    """Return the list of all pages."""
    order = [*(name for name in FIRST if name in sources), *(name for name in sources if name not in FIRST)]
    items = "".join(
        f'<dt><a href="{name}.html">{name.rpartition(".")[0]}({name.rpartition(".")[2]})</a></dt>'
        f"<dd>{html.escape(summary(sources[name]))}</dd>\n"
        for name in order
    )
    title = f"Manual of {SUITE}"
    return document(title, f"<span>{title}</span>", f"<h1>{title}</h1>\n<dl>\n{items}</dl>\n", "")


def units_in(source: str) -> frozenset[str]:
    """Return the units that llama-orch-units(7) describes."""
    tags = re.findall(r"^\.TP\n(.*)$", source.replace("\\%", "").replace("\\-", "-"), re.MULTILINE)
    return frozenset(name for tag in tags for name in re.findall(r"\\fB([a-z][\w@-]*\.[a-z]+)\\fP", tag))


def write(source: Path, out: Path) -> None:
    """Write all pages. Raises UnknownSource and OSError."""
    paths = sorted(source.glob("*.[1-8]"), key=lambda path: (path.suffix, path.name))
    sources = {path.name: path.read_text(encoding="utf-8") for path in paths}
    manual = Manual([*sources], units_in(sources.get(UNITS_PAGE, "")))
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.html"):
        old.unlink()
    for name, text in sources.items():
        (out / f"{name}.html").write_text(page_html(name, text, manual), encoding="utf-8")
    (out / "index.html").write_text(index_html(sources), encoding="utf-8")
    shutil.copyfile(STYLE, out / "style.css")


def main() -> int:
    """Return the exit status: 65 for a page that is not understood."""
    source, out = map(Path, sys.argv[1:])
    try:
        write(source, out)
    except UnknownSource as error:
        sys.stderr.write(f"manual_html: {error}\n")
        return 65
    return 0


if __name__ == "__main__":
    sys.exit(main())
