"""Chooses the reader for the files, folders or names that the user gives."""

import glob
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from recycle_cli.corpus.boundary import reading
from recycle_cli.corpus.compressed import COMPRESSIONS
from recycle_cli.corpus.file_kinds import IMAGE_KIND, TEXT_KIND, ImageFiles, holds_images, is_image
from recycle_cli.corpus.folders import FoldersRead, class_folders, files_below
from recycle_cli.corpus.lines import JSON_LINES, PLAIN, LineFiles, LineKind, comma_separated, tab_separated
from recycle_cli.corpus.pipes import is_pipe, name_of, spooled
from recycle_cli.corpus.records import Reader
from recycle_cli.corpus.tables import arrow_files, hub_dataset, is_saved, parquet_files, saved_folder
from recycle_cli.disk import Read, expanded
from recycle_cli.errors import DataError, UsageError
from recycle_cli.pointers import check_fetched
from recycle_cli.settings import FileSettings

SEPARATED = {".csv": comma_separated, ".tsv": tab_separated}

LINES: Mapping[str, LineKind] = {
    **{ending: LineKind(parse) for ending, parse in SEPARATED.items()},
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".json": JSON_LINES,
    ".txt": PLAIN,
}
TABLES: Mapping[str, Callable[[str, Mapping[str, Path]], Reader]] = {".parquet": parquet_files, ".arrow": arrow_files}

STORE_DOCUMENTS = ("zarr.json", "segments/zarr.json", "segments/*/zarr.json")
"""A folder that holds one of these is a store, damaged or not; one that is only called `segments` may be a class."""

_FOR_TEXTS = "holds images, and the model takes texts; name one that takes images (--model resnet50)"

_AS_USUAL = FileSettings()


def find_reader(
    sources: Sequence[str], files: FileSettings = _AS_USUAL, lines: Mapping[str, LineKind] = LINES
) -> Reader:
    """The reader of records: a file, a glob, `-` for stdin, several of those, a folder of texts with a folder a class,
    a saved dataset's folder, or `hub:NAME[:config][:split]`.

    Files of a glob come in sorted order, several sources in the order given. `lines`: the kinds of text files by their
    endings. Raises DataError if there is nothing to read, if the files are of several kinds, and for images.
    """
    name = ", ".join(map(name_of, sources))
    if name.startswith("hub:") and len(sources) == 1:
        return hub_dataset(name)
    folders = [source for source in sources if _is_folder(source)]
    if len(sources) == 1 and folders and is_saved(name):
        return saved_folder(name)
    if folders and folders == list(sources) and not any(map(is_saved, folders)):
        for folder in folders:
            if holds_images(folder):
                raise DataError(f"{folder}: {_FOR_TEXTS}")
            if first := next(records_below(folder), None):
                raise DataError(f"{folder}: {_not_texts(folder, first)}")
        return class_folders(folders, TEXT_KIND)
    found = _files(sources)
    if all(map(is_image, found)):
        raise DataError(f"{found[0]}: {_FOR_TEXTS}")
    return _records_of(name, found, files, lines)


def paths_of(sources: Sequence[str]) -> list[Read]:
    """The files and folders that the sources name; none for what is not there, and for names on the hub."""
    found: list[Read] = []
    for source in sources:
        path = expanded(source)
        if source.startswith("hub:") or is_pipe(source):
            continue
        if os.path.isdir(path):  # noqa: PTH112 - it does not raise for a name that is too long
            found.append(Read(path, whole=True))
        else:
            with suppress(DataError):
                found += map(Read, _expand(source))
    return found


def check_there(sources: Sequence[str]) -> None:
    """Raise DataError for a file that is not there: told at once, before anything is loaded."""
    for source in sources:
        if not (source.startswith("hub:") or is_pipe(source) or _is_folder(source)):
            _expand(source)


def find_images(sources: Sequence[str], files: FileSettings = _AS_USUAL) -> Reader:
    """As `find_reader`, but folders that are no saved dataset are folders of image files, and files may be images."""
    folders = [source for source in sources if _is_folder(source)]
    if folders and folders == list(sources) and not any(map(is_saved, folders)):
        return class_folders(folders, IMAGE_KIND)
    if not any(map(_is_named, sources)):
        found = _files(sources)
        if all(map(is_image, found)):
            return ImageFiles(", ".join(sources), tuple(found))
    return find_reader(sources, files)


def holds_records(source: str) -> bool:
    """Whether the source is a file, a pipe, a folder of files that is no store, or a name on the hub."""
    if source.startswith("hub:") or is_pipe(source):
        return True
    if "://" in source:
        return False
    path = Path(expanded(source))
    with reading(source):
        if path.is_dir():
            return any(path.iterdir()) and not any(file for name in STORE_DOCUMENTS for file in path.glob(name))
        return path.is_file() or any(Path(file).is_file() for file in glob.iglob(_literal_first(path), recursive=True))  # noqa: PTH207


def _is_folder(source: str) -> bool:
    with reading(source):
        return Path(expanded(source)).is_dir()


