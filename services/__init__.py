"""What the service does, one noun a module. Nothing here knows of HTTP routes."""

import sys

# redis imports this part of OpenTelemetry's SDK where it finds it, which is 2 MB and 40 ms for what nothing here uses;
# None says that there is none (docs.python.org/3/reference/import.html, the module cache).
sys.modules.setdefault("opentelemetry.sdk.metrics", None)  # type: ignore[arg-type]
