"A job that is killed at each of its steps on the disk, each time in a process forked for it."

import os
import signal
import sys
from pathlib import Path

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


def killed_at(step: int, job) -> bool:
    "Whether `job`, in a process of its own, was killed as it came to its step on the disk number `step`, from 0."
    child = os.fork()
    if not child:
        seen = 0

        def hook(event, arguments):
            nonlocal seen
            if is_step(event, arguments):
                seen += 1
                if seen > step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            job()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), f'the job failed when it was to be killed at step {step}'
    return code != 0


def contents(folder: Path) -> dict[str, bytes]:
    "All files but locks, which are taken over."
    files = [p for p in sorted(folder.rglob('*')) if p.is_file() and p.suffix != '.lock']
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}
