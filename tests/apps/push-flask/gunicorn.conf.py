"""How gunicorn serves `app.py`: with threads, as the ledger allows."""

import os

bind = f"127.0.0.1:{os.environ.get('PORT', '80')}"
workers = 1
worker_class = "gthread"
threads = 16
keepalive = 75
control_socket_disable = True  # it lies in $HOME, where parallel instances would share it


def post_worker_init(worker):
    """Says the port once the app is imported: `when_ready` would come before that."""
    print(f"listening on {worker.sockets[0].getsockname()[1]}", flush=True)
