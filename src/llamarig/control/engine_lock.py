"""The engine's lock, ``group_vars/all/engine.yml``: read, and written in place of itself with the comments in it.

Only the values that changed are touched, so that what people wrote around them stays and a diff shows nothing else.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import TypeAdapter, ValidationError

from llamarig.config.engine import Digest, Source
from llamarig.errors import LlamarigError

SOURCE: Final = "llama_image_source"
DIGESTS: Final = "llama_image_digests"
_PLAIN: Final = "write it as git has it: git checkout group_vars/all/engine.yml"

# From, to, and what stands there afterwards.
Edit = tuple[int, int, str]


class LockError(LlamarigError):
    """The lock cannot be read or written, or what it says makes no sense."""


def read_lock(path: Path) -> dict[str, Any]:
    """Return all variables of a lock.

    Raises:
        LockError: there is none, or it is no plain YAML.

    """
    return _loaded(path, _text(path))


def write_lock(path: Path, lock: Mapping[str, Any]) -> bool:
    """Let a lock's variables be these, and return whether that changed it; an unchanged file is not touched.

    Another process sees the old file or the new one, whatever happens.

    Raises:
        LockError: it cannot be written.

    """
    before = _text(path) if path.exists() else None
    after = rendered(path, "---\n" if before is None else before, lock)
    if after == before:
        return False
    target = path.resolve()
    try:
        # Ansible reads no file whose name begins with a dot.
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
                os.fchmod(descriptor, target.stat().st_mode & 0o777 if target.exists() else 0o644)
                stream.write(after)
                stream.flush()
                os.fsync(descriptor)
            Path(name).replace(target)
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}"
        raise LockError(msg, "see to room and rights there, and run it again") from error
    return True


def rendered(path: Path, text: str, lock: Mapping[str, Any]) -> str:
    """Return the text of a lock with other values: same comments, same order, new variables at the end.

    ``path`` is for messages.

    Raises:
        LockError: the text is no plain YAML.

    """
    wanted = dict(lock)
    current = _loaded(path, text)
    if current == wanted:
        return text
    result = text if text.endswith("\n") else text + "\n"
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is not None and _is_block(node):
        # From the end, so that what is said of places before stays true.
        for start, end, new in sorted(_edits(node, current, wanted, result), reverse=True):
            result = result[:start] + new + result[end:]
    elif not current:
        start, end = (node.start_mark.index, node.end_mark.index) if node is not None else (0, 0)
        result = result[:start] + result[end:] + _block(wanted, 0)
    if not _says(result, wanted):
        msg = f"{path} holds anchors or other forms that cannot be changed in place"
        raise LockError(msg, _PLAIN)
    return result


def source_of(path: Path, lock: Mapping[str, Any]) -> Source:
    """Return the locked source, checked; ``path`` is for messages.

    Raises:
        LockError: with everything that is wrong with it.

    """
    said = lock.get(SOURCE)
    if not isinstance(said, Mapping):
        msg = f"{path} has no {SOURCE}"
        raise LockError(msg, _PLAIN)
    try:
        return Source.model_validate(dict(said))
    except ValidationError as error:
        raise _wrong(path, SOURCE, error) from None


def digests_of(path: Path, lock: Mapping[str, Any]) -> dict[str, str]:
    """Return the locked digests by image name, checked; ``path`` is for messages.

    Raises:
        LockError: with everything that is wrong with them.

    """
    try:
        return TypeAdapter(dict[str, Digest]).validate_python(lock.get(DIGESTS) or {})
    except ValidationError as error:
        raise _wrong(path, DIGESTS, error) from None


def _wrong(path: Path, variable: str, error: ValidationError) -> LockError:
    said = [
        f"{'.'.join([variable, *map(str, item['loc'])])}: {item['msg']}" for item in error.errors(include_url=False)
    ]
    return LockError(f"{path}: {'; '.join(said)}", "ref and repository are for people to set, the rest is for lock.yml")


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return stream.read()
    except FileNotFoundError as error:
        msg = f"there is no {path}"
        raise LockError(msg, "every inventory links group_vars of the checkout, where it is: docs/adr/0001") from error
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read: {error}"
        raise LockError(msg, _PLAIN) from error


def _loaded(path: Path, text: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        msg = f"{path} is no plain YAML: {' '.join(str(error).split())}"
        raise LockError(msg, _PLAIN) from error
    if content is not None and not isinstance(content, dict):
        msg = f"{path} holds no variables"
        raise LockError(msg, _PLAIN)
    return content or {}


def _says(text: str, wanted: dict[str, Any]) -> bool:
    try:
        return (yaml.safe_load(text) or {}) == wanted
    except yaml.YAMLError:
        return False


def _edits(node: yaml.Node, current: dict[str, Any], wanted: dict[str, Any], text: str) -> Iterator[Edit]:
    """Yield what makes a block of variables what is wanted."""
    if not _is_block(node):
        return
    indent: int = node.start_mark.column
    for key, value in node.value:
        name = str(key.value)
        if name not in wanted:
            yield text.rfind("\n", 0, key.start_mark.index) + 1, text.index("\n", _end(value)) + 1, ""
        elif wanted[name] == current[name]:
            continue
        elif _is_block(value) and isinstance(current[name], dict) and isinstance(wanted[name], dict) and wanted[name]:
            yield from _edits(value, current[name], wanted[name], text)
        else:
            yield _value_edit(key, value, wanted[name], text)
    added = {name: value for name, value in wanted.items() if name not in current}
    if added:
        place = text.index("\n", _end(node)) + 1
        yield place, place, _block(added, indent)


def _value_edit(key: yaml.Node, value: yaml.Node, new: object, text: str) -> Edit:
    """Return the edit of one value; a comment behind it stays on the key's line."""
    start = text.index(":", key.end_mark.index) + 1
    line_end = text.index("\n", start)
    comment = text[start if _is_block(value) else _end(value) : line_end].strip()
    shown = _block({"x": new}, key.start_mark.column).rstrip("\n").partition("x:")[2]
    first, newline, rest = shown.partition("\n")
    behind = f"  {comment}" if comment else ""
    return start, text.index("\n", _end(value)), first + behind + newline + rest


def _is_block(node: yaml.Node) -> bool:
    """Tell whether a value has lines of its own."""
    return isinstance(node, (yaml.MappingNode, yaml.SequenceNode)) and not node.flow_style and bool(node.value)


def _end(node: yaml.Node) -> int:
    """Return where a value's last character is passed; YAML's own mark for a block is behind comments that follow."""
    if _is_block(node):
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _block(value: Mapping[str, Any], indent: int) -> str:
    options: dict[str, Any] = {"sort_keys": False, "default_flow_style": False, "width": 1 << 20}
    text: str = yaml.safe_dump(dict(value), allow_unicode=True, **options)
    if yaml.safe_load(text) != value:
        # PyYAML loses YAML's own line breaks, as NEL, where it does not write them as escapes.
        text = yaml.safe_dump(dict(value), **options)
    return "".join(f"{' ' * indent}{line}\n" for line in text.removesuffix("\n").split("\n"))
