"""nginx in front of an app, as an operator would set it up for this."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

from ports import free_port, until_open

NGINX = """
user root; worker_processes 2; pid {dir}/nginx.pid; error_log {dir}/error.log; daemon off;
events {{ worker_connections 4096; }}
http {{
  map $http_upgrade $upgrade {{ default upgrade; "" ""; }}
  access_log off; tcp_nodelay on; keepalive_requests 100000000; keepalive_timeout 300;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  upstream app {{ server {upstream}; keepalive 128; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port};
    location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade;
      proxy_set_header Host $host; proxy_read_timeout 1h;
      proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
      proxy_max_temp_file_size 0; proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 128k; }} }}
}}
"""


@contextlib.contextmanager
def nginx(upstream: str) -> Iterator[tuple[int, int]]:
    """Its port and its process id."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="gitspaces-bench-") as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(NGINX.format(dir=folder, upstream=upstream, port=port))
        argv = ["nginx", "-p", folder, "-e", f"{folder}/error.log", "-c", str(config)]
        # Kernels with autogroups share CPU time out by session: it has one of its own, as quickstart's daemons have.
        process = subprocess.Popen(argv, start_new_session=True)
        try:
            until_open("nginx", ("127.0.0.1", port))
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


def workers(master: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
