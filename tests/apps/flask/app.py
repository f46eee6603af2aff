"""A CloudRun (微信云托管) backend in Flask, as people write them.

It reads the `x-wx-*` headers that the platform injects and knows nothing of wx-sidecar. `../express/app.js` answers the
same.
"""

import hashlib
import threading
import time
from functools import wraps

from flask import Flask, Response, g, jsonify, request

app = Flask(__name__)
app.url_map.merge_slashes = False  # `/echo//a` is answered, not redirected

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# Byte `i` of a download is `i % 251`.
PATTERN = bytes(i % 251 for i in range(251 * 256))

counts = {}
counts_lock = threading.Lock()


def from_wechat(view):
    """CloudRun sets `X-WX-SOURCE` on what comes from WeChat, so an absent one means somebody else."""

    @wraps(view)
    def checked(*args, **kwargs):
        if not request.headers.get("X-WX-SOURCE"):
            return jsonify(error="not from WeChat"), 401
        g.openid = request.headers.get("X-WX-OPENID")
        return view(*args, **kwargs)

    return checked


@app.get("/api/whoami")
@from_wechat
def whoami():
    me = {
        "openid": g.openid,
        "appid": request.headers.get("X-WX-APPID"),
        "source": request.headers["X-WX-SOURCE"],
        "env": request.headers.get("X-WX-ENV"),
    }
    if "X-WX-UNIONID" in request.headers:
        me["unionid"] = request.headers["X-WX-UNIONID"]
    return jsonify(me)


@app.get("/api/count")
@from_wechat
def count():
    return jsonify(code=0, data=counts.get(g.openid, 0))


@app.post("/api/count")
@from_wechat
def change_count():
    action = (request.get_json(silent=True) or {}).get("action")
    with counts_lock:
        if action == "inc":
            counts[g.openid] = counts.get(g.openid, 0) + 1
        elif action == "clear":
            counts.pop(g.openid, None)
        else:
            return jsonify(code=-1, errorMsg="action is inc or clear"), 400
        return jsonify(code=0, data=counts.get(g.openid, 0))


@app.post("/api/upload")
def upload():
    digest = hashlib.sha256()
    size = 0
    while piece := request.stream.read(64 * 1024):
        size += len(piece)
        digest.update(piece)
    return jsonify(bytes=size, sha256=digest.hexdigest(), content_type=request.headers.get("Content-Type"))


@app.post("/api/form")
def form():
    file = request.files.get("file")
    if file is None:
        return jsonify(error="no file"), 400
    content = file.read()
    return jsonify(
        filename=file.filename,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        fields=request.form.to_dict(),
    )


@app.post("/api/json")
def echo_json():
    return jsonify(request.get_json())


@app.get("/api/download")
def download():
    size = request.args.get("bytes", 0, type=int)

    def pieces():
        left = size
        while left > 0:
            yield PATTERN[:left]
            left -= len(PATTERN)

    response = Response(pieces(), mimetype="application/octet-stream")
    if request.args.get("chunked") != "1":
        response.content_length = size
    return response


@app.get("/api/slow")
def slow():
    ms = request.args.get("ms", 0, type=int)
    time.sleep(ms / 1000)
    return jsonify(slept_ms=ms)


@app.get("/api/boom")
def boom():
    raise RuntimeError("boom")


@app.get("/public/hello")
def hello():
    return jsonify(hello="world", openid=request.headers.get("X-WX-OPENID"))


@app.post("/auth/login")
@from_wechat
def login():
    if (request.get_json(silent=True) or {}).get("nickname") == "banned":
        return jsonify(error="banned"), 403
    return jsonify(welcome=g.openid)


@app.route("/echo", methods=METHODS, provide_automatic_options=False)
@app.route("/echo/", methods=METHODS, provide_automatic_options=False)
@app.route("/echo/<path:rest>", methods=METHODS, provide_automatic_options=False)
def echo(rest=None):
    """What this app saw, unprocessed: WSGI's names, which have lost the difference between `-` and `_`."""
    headers = [
        [name, value]
        for name, value in request.environ.items()
        if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
    ]
    return jsonify(method=request.method, url=request.environ["RAW_URI"], headers=headers)
