"""One loop, its data, and the paper's stages."""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from .checkpoints import Checkpoints
    from .eviction import Eviction
    from .loop import fit
    from .options import Optimisation, stage_options
    from .page_store import load_store, pack_store

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        'checkpoints': 'Checkpoints',
        'eviction': 'Eviction',
        'loop': 'fit',
        'options': 'Optimisation stage_options',
        'page_store': 'load_store pack_store',
    },
)
