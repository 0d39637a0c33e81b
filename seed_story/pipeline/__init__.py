"""Telling a story, one page after the other."""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from .sampling import Sampling
    from .story_pipeline import StoryPipeline

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        'sampling': 'Sampling',
        'story_pipeline': 'StoryPipeline',
    },
)
