"""From a situation and what the user looks at to the lines of the terminal: a pure function."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from orchctl.output import CONTROL_CHARACTERS
from orchctl.top.board import Situation
from orchctl.top.lists import Listing, shown_lists
from orchctl.top.spans import BAD, BOLD, DIM, REVERSE, WARNING, Line, Span, cut_line
from orchctl.widths import truncate, width

GAP = 2
HEAD_ROWS, FOOT_ROWS = 2, 1
KEYS = (
    ("q", "quit"),
    ("up, down", "select"),
    ("tab", "next list"),
    ("s", "change the order of the list"),
    ("d", "drain or resume the selected node or pool"),
    ("c", "cancel the selected task"),
    ("?", "this help"),
)
HINT = "q quit  tab list  s sort  d drain  c cancel  ? help"


@dataclass(frozen=True)
class Action:
    """A request to the queen, `description` of it as in `drain node gpu-1`."""

    path: str
    description: str


@dataclass(frozen=True)
class View:
    """What the user looks at: the current list, the selected element and the order of each list, by its name.

    `question` is an action that waits for y or n. `message` tells how the last one went.
    """

    current: str = "tasks"
    selected: dict[str, str] = field(default_factory=dict)
    orders: dict[str, int] = field(default_factory=dict)
    question: Action | None = None
    message: str = ""
    help: bool = False


def sorted_elements(listing: Listing, view: View, situation: Situation) -> list[object]:
    order = listing.orders[view.orders.get(listing.name, 0) % len(listing.orders)]
    return sorted(listing.elements(situation), key=lambda element: order.key(element, situation))


def selected_index(listing: Listing, view: View, elements: Sequence[object]) -> int:
    """Return the index of the selected element; that of the first if it is gone."""
    wanted = view.selected.get(listing.name)
    return next((index for index, element in enumerate(elements) if listing.key(element) == wanted), 0)


def frame(view: View, situation: Situation, columns: int, rows: int | None) -> list[Line]:
    """Return at most `rows` lines, none wider than `columns`; without `rows` everything, and nothing selected."""
    if view.help:
        body: list[Line] = [[Span(f"{keys:<10}", BOLD), Span(meaning)] for keys, meaning in KEYS]
    else:
        body = _lists(view, situation, columns, None if rows is None else rows - HEAD_ROWS - FOOT_ROWS)
    lines = [*_head(situation), *body]
    if rows is not None:
        lines = lines[: max(0, rows - FOOT_ROWS)]
        lines += [[] for _ in range(rows - FOOT_ROWS - len(lines))]
        lines = [*lines, _foot(view)][:rows]
    return [cut_line(line, columns) for line in lines]


def _head(situation: Situation) -> list[Line]:
    version = f" {situation.hello.version}" if situation.hello else ""
    first: list[Span] = [Span(f"queen-rbee{version}", BOLD), Span(f" at {situation.url}")]
    if situation.problem:
        first = [Span(f"connection lost: {situation.problem}; trying again", BAD), Span("  "), *first]
    return [first, _summary(situation)]


def _summary(situation: Situation) -> Line:
    known = situation.summary
    if known is None:
        return [Span("waiting for the state of the queen", DIM)]
    queued = known.queued_interactive + known.queued_batch
    parts = [
        f"{known.running} running",
        f"{queued} of {known.capacity} queued",
        f"{known.pools_ready}/{known.pools} pools ready",
        *([f"{known.nodes_online}/{known.nodes} nodes online"] if known.nodes else []),
    ]
    problems = [Span(f", {len(known.gpu_problems)} GPU problems", WARNING)] if known.gpu_problems else []
    return [Span(", ".join(parts)), *problems]


def _foot(view: View) -> Line:
    if view.question:
        return [Span(f"{view.question.description}? y/n", REVERSE)]
    return [Span(view.message, BOLD)] if view.message else [Span(HINT, DIM)]


def _lists(view: View, situation: Situation, columns: int, rows: int | None) -> list[Line]:
    lists = shown_lists(situation)
    if rows is not None and rows < 3 * len(lists):  # no room for a heading and two elements of each
        lists = [each for each in lists if each.name == view.current] or lists[-1:]
    tables = [_table(each, view, situation, columns, selecting=rows is not None) for each in lists]
    heights = _share([len(table.lines) for table in tables], rows)
    return [line for table, height in zip(tables, heights, strict=True) for line in table.visible(height)]


def _share(wanted: Sequence[int], rows: int | None) -> list[int]:
    """Divide `rows` among lists that want so many each, one row after the other to each that has not enough."""
    if rows is None:
        return [*wanted]
    given, left = [0] * len(wanted), rows
    while left > 0 and any(have < want for have, want in zip(given, wanted, strict=True)):
        for index, want in enumerate(wanted):
            if given[index] < want and left > 0:
                given[index] += 1
                left -= 1
    return given


@dataclass(frozen=True)
class _Table:
    """Lines of a list: a heading, then the elements."""

    lines: Sequence[Line]
    selected: int

    def visible(self, height: int) -> Sequence[Line]:
        """Return the heading and so many elements, the selected one among them."""
        if height <= 1:
            return self.lines[:height]
        shown = height - 1
        first = min(max(0, self.selected - shown // 2), max(0, len(self.lines) - 1 - shown))
        return [self.lines[0], *self.lines[1 + first : 1 + first + shown]]


def _table(listing: Listing, view: View, situation: Situation, columns: int, *, selecting: bool) -> _Table:
    elements = sorted_elements(listing, view, situation)
    current = selecting and listing.name == view.current
    if not elements:
        return _Table([_heading(f"{listing.name.upper()}: none", current)], 0)
    rows = [[column.cell(element, situation) for column in listing.columns] for element in elements]
    widths = _widths(listing, rows, columns)
    selected = selected_index(listing, view, elements)
    lines: list[Line] = [_title(listing, view, widths, current=current)]
    for index, row in enumerate(rows):
        spans = [
            span for cell, size in zip(row, widths, strict=True) if size for span in (cell.fitted(size), Span("  "))
        ]
        if current and index == selected:
            spans = [Span("".join(span.text for span in spans).ljust(columns), REVERSE)]
        lines.append(spans)
    return _Table(lines, selected)


def _widths(listing: Listing, rows: Sequence[Sequence[Span]], columns: int) -> list[int]:
    """Return the width of each column, 0 for those left out."""
    natural = [
        max(width(column.title), *(width(row[index].text.translate(CONTROL_CHARACTERS)) for row in rows))
        for index, column in enumerate(listing.columns)
    ]
    ranks = sorted({column.rank for column in listing.columns if column.rank}, reverse=True)
    shown = [True] * len(natural)

    def total() -> int:
        return sum(size + GAP for size, visible in zip(natural, shown, strict=True) if visible) - GAP

    for rank in ranks:
        if total() <= columns:
            break
        # the last column that is shown may be cut to a readable rest instead
        shown = [visible and column.rank != rank for visible, column in zip(shown, listing.columns, strict=True)]
    over = total() - columns
    if over > 0:
        natural[0] = max(1, natural[0] - over)
    return [size if visible else 0 for size, visible in zip(natural, shown, strict=True)]


def _title(listing: Listing, view: View, widths: Sequence[int], *, current: bool) -> Line:
    order = listing.orders[view.orders.get(listing.name, 0) % len(listing.orders)]
    cells = [
        Span(truncate(column.title, size)).fitted(size).text
        for column, size in zip(listing.columns, widths, strict=True)
        if size
    ]
    suffix = f"  by {order.name}" if current else ""
    return _heading("  ".join(cells) + suffix, current)


def _heading(text: str, current: bool) -> Line:
    return [Span(text, BOLD if current else DIM)]
