"""A Google Cloud Storage of this machine's own: gcp-storage-emulator, with preconditions and rights, which it has not.

python tests/bucket_server.py PORT      # then set the variables that it prints, and give --workdir=gs://bucket/run
"""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import HTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.server import RequestHandler
from gcp_storage_emulator.storage import Storage

BUCKET, READ_ONLY = "bucket", "read-only"
MISSING = "0"  # the generation of an object that is not there


class Server(HTTPServer):
    """Answers one request after the other, and keeps their first lines."""

    request_queue_size = 128

    def __init__(self, port: int = 0) -> None:
        self.requests: list[str] = []
        self.storage = Storage(use_memory_fs=True)
        for bucket in (BUCKET, READ_ONLY):
            create_bucket(bucket, self.storage)
        super().__init__(("localhost", port), partial(Handler, self.storage))

    @property
    def environment(self) -> dict[str, str]:
        """What leads gcsfs and tensorstore here, with nobody's account."""
        address = f"http://localhost:{self.server_port}"
        return {
            "STORAGE_EMULATOR_HOST": address,
            "TENSORSTORE_GCS_HTTP_URL": address,
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # kinds of buckets that the emulator does not know
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "nobody",
        }

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed does not wait for its answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(RequestHandler):
    def do_GET(self) -> None:
        self.server.requests.append(self.requestline)
        super().do_GET()

    def do_POST(self) -> None:
        self.server.requests.append(self.requestline)
        self._unless_refused(super().do_POST)

    def do_DELETE(self) -> None:
        self.server.requests.append(self.requestline)
        self._unless_refused(super().do_DELETE)

    def end_headers(self) -> None:
        """Tensorstore asks for the generation of what it reads, to write over that alone."""
        if self.command == "GET" and (generation := self._generation()) != MISSING:
            self.send_header("x-goog-generation", generation)
        super().end_headers()

    def _unless_refused(self, answer: Callable[[], None]) -> None:
        bucket, _, query = self._asked()
        if bucket == READ_ONLY:
            self._refuse(HTTPStatus.FORBIDDEN, "nobody does not have storage.objects.create access")
        elif query.get("ifGenerationMatch", [self._generation()])[0] != self._generation():
            self._refuse(HTTPStatus.PRECONDITION_FAILED, "another generation")
        else:
            answer()

    def _asked(self) -> tuple[str, str, dict[str, list[str]]]:
        """Bucket, object and query of a request."""
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        bucket, _, name = url.path.partition("/b/")[2].partition("/o")
        return bucket, unquote(name.removeprefix("/")) or query.get("name", [""])[0], query

    def _generation(self) -> str:
        bucket, name, _ = self._asked()
        found = self.storage.objects.get(bucket, {}).get(name)
        return found["generation"] if found else MISSING

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = json.dumps({"error": {"code": status.value, "message": message}}).encode()
        self.send_response(status.value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving() -> Iterator[Server]:
    """A server in a thread."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


if __name__ == "__main__":
    server = Server(int(sys.argv[1]))
    print("\n".join(f"export {name}={value}" for name, value in server.environment.items()), flush=True)
    server.serve_forever()
