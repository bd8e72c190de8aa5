"""Both signers that PyPI has, through a running gateway: random requests, sent as the package signed them.

usage: signers.py TOLLGATE [REQUESTS]      prints the counts; exit 0 if every request was accepted
"""

import http.client
import http.server
import json
import random
import string
import sys
import tempfile
import threading
import time
from urllib.parse import quote

from apigateway_sdk_python.signer import HttpRequest, Signer as DemoSigner
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer as CloudSigner

from world import Gateway, stop_all

HOST = "api.test"


class Seller(http.server.BaseHTTPRequestHandler):
    """Answers everything."""

    protocol_version = "HTTP/1.1"
    seen = 0

    def answer(self):
        Seller.seen += 1
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

    def log_message(self, *_):
        pass


def word(least, most, letters=string.ascii_letters + string.digits):
    return "".join(random.choice(letters) for _ in range(random.randint(least, most)))


def parts():
    """A request's parts: path and query not escaped yet."""
    odd = string.ascii_letters + string.digits + " !$()*+,:;=@-_~你"
    path = "/api/" + "/".join(word(1, 1) + word(0, 8, odd) for _ in range(random.randint(1, 3)))
    query = {word(1, 4, odd + "[]&"): word(0, 8, odd + "&/?") for _ in range(random.randint(0, 4))}
    headers = {"X-Name": word(1, 9, string.ascii_letters + " ").strip() or "x", "Content-Type": "application/json"}
    body = json.dumps({"text": word(0, 300, odd)}, ensure_ascii=False)
    return random.choice(["GET", "POST", "PUT", "PATCH", "DELETE"]), path, query, headers, body.encode()


def by_demo(key, secret):
    method, path, query, headers, body = parts()
    pairs = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items())
    url = f"http://{HOST}{quote(path)}" + (f"?{pairs}" if pairs else "")
    request = HttpRequest(method, url, headers, body.decode())
    signer = DemoSigner()
    signer.Key, signer.Secret = key, secret
    signer.Sign(request)
    return method, request.uri, request.headers, request.body


def by_cloud(key, secret):
    method, path, query, headers, body = parts()
    request = SdkRequest(method=method, schema="http", host=HOST, resource_path=quote(path),
                         query_params=list(query.items()), header_params=headers, body=body)
    signed = CloudSigner(BasicCredentials(key, secret, "project")).sign(request)
    return method, signed.uri, signed.header_params, body


def send(connection, method, target, headers, body):
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        if name.lower() != "content-length":
            connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def main():
    binary, requests = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5000
    random.seed(7)
    seller = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Seller)
    threading.Thread(target=seller.serve_forever, daemon=True).start()
    product = {
        "id": "api", "kind": "http", "path": "/api", "accept": ["signature"], "meter": "none",
        "upstream": {"base_url": f"http://127.0.0.1:{seller.server_port}"},
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            gateway = Gateway(binary, folder, [product], [])
            account = gateway.operate("POST", "", {"name": "signers"})["id"]
            app = gateway.operate("POST", f"/{account}/apps", {"name": "signers", "products": ["api"]})
            refused, began = 0, time.monotonic()
            for name, sign in (("apigateway-sdk-python", by_demo), ("huaweicloudsdkcore", by_cloud)):
                connection = http.client.HTTPConnection(gateway.data)
                before = refused
                for _ in range(requests):
                    signed = sign(app["app_key"], app["app_secret"])
                    status, text = send(connection, *signed)
                    if status != 200:
                        refused += 1
                        print(f"{name}: {status} {signed}\n{text.decode()}", file=sys.stderr)
                print(f"{name}: {requests} requests, {refused - before} refused")
            print(f"{Seller.seen} reached the seller, {time.monotonic() - began:.1f} s")
        finally:
            stop_all()
    sys.exit(refused != 0 or Seller.seen != 2 * requests)


if __name__ == "__main__":
    main()
