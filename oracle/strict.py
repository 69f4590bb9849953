"""The strict base of every model that reads what a user wrote: frozen, and no key passes unnoticed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from contracts_abi.errors import InputError, MarginlineError, UnknownNameError


class StrictModel(BaseModel):
    """Frozen pydantic model that refuses unknown keys and offers the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            for key in value:
                if key not in known:
                    raise UnknownNameError("key", str(key), known)
        return value


def input_error(error: ValidationError, where: str) -> InputError:
    """Return the first problem of a pydantic error as one line that names the key and the value.

    Parameters
    ----------
    error
        What pydantic raised.
    where
        The file or object that was read; stands at the head of the message.
    """
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    at = "".join(f"{part}: " for part in (where, path) if part)
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, MarginlineError):
        return InputError(f"{at}{cause.message}", fix=cause.fix)
    if first["type"] == "missing":
        return InputError(f"{at}is missing", fix="add the key")
    text = str(cause) if cause is not None else first["msg"]
    value = first["input"]
    # A rule over a whole table names its keys itself; printing the table would bury them.
    got = "" if isinstance(value, Mapping | list | BaseModel) else f", got {_short(value)}"
    return InputError(f"{at}{text}{got}")


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
