"""Shared by the tests: where the repository lies, what is told at the end of a run, and a headless Chromium.

The browser is spoken to over its DevTools protocol."""

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

os.environ['OMP_NUM_THREADS'] = (
    '1'  # a forked process, as tests of kills make them, waits for ever for OpenMP's threads
)

ROOT = Path(__file__).resolve().parent.parent
FLAGS = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-dev-shm-usage',
    '--remote-debugging-port=0',
    '--remote-allow-origins=*',
]


TOLD = pytest.StashKey[list[str]]()
LEAST_FREE = 300_000_000  # bytes, where tests write


@pytest.fixture(scope='session')
def root() -> Path:
    return ROOT


@pytest.fixture(scope='session')
def told_at_the_end(pytestconfig) -> list[str]:
    "Lines that stand below the results; a process of pytest-xdist hands them over."
    if hasattr(pytestconfig, 'workeroutput'):
        return pytestconfig.workeroutput.setdefault('told', [])
    return pytestconfig.stash.setdefault(TOLD, [])


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node):
    node.config.stash.setdefault(TOLD, []).extend(getattr(node, 'workeroutput', {}).get('told', []))


def refuse_full_disk(free: int) -> None:
    """A test that finds no space may be retried for many minutes: hypothesis looks for a simpler case each time."""
    if free < LEAST_FREE:
        place = tempfile.gettempdir()
        pytest.fail(f'{free / 1e6:.0f} MB are free in {place}, {LEAST_FREE / 1e6:.0f} are needed: make room', False)


def pytest_runtest_setup(item):
    refuse_full_disk(shutil.disk_usage(tempfile.gettempdir()).free)


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash.get(TOLD, []):
        terminalreporter.write_line(line)


def find_chromium() -> str | None:
    "The browser that `CHROMIUM` names, else the first one on the path."
    names = [os.environ.get('CHROMIUM', ''), 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']
    return next((found for found in map(shutil.which, filter(None, names)) if found), None)


class Browser:
    "One headless Chromium with one tab: `call` sends a DevTools command, `eval` runs JavaScript in the page."

    def __init__(self, program: str):
        import websocket

        self.profile = tempfile.mkdtemp(prefix='chromium-')
        self.process = subprocess.Popen(
            [program, *FLAGS, f'--user-data-dir={self.profile}', 'about:blank'],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        host, path = self._port()
        self.socket = websocket.create_connection(f'ws://{host}{path}', timeout=60)
        self.sent, self.session, self.events = 0, None, []
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self.session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'Log'):
            self.call(f'{domain}.enable')

    def _port(self) -> tuple[str, str]:
        "Chromium writes the port that it listens on into its profile."
        told = Path(self.profile, 'DevToolsActivePort')
        for _ in range(300):
            if self.process.poll() is not None:
                raise RuntimeError(f'Chromium ended at once with code {self.process.returncode}')
            lines = told.read_text().split() if told.exists() else []
            if len(lines) == 2:
                return f'127.0.0.1:{lines[0]}', lines[1]
            time.sleep(0.1)
        raise RuntimeError('Chromium did not open its DevTools port within 30 s')

    def call(self, method: str, **params):
        "Send one command and wait for its answer; events that come meanwhile are kept in `events`."
        self.sent += 1
        message = dict(id=self.sent, method=method, params=params)
        if self.session:
            message['sessionId'] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get('id') == self.sent:
                break
            self.events.append(answer)
        if 'error' in answer:
            raise RuntimeError(f'{method}: {answer["error"]["message"]}')
        return answer['result']

    def eval(self, expression: str):
        "The value of a JavaScript expression, awaited."
        result = self.call('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)
        if 'exceptionDetails' in result:
            raise RuntimeError(result['exceptionDetails'].get('exception', {}).get('description', 'JavaScript error'))
        return result['result'].get('value')

    def wait(self, expression: str, seconds: float = 20):
        "Until the expression is true."
        end = time.monotonic() + seconds
        while not self.eval(expression):
            if time.monotonic() > end:
                raise AssertionError(f'still not so after {seconds} s: {expression}')
            time.sleep(0.05)

    def open(self, url: str, width: int = 1280, height: int = 800, touch: bool = False, **features):
        "Load a page at a window size; `features` are CSS media features, with _ for -."
        self.events.clear()
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=touch)
        self.call('Emulation.setTouchEmulationEnabled', enabled=touch)
        self.call(
            'Emulation.setEmulatedMedia',
            features=[dict(name=k.replace('_', '-'), value=v) for k, v in features.items()],
        )
        self.call('Page.navigate', url='about:blank')
        self.call('Page.navigate', url=url)
        self.wait('location.href !== "about:blank" && document.readyState === "complete"')

    KEYS = {
        'ArrowRight': 39,
        'ArrowLeft': 37,
        'ArrowUp': 38,
        'ArrowDown': 40,
        'PageDown': 34,
        'PageUp': 33,
        'Home': 36,
        'End': 35,
        ' ': 32,
        'Tab': 9,
        'Enter': 13,
    }

    def key(self, key: str, modifiers: int = 0):
        "Press and release a key as the keyboard would (modifiers: 1 alt, 2 ctrl, 4 meta, 8 shift)."
        text = {' ': ' ', 'Enter': '\r'}.get(key)
        common = dict(
            key=key, code='Space' if key == ' ' else key, windowsVirtualKeyCode=self.KEYS[key], modifiers=modifiers
        )
        self.call('Input.dispatchKeyEvent', type='keyDown', **common, **({'text': text} if text else {}))
        self.call('Input.dispatchKeyEvent', type='keyUp', **common)

    def click(self, x: float, y: float):
        for kind in ('mousePressed', 'mouseReleased'):
            self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', clickCount=1)

    def swipe(self, x: float, y: float, dx: float, dy: float = 0):
        self.call('Input.dispatchTouchEvent', type='touchStart', touchPoints=[dict(x=x, y=y)])
        for k in range(1, 5):
            self.call(
                'Input.dispatchTouchEvent', type='touchMove', touchPoints=[dict(x=x + dx * k / 4, y=y + dy * k / 4)]
            )
        self.call('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])

    def screenshot(self, path):
        Path(path).write_bytes(base64.b64decode(self.call('Page.captureScreenshot', format='png')['data']))

    def pdf_pages(self) -> int:
        "How many sheets the page prints on."
        data = base64.b64decode(self.call('Page.printToPDF', preferCSSPageSize=True)['data'])
        return len(re.findall(rb'/Type\s*/Page\b(?!s)', data))

    def requests(self) -> list[str]:
        "Addresses asked for since the page was opened, its own and data URIs left out."
        self.eval('1')
        urls = [
            e['params']['request']['url']
            for e in self.events
            if e.get('method') == 'Network.requestWillBeSent' and e['params'].get('type') != 'Document'
        ]
        return [u for u in urls if not u.startswith(('data:', 'about:'))]

    def complaints(self) -> list[str]:
        "Exceptions, console errors and policy violations since the page was opened."
        self.eval('1')
        bad = [
            e['params']['exceptionDetails']['text'] for e in self.events if e.get('method') == 'Runtime.exceptionThrown'
        ]
        return bad + [
            e['params']['entry']['text']
            for e in self.events
            if e.get('method') == 'Log.entryAdded' and e['params']['entry']['level'] == 'error'
        ]

    def close(self):
        self.socket.close()
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)


@pytest.fixture(scope='session')
def browser():
    pytest.importorskip('websocket')
    program = find_chromium()
    if not program:
        pytest.skip('no Chromium found: install the package chromium, or name one in the variable CHROMIUM')
    b = Browser(program)
    yield b
    b.close()
