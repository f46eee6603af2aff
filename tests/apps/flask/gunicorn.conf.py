"""How gunicorn serves `app.py`: one process, because the counters live in its memory."""

import os

bind = f"127.0.0.1:{os.environ.get('PORT', '80')}"
workers = 1
worker_class = "gthread"
threads = 64
keepalive = 75
graceful_timeout = 10
control_socket_disable = True  # it lies in $HOME, where parallel instances would share it
# The deployments that a forged `X_WX_OPENID` would hurt: gunicorn before 22 joined it to `X-WX-OPENID`, as uWSGI and
# PHP still do. Its present default would hide from the tests what the proxy let through.
header_map = "dangerous"


def post_worker_init(worker):
    """Says the port once the app is imported: `when_ready` would come before that."""
    print(f"listening on {worker.sockets[0].getsockname()[1]}", flush=True)
