"""``python -m jupyter_mlops``: the shell's commands, where the script is not on the path."""

from __future__ import annotations

from jupyter_mlops.cli import main

main()
