"""What the user names to the reader that answers for it."""

import glob
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recycle_cli.corpus.folders import ImageFiles, ImageFolder, ImageFolders, holds_images, is_image
from recycle_cli.corpus.lines import COMPRESSIONS, LineFiles, Parse, comma_separated, json_lines, plain, tab_separated
from recycle_cli.corpus.records import Reader
from recycle_cli.corpus.tables import arrow_files, hub_dataset, is_saved, parquet_files, saved_folder
from recycle_cli.errors import DataError

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


def find_reader(source: str | Sequence[str], *, images: bool = False) -> Reader:
    """The reader for a file, a glob, several of those, a saved dataset's folder, or `hub:NAME[:config][:split]`.

    With `images`, folders that are no saved dataset are folders of image files, and files may be images themselves.

    Files of a glob come in sorted order, several sources in the order given. Raises DataError where there is nothing
    to read, or where the files are of several kinds.
    """
    sources = [source] if isinstance(source, str) else list(source)
    name = ", ".join(sources)
    if len(sources) == 1 and name.startswith("hub:"):
        return hub_dataset(name)
    folders = [source for source in sources if Path(source).is_dir()]
    if images and folders == sources and not any(map(is_saved, folders)):
        trees = tuple(map(ImageFolder, folders))
        return trees[0] if len(trees) == 1 else ImageFolders(trees)
    if len(sources) == 1 and folders:
        if not is_saved(name) and holds_images(name):
            raise DataError(f"{name}: {_FOR_TEXTS}")
        return saved_folder(name)
    files = [file for each in sources for file in _expand(each)]
    if all(map(is_image, files)):
        if images:
            return ImageFiles(name, tuple(files))
        raise DataError(f"{files[0]}: {_FOR_TEXTS}")
    kinds = list(dict.fromkeys(map(_kind, files)))
    if len(kinds) != 1:
        raise DataError(f"{name}: files of several kinds ({', '.join(kinds)}); give files of one kind")
    if kinds[0] in TABLES:
        return TABLES[kinds[0]](name, files)
    return LineFiles(name, tuple(files), LINES[kinds[0]])


def _expand(source: str) -> list[str]:
    path = Path(source).expanduser()
    if path.is_file():
        return [str(path)]
    if path.is_dir():
        raise DataError(
            f"{source}: is a folder, which cannot go with files; give folders of images alone, or files such as "
            f"'{path / '*.csv'}'"
        )
    found = sorted(file for file in glob.glob(str(path), recursive=True) if Path(file).is_file())  # noqa: PTH207
    if not found:
        raise DataError(f"{source}: no such file; check the path (relative to {Path.cwd()})")
    return found


def _kind(file: str) -> str:
    path = Path(file.lower())
    kind = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    if kind in LINES or path.suffix in TABLES:
        return kind
    known = ", ".join([*LINES, *TABLES])
    raise DataError(f"{file}: of no known kind; expected one of {known}; the text kinds also compressed (.gz)")
