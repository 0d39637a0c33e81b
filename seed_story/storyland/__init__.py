"""The bundled picture-book world with known ground truth, and the classifier that reads the truth off a picture."""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from .cast import Actor, Character, Prop, Scene, Series
    from .world import make_story, write_set
    from .oracle import FeatureOracle, Oracle

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        'cast': 'Actor Character Prop Scene Series',
        'world': 'make_story write_set',
        'oracle': 'FeatureOracle Oracle',
    },
)
