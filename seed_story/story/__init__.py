"""A story as data, as a book, on disk."""

from typing import TYPE_CHECKING

from .. import lazy_names

if TYPE_CHECKING:
    from .format import ImageError, Page, Story, StoryError, check_file, open_image, read_stories, write_stories
    from .storybook import book_html, contact_sheet, write_animation, write_book
    from .book import Book, BookError

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        'format': 'ImageError Page Story StoryError check_file open_image read_stories write_stories',
        'storybook': 'book_html contact_sheet write_animation write_book',
        'book': 'Book BookError',
    },
)
