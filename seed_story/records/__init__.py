"""Numbers with their origin."""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from .estimates import Estimate, bootstrap_mean, bootstrap_ratio, frechet_distance, wilson_share
    from .record import Record, read_record, read_records, write_record
    from .reports import report_table

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        'estimates': 'Estimate bootstrap_mean bootstrap_ratio frechet_distance wilson_share',
        'record': 'Record read_record read_records write_record',
        'reports': 'report_table',
    },
)
