"""The wrappers on what asks databases and services: an address without credentials, a question, the answer's digest.

Answers are never consumed for a digest: there is one where the caller was handed the whole of it (a frame, a body that
the library has already read), else the record says why there is none. Parameters of queries are not recorded.
"""

from __future__ import annotations

import glob
import inspect
import os
import re
import sys
import weakref
from typing import Any, Final

from jupyter_mlops.access.files import aliases, clean_url, placer, plain_path, reads, writes
from jupyter_mlops.access.tracing import MUTED, Trace, active, current, problem, traces
from jupyter_mlops.access.wrapping import Call, as_caller, bare, place, reporting, when_imported
from jupyter_mlops.records import digest_of

_QUERY_LIMIT: Final = 20_000
_HANDED_ON: Final = "its rows were handed on one by one"
_UNREAD: Final = "the body was handed on unread"
_IN_BACKGROUND: Final = "asked in the background: the answer is not seen"
_QUOTED: Final = re.compile(r"'((?:[^'\n]|''){1,1000})'")
_COPY_TO: Final = re.compile(r"\bto\s*$", re.IGNORECASE)


def _text(query: Any) -> str:
    """A query's text; of anything but a text, its type."""
    if type(query) is bytes:
        query = query.decode("utf-8", "replace")
    if type(query) is not str:
        return f"~type:{type(query).__module__}.{type(query).__qualname__}"
    return query if len(query) <= _QUERY_LIMIT else query[:_QUERY_LIMIT] + " …"


def _ask(address: str, query: Any, why: str, type_: str = "") -> None:
    for trace in traces():
        trace.asked(address, _text(query), why, type_)


def _file_address(scheme: str, path: str, trace: Trace) -> str:
    name = trace.versions.name(os.path.abspath(path)) if trace.versions else None
    return f"{scheme}:///{(name or path).lstrip('/') if not os.path.isabs(name or path) else name or path}"


# -- SQLite ----------------------------------------------------------------------------------------------------------
# sqlite3's classes are made in C and can not be wrapped: a connection to a file is made as a subclass that differs in
# nothing that can be seen but its type's identity, and whose cursors report what they execute.