def _is_named(source: str) -> bool:
    """Whether a source is no file, but the folder of a saved dataset or a name on the hub."""
    return source.startswith("hub:") or is_saved(source)


def _not_texts(folder: str, file: str) -> str:
    pattern = Path(folder, f"*{Path(file).suffix}")
    return f"is no saved dataset, and {file} holds many records; to read such files, give a pattern such as '{pattern}'"


def _files(sources: Sequence[str]) -> list[str]:
    """The files that the sources name. Raises DataError for a pipe that is named twice: it can be read once."""
    pipes = [source for source in sources if is_pipe(source)]
    if len(set(pipes)) != len(pipes):
        raise DataError(f"{name_of(pipes[0])}: is named twice, and can be read once; name it once")
    return [file for each in sources for file in ([each] if is_pipe(each) else _expand(each))]


def _records_of(name: str, found: Sequence[str], files: FileSettings, lines: Mapping[str, LineKind]) -> Reader:
    kinds = list(dict.fromkeys(_kind(file, files, lines) for file in found))
    if len(kinds) != 1:
        raise DataError(f"{name}: files of several kinds ({', '.join(kinds)}); give files of one kind")
    parts = [(name_of(file), spooled(file)) for file in found]
    for label, path in parts:
        check_fetched(str(path), label)
    (kind,) = kinds
    if kind not in lines and kind not in TABLES:
        raise DataError(f"{name}: {kind} holds no such records; expected one of {', '.join([*lines, *TABLES])}")
    if files.quoting != _AS_USUAL.quoting and kind not in SEPARATED:
        raise UsageError(f"--quoting {files.quoting}: only CSV and TSV have quotation marks; leave it out")
    if kind in TABLES:
        return TABLES[kind](name, dict(parts))
    if files.quoting == _AS_USUAL.quoting:
        return LineFiles(name, parts, lines[kind])
    return LineFiles(name, parts, LineKind(partial(SEPARATED[kind], quoted=False)))


def _expand(source: str) -> list[str]:
    with reading(source):
        path = Path(expanded(source))
        is_file, is_folder = path.is_file(), path.is_dir()
    if is_file:
        return [str(path)]
    if is_folder:
        raise DataError(
            f"{source}: is a folder, which cannot go with files; give folders of images alone, or files such as "
            f"'{path / '*.csv'}'"
        )
    pattern = _literal_first(path)
    _refuse_circles(path)
    found = sorted(file for file in glob.glob(pattern, recursive=True) if Path(file).is_file())  # noqa: PTH207
    if not found:
        hint = "; *, ?, [ and ] are a pattern in it" if glob.has_magic(pattern) else ""
        raise DataError(f"{source}: no such file{hint}; check the path{_seen_from(path)}")
    first: dict[str, str] = {}
    for file in found:
        real = os.path.realpath(file)
        if (other := first.setdefault(real, file)) != file:
            raise DataError(f"{source}: {other} and {file} are the same file, through a link; remove the link")
    return found


def _seen_from(path: Path) -> str:
    return "" if path.is_absolute() else f" (relative to {Path.cwd()})"


def _refuse_circles(path: Path) -> None:
    """Raise DataError if `**` would reach a folder twice through a link: a link to a folder above never ends."""
    if "**" not in path.parts:
        return
    seen = FoldersRead()
    base = Path(*path.parts[: path.parts.index("**")])
    for top in glob.glob(str(base)) if glob.has_magic(str(base)) else [str(base)]:  # noqa: PTH207
        for parent, folders, _ in os.walk(top, followlinks=True):
            seen.add(Path(parent))
            folders[:] = [name for name in folders if not name.startswith(".")]


def _literal_first(path: Path) -> str:
    """A path as a pattern. Folders that exist under their own name, brackets included, stand for themselves alone."""
    here, rest = Path(path.anchor), path.parts[1:] if path.anchor else path.parts
    for place, part in enumerate(rest):
        if not (here / part).is_dir():
            return str(Path(glob.escape(str(here)), *rest[place:]))
        here = here / part
    return glob.escape(str(path))


def _kind(file: str, files: FileSettings, lines: Mapping[str, LineKind]) -> str:
    """The ending that says how a file is read."""
    if files.format is not None:
        return f".{files.format}"
    if is_pipe(file):
        return ".jsonl"
    kind = kind_by_name(file, lines)
    if kind is None:
        known = ", ".join([*lines, *TABLES])
        raise DataError(
            f"{file}: unknown kind of file; expected one of {known}, text files also compressed (.gz); name the kind "
            "with --format"
        )
    return kind


def kind_by_name(file: str, lines: Mapping[str, LineKind] = LINES) -> str | None:
    """The ending of a file of records, without that of a compression; None for another file."""
    path = Path(file.lower())
    kind = Path(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
    return kind if kind in lines or path.suffix in TABLES else None


def records_below(folder: str) -> Iterator[str]:
    """Files in a folder or its folders that hold many records each, so that they are no texts by themselves."""
    for file in files_below(Path(folder)):
        if kind_by_name(file.name) not in (None, ".txt"):
            yield str(file)
