# One image; the processes (api, worker, beat) differ only in their command.
FROM python:3.12-slim AS build

ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir uv==0.13.9 && python -m venv /opt/wardround
WORKDIR /source
# First what changes seldom. The lock only constrains here: what it names for tests and linters stays out.
COPY pyproject.toml requirements.lock ./
RUN uv pip install --python /opt/wardround/bin/python --requirements pyproject.toml --constraints requirements.lock
COPY README.md LICENSE ./
COPY backend backend
COPY evidence evidence
COPY migrations migrations
COPY model model
COPY protocols protocols
COPY simulation simulation
COPY strategies strategies
RUN uv pip install --python /opt/wardround/bin/python --no-deps .

FROM python:3.12-slim

RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin wardround \
    && install --directory --owner wardround --group wardround --mode 0700 /data
COPY --from=build /opt/wardround /opt/wardround
ENV PATH=/opt/wardround/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    WARDROUND_DATA_DIR=/data \
    WARDROUND_API_HOST=0.0.0.0
USER wardround
WORKDIR /data
VOLUME /data
EXPOSE 9090
ENTRYPOINT ["wardround"]
CMD ["--help"]