def _on_execute(name: str) -> tuple[Any, Any]:
    """The method of that name for the subclass of Cursor, and the one for that of Connection."""
    import sqlite3

    original = getattr(sqlite3.Cursor, name)

    def execute(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = as_caller(sys._getframe(1))(original, (self, *args), kwargs)
        except BaseException as error:  # the user's own error goes on, without our frames
            bare(error, 2)
            raise
        _executed(self.connection, args)
        return result

    def from_connection(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = as_caller(sys._getframe(1))(original, (self.cursor(), *args), kwargs)
        except BaseException as error:  # the user's own error goes on, without our frames
            bare(error, 2)
            raise
        _executed(self, args)
        return result

    for function, holder in ((execute, sqlite3.Cursor), (from_connection, sqlite3.Connection)):
        function.__name__, function.__qualname__ = name, f"{holder.__name__}.{name}"
        function.__doc__ = getattr(holder, name).__doc__
    return execute, from_connection


def _executed(connection: Any, args: tuple[Any, ...]) -> None:
    if not active:
        return
    try:
        for trace in traces():
            trace.asked(_file_address("sqlite", connection._path, trace), _text(args[0] if args else None), _HANDED_ON)
    except BaseException as error:  # the user's statement is done
        if problem(error):
            raise


def _sqlite_classes() -> tuple[type, type]:
    import sqlite3

    reporting_ = {name: _on_execute(name) for name in ("execute", "executemany", "executescript")}
    cursor = type(
        "Cursor",
        (sqlite3.Cursor,),
        {"__slots__": (), "__module__": "sqlite3", "__doc__": sqlite3.Cursor.__doc__}
        | {name: both[0] for name, both in reporting_.items()},
    )

    def make(self: Any, factory: Any = cursor) -> Any:
        return sqlite3.Connection.cursor(self, factory)

    make.__name__, make.__qualname__, make.__doc__ = "cursor", "Connection.cursor", sqlite3.Connection.cursor.__doc__
    connection = type(
        "Connection",
        (sqlite3.Connection,),
        {"__slots__": ("_path",), "__module__": "sqlite3", "__doc__": sqlite3.Connection.__doc__, "cursor": make}
        | {name: both[1] for name, both in reporting_.items()},
    )
    return connection, cursor


_classes: list[tuple[type, type]] = []


def _sqlite_connect(wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    path: str | None = None
    mine: tuple[Trace, ...] = ()
    try:
        call = Call(None, args, kwargs)
        path = _sqlite_path(call.argument(0, "database"), uri=bool(call.argument(7, "uri")))
        mine = tuple(trace for trace in traces() if path and _recorded(path, trace))
        if mine and len(args) < 6 and "factory" not in kwargs:
            if not _classes:
                _classes.append(_sqlite_classes())
            kwargs = {**kwargs, "factory": _classes[0][0]}
    except BaseException as error:  # the user's call goes on
        if problem(error):
            raise
    try:
        made = as_caller(sys._getframe(1))(wrapped, args, kwargs)
    except BaseException as error:  # the user's own error goes on, without our frames
        bare(error, 2)
        raise
    try:
        if path and mine:
            if _classes and type(made) is _classes[0][0]:
                made._path = path  # type: ignore[attr-defined]
            for trace in mine:
                if trace.versions:
                    trace.versions.database(path)
                trace.asked(_file_address("sqlite", path, trace), "", "connected")
    except BaseException as error:  # as above
        if problem(error):
            raise
    return made


def _recorded(path: str, trace: Trace) -> bool:
    """Whether a database is the user's: the index of our own store is none."""
    return trace.versions is None or trace.versions.name(path) is not None


def _sqlite_path(database: Any, *, uri: bool) -> str | None:
    """The absolute path of a database; None for one in memory."""
    path = plain_path(database)
    if path is None or path in ("", ":memory:"):
        return None
    if uri and path.startswith("file:"):
        if "mode=memory" in path:
            return None
        path = path.removeprefix("file:").partition("?")[0].partition("#")[0]
        if path.startswith("//"):
            path = "/" + path[2:].partition("/")[2]
    return None if path == ":memory:" else os.path.abspath(path)


# -- frames read from a database -------------------------------------------------------------------------------------


def _frame_before(_call: Call) -> Any:
    mine = traces()
    return [(trace, dict.fromkeys(trace.sources)) for trace in mine]


def _frame_after(call: Call) -> None:
    """Give the answer's digest to the question that was asked meanwhile, if it was one."""
    query = call.argument(0, "sql", "table_name", "query")
    address = "sql:"
    connection = call.argument(1, "con", "connection", "connection_or_uri", "uri")
    if type(connection) is str:
        address = clean_url(connection)
    made = None
    for trace, known in call.note:
        asked = [item for key, item in trace.sources.items() if key not in known and key[1]]
        if not asked:
            again = next((item for key, item in trace.sources.items() if key[1] == query), None)
            asked = [again or trace.asked(address, _text(query), _HANDED_ON)]
        exact = [item for key, item in trace.sources.items() if item in asked and key[1] == query]
        asked = exact if len(exact) == 1 else asked
        if len(asked) != 1 or asked[0] is None:
            continue
        if made is None:
            made = _result(call.result, trace.versions.budget if trace.versions else 0.25)
        asked[0].digest, asked[0].size, asked[0].type, asked[0].why = made


def _result(value: Any, budget: float) -> tuple[Any, int | None, str, str]:
    from jupyter_mlops.fingerprints import Budget, fingerprint

    if type(value).__name__ not in ("DataFrame", "Table"):
        return None, None, "", "its rows are handed out in parts"
    token = current.set(MUTED)
    try:
        found = fingerprint(value, budget=Budget(budget))
    finally:
        current.reset(token)
    return found.digest, found.size, found.type, found.why


# -- SQLAlchemy ------------------------------------------------------------------------------------------------------


def _sqlalchemy(call: Call) -> None:
    context = call.argument(99, "context") or (call.args[-1] if len(call.args) >= 3 else None)
    engine = getattr(getattr(context, "root_connection", None), "engine", None)
    url = getattr(engine, "url", None)
    if url is None:
        return  # the library's own questions while it connects
    statement = call.argument(1, "statement")
    for trace in traces():
        trace.asked(_database_address(url, trace), _text(statement), _HANDED_ON)


def _database_address(url: Any, trace: Trace) -> str:
    backend = url.drivername.partition("+")[0]
    if backend in ("sqlite", "duckdb"):
        if url.database in (None, "", ":memory:"):
            return f"{backend}:///:memory:"
        return _file_address(backend, url.database, trace)
    port = f":{url.port}" if url.port else ""
    return clean_url(f"{backend}://{url.host or ''}{port}/{url.database or ''}")


# -- DuckDB ----------------------------------------------------------------------------------------------------------

_duckdb_paths: Final[dict[int, tuple[Any, str]]] = {}


def _duckdb_connected(call: Call) -> None:
    path = plain_path(call.argument(0, "database"))
    if path is None or path.startswith(":") or not path:
        return
    if "://" not in path and not path.startswith("md:"):
        path = os.path.abspath(path)
    key = id(call.result)
    try:
        held: Any = weakref.ref(call.result, lambda _: _duckdb_paths.pop(key, None))
    except TypeError:  # this build's connections can not be referred to weakly: the address is all that is kept
        held = None
    _duckdb_paths[key] = (held, path)
    for trace in traces():
        if trace.versions:
            trace.versions.database(path)
        trace.asked(_duckdb_address(call.result, trace), "", "connected")


def _duckdb_address(connection: Any, trace: Trace) -> str:
    _, path = _duckdb_paths.get(id(connection), (None, ""))
    if not path:
        return "duckdb:///:memory:"
    return clean_url(path) if "://" in path or path.startswith("md:") else _file_address("duckdb", path, trace)


def _duckdb_before(call: Call) -> Any:
    """Find the files that a query names, before it runs: what it writes may overwrite what was read."""
    query = call.argument(0, "query")
    found: list[tuple[str, bool]] = []
    if type(query) is str:
        for match in _QUOTED.finditer(query[:200_000]):
            path = match[1].replace("''", "'")
            writes_it = bool(_COPY_TO.search(query[max(0, match.start() - 10) : match.start()]))
            if "://" in path:
                _ask(clean_url(path), "", "opened by the library itself: what it answered is not seen")
            elif writes_it or os.path.exists(path):
                found.append((path, writes_it))
            elif any(mark in path for mark in "*?["):
                found += [(one, False) for one in glob.glob(path, recursive=True)[:10_000]]
    mine = traces()
    for trace in mine:
        for path, writes_it in found:
            if writes_it:
                trace.before_writing(path, keeps=False)
    return mine, found


def _duckdb_after(call: Call) -> None:
    query = call.argument(0, "query")
    connection = call.instance if call.instance is not None else call.kwargs.get("connection")
    for trace in call.note[0]:
        trace.asked(_duckdb_address(connection, trace), _text(query), _HANDED_ON)
        for path, writes_it in call.note[1]:
            trace.wrote(path) if writes_it else trace.read(path)


def _wire_duckdb(module: Any) -> None:
    asks = reporting(_duckdb_before, _duckdb_after, scope=True)
    place(module, "connect", reporting(None, _duckdb_connected), others=aliases(vars(module).get("connect"), "connect"))
    kinds = ("csv", "json", "parquet", "csv_auto")
    for holder in (module, vars(module).get("DuckDBPyConnection")):
        if holder is None:
            continue
        for name in ("execute", "executemany", "sql", "query", "from_query", "query_df"):
            place(holder, name, asks)
        for name in [verb + kind for verb in ("read_", "from_") for kind in kinds]:
            place(holder, name, reads(0, "path_or_buffer", "file_glob", "file_globs", "name"))
    relation = vars(module).get("DuckDBPyRelation")
    for name in ("to_csv", "write_csv", "to_parquet", "write_parquet"):
        if relation is not None:
            place(relation, name, writes(0, "file_name"))


# -- HTTP ------------------------------------------------------------------------------------------------------------


def _http(url: str, method: str, status: Any, body: Any, media: str, why: str) -> None:
    if not url.startswith(("http:", "https:", "ftp:")):
        return
    address, query = clean_url(url), f"{method} {status}" if type(status) is int else method
    for trace in traces():
        asked = trace.asked(address, query, why, media[:200])
        if asked is not None and type(body) is bytes:
            asked.digest, asked.size, asked.why = digest_of(body), len(body), ""


def _urllib_after(call: Call) -> None:
    target = call.argument(0, "fullurl")
    url = target if type(target) is str else getattr(target, "full_url", "")
    data = call.argument(1, "data")
    method = "POST" if data is not None else "GET" if type(target) is str else target.get_method()
    headers = getattr(call.result, "headers", None)
    media = headers.get("Content-Type", "") if headers is not None else ""
    _http(url, method, getattr(call.result, "status", None), None, media, _UNREAD)


def _requests_after(call: Call) -> None:
    request = call.argument(0, "request")
    media = call.result.headers.get("Content-Type", "")
    body = call.result._content if call.result._content_consumed else None
    _http(request.url, request.method or "GET", call.result.status_code, body, media, _UNREAD)


def _httpx_after(call: Call) -> None:
    request = call.argument(0, "request")
    if inspect.iscoroutine(call.result):
        _http(str(request.url), request.method, None, None, "", _IN_BACKGROUND)
        return
    body = vars(call.result).get("_content")
    media = call.result.headers.get("Content-Type", "")
    _http(str(request.url), request.method, call.result.status_code, body, media, _UNREAD)


def _urllib3_after(call: Call) -> None:
    """Record what goes to a service by urllib3 alone; what requests sends is recorded there, with its body."""
    if _on_behalf_of("requests.", "botocore."):
        return
    path = call.argument(1, "url")
    port = f":{call.instance.port}" if call.instance.port else ""
    media = call.result.headers.get("Content-Type", "")
    _http(
        f"{call.instance.scheme}://{call.instance.host}{port}{path}",
        call.argument(0, "method"),
        call.result.status,
        None,
        media,
        _UNREAD,
    )


def _http_client(call: Call) -> None:
    """Record what is asked by the standard library's connection itself, whose answer has not come yet."""
    if _on_behalf_of("urllib.request", "urllib3.", "requests.", "botocore."):
        return
    scheme = "https" if type(call.instance).__name__.startswith("HTTPS") else "http"
    path = call.argument(1, "url")
    port = f":{call.instance.port}" if call.instance.port else ""
    url = path if path.startswith(("http:", "https:")) else f"{scheme}://{call.instance.host}{port}{path}"
    _http(url, call.argument(0, "method"), None, None, "", _UNREAD)


def _aiohttp(call: Call) -> None:
    url, base = call.argument(1, "str_or_url"), getattr(call.instance, "_base_url", None)
    if base is not None and not str(url).startswith(("http:", "https:")):
        url = base.join(type(base)(str(url)))
    _http(str(url), call.argument(0, "method"), None, None, "", _IN_BACKGROUND)


_SPEAKERS: Final = (
    "http.client", "urllib.request", "urllib3.", "requests.", "botocore.", "httpx", "httpcore", "aiohttp.",
    "sqlalchemy.", "fsspec.",
)  # fmt: skip


def _connected(call: Call) -> None:
    """A connection was opened by nobody whose questions are seen."""
    address = call.argument(0, "address")
    if type(address) is not tuple or len(address) < 2 or _on_behalf_of(*_SPEAKERS):
        return
    host, port = (one if type(one) in (str, int) else "?" for one in address[:2])
    for trace in traces():
        trace.gap("network", f"a connection to {host}:{port} was opened: what it carried is not seen", blocks=True)


def _on_behalf_of(*modules: str) -> bool:
    """Whether a function of one of these modules is what called, however far up."""
    frame: Any = sys._getframe(3)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if type(name) is str and name.startswith(modules):
            return True
        frame = frame.f_back
    return False


# -- object stores ---------------------------------------------------------------------------------------------------


def _boto_after(call: Call) -> None:
    operation, asked = call.argument(0, "operation_name"), call.argument(1, "api_params")
    service = call.instance.meta.service_model.service_name
    if service == "s3" and type(asked) is dict and "Bucket" in asked:
        address = f"s3://{asked['Bucket']}/{asked.get('Key', asked.get('Prefix', ''))}"
    else:
        address = f"aws:{service}"
    tag = call.result.get("ETag", "") if type(call.result) is dict else ""
    _ask(clean_url(address), f"{operation} {tag}".strip(), _UNREAD)


def _fsspec_after(call: Call) -> None:
    protocol = call.instance.protocol if type(call.instance.protocol) is str else call.instance.protocol[0]
    if protocol in ("file", "local", "memory"):
        return
    path, mode = call.argument(0, "path"), call.argument(1, "mode") or "rb"
    if type(path) is str:
        address = path if "://" in path else f"{protocol}://{path}"
        _ask(clean_url(address), f"open {mode}", _UNREAD)


# -- where they go ---------------------------------------------------------------------------------------------------


def _wire_sqlite(module: Any) -> None:
    others = [(sys.modules[name], "connect") for name in ("sqlite3.dbapi2", "_sqlite3") if name in sys.modules]
    place(module, "connect", _sqlite_connect, others=others)


def wire() -> None:
    """Say what is to be wrapped; once per process."""
    if _wired:
        return
    _wired.append(True)
    frames = reporting(_frame_before, _frame_after)
    asks = reporting(_sqlalchemy, None)
    when_imported("sqlite3", _wire_sqlite)
    when_imported("duckdb", _wire_duckdb)
    for name, functions in {
        "pandas.io.sql": dict.fromkeys(("read_sql", "read_sql_query", "read_sql_table"), frames),
        "polars": dict.fromkeys(("read_database", "read_database_uri"), frames),
        "sqlalchemy.engine.default": {
            f"DefaultDialect.{name}": asks for name in ("do_execute", "do_executemany", "do_execute_no_params")
        },
        "urllib.request": {"OpenerDirector.open": reporting(None, _urllib_after)},
        "requests.sessions": {"Session.send": reporting(None, _requests_after)},
        "httpx._client": {
            "Client.send": reporting(None, _httpx_after), "AsyncClient.send": reporting(None, _httpx_after),
        },
        "http.client": {"HTTPConnection.putrequest": reporting(None, _http_client)},
        "aiohttp.client": {"ClientSession._request": reporting(_aiohttp, None)},
        "socket": {"create_connection": reporting(None, _connected)},
        "urllib3.connectionpool": {"HTTPConnectionPool.urlopen": reporting(None, _urllib3_after)},
        "botocore.client": {"BaseClient._make_api_call": reporting(None, _boto_after)},
        "fsspec.spec": {"AbstractFileSystem.open": reporting(None, _fsspec_after)},
    }.items():  # fmt: skip
        when_imported(name, placer(functions))


_wired: list[bool] = []
