# The lean install with the service, its web app and DICOMweb: no PyTorch, no compiler, no shell script.
# docker build -t hilum .
# docker run --rm --init --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --pids-limit 256 --memory 3g -p 127.0.0.1:8000:8000 -e HILUM_TOKEN=... hilum
FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY src ./src
RUN python -m venv /opt/hilum \
    && /opt/hilum/bin/pip install --no-cache-dir ".[serve,dicomweb]" -c constraints.txt

FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="hilum" \
      org.opencontainers.image.description="Class, lung mask and evidence of chest radiographs. A research tool, not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin hilum
COPY --from=build /opt/hilum /opt/hilum
ENV PATH="/opt/hilum/bin:$PATH" \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# By number, so that an orchestrator sees that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
# Of the service; with another command, docker run --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=3); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["hilum"]
CMD ["serve", "--host", "0.0.0.0"]
