#!/usr/bin/env python3
"""Check that the cache `imaginal pull` writes is the one huggingface_hub reads, and the other way round.

A local server speaks as much of the hub's protocol as both clients use. In a temporary HF_HOME

1. `imaginal pull` fetches a GGUF file and a safetensors set; then huggingface_hub, offline, must find every file
   (try_to_load_from_cache, hf_hub_download), and scan_cache_dir must see both repositories without a warning;
2. huggingface_hub fetches the same into an empty cache; then `imaginal list` and `imaginal show` must find them, and the
   links and references of both caches must be the same;
3. a download that huggingface_hub has the lock of makes `imaginal pull` wait;
4. `imaginal rm` must leave a cache that huggingface_hub reads.

    python tools/reference/check_hub.py --imaginal target/debug/imaginal

Needs huggingface_hub.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GGUF = "models/default/model.gguf"
TINY = "crates/models/tests/fixtures/llama-plain"


def files():
    """Repository → path → bytes."""
    tiny = {p.name: p.read_bytes() for p in (ROOT / TINY).iterdir() if p.is_file()}
    return {
        "org/gguf": {"small-Q8_0.gguf": (ROOT / GGUF).read_bytes(), "README.md": b"# small"},
        "org/tiny": {k: v for k, v in tiny.items() if k in ("config.json", "model.safetensors")} | {"README.md": b"# tiny"},
    }


def large(path):
    return path.endswith((".gguf", ".safetensors"))


def etag(path, data):
    if large(path):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    repos = {}

    def log_message(self, *_):
        pass

    def commit(self, repo):
        text = "".join(sorted(etag(p, d) for p, d in self.repos[repo].items()))
        return hashlib.sha1(text.encode()).hexdigest()

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0]
        if m := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/([^/]+))?", path):
            repo = m[1]
            if repo not in self.repos:
                return self.answer(404, b"{}", X_Error_Code="RepoNotFound")
            siblings = []
            for name, data in self.repos[repo].items():
                entry = {"rfilename": name, "size": len(data), "blobId": etag(name, data)}
                if large(name):
                    entry["lfs"] = {"sha256": etag(name, data), "size": len(data), "pointerSize": 130}
                siblings.append(entry)
            body = {"id": repo, "modelId": repo, "sha": self.commit(repo), "private": False, "tags": [], "downloads": 0,
                    "likes": 0, "siblings": siblings}
            return self.answer(200, json.dumps(body).encode(), Content_Type="application/json")
        if m := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", path):
            tree = []
            for name, data in self.repos[m[1]].items():
                entry = {"type": "file", "path": name, "size": len(data), "oid": etag(name, data)}
                if large(name):
                    entry["lfs"] = {"oid": etag(name, data), "size": len(data), "pointerSize": 130}
                tree.append(entry)
            return self.answer(200, json.dumps(tree).encode(), Content_Type="application/json")
        if m := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            data = self.repos.get(m[1], {}).get(m[3])
            if data is None:
                return self.answer(404, b"{}", X_Error_Code="EntryNotFound", X_Repo_Commit=self.commit(m[1]))
            common = {"X_Repo_Commit": self.commit(m[1])}
            if large(m[3]):
                common |= {"X_Linked_Etag": f'"{etag(m[3], data)}"', "X_Linked_Size": str(len(data))}
                return self.answer(302, Location=f"http://localhost:{self.server.server_port}/cdn/{m[1]}/{m[3]}", **common)
            return self.answer(200, data, ETag=f'"{etag(m[3], data)}"', **common)
        if m := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", path):
            if self.headers.get("Authorization"):
                return self.answer(400, b"the token does not belong here")
            data = self.repos[m[1]][m[2]]
            if r := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
                at = int(r[1])
                return self.answer(206, data[at:], Content_Range=f"bytes {at}-{len(data) - 1}/{len(data)}")
            return self.answer(200, data)
        return self.answer(404, b"{}")

    do_HEAD = do_GET


def tree(cache):
    """Links and references of a cache: what both clients must agree on."""
    found = {}
    for path in sorted(cache.glob("models--*/**/*")):
        if path.is_symlink():
            found[str(path.relative_to(cache))] = os.readlink(path)
        elif path.is_file() and "refs" in path.parts:
            found[str(path.relative_to(cache))] = path.read_text()
        elif path.is_file() and "blobs" in path.parts:
            found[str(path.relative_to(cache))] = path.stat().st_size
    return found


IN_PYTHON = r"""
import json, os, sys
from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download, try_to_load_from_cache
task, wanted = sys.argv[1], json.loads(sys.argv[2])
for repo, names in wanted.items():
    for name in names:
        if task == "download":
            hf_hub_download(repo, name)
        else:
            cached = try_to_load_from_cache(repo, name)
            assert isinstance(cached, str), (repo, name, cached)
            assert hf_hub_download(repo, name) == cached
