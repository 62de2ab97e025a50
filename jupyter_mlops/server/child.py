"""The process of a job: one ``mlops …`` command, which ends when the server that wants it ends.

Parameters that are secret come as one line on standard input, in base64, and are the command's standard input: so they
are on no command line and in no file. The pipe then stays open for as long as the server lives; its end, like a
SIGTERM, means to end in order, and after that at once.
"""

from __future__ import annotations

import base64
import io
import os
import signal
import sys
import threading
import traceback

from jupyter_mlops.targets.child import adopt_orphans, end_descendants, interrupted, watch


def main() -> None:
    """Run the command that the arguments name."""
    given = base64.b64decode(sys.stdin.buffer.readline())
    lifeline = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # nothing that is started reads from the lifeline
    sys.stdin = io.TextIOWrapper(io.BytesIO(given))
    adopt_orphans()
    # A server that was started in the background may have passed on that interrupts are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, interrupted)
    threading.Thread(target=watch, args=(lifeline,), daemon=True).start()
    from jupyter_mlops.cli import main as command

    code = 3  # what it could not do; Python's own 1 would say that the answer is no
    try:
        command()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except KeyboardInterrupt:
        code = 130
    except Exception:  # noqa: BLE001 - whoever asked is told what went wrong
        traceback.print_exc()
    if code == 130:
        end_descendants()
    sys.exit(code)


if __name__ == "__main__":
    main()
