"""Chooses the reader for the files, folders or names that the user gives."""

import glob
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recycle_cli.corpus.boundary import reading
from recycle_cli.corpus.compressed import COMPRESSIONS
from recycle_cli.corpus.folders import ImageFiles, ImageFolder, ImageFolders, holds_images, is_image
from recycle_cli.corpus.lines import LineFiles, Parse, comma_separated, json_lines, plain, tab_separated
from recycle_cli.corpus.records import Reader
from recycle_cli.corpus.tables import arrow_files, hub_dataset, is_saved, parquet_files, saved_folder
from recycle_cli.errors import DataError
from recycle_cli.pointers import check_fetched

LINES: Mapping[str, Parse] = {
    ".csv": comma_separated,
    ".tsv": tab_separated,
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_lines,
    ".txt": plain,
}
TABLES: Mapping[str, Callable[[str, Sequence[str]], Reader]] = {".parquet": parquet_files, ".arrow": arrow_files}

_FOR_TEXTS = "holds images, and the model takes texts; name one that takes images (--model resnet50)"


def find_reader(sources: Sequence[str], lines: Mapping[str, Parse] = LINES) -> Reader:
    """The reader of records: a file, a glob, several of those, a saved dataset's folder, or
    `hub:NAME[:config][:split]`.

    Files of a glob come in sorted order, several sources in the order given. `lines`: the kinds of text files by their
    endings. Raises DataError if there is nothing to read, if the files are of several kinds, and for images.
    """
    name = ", ".join(sources)
    if name.startswith("hub:") and len(sources) == 1:
        return hub_dataset(name)
    if len(sources) == 1 and _is_folder(name):
        if not is_saved(name) and holds_images(name):
            raise DataError(f"{name}: {_FOR_TEXTS}")
        return saved_folder(name)
    files = [file for each in sources for file in _expand(each)]
    if all(map(is_image, files)):
        raise DataError(f"{files[0]}: {_FOR_TEXTS}")
    return _records_of(name, files, lines)


def find_images(sources: Sequence[str]) -> Reader:
    """As `find_reader`, but folders that are no saved dataset are folders of image files, and files may be images."""
    folders = [source for source in sources if _is_folder(source)]
    if folders and folders == list(sources) and not any(map(is_saved, folders)):
        trees = tuple(map(ImageFolder, folders))
        return trees[0] if len(trees) == 1 else ImageFolders(trees)
    if not any(map(_is_named, sources)):
        files = [file for each in sources for file in _expand(each)]
        if all(map(is_image, files)):
            return ImageFiles(", ".join(sources), tuple(files))
    return find_reader(sources)


def _is_folder(source: str) -> bool:
    with reading(source):
        return Path(source).is_dir()


def _is_named(source: str) -> bool:
    """Whether a source is no file, but the folder of a saved dataset or a name on the hub."""
    return source.startswith("hub:") or is_saved(source)


def _records_of(name: str, files: Sequence[str], lines: Mapping[str, Parse]) -> Reader:
    kinds = list(dict.fromkeys(_kind(file, lines) for file in files))
    if len(kinds) != 1:
        raise DataError(f"{name}: files of several kinds ({', '.join(kinds)}); give files of one kind")
    for file in files:
        check_fetched(file)
    if kinds[0] in TABLES:
        return TABLES[kinds[0]](name, files)
    return LineFiles(name, tuple(files), lines[kinds[0]])


def _expand(source: str) -> list[str]:
    with reading(source):
        path = Path(source).expanduser()
        is_file, is_folder = path.is_file(), path.is_dir()
    if is_file:
        return [str(path)]
    if is_folder:
        raise DataError(
            f"{source}: is a folder, which cannot go with files; give folders of images alone, or files such as "
            f"'{path / '*.csv'}'"
        )
    pattern = _literal_first(path)
    found = sorted(file for file in glob.glob(pattern, recursive=True) if Path(file).is_file())  # noqa: PTH207
    if not found:
        hint = "; *, ?, [ and ] are a pattern in it" if glob.has_magic(pattern) else ""
        raise DataError(f"{source}: no such file{hint}; check the path (relative to {Path.cwd()})")
    first: dict[str, str] = {}
    for file in found:
        real = os.path.realpath(file)
        if (other := first.setdefault(real, file)) != file:
            raise DataError(f"{source}: {other} and {file} are the same file, through a link; remove the link")
    return found


def _literal_first(path: Path) -> str:
    """A path as a pattern, in which a folder that is there by its very name, brackets and all, is no pattern."""
    here, rest = Path(path.anchor), path.parts[1:] if path.anchor else path.parts
    for place, part in enumerate(rest):
        if not (here / part).is_dir():
            return str(Path(glob.escape(str(here)), *rest[place:]))
        here = here / part
    return glob.escape(str(path))


def _kind(file: str, lines: Mapping[str, Parse]) -> str:
    path = Path(file.lower())
    kind = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    if kind in lines or path.suffix in TABLES:
        return kind
    known = ", ".join([*lines, *TABLES])
    raise DataError(f"{file}: of no known kind; expected one of {known}; the text kinds also compressed (.gz)")
