# One image for every process: `serve` by default, or `work`, `migrate`, `seed`, `token ...` as the command.
ARG PYTHON_VERSION=3.13

FROM python:${PYTHON_VERSION}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/tollgate
WORKDIR /src
COPY requirements.lock ./
RUN /opt/tollgate/bin/pip install --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md ./
COPY app ./app
COPY workers ./workers
COPY seed ./seed
COPY tollgate ./tollgate
COPY prisma ./prisma
RUN /opt/tollgate/bin/python -m compileall -q app workers seed tollgate

FROM python:${PYTHON_VERSION}-slim
RUN groupadd --gid 10001 tollgate && useradd --uid 10001 --gid tollgate --home-dir /var/lib/tollgate-data --create-home tollgate
COPY --from=build /opt/tollgate /opt/tollgate
COPY --from=build /src /src
RUN /opt/tollgate/bin/pip install --no-deps --no-build-isolation --no-index --editable /src
ENV PATH=/opt/tollgate/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TOLLGATE_HOST=0.0.0.0 \
    TOLLGATE_PORT=8000 \
    TOLLGATE_DATA_DIR=/var/lib/tollgate-data \
    TOLLGATE_LOG_FORMAT=json
WORKDIR /var/lib/tollgate-data
USER 10001:10001
VOLUME /var/lib/tollgate-data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['TOLLGATE_PORT']}/healthz\", timeout=4)"]
ENTRYPOINT ["tollgate"]
CMD ["serve"]
