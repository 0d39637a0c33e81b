"A job that is killed at each of its steps on the disk, each time in a process forked for it."

import faulthandler
import os
import signal
import sys
import time
import traceback
from pathlib import Path

LIMIT = 300  # seconds; a process that was forked from one with threads can wait for ever for what they held

CHANGES = {
    'os.mkdir': False,
    'os.remove': True,
    'os.rmdir': True,
    'os.rename': True,
}  # whether the path is there before


def is_step(event: str, arguments: tuple) -> bool:
    "Whether an audit event changes the disk, or is about to (two folders are exchanged through ctypes)."
    if event == 'open':
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    if event in CHANGES:
        name, folder = arguments[0], (-1, *arguments[1:])[-1]  # of a folder that is open, where it is no -1
        return folder != -1 or os.path.lexists(name) == CHANGES[event]
    return event == 'ctypes.dlsym' and arguments[1] in ('renameat2', 'renamex_np')


def run_forked(job, seconds: float = LIMIT) -> int:
    """How a process forked for `job` ended: the code that `job` returns, 1 for an error, or minus a signal's number.

    It never comes back into the test. An error stands on stderr, and so does where it was when `seconds` are over."""
    child = os.fork()
    if not child:
        code, told = 1, os.dup(2)
        try:
            faulthandler.enable(told)
            code = job() or 0
        except BaseException:
            os.write(told, traceback.format_exc().encode())
        finally:
            os._exit(code)
    deadline = time.monotonic() + seconds
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGABRT)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1])


def killed_at(step: int, job) -> bool:
    "Whether `job`, in a process of its own, was killed as it came to its step on the disk number `step`, from 0."

    def begin() -> None:
        seen = 0

        def hook(event, arguments):
            nonlocal seen
            if is_step(event, arguments):
                seen += 1
                if seen > step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        job()

    code = run_forked(begin)
    assert code in (0, -signal.SIGKILL), f'the job ended with {code} when it was to be killed at step {step}'
    return code != 0


def contents(folder: Path) -> dict[str, bytes]:
    "All files but locks, which are taken over."
    files = [p for p in sorted(folder.rglob('*')) if p.is_file() and p.suffix != '.lock']
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
