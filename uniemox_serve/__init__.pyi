# Public names of uniemox_serve: a server for another program's app, with its limits.
from .config import ServeConfig as ServeConfig
from .guard import HEADERS as HEADERS
from .guard import Turns as Turns
from .guard import as_sent as as_sent
from .guard import without_cookies as without_cookies
from .server import create_server as create_server
from .server import listen as listen
