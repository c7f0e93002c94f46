"""A command's options from its settings: each is listed once, beside its type and default in ``config``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import typer

from metaprune_cli.cli.completion import criteria, metanetworks
from metaprune_cli.cli.sections import NO_FILE, about_images, check_code, params_file, read_section, unasked
from metaprune_cli.config.flags import OUTPUT, PANELS, Flag
from metaprune_cli.config_loader import NameOrReference, Reference
from metaprune_cli.console.panel import print_note
from metaprune_cli.console.table import WIDE
from metaprune_cli.errors import InputError

DEFAULT = "Default: "
COMPLETED = {"criterion": criteria, "metanet": metanetworks}
"""What a shell completes of options that are settings, by their names."""
Wide = Annotated[
    bool, typer.Option("--wide", help="Print all columns, even if the terminal is too narrow.", rich_help_panel=OUTPUT)
]
Type = Any  # an annotation, as it is at run time


@dataclass(frozen=True)
class Section:
    """Beside a settings class in a command's signature: the parameter stands for the options of its settings.

    The command gets the section of params.yaml with the options on top.

    Attributes:
        name: of the section.
        only: the settings that have options here, or option → setting, dotted where nested; None: all with a flag.
        help: other words for some of the options, where they mean something else to this command.
        read: what makes a setting of the words of an option, where it is not plain.
        check: called with the settings and the names of those that options gave, before the command.
        if_said: the command gets None where neither an option nor the file has a word of the section.
    """

    name: str
    only: Mapping[str, str] | Sequence[str] | None = None
    help: Mapping[str, str] = field(default_factory=dict)
    read: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    check: Callable[[Any, Collection[str]], None] | None = None
    if_said: bool = False


class Option(NamedTuple):
    """One option of a section: its name as a parameter, the setting it gives, and how Typer is told of it."""

    name: str
    setting: str
    flag: Flag
    annotation: Type
    is_switch: bool


@dataclass(frozen=True)
class Settings:
    """A parameter that is a section's settings."""

    cls: Any
    section: Section
    options: tuple[Option, ...]

    @property
    def can_do_without_images(self) -> bool:
        """Whether these are images that the command may have none of."""
        return self.section.name == "data" and self.section.if_said

    def parameters(self) -> dict[str, tuple[Type, Any]]:
        """Annotation and default of every option."""
        return {option.name: (option.annotation, False if option.is_switch else None) for option in self.options}

    def value(self, given: Mapping[str, Any]) -> Any:
        """The settings that the command gets.

        Raises:
            InputError: they cannot be used, or do not go together.
        """
        said: dict[str, Any] = {}
        for option in self.options:
            if _is_said(given[option.name], is_switch=option.is_switch):
                said[option.setting] = self.section.read.get(option.name, _plain)(given[option.name])
        instead = {name for option in self.options if option.setting in said for name in option.flag.instead_of}
        file = params_file(given.get("params")) if "params" in given else None
        overrides = dict.fromkeys(instead, ()) | said
        found = read_section(self.cls, self.section.name, file, overrides, if_said=self.section.if_said)
        leave = bool(given.get("allow_import"))
        check_code(dict(code_in(found)), said, file, is_asked_for=given.get("params") is not None, has_leave=leave)
        if getattr(found, "task", None) is not None and "task" not in said:
            found = replace(found, task=None, usual_task=found.task)
        if "data_root" in said and "dataset" not in said:
            found = found.of_a_folder()
        if self.section.check is not None:
            self.section.check(found, said)
        return found


@dataclass(frozen=True)
class Group:
    """A parameter that is a dataclass of options of its own."""

    cls: Any

    def parameters(self) -> dict[str, tuple[Type, Any]]:
        """Annotation and default of every option."""
        hints = get_type_hints(self.cls, include_extras=True)
        return {one.name: (hints[one.name], one.default) for one in fields(self.cls)}

    def value(self, given: Mapping[str, Any]) -> Any:
        """The group that the command gets."""
        return self.cls(**{one.name: given[one.name] for one in fields(self.cls)})


