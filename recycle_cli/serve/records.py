"""Inputs of a request as examples of a task: the forms that read a corpus read them too."""

import base64
import binascii
import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from recycle_cli.corpus import Example
from recycle_cli.corpus.columns import INPUT_ROLES, Columns
from recycle_cli.corpus.records import BadRecord, Record
from recycle_cli.errors import DataError
from recycle_cli.scorer import LoadedRun
from recycle_cli.serve.locked import Locked

_LISTED = 8
"""Names of fields that a message lists at most."""


class BadInputError(DataError):
    """An input that cannot be used; the message is for the client."""


class Reading:
    """Reads the inputs of one RUN.

    An input is a text, a list of two texts, or an object: `text` and `text_pair`, `question` and `context`, `tokens`,
    `image`, or the columns that the RUN was trained on. An image is base64, a data URI, or bytes.
    """

    def __init__(self, run: LoadedRun, inputs: Locked, max_pixels: int) -> None:
        self._run, self._inputs, self._max_pixels = run, inputs, max_pixels
        self._form = run.task.form
        self._trained = {role: name for role, name in (run.info.columns or {}).items() if role in INPUT_ROLES}
        self._expand = run.task.expand(lambda: inputs.preprocessor)

    @property
    def of_images(self) -> bool:
        """Whether an input is an image."""
        return self._form.modality == "image"

    def example(self, value: Any, number: int) -> Example:
        """The example that an input gives; `number` is its place in the request. Raises BadInputError."""
        values = self._object(value)
        identity = values.get("id")
        named = str(number) if identity is None or identity == "" else str(identity)
        try:
            columns = self._columns(values)
            samples = self._form.samples(Record("the request", number, values), columns, named)
            example = Example(named, samples)
            if self._expand is None:
                return example
            with self._inputs.lock:
                return self._expand(example)
        except BadRecord as problem:
            raise BadInputError(str(problem).replace("column", "field")) from None

    def _object(self, value: Any) -> dict[str, Any]:
        """The input as an object; an image as its bytes, so that no text is ever taken for a path."""
        if self.of_images:
            return self._image(value)
        if isinstance(value, str):
            return {"text": value}
        if isinstance(value, list) and len(value) == 2 and all(isinstance(one, str) for one in value):
            return {"text": value[0], "text_pair": value[1]}
        if isinstance(value, dict):
            return value
        raise BadInputError("expected a text, a list of two texts, or an object with its fields")

    def _columns(self, values: Mapping[str, Any]) -> Columns:
        """Which field is which. Those of the RUN's training come first, then the plain names, then the usual ones."""
        roles = tuple(self._trained)
        foreign = [role for role in INPUT_ROLES if role in values and role not in (*roles, *self._trained.values())]
        if roles and foreign:
            raise BadInputError(f"expected {_named(roles)} alone, as the run was trained on, not {_named(foreign)}")
        if roles and all(name in values for name in self._trained.values()):
            return _columns(self._trained)
        plain = {role: role for role in INPUT_ROLES if role in values}
        if plain and (not roles or set(plain) == set(roles)):
            return self._resolved(_columns(plain), values)
        found = self._resolved(Columns(), values)
        given = {role for role in INPUT_ROLES if getattr(found, role) is not None}
        if roles and given != set(roles):
            raise BadInputError(f"expected {_named(roles)}, as the run was trained on, not {_named(sorted(given))}")
        return found

    def _resolved(self, named: Columns, values: Mapping[str, Any]) -> Columns:
        schema = {name: isinstance(value, str) for name, value in values.items() if name != "id"}
        try:
            found = self._form.resolve(named, schema, "the input", labelled=False)
        except DataError:
            wanted = _named(tuple(self._trained) or ("text",))
            listed = ", ".join(map(repr, list(schema)[:_LISTED])) or "none"
            raise BadInputError(f"the fields are {listed}; expected {wanted}") from None
        return _columns({role: name for role in INPUT_ROLES if (name := getattr(found, role)) is not None})

    def _image(self, value: Any) -> dict[str, Any]:
        values = dict(value) if isinstance(value, dict) else {"image": value}
        name = self._trained.get("image", "image")
        held = values.pop(name, None) if name in values else values.pop("image", None)
        content = held if isinstance(held, bytes) else _decoded(held)
        _check_pixels(content, self._max_pixels)
        return {**({"id": values["id"]} if "id" in values else {}), "image": content}


def _columns(named: Mapping[str, str]) -> Columns:
    """The columns of inputs alone: a label that somebody sends is not read."""
    return Columns(text=named.get("text"), text_pair=named.get("text_pair"), image=named.get("image"))


def _named(roles: Any) -> str:
    return " and ".join(f"`{role}`" for role in roles) or "nothing"


def _decoded(value: Any) -> bytes:
    """The bytes of base64 or of a data URI. Raises BadInputError."""
    if not isinstance(value, str) or not value:
        raise BadInputError("expected an image as base64 or as a data URI in the field `image`")
    text = value
    if value[:5].lower() == "data:":
        about, comma, text = value.partition(",")
        if not comma or not about.lower().endswith(";base64"):
            raise BadInputError("expected a data URI with base64, as data:image/png;base64,...")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadInputError("the image is not base64; send base64, a data URI, or a form with a file") from None


def _check_pixels(content: bytes, most: int) -> None:
    """Raise BadInputError for an image of too many pixels, by what its file says, before it is decoded."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except Exception:  # noqa: BLE001 - the preprocessor says what is wrong with the file
        return
    if width * height > most:
        raise BadInputError(f"the image has {width:,} x {height:,} pixels, and at most {most:,} in all are taken")
