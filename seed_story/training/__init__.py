"""One loop, its data, and the paper's stages."""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from .checkpoints import Checkpoints
    from .eviction import Eviction
    from .loop import Budget, fit
    from .page_store import load_store, pack

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        'checkpoints': 'Checkpoints',
        'eviction': 'Eviction',
        'loop': 'Budget fit',
        'page_store': 'load_store pack',
    },
)
