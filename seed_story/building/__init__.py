"""Story data from your own pictures and videos."""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from .build import BuildOptions, BuildReport, build_data

__getattr__, __dir__, __all__ = lazy_names(__name__, {'build': 'BuildOptions BuildReport build_data'})
