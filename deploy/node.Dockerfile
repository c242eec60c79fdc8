# A ClusterAI node in a container.
#
#   docker build -f deploy/node.Dockerfile -t clusterai-node .
#
# docs/how-to/run-a-node.md has the commands that join, run, pause and drain it, and which flags its sandbox and mesh need.

FROM python:3.11-slim-bookworm AS build
WORKDIR /opt/clusterai
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY scripts/install.py scripts/install.py
COPY src src
# The installer of `make up`, with the pins of constraints.txt: what runs here is what is tested.
RUN python scripts/install.py node

FROM python:3.11-slim-bookworm
# bubblewrap walls jobs in; gocryptfs and e2fsprogs make the disks of rented machines, the others their private network.
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap e2fsprogs fuse3 gocryptfs iproute2 iptables util-linux wireguard-go \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/clusterai --create-home clusterai \
    && chmod 700 /var/lib/clusterai
COPY --from=build /opt/clusterai /opt/clusterai
ENV PATH=/opt/clusterai/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    OMP_NUM_THREADS=1 \
    XDG_DATA_HOME=/var/lib
# Keys, journal and models: a node that loses them loses what it is owed and can't show what it is asked for.
VOLUME /var/lib/clusterai
WORKDIR /var/lib/clusterai
# No root: answers need none. Each job has a user of its own only where the node is root.
USER clusterai
# The daemon drains on SIGTERM.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=60s --timeout=20s --start-period=300s CMD ["python", "-c", "import json,sys,time; it=json.load(open('/var/lib/clusterai/node/state/status.json')); sys.exit(not any(link['up'] for link in it['links']))"]
CMD ["python", "-m", "clusterai.node", "--config", "/var/lib/clusterai/node/node.json"]
