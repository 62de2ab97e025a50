"""A past run brought back: code and files into a folder, environment from a lock, itself run again and compared.

* `past` gathers what the record says of a run: the cells as they ran, their files, environment and code.
* `checkout` writes the code and files of it into a folder of their own.
* `create` locks the environment of it, and makes a virtual environment with a kernel from a lock.
* `rerun` does all of that in a folder of its own, and runs it headless; `verify` says what came out identical, and why
  what did not.
* `slicing` writes the smallest notebook that makes something, and checks that it does; `parameters` moves literal
  assignments into a cell of their own, where that changes nothing.
"""
