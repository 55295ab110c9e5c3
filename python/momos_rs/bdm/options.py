"""Options that hold for every :class:`momos_rs.BDM`, as pybdm's ``options``.

- ``warn_if_missing_ctm``: whether missing CTM values are warned of.
- ``raise_if_zero``: whether a BDM of zero, usually a sign of malformed data, is an error.
"""

from __future__ import annotations

from typing import overload

__all__ = ["get", "set"]

_options: dict[str, bool] = {"warn_if_missing_ctm": True, "raise_if_zero": True}


def set(  # noqa: A001
    warn_if_missing_ctm: bool | None = None, raise_if_zero: bool | None = None
) -> None:
    """Sets options; None leaves one as it is.

    Args:
        warn_if_missing_ctm: Whether missing CTM values are warned of. (pybdm 0.1.0 takes this
            argument and forgets it.)
        raise_if_zero: Whether a BDM of zero is an error.
    """
    if warn_if_missing_ctm is not None:
        _options["warn_if_missing_ctm"] = warn_if_missing_ctm
    if raise_if_zero is not None:
        _options["raise_if_zero"] = raise_if_zero


@overload
def get(name: None = None) -> dict[str, bool]: ...
@overload
def get(name: str) -> bool: ...
def get(name: str | None = None) -> bool | dict[str, bool]:
    """The value of an option, or a copy of all of them.

    Raises:
        KeyError: If there is no option of that name.
    """
    if name is None:
        return _options.copy()
    try:
        return _options[name]
    except KeyError:
        raise KeyError(f"there is no {name!r} option") from None
