"""Buyers' own clients through Tollgate to llama.cpp; see ./run. Only base URL and key differ from a direct call.

usage: buyers.py TOLLGATE BUYERS_MJS
"""

import asyncio
import json
import sys
import tempfile
import time
import urllib.request

import anthropic
import openai
from apigateway_sdk_python.signer import HttpRequest, Signer as DemoSigner
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer as CloudSigner
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

import refusals
from market import CHAT, EMBEDDING, Market
from world import stop, stop_all, until

# Goes on until somebody ends it.
LONG = {**CHAT, "max_tokens": 1500, "stream": True, "extra_body": {"ignore_eos": True}}


def has_vector(answer):
    return len(answer) > 100


def openai_python(slashes=""):
    def use(market, account):
        client = openai.OpenAI(base_url=market.base + slashes, api_key=market.key(account)["key"])
        for _ in range(3):
            assert client.chat.completions.create(**CHAT).choices[0].message.content
            assert sum(1 for _ in client.chat.completions.create(**CHAT, stream=True)) > 1
        assert client.completions.create(model=CHAT["model"], prompt="Say hi", max_tokens=4).choices[0].text
        wanted = {"model": CHAT["model"], "input": "Say hi", "max_output_tokens": 4}
        assert client.responses.create(**wanted).output
        assert sum(1 for _ in client.responses.create(**wanted, stream=True)) > 1
        assert has_vector(client.embeddings.create(model=EMBEDDING, input="hi").data[0].embedding)
        assert sorted(model.id for model in client.models.list()) == sorted([CHAT["model"], EMBEDDING, "mute", "gone"])
        return 10
    return use


def openai_async(plain, streams):
    async def use(market, account):
        async with openai.AsyncOpenAI(base_url=market.base, api_key=market.key(account)["key"]) as client:
            async def chat():
                return (await client.chat.completions.create(**CHAT)).choices

            async def stream():
                return [chunk async for chunk in await client.chat.completions.create(**CHAT, stream=True)]

            answers = await asyncio.gather(*[chat() for _ in range(plain)], *[stream() for _ in range(streams)])
            assert all(answers)
            return len(answers)
    return lambda market, account: asyncio.run(use(market, account))


def held_back(market, account):
    """A key that may call once a second: the SDK waits as it is told, and every call is answered."""
    key = market.key(account, limits={"per_second": 1})["key"]
    client = openai.OpenAI(base_url=market.base, api_key=key, default_headers={"x-request-id": "held-back"})
    for _ in range(4):
        assert client.chat.completions.create(**CHAT).choices
    until("a refusal", lambda: any(call["status"] == 429 for call in market.gateway.calls("held-back")))
    return 4


def until_used_up(market, account):
    """Calls until the package is used up; how many were answered."""
    client = openai.OpenAI(base_url=market.base, api_key=market.key(account)["key"])
    for made in range(100):
        try:
            client.chat.completions.create(**CHAT)
        except openai.RateLimitError as error:
            assert error.code == "insufficient_quota", error
            return made
    return 100


def langchain(market, account):
    key = market.key(account)["key"]
    model = ChatOpenAI(base_url=market.base, api_key=key, model="smollm2", max_tokens=4)
    assert model.invoke("Say hi").content
    assert "".join(chunk.content for chunk in model.stream("Say hi"))
    assert asyncio.run(model.ainvoke("Say hi")).content
    embeddings = OpenAIEmbeddings(base_url=market.base, api_key=key, model=EMBEDDING, check_embedding_ctx_length=False)
    assert has_vector(embeddings.embed_query("hi"))
    return 4


def anthropic_python(market, account):
    client = anthropic.Anthropic(base_url=market.root, api_key=market.key(account)["key"])
    for _ in range(2):
        assert client.messages.create(**CHAT).content[0].text
        with client.messages.stream(**CHAT) as stream:
            assert "".join(stream.text_stream)

    assert CHAT["model"] in [model.id for model in client.models.list()]

    async def use():
        # The other way to send the key: as a Bearer token.
        async with anthropic.AsyncAnthropic(base_url=market.root, auth_token=client.api_key, api_key=None) as other:
            assert (await other.messages.create(**CHAT)).content[0].text

    asyncio.run(use())
    return 5


def node(task):
    def use(market, account):
        came = market.run_node(task, key=market.key(account)["key"])
        return came["chats"] + came.get("embeddings", 0)
    return use


def signed(sign):
    """Calls of an app, each plain and streamed, sent as the signer left them."""
    def use(market, account):
        app = market.gateway.operate("POST", f"/{account}/apps", {"name": "signer", "products": ["api"]})
        for stream in (False, True):
            body = json.dumps({**CHAT, "stream": stream})
            url, headers = sign(app, market.gateway.data, "/api/v1/chat/completions", body)
            answer = urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=60)
            text = answer.read()
            assert text.count(b"data:") > 1 if stream else json.loads(text)["choices"]
        return 2
    return use


def by_demo(app, host, path, body):
    request = HttpRequest("POST", f"http://{host}{path}", {"Content-Type": "application/json"}, body)
    signer = DemoSigner()
    signer.Key, signer.Secret = app["app_key"], app["app_secret"]
    signer.Sign(request)
    return f"http://{host}{request.uri}", request.headers


def by_cloud(app, host, path, body):
    request = SdkRequest(method="POST", schema="http", host=host, resource_path=path, query_params=[],
                         header_params={"Content-Type": "application/json"}, body=body)
    done = CloudSigner(BasicCredentials(app["app_key"], app["app_secret"], "project")).sign(request)
    return f"http://{host}{done.uri}", done.header_params


def leaves(hang_up):
    """A client that hangs up in the middle of a long answer: it counts, and the server works no longer."""
    def use(market, account):
        before = market.chat.cancelled()
        hang_up(market, market.key(account)["key"])
        began = time.monotonic()
        until("the end of the server's work", lambda: market.chat.cancelled() > before and not market.chat.busy(), 20)
        print(f"    {time.monotonic() - began:.2f} s after the client had gone, the server's slot was free")
        return 1
    return use


def by_close(market, key):
    stream = openai.OpenAI(base_url=market.base, api_key=key).chat.completions.create(**LONG)
    for _ in range(3):
        next(stream)
    stream.close()


def by_break(market, key):
    market.run_node("leave", key=key)


def calls(market):
    market.counted("openai", openai_python())
    market.counted("openai, base_url ends in /", openai_python("/"))
    market.counted("openai, base_url ends in //", openai_python("//"))
    market.counted("openai, async, 10 at once", openai_async(plain=5, streams=5))
    market.counted("openai, async, 50 streams at once", openai_async(plain=0, streams=50))
    market.counted("openai, until the package is used up", until_used_up, ["smollm-5"])
    market.counted("openai, one call a second allowed", held_back)
    market.counted("openai for Node", node("openai"))
    market.counted("ai with @ai-sdk/openai-compatible", node("ai"))
    market.counted("langchain-openai", langchain)
    market.counted("anthropic", anthropic_python)
    market.counted("apigateway-sdk-python", signed(by_demo))
    market.counted("huaweicloudsdkcore", signed(by_cloud))
    market.counted("openai, stream closed half way", leaves(by_close))
    market.counted("openai for Node, stream left half way", leaves(by_break))


def main():
    with tempfile.TemporaryDirectory() as folder:
        try:
            market = Market(sys.argv[1], sys.argv[2], folder)
            calls(market)
            refused = refusals.refuse(market)
            market.check_books()
            stop(market.gateway.process)  # then its access log is whole
            refusals.judge(market, refused)
        finally:
            stop_all()


main()
