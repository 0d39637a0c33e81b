"""The HTML book in a real browser: it opens offline, and its pages turn.

They turn by keys, clicks, swipes, buttons, dots and addresses."""

import time

import pytest
from PIL import Image

from seed_story.story.format import Page, Story
from seed_story.story.storybook import write_book

TEXTS = [
    'Once upon a time a rabbit lived by the lake.',
    'She had <b>one</b> kite & "two" friends.',
    'A very long page. ' * 60,
    'Then it was night.',
]


@pytest.fixture(scope='module')
def book(tmp_path_factory):
    "A book of four pages; the third is too long for its leaf."
    colours = ('teal', 'orange', 'purple', 'navy')
    pages = [
        Page(text, Image.new('RGB', (128, 128 if k else 96), colour))
        for k, (text, colour) in enumerate(zip(TEXTS, colours))
    ]
    return write_book(
        Story(pages, meta=dict(title='The Kite')), tmp_path_factory.mktemp('book') / 'index.html'
    ).as_uri()


def at(browser):
    return browser.eval('document.documentElement.dataset.page')


def shown(browser):
    "The words of the leaves that are visible once a turn has ended."
    browser.wait('!document.querySelector(".leaving")')
    return browser.eval(
        '[...document.querySelectorAll(".words")].filter(e => getComputedStyle(e).visibility === "visible")'
        '.map(e => e.textContent)'
    )


def test_keys_turn_pages(browser, book):
    browser.open(book)
    assert at(browser) == 'cover' and shown(browser) == []
    steps = [
        ('ArrowRight', 0, 'page-1'),
        (' ', 0, 'page-2'),
        ('PageDown', 0, 'page-3'),
        ('ArrowLeft', 0, 'page-2'),
        (' ', 8, 'page-1'),
        ('PageUp', 0, 'cover'),
        ('ArrowLeft', 0, 'cover'),
        ('End', 0, 'end'),
        ('ArrowRight', 0, 'end'),
        ('Home', 0, 'cover'),
        ('ArrowRight', 1, 'cover'),
        ('ArrowDown', 0, 'page-1'),
    ]
    for key, modifiers, page in steps:
        browser.key(key, modifiers)
        assert at(browser) == page, (key, page)
    assert shown(browser) == [TEXTS[0]]


def test_words_are_shown_as_they_are(browser, book):
    browser.open(book + '#page-2')
    assert shown(browser) == [TEXTS[1]]
    assert browser.eval('document.querySelectorAll("#page-2 b").length') == 0
    assert browser.eval('document.title') == 'The Kite'


def test_clicks_and_buttons(browser, book):
    browser.open(book, 1280, 800)
    for x, page in ((700, 'page-1'), (900, 'page-2'), (300, 'page-1')):
        browser.click(x, 300)
        assert at(browser) == page
    for button, page in (('next', 'page-2'), ('back', 'page-1'), ('back', 'cover'), ('back', 'cover')):
        browser.eval(f'document.getElementById("{button}").click()')
        assert at(browser) == page
    browser.eval('document.querySelectorAll("#dots a")[3].click()')
    browser.wait('document.documentElement.dataset.page === "page-3"')
    browser.eval('document.getElementById("next").focus()')
    browser.key(' ')  # space on a button presses it, once
    assert at(browser) == 'page-4'
    browser.key('End')
    browser.eval('document.getElementById("again").click()')
    assert at(browser) == 'cover'


def test_swipes_on_a_phone(browser, book):
    browser.open(book, 360, 640, touch=True)
    for dx, dy, page in (
        (-150, 10, 'page-1'),
        (-150, 0, 'page-2'),
        (150, 0, 'page-1'),
        (-20, 0, 'page-1'),
        (-60, 200, 'page-1'),
    ):
        browser.swipe(180, 200, dx, dy)
        time.sleep(0.5)  # a tap that follows a swipe is not a click
        assert at(browser) == page, (dx, dy)


def test_addresses(browser, book):
    browser.open(book + '#page-3')
    assert at(browser) == 'page-3'
    browser.key('ArrowRight')
    assert browser.eval('location.hash') == '#page-4'
    browser.eval('location.hash = "#2"')
    browser.wait('document.documentElement.dataset.page === "page-2"')
    browser.open(book + '#page-99')
    assert at(browser) == 'cover'


