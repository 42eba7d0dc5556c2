"""A command's options: one frozen dataclass, and the command line made from it."""

import argparse
import dataclasses
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from utils.runs.hints import did_you_mean

Config = TypeVar("Config")
_GLUED = re.compile(r"(--\w+?)([./].*)")  # a path right behind its flag, which holds no dot
_COMMA = re.compile(r"-?\d+,\d+")  # a decimal one


def option(
    default: Any,
    help: str,
    *,
    flags: Sequence[str] = (),
    choices: Sequence[Any] | None = None,
    group: str = "options",
    metavar: str | None = None,
    type: Callable[[str], Any] | None = None,
    may_stand_alone: str = "",
    presets: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Any:
    """Return a dataclass field that is also a command-line flag.

    Args:
        default: the value without the flag.
        help: one line for --help; the default is added to it, unless it says "(default: " itself.
        flags: other spellings, such as ("--learning_rate",), beside the field's own name.
        choices: the legal values.
        group: the heading of --help under which it is listed.
        metavar: what stands for the value in --help.
        type: makes the value from the word given; read off the annotation where None.
        may_stand_alone: why the field's own flag, without a value, is legal and has nothing to do.
        presets: given {field: value} of the flags that were given, this one among them, returns
            values for other fields; they stand where those fields' own flags are not given.
    """
    metadata = {"help": help, "flags": tuple(flags), "choices": choices, "group": group}
    metadata |= {"metavar": metavar, "type": type, "presets": presets}
    metadata |= {"may_stand_alone": may_stand_alone}
    return dataclasses.field(default=default, metadata=metadata)


def add_options(parser: argparse.ArgumentParser, config_class: type) -> None:
    """Add one flag for each field of a dataclass whose fields are `option`s.

    A field whose flag is not given leaves no value behind. Groups named in the class's
    `groups_first` come first, in that order. The class may name flags that it accepts
    and has no use for, {flag: why}, as `unneeded`; they may have a value, and leave a note.
    """
    hints = typing.get_type_hints(config_class)
    fields = dataclasses.fields(config_class)
    titles = dict.fromkeys(field.metadata["group"] for field in fields)
    first = [title for title in getattr(config_class, "groups_first", ()) if title in titles]
    groups = {title: parser.add_argument_group(title) for title in dict.fromkeys([*first, *titles])}
    for field in fields:
        title = field.metadata["group"]
        flags = (f"--{field.name}", *field.metadata["flags"])
        how = _how_to_read(field, hints[field.name])
        action = groups[title].add_argument(*flags, dest=field.name, **how)
        action.default = argparse.SUPPRESS
        action.help = _help_of(field)  # set late: some actions add the default a second time
    unneeded = getattr(config_class, "unneeded", {})
    group = parser.add_argument_group("accepted, with nothing to do here") if unneeded else None
    for flag, why in unneeded.items():
        group.add_argument(flag, nargs="?", action=_Unneeded, default=argparse.SUPPRESS, help=why)


def parse(
    config_class: type[Config],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
) -> Config:
    """Return the options that the words `argv` ask for.

    --help ends the program.

    Raises:
        ValueError: a flag or a word that nobody knows, and which it is like; a value that the
            dataclass itself refuses, or that no machine computes with.
    """
    usage = f"{prog} [options]"
    parser = _Parser(prog=prog, usage=usage, description=description, allow_abbrev=False)
    add_options(parser, config_class)
    words = [part for word in argv for part in _unglued(word)]
    found, unknown = parser.parse_known_args(words)
    if unknown:
        raise ValueError(_unknown(parser, unknown))
    given = vars(found)
    for name, value in given.items():
        if value == []:  # what argparse of some versions makes of --name=--
            raise ValueError(f"--{name} is '--': expected a value")
    for field in dataclasses.fields(config_class):
        if field.name in given and field.metadata["presets"]:
            given = {**field.metadata["presets"](given), **given}
    config = config_class(**given)
    for name, value in given.items():
        for part in value if isinstance(value, tuple) else (value,):
            _check_computable(name, part)
    return config


def as_dict(config: Any, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return a dataclass's fields as JSON holds them: paths as words, tuples as lists.

    The fields named in `without` are left out.
    """
    names = [field.name for field in dataclasses.fields(config) if field.name not in without]
    return {name: _plain(getattr(config, name)) for name in names}


def shared_options(config_class: type, config: Any) -> dict[str, Any]:
    """Return {name: value} of the fields of `config` that `config_class` has, too."""
    names = {field.name for field in dataclasses.fields(config_class)}
    return {name: value for name, value in vars(config).items() if name in names}


def refuse_given(config: Any, names: Collection[str], why: str) -> None:
    """Refuse the options in `names` that would do nothing beside the others, but at their defaults.

    Raises:
        ValueError: one has another value; `why` follows it in the message.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in names and value != field.default:
            given = field.name if value is True else f"{field.name} is {_plain(value)!r}"
            raise ValueError(f"--{given} {why}")


def refuse_below(config: Any, least: int, *names: str) -> None:
    """Refuse numbers less than `least` in the options of these names; None is no number.

    Raises:
        ValueError: there is one.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} is {value}: expected at least {least}")


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong with a command line, where argparse prints the usage and exits."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += did_you_mean(str(value), action.choices)
            raise


def _unknown(parser: argparse.ArgumentParser, words: Sequence[str]) -> str:
    """Return the sentence on words that no flag takes, with the flag that the first is like."""
    flags = [flag for action in parser._actions for flag in action.option_strings]
    first = next((word for word in words if word.startswith("-")), words[0])
    hint = did_you_mean(first.partition("=")[0], flags)
    return f"unrecognized arguments: {' '.join(words)}{hint or f' (see {parser.prog} --help)'}"


def _check_computable(name: str, value: Any) -> None:
    """Refuse numbers beyond 64 bits, and floats that are none."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError(f"--{name} is {value}: expected a whole number, less than 2**63 in size")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"--{name} is {value}: expected a finite number")


class _Unneeded(argparse.Action):
    """Says on standard error that a flag has nothing to do here, and why."""

    def __call__(self, parser, namespace, values, option_string=None):
        print(f"{option_string} has nothing to do here: {self.help}", file=sys.stderr)


class _MayStandAlone(argparse.Action):
    """Stores a value; the first spelling of the flag may also come without one, for nothing."""

    def __init__(self, *args, why: str, **kwargs):
        super().__init__(*args, **kwargs)
        self.why = why

    def __call__(self, parser, namespace, values, option_string=None):
        if values is not None:
            setattr(namespace, self.dest, values)
        elif option_string == self.option_strings[0]:
            print(f"{option_string} alone has nothing to do here: {self.why}", file=sys.stderr)
        else:
            raise argparse.ArgumentError(self, "expected one argument")


def _unglued(word: str) -> tuple[str, ...]:
    """Split `--job_dir./result` into flag and value, as an official command line has it."""
    glued = _GLUED.fullmatch(word)
    return glued.groups() if glued else (word,)


def _how_to_read(field: dataclasses.Field, hint: Any) -> dict[str, Any]:
    """Return the arguments of add_argument that depend on the field's type."""
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction if field.default else "store_true"}
    how = {"type": field.metadata["type"] or _reader_of(hint)}
    if field.metadata["may_stand_alone"]:
        how |= {"nargs": "?", "action": _MayStandAlone, "why": field.metadata["may_stand_alone"]}
    return how | {name: field.metadata[name] for name in ("choices", "metavar")}


def _reader_of(hint: Any) -> Callable[[str], Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):  # X | None reads as X
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is tuple:
        return _tuple_reader(typing.get_args(hint)[0])
    return _float if hint is float else hint


def _float(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        point = f"; did you mean {word.replace(',', '.')}?" if _COMMA.fullmatch(word) else ""
        raise argparse.ArgumentTypeError(f"invalid float value: {word!r}{point}") from None


def _tuple_reader(kind: type) -> Callable[[str], tuple]:
    def read(words: str) -> tuple:
        try:
            return tuple(kind(word) for word in words.split(",")) if words.strip() else ()
        except ValueError:
            expected = f"expected {kind.__name__}s separated by commas, such as 5,10"
            raise argparse.ArgumentTypeError(f"{expected}, got {words!r}") from None

    return read


def _help_of(field: dataclasses.Field) -> str:
    text = field.metadata["help"]
    if "(default: " not in text:  # in words of its own
        text += f" (default: {_in_words(field.default)})"
    return text.replace("%", "%%")


def _in_words(default: Any) -> str:
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ",".join(str(value) for value in default) or "none"
    return "none" if default is None or default == "" else str(default)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return as_dict(value)
    return value
