"""What is measured, and the experiments."""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from .metrics import evaluate_pictures, evaluate_stories, measure_story
    from .ablations import Variant

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        'metrics': 'evaluate_pictures evaluate_stories measure_story',
        'ablations': 'Variant',
    },
)
