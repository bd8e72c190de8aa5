"""What buyers meet: a gateway that sells two llama.cpp servers and two sellers that do not answer."""

import json
import os
import socket
import subprocess
from collections import Counter

from world import Gateway, llama, until

CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "Say hi"}], "max_tokens": 4}
EMBEDDING = "smollm2-embed"


def product(name, seller, **more):
    return {"id": name, "kind": "llm", "upstream": {"base_url": f"http://{seller}/v1"}, **more}


def offer(name, calls):
    return {"id": f"{name}-{calls}", "product": name, "kind": "per_call", "calls": calls, "validity": "1d"}


class Market:
    """A gateway before two llama.cpp servers, one that chats and one that embeds, and two sellers without an answer."""

    def __init__(self, binary, node, folder):
        self.node = node
        self.chat = llama(os.path.join(folder, "chat.log"))
        self.embed = llama(os.path.join(folder, "embed.log"), "--embeddings", "--pooling", "mean")
        self.mute, self.gone = socket.socket(), socket.socket()
        for seller in (self.mute, self.gone):
            seller.bind(("127.0.0.1", 0))
        self.mute.listen()  # accepts and says nothing; the other one refuses
        mute, gone = (f"127.0.0.1:{seller.getsockname()[1]}" for seller in (self.mute, self.gone))
        products = [
            product("smollm", self.chat.address, models={"smollm2": None}, body_max="64KiB"),
            product("embed", self.embed.address, models={EMBEDDING: None}),
            product("mute", mute, models={"mute": None}, timeouts={"head": "1s"}),
            product("gone", gone, models={"gone": None}),
            {"id": "api", "kind": "http", "path": "/api", "strip_path": True, "accept": ["signature"],
             "upstream": {"base_url": f"http://{self.chat.address}"}},
        ]
        self.bought = [(one["id"], 100) for one in products]
        self.gateway = Gateway(binary, folder, products, [offer(*one) for one in self.bought] + [offer("smollm", 5)])
        self.root, self.base = f"http://{self.gateway.data}", f"http://{self.gateway.data}/v1"
        self.answered, self.accounts = 0, []

    def account(self, name, offers=None):
        account = self.gateway.operate("POST", "", {"name": name})["id"]
        self.accounts.append(account)
        for one in offers or [offer(*one)["id"] for one in self.bought]:
            self.gateway.operate("POST", f"/{account}/packages", {"offer": one})
        return account

    def key(self, account, **limits):
        return self.gateway.operate("POST", f"/{account}/keys", limits)

    def run_node(self, task, **more):
        given = {"task": task, "base": self.base, "chat": CHAT, "embedding": EMBEDDING, **more}
        done = subprocess.run(["node", self.node], input=json.dumps(given), capture_output=True, text=True)
        assert done.returncode == 0, (task, done.stderr)
        return json.loads(done.stdout)

    def settled(self, account):
        listed = json.loads(self.gateway.run("packages", "list", account, "--json"))
        return sum(package["settled"] for package in listed["packages"] + listed["ended"])

    def served(self):
        return self.chat.served() + self.embed.served()

    def counted(self, name, use, offers=None):
        """Lets a client make calls with a new account, and compares its count with the server's and the books'."""
        account = self.account(name, offers)
        before = self.served()
        answered = use(self, account)
        until(f"the books of {name}", lambda: self.settled(account) >= answered, 10)
        until(f"llama.cpp's count of {name}", lambda: self.served() - before >= answered, 10)
        books, served = self.settled(account), self.served() - before
        print(f"{name:44} answered {answered:3}  llama.cpp {served:3}  books {books:3}")
        assert answered == served == books
        self.answered += answered

    def check_books(self):
        """All calls together: clients, servers, usage records and packages agree; the audits find nothing."""
        records = [json.loads(line) for line in self.gateway.run("usage", "export").splitlines()]
        units, packages = sum(record["units"] for record in records), sum(self.settled(one) for one in self.accounts)
        print(f"in all: answered {self.answered}, llama.cpp {self.served()}, usage records {len(records)} with {units} "
              f"units, used of packages {packages}")
        assert self.answered == self.served() == len(records) == units == packages
        endings = Counter(record["ending"] for record in records)
        print(f"ended: {dict(endings)}")
        assert endings == {"complete": self.answered - 2, "client_gone": 2}
        for audit in ("reconcile", "replay"):
            print(f"{audit}: {self.gateway.run(audit).strip().splitlines()[-1]}")
