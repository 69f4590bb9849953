"""One registry for everything that is chosen by name: sources, guards, protocols, margin methods, policies.

An entry is a class (usually a frozen pydantic model) with a class attribute ``kind: Literal["name"]``.
Adding one is adding a file to the package that the registry scans; tests parametrised over the registry
pick it up. Registries live in their lowest user, so this one is in `oracle`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from contracts_abi.errors import InputError, UnknownNameError
from oracle.strict import StrictModel, input_error

C = TypeVar("C", bound=type[Any])


class Registry(Generic[C]):
    """Name to class, filled by decorators in the modules of one package.

    Parameters
    ----------
    what
        What the entries are, in the singular; used in messages.
    package
        Import name of the package whose modules are scanned, on first use.
    """

    def __init__(self, what: str, package: str) -> None:
        self._what = what
        self._package = package
        self._entries: dict[str, C] = {}
        self._scanned = False

    def register(self, kind: str) -> _Decorator[C]:
        """Return a class decorator that enters the class under `kind`."""
        return _Decorator(self._entries, self._what, kind)

    def _scan(self) -> None:
        if not self._scanned:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(getattr(package, "__path__", [])):
                importlib.import_module(f"{self._package}.{module.name}")
            # Last, so that a module that does not import fails again at the next look, not silently.
            self._scanned = True

    def get(self, kind: str) -> C:
        """Return the class entered under `kind`.

        Raises
        ------
        UnknownNameError
            With the nearest names.
        """
        self._scan()
        try:
            return self._entries[kind]
        except KeyError:
            raise UnknownNameError(self._what, kind, self._entries) from None

    def build(self, config: Mapping[str, Any], *, where: str | None = None) -> Any:
        """Construct an entry from a mapping with a ``kind`` key and the class's own fields.

        Parameters
        ----------
        config
            ``kind``, and the fields of the class entered under it.
        where
            Where the mapping was read, for messages; the entry's name by default.

        Raises
        ------
        InputError
            Naming the first field that is wrong; an unknown one comes with the nearest known names.
        TypeError
            If the entry is no model that can be read from configuration: who has its parts constructs it.
        """
        if "kind" not in config:
            at = "" if where is None else f"{where}: "
            raise InputError(f"{at}{self._what} without 'kind'", fix=f"known: {', '.join(self)}")
        kind = str(config["kind"])
        entry = self.get(kind)
        if not issubclass(entry, StrictModel):
            raise TypeError(f"{self._what} {kind!r} is not built from configuration")
        try:
            return entry(**{k: v for k, v in config.items() if k != "kind"})
        except ValidationError as error:
            raise input_error(error, where or f"{self._what} {kind!r}") from None

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(sorted(self._entries))

    def __contains__(self, kind: object) -> bool:
        self._scan()
        return kind in self._entries

    def __len__(self) -> int:
        self._scan()
        return len(self._entries)


class _Decorator(Generic[C]):
    def __init__(self, entries: dict[str, C], what: str, kind: str) -> None:
        self._entries, self._what, self._kind = entries, what, kind

    def __call__(self, cls: C) -> C:
        known = self._entries.get(self._kind)
        if known is not None and _identity(known) != _identity(cls):
            raise ValueError(f"{self._what} {self._kind!r} is registered twice: {known} and {cls}")
        if getattr(cls, "kind", None) != self._kind:
            raise ValueError(f"{cls} is registered as {self._what} {self._kind!r} and has another kind")
        self._entries[self._kind] = cls
        return cls


def _identity(cls: type[Any]) -> tuple[str, str]:
    """Return what stays the same when a module is loaded again, or a class is made anew with slots."""
    return cls.__module__, cls.__qualname__
