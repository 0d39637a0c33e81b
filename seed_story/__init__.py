"""SEED-Story, whole and working: a multimodal LLM that tells long illustrated stories.

    from seed_story import StoryPipeline, write_book

    pipe = StoryPipeline.from_pretrained("tiny")
    write_book(pipe("opening.png", "Long ago there lived a little blue dinosaur named Malo.", pages=10), "book.html")

Names are imported when they are first used, so that `import seed_story` costs nothing.
"""

__version__ = "0.1.0"

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING


def lazy_names(package: str, modules: dict[str, str]) -> tuple[Callable, Callable, list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that imports its names when they are first used.

    `modules`: the names, separated by spaces, that each module below `package` gives. AttributeError for any other."""
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def load(name: str):
        if name not in homes:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        return getattr(import_module(f'.{homes[name]}', package), name)

    return load, lambda: sorted(homes), sorted(homes)


if TYPE_CHECKING:
    from .pipeline.story_pipeline import StoryPipeline
    from .story.format import Page, Story, read_stories, write_stories
    from .story.storybook import contact_sheet, write_book
    from .sinks.cache import SinkCache
    from .sinks.static_cache import StaticSinkCache
    from .sinks.policies import POLICIES, attention_policy, policy
    from .models.presets import PRESETS, build, bundled_folder, preset

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        'pipeline.story_pipeline': 'StoryPipeline',
        'story.format': 'Page Story read_stories write_stories',
        'story.storybook': 'contact_sheet write_book',
        'sinks.cache': 'SinkCache',
        'sinks.static_cache': 'StaticSinkCache',
        'sinks.policies': 'POLICIES attention_policy policy',
        'models.presets': 'PRESETS build bundled_folder preset',
    },
)
