"""Every refusal, by every client, plain and streamed: the error that it becomes, and how many requests were made."""

import asyncio
from collections import namedtuple
from datetime import datetime, timedelta, timezone

import anthropic
import openai
from langchain_openai import ChatOpenAI

from market import CHAT
from world import until

# The class that OpenAI's SDKs raise, and the requests that they make with their own settings.
Refusal = namedtuple("Refusal", "status code error requests")
REFUSALS = {
    "revoked key": Refusal(401, "invalid_api_key", "AuthenticationError", 1),
    "malformed key": Refusal(401, "invalid_api_key", "AuthenticationError", 1),
    "disabled key": Refusal(401, "api_key_disabled", "AuthenticationError", 1),
    "expired key": Refusal(401, "api_key_expired", "AuthenticationError", 1),
    "key of another product": Refusal(403, "product_not_allowed", "PermissionDeniedError", 1),
    "unknown model": Refusal(404, "model_not_found", "NotFoundError", 1),
    "used-up package": Refusal(429, "insufficient_quota", "RateLimitError", 1),
    "oversized": Refusal(413, "request_too_large", "APIStatusError", 1),
    "seller unreachable": Refusal(502, "upstream_connect", "InternalServerError", 3),
    "seller too slow": Refusal(504, "upstream_timeout", "InternalServerError", 3),
}
# Where a client has a class of its own.
OWN = {
    ("openai for Node", 413): "APIError", ("anthropic", 413): "ContentTooLargeError",
    ("anthropic", 504): "GatewayTimeoutError",
}
# What Anthropic calls it, which its SDK shows as `type`.
ANTHROPIC = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "invalid_request_error",
    429: "billing_error", 502: "api_error", 504: "timeout_error",
}


def expected(client, refusal):
    """The class, and the number of requests."""
    if client == "ai":  # has one class, another for what it has tried again, and does not know x-should-retry
        requests = 3 if refusal.status >= 429 else 1
        return "APICallError" if requests == 1 else "RetryError", requests
    return OWN.get((client, refusal.status), refusal.error), refusal.requests


def prepare(market):
    """The key and the call that lead to each refusal."""
    gateway, account, poor = market.gateway, market.account("refused"), market.account("poor", ["smollm-5"])
    soon = datetime.now(timezone.utc) + timedelta(seconds=1)
    good, revoked, disabled = (market.key(account) for _ in range(3))
    expired, other = market.key(account, expires_at=soon.isoformat()), market.key(account, products=["embed"])
    gateway.operate("DELETE", f"/{account}/keys/{revoked['id']}")
    gateway.operate("PATCH", f"/{account}/keys/{disabled['id']}", {"disabled": True})
    used_up = market.key(poor)["key"]
    client = openai.OpenAI(base_url=market.base, api_key=used_up)
    market.answered += sum(1 for _ in range(5) if client.chat.completions.create(**CHAT))
    until("the key's end", lambda: datetime.now(timezone.utc) > soon)
    typo = good["key"][:-1] + ("a" if good["key"][-1] != "a" else "b")
    big = [{"role": "user", "content": "x" * 100_000}]
    return {
        "revoked key": (revoked["key"], CHAT), "malformed key": (typo, CHAT), "disabled key": (disabled["key"], CHAT),
        "expired key": (expired["key"], CHAT), "key of another product": (other["key"], CHAT),
        "unknown model": (good["key"], {**CHAT, "model": "no-such-model"}), "used-up package": (used_up, CHAT),
        "oversized": (good["key"], {**CHAT, "messages": big}),
        "seller unreachable": (good["key"], {**CHAT, "model": "gone"}),
        "seller too slow": (good["key"], {**CHAT, "model": "mute"}),
    }


async def by_openai(market, case):
    async with openai.AsyncOpenAI(base_url=market.base, api_key=case["key"]) as client:
        try:
            await client.chat.completions.create(**case["call"], extra_headers={"x-request-id": case["id"]})
        except openai.APIStatusError as error:
            return [type(error).__name__, error.status_code, error.code, error.request_id]


async def by_langchain(market, case):
    call = case["call"]
    model = ChatOpenAI(base_url=market.base, api_key=case["key"], model=call["model"],
                       default_headers={"x-request-id": case["id"]})
    prompt = call["messages"][0]["content"]
    try:
        # Not its async calls: its connections outlive an event loop.
        await asyncio.to_thread(lambda: list(model.stream(prompt)) if call["stream"] else model.invoke(prompt))
    except openai.APIStatusError as error:
        # LangChain's own classes are OpenAI's.
        openais = next(one.__name__ for one in type(error).__mro__ if one.__module__.startswith("openai"))
        return [openais, error.status_code, error.code, error.request_id]


async def by_anthropic(market, case):
    async with anthropic.AsyncAnthropic(base_url=market.root, api_key=case["key"]) as client:
        try:
            await client.messages.create(**case["call"], extra_headers={"x-request-id": case["id"]})
        except anthropic.APIStatusError as error:
            assert error.type == ANTHROPIC[error.status_code], error.body
            return [type(error).__name__, error.status_code, error.body["error"]["code"], error.request_id]


def all_of(one):
    async def gather(market, cases):
        return await asyncio.gather(*[one(market, case) for case in cases])
    return lambda market, cases: asyncio.run(gather(market, cases))


CLIENTS = {
    "openai": all_of(by_openai),
    "langchain-openai": all_of(by_langchain),
    "openai for Node": lambda market, cases: market.run_node("refused_openai", cases=cases),
    "ai": lambda market, cases: market.run_node("refused_ai", cases=cases),
    "anthropic": all_of(by_anthropic),
}


def refuse(market):
    """Makes every refused call; returns what came of each, to be judged once the access log is whole."""
    given, seen = prepare(market), []
    for client, make in CLIENTS.items():
        cases = [
            {"id": f"{client}-{name}-{how}".replace(" ", "-"), "name": name, "key": key,
             "call": {**call, "stream": stream}}
            for name, (key, call) in given.items() for how, stream in (("plain", False), ("streamed", True))
        ]
        seen += [(case["name"], client, case["id"], got) for case, got in zip(cases, make(market, cases), strict=True)]
    return seen


def judge(market, seen):
    """Compares and prints; the access log must be whole."""
    print(f"{'refused':24}{'':27}" + "".join(f"{client:27}" for client in CLIENTS) + "(class, and requests made)")
    for name, refusal in REFUSALS.items():
        row = {}
        for client, request_id, got in [one[1:] for one in seen if one[0] == name]:
            assert got and got[1:] == [refusal.status, refusal.code, request_id], (client, name, got)
            row.setdefault(client, set()).add((got[0], len(market.gateway.calls(request_id))))
        assert row == {client: {expected(client, refusal)} for client in CLIENTS}, (name, row)
        cells = [f"{error} {requests}" for ((error, requests),) in row.values()]
        print(f"{name:24}{refusal.status} {refusal.code:23}" + "".join(f"{cell:27}" for cell in cells))
