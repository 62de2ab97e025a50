"""The record over HTTP, for JupyterLab: an extension of Jupyter's server.

* `answers` are what can be asked of a store, each answered with a struct; it knows nothing of HTTP.
* `routes` are the addresses, and who may ask: every one of them reads, and changes nothing.
"""
