"""Rows of text out of a .csv or .xlsx file, with the place of each row for messages. Bounded, and never computed."""

import csv
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException

from protocols.errors import BadLayout

MAX_UNPACKED_BYTES = 500_000_000
"""An .xlsx file is a zip archive; the largest published table, of 26,000 rows, unpacks to a hundredth of this."""


@dataclass(frozen=True)
class Row:
    """One row: `where` names file and row for a message, `cells` holds its text by our own column names."""

    where: str
    cells: dict[str, str]


Columns = Mapping[str, tuple[str, ...]]
"""Our name for a column → the headers it may stand under."""


def read(path: Path, columns: Columns, optional: Columns | None = None) -> list[Row]:
    """The rows below the header of a .csv file, or of the first sheet of an .xlsx file, in their order.

    Blank rows are passed over, white space around a cell is dropped; an `optional` column may be empty or missing, and
    is "" then. Raises BadLayout naming the file, its row or the missing column; no rows are an empty list.
    """
    if not path.is_file():
        raise BadLayout(f"{path} does not exist; put it there, or give another folder")
    reader = _xlsx if path.suffix.lower() == ".xlsx" else _csv
    try:
        return list(_rows(path, reader(path), columns, optional or {}))
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadLayout(f"{path} is no comma-separated table in UTF-8 ({error}); save it as one") from error
    except (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, OSError, SyntaxError) as error:
        # openpyxl and the XML reader below it answer a damaged workbook with any of these.
        raise BadLayout(f"{path} is no readable .xlsx workbook ({error}); fetch it again or save it anew") from error


def _rows(path: Path, lines: Iterator[tuple[int, list[str]]], columns: Columns, optional: Columns) -> Iterator[Row]:
    _, header = next(lines, (1, []))
    place = {name: _place(path, header, accepted) for name, accepted in columns.items()}
    place |= {name: header.index(column) for name, (column, *_) in optional.items() if column in header}
    for number, line in lines:
        if any(line):
            where = f"{path}, row {number}"
            cells = dict.fromkeys(optional, "") | {n: line[i] if i < len(line) else "" for n, i in place.items()}
            empty = [header[place[name]] for name in columns if not cells[name]]
            if empty:
                raise BadLayout(f"{where}: nothing in column {', '.join(empty)}; fill it in or remove the row")
            yield Row(where, cells)


def _place(path: Path, header: list[str], accepted: tuple[str, ...]) -> int:
    for column in accepted:
        if column in header:
            return header.index(column)
    found = ", ".join(name for name in header if name) or "nothing"
    raise BadLayout(f"{path} has no column {' or '.join(accepted)}, its header holds {found}; name the column so")


def _csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        for line in reader:
            yield reader.line_num, _texts(line)


def _xlsx(path: Path) -> Iterator[tuple[int, list[str]]]:
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > MAX_UNPACKED_BYTES:
        raise BadLayout(f"{path} unpacks to {unpacked} bytes, more than a prompt table needs; save its text alone")
    # As values, not formulas: nothing a stranger's workbook says is worked out here.
    book = load_workbook(path, read_only=True, data_only=True)
    try:
        for number, line in enumerate(book.worksheets[0].iter_rows(values_only=True), start=1):
            yield number, _texts(line)
    finally:
        book.close()


def _texts(line: Iterable[object]) -> list[str]:
    return ["" if cell is None else str(cell).strip() for cell in line]
