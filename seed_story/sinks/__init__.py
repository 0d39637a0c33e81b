"""What is remembered of a long story, and at which positions it stands: attention policies and their caches."""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from .policies import POLICIES, Layout, PageSpan, Policy, attention_policy, policy, policy_name
    from .cache import SinkCache
    from .static_cache import StaticSinkCache

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        'policies': 'POLICIES Layout PageSpan Policy attention_policy policy policy_name',
        'cache': 'SinkCache',
        'static_cache': 'StaticSinkCache',
    },
)
