"""A PostgreSQL of Tollgate's own, for when no DATABASE_URL is set.

Any number of processes share it. Each holds a connection to a supervisor process (`supervisor`), which starts the
server for the first of them, restarts it when it dies, and stops it when the last of them has left or was killed.
Three locks in files, which the kernel lets go of with the processes that hold them, say who lives; no pid is trusted:

start.lock        somebody looks for the supervisor or starts one
supervisor.lock   the supervisor lives: taking it means that the former one has stopped its server
server.lock       a process of the server lives, be it an orphan: inherited by each of them
"""

from app.db.embedded.client import embedded_postgres

__all__ = ["embedded_postgres"]