info = scan_cache_dir()
assert not info.warnings, info.warnings
print(json.dumps({r.repo_id: {"bytes": r.size_on_disk, "refs": sorted(r.refs),
    "files": sorted(f.file_name for v in r.revisions for f in v.files)} for r in info.repos}))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imaginal", type=Path, required=True)
    binary = parser.parse_args().imaginal.resolve()
    Handler.repos = files()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    wanted = {
        "org/gguf": ["small-Q8_0.gguf"],
        "org/tiny": [n for n in Handler.repos["org/tiny"] if n.endswith((".json", ".safetensors"))],
    }

    def env(home, **more):
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_")) and "proxy" not in k.lower()}
        return keep | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_TOKEN": "hush", "HF_HUB_DISABLE_XET": "1",
                       "IMAGINAL_ALIASES": str(home / "none.toml")} | more

    def imaginal(home, *args, **more):
        done = subprocess.run([binary, *args, "--json"], env=env(home, **more), cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def python(home, task, **more):
        done = subprocess.run([sys.executable, "-c", IN_PYTHON, task, json.dumps(wanted)], env=env(home, **more),
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        ours, theirs = Path(a), Path(b)
        imaginal(ours, "pull", "org/gguf", "org/tiny")
        seen = python(ours, "find", HF_HUB_OFFLINE="1")
        assert {r: sorted(n) for r, n in wanted.items()} == {r: v["files"] for r, v in seen.items()}, seen
        assert all(v["refs"] == ["main"] for v in seen.values()), seen
        print("huggingface_hub finds, offline, what imaginal pulled:", {r: v["bytes"] for r, v in seen.items()})

        python(theirs, "download")
        listed = {m["name"]: m for m in imaginal(theirs, "list", HF_HUB_OFFLINE="1")["models"] if m["source"] == "cache"}
        assert set(listed) == {"org/gguf:Q8_0", "org/tiny:safetensors"}, listed
        for name in ["org/gguf", "org/gguf:Q8_0", "org/tiny"]:
            shown = imaginal(theirs, "show", name, HF_HUB_OFFLINE="1")
            assert shown["path"].startswith(str(theirs)), shown["path"]
        again = imaginal(theirs, "pull", "org/gguf", "org/tiny")["models"]
        assert all(m["downloaded"] == 0 for m in again), again
        assert tree(ours / "hub") == tree(theirs / "hub"), (tree(ours / "hub"), tree(theirs / "hub"))
        print("imaginal finds what huggingface_hub downloaded; both caches have the same", len(tree(ours / "hub")), "entries")

        # The lock that huggingface_hub holds while it writes a blob.
        sha = etag("small-Q8_0.gguf", Handler.repos["org/gguf"]["small-Q8_0.gguf"])
        imaginal(ours, "rm", "org/gguf")
        lock = ours / "hub/.locks/models--org--gguf" / f"{sha}.lock"
        hold = (f"import time; from huggingface_hub.utils import WeakFileLock\nimport pathlib; p = pathlib.Path({str(lock)!r})\n"
                "p.parent.mkdir(parents=True, exist_ok=True)\n"
                "with WeakFileLock(p): print('held', flush=True); time.sleep(3)")
        holder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
        holder.stdout.readline()
        start = time.time()
        imaginal(ours, "pull", "org/gguf")
        waited = time.time() - start
        holder.wait()
        assert waited > 2, waited
        print(f"imaginal waited {waited:.1f} s for the lock of huggingface_hub")

        imaginal(ours, "rm", "org/tiny")
        wanted.pop("org/tiny")
        seen = python(ours, "find", HF_HUB_OFFLINE="1")
        assert set(seen) == {"org/gguf"}, seen
        print("huggingface_hub reads the cache after imaginal rm")


if __name__ == "__main__":
    main()