def unfolded(command: Callable[..., None]) -> Callable[..., None]:
    """The command as Typer is to see it: parameters that stand for several options are these options, in their panels.

    A parameter that is named as an option of a section gets what was given for it as well.
    """
    hints = get_type_hints(command, include_extras=True)
    own = inspect.signature(command).parameters
    bundles = {name: bundle for name in own if (bundle := _bundle(hints[name])) is not None}
    several = {name: bundle.parameters() for name, bundle in bundles.items()}
    of_bundles = {one for options in several.values() for one in options}
    found: dict[str, tuple[Type, Any]] = {}
    for name, parameter in own.items():
        if name in several:
            found |= several[name]
        elif name not in of_bundles:
            found[name] = hints[name], parameter.default
    if "as_json" in found:  # what prints one object for programs prints tables for people
        found["wide"] = Wide, False
    shown = {name: (_with_default(*what), what[1]) for name, what in sorted(found.items(), key=_place)}

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        WIDE.set(given.pop("wide", False))

        def called(given: Mapping[str, Any]) -> None:
            command(**{name: bundles[name].value(given) if name in bundles else given[name] for name in own})

        if any(isinstance(one, Settings) and one.can_do_without_images for one in bundles.values()):
            _without_strange_images(called, given)
        else:
            called(given)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(name, keyword, default=what[1], annotation=what[0]) for name, what in shown.items()]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {name: annotation for name, (annotation, _) in shown.items()}
    return wrapper


def _without_strange_images(called: Callable[[Mapping[str, Any]], None], given: Mapping[str, Any]) -> None:
    """Call a command that needs no images; where those of a settings file that nobody named do not suit the model,
    once more without that file.

    Raises:
        InputError: the images that it needs do not suit the model; or anything else that the command raises.
    """
    try:
        called(given)
    except InputError as error:
        file = unasked(given) if error.about == "data" else None
        if file is None:
            raise
        try:
            called({**given, "params": Path(NO_FILE)})
        except InputError:  # what was typed needs images
            raise error from None
        if not given.get("quiet"):
            print_note(
                f"{file} is about other images ({about_images(file)}) than the model takes, so nothing of it was used; "
                f"--params {file} insists on it."
            )


def code_in(settings: Any) -> Iterator[tuple[str, str]]:
    """What settings name that would have to be imported (``package.module:name``), and which setting names it."""
    if not is_dataclass(settings):
        return
    hints = get_type_hints(type(settings), include_extras=True)
    for one in fields(settings):
        value = getattr(settings, one.name)
        if isinstance(value, str) and any(kind.is_code(value) for kind in _references(hints[one.name])):
            yield one.name, value
        for number, item in enumerate(value if isinstance(value, tuple) else (value,)):
            place = f"{one.name}[{number}]" if isinstance(value, tuple) else one.name
            yield from ((f"{place}.{name}", named) for name, named in code_in(item))


def _references(hint: Type) -> list[Reference | NameOrReference]:
    """What says of a setting, or of one of the kinds that it may be of, that it names something importable."""
    beside = [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Reference | NameOrReference)]
    return beside + [found for one in get_args(hint) for found in _references(one)]


def _bundle(hint: Type) -> Settings | Group | None:
    """What a parameter stands for, where it stands for several options."""
    if is_dataclass(hint):
        return Group(hint)
    section = next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Section)), None)
    if section is None:
        return None
    first = get_args(hint)[0]  # the class, or it and None
    cls: Any = next(one for one in (first, *get_args(first)) if is_dataclass(one))
    only = tuple(_flags(cls)) if section.only is None else section.only
    named = only if isinstance(only, Mapping) else {_name(cls, setting): setting for setting in only}
    options = (_option(name, setting, *_found(cls, setting), section.help.get(name)) for name, setting in named.items())
    return Settings(cls, section, tuple(options))


