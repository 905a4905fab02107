"""PostgreSQL and nginx, of Debian's packages, as processes of a test: on 127.0.0.1 and free ports, in a folder of their own, stopped by their
own process ids."""

import glob
import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

from serving import Process

ROOT = Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, process, what, seconds=30):
    """Until something listens on that port."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{what} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{what} does not listen on port {port} after {seconds} s")


def postgres_programs():
    """Their folder, or None where PostgreSQL is not installed."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
    return Path(found[-1]).parent if found else None


class Postgres(Process):
    """An empty cluster with the database hemi. PostgreSQL does not run as root: then it runs as the user postgres."""

    def __init__(self, folder):
        self.folder, self.port, programs = Path(folder), free_port(), postgres_programs()
        self.as_user, options = [], {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        data = self.folder / "data"
        run = self.as_user + [str(programs / "initdb"), "-D", str(data), "-U", "hemi", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder, "max_connections": 50}
        arguments = [item for name, value in settings.items() for item in ("-c", f"{name}={value}")]
        self.log = open(self.folder / "postgres.log", "wb")
        super().__init__(self.as_user + [str(programs / "postgres"), "-D", str(data), *arguments], stdout=self.log, stderr=self.log, cwd=self.folder, **options)
        wait_for(self.port, self.process, "PostgreSQL")
        ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]  # it listens before it takes connections
        while subprocess.run(ready).returncode != 0 and self.process.poll() is None:
            time.sleep(0.05)
        subprocess.run([str(programs / "createdb"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "hemi", "hemi"], check=True)
        self.url = f"postgresql://hemi@127.0.0.1:{self.port}/hemi"

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(2)  # SIGINT: fast shutdown
            self.process.wait(30)
        super().stop()
        self.log.close()


class Nginx(Process):
    """deploy/nginx.conf, with addresses and paths changed, in front of these ports."""

    def __init__(self, folder, ports):
        self.folder, self.port = Path(folder), free_port()
        self.certificate = self.folder / "fullchain.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(self.folder / "privkey.pem"), "-out", str(self.certificate)],
                       check=True, stderr=subprocess.DEVNULL)
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        changes = {"listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;", "/etc/nginx/tls/": f"{self.folder}/", "pid /run/nginx.pid;": f"pid {self.folder}/nginx.pid;",
                   "http {": "http {\n" + "".join(f"    {name}_temp_path {self.folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))}
        changes.update({f"server hemi-{i + 1}:8000": f"server 127.0.0.1:{port}" for i, port in enumerate(ports)})
        for old, new in changes.items():
            assert old in text, old
            text = text.replace(old, new)
        conf = self.folder / "nginx.conf"
        conf.write_text(("user root;\n" if os.geteuid() == 0 else "") + text)
        self.log = open(self.folder / "nginx.log", "wb")
        program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
        super().__init__([program, "-p", str(self.folder), "-c", str(conf), "-g", "daemon off;"], stdout=self.log, stderr=self.log)
        wait_for(self.port, self.process, "nginx")
        self.url = f"https://127.0.0.1:{self.port}"

    def stop(self):
        super().stop()
        self.log.close()
