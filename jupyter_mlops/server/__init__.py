"""The record over HTTP, for JupyterLab: an extension of Jupyter's server.

* `answers` are what can be asked of a store, each answered with a struct; it knows nothing of HTTP.
* `models` and `differing` are the answers about models, and about two things side by side.
* `sent` is what pages send to have something done, and `acting` does it; both know nothing of HTTP.
* `orders`, with those in `forms` and `environments`, are what runs a notebook, makes a project, locks and makes an
  environment: each a struct that comes to one command; `jobs` run the commands, each in a process of its own (`child`).
* `asked` answers the same questions in a kernel, whose record no server may see.
* `events` are what is told of it to whoever listens to the server; `telling` finds in the record what has been done.
* `handling` is what all addresses have in common: who may ask, and which project is meant.
* `routes` are the addresses.
"""
