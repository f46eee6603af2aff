"""An app that gets pushes, in Flask: it knows WeChat's messages and the `X-WX-*` headers of CloudRun, and nothing of
wx-sidecar. What it answers with 200 is in its ledger and on the disk. `../push-express/app.js` does the same."""

import json
import os

from flask import Flask, jsonify, request

app = Flask(__name__)


@app.post("/wx/push")
def push():
    message = request.get_json()
    if message["MsgType"] == "text" and not message["Content"]:
        return jsonify(error="a text without a text"), 400
    enter(
        id=request.headers.get("X-WX-Msg-Id"),
        openid=request.headers.get("X-WX-OPENID"),
        body=request.get_data(as_text=True),
    )
    return jsonify(taken=True)


def enter(**entry):
    """Fails, and so the request does, while there is no place for the ledger."""
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(ledger, (json.dumps(entry) + "\n").encode())
        os.fsync(ledger)
    finally:
        os.close(ledger)
