"""A Mini Program's backend behind wx-sidecar, in Python 3.9 or later, with nothing to install. Run it:

    python3 examples/backends/python/app.py

PORT is where it listens (3000), WECHAT the sidecar's outbound side, TEMPLATE the id of a subscription template.
"""
import json
import os
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WECHAT = os.environ.get("WECHAT", "http://127.0.0.1:8081")
TEMPLATE = os.environ.get("TEMPLATE", "your-template-id")


def me(headers, body):
    """Who is calling: the sidecar has checked it, and no client can send these headers."""
    return as_json(200, {name: headers.get(f"x-wx-{name}") for name in ("openid", "unionid", "appid", "source", "env")})


def phone(headers, body):
    """The phone sent ciphertext, and the sidecar decrypted it on the way (a route with open_data = true). Without the
    header nobody looked into the body, and what it says is the client's own claim."""
    if headers.get("x-wx-open-data", "0") == "0":
        return as_json(400, {"error": "no open data"})
    return as_json(200, {"phoneNumber": json.loads(body).get("openData", {}).get("phoneNumber")})


def notify(headers, body):
    """A subscription message to whoever asks. The answer is WeChat's, or what is wrong with it as problem+json."""
    data = {"thing1": {"value": "Your order is ready"}}
    message = {"touser": headers["x-wx-openid"], "template_id": TEMPLATE, "data": data}
    return wechat("/cgi-bin/message/subscribe/send", message)


def push(headers, body):
    """What WeChat pushes. A user's text is answered by customer service; 503 has the message delivered again."""
    if headers.get("x-wx-source") != "wx_push":
        return as_json(403, {"error": "not from WeChat"})
    if headers.get("x-wx-msg-type") != "text":
        return as_json(200, {})
    text = {"content": "You wrote: " + json.loads(body)["Content"]}
    status, _, _ = wechat("/cgi-bin/message/custom/send", {"touser": headers["x-wx-openid"], "msgtype": "text", "text": text})
    return as_json(200 if status < 500 else 503, {})


def wechat(path, message):
    headers = {"Content-Type": "application/json", "Accept": "application/problem+json"}
    request = urllib.request.Request(WECHAT + path, json.dumps(message, ensure_ascii=False).encode(), headers)
    try:
        answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, answer.headers["Content-Type"], answer.read()


def as_json(status, value):
    return status, "application/json", json.dumps(value).encode()


ROUTES = {"GET /me": me, "POST /phone": phone, "POST /notify": notify, "POST /wx/push": push}


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write per answer

    def answer(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        route = ROUTES.get(f"{self.command} {self.path.split('?')[0]}")
        status, kind, body = route(self.headers, body) if route else as_json(404, {"error": "not found"})
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer


server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", 3000))), App)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
