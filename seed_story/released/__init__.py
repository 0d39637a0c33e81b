"""The authors' released checkpoints, in this package's layout."""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from .names import load_agent
    from .convert import find_released

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        'names': 'load_agent',
        'convert': 'find_released',
    },
)