@pytest.mark.parametrize('width, height', [(360, 640), (320, 568), (740, 360), (820, 1180), (1280, 800), (1920, 1080)])
def test_fits_every_window(browser, book, width, height):
    browser.open(book, width, height, touch=width < 900)
    for page in ('cover', 'page-1', 'page-2', 'page-3', 'end'):
        browser.eval(f'location.hash = "#{page}"')
        browser.wait(f'document.documentElement.dataset.page === "{page}" && !document.querySelector(".leaving")')
        browser.wait('document.getAnimations().length === 0')
        outside = browser.eval('''(() => {
            const inside = r => r.left >= -1 && r.top >= -1 && r.right <= innerWidth + 1 && r.bottom <= innerHeight + 1;
            const names = '.now img, .now .words, .now h1, .now button, nav button, #number';
            const parts = [...document.querySelectorAll(names)];
            const outside = e => { const r = e.getBoundingClientRect(); return !inside(r) || r.width === 0 };
            return parts.filter(outside).map(e => e.outerHTML.slice(0, 60)) })()''')
        assert outside == [], page
        assert browser.eval(
            'document.documentElement.scrollWidth <= innerWidth && document.documentElement.scrollHeight <= innerHeight'
        )
        overlap = browser.eval('''(() => {
            const i = document.querySelector('.now img'), w = document.querySelector('.now .words, .now h1');
            if (!i || !w) return false; const a = i.getBoundingClientRect(), b = w.getBoundingClientRect();
            return a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1 })()''')
        assert not overlap, page
    browser.eval('location.hash = "#page-3"')
    assert browser.eval('getComputedStyle(document.querySelector("#page-3 .words")).overflowY') == 'auto'
    assert browser.eval('parseFloat(getComputedStyle(document.querySelector("#page-3 .words")).fontSize) >= 14')


@pytest.mark.parametrize('width, height', [(1100, 800), (1280, 800), (360, 640)])
def test_a_long_title_leaves_the_edges_of_the_cover_free(browser, tmp_path, width, height):
    page = Page('There once lived a blue frog.', Image.new('RGB', (128, 128), 'teal'))
    browser.open(
        write_book(
            Story([page], meta=dict(title='There once lived a blue frog by the name of Benno')), tmp_path / 'index.html'
        ).as_uri(),
        width,
        height,
    )
    room = browser.eval('''(() => {
        const box = s => document.querySelector(s).getBoundingClientRect();
        const [board, picture, title] = ['#cover .board', '#cover img', '#cover h1'].map(box);
        return Math.min(picture.top - board.top, board.bottom - title.bottom) / board.height })()''')
    assert room > 0.03


def test_accessible(browser, book):
    browser.open(book + '#page-1')
    assert browser.eval('[...document.querySelectorAll(".spread:not(#cover) img")].every(i => i.alt.length > 5)')
    assert browser.eval('[...document.querySelectorAll("button, #dots a")].every(b => b.getAttribute("aria-label"))')
    assert browser.eval('document.querySelectorAll("#dots a[aria-current=page]").length') == 1
    assert TEXTS[0] in browser.eval('document.getElementById("told").textContent')
    assert browser.eval('document.getElementById("told").getAttribute("role")') == 'status'
    hidden = browser.eval('[...document.querySelectorAll(".spread")].map(s => s.getAttribute("aria-hidden"))')
    assert hidden == ['true', 'false', 'true', 'true', 'true', 'true']
    browser.key('Tab')
    assert browser.eval('document.activeElement.id') == 'back'


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_contrast(browser, book, scheme):
    browser.open(book + '#page-1', prefers_color_scheme=scheme)
    ratio = browser.eval('''(() => {
        const linear = v => (v /= 255) <= .03928 ? v/12.92 : ((v + .055)/1.055)**2.4;
        const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).map(linear); return .2126*r + .7152*g + .0722*b };
        const style = s => getComputedStyle(document.querySelector(s));
        const a = light(style('#page-1 .words').color), b = light(style('#page-1 .right').backgroundColor);
        return (Math.max(a, b) + .05) / (Math.min(a, b) + .05) })()''')
    assert ratio > 7


def test_less_motion(browser, book):
    browser.open(book + '#page-1', prefers_reduced_motion='reduce')
    browser.key('ArrowRight')
    assert browser.eval('document.getAnimations().length') == 0


def test_opens_offline_without_complaints(browser, book):
    browser.call(
        'Network.emulateNetworkConditions', offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
    )
    try:
        browser.open(book)
        for _ in range(6):
            browser.key('ArrowRight')
        assert at(browser) == 'end'
        assert browser.eval('[...document.images].every(i => i.complete && i.naturalWidth > 0)')
        assert browser.requests() == [] and browser.complaints() == []
    finally:
        browser.call(
            'Network.emulateNetworkConditions', offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )


def test_prints_one_page_a_sheet(browser, book):
    browser.open(book + '#page-2')
    assert browser.pdf_pages() == 1 + len(TEXTS) + 1
    assert at(browser) == 'page-2'


def test_reads_without_javascript(browser, book):
    browser.call('Emulation.setScriptExecutionDisabled', value=True)
    try:
        browser.call('Page.navigate', url='about:blank')
        browser.call('Page.navigate', url=book + '?plain')
        deadline = time.monotonic() + 20
        text = ''
        while TEXTS[3] not in text and time.monotonic() < deadline:
            time.sleep(0.1)
            root = browser.call('DOM.getDocument', depth=1)['root']['nodeId']
            try:
                text = browser.call('DOM.getOuterHTML', nodeId=root)['outerHTML']
            except RuntimeError as e:
                if 'find node' not in str(e):
                    raise  # the new page came between the two calls: look again
        assert 'class="js"' not in text
        node = browser.call('DOM.querySelector', nodeId=root, selector='#page-4 .words')['nodeId']
        box = browser.call('DOM.getBoxModel', nodeId=node)['model']
        assert box['height'] > 10 and box['width'] > 200
    finally:
        browser.call('Emulation.setScriptExecutionDisabled', value=False)
