# Serves a bundle: no PyTorch inside. What is mounted is the folder above it, so that another bundle can take its name while
# the server runs; a folder that is mounted itself stays mounted wherever it is moved.
#   docker build -t dllm2rec .
#   docker run --name serving -p 8000:8000 -v "$PWD/work:/work:ro" dllm2rec /work/bundle
#   mv work/bundle work/old && mv work/new work/bundle && docker kill --signal HUP serving
FROM python:3.12-slim AS build
RUN pip install --no-cache-dir uv
WORKDIR /app
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY src src
RUN uv sync --frozen --no-default-groups --no-editable --extra http

FROM python:3.12-slim
RUN useradd --system --uid 10001 dllm2rec
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER dllm2rec
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=2)"]
ENTRYPOINT ["dllm2rec", "serve", "--host", "0.0.0.0"]
