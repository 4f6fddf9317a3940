# syntax=docker/dockerfile:1
FROM python:3.11-slim AS build
WORKDIR /src
COPY requirements-uv.lock ./
RUN pip install --no-cache-dir --require-hashes --requirement requirements-uv.lock
COPY pyproject.toml README.md LICENSE CHANGELOG.md requirements.lock ./
COPY schemas schemas
COPY learners learners
COPY serving serving
COPY streams streams
# Extras of the distribution: "[content]" for the content worker.
ARG EXTRAS=""
# The lock file also holds the development tools; as constraints it pins what the wheel needs.
# Bytecode belongs into the image: its user cannot write it later, and each start would compile.
RUN uv venv /opt/reelflow \
    && sed -e '/--hash=/d' -e 's/ \\$//' requirements.lock > constraints.txt \
    && uv pip install --no-cache --compile-bytecode --python /opt/reelflow/bin/python --constraint constraints.txt ".${EXTRAS}"

FROM python:3.11-slim
RUN useradd --uid 10001 --create-home reelflow
COPY --from=build /opt/reelflow /opt/reelflow
ENV PATH=/opt/reelflow/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NUMBA_CACHE_DIR=/home/reelflow/.cache/numba \
    REELFLOW_HOME=/home/reelflow/.cache/reelflow \
    REELFLOW_WORKER_STATE_DIR=/home/reelflow/state
USER reelflow
WORKDIR /home/reelflow
RUN mkdir -p .cache/numba .cache/reelflow state
ENTRYPOINT ["reelflow"]
CMD ["worker"]
