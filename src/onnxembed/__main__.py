"""The onnxembed command, which is also `python -m onnxembed`. Ctrl-C is answered from here on, while modules import."""

import os
import signal
import sys

INTERRUPTED = 130
"""The exit code after Ctrl-C, which shells give, too."""


def main() -> None:
    """Run the command line with the arguments of this process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, in the background
        signal.signal(signal.SIGINT, _leave)
    from onnxembed.cli import main as command

    command()


def _leave(*_: object) -> None:
    """Leave at once: nothing has been begun, or all is done, and an exception could be lost inside an import."""
    os.write(2, b"onnxembed: interrupted\n")
    os._exit(0 if sys.argv[1:2] == ["serve"] else INTERRUPTED)  # Ctrl-C is how a server ends


if __name__ == "__main__":
    main()
