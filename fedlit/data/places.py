"""Where a row stands: the words that an error names it by, and the file that it came from."""

from typing import Self


class Place(str):
    """A row's place, such as `a.csv, line 3`; a text that also knows whose row it is.

    file: name of the client that the row belongs to under `partition.name=files`: of its file, folder or configuration.
    """

    file: str
    __slots__ = ("file",)

    def __new__(cls, text: str, file: str) -> Self:
        """Return the place of a row of a file."""
        place = super().__new__(cls, text)
        place.file = file
        return place


def file_of(place: str) -> str:
    """Return the name of the file of a row's place, '' where its source has no files."""
    return place.file if isinstance(place, Place) else ""