@functools.cache
def _flags(cls: Any) -> dict[str, tuple[Flag, Type, Any]]:
    """The settings of a class that have a flag: it, their type, and their default."""
    hints = get_type_hints(cls, include_extras=True)
    return {
        one.name: (flag, hints[one.name], one.default)
        for one in fields(cls)
        for flag in getattr(hints[one.name], "__metadata__", ())
        if isinstance(flag, Flag)
    }


def _name(cls: Any, setting: str) -> str:
    """Of the option of a setting, as a parameter."""
    names = _flags(cls)[setting][0].names
    return names[0].lstrip("-").replace("-", "_") if names and "/" not in names[0] else setting


def _found(cls: Any, setting: str) -> tuple[Flag, Type, Any]:
    """The flag of a setting, which may be one of a nested section."""
    outer, dot, inner = setting.partition(".")
    return _found(get_type_hints(cls)[outer], inner) if dot else _flags(cls)[setting]


def _option(name: str, setting: str, flag: Flag, hint: Type, default: Any, words: str | None) -> Option:
    """How Typer is told of a setting."""
    names = flag.names or (f"--{name.replace('_', '-')}",)
    kind = flag.kind or _kind(hint)
    is_switch = kind is bool and "/" not in names[0]
    said = _ended(words or flag.help, flag.default or _words(default, names[0]), is_switch=is_switch)
    info = typer.Option(
        *names,
        metavar=flag.metavar,
        help=said,
        rich_help_panel=flag.panel,
        show_default=False,
        autocompletion=COMPLETED.get(name),
    )
    return Option(name, setting, flag, Annotated[kind if is_switch else kind | None, info], is_switch)


def _kind(hint: Type) -> Type:
    """The type that the command line reads for a setting: a list where there may be several."""
    origin: Any = get_origin(hint)
    if origin is Annotated:
        return _kind(get_args(hint)[0])
    if origin is tuple:
        return list[_kind(get_args(hint)[0])]  # type: ignore[misc]
    if origin in (None, Literal):
        return hint
    kinds = [one for one in get_args(hint) if one is not type(None)]  # of a union
    return str if _references(hint) else _kind(kinds[0])  # a name of one's own is any text


def _info(hint: Type) -> Any:
    """What Typer is told of a parameter."""
    kinds = typer.models.ParameterInfo
    return next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, kinds)), None)


def _place(shown: tuple[str, tuple[Type, Any]]) -> int:
    """Where an option is listed: by its panel; arguments come first."""
    info = _info(shown[1][0])
    return 1 + PANELS.index(info.rich_help_panel) if isinstance(info, typer.models.OptionInfo) else 0


def _with_default(hint: Type, default: Any) -> Type:
    """An option of a command's own, its default said in the same way."""
    info = _info(hint)
    if not isinstance(info, typer.models.OptionInfo) or default is inspect.Parameter.empty:
        return hint
    said = copy(info)
    names = [word for word in (info.default, *(info.param_decls or ())) if isinstance(word, str)]
    is_switch = get_args(hint)[0] is bool and not any("/" in word for word in names)
    said.help, said.show_default = _ended(info.help or "", _words(default, names[0]), is_switch=is_switch), False
    return Annotated[get_args(hint)[0], said]


def _ended(words: str, default: str, *, is_switch: bool) -> str:
    """Help with the default at its end, unless that is there; of a switch, which is off, it goes without saying."""
    return words if is_switch or DEFAULT in words else f"{words} {DEFAULT}{default}."


def _words(default: Any, name: str) -> str:
    """A default as one would give it."""
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return name.split("/")[0 if default else 1] if "/" in name else str(default).lower()
    if isinstance(default, tuple):
        return ", ".join(_words(one, name) for one in default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def _is_said(value: Any, *, is_switch: bool) -> bool:
    """Whether an option was given: a switch that is off and a list of nothing were not."""
    return bool(value) if is_switch or isinstance(value, list | tuple) else value is not None


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
