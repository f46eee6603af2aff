"""WeChat's servers as wechatpy would be them: encrypts the messages of the file named in its argument, posts each as
WeChat does, decrypts what is answered, and prints a line for each. `tests/push_apps.rs` has written the file."""

import base64
import json
import secrets
import sys

import requests
import xmltodict
from wechatpy.crypto import WeChatCrypto
from wechatpy.utils import WeChatSigner


def main(given):
    cryptos = [WeChatCrypto(key["token"], key["aes_key"], given["appid"]) for key in given["keys"]]
    wechat = requests.Session()
    for message in given["messages"]:
        said = push(wechat, given, cryptos[message["key"]], message)
        print(json.dumps(said, ensure_ascii=True), flush=True)


def push(wechat, given, crypto, message):
    nonce = secrets.token_hex(8)
    made = xmltodict.parse(crypto.encrypt_message(message["text"], nonce))["xml"]
    query = {
        "signature": signature(crypto.token, made["TimeStamp"], nonce),
        "timestamp": made["TimeStamp"],
        "nonce": nonce,
        "openid": message["openid"],
        "encrypt_type": "aes",
        "msg_signature": made["MsgSignature"],
    }
    body = envelope(message["text"], given["to"], made["Encrypt"])
    # WeChat's Content-Type says nothing of the format.
    headers = {"Content-Type": "text/xml"}
    answer = wechat.post(given["url"], params=query, data=body.encode(), headers=headers)
    around = 20 + len(message["text"].encode()) + len(given["appid"])
    return {
        "status": answer.status_code,
        "padding": len(base64.b64decode(made["Encrypt"])) - around,
        **what_was_answered(answer.text, crypto, nonce),
    }


def envelope(text, to, encrypted):
    if text.startswith("{"):
        return json.dumps({"ToUserName": to, "Encrypt": encrypted})
    return f"<xml><ToUserName><![CDATA[{to}]]></ToUserName><Encrypt><![CDATA[{encrypted}]]></Encrypt></xml>"


def what_was_answered(body, crypto, nonce):
    if body.startswith("{") and "Encrypt" in body:
        reply, is_number = json.loads(body), int
    elif body.startswith("<"):
        reply, is_number = xmltodict.parse(body)["xml"], str
    else:
        return {"answer": body}
    assert reply["Nonce"] == nonce and isinstance(reply["TimeStamp"], is_number)
    # It throws if the signature or the appid is another.
    plain = crypto.decrypt_message(reply, reply["MsgSignature"], str(reply["TimeStamp"]), reply["Nonce"])
    return {"reply": plain}


def signature(*parts):
    signer = WeChatSigner()
    signer.add_data(*parts)
    return signer.signature


with open(sys.argv[1], encoding="utf-8") as file:
    main(json.load(file))
